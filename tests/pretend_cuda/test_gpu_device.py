"""What the pretend GPU refuses, allows and counts: as CUDA does."""

import copy
import io

import pretend
import pytest
import torch
from torch import nn
from torch.nn import functional

HERE, OTHER, CPU = "cuda:0", "cuda:1", "cpu"


def numbers(device):
    return torch.arange(12.0).view(3, 4).to(device)


def index(device):
    return torch.tensor([0, 2], device=device)


REFUSED = {  # each takes the device of its second tensor
    "add": lambda x, of: x + numbers(of),
    "add_": lambda x, of: x.add_(numbers(of)),
    "compare": lambda x, of: x == numbers(of),
    "matmul": lambda x, of: x @ torch.ones(4, 2, device=of),
    "linear": lambda x, of: nn.Linear(4, 2).to(of)(x),
    "where": lambda x, of: torch.where(x > 0, x, numbers(of)),
    "where, condition": lambda x, of: torch.where(numbers(of) > 0, x, x),
    "cat": lambda x, of: torch.cat([x, numbers(of)]),
    "stack": lambda x, of: torch.stack([x, numbers(of)]),
    "gather": lambda x, of: x.gather(0, index(of)[:, None]),
    "index_select": lambda x, of: x.index_select(0, index(of)),
    "index_add": lambda x, of: x.index_add(0, index(of), x[:2]),
    "index_copy": lambda x, of: x.index_copy(0, index(x.device), numbers(of)[:2]),
    "index_fill": lambda x, of: x.index_fill(0, index(of), 1),
    "scatter": lambda x, of: x.scatter(0, index(of)[:, None], 1.0),
    "masked_fill": lambda x, of: x.masked_fill(numbers(of) > 0, 1.0),
    "embedding": lambda x, of: functional.embedding(index(of), x),
    "cross entropy": lambda x, of: functional.cross_entropy(x, torch.tensor([0, 1, 2], device=of)),
    "layer norm": lambda x, of: functional.layer_norm(x, (4,), torch.ones(4, device=of)),
    "assignment": lambda x, of: x.__setitem__(index(x.device), numbers(of)[:2]),
    "attention": lambda x, of: functional.scaled_dot_product_attention(x[None], x[None], numbers(of)[None]),
    "lerp": lambda x, of: x.lerp(numbers(of), 0.5),
    "out": lambda x, of: torch.mul(x, x, out=torch.empty(3, 4, device=of)),
}
APART = "two devices|same device"


@pytest.mark.parametrize("of", [CPU, OTHER])
@pytest.mark.parametrize("name", REFUSED)
def test_tensors_of_two_devices_do_not_mix(name, of):
    REFUSED[name](numbers(HERE), HERE)
    with pytest.raises(RuntimeError, match=APART):
        REFUSED[name](numbers(HERE), of)


def test_the_error_names_the_operation_and_the_arguments():
    told = r"aten::index_select got tensors on two devices, cuda:0 \(self\) and cpu \(index, shape \[2\]\)"
    with pytest.raises(RuntimeError, match=told):
        numbers(HERE).index_select(0, index(CPU))


ALLOWED = {
    "a number of the CPU": lambda x: x + torch.tensor(2.0),
    "a number of the CPU first": lambda x: torch.tensor(2.0) * x,
    "where with a number": lambda x: torch.where(x > 2, x, torch.tensor(0.0)),
    "an index of the CPU": lambda x: x[index(CPU)],
    "a mask of the CPU": lambda x: x[torch.tensor([True, False, True])],
    "assignment by an index of the CPU": lambda x: x.index_put((index(CPU),), x[:2]),
    "a copy": lambda x: torch.empty_like(x).copy_(numbers(CPU)),
    "a copy from the other GPU": lambda x: torch.empty_like(x).copy_(numbers(OTHER)),
    "pinned and not waited for": lambda x: numbers(CPU).pin_memory().to(HERE, non_blocking=True),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_cuda_allows(name):
    assert ALLOWED[name](numbers(HERE)).device == torch.device(HERE)


def test_numbers_of_a_gpu_do_not_mix_into_the_cpu():
    with pytest.raises(RuntimeError, match=APART):
        numbers(CPU) + numbers(HERE)[0, 0]


def test_numpy_takes_nothing_from_a_gpu():
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        numbers(HERE).numpy()


def test_a_generator_has_a_device():
    with pytest.raises(RuntimeError, match="draws on a GPU with a generator of the cpu"):
        torch.randn(3, device=HERE, generator=torch.Generator())
    with pytest.raises(RuntimeError, match="Expected a 'cpu' device type for generator but found 'cuda'"):
        torch.randn(3, generator=torch.Generator(HERE))
    drawn = [torch.randn(3, device=HERE, generator=torch.Generator(HERE).manual_seed(1)) for _ in range(2)]
    assert torch.equal(*drawn)


def test_random_numbers_can_be_kept():
    torch.manual_seed(1)
    with torch.random.fork_rng(devices=[HERE, OTHER]):
        expected = torch.rand(2, device=OTHER)
        torch.manual_seed(2)
        torch.rand(2, device=OTHER)
    assert torch.equal(torch.rand(2, device=OTHER), expected)


def test_devices_are_two():
    assert torch.cuda.is_available() and torch.cuda.device_count() == 2
    assert [torch.zeros(1, device=name).device.index for name in ("cuda", HERE, OTHER)] == [0, 0, 1]
    with torch.cuda.device(1):
        assert torch.zeros(1, device="cuda").device == torch.device(OTHER)
    assert torch.cuda.current_device() == 0
    with pytest.raises(RuntimeError, match="no device cuda:2"):
        torch.zeros(1, device="cuda:2")


@pytest.mark.parametrize("device", [HERE, OTHER])
def test_what_is_computed_is_what_a_cpu_computes(device):
    """Forward, backward and an optimizer's steps, in the thread that autograd has for a GPU."""
    found = {}
    for place in (CPU, device):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Embedding(9, 6), nn.LayerNorm(6), nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 9)
        ).to(place)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        ids = torch.tensor([[1, 2, 3], [4, 5, 8]], device=place)
        for _ in range(3):
            loss = functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            assert all(p.grad.device == ids.device for p in model.parameters())
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        found[place] = [p.detach().cpu() for p in model.parameters()]
    for expected, mine in zip(found[CPU], found[device], strict=True):
        torch.testing.assert_close(mine, expected)


def test_a_view_shares_its_memory():
    x = numbers(HERE)
    x[1:].mul_(0)
    x.view(-1)[0] = 7
    x.t()[3, 0] = 8
    assert x.tolist() == [[7, 1, 2, 8], [0] * 4, [0] * 4]


def test_tensors_are_copied_and_stored():
    x = numbers(OTHER)
    again = copy.deepcopy(x)
    again += 1
    stored = io.BytesIO()
    torch.save(x, stored)
    stored.seek(0)
    back = torch.load(stored)
    assert back.device == again.device == torch.device(OTHER) and torch.equal(back, x)
    assert torch.equal(again, x + 1)


WAITS = {
    "item": (lambda x: x.sum().item(), {"aten::_local_scalar_dense": 1}),
    "bool": (lambda x: bool((x > 3).any()), {"aten::_local_scalar_dense": 1}),
    "tolist": (lambda x: x.tolist(), {"copy to cpu": 1}),
    "cpu": (lambda x: x.cpu(), {"copy to cpu": 1}),
    "a copy": (lambda x: numbers(CPU).copy_(x), {"copy to cpu": 1}),
    "a mask": (lambda x: x[x > 3], {"aten::nonzero": 1}),
    "masked_select": (lambda x: x.masked_select(x > 3), {"aten::masked_select": 1}),
    "assignment by a mask": (lambda x: x.index_put_((x > 3,), x[0, :1]), {"aten::nonzero": 1}),
    "unique": (lambda x: x.unique(), {"aten::_unique2": 1}),
    "equal": (lambda x: torch.equal(x, x), {"aten::equal": 1}),
    "repeats": (lambda x: x.repeat_interleave(x[:, 0].long(), 0), {"aten::repeat_interleave.Tensor": 1}),
    "synchronize": (lambda x: torch.cuda.synchronize(), {"synchronize": 1}),
    "sending": (lambda x: numbers(HERE), {"blocking copy to cuda": 1}),
}
NO_WAITS = {
    "arithmetic": lambda x: (x @ x.T).softmax(-1).sum(),
    "sending, not waited for": lambda x: numbers(CPU).to(HERE, non_blocking=True),
    "filling by a mask": lambda x: x.__setitem__(x > 3, 1.0),
    "masked_fill": lambda x: x.masked_fill(x > 3, 1.0),
    "an index": lambda x: x[(x[:, 0] > 3).long()],
    "repeats by a number": lambda x: x.repeat_interleave(2, 0),
    "to the other GPU": lambda x: x.to(OTHER),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_makes_the_host_wait_is_counted(name):
    work, expected = WAITS[name]
    x = numbers(HERE)
    with pretend.waits() as found:
        work(x)
    assert found == expected
    with pytest.raises(RuntimeError, match="the host waits for the device in"), pretend.no_waits():
        work(x)


@pytest.mark.parametrize("name", NO_WAITS)
def test_what_does_not_make_it_wait_is_not(name):
    x = numbers(HERE)
    with pretend.waits() as found, pretend.no_waits():
        NO_WAITS[name](x)
    assert found == {}


def test_torch_has_to_come_after(tmp_path):
    with pytest.raises(RuntimeError, match="torch is imported already"):
        pretend.install(tmp_path)


def test_without_a_compiler_there_is_a_reason(monkeypatch):
    monkeypatch.setattr(pretend, "COMPILER", "no-such-compiler")
    assert "no C++ compiler (no-such-compiler; CXX names another one)" in pretend.why_not()


def test_the_list_of_operations_is_torchs_own():
    names = pretend.unchecked()
    assert {"add.Tensor", "where.self", "_index_put_impl_"} <= set(names)
    assert not {"index_select", "gather", "cat", "mm"} & set(names)
