"""The flat Llama forward against transformers' own, in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stock import backbone

from iptkit.engine.fast.attention import GroupedAttention, Part
from iptkit.engine.fast.elementwise import (
    ROWS_IN_CACHE,
    TOKENS_IN_CACHE,
    log_probability,
    norm,
    norm_backward,
    rotate_,
    rotation,
    rotation_back,
    swiglu,
    swiglu_backward,
)
from iptkit.engine.fast.llama import FlatLlama
from iptkit.engine.fast.llama_forward import FlatForward
from iptkit.engine.fast.memory import keep_freed_memory, own_pages
from iptkit.engine.forward import StockForward, empty_memory, forward_of
from iptkit.engine.rows import Places
from iptkit.methods import fine_tuning


def ragged(model, left=(3, 0, 5), new=(4, 2, 1), seed=0):
    """Rows with memories and new tokens of different length."""
    torch.manual_seed(seed)
    batch, places, size = len(left), max(left), max(new)
    memory = empty_memory(model, batch, places + size)
    memory[..., :places, :].normal_()
    order = torch.arange(size)
    real = order < torch.tensor(new)[:, None]
    filled = torch.arange(places) < torch.tensor(left)[:, None]
    causal = (order[:, None] >= order) & real[:, None] & real[:, :, None]
    visible = torch.cat([filled[:, None].expand(-1, size, -1), causal], -1)
    positions = (order + torch.tensor(left)[:, None]) * real
    embeds = torch.randn(batch, size, model.width, dtype=memory.dtype) * model.embedding.std()
    at = real.flatten().nonzero()[:, 0]
    real_at = None if real.all() else at
    return embeds, Places(real, positions, visible, real_at), memory, at


@pytest.mark.parametrize(
    "name", ["tiny-causal", pytest.param("smollm2-135m", marks=pytest.mark.model)], ids=str
)
def test_equals_the_stock_forward(name):
    model = backbone(name, "float64")
    embeds, places, memory, at = ragged(model)
    results = []
    for forward in (StockForward(model), FlatForward(model)):
        start = embeds.clone().requires_grad_()
        states = forward.hidden(start, places, [memory.clone()], at)
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1), dtype=states.dtype)
        (gradient,) = torch.autograd.grad((states * weights).sum(), start)
        results.append((states.detach(), gradient))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert results[1][1][~places.real].abs().max() == 0


def test_both_forwards_write_the_same_memory():
    model = backbone("tiny-causal", "float64")
    embeds, places, memory, at = ragged(model)
    written = []
    with torch.no_grad():
        for forward in (StockForward(model), FlatForward(model)):
            for work in (
                lambda f, m: f.hidden(embeds, places, [m], at),
                lambda f, m: f.read(embeds, places, [m]),
            ):
                part = memory.clone()
                work(forward, part)
                written.append(part)
    new = places.real[None, None, :, None, :, None]
    size = places.real.shape[1]
    for part in written:
        torch.testing.assert_close(part[..., :-size, :], memory[..., :-size, :], rtol=0, atol=0)
        torch.testing.assert_close(
            part[..., -size:, :] * new, written[0][..., -size:, :] * new, rtol=1e-12, atol=1e-12
        )


def test_the_gradient_is_that_of_finite_differences_and_comes_once():
    model = backbone("tiny-causal", "float64")
    embeds, places, memory, at = ragged(model)
    forward, step = FlatForward(model), 1e-6
    direction = torch.randn_like(embeds)

    def total(x):
        return forward.hidden(x, places, [memory.clone()], at).sin().sum()

    start = embeds.clone().requires_grad_()
    value = total(start)
    (gradient,) = torch.autograd.grad(value, start, retain_graph=True)
    slope = (total(embeds + step * direction) - total(embeds - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope.detach(), rtol=1e-6, atol=0)
    with pytest.raises(RuntimeError, match="run the forward pass again"):
        torch.autograd.grad(value, start)


def test_padding_changes_nothing():
    model = backbone("tiny-causal", "float64")
    embeds, places, memory, at = ragged(model)
    forward = FlatForward(model)
    together = forward.hidden(embeds, places, [memory.clone()], at)
    alone = []
    for row, (left, new) in enumerate(((3, 4), (0, 2), (5, 1))):
        size, here = embeds.shape[1], torch.tensor([row])
        part = torch.cat([memory[:, :, here, :, :left], memory[:, :, here, :, -size:][..., :new, :]], -2)
        visible = torch.cat(
            [places.visible[here, :new, :left], places.visible[here, :new, -size:][..., :new]], -1
        )
        only = Places(places.real[here, :new], places.positions[here, :new], visible)
        alone.append(forward.hidden(embeds[here, :new], only, [part], torch.arange(new)))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-12, atol=1e-12)


def test_parts_of_a_batch_give_what_the_whole_gives():
    model = backbone("tiny-causal", "float64")
    left, new = (0, 1, 6, 7, 2), (2, 2, 4, 3, 1)
    embeds, places, memory, at = ragged(model, left, new)
    forward, results = FlatForward(model), []
    for rows in ([slice(0, 5)], [slice(0, 2), slice(2, 4), slice(4, 5)]):
        parts = [
            torch.cat([memory[:, :, r, :, : max(left[r])], memory[:, :, r, :, -max(new[r]) :]], -2)
            for r in rows
        ]
        start = embeds.clone().requires_grad_()
        states = forward.hidden(start, places, parts, at)
        (gradient,) = torch.autograd.grad(states.sin().sum(), start)
        keys = [
            parts[i][:, :, b - r.start, :, max(left[r]) :][..., : new[b], :].flatten()
            for i, r in enumerate(rows)
            for b in range(5)[r]
        ]
        results.append((states.detach(), gradient, torch.cat(keys)))
    for whole, cut in zip(*results, strict=True):
        torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-12)
    alone = forward.hidden(embeds, places, [memory], at)
    torch.testing.assert_close(results[0][0], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("new", [(4, 2, 1), (3, 3, 3)], ids=["padded", "full"])
def test_the_last_layer_is_computed_where_it_is_read(new, monkeypatch):
    model = backbone("tiny-causal", "float64")
    embeds, places, memory, at = ragged(model, new=new)
    forward, seen = FlatForward(model), []
    down = forward.llama.layers[-1].down
    plus = down.plus
    monkeypatch.setattr(down, "plus", lambda x, y: seen.append(len(y)) or plus(x, y))
    some = torch.tensor([5, 0, 2, 0])  # in any order, one of them twice
    results = []
    for read, picked in ((at, some), (at[some], slice(None))):
        start = embeds.clone().requires_grad_()
        states = forward.hidden(start, places, [memory.clone()], read)[picked]
        (gradient,) = torch.autograd.grad(states.sin().sum(), start)
        results.append((states.detach(), gradient))
    for whole, few in zip(*results, strict=True):
        torch.testing.assert_close(few, whole, rtol=1e-12, atol=1e-12)
    assert seen == [len(at), 4]


def test_merging_weights_changes_no_value():
    from iptkit.models.backbone import fingerprint, load

    model = load("tiny-causal")
    before, count = fingerprint(model.model), sum(p.numel() for p in model.model.parameters())
    FlatLlama(model.model)
    assert fingerprint(model.model) == before
    assert sum(p.numel() for p in model.model.parameters()) == count
    storages = {p.untyped_storage().data_ptr() for p in model.model.model.layers[0].self_attn.parameters()}
    assert len(storages) == 2, "q, k, v share one tensor, o has its own"


def test_a_second_engine_shares_the_merged_weights():
    from iptkit.models.backbone import load

    model = load("tiny-causal").model
    first, second = FlatLlama(model), FlatLlama(model)
    for a, b in zip(first.layers, second.layers, strict=True):
        assert a.qkv is b.qkv and a.gate_up is b.gate_up


def test_a_memory_that_was_written_to_is_noticed():
    model = backbone("tiny-causal", "float64")
    embeds, places, memory, at = ragged(model)
    forward = FlatForward(model)
    states = forward.hidden(embeds.requires_grad_(), places, [memory], at)
    with torch.no_grad():
        forward.hidden(embeds, places, [memory], at)
    with pytest.raises(RuntimeError, match="give each forward pass a memory of its own"):
        states.sum().backward()


def llama(**changes):
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**size, vocab_size=20, max_position_embeddings=32, **changes))


def test_only_plain_llamas_take_the_flat_forward():
    from peft import LoraConfig
    from transformers import GPT2Config, GPT2LMHeadModel

    assert isinstance(forward_of(backbone("tiny-causal", "float64")), FlatForward)
    assert all(FlatLlama.fits(llama(**c)) for c in ({}, {"head_dim": 4}, {"num_key_value_heads": 1}))
    gpt = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=32))
    hooked = llama()
    hooked.model.layers[0].mlp.register_forward_hook(lambda *_: None)
    adapted = fine_tuning._with_peft(llama(), LoraConfig(target_modules=["o_proj"], task_type="CAUSAL_LM"))
    odd = (gpt, hooked, adapted.get_base_model(), llama(attention_bias=True), llama(hidden_act="gelu"))
    assert not any(FlatLlama.fits(model) for model in odd)
    assert FlatLlama.fits(adapted.merge_and_unload())


def test_positions_that_depend_on_the_batch_are_refused():
    from dataclasses import replace

    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(ValueError, match="positions of the type 'dynamic'"):
        forward_of(replace(backbone("tiny-causal", "float64"), model=llama(rope_parameters=rope)))


# ---- parts ---------------------------------------------------------------------------------------
def test_norm_and_its_gradient():
    torch.manual_seed(0)
    x = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    weight, grad = torch.randn(8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    expected = torch.nn.functional.rms_norm(x, (8,), weight, 1e-5)
    found, rate = norm(x.detach(), weight, 1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(expected, x, grad)
    total = torch.ones_like(x)
    norm_backward(total, grad.clone(), x.detach(), rate, weight)
    torch.testing.assert_close(total, gradient + 1, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_swiglu_and_its_gradient(dtype):
    """In bfloat16 all is computed in float32 and rounded once."""
    torch.manual_seed(0)
    gate_up = torch.randn(2 * TOKENS_IN_CACHE + 3, 10).to(dtype)
    grad, inner = torch.randn(len(gate_up), 5).to(dtype), torch.promote_types(dtype, torch.float32)
    wide = gate_up.to(inner).clone().requires_grad_()
    expected = torch.nn.functional.silu(wide[:, :5]) * wide[:, 5:]
    (gradient,) = torch.autograd.grad(expected, wide, grad.to(inner))
    close = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 0, "atol": 0}
    expected = expected.detach()
    torch.testing.assert_close(swiglu(gate_up, inner), expected.to(dtype), **close)
    torch.testing.assert_close(swiglu_backward(grad, gate_up, inner), gradient.to(dtype), **close)


@pytest.mark.parametrize("ragged_rows", [True, False])
def test_attention_and_its_gradients_for_new_tokens_and_memory(ragged_rows):
    """Against torch's own, for four query heads over two key heads, with a blind spot on the left."""
    torch.manual_seed(0)
    attention, left, sizes = GroupedAttention(4, 2, 3), 5, (3, 2) if ragged_rows else (3, 3)
    real_at = torch.tensor([0, 1, 2, 3, 4, 5][: sum(sizes)])
    visible = torch.ones(3, 3).tril().bool().expand(2, 1, 3, 3)
    visible = torch.cat([torch.ones(2, 1, 3, left, dtype=torch.bool), visible], -1)
    visible[1, :, :, 1] = False
    memory = torch.full((1, 2, 2, 2, left + 3, 3), torch.nan, dtype=torch.float64)
    old = torch.randn(2, 2, 2, left, 3, dtype=torch.float64, requires_grad=True)
    memory[0, ..., :left, :] = old.detach()
    part = Part(slice(0, len(real_at)), real_at if ragged_rows else None, visible, memory)
    qkv = torch.randn(len(real_at), 8 * 3, dtype=torch.float64, requires_grad=True)
    outer = torch.randn(len(real_at), 4 * 3, dtype=torch.float64)
    with torch.no_grad():
        found, kept = attention.attend(qkv, part, 0)
        gradients = attention.back(outer, kept, part, 0, left=True)
        assert attention.back(outer, kept, part, 0, new=False, left=True)[0] is None

    rows = (
        torch.zeros(6, 24, dtype=torch.float64).index_copy(0, real_at, qkv).view(2, 3, 8, 3).transpose(1, 2)
    )
    query, new = rows[:, :4], torch.stack([rows[:, 4:6], rows[:, 6:]])
    keys, values = torch.cat([old, new], 3)
    seen = torch.nn.functional.scaled_dot_product_attention(query, keys, values, visible, enable_gqa=True)
    expected = seen.transpose(1, 2).reshape(6, 12)[real_at]
    torch.testing.assert_close(found, expected)
    d_qkv, d_old = torch.autograd.grad(expected, (qkv, old), outer)
    torch.testing.assert_close(gradients[0], d_qkv)
    torch.testing.assert_close(torch.stack(gradients[1]), d_old)


def test_turning_back_undoes_the_rotation():
    torch.manual_seed(0)
    angle = torch.randn(6, 1, 4, dtype=torch.float64).repeat(1, 1, 2)
    x = torch.randn(6, 24, dtype=torch.float64)
    turned = x.clone()
    turns = rotation(angle[:, 0].cos(), angle[:, 0].sin())
    rotate_(turned, 2, turns)
    assert torch.equal(turned[:, 16:], x[:, 16:]), "values are not turned"
    assert (turned[:, :16] - x[:, :16]).abs().max() > 0.1
    rotate_(turned, 2, rotation_back(turns))
    torch.testing.assert_close(turned, x, rtol=1e-12, atol=1e-12)


def test_log_probability_and_its_gradient():
    torch.manual_seed(0)
    logits = torch.randn(2 * ROWS_IN_CACHE + 3, 7, dtype=torch.float64, requires_grad=True)
    head = torch.tensor([0, 0, 18, ROWS_IN_CACHE, 18])
    token = torch.tensor([3, 3, 1, 6, 0])
    expected = logits.log_softmax(-1)[head, token]
    found = log_probability(logits, head, token)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(5, dtype=torch.float64)
    gradients = [torch.autograd.grad((v * weights).sum(), logits)[0] for v in (expected, found)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-12)


def test_freed_memory_is_kept_where_glibc_is():
    import platform

    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.skipif(not keep_freed_memory(), reason="glibc alone keeps freed memory")
def test_pages_of_their_own_go_back_when_nobody_holds_them():
    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))

    size = 64 << 20
    before = resident()
    block = torch.frombuffer(own_pages(size), dtype=torch.uint8).fill_(1)
    part = block[-1:]
    del block
    assert resident() > before + 0.9 * size and part.item() == 1, "a part of it holds all of it"
    del part
    assert resident() < before + 0.1 * size
