import numpy as np
import pytest
import torch

from iptkit import backbones, check


def test_ok_prints_one_fixed_line(capsys):
    check.ok(3 > 2, "three is more")
    check.ok(torch.tensor(True), "a tensor is a condition")
    assert capsys.readouterr().out == "ok: three is more\nok: a tensor is a condition\n"


def test_ok_raises_with_what_was_seen():
    with pytest.raises(AssertionError, match=r"not so: three is more \(seen: 2 and 3\)"):
        check.ok(2 > 3, "three is more", seen="2 and 3")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1.0, 1.0 + 1e-7),
        (torch.tensor(2.0), 2),
        (torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True), np.ones((2, 3))),
        ([[1, 2], [3, 4]], torch.tensor([[1, 2], [3, 4]])),
        (float("inf"), float("inf")),
    ],
)
def test_close_accepts(capsys, a, b):
    check.close(a, b, "equal")
    assert capsys.readouterr().out == "ok: equal\n"


def test_close_shows_the_worst_pair():
    with pytest.raises(AssertionError, match=r"2 of 3 values differ, most: 3.0 and 5.0; allowed: rtol 0.1"):
        check.close([1.0, 2.0, 3.0], [1.0, 2.5, 5.0], "equal", rtol=0.1)


def test_close_refuses_nan_and_other_shapes():
    with pytest.raises(AssertionError, match="1 of 2 values differ, most: nan and 1.0"):
        check.close([1.0, float("nan")], [1.0, 1.0], "equal")
    with pytest.raises(AssertionError, match=r"shapes \(2,\) and \(\)"):
        check.close([1.0, 2.0], 1.0, "equal")


def test_shape(capsys):
    check.shape(torch.zeros(2, 10, 576), (None, 10, 576), "the prompt")
    check.shape([[1, 2, 3]], (1, 3), "a list")
    assert (
        capsys.readouterr().out
        == "ok: the prompt has the shape any x 10 x 576\nok: a list has the shape 1 x 3\n"
    )
    with pytest.raises(AssertionError, match=r"the prompt has the shape 2 x 11 \(seen: 2 x 10\)"):
        check.shape(np.zeros((2, 10)), (2, 11), "the prompt")
    with pytest.raises(AssertionError, match="seen: of a single number"):
        check.shape(3.0, (1,), "the prompt")


def test_frozen_notices_one_changed_bit(capsys):
    model = torch.nn.Linear(3, 2)
    before = backbones.fingerprint(model)
    check.frozen(before, model)
    assert capsys.readouterr().out == "ok: the model's weights are bit for bit what they were\n"
    with torch.no_grad():
        model.bias[0] = torch.nextafter(model.bias[0], torch.tensor(9.0))
    with pytest.raises(AssertionError, match="bit for bit"):
        check.frozen(before, model)
