"""One forward of many rows through a frozen causal model: a flat one for Llamas, else transformers' own.

Both are given the same three things and hand back the same numbers:

    embeds [B, S, d]   new tokens of B rows, padded
    places             which of them are real, their positions, what each may look at
    memory             keys and values to their left [N, 2, B, h, L + S, k], with room for their own

The flat one also takes a memory for each part of the rows, padded to the longest rows of that part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iptkit import injection
from iptkit.attention import Part
from iptkit.backbones import Backbone
from iptkit.flat import FlatLlama, Layout
from iptkit.frozen import frozen, linear


@dataclass(frozen=True)
class Places:
    """Where the new tokens of B rows stand.

    Attributes:
      real: [B, S] bool, False for padding.
      positions: [B, S] position ids.
      visible: [B, S, L + S] bool, may new token i look at memory or new token j.
      slots: [T] flat places of the real ones in [B, S]; None where all are real.
    """

    real: Tensor
    positions: Tensor
    visible: Tensor
    slots: Tensor | None = None


class StockForward:
    """transformers' forward, the memory handed to its attention (injection.py)."""

    wants_parts = False  # one memory for all rows

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        injection.prepare(backbone.model)

    def hidden(
        self,
        embeds: Tensor,
        places: Places,
        memory: Tensor,
        at: Tensor,
        prompt: injection.DeepMemory | None = None,
    ) -> Tensor:
        """Last hidden states [M, d] at the flat positions `at` [M] of [B, S], beside a deep prompt."""
        new, grow = embeds.shape[1], not torch.is_grad_enabled()  # then the new keys are read off below
        pairs = [(k[:, :, :-new], v[:, :, :-new]) for k, v in memory]
        left = injection.LeftMemory(pairs, grow, prompt)
        with injection.left_memory(left):
            states = self.backbone.model.base_model(
                inputs_embeds=embeds,
                attention_mask=places.visible[:, None],
                position_ids=places.positions,
                use_cache=False,
            ).last_hidden_state
        if left.grow:
            for part, (keys, values) in zip(memory, left.layers, strict=True):
                part[0, :, :, -new:], part[1, :, :, -new:] = keys[:, :, -new:], values[:, :, -new:]
        return states.flatten(0, 1).index_select(0, at)

    def read(self, embeds: Tensor, places: Places, memory: Tensor) -> None:
        """Fill `memory` with the new tokens' keys and values."""
        with torch.no_grad():
            self.hidden(embeds, places, memory, torch.zeros(1, dtype=torch.long, device=embeds.device))

    def logits(self, states: Tensor) -> Tensor:
        """[M, V] of last hidden states [M, d]."""
        return self.backbone.model.get_output_embeddings()(states)


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


def forward_of(backbone: Backbone) -> FlatForward | StockForward:
    """The fast forward where the architecture has one.

    Raises:
      ValueError: a model that bypasses the attention interface, or whose positions depend on the batch.
    """
    rope = getattr(backbone.model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        raise ValueError(
            f"{backbone.name} has {rope['rope_type']} positions: the angles of a text depend on the longest "
            "row beside it, so its stored keys would be wrong; use a model with default, linear, "
            "llama3 or yarn ones"
        )
    return FlatForward(backbone) if FlatLlama.fits(backbone.model) else StockForward(backbone)


def tokens_that_fit(backbone: Backbone, usual: int) -> int:
    """How many new tokens may run at once: `usual` on a CPU; on a GPU what a quarter of its memory takes.

    A token leaves about 20 vectors of the model's width in each layer for the backward pass, and one in four
    is scored against the vocabulary, which takes two vectors of its size. A power of two, and the same
    whatever else the GPU holds: the last bits of a loss depend on the batch, and a resumed training must see
    the same.
    """
    if backbone.device.type != "cuda":
        return usual
    memory = torch.cuda.get_device_properties(backbone.device).total_memory
    numbers = 20 * backbone.num_layers * backbone.width + 2 * len(backbone.embedding) // 4
    most = memory // 4 // (numbers * backbone.embedding.element_size())
    return max(usual, 1 << max(0, most.bit_length() - 1))


def room(backbone: Backbone, batch: int, places: int, clear: bool = True) -> Tensor:
    """Memory [N, 2, B, h, places, k] in the dtype of the residual stream, zeros unless `clear` is False."""
    make = backbone.embedding.new_zeros if clear else backbone.embedding.new_empty
    return make(backbone.num_layers, 2, batch, backbone.num_kv_heads, places, backbone.head_width)
