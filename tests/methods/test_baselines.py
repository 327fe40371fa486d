import copy
import math

import pytest
import torch
from stock import backbone

from iptkit.methods import adapters, all_weights, subspace
from iptkit.methods.baselines import Fastfood, FastfoodPrompt, PrincipalComponents, walsh_hadamard


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def dense_hadamard(size):
    """+1 or -1 by the parity of the bits that row and column share: the definition."""
    return torch.tensor(
        [[(-1.0) ** (i & j).bit_count() for j in range(size)] for i in range(size)], dtype=torch.float64
    )


@pytest.mark.parametrize("size", [1, 2, 8, 32, 64, 512, 2048])
def test_walsh_hadamard_is_the_dense_product_and_its_own_inverse(size):
    x = torch.randn(3, size, generator=generator(), dtype=torch.float64)
    assert torch.allclose(walsh_hadamard(x), x @ dense_hadamard(size), atol=1e-9)
    assert torch.allclose(walsh_hadamard(walsh_hadamard(x)), size * x, atol=1e-9)


def test_walsh_hadamard_refuses_another_length():
    with pytest.raises(ValueError, match="power of two in the last dimension, got 6"):
        walsh_hadamard(torch.zeros(2, 6))


@pytest.mark.parametrize(("dim", "size"), [(1, 1), (3, 20), (5, 64), (40, 33)])
def test_fastfood_is_the_dense_product(dim, size):
    fast = Fastfood(dim, size, generator()).double()
    length = len(fast.signs)
    H, P = dense_hadamard(length), torch.eye(length, dtype=torch.float64)[fast.order]
    M = H @ torch.diag(fast.gauss) @ P @ H @ torch.diag(fast.signs) * (length * size) ** -0.5
    v = torch.randn(4, dim, generator=generator(1), dtype=torch.float64, requires_grad=True)
    expected = v @ M[:size, :dim].t()
    assert torch.allclose(fast(v), expected, atol=1e-10)
    up = torch.randn(4, size, generator=generator(2), dtype=torch.float64)
    mine = torch.autograd.grad(fast(v), v, up)[0]
    assert torch.allclose(mine, torch.autograd.grad(expected, v, up)[0], atol=1e-10)


def test_fastfood_keeps_lengths_on_average():
    v = torch.randn(10, generator=generator(3))
    lengths = [(Fastfood(10, 3000, generator(s))(v).norm() / v.norm()).item() for s in range(20)]
    assert sum(lengths) / 20 == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("dim", "size"), [(0, 4), (2, 0)])
def test_fastfood_refuses_sizes_below_one(dim, size):
    with pytest.raises(ValueError, match=f"got {dim} and {size}"):
        Fastfood(dim, size, generator())


def test_fastfood_prompts_start_where_they_should_and_move_by_std():
    start = torch.randn(4, 100, generator=generator(5))
    source = FastfoodPrompt(start, 0.3, 6, generator())
    tuned = subspace.IntrinsicPrompt(source, 2)
    assert torch.allclose(tuned(torch.tensor([1, 0])).embeds, start.expand(2, -1, -1), atol=1e-6)
    assert torch.allclose(tuned.scale, torch.ones(6)) and not tuned.center.any()
    with torch.no_grad():
        moved = source.decode(torch.eye(6)) - start
    assert moved.square().mean().sqrt().item() == pytest.approx(0.3, rel=0.15)
    with pytest.raises(ValueError, match=r"std is 0\.0"):
        FastfoodPrompt(start, 0.0, 6, generator())


def test_principal_components_are_the_best_plane():
    """The error is the sum of the other squared singular values; all components give every prompt exactly."""
    bank = torch.randn(7, 3, 5, generator=generator(6))
    flat = bank.flatten(1) - bank.flatten(1).mean(0)
    values = torch.linalg.svdvals(flat)
    for dim in (1, 3, 6):
        plane = PrincipalComponents(bank, dim)
        lost = (plane.decode(plane.codes()) - bank).square().sum().item()
        assert lost == pytest.approx(values[dim:].square().sum().item(), abs=1e-3)
    assert torch.allclose(plane.decode(plane.codes()), bank, atol=1e-4)
    with pytest.raises(ValueError, match="intrinsic_dim is 7, but 7 prompts have 6 principal"):
        PrincipalComponents(bank, 7)


def test_all_weights_stay_at_v_zero_and_all_move_with_v():
    """DID: at v = 0 the model is unchanged; tied weights stay tied, only v trains, and all weights move."""
    plain = copy.deepcopy(backbone("tiny-causal", "float64").model)  # other tests use the model too
    before = {name: p.detach().clone() for name, p in plain.named_parameters()}
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        logits = plain(input_ids=ids).logits.clone()
    v = all_weights.shift_all_weights(plain, 5, seed=0)
    assert [name for name, p in plain.named_parameters() if p.requires_grad] == ["intrinsic"]
    assert torch.equal(plain(input_ids=ids).logits, logits)
    with torch.no_grad():
        v += 0.5
    now = dict(plain.state_dict())
    originals = [t for name, t in now.items() if name.endswith(".original")]
    assert {tuple(t.shape) for t in originals} == {tuple(t.shape) for t in before.values()}
    moved = {n: m for n, m in plain.named_modules() if hasattr(m, "parametrizations")}
    assert len(moved) >= len(before) - 1
    for name, start in before.items():
        module, _, weight = name.rpartition(".")
        assert not torch.equal(getattr(plain.get_submodule(module), weight), start), name
    tied = plain.get_input_embeddings().weight, plain.get_output_embeddings().weight
    if plain.config.tie_word_embeddings:
        assert torch.equal(*tied)

    def loss():
        return plain(input_ids=ids).logits.square().mean()

    loss().backward()
    assert v.grad.abs().min() > 0
    numeric = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            v[2] += step
            numeric.append(loss().item())
            v[2] -= step
    assert (numeric[0] - numeric[1]) / 2e-6 == pytest.approx(v.grad[2].item(), rel=1e-4)


def test_a_subspace_of_all_weights_written_out_is_the_same_and_can_be_settled():
    ids, found = torch.tensor([[3, 4, 5, 6]]), []
    for is_dense in (False, True):
        model = copy.deepcopy(backbone("tiny-causal", "float64").model)
        v = all_weights.shift_all_weights(model, 5, 0, is_dense)
        with torch.no_grad():
            v += torch.arange(5) / 10
        logits = model(input_ids=ids).logits
        logits.square().mean().backward()
        found.append((logits.detach(), v.grad.clone()))
        names = set(dict(model.named_parameters()))
        all_weights.settle(model)
        assert not any("parametrizations" in name or "intrinsic" in name for name in model.state_dict())
        assert torch.equal(model(input_ids=ids).logits, found[-1][0]), "settled where it had moved to"
        assert "intrinsic" in names
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)  # Fastfood's numbers are float32


def test_numbers_of_the_adapter_variant():
    """The paper's shapes: 24 adapters of rank 16, width 768, 48 x 12,288 parameters per dimension."""
    for dim, told in ((10, 5.9e6), (250, 147e6), (2000, 1.18e9)):
        assert adapters.num_parameters(dim) == 48 * 12288 * dim
        assert math.isclose(adapters.num_parameters(dim), told, rel_tol=0.01)
    assert 24 * 2 * 768 * 16 == 589824 == adapters.num_parameters(1)
