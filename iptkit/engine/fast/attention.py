"""Attention of flat tokens over [memory | new tokens], with gradients for the new tokens and, if it trains,
for the memory.

Matrix products run on the real tokens of all rows at once, without padding. Only attention needs rows: there
they are padded to one length. To waste little, rows of similar length form a `Part` of the batch, and each
part is padded by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from iptkit.models.devices import to_device

FREED = "the tensors that a second backward pass needs were freed by the first; run the forward pass again"
Saved = tuple[Tensor, Tensor]  # scaled queries [B h, g S, k] and attention weights [B h, g S, L + S]


@dataclass(frozen=True)
class Part:
    """B rows of up to S new tokens, T in all, which see up to L positions of memory.

    Attributes:
      tokens: the part's slice of the batch's flat tokens.
      real_at: [T] index b * S + s of each token in [B, S]; None if there is no padding (T = B * S).
      visible: [B, 1, S, L + S] bool, True where a token may look, over memory and new tokens.
      memory: [N, 2, B, h, L + S, k] keys and values of N layers. The first L positions are given; those of
        the new tokens are filled in by the forward pass.
    """

    tokens: slice
    real_at: Tensor | None
    visible: Tensor
    memory: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """B, S."""
        return self.visible.shape[0], self.visible.shape[2]

    @cached_property
    def additive_mask(self) -> Tensor:
        """[B, 1, 1, S, L + S] for the scores: 0 where a token may look, else the lowest finite number."""
        lowest = torch.finfo(self.memory.dtype).min
        return self.memory.new_zeros(()).masked_fill(~self.visible[:, :, None], lowest)

    @cached_property
    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values [B h, L + S, k] of each layer."""
        layers = [layer.unbind(0) for layer in self.memory.flatten(2, 3).unbind(0)]
        return cast(list[tuple[Tensor, Tensor]], layers)

    @cached_property
    def own(self) -> tuple[Tensor, ...]:
        """Keys and values of the new tokens [B, 2, h, S, k] of each layer, as views of the memory."""
        return self.memory[..., self.memory.shape[4] - self.shape[1] :, :].transpose(1, 2).unbind(0)


@dataclass(frozen=True)
class GroupedAttention:
    """Attention with H query heads of width k and h key/value heads, each shared by g = H / h query heads.

    Attributes:
      num_heads: H.
      num_kv_heads: h.
      head_width: k.
    """

    num_heads: int
    num_kv_heads: int
    head_width: int

    def attend(self, qkv: Tensor, part: Part, layer: int) -> tuple[Tensor, Saved]:
        """The attention output of a part's tokens [T, H k], and what `back` needs.

        Args:
          qkv: queries and keys after rotation, and values [T, (H + 2h) k].
          part: the rows; keys and values of their tokens are written into its memory.
          layer: index of the layer in the memory.
        """
        rows = self.remember(qkv, part, layer)
        batch, new = part.shape
        keys, values = part.layers[layer]
        query = torch.mul(
            rows[:, : self.num_heads], self.head_width**-0.5, out=rows.new_empty(self._query_shape(part))
        )
        query = query.view(len(keys), -1, self.head_width)  # [B h, g S, k]: queries of one key head together
        scores = query.bmm(keys.transpose(1, 2))  # [B h, g S, L + S]
        scores.view(batch, self.num_kv_heads, -1, new, scores.shape[-1]).add_(part.additive_mask)
        weights = scores.softmax(-1)
        mixed = weights.bmm(values).view(self._query_shape(part)).transpose(1, 2)
        return self._to_flat(mixed, part), (query, weights)

    def back(
        self, outer: Tensor, saved: Saved, part: Part, layer: int, new: bool = True, left: bool = False
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor] | None]:
        """The gradients of `attend`'s inputs.

        Args:
          outer: [T, H k] gradient of the output.
          saved: second output of `attend`.
          part: as given to `attend`.
          layer: as given to `attend`.
          new: compute the gradient of qkv.
          left: compute the gradients of the memory.
        Returns: the gradient of qkv [T, (H + 2h) k], and those of the memory's keys and values
          [B, h, L, k] each; None for what is not asked for.
        """
        query, weights = saved
        keys, values = part.layers[layer]
        grad = self._rows(outer, part).reshape(len(keys), -1, self.head_width)
        d_weights = grad.bmm(values.transpose(1, 2))
        d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        first = keys.shape[1] - part.shape[1]  # position of the first new token
        asked = slice(0 if left else first, None if new else first)
        d_key, d_value = (
            of[..., asked].transpose(1, 2).bmm(by).view(part.shape[0], self.num_kv_heads, -1, self.head_width)
            for of, by in ((d_scores, query), (weights, grad))
        )
        d_left = (d_key[:, :, :first], d_value[:, :, :first]) if left else None
        if not new:
            return None, d_left
        rows = outer.new_empty(*part.shape, self.num_heads + 2 * self.num_kv_heads, self.head_width)
        d_query, *others = rows.transpose(1, 2).split(
            [self.num_heads, self.num_kv_heads, self.num_kv_heads], 1
        )
        torch.mul(d_scores.bmm(keys).view(d_query.shape), self.head_width**-0.5, out=d_query)
        for other, of in zip(others, (d_key, d_value), strict=True):
            other.copy_(of[:, :, -part.shape[1] :])
        return self._to_flat(rows, part), d_left

    def remember(self, qkv: Tensor, part: Part, layer: int) -> Tensor:
        """Write keys and values of the new tokens into memory, and return all heads [B, H + 2h, S, k].

        Args:
          qkv: queries, keys and values [T, (H + 2h) k].
          part: the rows.
          layer: index of the layer in the memory.
        """
        rows = self._rows(qkv, part)
        part.own[layer].copy_(rows[:, self.num_heads :].unflatten(1, (2, self.num_kv_heads)))
        return rows

    def _query_shape(self, part: Part) -> tuple[int, int, int, int]:
        return part.shape[0], self.num_heads, part.shape[1], self.head_width

    def _rows(self, flat: Tensor, part: Part) -> Tensor:
        """[T, heads k] -> [B, heads, S, k], zeros at padding."""
        batch, new = part.shape
        if part.real_at is not None:
            flat = flat.new_zeros(batch * new, flat.shape[1]).index_copy_(0, part.real_at, flat)
        return flat.view(batch, new, -1, self.head_width).transpose(1, 2)

    @staticmethod
    def _to_flat(rows: Tensor, part: Part) -> Tensor:
        """[B, S, heads, k] -> [T, heads k]."""
        padded = rows.reshape(-1, rows.shape[2] * rows.shape[3])
        return padded if part.real_at is None else padded.index_select(0, part.real_at)


def concatenated(parts: Sequence[Tensor]) -> Tensor:
    """The tensors of all parts as one, along the first dimension; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


@dataclass(frozen=True)
class Padding:
    """Padding of T tokens in B rows to a rectangle [B, S], and back.

    Attributes:
      is_real: [B, S] bool, False at padding.
      real_at: [T] indices of the tokens in the flattened rectangle.
      padding_at: [B * S - T] indices of the padding.
    """

    is_real: Tensor
    real_at: Tensor
    padding_at: Tensor

    @classmethod
    def of(cls, counts: Sequence[int], device: torch.device) -> Padding:
        """The padding of rows with these numbers of tokens.

        Args:
          counts: B numbers of tokens.
          device: where its tensors are.
        """
        sizes = torch.tensor(counts)
        real = torch.arange(int(sizes.max())) < sizes[:, None]
        flat = real.flatten()
        real_at, padding_at = flat.nonzero()[:, 0], (~flat).nonzero()[:, 0]
        return cls(to_device(real, device), to_device(real_at, device), to_device(padding_at, device))

    def pad(self, flat: Tensor) -> Tensor:
        """[T, c] -> [B, S, c], zeros at padding."""
        return (_Pad.apply(flat, self) if len(self.padding_at) else flat).view(*self.is_real.shape, -1)

    def unpad(self, rows: Tensor) -> Tensor:
        """[B, S, c] -> [T, c]."""
        return _Unpad.apply(rows.flatten(0, 1), self) if len(self.padding_at) else rows.flatten(0, 1)


class _Pad(torch.autograd.Function):
    """Writes every element once, forward and backward; the gradient of torch's indexing clears and adds."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, padding: Padding) -> Tensor:
        ctx.padding = padding
        out = flat.new_empty(padding.is_real.numel(), flat.shape[1])
        return out.index_copy_(0, padding.real_at, flat).index_fill_(0, padding.padding_at, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Unpad.apply(grad, ctx.padding), None


class _Unpad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, padding: Padding) -> Tensor:
        ctx.padding = padding
        return rows.index_select(0, padding.real_at)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Pad.apply(grad, ctx.padding), None
