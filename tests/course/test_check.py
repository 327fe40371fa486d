import numpy as np
import pytest
import torch

from iptkit.course import check
from iptkit.models import backbone


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


def test_shape_prints_names_and_no_sizes(capsys):
    check.shape(torch.zeros(2, 10, 576), {"tasks": None, "n": 10, "d": 576}, "the bank")
    check.shape([[1, 2, 3]], {"tasks": 1, "d_I": 3}, "the codes")
    check.shape(3.0, {}, "the loss")
    assert capsys.readouterr().out.splitlines() == [
        "ok: the shape of the bank is tasks x n x d",
        "ok: the shape of the codes is tasks x d_I",
        "ok: the shape of the loss is that of a single number",
    ]


def test_shape_shows_sizes_where_they_differ():
    with pytest.raises(
        AssertionError, match=r"not so: .* is tasks x d_I \(seen: 2 x 10, expected: any x 11\)"
    ):
        check.shape(np.zeros((2, 10)), {"tasks": None, "d_I": 11}, "the codes")
    with pytest.raises(AssertionError, match=r"seen: a single number, expected: 1\)"):
        check.shape(3.0, {"tasks": 1}, "the codes")


def test_frozen_notices_one_changed_bit(capsys):
    model = torch.nn.Linear(3, 2)
    before = backbone.fingerprint(model)
    check.frozen(before, model)
    assert capsys.readouterr().out == "ok: the model's weights are bit for bit what they were\n"
    with torch.no_grad():
        model.bias[0] = torch.nextafter(model.bias[0], torch.tensor(9.0))
    with pytest.raises(AssertionError, match="bit for bit"):
        check.frozen(before, model)
