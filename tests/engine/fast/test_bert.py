"""The flat BERT forward against transformers' own, mostly in float64, through the engine that uses it."""

from __future__ import annotations

import copy
import dataclasses
import functools

import pytest
import torch
from families import model as of_family
from stock import backbone

from iptkit.engine import left_memory
from iptkit.engine.batches import similar_rows
from iptkit.engine.fast import bert
from iptkit.engine.fast.attention import Padding
from iptkit.engine.fast.bert import FlatBert, FlatRows
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.head_rows import HeadRow
from iptkit.engine.layouts import PROMPT_ID
from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import choose, find_sites
from iptkit.models.backbone import load

MODELS = ["tiny-encoder", pytest.param("minilm-l6", marks=pytest.mark.model)]
TEXTS = [(2, 9, 8, 7, 6, 3), (2, 5, 3), (2, 11, 12, 13, 3)]
READ = [(0,), (1, 2), (1, 3)]  # where the head looks: in no row at the last token
ROWS = [
    HeadRow(text, read, ((0,) * len(read),), 2, ("a", "b")) for text, read in zip(TEXTS, READ, strict=True)
]


def of_kind(model, kind, rows=3, dtype=torch.float64):
    """A prompt with leaves that take gradients, and the sites of its keys and values."""
    drawn = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=drawn, dtype=dtype).requires_grad_()

    sites, width, lengths = [], model.width, None
    head, embeds, pairs = random(rows, 2, width + 1), None, None
    if kind == "shallow":
        embeds = random(rows, 2, width)
    elif kind != "probe":
        sites = choose(find_sites(model.model), [1] if kind == "one layer" else None)
        lengths = torch.tensor([1, 3, 2]) if kind == "lengths" else None
        pairs = random(rows, len(sites), 2, sites[0].num_kv_heads, 3, sites[0].head_width)
    leaves = [leaf for leaf in (head, embeds, pairs) if leaf is not None]
    return Prompt(embeds, head=head, keys_values=pairs, lengths=lengths), leaves, sites


def scores_and_gradients(engine, prompt, leaves, rows=ROWS):
    logits, _ = engine._logits(prompt, rows)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits.dtype)
    return [logits.detach(), *torch.autograd.grad((logits * weights).sum(), leaves)]


def stock(engine):
    engine.flat = None
    return engine


@pytest.mark.parametrize("kind", ["probe", "shallow", "deep", "one layer", "lengths"])
@pytest.mark.parametrize("name", MODELS, ids=str)
def test_equals_the_stock_forward(name, kind):
    model = backbone(name, "float64")
    prompt, leaves, sites = of_kind(model, kind)
    flat, plain = HeadEngine(model, sites), stock(HeadEngine(model, sites))
    assert flat.flat is not None
    found, expected = (scores_and_gradients(engine, prompt, leaves) for engine in (flat, plain))
    for a, b in zip(found, expected, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


@pytest.mark.parametrize("kind", ["probe", "shallow", "deep"])
@pytest.mark.parametrize("dtype", ["float32", "mixed", "bfloat16"])
@pytest.mark.parametrize("name", MODELS, ids=str)
def test_equals_the_stock_forward_of_other_number_types(name, dtype, kind):
    model = backbone(name, dtype)
    prompt, leaves, sites = of_kind(model, kind, dtype=torch.float32)
    flat, plain = HeadEngine(model, sites), stock(HeadEngine(model, sites))
    assert flat.flat is not None
    found, expected = (scores_and_gradients(engine, prompt, leaves) for engine in (flat, plain))
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    names = iter(wide)
    same = Prompt(
        head=next(names),
        embeds=next(names) if kind == "shallow" else None,
        keys_values=next(names) if kind == "deep" else None,
    )
    rounded = dataclasses.replace(model, model=copy.deepcopy(model.model).double(), dtype="float64")
    exact = stock(HeadEngine(rounded, of_kind(rounded, kind)[2]))
    for a, b, c in zip(found, expected, scores_and_gradients(exact, same, wide), strict=True):
        if dtype != "bfloat16":  # there two right ways differ by as much as each is off
            assert (a - b).norm() < {"float32": 1e-5, "mixed": 0.02}[dtype] * b.norm()
        error, usual = (a - c).norm(), (b - c).norm()
        assert error < 1.5 * usual + 1e-5 * c.norm(), "as near to float64 as the stock forward"
        assert error < 0.1 * c.norm()


def test_segments_and_every_place_are_as_in_the_stock_forward():
    model = backbone("tiny-encoder", "float64")
    prompt, leaves, _ = of_kind(model, "shallow")
    rows = [
        HeadRow(text, tuple(range(len(text))), ((0,) * len(text),), 2, ("a", "b"), types=types)
        for text, types in zip(TEXTS, [(0, 0, 1, 1, 1, 1), (), (0, 1, 1, 1, 1)], strict=True)
    ]
    engines = (HeadEngine(model), stock(HeadEngine(model)))
    found, expected = (scores_and_gradients(engine, prompt, leaves, rows) for engine in engines)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    without = [HeadRow(row.text, row.positions, row.answers, 2, row.names) for row in rows]
    assert not torch.allclose(scores_and_gradients(engines[0], prompt, leaves, without)[0], found[0])


def test_a_row_is_the_same_alone_and_among_others():
    model = backbone("tiny-encoder", "float64")
    prompt, _, sites = of_kind(model, "deep")
    engine = HeadEngine(model, sites)
    together, row_of = engine._logits(prompt, ROWS)
    for b, row in enumerate(ROWS):
        alone, _ = engine._logits(prompt.rows(torch.tensor([b])), [row])
        torch.testing.assert_close(alone, together[row_of == b])


@pytest.mark.parametrize("kind", ["probe", "shallow", "deep", "one layer", "lengths"])
def test_attention_in_parts_gives_the_same(monkeypatch, kind):
    model = backbone("tiny-encoder", "float64")
    prompt, leaves, sites = of_kind(model, kind)
    engine = HeadEngine(model, sites)
    whole = scores_and_gradients(engine, prompt, leaves)
    cuts, cut = [], functools.partial(similar_rows, least=0)
    monkeypatch.setattr(bert, "similar_rows", lambda *given: cuts.append(cut(*given)) or cuts[-1])
    for a, b in zip(scores_and_gradients(engine, prompt, leaves), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert [len(found) for found in cuts] == [3]


@pytest.mark.parametrize("kind", ["shallow", "deep", "one layer", "lengths"])
def test_places_that_were_never_written_are_never_read(monkeypatch, kind):
    model = backbone("tiny-encoder", "float64")
    prompt, leaves, sites = of_kind(model, kind)
    expected = scores_and_gradients(stock(HeadEngine(model, sites)), prompt, leaves)
    fresh = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *g, **k: fresh(*g, **k).fill_(torch.nan))
    engine = HeadEngine(model, sites)
    for a, b in zip(scores_and_gradients(engine, prompt, leaves), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))
    with torch.no_grad():  # all layers use the same places
        torch.testing.assert_close(engine._logits(prompt, ROWS)[0], expected[0])


def test_prompts_of_different_lengths_in_different_layers_are_refused():
    model = backbone("tiny-encoder", "float64")
    first, second = find_sites(model.model)[:2]
    pairs = {
        s.module: (torch.zeros(1, s.num_kv_heads, n, s.head_width),) * 2 for s, n in ((first, 3), (second, 2))
    }
    rows = FlatRows.of([(2, 3)], [()], torch.device("cpu"))
    with pytest.raises(ValueError, match="all layers keys and values of one shape"):
        FlatBert(model.model)(rows, [(0,)], None, left_memory.DeepMemory(pairs))


def test_a_second_backward_pass_is_refused():
    model = backbone("tiny-encoder", "float64")
    prompt, leaves, sites = of_kind(model, "deep")
    loss = HeadEngine(model, sites)._logits(prompt, ROWS)[0].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        loss.backward()


def test_only_rows_that_are_padded_to_one_length_are_kept_apart():
    """Short rows beside long ones waste nothing in the flat forward, so they make one batch."""
    model = backbone("tiny-encoder", "float64")
    rows = [HeadRow((2,) * size, (0,), ((0,),), 2, ("a", "b")) for size in (30, 4) * 40]
    flat, plain = HeadEngine(model, tokens_per_batch=2048), stock(HeadEngine(model, tokens_per_batch=2048))
    assert [len(batch) for batch in plain.batches(rows, 0)] == [40, 40]
    (batch,) = flat.batches(rows, 0)
    assert sorted(batch) == list(range(80)) and batch[:40] == list(range(0, 80, 2))
    flat.tokens_per_batch = 340  # 1,360 tokens in even batches
    sizes = [sum(len(rows[i].text) for i in batch) for batch in flat.batches(rows, 0)]
    assert sum(sizes) == 1360 and max(sizes) <= 340 + 30 / 2


def test_rows_say_where_each_token_stands():
    rows = FlatRows.of([(7, PROMPT_ID, 9), (5,)], [(), (1,)], torch.device("cpu"))
    assert rows.ids.tolist() == [7, 0, 9, 5] and rows.prompt_at.tolist() == [1]
    assert rows.positions.tolist() == [0, 1, 2, 0]
    assert rows.starts == [0, 3] and rows.types.tolist() == [0, 0, 0, 1]
    assert rows.sizes == [3, 1] and rows.cuts == [slice(0, 2)]


def test_spreading_and_collecting_are_each_others_gradient(monkeypatch):
    padding, fresh = Padding.of([3, 1, 2], torch.device("cpu")), torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *given: fresh(*given).fill_(torch.nan))
    flat = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    rows = padding.pad(flat)
    assert rows.shape == (3, 3, 2) and (rows[~padding.is_real] == 0).all()
    assert torch.equal(rows[padding.is_real], flat) and torch.equal(padding.unpad(rows), flat)
    assert torch.autograd.gradcheck(padding.pad, (flat,))
    spread = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(padding.unpad, (spread,))
    full = Padding.of([2, 2], torch.device("cpu"))
    assert torch.equal(full.unpad(full.pad(flat[:4])), flat[:4])


@pytest.mark.parametrize("name", ["roberta", "distilbert", "modernbert", "gpt2"])
def test_other_families_take_the_stock_forward(name):
    assert not FlatBert.fits(of_family(name))


def changed(model, change):
    """Does a model take the flat forward while `change` is in force?"""
    undo = change(model)
    fits = FlatBert.fits(model)
    undo()
    return fits


CHANGES = {
    "hook on the model": lambda m: m.register_forward_hook(lambda *_: None).remove,
    "hook on a layer": lambda m: m.encoder.layer[0].register_forward_pre_hook(lambda *_: None).remove,
    "training": lambda m: m.train() and m.eval,
    "a layer in training": lambda m: m.encoder.layer[0].train() and m.eval,
    "a weight that trains": lambda m: (
        m.encoder.layer[0].output.dense.weight.requires_grad_(True) is not None
        and (lambda: m.requires_grad_(False))
    ),
    "another forward": lambda m: setattr(m, "forward", m.forward) or (lambda: delattr(m, "forward")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_a_plain_frozen_bert_takes_the_flat_forward(change):
    model = load("tiny-encoder", dtype="float64").model  # its own copy: it is changed here
    assert FlatBert.fits(model)
    assert not changed(model, CHANGES[change])
    assert FlatBert.fits(model), "the change was undone"


def test_adapters_take_the_stock_forward():
    model = load("tiny-encoder", dtype="float64").model
    layer = model.encoder.layer[0]
    layer.output.dense = torch.nn.utils.parametrizations.weight_norm(layer.output.dense)
    assert not FlatBert.fits(model.requires_grad_(False).eval())


def test_an_observer_sees_the_attentions():
    model = backbone("tiny-encoder", "float64")
    prompt, _, sites = of_kind(model, "deep")
    seen = []
    with left_memory.observe(lambda module, *_: seen.append(module)):
        HeadEngine(model, sites)._logits(prompt, ROWS)
    assert seen == [site.module for site in sites]


def test_weights_that_change_later_and_biases_count():
    model = load("tiny-encoder", dtype="float64")
    prompt, leaves, sites = of_kind(model, "deep")
    flat = HeadEngine(model, sites)
    before, _ = flat._logits(prompt, ROWS)
    with torch.no_grad():
        for p in model.model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2), dtype=p.dtype) * 0.1)
    found, expected = (
        scores_and_gradients(e, prompt, leaves) for e in (flat, stock(HeadEngine(model, sites)))
    )
    assert not torch.allclose(found[0], before)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    first, second = HeadEngine(model).flat, HeadEngine(model).flat
    assert first.layers[0].qkv.weight is second.layers[0].qkv.weight, "no second copy"
