import dataclasses
import math
import string
import unicodedata

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from stock import backbone

from iptkit.engine import limits
from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.methods import prompt_tuning
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.scores import evaluation, intervals, metrics
from iptkit.scores.intervals import by_task, interval, relative
from iptkit.scores.metrics import METRICS
from iptkit.tasks import examples, suites
from iptkit.tasks.examples import Example
from iptkit.training import trainer
from iptkit.training.adam import DivergedError
from iptkit.training.runs import Run


def free(*targets):
    return Example("a question", targets)


# ---- metrics ---------------------------------------------------------------------------------------
def test_accuracy_counts_accepted_answers():
    examples = [free("a"), free("b", "c"), free("b", "c"), free("d")]
    assert METRICS["accuracy"](["a", "c", "a", "D"], examples) == 0.5


def test_normalise_is_squads():
    assert metrics.normalise("  The U.S.,  a  Nation ") == "us nation"
    assert metrics.normalise("another theme") == "another theme"
    assert metrics.normalise("-.5 or .25, see p.5 ...5") == "-.5 or .25 see p5 5"


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("314", "3.14", 0.0),
        ("It is 3.14.", "it is (3.14)", 1.0),
        ("5", "-5", 0.0),
        ("\u22125", "-5", 1.0),
        ("1,000", "1000", 1.0),
        ("1,000.5", "10005", 0.0),
        ("3-5", "35", 1.0),  # a hyphen between digits is no sign: SQuAD's rule
        ("2020-05-01", "20200501", 1.0),
        ("巴黎。", "巴黎", 1.0),
        ("\u201cParis\u201d", "Paris", 1.0),
        ("l\u2019an", "lan", 0.0),
        ("U.S.", "US", 1.0),
        ("v1.2", "v12", 1.0),
    ],
)
def test_numbers_keep_their_signs_and_punctuation_of_any_script_is_none(answer, target, score):
    assert metrics.exact_match([answer], [Example("q", (target,))]) == score
    assert (metrics.token_f1([answer], [Example("q", (target,))]) == 1.0) == (score == 1.0)


def test_exact_match_looks_past_case_articles_and_stops():
    examples = [free("Paris"), free("ten", "10"), free("Leo saw a fox.")]
    assert METRICS["exact_match"](["the paris!", "10", "Leo saw a dog"], examples) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("answer", "targets", "score"),
    [
        ("a red fox", ("the red dog",), 0.5),  # one of two words on each side
        ("red red fox", ("red fox",), 0.8),  # a word counts as often as both have it
        ("blue", ("red", "dark blue"), 2 / 3),  # the best of the accepted answers
        ("", ("red",), 0.0),
        ("the", ("a",), 0.0),  # nothing is left on either side, and they are two words
        ("", ("",), 1.0),
        ("我有红书", ("我有蓝书",), 0.75),  # single characters where no blanks stand between words
    ],
)
def test_token_f1(answer, targets, score):
    assert METRICS["token_f1"]([answer], [free(*targets)]) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "targets", "score"),
    [
        ("the cat sat", ("the cat on the mat sat",), 2 * 1 * 0.5 / 1.5),
        ("sat cat the", ("the cat sat",), 1 / 3),  # order counts
        ("saw foxes", ("saw fox",), 0.5),  # no stemming
        ("x", ("y", "x"), 1.0),
        ("", ("y",), 0.0),
    ],
)
def test_rouge_l(answer, targets, score):
    assert METRICS["rouge_l"]([answer], [free(*targets)]) == pytest.approx(score)


@pytest.mark.parametrize("metric", ["exact_match", "token_f1", "rouge_l"])
def test_what_normalising_leaves_nothing_of_is_compared_as_it_stands(metric):
    for answer, target in [("-", "+"), ("", "A"), ("A", ""), ("an", "the"), ("?", "...")]:
        assert METRICS[metric]([answer], [free(target)]) == 0.0, (answer, target)
    for answer, target in [("+", "+"), (" a", "A"), ("THE", "the"), ("? !", "?  !"), ("☂", "☂")]:
        assert METRICS[metric]([answer], [free(target)]) == 1.0, (answer, target)
    assert METRICS[metric](["+"], [free("plus", "+")]) == 1.0, "the best of the accepted answers"


SCRIPTS = {
    "Chinese": ("我有一本红书", "我有一本蓝书", 5 / 6),
    "Japanese": ("ねこがすき", "いぬがすき", 3 / 5),
    "Thai": ("กขค", "กขง", 2 / 3),
    "Russian": ("три красных лисы", "три синих лисы", 2 / 3),
    "Arabic": ("كلب كبير", "قط كبير", 1 / 2),
    "Greek": ("Μία ΜΕΓΆΛΗ γάτα", "μία μικρή γάτα", 2 / 3),
    "Hindi": ("की बड़ी किताब", "का बड़ी किताब", 2 / 3),
    "Korean": ("큰 개", "작은 개", 1 / 2),
    "French": ("un élève âgé", "une élève âgée", 1 / 3),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_rouge_l_reads_every_script(script):
    text, other, score = SCRIPTS[script]
    assert metrics.rouge_l([text], [free(text)]) == 1.0
    assert metrics.rouge_l([text.swapcase()], [free(text)]) == 1.0
    assert metrics.rouge_l([text], [free(other)]) == pytest.approx(score)


def test_rouge_l_of_mixed_scripts_splits_at_their_border():
    assert metrics.RougeWords().tokenize("Ein USB接口, 2本!") == ["ein", "usb", "接", "口", "2", "本"]


@hypothesis.settings(deadline=None, derandomize=True, database=None)  # the same texts, however long they take
@given(hypothesis.strategies.text(string.printable))
def test_ascii_words_are_those_of_rouge_score(text):
    from rouge_score.tokenizers import DefaultTokenizer

    assert metrics.RougeWords().tokenize(text) == DefaultTokenizer().tokenize(text)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mcc", "exact_match", "token_f1", "rouge_l"])
def test_accents_are_the_same_however_they_are_composed(metric):
    words = ["café", "Çelik", "한글", "Ångström"]
    task = dataclasses.replace(suites.load_task("tiny-kind", suite="tiny"), labels=(), category="qa")
    for ours, theirs in (("NFC", "NFD"), ("NFD", "NFC")):
        answers = [unicodedata.normalize(ours, word) for word in words]
        examples = [free(unicodedata.normalize(theirs, word)) for word in words]
        assert METRICS[metric](answers, examples, task) == 1.0


def test_macro_f1_is_the_mean_over_the_label_set():
    task = suites.load_task("tiny-kind", suite="tiny")  # animal, food, tool
    examples = [free(t) for t in ("animal", "animal", "animal", "food")]
    answers = ["animal", "animal", "food", "food"]
    # animal: P 1, R 2/3 -> 0.8;  food: P 1/2, R 1 -> 2/3;  tool never occurs -> 0
    assert METRICS["macro_f1"](answers, examples, task) == pytest.approx((0.8 + 2 / 3) / 3)
    outside = METRICS["macro_f1"](["animal", "animal", "nonsense", "food"], examples, task)
    assert outside == pytest.approx((0.8 + 1) / 3), "a string outside the label set is a miss, not a label"


def test_mcc():
    examples = [free(t) for t in ("y", "y", "y", "n", "n", "n")]
    answers = ["y", "y", "n", "n", "n", "y"]  # tp 2, fn 1, tn 2, fp 1
    assert METRICS["mcc"](answers, examples) == pytest.approx((4 - 1) / math.sqrt(3 * 3 * 3 * 3))
    assert METRICS["mcc"](["y"] * 6, examples) == 0.0
    assert METRICS["mcc"](["n"] * 3 + ["y"] * 3, examples) == -1.0


def test_span_f1_counts_whole_spans_of_the_right_kind():
    examples = [Example("a b c d", ("B-x I-x O B-y",)), Example("a b", ("B-x B-x",))]
    assert metrics.span_f1(["B-x I-x O B-y", "B-x B-x"], examples) == 1.0
    assert metrics.span_f1(["B-x O O B-y", "B-x B-x"], examples) == pytest.approx(3 / 4), "cut short"
    assert metrics.span_f1(["B-x I-x O B-x", "B-x I-x"], examples) == pytest.approx(2 * 1 / (4 + 3))
    assert metrics.span_f1(["O O O O", "O O"], examples) == 0.0
    assert metrics.span_f1(["I-x I-x O B-y", "B-x B-x"], examples) == pytest.approx(2 * 3 / (4 + 3)), (
        "a span begins with B-"
    )


def test_tag_accuracy_counts_words():
    examples = [Example("a b c", ("x y x",)), Example("a", ("y",))]
    assert metrics.tag_accuracy(["x x x", "y"], examples) == pytest.approx(3 / 4)
    assert metrics.tag_accuracy(["x y", "y"], examples) == pytest.approx(3 / 4), "no tag is a wrong tag"


def test_every_metric_of_the_task_cards_exists():
    assert set(examples.METRICS) <= set(METRICS)


# ---- predict and evaluate --------------------------------------------------------------------------
@pytest.fixture(scope="module")
def scored():
    """Two tasks, one of them twice, each with its own random prompt."""
    engine = Engine(backbone("tiny-causal", "float32"))
    mood, plural = suites.load_suite("tiny", only=["tiny-mood", "tiny-plural"], max_test=10)
    prompt = torch.randn(3, 4, 32, generator=torch.Generator().manual_seed(2))
    return engine, FixedPrompt(prompt), [mood, plural, mood]


def test_predict_takes_the_likeliest_option_or_the_greedy_answer(scored):
    engine, source, of = scored
    answers = evaluation.predict(engine, source, of, limit=6)
    assert [len(a) for a in answers] == [6, 6, 6]
    for r in (0, 2):
        for answer, example in zip(answers[r], of[r].test[:6], strict=True):
            scores, _ = engine.log_likelihoods(Prompt(source.P[r : r + 1]), [engine.option_row(example)])
            assert answer == example.options[scores[0].argmax()]
    longest = max(len(engine.target_row(e).answers[0]) for e in of[1].train)
    for answer, example in zip(answers[1], of[1].test[:6], strict=True):
        row = engine.target_row(example)
        assert [answer] == engine.greedy(Prompt(source.P[1:2]), [row], [longest + 2])
    assert answers[0] != answers[2], "each row answers with its own prompt"


def test_the_cap_of_an_answer_comes_from_training(scored):
    engine, _, of = scored
    assert limits.answer_cap(engine, of[1]) == 4  # one word and the end, and two more
    long = examples.Example("a question", ("ten " * 200,))
    assert limits.answer_cap(engine, type("Stub", (), {"train": [long]})) == limits.MAX_ANSWER_TOKENS


def test_evaluate_scores_by_the_metric_of_each_task(scored, monkeypatch):
    engine, source, of = scored
    wanted = [[e.targets[0] for e in task.test[:4]] for task in of]
    wanted[2] = ["neither"] * 4
    monkeypatch.setattr(evaluation, "_likeliest", lambda *args: [[(a,) for a in said] for said in wanted])
    monkeypatch.setitem(METRICS, "exact_match", lambda answers, examples, task: len(examples) / 100)
    assert evaluation.evaluate(engine, source, of, limit=4) == [1.0, 0.04, 0.0]


class Tied:
    """An engine whose options all score alike but for some of each row."""

    def __init__(self, engine, worse=(), nan=False):
        self.engine, self.worse, self.nan = engine, set(worse), nan

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def log_likelihoods(self, prompt, rows):
        scores, tokens = self.engine.log_likelihoods(prompt, rows)
        flat = torch.where(tokens > 0, -1.0, scores)
        for k in self.worse:
            flat[:, k] -= 1
        return (flat * torch.nan if self.nan else flat), tokens


def test_a_tie_counts_as_chance(scored):
    engine, source, (mood, plural, _) = scored
    kind = suites.load_task("tiny-kind", suite="tiny")
    where, three = suites.load_suite("tiny", only=["tiny-mood"])[0], [mood, plural, kind]
    assert evaluation.evaluate(Tied(engine), source, three)[::2] == pytest.approx([1 / 2, 1 / 3])
    named = ["animal" in (e.targets[0]) for e in kind.test]
    expected = (1 - sum(named) / len(named)) / 2  # food and tool are tied, animal is behind them
    assert evaluation.evaluate(Tied(engine, {0}), source, three)[2] == pytest.approx(expected)
    as_f1 = [dataclasses.replace(where, metric=name) for name in ("macro_f1", "mcc", "exact_match")]
    assert evaluation.evaluate(Tied(engine), source, as_f1) == pytest.approx([0.5, 0.0, 0.5])
    said = evaluation.predict(Tied(engine), source, three)[2]
    assert max(said.count(option) for option in kind.labels) <= len(said) / 3 + 1, "never always the first"


def test_scores_that_are_no_numbers_are_no_tie(scored):
    engine, source, of = scored
    with pytest.raises(DivergedError, match="have scores that are no numbers"):
        evaluation.evaluate(Tied(engine, nan=True), source, of)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_prompt_that_is_not_finite_answers_nothing(scored, bad):
    """A word or a tag can be picked even then: of scores that are no numbers argmax takes one."""
    engine, source, (_, plural, _) = scored
    numbers = source.P[:2].clone()
    numbers[1, 2, 3] = bad
    told = "the prompt for '.+' holds numbers that are not finite"
    evaluation.predict(engine, FixedPrompt(numbers[:1]), [plural])
    with pytest.raises(DivergedError, match=told):
        evaluation.predict(engine, FixedPrompt(numbers[1:]), [plural])
    prompt = Prompt(torch.ones(2, 0, 4), head=torch.tensor([[[0.0, bad]], [[0.0, 1.0]]]))
    assert prompt.are_finite.tolist() == [False, True]


def test_a_tie_on_dev_counts_as_chance(scored):
    engine, source, (mood, _, _) = scored
    runs = [Run(mood), Run(suites.load_task("tiny-plural", suite="tiny")), Run(mood)]
    assert trainer.dev_scores(Tied(engine), source, runs, 8)[:, 0].tolist() == [0.5, 0.0, 0.5]


def test_weights_of_answers():
    examples, answers = [free("a"), free("a"), free("b")], ["a", "b", "b"]
    for metric in ("accuracy", "exact_match", "token_f1", "rouge_l"):
        words = ["red", "fox", "fox"], [free("red"), free("red"), free("fox")]
        assert METRICS[metric](*words, None, [0.5, 0.5, 1.0]) == pytest.approx(0.75)
    task = dataclasses.replace(suites.load_task("tiny-mood", suite="tiny"), labels=("a", "b"))
    # a: P 1, R 1/2 -> 2/3;  b: P 1/1.5, R 1 -> 0.8
    assert METRICS["macro_f1"](answers, examples, task, [0.5, 0.5, 1.0]) == pytest.approx((2 / 3 + 0.8) / 2)
    assert METRICS["mcc"](answers, examples, task, [0.5, 0.5, 1.0]) == pytest.approx(0.5 / (0.5 * 1.5) ** 0.5)


def test_other_sets_than_test(scored):
    engine, source, of = scored
    assert len(evaluation.predict(engine, source, of, split="dev")[1]) == len(of[1].dev)


def test_the_right_answers_can_be_learned():
    """From prompts of words alone a random model knows nothing: near chance, never a score outside [0, 1]."""
    engine = Engine(backbone("tiny-causal", "float32"))
    suite = suites.load_suite("tiny", max_test=16)
    words = FixedPrompt(prompt_tuning.from_words(engine.backbone, 4).expand(len(suite), -1, -1))
    scores = evaluation.evaluate(engine, words, suite)
    assert len(scores) == 8 and all(0 <= s < 0.8 for s in scores)


# ---- relative performance --------------------------------------------------------------------------
def test_relative_performance():
    assert relative(0.6, 0.8) == pytest.approx(0.75)
    assert relative(0.6, 0.8, floor=0.5) == pytest.approx(1 / 3)
    assert relative(0.9, 0.8) == pytest.approx(1.125), "a method may be better than prompt tuning"
    assert relative(0.4, 0.8, floor=0.5) == pytest.approx(-1 / 3), "or worse than guessing"


@pytest.mark.parametrize(
    ("reference", "floor"), [(0.0, 0.0), (-0.3, 0.0), (0.04, 0.0), (0.5, 0.5), (0.4, 0.5), (0.54, 0.5)]
)
def test_relative_performance_needs_a_reference_above_its_floor(reference, floor):
    assert relative(0.6, reference, floor) is None


def test_least_is_the_smallest_denominator_allowed():
    assert relative(0.5, 0.05) == pytest.approx(10.0)
    assert relative(0.5, 0.3, least=0.4) is None


def test_interval_of_known_values():
    assert interval([[0.5, 0.5], [0.5, 0.5]]) == (0.5, 0.5, 0.5)
    mean, low, high = interval([[0.0], [0.0, 0.0], [1.0], [1.0]])
    half = 3.18245 * (1 / 3) ** 0.5 / 2
    assert mean == 0.5 and (high - mean, mean - low) == pytest.approx((half, half), rel=1e-4), "Student's t"
    few = interval([[0.0, 1.0, 0.5]])  # t with 2 degrees of freedom, standard error 0.5 / sqrt(3)
    assert few == pytest.approx((0.5, 0.5 - 4.3027 * 0.28868, 0.5 + 4.3027 * 0.28868), abs=1e-4)
    two = interval([[0.0, 1.0, 0.5], [0.2, 0.2, 0.2]])  # 4 degrees of freedom, half the standard error
    assert two == pytest.approx((0.35, 0.35 - 2.7764 * 0.14434, 0.35 + 2.7764 * 0.14434), abs=1e-4)
    mean, *edges = interval([[0.0], [1.0]])
    assert mean == 0.5 and all(map(math.isnan, edges)), "with one seed nothing is known"
    mean, low, high = interval([[0.0, 0.0, 0.0], [1.0]])
    assert mean == 0.5, "tasks weigh the same, however many seeds they have"
    assert interval([[], [0.2, 0.2]]) == pytest.approx((0.2, 0.2, 0.2))


def test_interval_is_as_wide_as_theory_says():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 1, generator=generator, dtype=torch.float64)
    mean, low, high = interval(values.tolist())
    half = 1.96 * values.std(correction=0).item() / 40**0.5
    assert mean == pytest.approx(values.mean().item())
    assert high - mean == pytest.approx(half, rel=0.15) and mean - low == pytest.approx(half, rel=0.15)
    narrow = interval(values.tolist(), level=0.5)
    assert low < narrow[1] < mean < narrow[2] < high
    assert interval(values.tolist()) == (mean, low, high) != interval(values.tolist(), seed=1)


@pytest.mark.parametrize("num_tasks", [4, 12, 40])
def test_intervals_hold_the_truth_about_as_often_as_they_say(num_tasks):
    values = torch.randn(400, num_tasks, 3, generator=torch.Generator().manual_seed(1)).mul(0.3)
    values += torch.randn(400, num_tasks, 1, generator=torch.Generator().manual_seed(2))
    held = [low <= 0 <= high for _, low, high in (interval(v.tolist(), draws=400) for v in values)]
    assert 0.925 <= sum(held) / len(held) <= 0.975


def test_interval_without_values():
    for nothing in ([], [[], []]):
        with pytest.raises(ValueError, match="interval got no values; every task was left out"):
            interval(nothing)


def test_by_task_keeps_the_order_and_leaves_out_missing_values():
    rows = [{"task": t, "score": s} for t, s in (("b", 1.0), ("a", 2.0), ("b", None), ("b", 3.0))]
    assert by_task(rows) == {"b": [1.0, 3.0], "a": [2.0]}


def test_tasks_of_a_group_count_as_one():
    """Siblings with the same score say no more than one of them, and the mean stays that over tasks."""
    alone = [[0.1], [0.4], [0.5], [0.9], [0.7]]
    twice, labels = [v for v in alone for _ in "ab"], [name for name in "vwxyz" for _ in "ab"]
    assert intervals.interval(twice, groups=labels) == pytest.approx(intervals.interval(alone))
    assert intervals.interval(alone, groups=list("vwxyz")) == intervals.interval(alone)
    narrow, wide = intervals.interval(twice), intervals.interval(twice, groups=labels)
    assert wide[0] == pytest.approx(narrow[0]) and wide[2] - wide[1] > 1.2 * (narrow[2] - narrow[1])
    uneven = [[1.0], [1.0], [1.0], [0.0], [0.0], [0.0]]
    assert intervals.interval(uneven, groups=list("aaabcd"))[0] == 0.5, "over tasks, not over groups"


def test_many_groups_are_drawn_together():
    scores = [[float(x)] for x in np.random.default_rng(0).normal(size=40)]
    twice, labels = [v for v in scores for _ in "ab"], [i for i in range(40) for _ in "ab"]
    alone, together = intervals.interval(scores), intervals.interval(twice, groups=labels)
    assert together == pytest.approx(alone, abs=0.03)
    as_if = intervals.interval(twice)
    assert (together[2] - together[1]) / (as_if[2] - as_if[1]) == pytest.approx(2**0.5, rel=0.1)


def test_over_tasks_takes_the_groups_from_the_rows():
    scores = {"b": [0.1, 0.2], "a": [0.5, 0.4], "d": [0.9, 0.7], "c": [0.6, 0.6], "e": [0.3, 0.1]}
    rows = [{"task": t, "group": g, "score": 0.0} for t, g in zip("abcde" * 2, "xxyyz" * 2, strict=True)]
    values = list(scores.values())
    assert intervals.over_tasks(scores, rows) == intervals.interval(values, groups=list("xxyyz"))
    assert intervals.over_tasks(scores, [{"task": t} for t in "abcde"]) == intervals.interval(values)
    some = [row if row["task"] != "d" else {"task": "d"} for row in rows]
    with pytest.raises(
        ValueError, match="rows of d name no leakage group, others do; put `group` of the task"
    ):
        intervals.over_tasks(scores, some)


def test_few_groups_say_little_of_others():
    """Six tasks of two groups: one degree of freedom; of one group: over the seeds of these tasks alone."""
    values = [[0.1 * i, 0.1 * i + 0.02] for i in range(6)]
    mean, low, high = intervals.interval(values, groups=list("aaabbb"))
    assert mean == pytest.approx(0.26) and high - low > 3
    _, low, high = intervals.interval(values, groups=list("aaaaaa"))
    assert 0 < high - low < 0.05
