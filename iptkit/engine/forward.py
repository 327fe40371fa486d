"""One forward pass of many rows through a frozen causal model: a fast one for Llamas, else transformers' own.

Both take the same three inputs and return the same states:

    embeds [B, S, d]   embeddings of the new tokens of B rows, padded
    places             which of them are real, their positions, what each may look at
    memory             keys and values to their left [N, 2, B, h, L + S, k], with room for their own

The memory comes as a list. It has one tensor for all rows; the fast forward pass also takes one for each part
of similar rows (see batches.similar_rows), padded to the longest row of that part only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iptkit.engine import left_memory
from iptkit.engine.fast.llama import FlatLlama
from iptkit.engine.fast.llama_forward import FlatForward
from iptkit.engine.rows import Places
from iptkit.models.backbone import Backbone


class StockForward:
    """transformers' forward pass, whose attention gets the memory through left_memory.

    Args:
      backbone: a causal model.

    Attributes:
      wants_parts: False; it takes one memory for all rows.
    """

    wants_parts = False

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        left_memory.prepare(backbone.model)

    def hidden(
        self,
        embeds: Tensor,
        places: Places,
        memory: Sequence[Tensor],
        at: Tensor,
        prompt: left_memory.DeepMemory | None = None,
    ) -> Tensor:
        """Last hidden states [M, d]; gradients flow into the embeddings and a deep prompt.

        Args:
          embeds: [B, S, d] embeddings of the new tokens.
          places: their positions, and what they may look at.
          memory: one tensor [N, 2, B, h, L + S, k]. Without gradients the new tokens' keys and values are
            written into it.
          at: [M] flat indices in [B, S].
          prompt: a deep prompt that all tokens see.
        """
        (memory_of_all,) = memory
        new, grow = embeds.shape[1], not torch.is_grad_enabled()
        pairs = [(k[:, :, :-new], v[:, :, :-new]) for k, v in memory_of_all]
        left = left_memory.LeftMemory(pairs, grow, prompt)
        with left_memory.left_memory(left):
            states = self.backbone.model.base_model(
                inputs_embeds=embeds,
                attention_mask=places.visible[:, None],
                position_ids=places.positions,
                use_cache=False,
            ).last_hidden_state
        if left.grow:
            for layer, (keys, values) in zip(memory_of_all, left.layers, strict=True):
                layer[0, :, :, -new:], layer[1, :, :, -new:] = keys[:, :, -new:], values[:, :, -new:]
        return states.flatten(0, 1).index_select(0, at)

    def read(self, embeds: Tensor, places: Places, memory: Sequence[Tensor]) -> None:
        """Write the new tokens' keys and values into memory.

        Args:
          embeds: see `hidden`.
          places: see `hidden`.
          memory: see `hidden`.
        """
        with torch.no_grad():
            self.hidden(embeds, places, memory, torch.zeros(1, dtype=torch.long, device=embeds.device))

    def logits(self, states: Tensor) -> Tensor:
        """[M, V] of last hidden states [M, d]."""
        return self.backbone.model.get_output_embeddings()(states)


def forward_of(backbone: Backbone) -> FlatForward | StockForward:
    """The fast forward pass if the architecture has one, else transformers' own.

    Raises:
      ValueError: the model bypasses transformers' attention interface, or its positions depend on the batch.
    """
    rope = getattr(backbone.model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        raise ValueError(
            f"{backbone.name} has positions of the type {rope['rope_type']!r}: the angles of a text depend "
            "on the longest row of its batch, so cached keys would be wrong; use a model with the rope_type "
            "default, linear, llama3 or yarn"
        )
    return FlatForward(backbone) if FlatLlama.fits(backbone.model) else StockForward(backbone)


def tokens_that_fit(backbone: Backbone, usual: int) -> int:
    """The number of new tokens that may run at once: on a GPU as many as fit in a quarter of its memory.

    For the backward pass a token stores about 20 vectors of the model's width in each layer. One token in
    four is scored against the vocabulary, which takes two vectors of that size. The result is a power of two
    and does not depend on what else is in the GPU's memory: floating-point rounding of a loss depends on the
    batch, and a resumed training must repeat it.

    Args:
      backbone: the model.
      usual: the number on a CPU, and the least on a GPU.
    """
    if backbone.device.type != "cuda":
        return usual
    memory = torch.cuda.get_device_properties(backbone.device).total_memory
    numbers = 20 * backbone.num_layers * backbone.width + 2 * len(backbone.embedding) // 4
    most = memory // 4 // (numbers * backbone.embedding.element_size())
    return max(usual, 1 << max(0, most.bit_length() - 1))


def empty_memory(backbone: Backbone, batch: int, places: int, clear: bool = True) -> Tensor:
    """An empty memory [N, 2, B, h, places, k] in the dtype of the residual stream.

    Args:
      backbone: the model.
      batch: B rows.
      places: positions for keys and values.
      clear: fill it with zeros.
    """
    make = backbone.embedding.new_zeros if clear else backbone.embedding.new_empty
    return make(backbone.num_layers, 2, batch, backbone.num_kv_heads, places, backbone.head_width)
