import copy
import dataclasses

import pytest
import torch
import transformers
from stock import backbone

from iptkit.engine import limits
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.mask_engine import MaskEngine
from iptkit.engine.prompt import Prompt
from iptkit.methods import prompt_tuning
from iptkit.methods.heads import FixedHead
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.scores import evaluation
from iptkit.scores.metrics import METRICS
from iptkit.tasks import examples, suites
from iptkit.tasks.wordings import Verbalizer
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


# ---- log-likelihoods ----------------------------------------------------------------------------------
TAGS = ("name", "other", "thing")
TAGGED = (
    ("Ben sees the duck", "name other other thing"),
    ("Cara has a drill and one frog", "name other other thing other other thing"),
    ("Leo sees food", "name other thing"),
)
SPANS = (("the duck", "Ben sees the duck"), ("a drill", "Cara has a drill"), ("frog", "Leo sees one frog"))


def with_examples(task, rows, **changes):
    sets = dict.fromkeys(("train", "train_new", "dev", "test"), tuple(rows))
    return dataclasses.replace(task, **sets, **changes)


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def words_scored(name):
    """An engine that answers in words, and tasks with options, with free answers, and with both."""
    mood, plural = suites.load_suite("tiny", only=["tiny-mood", "tiny-plural"])
    both = with_examples(plural, [*mood.dev[:5], *plural.dev[:4]], metric="exact_match")
    return Engine(backbone(name, "float64")), FixedPrompt(random(3, 4, 32)), [mood, plural, both]


def heads_scored(kind):
    mood, three = suites.load_suite("tiny", only=["tiny-mood", "tiny-kind"])
    engine, head = HeadEngine(backbone("tiny-encoder", "float64")), FixedHead(random(2, 5, 33))
    if kind == "classes":
        return engine, head, [mood, three]
    if kind == "tags":
        rows = [examples.TaggedExample(text, (tags,), (), TAGS) for text, tags in TAGGED]
        of = with_examples(mood, rows, category="tag", metric="tag_accuracy", labels=TAGS)
    else:
        rows = [examples.SpanExample("", (a,), (), "What is it?", p, p.index(a)) for a, p in SPANS]
        of = with_examples(mood, rows, category="qa", metric="exact_match", labels=())
    return engine, head, [of, of]


def masks_scored():
    encoder = backbone("tiny-encoder", "float64")
    tokenizer = copy.deepcopy(encoder.tokenizer)
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    config = transformers.BertConfig(
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
        vocab_size=len(tokenizer),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.BertForMaskedLM(config).double().requires_grad_(False).eval()
    words = Verbalizer({"negative": ("sad", "bad"), "positive": ("good",)})
    engine = MaskEngine(
        dataclasses.replace(encoder, model=model, tokenizer=tokenizer), "{text} {mask} .", words
    )
    return engine, FixedPrompt(random(2, 2, 32)), [suites.load_task("tiny-mood", suite="tiny")] * 2


SCORED = {
    "causal": lambda: words_scored("tiny-causal"),
    "seq2seq": lambda: words_scored("tiny-seq2seq"),
    "classes": lambda: heads_scored("classes"),
    "tags": lambda: heads_scored("tags"),
    "spans": lambda: heads_scored("spans"),
    "masks": masks_scored,
}


@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("kind", SCORED)
def test_outcomes_have_the_score_of_evaluate_and_minus_the_loss_of_dev_scores(kind, limit):
    engine, source, of = SCORED[kind]()
    found = evaluation.outcomes(engine, source, of, "dev", limit)
    assert [one.score for one in found] == evaluation.evaluate(engine, source, of, "dev", limit)
    expected = trainer.dev_scores(engine, source, [Run(task) for task in of], limit or 1000)[:, 1].tolist()
    assert [one.log_likelihood for one in found] == pytest.approx(expected, rel=1e-9)
    assert len({round(value, 6) for value in expected}) == len(of), "each row has its own prompt and task"
    measured = evaluation.measure(engine, source, of, "dev", limit)
    assert [(one.score, one.log_likelihood) for one in measured] == [
        (one.score, one.log_likelihood) for one in found
    ]


def test_the_first_of_several_right_answers_counts(scored):
    engine, source, (mood, plural, _) = scored
    first = with_examples(plural, [dataclasses.replace(e, targets=(e.targets[0], "x")) for e in plural.dev])
    other = with_examples(plural, [dataclasses.replace(e, targets=("x", e.targets[0])) for e in plural.dev])
    plain, same, another = (
        evaluation.outcomes(engine, FixedPrompt(source.P[:1]), [task], "dev")[0]
        for task in (plural, first, other)
    )
    assert plain.log_likelihood == same.log_likelihood != another.log_likelihood


class Counted(Tied):
    """An engine that counts the rows of its forward passes and of its greedy decoding."""

    def __init__(self, engine):
        super().__init__(engine)
        self.passed = self.decoded = 0

    def log_likelihoods(self, prompt, rows):
        self.passed += len(rows)
        return self.engine.log_likelihoods(prompt, rows)

    def greedy(self, prompt, rows, most):
        self.decoded += len(rows)
        return self.engine.greedy(prompt, rows, most)


def test_free_answers_take_one_more_forward_pass_and_only_where_it_is_asked_for(scored):
    engine, source, of = scored
    counts = {}
    for name in ("evaluate", "outcomes", "measure"):
        counted = Counted(engine)
        getattr(evaluation, name)(counted, source, of, limit=5)
        counts[name] = (counted.passed, counted.decoded)
    assert counts == {"evaluate": (10, 5), "outcomes": (15, 5), "measure": (15, 5)}


def test_log_likelihoods_that_are_not_finite_raise(scored):
    engine, source, of = scored
    values = source.P[:2].clone()
    values[1, 2, 3] = torch.nan
    for function in (evaluation.outcomes, evaluation.measure):
        with pytest.raises(DivergedError, match="have nan as scores"):
            function(Tied(engine, nan=True), source, of)
        with pytest.raises(DivergedError, match="the prompt for '.+' has values that are not finite"):
            function(engine, FixedPrompt(values), [of[1]] * 2)
        with pytest.raises(
            DivergedError, match="task tiny-plural: the right answer to '.+' has .* nan: .*rate"
        ):
            function(Tied(engine, nan=True), FixedPrompt(source.P[:1]), [of[1]])
        with pytest.raises(ValueError, match="2 tasks were given, but this FixedPrompt has 3 runs"):
            function(engine, source, of[:2])


# ---- wrong calls --------------------------------------------------------------------------------------
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
    return evaluation._measured([evaluation.Answered((said,), -1.0) for said in answers], task.test, task)


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
