import copy
import math

import pytest
import torch
from stock import backbone

from iptkit.engine.engine import Engine
from iptkit.methods import adapters, all_weights, subspace
from iptkit.methods.baselines import (
    Around,
    Fastfood,
    FastfoodPrompt,
    PrincipalComponents,
    components_around,
    fastfood_around,
    random_around,
    start_of,
    step_length,
    walsh_hadamard,
)
from iptkit.methods.subspace import AutoEncoder, IntrinsicPrompt, SubspaceConfig
from iptkit.tasks import suites
from iptkit.training.runs import FitConfig, Run


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


# ---- controls that start where IST starts ----------------------------------------------------------
SHAPES = {"embeds": (4, 32), "keys_values": (3, 2, 2, 4, 8), "adapters": (4, 2, 32, 3)}
MAKERS = {
    "random": lambda found, bank, seed=0: random_around(found, generator(seed)),
    "components": lambda found, bank, seed=0: components_around(found, bank),
    "Fastfood": lambda found, bank, seed=0: fastfood_around(found, generator(seed)),
}
controls = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def bank_of(kind="embeds", dtype=torch.float64):
    return torch.randn(7, *SHAPES[kind], generator=generator(8), dtype=torch.float64).to(dtype) + 0.5


def found_of(kind="embeds", dtype=torch.float64, dim=3):
    """A decoder whose codes have means and spreads of their own, as a trained one has."""
    if kind == "adapters":
        return adapters.HyperAdapters(dim, 4, 32, 3, generator(9)).to(dtype)
    found = AutoEncoder(bank_of(kind), SubspaceConfig(dim, 16), generator(9), kind).to(dtype)
    with torch.no_grad():
        found.encoder.bias += torch.tensor([0.4, -0.3, 0.8])[:dim]
    return found


def numbers(source, runs=2):
    """The prompts of a source, flat: [R, D]."""
    return getattr(source(torch.arange(runs)), source.kind).flatten(1)


def test_the_step_of_a_decoder_is_how_far_one_unit_of_u_moves_its_prompt():
    found = found_of()
    plus, minus = IntrinsicPrompt(found, 3), IntrinsicPrompt(found, 3)
    with torch.no_grad():
        plus.u += torch.eye(3)
        minus.u -= torch.eye(3)
        start = numbers(IntrinsicPrompt(found, 1), 1)
        moves = torch.cat([numbers(plus, 3), numbers(minus, 3)]) - start
    by_hand = math.sqrt(sum(float(move.norm()) ** 2 for move in moves) / 6)
    assert step_length(found) == pytest.approx(by_hand, rel=1e-9) and by_hand > 0.1
    assert step_length(Around(torch.zeros(2, 2), torch.diag(torch.tensor([1.0, 7, 0, 0]))[:2])) == 5
    with torch.no_grad():
        found.decoder.outer.weight.zero_()
    with pytest.raises(ValueError, match=r"moves the prompts of this AutoEncoder by 0\.0; give a trained"):
        random_around(found, generator())


@controls
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_controls_start_where_ist_starts_and_make_steps_of_its_size(make, kind, dtype):
    found = found_of(kind, dtype)
    control = make(found, bank_of(kind))
    mine, theirs = IntrinsicPrompt(control, 2), IntrinsicPrompt(found, 1)
    assert mine.kind == kind and mine(torch.tensor([0])).tensors()[kind].shape[1:] == SHAPES[kind]
    for start in numbers(mine):
        assert torch.equal(start, numbers(theirs, 1)[0]) and torch.equal(start, start_of(found).flatten())
    if kind != "adapters":
        assert torch.equal(numbers(mine), numbers(subspace.mean_code(found, 2)))
    assert step_length(control) == pytest.approx(step_length(found), rel=1e-5)
    assert not mine.center.any() and torch.allclose(mine.scale, torch.ones_like(mine.scale))
    assert mine.u.shape == (2, 3), "as many numbers as IST"


@controls
def test_controls_move_linearly_in_u(make):
    mine = IntrinsicPrompt(make(found_of(), bank_of()), 3)
    with torch.no_grad():
        mine.u += torch.tensor([[0.0, 0, 0], [1, -2, 0.5], [2, -4, 1]])
    start, one, two = numbers(mine, 3).detach()
    torch.testing.assert_close(two - start, 2 * (one - start), rtol=1e-6, atol=1e-7)


def test_random_directions_are_orthogonal_and_of_one_length():
    found = found_of()
    around, other = (random_around(found, generator(seed)) for seed in (0, 1))
    step = step_length(found)
    gram = around.directions @ around.directions.t()
    torch.testing.assert_close(gram, step**2 * torch.eye(3, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    assert torch.equal(around.directions, random_around(found, generator(0)).directions)
    cosines = around.directions @ other.directions.t() / step**2
    assert cosines.abs().max() < 0.5, "D = 128: directions of another draw are almost orthogonal to these"


def test_fastfood_draws_other_directions_with_another_generator():
    found = found_of()
    z = torch.eye(3, dtype=torch.float64)
    first, same, other = (fastfood_around(found, generator(s)).decode(z) for s in (0, 0, 1))
    assert torch.equal(first, same) and not torch.allclose(first, other, atol=0.01)


def test_components_keep_their_directions_and_relative_spread():
    found, bank = found_of(), bank_of()
    around = components_around(found, bank)
    flat = bank.flatten(1) - bank.flatten(1).mean(0)
    _, sigma, V = torch.linalg.svd(flat, full_matrices=False)
    lengths = around.directions.norm(dim=1)
    torch.testing.assert_close(lengths / lengths[0], sigma[:3] / sigma[0], rtol=1e-5, atol=1e-6)
    cosines = (around.directions * V[:3]).sum(1).abs() / lengths
    torch.testing.assert_close(cosines, torch.ones(3, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    assert lengths.square().mean().sqrt().item() == pytest.approx(step_length(found), rel=1e-6)
    assert torch.equal(around.directions.amax(1), around.directions.abs().amax(1)), "one sign everywhere"


@controls
def test_only_u_of_a_control_trains(make):
    engine = Engine(backbone("tiny-causal", "float32"))
    runs = [Run(task) for task in suites.load_suite("tiny", only=["tiny-mood", "tiny-pick"], max_test=4)]
    control = make(found_of(dtype=torch.float32), bank_of(dtype=torch.float32))
    before = {name: value.clone() for name, value in control.state_dict().items()}
    short = FitConfig(steps=3, rows_per_run=2, lr=0.05, evaluations=1, dev_examples=2)
    source, result = subspace.tune(engine, control, runs, short)
    assert [name for name, p in source.named_parameters() if p.requires_grad] == ["u"]
    assert result.losses.isfinite().all() and (source.u.abs().amax(1) > 0.01).all()
    for name, value in control.state_dict().items():
        assert torch.equal(value, before[name]), name


@controls
def test_a_control_is_restored_from_its_state(make):
    """Into one that was made with another generator."""
    found, bank = found_of(), bank_of()
    mine, other = (IntrinsicPrompt(make(found, bank, seed), 2) for seed in (0, 1))
    with torch.no_grad():
        mine.u += torch.randn(2, 3, generator=generator(4))
    other.load_state_dict(mine.state_dict())
    assert torch.equal(numbers(other), numbers(mine))


def test_what_no_control_can_be_made_of_is_told():
    found, bank = found_of(), bank_of()
    with pytest.raises(ValueError, match=r"prompts of shape \(3, 32\), but the decoder makes \(4, 32\)"):
        components_around(found, bank[:, :3])
    with pytest.raises(ValueError, match="intrinsic_dim is 3, but 3 prompts have 2 principal"):
        components_around(found, bank[:3])
    with pytest.raises(ValueError, match="all prompts of the bank are equal"):
        components_around(found, torch.ones_like(bank))
    with pytest.raises(ValueError, match=r"prompts of tasks \[2\] are missing"):
        components_around(found, bank.index_fill(0, torch.tensor([2]), torch.nan))
    small = Around(torch.zeros(1, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="d_I = 3 is more than the 2 numbers of one prompt"):
        random_around(small, generator())
    for wrong in (torch.ones(3), torch.ones(3, 5), torch.full((3, 2), torch.nan)):
        with pytest.raises(ValueError, match=r"give \[d_I, 2\], all finite"):
            Around(torch.zeros(1, 2), wrong)
    with pytest.raises(ValueError, match=r"start\[None\] has shape"):
        Around(torch.zeros(2), torch.ones(3, 2))


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
