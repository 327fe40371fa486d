"""Adapters after the blocks of a frozen model, for the duration of a forward pass."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK = re.compile(r"(layers|h)\.\d+\.(self_attn|attn|mlp)")  # of Llama, Qwen and GPT-2


def find_blocks(model: PreTrainedModel) -> list[nn.Module]:
    """The attention and feed-forward blocks of a causal model, in the order of its layers.

    Raises: ValueError for an architecture whose blocks have other names.
    """
    found = [module for name, module in model.base_model.named_modules() if BLOCK.fullmatch(name)]
    if len(found) != 2 * model.config.num_hidden_layers:
        raise ValueError(
            f"{type(model).__name__} has {model.config.num_hidden_layers} layers, but {len(found)} of its "
            "blocks can take an adapter (two per layer are needed); use a Llama, Qwen or GPT-2 model"
        )
    return found


@contextlib.contextmanager
def adapters_after(blocks: Sequence[nn.Module], weights: Tensor) -> Iterator[None]:
    """Within this context an adapter follows each of the blocks.

    Args:
      blocks: N blocks, see `find_blocks`.
      weights: [B, N, 2, d, r] adapters of each row of the batch: for each block the down-projection D [d, r],
        and the up-projection U transposed.
    Raises: ValueError if they are for another number of blocks.
    """
    if weights.shape[1] != len(blocks):
        raise ValueError(f"adapters for {weights.shape[1]} blocks were given; the model has {len(blocks)}")

    each = weights.unbind(1)  # once: the gradient of each single weights[:, i] would be as large as weights

    def adapter(block: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            h, *others = output if isinstance(output, tuple) else (output,)
            down, up = each[block].to(h.dtype).unbind(1)
            changed = torch.baddbmm(h, nn.functional.silu(h @ down), up.transpose(1, 2))
            return (changed, *others) if isinstance(output, tuple) else changed

        return hook

    handles = [module.register_forward_hook(adapter(i)) for i, module in enumerate(blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
