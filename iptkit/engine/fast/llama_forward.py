"""The fast forward of Llama models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iptkit.engine.fast.attention import Part
from iptkit.engine.fast.llama import FlatLlama, Layout
from iptkit.engine.fast.packed_weights import frozen, linear
from iptkit.engine.rows import Places
from iptkit.models.backbone import Backbone


class FlatForward:
    """The Llama layers of flat.py: real tokens only."""

    def __init__(self, backbone: Backbone):
        self.base, head = backbone.model.base_model, backbone.model.lm_head
        self.llama = FlatLlama(backbone.model)
        self.head, self.bias = frozen(head.weight, self.llama.is_packed), head.bias
        self.wants_parts = head.weight.device.type == "cpu"  # a GPU likes few large operations

    def hidden(self, embeds: Tensor, places: Places, memory: Tensor | Sequence[Tensor], at: Tensor) -> Tensor:
        """Last hidden states [M, d] at the flat positions `at` [M] of [B, S].

        Args:
          memory: of all rows, or one for each part of them, in order.
        """
        x, layout = self._flat(embeds, places, memory)
        if places.slots is not None:
            at = (places.real.flatten().cumsum(0) - 1)[at]
        return self.base.norm(self.llama(x, layout, at))

    def read(self, embeds: Tensor, places: Places, memory: Tensor | Sequence[Tensor]) -> None:
        """Fill `memory` with the new tokens' keys and values."""
        self.llama.read(*self._flat(embeds, places, memory))

    def logits(self, states: Tensor) -> Tensor:
        """[M, V] of last hidden states [M, d]."""
        return linear(states, self.head, self.bias)

    @staticmethod
    def _flat(embeds: Tensor, places: Places, memory: Tensor | Sequence[Tensor]) -> tuple[Tensor, Layout]:
        x, positions, blind = embeds.flatten(0, 1), places.positions.flatten(), ~places.visible[:, None]
        if places.slots is not None:
            x, positions = x.index_select(0, places.slots), positions[places.slots]
        if isinstance(memory, Tensor):
            return x, Layout(positions, (Part(slice(0, len(x)), places.slots, blind, memory),))
        parts, row, token = [], 0, 0
        for of_part in memory:
            rows = slice(row, row + of_part.shape[2])
            real = places.real[rows]
            new, count = int(real.sum(1).max()), int(real.sum())
            left, first = of_part.shape[4] - new, blind.shape[3] - blind.shape[2]
            looked = torch.cat([blind[rows, :, :new, :left], blind[rows, :, :new, first : first + new]], 3)
            slots = None if count == len(real) * new else real[:, :new].flatten().nonzero()[:, 0]
            parts.append(Part(slice(token, token + count), slots, looked, of_part))
            row, token = rows.stop, token + count
        return x, Layout(positions, tuple(parts))
