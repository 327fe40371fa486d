"""Attention of flat tokens over [memory | new tokens], with its gradient for the new tokens only.

In attention tokens meet their row again, and rows are padded to one length. Rows of very different length
would waste most of that, so those of similar length make a part of the batch each; around attention all
tokens of the batch run through the same products.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Kept = tuple[Tensor, Tensor]  # scaled queries [B, h, g S, k] and weights [B, h, g S, L + S]


@dataclass(frozen=True)
class Part:
    """B rows of up to S new tokens, T in all, that look at up to L places of memory.

    Attributes:
      tokens: which of the batch's flat tokens these are.
      slots: [T] flat slot b * S + s of each token; None when every slot is taken in order (T = B * S).
      blind: [B, 1, S, L + S] True where a token must not look, over memory and new tokens.
      memory: [N, 2, B, h, L + S, k] keys and values of all layers, the memory's in the first L places; the
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
        query = self.remember(qkv, part, layer)
        keys, values = part.memory[layer]
        scores = query @ keys.transpose(-1, -2)  # [B, h, g S, L + S]
        batch, new = part.shape
        scores.view(batch, self.kv_count, -1, new, scores.shape[-1]).masked_fill_(
            part.blind[:, :, None], torch.finfo(scores.dtype).min
        )
        weights = scores.softmax(-1)
        mixed = (weights @ values).view(batch, -1, new, self.width)
        return self._to_flat(mixed, part), (query, weights)

    def back(self, outer: Tensor, kept: Kept, part: Part, layer: int) -> Tensor:
        """The gradient of qkv [T, (H + 2h) k] from that of what `attend` gave, outer [T, H k]."""
        query, weights = kept
        batch, new = part.shape
        keys, values = part.memory[layer]
        rows = self._padded(outer, part).view(batch, new, -1, self.width).transpose(1, 2)
        grad = rows.reshape(batch, self.kv_count, -1, self.width)  # heads of a key head below each other
        d_weights = grad @ values.transpose(-1, -2)
        d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        d_query = (d_scores @ keys).mul_(self.width**-0.5).view(batch, -1, new, self.width)
        left = keys.shape[2] - new
        d_key = d_scores[..., left:].transpose(-1, -2) @ query
        d_value = weights[..., left:].transpose(-1, -2) @ grad
        return self._to_flat(torch.cat([d_query, d_key, d_value], 1), part)

    def remember(self, qkv: Tensor, part: Part, layer: int) -> Tensor:
        """Write keys and values [T, .] of the layer into memory; returns scaled queries [B, h, g S, k]."""
        batch, new = part.shape
        rows = self._padded(qkv, part).view(batch, new, -1, self.width).transpose(1, 2)
        query, key, value = rows.split([self.count, self.kv_count, self.kv_count], 1)
        memory = part.memory[layer]
        memory[0, :, :, -new:].copy_(key)
        memory[1, :, :, -new:].copy_(value)
        return (query * self.width**-0.5).reshape(batch, self.kv_count, -1, self.width)

    @staticmethod
    def _padded(flat: Tensor, part: Part) -> Tensor:
        """[T, c] -> [B * S, c], zeros where no token stands."""
        if part.slots is None:
            return flat
        batch, new = part.shape
        return flat.new_zeros(batch * new, flat.shape[1]).index_copy_(0, part.slots, flat)

    def _to_flat(self, rows: Tensor, part: Part) -> Tensor:
        """[B, heads, S, k] -> [T, heads k]."""
        padded = rows.transpose(1, 2).reshape(-1, rows.shape[1] * self.width)
        return padded if part.slots is None else padded.index_select(0, part.slots)
