"""Left-hand memory: extra keys and values to the left of a frozen layer's tokens, per row of the batch.

Constant ones are the cached keys and values of a text (`LeftMemory`); trained ones are deep prompts
(`DeepMemory`; P-Tuning v2, Liu et al. 2022, arXiv 2110.07602). One attention function, registered with
transformers' AttentionInterface, serves both. Two architectures have a faster way: Llamas for texts
(fast/llama.py), BERTs for deep prompts (fast/bert.py).

Masks are boolean everywhere, True where a token may look.

transformers is imported inside functions that already have a model, because it takes longer to import than
torch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "iptkit"
UNKNOWN = {"softcap": "a soft cap (Gemma 2)", "s_aux": "sinks (gpt-oss)"}  # keyword arguments of attention
Observer = Callable[[nn.Module, Tensor, Tensor], Any]


class DeepMemory:
    """Trained keys and values at chosen attentions; the model's masks and positions do not change.

    Args:
      at: attention module -> (keys, values), each [B, h, n, k], one prompt per row. If the model runs on
        m * B rows (m beams for each row), the prompts are repeated.
      lengths: [B] how many of the n positions each row may look at, or None for all.
    """

    def __init__(self, at: dict[nn.Module, tuple[Tensor, Tensor]], lengths: Tensor | None = None):
        self.at, self.lengths = at, lengths

    def extended(self, mask: Tensor, size: int, beams: int = 1) -> Tensor:
        """An attention mask with `size` more columns on its left, for the prompt.

        Args:
          mask: [.., H, new, L] bool.
          size: n, positions of the prompt.
          beams: m, rows of the mask for each prompt.
        """
        if mask.dtype != torch.bool:
            raise ValueError(f"the mask has {mask.dtype}; give a boolean one, True where a token may look")
        if self.lengths is None:
            return pad(mask, (size, 0), value=True)
        seen = torch.arange(size, device=mask.device) < self.lengths.repeat_interleave(beams, 0)[:, None]
        rows, (_, heads, new, _) = len(seen), mask.shape
        seen = seen[:, None, None, :].expand(rows, heads, new, size)
        return torch.cat([seen, mask.expand(rows, -1, -1, -1)], -1)


class LeftMemory:
    """Keys and values to the left of the new tokens, per layer.

    Args:
      layers: one (keys, values) pair per layer, each [B, h, L, k].
      grow: append the new tokens' keys and values in each forward pass.
      prompt: a deep prompt to the left of both, which all tokens may look at.
    """

    def __init__(
        self,
        layers: list[tuple[Tensor, Tensor]],
        grow: bool = False,
        prompt: DeepMemory | None = None,
    ):
        self.layers, self.grow, self.prompt = layers, grow, prompt


_MEMORY: ContextVar[LeftMemory | DeepMemory | None] = ContextVar("iptkit_left_memory", default=None)
_OBSERVER: ContextVar[Observer | None] = ContextVar("iptkit_observer", default=None)


@contextlib.contextmanager
def observe(observer: Observer | None) -> Iterator[None]:
    """Within this context `observer(module, query, key)` is called before every attention.

    Args:
      observer: the function, or None to switch off that of an outer context.
    """
    token = _OBSERVER.set(observer)
    try:
        yield
    finally:
        _OBSERVER.reset(token)


def is_observed() -> bool:
    """True within `observe`."""
    return _OBSERVER.get() is not None


@contextlib.contextmanager
def left_memory(memory: LeftMemory | DeepMemory | None) -> Iterator[None]:
    """Within this context the attention layers of a prepared model also see `memory`.

    Args:
      memory: with a LeftMemory the model must be called with a mask [B, 1, new, L + new] (True = may look)
        over memory and new tokens; with a DeepMemory the mask covers the tokens only.
    """
    token = _MEMORY.set(memory)
    try:
        yield
    finally:
        _MEMORY.reset(token)


def prepare(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, with its attention routed through `attend`.

    Raises:
      ValueError: the architecture bypasses transformers' attention interface, so it would silently ignore a
        memory.
    """
    _register()
    if model.config._attn_implementation != NAME:
        model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise ValueError(
            f"{type(model).__name__} does not use transformers' attention interface (its attention is still "
            f"{model.config._attn_implementation!r}), so prompts in its layers would be ignored; "
            "choose a Llama, Qwen, GPT-2, BERT, RoBERTa, DistilBERT, ModernBERT, T5 or BART model"
        )
    return model


@contextlib.contextmanager
def own_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within this context a model uses its own (eager) attention, with any soft caps and sinks."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


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
    """Attention over [memory | new tokens]; computes no gradient for a constant memory.

    Args:
      module: the model's attention module.
      query: [B, H, n, k].
      key: [B, h, n, k] with H = g * h (grouped-query attention; keys are not repeated).
      value: [B, h, n, k].
      attention_mask: bool [B, 1, n, L + n] with a LeftMemory, else what the mask function made.
      scaling: factor of the scores, None for 1 / sqrt(k).
      dropout: passed on to transformers' attention.
      **kwargs: passed on to transformers' attention.

    Returns:
      [B, n, H, k] and None in place of the attention weights.
    Raises: ValueError for a model whose attention has a soft cap or sinks.
    """
    observer, memory = _OBSERVER.get(), _MEMORY.get()
    unknown = [what for name, what in UNKNOWN.items() if kwargs.get(name) is not None]
    if unknown:
        raise ValueError(
            f"{type(module).__name__} uses {' and '.join(unknown)}, which would be lost with prompts in its "
            "layers; use a Llama, Qwen, GPT-2, BERT, RoBERTa, DistilBERT, ModernBERT, T5 or BART model"
        )
    if observer is not None:
        observer(module, query, key)
    if isinstance(memory, DeepMemory) and module in memory.at:
        return _with_prompt(memory, module, query, key, value, attention_mask, scaling, dropout, kwargs)
    if not isinstance(memory, LeftMemory):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    assert attention_mask is not None, "a LeftMemory needs a mask over memory and new tokens"
    layer = cast(int, module.layer_idx)
    left_keys, left_values = (t.to(query.dtype) for t in memory.layers[layer])
    if memory.grow:
        memory.layers[layer] = torch.cat([left_keys, key], 2), torch.cat([left_values, value], 2)
    if memory.prompt is not None and module in memory.prompt.at:
        pairs = zip(memory.prompt.at[module], (left_keys, left_values), strict=True)
        left_keys, left_values = (torch.cat([mine.to(query.dtype), left], 2) for mine, left in pairs)
        missing = left_keys.shape[2] + query.shape[2] - attention_mask.shape[3]
        attention_mask = memory.prompt.extended(attention_mask, missing)
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
    return out.view(batch, heads, new, width).transpose(1, 2).contiguous(), None


def _with_prompt(
    memory: DeepMemory,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    others: dict[str, Any],
) -> tuple[Tensor, None]:
    """Attention by transformers' own function over [prompt | keys]; every token may look at the prompt."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    prompt = memory.at[module]
    beams, rest = divmod(len(query), len(prompt[0]))
    if rest:
        raise ValueError(f"{len(prompt[0])} prompts were given for {len(query)} rows; give one per row")
    left_keys, left_values = (t.to(key.dtype).repeat_interleave(beams, 0) for t in prompt)
    size = left_keys.shape[2]
    if mask is None and query.shape[2] > 1 and getattr(module, "is_causal", False):
        raise ValueError(
            f"{type(module).__name__} got no mask, so with a prompt its tokens would see those after them"
        )
    if mask is None and memory.lengths is not None:
        mask = torch.ones(len(query), 1, query.shape[2], key.shape[2], dtype=torch.bool, device=key.device)
    if mask is not None:
        mask = memory.extended(mask, size, beams)
    if others.get("position_bias") is not None:  # T5; a prompt has no position
        others = {**others, "position_bias": pad(others["position_bias"], (size, 0))}
    keys, values = torch.cat([left_keys, key], 2), torch.cat([left_values, value], 2)
    return sdpa_attention_forward(
        module, query, keys, values, mask, dropout, scaling, **{**others, "is_causal": False}
    )


@functools.cache
def _register() -> None:
    """Register `attend` with transformers, and SDPA's masks for it, as tensors wherever there is padding.

    Without a mask function of the same name, transformers would silently ignore padding.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def mask(*args: Any, **kwargs: Any) -> Tensor | None:
        whole = {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        return sdpa_mask(*args, **{**kwargs, **whole})

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, mask)
