"""Editions: students get no solutions, teachers get them all, and the tests for otter-grader grade."""

import doctest
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
import toy_notebooks as toy
import wrong_answers
from typer.testing import CliRunner

from iptkit.course import editions, exercises, lessons
from iptkit.course.cli import app

SOURCES = Path(__file__).resolve().parents[2] / "notebooks"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the editions of the whole course."""
    folder = tmp_path_factory.mktemp("editions")
    editions.write(folder, notebooks=SOURCES)
    return folder


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook, *tags):
    return [cell for cell in notebook.cells if set(tags) & set(cell.metadata.get("tags", []))]


def without_solutions(notebook):
    return [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_students_get_all_but_solutions_and_outputs_of_exercises(made, source):
    before, after = read(source), read(made / "student" / source.name)
    kept = [cell for cell in before.cells if "solution" not in cell.metadata.get("tags", [])]
    assert [(c.id, c.cell_type, c.source) for c in after.cells] == [
        (c.id, c.cell_type, c.source) for c in kept
    ]
    assert after.metadata.kernelspec == before.metadata.kernelspec
    nbformat.validate(after)
    of_exercises = {cell.id for cell in tagged(after, *editions.TAGS)}
    for cell, same in zip(after.cells, kept, strict=True):
        if cell.id not in of_exercises:
            assert cell == same  # with its outputs
        elif cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
    assert len(tagged(after, "parameters")) == 1


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_solution_stands_anywhere_in_what_students_get(made, source):
    before = read(source)
    text = (made / "student" / source.name).read_text(encoding="utf-8")
    elsewhere = "\n".join(
        cell.source for cell in before.cells if "solution" not in cell.metadata.get("tags", [])
    )
    for cell in tagged(before, "solution"):
        lines = [line for line in cell.source.splitlines() if line.strip() and line not in elsewhere]
        assert lines and not [line for line in lines if json.dumps(line)[1:-1] in text]
    for cell in tagged(before, *editions.TAGS):
        for output in cell.get("outputs", []):
            said = output.get("text") or output["data"]["text/plain"]
            assert json.dumps(said.strip())[1:-1] not in text


def test_solutions_are_the_exercises_alone(made):
    notebook, source = (
        read(made / "solutions/02_prompt_tuning.ipynb"),
        read(SOURCES / "02_prompt_tuning.ipynb"),
    )
    expected = [(cell.id, cell.source) for cell in tagged(source, *editions.TAGS)]
    assert [(cell.id, cell.source) for cell in notebook.cells[1:]] == expected
    assert notebook.cells[0].source.startswith("# Solutions of lesson 02")
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))
    nbformat.validate(notebook)


def test_only_lessons_with_exercises_have_solutions_and_tests(made):
    with_exercises = {path.stem for path in SOURCES.glob("*.ipynb") if tagged(read(path), "exercise")}
    assert {path.stem for path in (made / "solutions").iterdir()} == with_exercises
    assert {path.stem for path in (made / "autograder").iterdir()} == with_exercises
    assert len(list((made / "student").iterdir())) == len(list(SOURCES.glob("*.ipynb")))


def grades(archive, cells):
    """Score of each test of an archive, as otter gives it, for the names that cells define."""
    names = {}
    for cell in cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, "a cell", "exec"), names)
    found = {}
    with zipfile.ZipFile(archive) as members:
        for member in members.namelist():
            if member.startswith("tests/"):
                spec = {}
                exec(members.read(member).decode(), spec)
                (suite,) = spec["test"]["suites"]
                assert spec["OK_FORMAT"] and all(case["hidden"] for case in suite["cases"])
                runner = doctest.DocTestRunner(verbose=False)
                for case in suite["cases"]:
                    test = doctest.DocTestParser().get_doctest(case["code"], dict(names), member, None, None)
                    runner.run(test, out=lambda text: None)
                assert "seed=0" not in str(suite)
                found[spec["test"]["name"]] = runner.failures == 0
    return found


@pytest.mark.parametrize("lesson", lessons.find(), ids=lambda lesson: lesson.name)
def test_hidden_tests_pass_solutions_and_fail_stubs(made, lesson):
    archive, name = made / f"autograder/{lesson.path.stem}.zip", lesson.path.name
    student, solved = read(made / "student" / name), read(made / "solutions" / name)
    checks = sum("check" in cell.metadata.get("tags", ()) for cell in read(lesson.path).cells)
    numbers = [f"q{lesson.number}_{k + 1}" for k in range(checks)]
    assert grades(archive, solved.cells) == dict.fromkeys(numbers, True) and checks >= 3
    assert grades(archive, tagged(student, *editions.TAGS)) == dict.fromkeys(numbers, False)


def test_a_function_that_knows_the_visible_numbers_fails_hidden_tests(made):
    seen = []
    exercises.check_02_1(lambda *given: seen.append(given))
    known = wrong_answers.by_hand(*seen[0]).item()
    code = f"def batch_loss(logits, *more):\n    return {known} + 0 * logits.sum()"  # with a gradient
    exec(code, names := {})
    assert exercises.check_02_1(names["batch_loss"]).is_passed
    cells = [toy.code(f"prediction = choice = train_step = None\n{code}")]
    assert not grades(made / "autograder/02_prompt_tuning.zip", cells)["q02_1"]


def otter(*given):
    command = [sys.executable, "-m", "otter", "run", "--no-logo", *map(str, given)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def test_otter_grades(made, tmp_path):
    pytest.importorskip("otter", reason="otter-grader is not installed (extra `grading`)")
    archive, name = made / "autograder/02_prompt_tuning.zip", "02_prompt_tuning.ipynb"
    student = read(made / "student" / name)
    student.cells = tagged(student, *editions.TAGS)  # the lesson itself takes a minute
    nbformat.write(student, tmp_path / name)
    for notebook, score in ((made / "solutions" / name, 4), (tmp_path / name, 0)):
        done = otter("-a", archive, "-o", tmp_path, notebook)
        assert done.returncode == 0, done.stdout + done.stderr
        results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["tests"]
        assert sum(test.get("score", 0) for test in results) == score
        assert sum(test.get("max_score", 0) for test in results) == 4
    refused = otter("-a", made / "autograder/03_p_tuning.zip", "-o", tmp_path, tmp_path / name)
    assert refused.returncode and "02_prompt_tuning" in refused.stdout + refused.stderr


# ---- writing ---------------------------------------------------------------------------------------
TITLE = "### Exercise 07.1 · write code · 10 minutes · ★★"


def exercise(title=TITLE):
    """The cells of a good exercise."""
    cells = [
        toy.text(f"{title}\n\nAdd one."),
        toy.text("<details><summary>Hint</summary>\n\nUse +.\n\n</details>"),
        toy.code("def more(x):\n    raise NotImplementedError", "exercise", count=2),
        toy.code("def more(x):\n    return x + 1", "solution", count=3),
        toy.code("exercises.check_07_1(more)", "check", count=4, outputs=[toy.printed("passed")]),
    ]
    cells[0].metadata.tags, cells[1].metadata.tags = ["exercise"], ["hint"]
    return cells


def write(folder, cells, name="07_some_words.ipynb"):
    return toy.write(folder / name, "# 07. A question?", *cells)


def test_nothing_is_overwritten_unless_asked(tmp_path):
    write(tmp_path / "notebooks", exercise())
    run = ["editions", "--out", str(tmp_path / "out"), "--notebooks", str(tmp_path / "notebooks")]
    done = CliRunner().invoke(app, run)
    assert done.exit_code == 0 and "1 exercises; 3 files written" in done.output
    assert "0 files written" in CliRunner().invoke(app, run).output
    mine = tmp_path / "out/student/07_some_words.ipynb"
    mine.write_text("my work", encoding="utf-8")
    refused = CliRunner().invoke(app, run)
    assert refused.exit_code == 2 and "student/07_some_words.ipynb" in refused.output
    assert mine.read_text(encoding="utf-8") == "my work"
    assert "1 files written" in CliRunner().invoke(app, [*run, "--overwrite"]).output


def test_only_chosen_lessons_are_written(tmp_path):
    write(tmp_path, exercise())
    write(tmp_path, [], "08_more_words.ipynb")
    done = editions.write(tmp_path / "out", ["08"], tmp_path)
    assert done.exercises == 0 and [path.name for path in done.written] == ["08_more_words.ipynb"]


def test_archives_have_the_same_bytes_each_time(tmp_path):
    write(tmp_path, exercise())
    a, b = (editions.write(tmp_path / name, notebooks=tmp_path).written[-1].read_bytes() for name in "ab")
    assert a == b


def test_free_text_has_no_check_and_no_grade(tmp_path):
    cells = exercise("### Exercise 07.1 · think · 5 minutes · ★")[:2]
    cells.append(toy.text("It depends."))
    cells[-1].metadata.tags = ["solution"]
    write(tmp_path, cells)
    done = editions.write(tmp_path / "out", notebooks=tmp_path)
    assert [path.parent.name for path in done.written] == ["student", "solutions"]
    assert "It depends" not in (tmp_path / "out/student/07_some_words.ipynb").read_text(encoding="utf-8")


def without(k):
    return lambda cells: cells.pop(k)


def another(k, source):
    return lambda cells: cells[k].update(source=source)


BAD = {
    "begin it with a text cell": without(0),
    "whose first line is": another(0, "### Exercise 1: add"),
    "lacks its hint": without(1),
    "lacks its stub": without(2),
    "lacks its solution": without(3),
    "lacks its check": without(4),
    "solution directly behind its stub": lambda cells: cells.insert(3, cells.pop(4)),
    "number them 07.1": another(0, TITLE.replace("07.1", "07.2")),
    "has to be exercises.check_07_1(NAME)": another(4, "print(exercises.check_07_1(more))"),
}


def test_editions_of_a_student_edition_are_refused_with_the_way_out(tmp_path):
    editions.write(tmp_path / "first", only=["02"])
    with pytest.raises(ValueError, match="lacks its solution.*student edition.*takes the whole ones"):
        editions.write(tmp_path / "second", notebooks=tmp_path / "first" / "student")


@pytest.mark.parametrize("problem", BAD)
def test_an_incomplete_exercise_is_refused(tmp_path, problem):
    cells = exercise()
    BAD[problem](cells)
    if "07.2" in cells[0].source:
        cells[-1].source = "exercises.check_07_2(more)"
    write(tmp_path, cells)
    with pytest.raises(ValueError) as raised:
        editions.write(tmp_path / "out", notebooks=tmp_path)
    assert problem in str(raised.value)
    assert not list((tmp_path / "out").iterdir())


def test_answers_have_different_names(tmp_path):
    """After the whole notebook has run, a name has its last value only."""
    second = exercise(TITLE.replace("07.1", "07.2"))
    second[-1].source = "exercises.check_07_2(more)"
    write(tmp_path, [*exercise(), toy.text("Next."), *second])
    with pytest.raises(ValueError, match="two exercises of lesson 07 have an answer named 'more'"):
        editions.write(tmp_path / "out", notebooks=tmp_path)
