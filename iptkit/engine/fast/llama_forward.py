"""The fast forward pass of Llama models, with the same interface as `forward.StockForward`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iptkit.engine.fast.attention import Part
from iptkit.engine.fast.llama import FlatBatch, FlatLlama
from iptkit.engine.fast.packed_weights import frozen_weight, linear
from iptkit.engine.rows import Places
from iptkit.models.backbone import Backbone


class FlatForward:
    """The forward pass of a frozen Llama over real tokens only (see llama.py).

    Args:
      backbone: a model that `FlatLlama.fits`.

    Attributes:
      wants_parts: True if it prefers one memory for each part of similar rows (see batches.similar_rows).
    """

    def __init__(self, backbone: Backbone):
        self.base, head = backbone.model.base_model, backbone.model.lm_head
        self.llama = FlatLlama(backbone.model)
        self.head, self.bias = frozen_weight(head.weight, self.llama.is_packed), head.bias
        self.wants_parts = head.weight.device.type == "cpu"  # a GPU is faster with few large operations

    def hidden(self, embeds: Tensor, places: Places, memory: Sequence[Tensor], at: Tensor) -> Tensor:
        """Last hidden states [M, d]; gradients flow into the embeddings.

        Args:
          embeds: [B, S, d] embeddings of the new tokens.
          places: their positions, and what they may look at.
          memory: one tensor [N, 2, B, h, L + S, k], or one for each part of the rows, in order.
          at: [M] flat indices in [B, S].
        """
        x, batch = self._flat(embeds, places, memory)
        if places.real_at is not None:
            at = (places.real.flatten().cumsum(0) - 1)[at]
        return self.base.norm(self.llama(x, batch, at))

    def read(self, embeds: Tensor, places: Places, memory: Sequence[Tensor]) -> None:
        """Write the new tokens' keys and values into memory.

        Args:
          embeds: see `hidden`.
          places: see `hidden`.
          memory: see `hidden`.
        """
        self.llama.read(*self._flat(embeds, places, memory))

    def logits(self, states: Tensor) -> Tensor:
        """[M, V] of last hidden states [M, d]."""
        return linear(states, self.head, self.bias)

    @staticmethod
    def _flat(embeds: Tensor, places: Places, memory: Sequence[Tensor]) -> tuple[Tensor, FlatBatch]:
        x, positions, visible = embeds.flatten(0, 1), places.positions.flatten(), places.visible[:, None]
        if places.real_at is not None:
            x, positions = x.index_select(0, places.real_at), positions[places.real_at]
        if len(memory) == 1:
            return x, FlatBatch(positions, (Part(slice(0, len(x)), places.real_at, visible, memory[0]),))
        parts, row, token = [], 0, 0
        for of_part in memory:
            rows = slice(row, row + of_part.shape[2])
            real = places.real[rows]
            new, count = int(real.sum(1).max()), int(real.sum())
            left, first = of_part.shape[4] - new, visible.shape[3] - visible.shape[2]
            seen = torch.cat([visible[rows, :, :new, :left], visible[rows, :, :new, first : first + new]], 3)
            real_at = None if count == len(real) * new else real[:, :new].flatten().nonzero()[:, 0]
            parts.append(Part(slice(token, token + count), real_at, seen, of_part))
            row, token = rows.stop, token + count
        return x, FlatBatch(positions, tuple(parts))
