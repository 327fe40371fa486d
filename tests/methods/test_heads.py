import copy
from dataclasses import replace

import pytest
import torch
import transformers
from families import CAUSAL, ENCODERS
from families import model as of_family
from stock import backbone, stock_attention

from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.head_rows import HeadRow
from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import find_sites
from iptkit.methods import p_tuning_v2
from iptkit.methods.heads import SharedPrompt, WithHead
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt
from iptkit.models.backbone import _cast
from iptkit.scores import evaluation
from iptkit.tasks import suites
from iptkit.tasks.examples import Example, SpanExample, TaggedExample
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run

KINDS = ("animal", "food", "tool")
SENTENCES = [
    Example("Ben sees the duck", ("animal",), KINDS),
    Example("Cara has a drill and one frog", ("tool",), KINDS),
    Example("I had a sad trip", ("bad",), ("bad", "good")),
]
TAGS = ("name", "other", "thing")
TAGGED = [
    TaggedExample("Ben sees the duck", ("name other other thing",), (), TAGS),
    TaggedExample("Cara has a drill and one frog", ("name other other thing other other thing",), (), TAGS),
]
SHORT = FitConfig(steps=4, rows_per_run=2, lr=0.02, evaluations=1, dev_examples=4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def encoder():
    return backbone("tiny-encoder", "float64")


def head_of(rows, classes, width=32, seed=0):
    return torch.randn(rows, classes, width + 1, generator=seeded(seed), dtype=torch.float64)


def states(encoder, text):
    ids = torch.tensor([encoder.tokenizer(text).input_ids])
    encoder.model.set_attn_implementation("sdpa")
    out = encoder.model(input_ids=ids).last_hidden_state[0]
    encoder.model.set_attn_implementation("iptkit")
    return out


def test_classes_are_scored_from_the_first_token(encoder):
    engine, head = HeadEngine(encoder), head_of(3, 3)
    scores, count = engine.log_likelihoods(Prompt(head=head), [engine.option_row(e) for e in SENTENCES])
    for row, example in enumerate(SENTENCES):
        weights = head[row][: len(example.options)]
        logits = weights[:, :-1] @ states(encoder, example.input)[0] + weights[:, -1]
        torch.testing.assert_close(scores[row, : len(logits)], logits.log_softmax(-1))
    assert scores[2, 2] == -torch.inf and count.tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 0]]
    of_target, _ = engine.log_likelihoods(Prompt(head=head), [engine.target_row(e) for e in SENTENCES])
    assert of_target[:, 0].tolist() == [scores[0, 0], scores[1, 2], scores[2, 0]]


def test_tags_are_scored_at_every_word(encoder):
    engine, head = HeadEngine(encoder), head_of(2, 5)
    rows = [engine.target_row(e) for e in TAGGED]
    scores, count = engine.log_likelihoods(Prompt(head=head), rows)
    said = engine.greedy(Prompt(head=head), rows, [9, 9])
    for row, example in enumerate(TAGGED):
        logits = states(encoder, example.input) @ head[row, :3, :-1].T + head[row, :3, -1]
        logs = logits.log_softmax(-1)
        expected = sum(logs[i, TAGS.index(tag)] for i, tag in enumerate(example.tags))
        assert float(scores[row, 0]) == pytest.approx(float(expected))
        assert said[row].split() == [TAGS[i] for i in logits.argmax(-1).tolist()]
    assert count.tolist() == [[4], [7]]


class Words:
    """A tokenizer that splits every word into two pieces between special tokens, to see sub-tokens."""

    pad_token_id, is_fast = 0, True

    def __call__(self, text, return_offsets_mapping):
        assert return_offsets_mapping
        ends = [place for place, letter in enumerate(text + " ") if letter == " "]
        starts = [0, *[end + 1 for end in ends[:-1]]]
        pieces = [p for a, b in zip(starts, ends, strict=True) for p in ((a, a + 1), (a + 1, b))]
        offsets = [(0, 0), *pieces, (0, 0)]
        return {"input_ids": list(range(4, 4 + len(offsets))), "offset_mapping": offsets}

    def convert_ids_to_tokens(self, ids):
        return [f"piece {i}" for i in ids]


def test_only_the_first_part_of_a_word_is_labelled(encoder):
    engine = HeadEngine(encoder)
    engine.backbone = replace(encoder, tokenizer=Words())
    assert engine.target_row(TAGGED[0]).positions == (1, 3, 5, 7)


def test_a_causal_model_is_read_where_it_has_seen_all():
    model = backbone("tiny-causal", "float64")
    engine = HeadEngine(model)
    ids = model.tokenizer(SENTENCES[0].input).input_ids
    assert engine.option_row(SENTENCES[0]).positions == (len(ids) - 1,)
    head = head_of(2, 3)
    rows = [engine.option_row(e) for e in SENTENCES[:2]]
    scores, _ = engine.log_likelihoods(Prompt(head=head), rows)
    with stock_attention(model.model):
        for row, weights, found in zip(rows, head, scores, strict=True):
            last = model.model.model(input_ids=torch.tensor([row.text])).last_hidden_state[0, -1]
            expected = (weights[:, :-1] @ last + weights[:, -1]).log_softmax(-1)
            torch.testing.assert_close(found, expected)
    vectors = model.embedding[torch.tensor(ids[:2])][None]
    found, _ = engine.log_likelihoods(Prompt(vectors, head=head[:1]), rows[:1])
    longer = HeadRow((*ids[:2], *ids), (len(ids) + 1,), rows[0].answers, 3, rows[0].names)
    expected, _ = engine.log_likelihoods(Prompt(head=head[:1]), [longer])
    torch.testing.assert_close(found, expected)
    engine.backbone = replace(model, tokenizer=Words())
    assert engine.target_row(TAGGED[0]).positions == (2, 4, 6, 8), "the last piece of each word"


def test_start_and_end_are_chosen_among_the_passages_tokens(encoder):
    engine, head = HeadEngine(encoder), head_of(2, 2)
    passages = ("Ben sees the duck and one frog", "Cara has a drill")
    spans = [("What is it?", passages[0], "the duck", 9), ("What has Cara?", passages[1], "drill", 11)]
    examples = [SpanExample("", (answer,), (), q, p, start) for q, p, answer, start in spans]
    rows = [engine.target_row(e) for e in examples]
    assert rows[0].answers == ((2, 3),) and rows[1].answers == ((3, 3),)
    scores, _ = engine.log_likelihoods(Prompt(head=head), rows)
    for b, row in enumerate(rows):
        ids = torch.tensor([row.text])
        encoder.model.set_attn_implementation("sdpa")
        picked = encoder.model(input_ids=ids).last_hidden_state[0, list(row.positions)]
        encoder.model.set_attn_implementation("iptkit")
        logs = (picked @ head[b, :, :-1].T + head[b, :, -1]).log_softmax(0)
        start, end = row.answers[0]
        assert float(scores[b, 0]) == pytest.approx(float(logs[start, 0] + logs[end, 1]))
    said = engine.greedy(Prompt(head=head), rows, [0, 0])
    for b, row in enumerate(rows):
        logits = states(encoder, f"What is it? {passages[0]}" if b == 0 else f"What has Cara? {passages[1]}")
        picked = logits[list(row.positions)] @ head[b, :, :-1].T + head[b, :, -1]
        pairs = [(i, j) for i in range(len(picked)) for j in range(i, len(picked))]
        i, j = max(pairs, key=lambda pair: float(picked[pair[0], 0] + picked[pair[1], 1]))
        assert said[b] == passages[b][row.offsets[i][0] : row.offsets[j][1]]
    with pytest.raises(ValueError, match="train them in separate fits"):
        engine.log_likelihoods(Prompt(head=head_of(2, 3)), [rows[0], engine.target_row(TAGGED[0])])


def test_spans_are_trained_and_scored_end_to_end():
    encoder = backbone("tiny-encoder", "float32")
    spans = [
        ("the duck", "Ben sees the duck"),
        ("a drill", "Cara has a drill"),
        ("one frog", "Leo sees one frog"),
    ]
    examples = tuple(
        SpanExample(text, (answer,), (), "What is it?", text, text.index(answer)) for answer, text in spans
    )
    task = suites.load_task("tiny-mood", suite="tiny")
    sets = {name: examples * 2 for name in ("train", "train_new", "dev", "test")}
    task = replace(task, **sets, category="qa", metric="token_f1", labels=())
    source, engine = source_of(encoder, "deep", 1)
    source.head.data = source.head.data[:, :2].clone()
    config = FitConfig(steps=60, rows_per_run=3, lr=0.05, evaluations=1, dev_examples=3)
    trainer.fit(engine, source, [Run(task)], config)
    assert evaluation.evaluate(engine, source, [task])[0] > 0.8


def test_a_second_segment_is_told_apart_where_the_model_can(encoder):
    engine, head = HeadEngine(encoder), head_of(1, 2)
    row = HeadRow((4, 5, 6, 7), (2, 3), ((0, 1),), 2, is_span=True, types=(0, 0, 1, 1))
    scores, _ = engine.log_likelihoods(Prompt(head=head), [row])
    with stock_attention(encoder.model):
        kinds = torch.tensor([row.types])
        out = encoder.model(input_ids=torch.tensor([row.text]), token_type_ids=kinds).last_hidden_state[0, 2:]
    logs = (out @ head[0, :, :-1].T + head[0, :, -1]).log_softmax(0)
    assert float(scores[0, 0]) == pytest.approx(float(logs[0, 0] + logs[1, 1]))


def test_a_shallow_prompt_stands_behind_the_first_token(encoder):
    engine, head = HeadEngine(encoder), head_of(1, 3)
    row = engine.option_row(SENTENCES[0])
    as_words = torch.tensor(encoder.tokenizer("one drill").input_ids)
    prompt = Prompt(encoder.embedding[as_words][None], head=head)
    found, _ = engine.log_likelihoods(prompt, [row])
    first, *rest = SENTENCES[0].input.split()
    longer = Example(" ".join([first, "one drill", *rest]), ("animal",), KINDS)
    expected, _ = engine.log_likelihoods(Prompt(head=head), [engine.option_row(longer)])
    torch.testing.assert_close(found, expected)


def source_of(encoder, kind, runs):
    sites = find_sites(encoder.model)
    prompt = None
    if kind == "deep":
        prompt = p_tuning_v2.DeepPrompt(runs, sites, 2, seeded(1), std=0.5)
    elif kind == "shallow":
        prompt = SoftPrompt(torch.randn(1, 2, 32, generator=seeded(1)).expand(runs, -1, -1))
    return WithHead(runs, 32, 3, seeded(), prompt), HeadEngine(encoder, sites)


@pytest.mark.parametrize("kind", ["probe", "shallow", "deep"])
def test_runs_trained_together_are_the_runs_trained_alone(kind):
    encoder = backbone("tiny-encoder", "float32")
    runs = [Run(suites.load_task(name, suite="tiny")) for name in ("tiny-mood", "tiny-kind")]
    both, engine = source_of(encoder, kind, 2)
    before = {name: p.detach().clone() for name, p in both.named_parameters()}
    trainer.fit(engine, both, runs, SHORT)
    assert all(not torch.equal(p, before[name]) for name, p in both.named_parameters())
    for r, run in enumerate(runs):
        alone, engine = source_of(encoder, kind, 1)
        trainer.fit(engine, alone, [run], SHORT)
        for (name, p), q in zip(both.named_parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(p[r], q[0], rtol=1e-3, atol=1e-5, msg=name)


def test_a_head_learns_to_tag():
    encoder = backbone("tiny-encoder", "float32")
    task = suites.load_task("tiny-mood", suite="tiny")
    sets = {name: tuple(TAGGED * 4) for name in ("train", "train_new", "dev", "test")}
    task = type(task)(**{**vars(task), **sets, "category": "seq", "metric": "exact_match", "labels": TAGS})
    source, engine = source_of(encoder, "deep", 1)
    config = FitConfig(steps=60, rows_per_run=4, lr=0.05, evaluations=1, dev_examples=4)
    trainer.fit(engine, source, [Run(task)], config)
    assert evaluation.evaluate(engine, source, [task]) == [1.0]


def test_wrong_wishes_are_refused(encoder):
    with pytest.raises(ValueError, match="is a seq2seq model; a HeadEngine needs an encoder"):
        HeadEngine(backbone("tiny-seq2seq", "float32"))
    engine = HeadEngine(encoder)
    with pytest.raises(ValueError, match="neither options nor tags"):
        engine.target_row(Example("Give the plural: fox", ("foxes",)))
    with pytest.raises(ValueError, match="has no head"):
        engine.log_likelihoods(Prompt(torch.zeros(1, 2, 32)), [engine.target_row(SENTENCES[0])])
    with pytest.raises(
        ValueError, match="has 3 classes, but the head has room for 2; give WithHead num_classes=3"
    ):
        engine.log_likelihoods(Prompt(head=head_of(1, 2)), [engine.target_row(SENTENCES[0])])
    long = Example("frog " * 300, ("animal",), KINDS)
    with pytest.raises(ValueError, match=r"take 300 positions, tiny-encoder has 256"):
        engine.log_likelihoods(Prompt(head=head_of(1, 3)), [engine.target_row(long)])


# ---- one prompt for several data sets ----------------------------------------------------------------
def test_a_shared_prompt_gets_the_mean_gradient_of_its_data_sets():
    encoder = backbone("tiny-encoder", "float32")
    sites = find_sites(encoder.model)
    engine = HeadEngine(encoder, sites)
    runs = [Run(suites.load_task(name, suite="tiny")) for name in ("tiny-mood", "tiny-kind")]
    shared = SharedPrompt(p_tuning_v2.DeepPrompt(1, sites, 2, seeded(1), std=0.5), 2, 32, 3, seeded())
    before, rows = shared.prompt.P.detach().clone(), [engine.target_row(run.examples[0]) for run in runs]
    made = shared(torch.tensor([0, 1]))
    assert torch.equal(made.keys_values[0], made.keys_values[1])
    scores, _ = engine.log_likelihoods(made, rows)
    (together,) = torch.autograd.grad(-scores.sum() / 2, shared.prompt.P)
    alone = []
    for r, row in enumerate(rows):
        scores, _ = engine.log_likelihoods(shared(torch.tensor([r])), [row])
        alone.append(torch.autograd.grad(-scores.sum(), shared.prompt.P)[0])
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)
    result = trainer.fit(engine, shared, runs, SHORT)
    assert result.losses.shape == (4, 2) and not torch.equal(shared.prompt.P, before)


def test_a_shared_prompt_has_one_row():
    sites = find_sites(backbone("tiny-encoder", "float32").model)
    with pytest.raises(ValueError, match=r"has one row; this one has 2 trained rows"):
        SharedPrompt(p_tuning_v2.DeepPrompt(2, sites, 2, seeded()), 2, 32, 3, seeded())
    with pytest.raises(ValueError, match="a shared prompt trains and has one row; this one has no trained"):
        SharedPrompt(FixedPrompt(torch.zeros(1, 2, 32)), 2, 32, 3, seeded())


@pytest.mark.parametrize("dtype", ["float32", "mixed", "bfloat16"])
@pytest.mark.parametrize("name", [*ENCODERS, *CAUSAL])
def test_known_families_are_taken_in_every_number_type(name, dtype):
    model = _cast(copy.deepcopy(of_family(name)).requires_grad_(False).eval(), dtype)
    tiny = backbone("tiny-causal" if name in CAUSAL else "tiny-encoder", "float32")
    width = model.get_input_embeddings().embedding_dim
    assert HeadEngine(replace(tiny, model=model, dtype=dtype, width=width)).backbone.model is model


@pytest.mark.parametrize("dtype", ["float32", "mixed", "bfloat16"])
@pytest.mark.parametrize(("name", "told"), [("Gemma", "does not support"), ("Gemma2", "a soft cap")])
def test_a_model_that_scales_words_or_caps_attention_is_refused(name, told, dtype):
    """A prompt at the input would stand unscaled among scaled embeddings."""
    config = getattr(transformers, f"{name}Config")(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=64,
        max_position_embeddings=64, num_key_value_heads=2, head_dim=8, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForCausalLM")(config)
    model = _cast(model.requires_grad_(False).eval(), dtype)
    with pytest.raises(ValueError, match=f"{told}.* use a "):
        HeadEngine(replace(backbone("tiny-causal", "float32"), model=model, dtype=dtype))
