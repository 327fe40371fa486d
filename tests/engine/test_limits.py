import dataclasses
import functools

import families
import pytest
import torch
from stock import backbone

from iptkit.engine import limits
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.layouts import LAYOUTS
from iptkit.engine.prompt import Prompt
from iptkit.engine.rows import Row
from iptkit.methods import fine_tuning, word_search
from iptkit.methods.heads import WithHead
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.scores import evaluation
from iptkit.tasks import suites
from iptkit.tasks.examples import ALL_SETS, Example, SpanExample, TaggedExample
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run

SHORT = FitConfig(steps=1, rows_per_run=2, lr=0.02, evaluations=1, dev_examples=4)
LONG = "frog " * 246 + "duck"  # 247 of the 256 positions that the tiny models have


@functools.cache
def engine_of(name="tiny-causal", layout=LAYOUTS[0]):
    model = backbone(name, "float32")
    return HeadEngine(model) if model.kind == "encoder" else Engine(model, layout)


def source_of(engine, n=4, runs=1):
    prompt = SoftPrompt(torch.zeros(runs, n, engine.backbone.width))
    head = isinstance(engine, HeadEngine)
    return (
        WithHead(runs, engine.backbone.width, 3, torch.Generator().manual_seed(0), prompt) if head else prompt
    )


def with_text(task_id, of_set, text, place=2):
    """A task of `tiny` in which one text of a set is another."""
    task = suites.load_task(task_id, suite="tiny")
    rows = list(getattr(task, of_set))
    rows[place] = dataclasses.replace(rows[place], input=text)
    return dataclasses.replace(task, **{of_set: tuple(rows)})


# ---- texts that are too long -----------------------------------------------------------------------
@pytest.mark.parametrize("of_set", ALL_SETS)
@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq", "tiny-encoder"])
def test_no_training_begins_with_a_text_that_is_too_long(name, of_set, monkeypatch):
    monkeypatch.setattr(trainer, "train_step", lambda *args: pytest.fail("a step was made"))
    engine, bad = engine_of(name), with_text("tiny-kind", of_set, "frog " * 300)
    runs = [Run(suites.load_task("tiny-mood", suite="tiny")), Run(bad)]
    told = (
        rf"task tiny-kind, {of_set}, example 3 \('frog frog .*'\): prompt \(4\) \+ text \+ answer take 30\d "
    )
    with pytest.raises(
        ValueError, match=told + 'positions, .* has 256; .*iptkit.engine.truncate.*side="left"'
    ):
        trainer.fit(engine, source_of(engine, runs=2), runs, SHORT)


def test_what_may_be_generated_counts_in_test_sets_only():
    """247 + 4 of the prompt + 2 of a word and its end leave 3; an answer may have 4 and an end."""
    engine = engine_of()
    cap = limits.answer_cap(engine, suites.load_task("tiny-plural", suite="tiny"))
    assert cap == 4
    for of_set in ("train", "dev"):
        limits.check(engine, [with_text("tiny-plural", of_set, LONG)], 4)
    limits.check(engine, [with_text("tiny-plural", "test", LONG)], 4)
    with pytest.raises(ValueError, match="tiny-plural, test, example 3 .* take 257 positions"):
        limits.check(engine, [with_text("tiny-plural", "test", LONG + " duck")], 4)
    limits.check(engine, [with_text("tiny-plural", "train", LONG + " duck")], 4)


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_a_text_that_just_fits_is_answered_beside_others_with_longer_answers(name):
    engine = engine_of(name)
    close = with_text("tiny-plural", "test", LONG)
    chatty = suites.load_task("tiny-plural", suite="tiny")
    chatty = dataclasses.replace(chatty, train=(Example("a duck", ("ten " * 40,)), *chatty.train))
    source = source_of(engine, runs=2)
    answers = evaluation.predict(engine, source, [close, chatty])
    assert answers[0] == evaluation.predict(engine, source_of(engine), [close])[0]


def test_a_row_at_the_models_end_is_done_before_the_others():
    """GPT-2 has no position behind its last one, and a row that is done stays beside three that are not."""
    made = families.MAKERS["gpt2"]().requires_grad_(False).eval()
    facts = {"width": 16, "num_layers": 2, "num_kv_heads": 2, "head_width": 8, "max_positions": 40}
    engine = Engine(dataclasses.replace(backbone("tiny-causal", "float32"), model=made, **facts))
    rows, limit = (
        [Row(tuple(range(5, 35)), ((4,),)), *[Row((5 + i, 9), ((4,),)) for i in range(3)]],
        [5, 30, 30, 30],
    )
    prompts = Prompt(torch.randn(4, 4, 16, generator=torch.Generator().manual_seed(0)))
    engine.words.ends = set()  # so that every row takes all its tokens
    together = engine.greedy(prompts, rows, limit)
    alone = [engine.greedy(prompts.rows(torch.tensor([i])), [rows[i]], [limit[i]])[0] for i in range(4)]
    assert together == alone
    with pytest.raises(ValueError, match="take 41 positions"):
        engine.greedy(prompts, rows, [6, 30, 30, 30])


def test_words_of_a_layout_count():
    engine = engine_of(layout=("{text}", " It is one more tool", 4))
    limits.check(engine_of(), [with_text("tiny-mood", "dev", LONG)], 4)
    with pytest.raises(ValueError, match="take 257 positions"):
        limits.check(engine, [with_text("tiny-mood", "dev", LONG)], 4)


def test_a_task_is_read_once_for_an_engine(monkeypatch):
    engine, task, read = (
        Engine(backbone("tiny-causal", "float32")),
        suites.load_task("tiny-mood", suite="tiny"),
        [],
    )
    positions = engine.positions
    monkeypatch.setattr(engine, "positions", lambda e, *given: read.append(e) or positions(e, *given))
    for _ in range(2):
        limits.check(engine, [task, task], 4)
    assert len(read) == sum(len(getattr(task, name)) for name in ALL_SETS)
    with pytest.raises(ValueError, match="has 256"):
        limits.check(engine, [task], 250)
    for _ in range(2):
        with pytest.raises(ValueError, match="has 256"):
            limits.check(engine, [with_text("tiny-mood", "dev", "frog " * 300)], 4)


def test_a_limit_looks_at_the_first_examples_only():
    engine, task = engine_of(), with_text("tiny-mood", "test", "frog " * 300, place=5)
    source = source_of(engine)
    assert len(evaluation.predict(engine, source, [task], limit=5)[0]) == 5
    with pytest.raises(ValueError, match="task tiny-mood, test, example 6 "):
        evaluation.evaluate(engine, source, [task], limit=6)


@pytest.mark.parametrize("side", limits.SIDES)
@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq", "tiny-encoder"])
def test_cut_texts_train_and_are_scored(name, side):
    engine = engine_of(name)
    words = ["one", *["frog"] * 300, "duck"]
    task = with_text("tiny-kind", "test", " ".join(words))
    cut = limits.truncate(engine, task, prompt_length=4, side=side)
    source = source_of(engine)
    trainer.fit(engine, source, [Run(cut)], SHORT)
    assert len(evaluation.predict(engine, source, [cut])[0]) == len(task.test)
    kept = cut.test[2].input.split()
    assert kept == (words[-len(kept) :] if side == "left" else words[: len(kept)])
    assert engine.positions(cut.test[2], 4) == 256, "no more is dropped than must be"
    same = [
        (a, b) for s in ALL_SETS for a, b in zip(getattr(task, s), getattr(cut, s), strict=True) if a != b
    ]
    assert len(same) == 1, "all other texts are as they were"


def test_a_cut_sentence_keeps_the_tags_of_its_words():
    engine = engine_of("tiny-encoder")
    words, tags = ["Ben", *["frog"] * 300, "drill"], ["x", *["y"] * 300, "z"]
    tagged = TaggedExample(" ".join(words), (" ".join(tags),), (), ("x", "y", "z"))
    task = dataclasses.replace(
        suites.load_task("tiny-mood", suite="tiny"),
        **dict.fromkeys(ALL_SETS, (tagged,)),
        category="tag",
        metric="tag_accuracy",
        labels=("x", "y", "z"),
    )
    left, right = (limits.truncate(engine, task, 4, side).train[0] for side in limits.SIDES)
    assert (
        left.tags[-1] == "z" and right.tags[0] == "x" and set(left.tags[:-1]) == set(right.tags[1:]) == {"y"}
    )
    for example in (left, right):
        assert len(example.words) == len(example.tags) and engine.positions(example, 4) == 256


def test_what_is_left_of_a_span_is_a_span():
    engine, labels = engine_of("tiny-encoder"), ("B-x", "I-x", "O")
    tagged = TaggedExample("frog " * 300, ("B-x " + "I-x " * 299,), (), labels)
    task = dataclasses.replace(
        suites.load_task("tiny-mood", suite="tiny"),
        **dict.fromkeys(ALL_SETS, (tagged,)),
        category="tag",
        metric="span_f1",
        labels=labels,
    )
    for side in limits.SIDES:
        cut = limits.truncate(engine, task, 4, side)
        assert cut.test[0].tags == ("B-x", *["I-x"] * 251)
        assert evaluation.evaluate(engine, source_of(engine), [cut])[0] in (0.0, 1.0), "it can be scored"


def test_a_cut_ends_where_characters_are_many_tokens():
    """A character of several tokens goes as a whole."""

    class Bytes:
        def __call__(self, text, **_):
            return {"offset_mapping": [(i, i + 1) for i in range(len(text)) for _ in range(3)]}

    assert (
        limits._rest(Bytes(), "abcd", 1, "left") == "bcd"
        and limits._rest(Bytes(), "abcd", 1, "right") == "abc"
    )
    assert (
        limits._rest(Bytes(), "abcd", 4, "right") == "abc" and limits._rest(Bytes(), "abcd", 12, "left") == ""
    )


def test_what_cannot_be_cut_is_refused():
    engine = engine_of()
    task = with_text("tiny-mood", "dev", "frog " * 300)
    with pytest.raises(ValueError, match="side is 'middle'; choose one of left, right"):
        limits.truncate(engine, task, 4, "middle")
    with pytest.raises(ValueError, match="leave no room for a text in the 256 positions of tiny-causal"):
        limits.truncate(engine, task, 255, "left")
    passage = "Ben sees the duck " * 100
    asked = SpanExample(passage, ("the duck",), (), "What is it?", passage, 9)
    spans = dataclasses.replace(task, dev=(asked,), category="qa", metric="token_f1", labels=())
    with pytest.raises(ValueError, match="is a question about a passage, and its answer could be cut off"):
        limits.truncate(engine_of("tiny-encoder"), spans, 4, "left")
    empty = dataclasses.replace(suites.load_task("tiny-plural", suite="tiny"), train=())
    with pytest.raises(ValueError, match="task tiny-plural has no training examples"):
        limits.check(engine, [empty], 4)


def test_others_that_train_look_first():
    bad = with_text("tiny-kind", "test", "frog " * 300)
    engine, told = engine_of(), "task tiny-kind, test, example 3 .* has 256"
    with pytest.raises(ValueError, match=told):
        word_search.search(
            engine, torch.zeros(1, 3, dtype=torch.long), [Run(bad)], word_search.SearchConfig(steps=1)
        )
    with pytest.raises(ValueError, match=told):
        fine_tuning.fine_tune(engine.backbone, bad, "fine-tuning", 1, 2, 1e-3, 0, 8)
    with pytest.raises(ValueError, match=told):
        fine_tuning.fine_tune_encoder(backbone("tiny-encoder", "float32"), bad, 1, 2, 1e-3, 0, 8)


# ---- answers that cannot be told apart, or given ------------------------------------------------------
def choosing(*options, category="cls"):
    """A task whose examples all have these options."""
    task = suites.load_task("tiny-mood", suite="tiny")
    rows = tuple(
        Example(f"a {word} trip", (options[i % 2],), options) for i, word in enumerate(("sad", "red"))
    )
    labels = options if category == "cls" else ()
    return dataclasses.replace(task, **dict.fromkeys(ALL_SETS, rows), labels=labels, category=category)


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_options_with_the_same_tokens_are_refused_before_training(name):
    engine = engine_of(name)
    told = (
        rf"task tiny-mood, train, example 1 .*: {name} reads the options '左1' and '右1' as the same tokens "
    )
    with pytest.raises(
        ValueError, match=told + r"\['\[UNK\]'\] and cannot tell them apart; write them in words"
    ):
        trainer.fit(engine, source_of(engine), [Run(choosing("左1", "右1"))], SHORT)
    with pytest.raises(ValueError, match="task tiny-mood, test, example 1 .* cannot tell them apart"):
        evaluation.evaluate(engine, source_of(engine), [choosing("{", "}", "sad")])
    trainer.fit(engine, source_of(engine), [Run(choosing("{", "sad"))], SHORT)


def test_a_head_takes_options_of_any_words():
    engine = engine_of("tiny-encoder")
    trainer.fit(engine, source_of(engine), [Run(choosing("左1", "右1"))], SHORT)


def test_a_free_answer_of_two_lines_is_refused_before_training():
    engine, task = engine_of(), suites.load_task("tiny-plural", suite="tiny")
    rows = (*task.dev[:3], Example("Give both", ("foxes\nducks",)))
    with pytest.raises(ValueError, match=r"tiny-plural, dev, example 4 .*'foxes\\nducks' has a line break"):
        trainer.fit(engine, source_of(engine), [Run(dataclasses.replace(task, dev=rows))], SHORT)
    assert engine.option_row(Example("Which?", ("foxes\nducks",), ("foxes\nducks", "foxes"))).answers


def test_an_answer_without_a_token_is_refused():
    engine = engine_of()
    with pytest.raises(ValueError, match="tiny-causal has no token for the answer"):
        engine.target_row(Example("a duck", (" ",)))


# ---- classes of a head --------------------------------------------------------------------------------
def test_a_head_refuses_options_that_differ_from_line_to_line():
    engine = engine_of("tiny-encoder")
    rows = (
        Example("a duck", ("animal",), ("animal", "food")),
        Example("a drill", ("tool",), ("tool", "food")),
    )
    choice = dataclasses.replace(choosing("animal", "food", category="mcqa"), dev=rows)
    told = (
        "task tiny-mood, dev, example 2 .* has the options tool, food, others have animal, food, but a head"
    )
    with pytest.raises(ValueError, match=told):
        trainer.fit(engine, source_of(engine), [Run(choice)], SHORT)
    with pytest.raises(ValueError, match=told):
        evaluation.evaluate(engine, source_of(engine), [choice], split="dev")
    with pytest.raises(ValueError, match="task tiny-mood, train, example 2 .* but a head"):
        shuffled = (Example("a", ("x",), ("x", "y")), Example("b", ("x",), ("y", "x")))
        fine_tuning.fine_tune_encoder(
            engine.backbone, dataclasses.replace(choice, train=shuffled), 1, 2, 1e-3, 0, 8
        )
    trainer.fit(engine_of(), source_of(engine_of()), [Run(choice)], SHORT)


def test_the_order_of_a_lines_options_does_not_matter_to_a_head():
    engine = engine_of("tiny-encoder")
    task = suites.load_task("tiny-kind", suite="tiny")
    turned = {
        name: tuple(
            dataclasses.replace(e, options=e.options[i % 3 :] + e.options[: i % 3])
            for i, e in enumerate(getattr(task, name))
        )
        for name in ALL_SETS
    }
    mixed = dataclasses.replace(task, **turned)
    assert mixed == task
    sources = [source_of(engine) for _ in range(2)]
    losses = [
        trainer.fit(engine, s, [Run(t)], SHORT).losses for s, t in zip(sources, (task, mixed), strict=True)
    ]
    assert torch.equal(*losses)
    assert evaluation.evaluate(engine, sources[0], [task]) == evaluation.evaluate(engine, sources[1], [mixed])


# ---- texts without a token ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["tiny-encoder", "tiny-causal"])
def test_a_head_refuses_a_text_without_a_token(name):
    """It would look at a prompt's vector, or at the padding behind a text that was not there."""
    engine = HeadEngine(backbone(name, "float32"))
    source = source_of(engine)
    for of_set in ("train", "test"):
        bad = with_text("tiny-kind", of_set, "")
        with pytest.raises(ValueError, match=f"tiny-kind, {of_set}, example 3 .*: '' has no token; leave it"):
            trainer.fit(engine, source, [Run(bad)], SHORT)


def test_an_answer_needs_something_before_it():
    engine, bad = engine_of(), with_text("tiny-mood", "test", "")
    with pytest.raises(
        ValueError, match="tiny-mood, test, example 3 .* has no token, and there is no prompt"
    ):
        limits.check(engine, [bad], 0)  # as with a deep prompt
    assert len(evaluation.predict(engine, source_of(engine), [bad])[0]) == len(bad.test)


def test_texts_without_a_token_stand_behind_a_prompt_of_an_encoder():
    engine = engine_of("tiny-seq2seq")
    prompts = Prompt(torch.randn(2, 3, engine.backbone.width, generator=torch.Generator().manual_seed(0)))
    rows = [engine.target_row(Example(text, ("duck",), ("duck", "drill"))) for text in ("", "a fox")]
    together = engine.log_likelihoods(prompts, rows)[0]
    alone = engine.log_likelihoods(prompts.rows(torch.tensor([0])), rows[:1])[0]
    torch.testing.assert_close(alone, together[:1])
