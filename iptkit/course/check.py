"""Checks for learners and for the checked cells of the notebooks.

A check prints one line, "ok: ...", which is the same on every machine and at every scale, or raises
AssertionError with the values that it got.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Values = Any  # a number, nested sequences of numbers, a numpy array or a tensor


def ok(condition: object, text: str, seen: object = None) -> None:
    """Check that a condition holds.

    Args:
      condition: anything with a truth value.
      text: the claim in words, without measured numbers.
      seen: values to show if the condition does not hold.
    """
    if not bool(condition):
        raise AssertionError(f"not so: {text}" + ("" if seen is None else f" (seen: {seen})"))
    print(f"ok: {text}")


def close(a: Values, b: Values, text: str, rtol: float = 1e-5, atol: float = 1e-8) -> None:
    """Check that two numbers, arrays or tensors are equal up to rounding.

    Args:
      a: a number or an array-like.
      b: a number or an array-like of the same shape.
      text: the claim in words.
      rtol: relative tolerance; |a - b| <= atol + rtol * |b| must hold for every element.
      atol: absolute tolerance.
    """
    left, right = _flat(a), _flat(b)
    if _shape_of(a) != _shape_of(b):
        raise AssertionError(f"not so: {text} (shapes {_shape_of(a)} and {_shape_of(b)})")
    pairs = list(zip(left, right, strict=True))
    bad = [(x, y) for x, y in pairs if not (x == y or abs(x - y) <= atol + rtol * abs(y))]
    if bad:
        x, y = max(bad, key=lambda pair: _distance(*pair))
        raise AssertionError(
            f"not so: {text} ({len(bad)} of {len(pairs)} values differ, most: {x!r} and {y!r}; "
            f"allowed: rtol {rtol}, atol {atol})"
        )
    print(f"ok: {text}")


def shape(x: Values, axes: Mapping[str, int | None], text: str) -> None:
    """Check the shape of a tensor or array; prints the names of its axes but not their sizes.

    Args:
      x: anything with `.shape`, or nested lists.
      axes: name and size of each axis, in order; None allows any size.
      text: what x is, in words.

    Example:
      >>> shape([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], {"tasks": 3, "d_I": 2}, "the codes")
      ok: the shape of the codes is tasks x d_I
    """
    seen, sizes = _shape_of(x), list(axes.values())
    claim = f"the shape of {text} is {' x '.join(axes) or 'that of a single number'}"
    fits = len(seen) == len(sizes) and all(e in (None, s) for s, e in zip(seen, sizes, strict=True))
    ok(fits, claim, f"{_words(seen)}, expected: {_words(sizes)}")


def frozen(before: str, model: nn.Module) -> None:
    """Check that a model's weights have not changed by a single bit.

    Args:
      before: `models.fingerprint(model)`, taken before the training.
      model: the same module.
    """
    from iptkit.models import backbone

    after = backbone.fingerprint(model)
    seen = f"{before[:12]} before, {after[:12]} now"
    ok(after == before, "the model's weights are bit for bit what they were", seen)


def _shape_of(x: Values) -> tuple[int, ...]:
    if hasattr(x, "shape"):
        return tuple(int(size) for size in x.shape)
    return (len(x), *(_shape_of(x[0]) if len(x) else ())) if isinstance(x, (list, tuple)) else ()


def _flat(x: Values) -> list[float]:
    if hasattr(x, "detach"):
        x = x.detach().cpu().double().numpy()
    if hasattr(x, "reshape"):
        return [float(value) for value in x.reshape(-1)]
    return [value for part in x for value in _flat(part)] if isinstance(x, (list, tuple)) else [float(x)]


def _distance(x: float, y: float) -> float:
    return math.inf if math.isnan(x - y) else abs(x - y)


def _words(sizes: Sequence[int | None]) -> str:
    return " x ".join("any" if size is None else str(size) for size in sizes) or "a single number"
