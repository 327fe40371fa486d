import dataclasses

import pytest
import torch
from stock import backbone

from iptkit.engine import limits
from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.methods import prompt_tuning
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.scores import evaluation
from iptkit.scores.metrics import METRICS
from iptkit.tasks import examples, suites
from iptkit.training import trainer
from iptkit.training.adam import DivergedError
from iptkit.training.runs import Run


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
    """An engine that scores all options of a row alike, except for some that score worse."""

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


def test_nan_scores_are_not_a_tie(scored):
    engine, source, of = scored
    with pytest.raises(DivergedError, match="have nan as scores"):
        evaluation.evaluate(Tied(engine, nan=True), source, of)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_prompt_that_is_not_finite_raises(scored, bad):
    """Greedy decoding would pick a word or tag even then, as argmax does among nan."""
    engine, source, (_, plural, _) = scored
    values = source.P[:2].clone()
    values[1, 2, 3] = bad
    told = "the prompt for '.+' has values that are not finite"
    evaluation.predict(engine, FixedPrompt(values[:1]), [plural])
    with pytest.raises(DivergedError, match=told):
        evaluation.predict(engine, FixedPrompt(values[1:]), [plural])
    prompt = Prompt(torch.ones(2, 0, 4), head=torch.tensor([[[0.0, bad]], [[0.0, 1.0]]]))
    assert prompt.are_finite.tolist() == [False, True]


def test_a_tie_on_dev_counts_as_chance(scored):
    engine, source, (mood, _, _) = scored
    runs = [Run(mood), Run(suites.load_task("tiny-plural", suite="tiny")), Run(mood)]
    assert trainer.dev_scores(Tied(engine), source, runs, 8)[:, 0].tolist() == [0.5, 0.0, 0.5]


def test_other_sets_than_test(scored):
    engine, source, of = scored
    assert len(evaluation.predict(engine, source, of, split="dev")[1]) == len(of[1].dev)


def test_a_random_model_scores_near_chance():
    """A random model with prompts from words scores near chance, and never outside [0, 1]."""
    engine = Engine(backbone("tiny-causal", "float32"))
    suite = suites.load_suite("tiny", max_test=16)
    words = FixedPrompt(prompt_tuning.from_words(engine.backbone, 4).expand(len(suite), -1, -1))
    scores = evaluation.evaluate(engine, words, suite)
    assert len(scores) == 8 and all(0 <= s < 0.8 for s in scores)


def test_an_empty_set_and_a_limit_below_one_are_refused(scored):
    engine, source, of = scored
    empty = [of[0], dataclasses.replace(of[1], train_new=()), of[2]]
    with pytest.raises(ValueError, match="there is no example in train_new of tiny-plural; choose another s"):
        evaluation.measure(engine, source, empty, "train_new")
    for limit in (0, -1, 2.5, "2"):
        with pytest.raises(
            ValueError, match=f"limit is {limit!r}; give a whole number of at least 1, or None"
        ):
            evaluation.measure(engine, source, of, limit=limit)


# ---- intervals over examples ------------------------------------------------------------------------
def measured(answers, task):
    return evaluation._measured([(answer,) for answer in answers], task.test, task)


def task_of(metric, targets, options=()):
    rows = tuple(examples.Example(f"text {i}", (target,), options) for i, target in enumerate(targets))
    category = "cls" if options else "qa"
    return examples.Task(
        "one", "One", category, metric, "one", 0.5, 0.5, "here", "mine", options, rows, rows, rows, rows, 0
    )


def test_a_share_of_right_answers_has_wilsons_interval():
    task = task_of("accuracy", ["a"] * 20, ("a", "b"))
    some = measured(["a"] * 15 + ["b"] * 5, task)
    assert (some.score, some.examples, some.chance) == (0.75, 20, 0.5)
    z = 1.959963984540054  # Wilson 1927, with n = 20 and p = 0.75
    middle, half = (0.75 + z * z / 40) / (1 + z * z / 20), z * (0.75 * 0.25 / 20 + z * z / 1600) ** 0.5
    assert some.low == pytest.approx(middle - half / (1 + z * z / 20))
    assert some.high == pytest.approx(middle + half / (1 + z * z / 20))
    every = measured(["a"] * 20, task)
    assert every.score == every.high == 1.0 and every.low < 0.9  # never an interval of width zero


def test_other_metrics_are_drawn_again_by_example():
    task = task_of("macro_f1", ["a", "b"] * 10, ("a", "b"))
    found = measured(["a", "b"] * 7 + ["b", "a"] * 3, task)
    assert found.score == pytest.approx(0.7) and 0.4 < found.low < 0.6 and 0.8 < found.high < 0.95
    assert found == measured(["a", "b"] * 7 + ["b", "a"] * 3, task)  # the draws have a seed
    words = task_of("token_f1", ["one two three four"] * 10)
    some = measured(["one two"] * 5 + ["three four five"] * 5, words)
    assert some.low < some.score < some.high
    assert (measured(["one"], task_of("token_f1", ["one two"])).low, some.task) == (0.0, "one")


@pytest.mark.parametrize(
    ("metric", "targets", "low"),
    [("macro_f1", ["a", "b"] * 10, 20 / 23.8415), ("mcc", ["a", "b"] * 10, 2 * 20 / 23.8415 - 1)],
)
def test_a_perfect_score_has_an_interval_wilsons_where_all_draws_are_equal(metric, targets, low):
    found = measured(targets, task_of(metric, targets, ("a", "b")))
    assert found.score == found.high == 1.0 and found.low == pytest.approx(low, abs=1e-4)  # n / (n + 1.96^2)


def test_equal_draws_never_make_an_interval_of_width_zero():
    always_a = measured(["a"] * 20, task_of("mcc", ["a", "b"] * 10, ("a", "b")))
    assert always_a.score == 0.0 and -0.5 < always_a.low < -0.3 and 0.3 < always_a.high < 0.5
    halves = measured(["one two"] * 10, task_of("token_f1", ["one three"] * 10))
    assert halves.score == 0.5 and 0.2 < halves.low < 0.3 and 0.7 < halves.high < 0.8
    never = measured(["c"] * 20, task_of("macro_f1", ["a", "b"] * 10, ("a", "b")))
    assert never.score == never.low == 0.0 and never.high == pytest.approx(1 - 20 / 23.8415, abs=1e-4)


def test_an_interval_can_be_read_in_one_line():
    task = task_of("accuracy", ["a"] * 4, ("a", "b"))
    assert (
        str(measured(["a"] * 3 + ["b"], task))
        == "one: accuracy 0.750 [0.301, 0.954] on 4 examples (chance 0.50)"
    )
