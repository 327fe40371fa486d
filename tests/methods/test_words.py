import math

import pytest
import torch
from stock import LAYOUTS, backbone, plain_log_likelihoods

from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.methods import word_search, words
from iptkit.methods.prompt_tuning import word_tokens
from iptkit.studies.lesson01 import accuracy
from iptkit.tasks import suites
from iptkit.tasks.examples import Example
from iptkit.tasks.wordings import Template, Verbalizer, Wording
from iptkit.training.runs import Run, draw

WORDING = Wording(
    Template("{text} Answer: {answer}"), Verbalizer({"negative": ("bad", "sad"), "positive": ("good",)})
)


@pytest.fixture
def words_only():
    return Engine(backbone("tiny-causal", "float64"), LAYOUTS[1])


def test_options_are_scored_as_the_stock_model_scores_them(words_only):
    examples = [
        Example("I had a sad trip.", ("bad",), ("bad", "good trip", "a sad sweet story")),
        Example("The drill", ("one",), ("one", "two")),
    ]
    found = words.option_scores(words_only, examples)
    rows = [words_only.option_row(e) for e in examples]
    none = words_only.backbone.embedding[:0]
    expected = plain_log_likelihoods(words_only.backbone, LAYOUTS[1], [none, none], rows)
    for line, stock in zip(found, expected, strict=True):
        torch.testing.assert_close(line, stock.detach())


def test_without_a_prompt_both_layouts_are_the_plain_row(words_only):
    examples = [Example("I had a sad trip.", ("bad",), ("bad", "good trip"))]
    found = [words.option_scores(Engine(words_only.backbone, layout), examples)[0] for layout in LAYOUTS]
    torch.testing.assert_close(*found)


def test_rows_that_begin_alike_are_scored_as_if_each_were_alone(words_only):
    shots = [({"text": "I had a sweet story."}, "positive"), ({"text": "One more drill."}, "negative")]
    texts = ["I had a sad trip.", "I had a sad trip.", "The drill", "I had the animal"]
    asked = [WORDING.ask({"text": text}, shots) for text in texts] + [WORDING.ask({"text": texts[0]})]
    found = words.option_scores(words_only, asked)
    sizes = [row.shared for row in words_only.share([words_only.option_row(e) for e in asked])]
    assert min(sizes[:4]) > 10 and sizes[4] == 0
    assert words_only.beginnings.used_bytes > 0 and words_only.contexts.used_bytes == 0
    rows = [words_only.option_row(e) for e in asked]
    none = words_only.backbone.embedding[:0]
    expected = plain_log_likelihoods(words_only.backbone, LAYOUTS[1], [none] * len(rows), rows)
    for line, stock in zip(found, expected, strict=True):
        torch.testing.assert_close(line, stock.detach())


def test_a_mixed_model_shares_beginnings_without_rounding_them():
    """Other rows of a batch change a score by rounding only; keys in bfloat16 would change it more."""
    engine = Engine(backbone("tiny-causal", "mixed"), LAYOUTS[1])
    asked = [
        Example(f"I had a sad trip. The {word}", ("one",), ("one", "two"))
        for word in ("drill", "trip", "animal")
    ]
    together = words.option_scores(engine, asked)
    assert {t.dtype for t in engine.beginnings.kept.values()} == {torch.float32}
    alone = [words.option_scores(engine, [example])[0] for example in asked]
    assert engine.beginnings.kept == {}, "a row alone shares nothing"
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shared_rows_refuse_a_prompt(layout):
    engine = Engine(backbone("tiny-causal", "float64"), layout)
    examples = [
        Example(f"I had a sad trip. The {word}", ("one",), ("one", "two")) for word in ("drill", "trip")
    ]
    rows = engine.share([engine.option_row(e) for e in examples])
    assert rows[0].shared > 3
    vectors = engine.backbone.embedding[None, 4:6].expand(2, -1, -1)
    keys = torch.zeros(2, 1, 2, 2, 3, 8, dtype=torch.float64)
    for prompt in (Prompt(vectors), Prompt(vectors[:, :0], keys_values=keys)):
        with pytest.raises(ValueError, match="are scored without a prompt"):
            engine.log_likelihoods(prompt, rows)
    long = [Example("frog " * 300, ("one",), ("one", "two"))] * 2
    with pytest.raises(ValueError, match="positions, tiny-causal has 256"):
        words.option_scores(engine, long)


def test_calibration_makes_nothing_worth_nothing(words_only):
    (nothing,) = words.content_free(words_only, [WORDING])
    assert nothing.exp().sum() == pytest.approx(1.0)
    asked = [(WORDING, {"text": text}) for text in words.CONTENT_FREE]
    each = torch.stack(words.label_scores(words_only, asked))
    torch.testing.assert_close(nothing, each.softmax(-1).mean(0).log())
    even = words.calibrate(each.softmax(-1).mean(0).log(), nothing)
    torch.testing.assert_close(even.exp(), torch.full((2,), 0.5, dtype=even.dtype))


def test_solved_examples_change_the_scores(words_only):
    asked = [(WORDING, {"text": "I had a sad trip."})]
    shots = [({"text": "I had a sweet story."}, "positive")]
    (without,), (given,) = (words.label_scores(words_only, asked, s) for s in ([], shots))
    assert not torch.allclose(without, given)


def test_recall_counts_facts_whose_object_is_among_the_first(words_only, monkeypatch):
    tokens = {"one": 1, "two": 1, "three more": 2}
    scores = {"A is": (-1.0, -2.0, -1.5), "B is": (-1.0, -2.0, -5.0)}  # three more: -0.75 and -2.5 a token
    monkeypatch.setattr(
        words, "option_scores", lambda _, asked: [torch.tensor(scores[e.input]) for e in asked]
    )
    facts = [({"x": "A"}, ("three more", "unknown")), ({"x": "B"}, ("two",))]
    found = words.recall(words_only, Template("{x} is {answer}"), facts, tuple(tokens), at=(1, 2))
    assert found == {1: 0.5, 2: 1.0}
    with pytest.raises(ValueError, match="no candidate object is right for"):
        words.recall(words_only, Template("{x} is {answer}"), [({"x": "A"}, ("six",))], tuple(tokens))


def test_ties_count_as_chance():
    among = words._among
    assert [among(k, [3.0, 2.0, 2.0, 2.0, 1.0], {2}) for k in range(1, 6)] == pytest.approx(
        [0, 1 / 3, 2 / 3, 1, 1]
    )
    assert among(1, [2.0, 2.0, 2.0], {0, 2}) == pytest.approx(2 / 3), "two of three are right"
    assert among(2, [2.0, 2.0, 2.0], {0, 2}) == 1.0
    assert among(1, [1.0, 2.0, 1.0], {0, 1}) == 1.0 and among(1, [1.0, 2.0, 1.0], {0, 2}) == 0.0
    wording = Wording(Template("{text} {answer}"), Verbalizer({"bad": ("sad",), "good": ("glad",)}))
    examples = [Example("a", ("bad",)), Example("b", ("good",))]
    assert accuracy(wording, torch.tensor([[1.0, 1.0], [1.0, 2.0]]), examples) == 0.75


# ---- search --------------------------------------------------------------------------------------
def runs_of(seeds, name="tiny-mood"):
    return [Run(suites.load_task(name, seed, "tiny"), seed) for seed in seeds]


CONFIG = word_search.SearchConfig(steps=6, rows=4, candidates=5, evaluations=2, dev_examples=8)


def test_a_search_keeps_only_swaps_that_lower_the_loss_and_ends_no_worse_on_dev():
    engine = Engine(backbone("tiny-causal", "float64"))
    start = word_tokens(engine.backbone, 3).expand(2, -1)
    found = word_search.search(engine, start, runs_of((0, 1)), CONFIG)
    assert found.tokens.shape == (2, 3) and found.losses.shape == (6, 2) and found.dev.shape == (3, 2, 2)
    assert (found.swaps > 0).all() and not torch.equal(found.tokens, start)
    assert all(
        tuple(best) >= tuple(first) for best, first in zip(found.dev.amax(0), found.dev[0], strict=True)
    )


def test_runs_searched_together_are_the_runs_searched_alone():
    engine = Engine(backbone("tiny-causal", "float64"))
    start, runs = word_tokens(engine.backbone, 3)[None], runs_of((0, 1))
    both = word_search.search(engine, start.expand(2, -1), runs, CONFIG)
    for r, run in enumerate(runs):
        alone = word_search.search(engine, start, [run], CONFIG)
        assert torch.equal(both.tokens[r], alone.tokens[0])
        torch.testing.assert_close(both.losses[:, r], alone.losses[:, 0])


def test_a_step_tries_the_lowest_first_order_changes():
    """The candidates and the accepted swap of one step, computed by plain forwards."""
    engine = Engine(backbone("tiny-causal", "float64"))
    table, (run,) = engine.backbone.embedding, runs_of((0,))
    start = word_tokens(engine.backbone, 2)
    rows = [engine.target_row(e) for e in draw(run, 0, 4)]

    def loss_of(prompt):
        lines = plain_log_likelihoods(engine.backbone, LAYOUTS[0], [prompt] * len(rows), rows)
        return -sum(line.sum() for line in lines) / sum(len(row.answers[0]) for row in rows)

    embeds = table[start].clone().requires_grad_()
    now = loss_of(embeds)
    (g,) = torch.autograd.grad(now, embeds)
    change = table @ g[0]
    change[list({*engine.backbone.tokenizer.all_special_ids, int(start[0])})] = math.inf
    losses = {}
    for token in change.argsort()[:3].tolist():
        prompt = torch.stack([table[token], table[start[1]]])
        losses[token] = float(loss_of(prompt))
    best = min(losses, key=losses.get)
    found = word_search.search(engine, start[None], [run], word_search.SearchConfig(1, 4, 3, 1, 8))
    if losses[best] < now:
        assert found.swaps.tolist() == [1]
        assert float(found.losses[0, 0]) == pytest.approx(losses[best])
    else:
        assert found.swaps.tolist() == [0] and float(found.losses[0, 0]) == pytest.approx(float(now))


def test_special_and_empty_tokens_are_never_words():
    engine = Engine(backbone("tiny-causal", "float64"))
    allowed = word_search._words_of_the_vocabulary(engine)
    assert not allowed[engine.backbone.tokenizer.all_special_ids].any() and allowed.sum() > 100


@pytest.mark.parametrize("field", ["steps", "rows", "candidates", "evaluations", "dev_examples"])
def test_a_search_of_nothing_is_refused(field):
    with pytest.raises(ValueError, match=f"SearchConfig.{field} is 0"):
        word_search.SearchConfig(**{field: 0})
