"""Attention of flat tokens over [memory | new tokens], with gradients for the new tokens and,
where it trains, for the memory.

In attention tokens meet their row again, and rows are padded to one length. Rows of very different length
would waste most of that, so those of similar length make a part of the batch each; around attention all
tokens of the batch run through the same products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from iptkit.models.devices import to_device

FREED = "a second backward pass through the same forward, but what it needs was freed; run the forward again"
Kept = tuple[Tensor, Tensor]  # scaled queries [B h, g S, k] and weights [B h, g S, L + S]


@dataclass(frozen=True)
class Part:
    """B rows of up to S new tokens, T in all, that look at up to L places of memory.

    Attributes:
      tokens: which of the batch's flat tokens these are.
      slots: [T] flat slot b * S + s of each token; None when every slot is taken in order (T = B * S).
      blind: [B, 1, S, L + S] True where a token must not look, over memory and new tokens.
      memory: [N, 2, B, h, L + S, k] keys and values of N layers, the memory's in the first L places; the
        new tokens' are filled in.
    """

    tokens: slice
    slots: Tensor | None
    blind: Tensor
    memory: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """B, S."""
        return self.blind.shape[0], self.blind.shape[2]

    @cached_property
    def wall(self) -> Tensor:
        """[B, 1, 1, S, L + S] added to scores: the lowest number where a token must not look."""
        lowest = torch.finfo(self.memory.dtype).min
        return self.memory.new_zeros(()).masked_fill(self.blind[:, :, None], lowest)

    @cached_property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values [B h, L + S, k] of each layer."""
        return [layer.unbind(0) for layer in self.memory.flatten(2, 3).unbind(0)]

    @cached_property
    def own(self) -> tuple[Tensor, ...]:
        """The new tokens' keys and values [B, 2, h, S, k] of each layer."""
        return self.memory[..., self.memory.shape[4] - self.shape[1] :, :].transpose(1, 2).unbind(0)


@dataclass(frozen=True)
class Heads:
    """H query heads of width k, of which g = H / h share a key and value head."""

    count: int
    kv_count: int
    width: int

    def attend(self, qkv: Tensor, part: Part, layer: int) -> tuple[Tensor, Kept]:
        """What the tokens of a part take from the values, [T, H k], and what `back` needs.

        Args:
          qkv: rotated queries and keys, and values [T, (H + 2h) k].
        """
        rows = self.remember(qkv, part, layer)
        batch, new = part.shape
        keys, values = part.layers[layer]
        query = torch.mul(rows[:, : self.count], self.width**-0.5, out=rows.new_empty(self._query(part)))
        query = query.view(len(keys), -1, self.width)  # heads of a key head below each other
        scores = query.bmm(keys.transpose(1, 2))  # [B h, g S, L + S]
        scores.view(batch, self.kv_count, -1, new, scores.shape[-1]).add_(part.wall)
        weights = scores.softmax(-1)
        mixed = weights.bmm(values).view(self._query(part)).transpose(1, 2)
        return self._to_flat(mixed, part), (query, weights)

    def back(
        self, outer: Tensor, kept: Kept, part: Part, layer: int, new: bool = True, left: bool = False
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
        """Gradients from that of what `attend` gave, outer [T, H k].

        Args:
          new, left: which of the two are wanted.
        Returns: that of qkv [T, (H + 2h) k], and those of the memory's keys and values [B, h, L, k].
        """
        query, weights = kept
        keys, values = part.layers[layer]
        grad = self._rows(outer, part).reshape(len(keys), -1, self.width)
        d_weights = grad.bmm(values.transpose(1, 2))
        d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        first = keys.shape[1] - part.shape[1]  # of the new places
        seen = slice(0 if left else first, None if new else first)
        d_key, d_value = (
            of[..., seen].transpose(1, 2).bmm(by).view(part.shape[0], self.kv_count, -1, self.width)
            for of, by in ((d_scores, query), (weights, grad))
        )
        d_left = (d_key[:, :, :first], d_value[:, :, :first]) if left else None
        if not new:
            return None, d_left
        rows = outer.new_empty(*part.shape, self.count + 2 * self.kv_count, self.width)
        d_query, *others = rows.transpose(1, 2).split([self.count, self.kv_count, self.kv_count], 1)
        torch.mul(d_scores.bmm(keys).view(d_query.shape), self.width**-0.5, out=d_query)
        for other, of in zip(others, (d_key, d_value), strict=True):
            other.copy_(of[:, :, -part.shape[1] :])
        return self._to_flat(rows, part), d_left

    def remember(self, qkv: Tensor, part: Part, layer: int) -> Tensor:
        """Write keys and values [T, .] of the layer into memory; returns the rows [B, H + 2h, S, k]."""
        rows = self._rows(qkv, part)
        part.own[layer].copy_(rows[:, self.count :].unflatten(1, (2, self.kv_count)))
        return rows

    def _query(self, part: Part) -> tuple[int, int, int, int]:
        return part.shape[0], self.count, part.shape[1], self.width

    def _rows(self, flat: Tensor, part: Part) -> Tensor:
        """[T, heads k] -> [B, heads, S, k], zeros where no token stands."""
        batch, new = part.shape
        if part.slots is not None:
            flat = flat.new_zeros(batch * new, flat.shape[1]).index_copy_(0, part.slots, flat)
        return flat.view(batch, new, -1, self.width).transpose(1, 2)

    @staticmethod
    def _to_flat(rows: Tensor, part: Part) -> Tensor:
        """[B, S, heads, k] -> [T, heads k]."""
        padded = rows.reshape(-1, rows.shape[2] * rows.shape[3])
        return padded if part.slots is None else padded.index_select(0, part.slots)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """What is at hand for each part as one tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


@dataclass(frozen=True)
class Slots:
    """Where the T tokens of a list stand in a rectangle [B, S], row after row, each row filled from its left.

    Attributes:
      seen: [B, S] bool, where one stands.
      taken, free: [T] and [B * S - T] flat places with and without one.
    """

    seen: Tensor
    taken: Tensor
    free: Tensor

    @classmethod
    def of(cls, counts: Sequence[int], device: torch.device) -> Slots:
        """Slots of so many tokens in each row."""
        sizes = torch.tensor(counts)
        seen = torch.arange(int(sizes.max())) < sizes[:, None]
        flat = seen.flatten()
        return cls(*(to_device(t, device) for t in (seen, flat.nonzero()[:, 0], (~flat).nonzero()[:, 0])))

    def spread(self, flat: Tensor) -> Tensor:
        """[T, c] -> [B, S, c], zeros where no token stands."""
        return (_Spread.apply(flat, self) if len(self.free) else flat).view(*self.seen.shape, -1)

    def collect(self, rows: Tensor) -> Tensor:
        """[B, S, c] -> [T, c]."""
        return _Collect.apply(rows.flatten(0, 1), self) if len(self.free) else rows.flatten(0, 1)


class _Spread(torch.autograd.Function):
    """Every place is written once, forward and backward; torch's own indexing clears and adds."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, slots: Slots) -> Tensor:
        ctx.slots = slots
        out = flat.new_empty(slots.seen.numel(), flat.shape[1])
        return out.index_copy_(0, slots.taken, flat).index_fill_(0, slots.free, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Collect.apply(grad, ctx.slots), None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, slots: Slots) -> Tensor:
        ctx.slots = slots
        return rows.index_select(0, slots.taken)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(grad, ctx.slots), None
