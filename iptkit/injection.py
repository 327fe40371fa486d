"""Left-hand memory: extra keys and values to the left of a frozen layer's tokens, per row of the batch.

Constant ones are the cached keys and values of a text (this file's use today), trainable ones are deep
prompts (P-Tuning v2, Liu et al. 2022, arXiv 2110.07602). One attention function, registered with
transformers' AttentionInterface, serves both. Llamas take the faster way of flat.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "iptkit"


class LeftMemory:
    """Keys and values to the left of the new tokens, per layer.

    Args:
      layers: one (keys, values) pair per layer, each [B, h, L, k].
      grow: append the new tokens' keys and values after each forward (greedy decoding).
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor]], grow: bool = False):
        self.layers = layers
        self.grow = grow


_MEMORY: ContextVar[LeftMemory | None] = ContextVar("iptkit_left_memory", default=None)


@contextlib.contextmanager
def left_memory(memory: LeftMemory | None) -> Iterator[None]:
    """Within this context every attention layer of a prepared model also sees `memory`.

    The caller passes the model a 4-D mask [B, 1, new, L + new] (True = may look) that covers memory and new
    tokens.
    """
    token = _MEMORY.set(memory)
    try:
        yield
    finally:
        _MEMORY.reset(token)


def prepare(model: nn.Module) -> nn.Module:
    """Route a model's attention through this module.

    Raises:
      ValueError: the architecture bypasses transformers' attention interface, so a memory would be ignored
        silently.
    """
    if model.config._attn_implementation != NAME:
        model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise ValueError(
            f"{type(model).__name__} does not use transformers' attention interface (it stayed at "
            f"{model.config._attn_implementation!r}), so prompts in its layers would be ignored; "
            "choose a Llama, Qwen or GPT-2 model"
        )
    return model


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over [memory | new tokens]; forms no gradient for a constant memory.

    Args:
      query: [B, H, n, k]; key, value: [B, h, n, k] with H = g*h (grouped-query attention, keys are not
        repeated).
      attention_mask: bool [B, 1, n, L + n] when a memory is set, else whatever the mask function made.
    Returns:
      [B, n, H, k] and None (no weights are kept).
    """
    memory = _MEMORY.get()
    if memory is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    left_keys, left_values = (t.to(query.dtype) for t in memory.layers[module.layer_idx])
    batch, heads, new, width = query.shape
    groups, size = key.shape[1], heads // key.shape[1] * new
    grouped = (query * (scaling if scaling is not None else width**-0.5)).reshape(batch, groups, size, width)
    length = left_keys.shape[2]
    scores = torch.cat([grouped @ left_keys.transpose(-1, -2), grouped @ key.transpose(-1, -2)], -1)
    scores = scores.view(batch, groups, -1, new, length + new)
    scores = scores.masked_fill(~attention_mask[:, :, None], torch.finfo(scores.dtype).min)
    if scores.dtype in (torch.bfloat16, torch.float16):
        weights = scores.float().softmax(-1).to(query.dtype)
    else:
        weights = scores.softmax(-1)
    weights = weights.view(batch, groups, size, length + new)
    out = weights[..., :length] @ left_values + weights[..., length:] @ value
    if memory.grow:
        memory.layers[module.layer_idx] = (torch.cat([left_keys, key], 2), torch.cat([left_values, value], 2))
    return out.view(batch, heads, new, width).transpose(1, 2).contiguous(), None


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """SDPA's mask, always materialised where padding needs one (a mask function of our name, or padding is
    lost silently)."""
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)
