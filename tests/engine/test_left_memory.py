from types import SimpleNamespace

import pytest
import torch
import transformers

from iptkit.engine.left_memory import _MEMORY, LeftMemory, attend, left_memory, prepare
from iptkit.models import backbone


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def attention_by_hand(query, keys, values, may_look, scaling):
    """softmax(q k / scale) v, one row, head and token at a time. -> [B, n, H, k]"""
    batch, heads, new, width = query.shape
    out = torch.zeros(batch, new, heads, width, dtype=query.dtype)
    group = heads // keys.shape[1]
    for b in range(batch):
        for h in range(heads):
            for i in range(new):
                seen = may_look[b, i].nonzero().flatten()
                weights = (keys[b, h // group, seen] @ query[b, h, i] * scaling).softmax(-1)
                out[b, i, h] = weights @ values[b, h // group, seen]
    return out


@pytest.mark.parametrize("scaling", [None, 0.3])
def test_attention_sees_memory_then_new_tokens(scaling):
    query, key, value = draw(3, 4, 2, 5), draw(3, 2, 2, 5, seed=1), draw(3, 2, 2, 5, seed=2)
    left_keys, left_values = draw(3, 2, 6, 5, seed=3), draw(3, 2, 6, 5, seed=4)
    may_look = torch.ones(3, 2, 8, dtype=torch.bool)
    may_look[1, :, 4:6] = False  # row 1 has a shorter memory
    may_look[:, 0, 7] = False  # causal
    memory = LeftMemory([None, (left_keys, left_values)])
    with left_memory(memory):
        module = SimpleNamespace(layer_idx=1)
        found, _ = attend(module, query, key, value, may_look[:, None], scaling)
    keys, values = torch.cat([left_keys, key], 2), torch.cat([left_values, value], 2)
    expected = attention_by_hand(query, keys, values, may_look, scaling or 5**-0.5)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert memory.layers[1][0] is left_keys, "the memory does not grow by itself"


def test_a_growing_memory_keeps_the_new_tokens():
    query, key, value = draw(1, 2, 3, 4), draw(1, 2, 3, 4, seed=1), draw(1, 2, 3, 4, seed=2)
    memory = LeftMemory([(draw(1, 2, 0, 4), draw(1, 2, 0, 4))], grow=True)
    with left_memory(memory):
        mask = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril()
        attend(SimpleNamespace(layer_idx=0), query, key, value, mask)
    assert torch.equal(memory.layers[0][0], key) and torch.equal(memory.layers[0][1], value)


def test_a_trainable_memory_gets_gradients():
    """Deep prompts are a memory that trains; a constant one costs no gradient."""
    query, key, value = draw(1, 2, 1, 4).requires_grad_(), draw(1, 1, 1, 4, seed=1), draw(1, 1, 1, 4, seed=2)
    left = draw(1, 1, 2, 4, seed=3).requires_grad_()
    constant = draw(1, 1, 2, 4, seed=4)
    with left_memory(LeftMemory([(constant, left)])):
        mask = torch.ones(1, 1, 1, 3, dtype=torch.bool)
        out, _ = attend(SimpleNamespace(layer_idx=0), query, key, value, mask)
    out.sum().backward()
    assert left.grad.norm() > 0 and query.grad.norm() > 0 and constant.grad is None


def test_the_memory_ends_with_its_context():
    memory = LeftMemory([])
    assert _MEMORY.get() is None
    with pytest.raises(KeyError), left_memory(memory):
        assert _MEMORY.get() is memory
        raise KeyError
    assert _MEMORY.get() is None


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-encoder", "tiny-seq2seq"])
def test_a_prepared_model_without_memory_is_the_stock_model(name):
    """With padding: a mask function of our name has to exist, or padding would be lost without a word."""
    stock, prepared = backbone.load(name, dtype="float64").model, backbone.load(name, dtype="float64").model
    prepare(prepared)
    assert prepared.config._attn_implementation == "iptkit" != stock.config._attn_implementation
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    first, second, unmasked = (
        model(input_ids=ids, attention_mask=seen)[0]
        for model, seen in ((stock, mask), (prepared, mask), (prepared, torch.ones_like(mask)))
    )
    torch.testing.assert_close(second[mask.bool()], first[mask.bool()], rtol=1e-12, atol=1e-12)
    if name != "tiny-causal":  # there padding to the right is never looked at
        assert (unmasked[1, :3] - first[1, :3]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["DebertaV2", "MPNet"])
def test_models_that_bypass_the_interface_are_refused(kind):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = getattr(transformers, f"{kind}Config")(vocab_size=20, **sizes)
    model = getattr(transformers, f"{kind}Model")(config)
    with pytest.raises(
        ValueError, match=f"{kind}Model does not use transformers' attention interface.*choose a"
    ):
        prepare(model)
