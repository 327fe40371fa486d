"""Adapters behind the blocks of a frozen model, for one forward."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK = re.compile(r"(layers|h)\.\d+\.(self_attn|attn|mlp)")  # Llama and Qwen, GPT-2


def find_places(model: PreTrainedModel) -> list[nn.Module]:
    """The attentions and feed-forward blocks of a causal model, in the order of its layers.

    Raises: ValueError for an architecture whose blocks have other names.
    """
    found = [module for name, module in model.base_model.named_modules() if BLOCK.fullmatch(name)]
    if len(found) != 2 * model.config.num_hidden_layers:
        raise ValueError(
            f"{type(model).__name__} has {model.config.num_hidden_layers} layers, but {len(found)} blocks "
            "that an adapter can stand behind were found; use a Llama, Qwen or GPT-2 model"
        )
    return found


@contextlib.contextmanager
def standing_behind(places: Sequence[nn.Module], weights: Tensor) -> Iterator[None]:
    """Within this context adapters stand behind the blocks `places`.

    Args:
      weights: [B, N, 2, d, r], one set per row of the batch: of N places D [d, r] and the transpose of U.
    Raises: ValueError if they are for another number of places.
    """
    if weights.shape[1] != len(places):
        raise ValueError(f"adapters for {weights.shape[1]} places were given; the model has {len(places)}")

    each = weights.unbind(1)  # once: a gradient of its own per place would be as large as all

    def behind(place: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            h, *others = output if isinstance(output, tuple) else (output,)
            down, up = each[place].to(h.dtype).unbind(1)
            changed = torch.baddbmm(h, nn.functional.silu(h @ down), up.transpose(1, 2))
            return (changed, *others) if isinstance(output, tuple) else changed

        return hook

    handles = [module.register_forward_hook(behind(i)) for i, module in enumerate(places)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
