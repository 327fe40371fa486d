"""Checks of exercises: solutions pass, stubs are not written yet, typical mistakes get their hints."""

import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import wrong_answers
from wrong_answers import RIGHT, WRONG

from iptkit.course import editions, exercises
from iptkit.course.exercises import answers
from iptkit.course.exercises.answers import Case, judge_function
from iptkit.course.exercises.feedback import Feedback
from iptkit.scores import claims, intervals

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
ALL = [
    one
    for path in NOTEBOOKS
    for one in editions.exercises_of(nbformat.read(path, as_version=4), path.name[:2])
]
CHECKED = [one for one in ALL if one.answer]
STUB = Feedback(False, "")


def checked(number, answer, seed=0):
    return getattr(exercises, f"check_{number.replace('.', '_')}")(answer, seed=seed)


def run_cells(exercise, *tags):
    """What the code cells of these tags define, and what the check says then."""
    names = {}
    for cell in exercise.cells:
        if cell.cell_type == "code" and set(cell.metadata.tags) & set(tags):
            exec(compile(cell.source, "a cell", "exec"), names)
    (check,) = (cell.source for cell in exercise.cells if "check" in cell.metadata.tags)
    return names, eval(check, names)


def test_the_course_has_its_exercises():
    numbers = [one.number for one in ALL]
    counts = {
        "00": 3,
        "01": 4,
        "02": 4,
        "03": 4,
        "04": 4,
        "05": 4,
        "06": 4,
        "07": 4,
        "08": 3,
        "09": 3,
        "90": 3,
    }
    assert numbers == [f"{lesson}.{k}" for lesson, count in counts.items() for k in range(1, count + 1)]
    assert [one.kind for one in ALL if one.number[:2] == "02"] == [
        "write code",
        "write code",
        "predict then run",
        "think",
    ]


@pytest.mark.parametrize("one", CHECKED, ids=lambda one: one.number)
def test_solutions_pass_by_themselves_and_stubs_are_not_written_yet(one):
    names, feedback = run_cells(one, "exercise", "solution")
    assert feedback.is_passed, feedback
    for seed in editions.HIDDEN_SEEDS:
        assert checked(one.number, names[one.answer], seed).is_passed
    _, feedback = run_cells(one, "exercise")
    assert not feedback.is_passed and feedback.message.startswith("Not written yet")


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_a_typical_mistake_gets_its_hint(number, answer, hint):
    for seed in (0, 1):
        feedback = checked(number, answer, seed)
        assert not feedback.is_passed and (hint in repr(feedback) or seed), feedback
        assert repr(feedback).startswith("not yet: ") and len(repr(feedback)) < 1000


def test_every_check_has_wrong_answers():
    assert {number for number, _, _ in WRONG} == {one.number for one in CHECKED}


@pytest.mark.parametrize(("number", "answer", "told"), RIGHT)
def test_other_ways_to_write_it_pass(number, answer, told):
    for seed in (0, 5):
        feedback = checked(number, answer, seed)
        assert feedback.is_passed and told in repr(feedback), feedback


def test_no_mistake_is_right_and_hints_tell_mistakes_apart(monkeypatch):
    """For functions: the results of all mistakes differ from the right one and from each other."""
    seen = []
    lessons = [getattr(exercises, f"lesson{n:02}") for n in range(10)]
    for module in (answers, *lessons):
        monkeypatch.setattr(module, "judge_function", lambda answer, cases, *more: seen.extend(cases) or STUB)
    functions = (
        "00.1",
        "01.3",
        "02.1",
        "02.2",
        "03.2",
        "03.3",
        "04.2",
        "05.1",
        "05.2",
        "06.1",
        "06.2",
        "07.1",
        "07.2",
        "08.1",
        "09.1",
    )
    for number in functions:
        for seed in range(3):
            checked(number, None, seed)
    assert len(seen) == 63
    for case in seen:
        results = [case.right, *case.mistakes.values()]
        for k, result in enumerate(results):
            same = [answers._is_same(other, torch.as_tensor(result).double(), case.rtol) for other in results]
            assert same == [k == j for j in range(len(results))], list(case.mistakes)[k - 1]


def test_mistakes_in_verdicts_differ_and_the_right_ones_are_those_of_claims():
    lesson = exercises.lesson90
    for seed in range(20):
        given = lesson.measurements(seed)
        right = [one.verdict() for one in given]
        assert [one.judged() for one in given] == right and set(right) == set(claims.VERDICTS)
        results = [right, *([*map(wrong, given)] for wrong in lesson.MISTAKES.values())]
        assert len({tuple(words) for words in results}) == len(results)


def test_counts_are_exact():
    right = wrong_answers.counted()
    assert not exercises.check_03_2(lambda n, d: right(n, d) + 1).is_passed


def test_the_predicted_range_is_the_measured_one():
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        vectors = torch.randn(10_000, 2304, generator=generator)
        direction = torch.randn(1, 2304, generator=generator)
        largest = torch.nn.functional.cosine_similarity(vectors, direction).max().item()
        assert exercises.check_02_3(largest).is_passed
        assert not {exercises.check_02_3(largest * factor).is_passed for factor in (0.5, 2)} - {False}


def test_the_predicted_swing_is_that_of_luck():
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        right = torch.rand(2000, 8, 40, generator=generator) < 0.6
        accuracy = right.float().mean(-1)
        swing = (accuracy.amax(1) - accuracy.amin(1)).mean().item()
        assert exercises.check_01_2(swing).is_passed
        assert not {exercises.check_01_2(swing * factor).is_passed for factor in (0.5, 1.5)} - {False}


def test_the_predicted_number_of_small_p_is_that_of_sign_patterns():
    """If a mean is 0, all sign patterns of the groups' values are equally likely."""
    sizes = np.random.default_rng(0).normal(size=10)
    patterns = [[1 if k >> i & 1 else -1 for i in range(10)] for k in range(1024)]
    p = [intervals.sign_flip({str(i): [x] for i, x in enumerate(signs * sizes)}) for signs in patterns]
    assert exercises.check_90_2(40 * np.mean(np.array(p) <= 0.05)).is_passed


def test_the_power_in_the_choice_fits_its_interval():
    error = 0.12 / intervals.student(0.0, 1.0, 11)[2]  # twelve groups, [-0.09, +0.15]
    assert round(intervals.smallest_effect(error, 11), 2) == 0.17
    assert intervals.smallest_effect(error, 11, power=0.5) > 0.10  # which is missed more often than not


def test_a_new_encoder_makes_nearly_equal_vectors():
    for seed in range(5):
        torch.manual_seed(seed)
        lstm = torch.nn.LSTM(128, 64, num_layers=2, bidirectional=True, batch_first=True)
        mlp = torch.nn.Sequential(torch.nn.Linear(128, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128))
        units = torch.nn.functional.normalize(mlp(lstm(0.1 * torch.randn(1, 6, 128))[0])[0], dim=-1)
        assert exercises.check_03_4(((units @ units.T).sum().item() - 6) / 30).is_passed


def test_the_factor_of_three_copies_is_that_of_the_kit():
    for seed in range(3):
        values = torch.randn(10, generator=torch.Generator().manual_seed(seed)).repeat_interleave(3).numpy()
        right, _ = intervals.standard_error(values, [k // 3 for k in range(30)])
        naive, _ = intervals.standard_error(values, range(30))
        feedback = exercises.check_07_3(right / naive)
        assert feedback.is_passed and f"The cell prints {right / naive:.2f}" in feedback.message


def test_the_example_for_writers_of_lessons_works():
    page = (NOTEBOOKS[0].parents[1] / "docs" / "exercises.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(compile(program, "exercises.md", "exec"), names)
    assert names["check_05_1"](lambda P: P.mean(0)).is_passed
    assert "mean over tasks" in names["check_05_1"](lambda P: P.mean(1), seed=1).message


def test_feedback_is_escaped_and_says_its_verdict_in_words():
    feedback = Feedback(False, "<script>alert(1)</script>\x1b[2J & more")
    shown = feedback._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "&amp; more" in shown
    assert "<strong>not yet:</strong>" in shown and "\x1b" not in shown + repr(feedback)


def test_words_in_backticks_are_code_in_html():
    shown = Feedback(True, "`a < b` is not `b`, and ` alone is a backtick.")._repr_html_()
    assert "<code>a &lt; b</code> is not <code>b</code>, and ` alone is a backtick." in shown


def test_settings_and_random_numbers_are_as_before():
    def unruly(x):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return x

    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert judge_function(unruly, [Case({"x": 1.0}, 1.0)], "fine").is_passed
    assert torch.equal(torch.get_rng_state(), before) and torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32


def test_gradients_are_on_even_if_the_cell_turned_them_off():
    with torch.no_grad():
        feedback = judge_function(lambda x: float(torch.ones(1, requires_grad=True).sum().requires_grad),
                                  [Case({"x": 1}, 1.0)], "fine")  # fmt: skip
    assert feedback.is_passed


def test_a_learner_can_interrupt_an_endless_loop():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge_function(interrupted, [Case({}, 1.0)], "fine")


def test_the_line_is_that_of_the_learners_code_and_not_of_a_library():
    def deep(x):
        return torch.stack([x, torch.zeros(3)])

    feedback = judge_function(deep, [Case({"x": torch.zeros(2)}, 1.0)], "fine")
    assert (
        "RuntimeError" in feedback.message and "`return torch.stack([x, torch.zeros(3)])`" in feedback.message
    )


def test_endless_recursion_and_a_list_of_itself_end():
    def calls_itself(x):
        return calls_itself(x)

    def holds_itself(x):
        found = []
        found.append(found)
        return found

    def holds_huge_parts(x):
        return [torch.zeros(1).expand(10**12)]

    for answer, told in (
        (calls_itself, "RecursionError"),
        (holds_itself, "a list"),
        (holds_huge_parts, "a list"),
    ):
        feedback = judge_function(answer, [Case({"x": 1}, math.pi)], "fine")
        assert not feedback.is_passed and told in feedback.message
