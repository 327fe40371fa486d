"""One forward of many rows through a frozen causal model: a flat one for Llamas, else transformers' own.

Both are given the same three things and hand back the same numbers:

    embeds [B, S, d]   new tokens of B rows, padded
    places             which of them are real, their positions, what each may look at
    memory             keys and values to their left [N, 2, B, h, L + S, k], with room for their own

The flat one also takes a memory for each part of the rows, padded to the longest rows of that part.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iptkit.engine import left_memory
from iptkit.engine.fast.llama import FlatLlama
from iptkit.engine.fast.llama_forward import FlatForward
from iptkit.engine.rows import Places
from iptkit.models.backbone import Backbone


class StockForward:
    """transformers' forward, the memory handed to its attention (injection.py)."""

    wants_parts = False  # one memory for all rows

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        left_memory.prepare(backbone.model)

    def hidden(
        self,
        embeds: Tensor,
        places: Places,
        memory: Tensor,
        at: Tensor,
        prompt: left_memory.DeepMemory | None = None,
    ) -> Tensor:
        """Last hidden states [M, d] at the flat positions `at` [M] of [B, S], beside a deep prompt."""
        new, grow = embeds.shape[1], not torch.is_grad_enabled()  # then the new keys are read off below
        pairs = [(k[:, :, :-new], v[:, :, :-new]) for k, v in memory]
        left = left_memory.LeftMemory(pairs, grow, prompt)
        with left_memory.left_memory(left):
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
