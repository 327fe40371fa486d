"""Packed products with frozen weights against plain ones, and when they are packed."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import weakref

import pytest
import torch
from stock import backbone
from test_llama import ragged

from benchmarks import products
from iptkit.engine.fast import packed_weights as module
from iptkit.engine.fast.bert import FlatBert
from iptkit.engine.fast.llama import FlatLlama
from iptkit.engine.fast.llama_forward import FlatForward
from iptkit.engine.fast.packed_weights import frozen_weight, linear, packed_bytes, packs
from iptkit.engine.forward import StockForward
from iptkit.models import machine
from iptkit.models.backbone import load

HAS_PACKED = packs([torch.zeros(1, 1)])
needs_packed = pytest.mark.skipif(not HAS_PACKED, reason="no packed products on this machine")


def drawn(dtype=torch.float32, size=(24, 16), seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight, x, grad, bias = (
        torch.randn(shape, generator=generator).to(dtype)
        for shape in (size, (5, size[1]), (5, size[0]), size[:1])
    )
    return weight, x, grad, bias


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_products_are_those_of_torch_in_float64(dtype):
    weight, x, grad, bias = drawn(dtype)
    made = frozen_weight(weight, packs([weight]))
    W, X, G, b = (t.double() for t in (weight, x, grad, bias))
    atol = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    for found, expected in (
        (made.times(x), X @ W.T),
        (made.times(x, bias), X @ W.T + b),
        (made.back(grad), G @ W),
        (made.plus(grad, x), G + X @ W.T),
        (linear(x, made, bias), X @ W.T + b),
    ):
        torch.testing.assert_close(found.double(), expected, rtol=0.01 * (atol > 0.01), atol=atol)
    if dtype == torch.bfloat16:
        assert linear(x.float(), made).dtype == torch.float32, "the dtype that was given"


@pytest.mark.parametrize("is_packed", [False, pytest.param(True, marks=needs_packed)])
def test_gradients_flow_into_what_is_multiplied(is_packed):
    weight, x, grad, bias = drawn()
    x = x.requires_grad_()
    (found,) = torch.autograd.grad(linear(x, frozen_weight(weight, is_packed), bias), x, grad)
    torch.testing.assert_close(found.double(), grad.double() @ weight.double(), rtol=0, atol=1e-5)


@needs_packed
def test_a_weight_that_was_written_to_is_packed_again():
    weight, x, grad, _ = drawn()
    made = frozen_weight(weight, True)
    before = made.times(x), made.back(grad)
    weight.mul_(2)
    torch.testing.assert_close((made.times(x), made.back(grad)), tuple(2 * t for t in before))


@needs_packed
def test_a_new_engine_sees_what_was_written_unseen():
    weight, x, _, _ = drawn()
    made = frozen_weight(weight, True)
    before = made.times(x)
    weight.data.mul_(2)  # as PEFT merges an adapter; torch does not count it
    assert torch.equal(made.times(x), before)
    torch.testing.assert_close(frozen_weight(weight, True).times(x), 2 * before)


@needs_packed
def test_a_weight_inside_a_merged_one_that_was_written_to_is_packed_again():
    model = load("tiny-causal").model  # one of its own
    flat, attention = FlatLlama(model), model.model.layers[0].self_attn
    x = torch.ones(1, model.config.hidden_size)
    before = flat.layers[0].qkv.times(x)
    with torch.no_grad():
        attention.k_proj.weight.mul_(2)
    expected = torch.cat([p(x) for p in (attention.q_proj, attention.k_proj, attention.v_proj)], -1)
    found = flat.layers[0].qkv.times(x)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, before)


@needs_packed
def test_engines_share_packed_weights_and_the_last_one_takes_them_away():
    weight = drawn(size=(7, 3))[0]
    first = frozen_weight(weight, True)
    assert frozen_weight(weight.detach(), True) is first and frozen_weight(weight, False) is not first
    assert first.packed_bytes == 0
    first.times(torch.ones(2, 3))
    assert 0 < first.packed_bytes <= packed_bytes()
    there = weakref.ref(first)
    del first
    gc.collect()
    assert there() is None


@needs_packed
def test_a_copy_packs_for_itself():
    weight, x, _, _ = drawn()
    made = frozen_weight(weight, True)
    expected = made.times(x)
    assert torch.equal(copy.deepcopy(made).times(x), expected)


@pytest.mark.parametrize("is_packed", [False, pytest.param(True, marks=needs_packed)])
def test_their_flops_are_counted(is_packed):
    weight, x, grad, bias = drawn()
    made = frozen_weight(weight, is_packed)
    for work in (
        lambda: made.times(x),
        lambda: made.times(x, bias),
        lambda: made.back(grad),
        lambda: made.plus(grad, x),
    ):
        assert products.flops_of(work) == 2 * x.numel() * len(weight)


def test_second_gradients_and_wrong_dtypes():
    weight, x, _, bias = drawn(torch.float64)
    made = frozen_weight(weight, False)
    assert torch.autograd.gradgradcheck(lambda x: linear(x, made, bias).pow(2), x.requires_grad_())
    with pytest.raises(RuntimeError, match="dtype"):
        linear(x.float(), made)


@pytest.mark.parametrize(
    ("reason", "weights"),
    [
        ("float64", [torch.zeros(2, 2, dtype=torch.float64)]),
        ("one of them", [torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.float16)]),
        ("device", [torch.zeros(2, 2, device="meta")]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_weights_stay_plain(reason, weights):
    assert not packs(weights)


@needs_packed
def test_a_machine_too_small_or_of_another_kind_stays_plain(monkeypatch, tmp_path):
    weights = [torch.zeros(8, 8)]
    with monkeypatch.context() as patch:
        patch.setattr(module, "SHARE", 1e-12)
        assert not packs(weights)
    with monkeypatch.context() as patch:
        patch.setattr(module.platform, "machine", lambda: "aarch64")
        module._works.cache_clear()
        assert not packs(weights)
    module._works.cache_clear()
    limit = tmp_path / "memory.max"
    for told, is_enough in (("max", True), ("1000", False), (str(1 << 30), True)):
        limit.write_text(told + "\n")
        monkeypatch.setattr(machine, "LIMITS", (str(limit), str(tmp_path / "no file")))
        machine.machine_memory.cache_clear()
        assert packs(weights * 5) == is_enough, told
    assert not packs([*weights, torch.zeros(1 << 12, 1 << 12)]), "tied ones count once, others each"
    machine.machine_memory.cache_clear()


@needs_packed
@pytest.mark.parametrize("name", ["tiny-causal", pytest.param("smollm2-135m", marks=pytest.mark.model)])
def test_a_packed_llama_is_near_to_the_stock_forward_in_float64(name, monkeypatch):
    drawn = ragged(backbone(name, "float64"))

    def results(dtype, make):
        model = backbone(name, dtype)
        embeds, places, memory, at = (
            t.to(model.embedding.dtype) if isinstance(t, torch.Tensor) and t.is_floating_point() else t
            for t in drawn
        )
        forward, start = make(model), embeds.clone().requires_grad_()
        logits = forward.logits(forward.hidden(start, places, [memory.clone()], at))
        (gradient,) = torch.autograd.grad(logits.logsumexp(-1).sum(), start)
        return forward, torch.cat([logits.detach().double().flatten(), gradient.double().flatten()])

    exact = results("float64", StockForward)[1]
    forward, packed = results("float32", FlatForward)
    assert forward.llama.is_packed and forward.head.is_packed
    monkeypatch.setattr(module, "SHARE", 1e-12)
    forward, plain = results("float32", FlatForward)
    assert not forward.llama.is_packed
    errors = [(found - exact).norm() / exact.norm() for found in (packed, plain)]
    assert max(errors) < 1e-4, errors  # float32's rounding in 30 layers, whatever the order of sums


@needs_packed
def test_models_are_packed_where_they_fit(monkeypatch):
    llama, bert = (backbone(name, "float32").model for name in ("tiny-causal", "tiny-encoder"))
    assert FlatLlama(llama).is_packed and FlatBert(bert).layers[0].qkv.weight.is_packed
    monkeypatch.setattr(module, "SHARE", 1e-12)
    assert not FlatLlama(llama).is_packed and not FlatBert(bert).layers[0].qkv.weight.is_packed


@pytest.mark.parametrize("own", [None, "77"])
def test_few_shapes_of_products_are_remembered_unless_the_user_says_how_many(own):
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    given = {name: value for name, value in os.environ.items() if name not in names}
    given |= {name: own for name in names if own}
    show = f"import iptkit, os; print(*(os.environ[name] for name in {names}))"
    made = subprocess.run([sys.executable, "-c", show], env=given, capture_output=True, text=True, check=True)
    assert made.stdout.split() == [own or "128"] * 2
