"""A frozen BERT over flat tokens: no padding in its matrix products, the last layer only where it is read.

The tokens of all rows lie in one list and meet their row again only inside attention. Exact: the same sums as
the stock forward of transformers (tests compare them in float64).

One layer, x [T, d] (Devlin et al. 2019, arXiv 1810.04805, section 3; norms behind the sums):

    x -> q, k, v -> attention over [prompt | tokens of the row] -> + x -> norm -> MLP -> + -> norm
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

from iptkit.backbones import MixedLinear
from iptkit.flat import join
from iptkit.frozen import Frozen, frozen, linear, packs
from iptkit.injection import DeepMemory
from iptkit.layouts import SLOT
from iptkit.packing import to_device

PLAIN = (nn.Linear, MixedLinear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.ModuleList)
NAMED = ("BertModel", "BertEmbeddings", "BertEncoder", "BertLayer", "BertAttention", "BertSelfAttention")
NAMED += ("BertSelfOutput", "BertIntermediate", "BertOutput", "GELUActivation")


@dataclass(frozen=True)
class Slots:
    """Where the T tokens of a list stand in a rectangle [B, S], row after row, each row filled from its left.

    Attributes:
      seen: [B, S] bool, where one stands.
      taken, free: [T] and [B * S - T] flat places with and without one.
    """

    seen: Tensor
    taken: Tensor
    free: Tensor

    @classmethod
    def of(cls, counts: Sequence[int], device: torch.device) -> Slots:
        """Slots of so many tokens in each row."""
        sizes = torch.tensor(counts)
        seen = torch.arange(int(sizes.max())) < sizes[:, None]
        flat = seen.flatten()
        return cls(*(to_device(t, device) for t in (seen, flat.nonzero()[:, 0], (~flat).nonzero()[:, 0])))

    def spread(self, flat: Tensor) -> Tensor:
        """[T, c] -> [B, S, c], zeros where no token stands."""
        return (_Spread.apply(flat, self) if len(self.free) else flat).view(*self.seen.shape, -1)

    def collect(self, rows: Tensor) -> Tensor:
        """[B, S, c] -> [T, c]."""
        return _Collect.apply(rows.flatten(0, 1), self) if len(self.free) else rows.flatten(0, 1)


class _Spread(torch.autograd.Function):
    """Every place is written once, forward and backward; torch's own indexing clears and adds."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, slots: Slots) -> Tensor:
        ctx.slots = slots
        out = flat.new_empty(slots.seen.numel(), flat.shape[1])
        return out.index_copy_(0, slots.taken, flat).index_fill_(0, slots.free, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Collect.apply(grad, ctx.slots), None


class _Collect(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, slots: Slots) -> Tensor:
        ctx.slots = slots
        return rows.index_select(0, slots.taken)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(grad, ctx.slots), None


@dataclass(frozen=True)
class Rows:
    """T flat tokens of B rows.

    Attributes:
      ids: [T] token ids.
      positions, types: [T] place in the row, and segment, of each.
      prompt_at: where prompt vectors stand in place of ids, row after row.
      starts: [B] the first token of each row.
      slots: where they stand in [B, S].
    """

    ids: Tensor
    positions: Tensor
    types: Tensor
    prompt_at: Tensor
    starts: list[int]
    slots: Slots

    @classmethod
    def of(cls, lines: Sequence[Sequence[int]], types: Sequence[Sequence[int]], device: torch.device) -> Rows:
        """Rows of token ids; types: their segments, or () for a row of segment 0 alone."""
        ids = torch.tensor([i for line in lines for i in line])
        positions = torch.tensor([p for line in lines for p in range(len(line))])
        kinds = torch.tensor(
            [k for line, of in zip(lines, types, strict=True) for k in of or [0] * len(line)]
        )
        sizes = [len(line) for line in lines]
        starts = [0, *itertools.accumulate(sizes[:-1])]
        prompt_at = (ids == SLOT).nonzero()[:, 0]
        parts = (ids.clamp(min=0), positions, kinds, prompt_at)
        return cls(*(to_device(t, device) for t in parts), starts, Slots.of(sizes, device))


@dataclass(frozen=True)
class _Dense:
    weight: Frozen  # [out, in]
    bias: Tensor  # [out]

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class _Layer:
    qkv: _Dense  # [3 d, d] of query, key and value
    q: _Dense  # parts of it
    kv: _Dense
    out: _Dense
    norm_mid: nn.LayerNorm
    up: _Dense
    down: _Dense
    norm_out: nn.LayerNorm


class FlatBert:
    """A frozen BERT, from token ids to last hidden states.

    Args:
      model: one that `fits`. Its query, key and value weights become views of one tensor per layer; their
        values do not change.
    """

    def __init__(self, model: nn.Module):
        base = model.base_model
        self.embeddings, layers = base.embeddings, base.encoder.layer
        self.attentions: list[nn.Module] = [layer.attention.self for layer in layers]
        is_packed = packs(m.weight for m in base.encoder.modules() if isinstance(m, nn.Linear))
        self.layers = [_layer(layer, is_packed) for layer in layers]
        self.width = self.attentions[0].attention_head_size

    @staticmethod
    def fits(model: nn.Module) -> bool:
        """Is `model` a plain frozen BERT encoder: GELU, no dropout at work, no adapters or hooks?"""
        base, config = model.base_model, model.config
        if type(base).__name__ != "BertModel" or config.is_decoder or config.hidden_act != "gelu":
            return False
        parts = [base, *base.embeddings.modules(), *base.encoder.modules()]
        weights = [p for part in parts[1:] for p in part.parameters(recurse=False)]
        return (
            all(type(m) in PLAIN or type(m).__name__ in NAMED for m in parts)
            and all(type(p) is nn.Parameter and type(p.data) is Tensor for p in weights)
            and not any(p.requires_grad for p in weights)
            and not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in parts)
            and not any("forward" in vars(m) for m in parts)
        )

    def __call__(
        self, rows: Rows, read: Sequence[Sequence[int]], embeds: Tensor | None, prompt: DeepMemory | None
    ) -> Tensor:
        """Last hidden states [M, d] of the tokens that are read, row after row.

        Args:
          read: of each row the places that are read, in any order.
          embeds: [B, n, d], in the places of the prompts; or None.
          prompt: keys and values beside the tokens of some layers; or None.
        """
        x = self._embedded(rows, embeds)
        flat = [rows.starts[b] + place for b, places in enumerate(read) for place in places]
        last = to_device(flat, x.device), Slots.of([len(places) for places in read], x.device)
        for i, (layer, attention) in enumerate(zip(self.layers, self.attentions, strict=True)):
            beside = None if prompt is None else prompt.at.get(attention)
            mask = rows.slots.seen[:, None, None, :]
            if beside is not None:
                mask = prompt.beside(mask, beside[0].shape[2])
            mixed, x = self._attention(
                layer, x, rows, last if i + 1 == len(self.layers) else None, mask, beside
            )
            x = _norm(x + layer.out(mixed), layer.norm_mid)
            x = _norm(x + layer.down(gelu(layer.up(x))), layer.norm_out)
        return x

    def _embedded(self, rows: Rows, embeds: Tensor | None) -> Tensor:
        parts = self.embeddings
        x = parts.word_embeddings.weight[rows.ids]
        if embeds is not None:
            x = x.index_copy(0, rows.prompt_at, embeds.flatten(0, 1).to(x))
        x = x + parts.token_type_embeddings.weight[rows.types]
        return _norm(x + parts.position_embeddings.weight[rows.positions], parts.LayerNorm)

    def _attention(
        self,
        layer: _Layer,
        x: Tensor,
        rows: Rows,
        last: tuple[Tensor, Slots] | None,
        mask: Tensor,
        beside: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """What some tokens read from their rows [M, d], and those tokens' x [M, d].

        Args:
          last: flat places of those tokens and their slots, or None for all.
        """
        slots = rows.slots
        if last is None:
            query, keys, values = self._heads(slots.spread(layer.qkv(x)))
        else:
            keys, values = self._heads(slots.spread(layer.kv(x)))
            at, slots = last
            x = x.index_select(0, at)
            (query,) = self._heads(slots.spread(layer.q(x)))
        if beside is not None:
            keys, values = (torch.cat([p.to(t), t], 2) for p, t in zip(beside, (keys, values), strict=True))
        mixed = scaled_dot_product_attention(query, keys, values, mask)  # [B, H, S, k]
        return slots.collect(mixed.transpose(1, 2).flatten(2)), x

    def _heads(self, rows: Tensor) -> tuple[Tensor, ...]:
        """[B, S, c d] -> c times [B, H, S, k]."""
        size = len(self.layers[0].q.bias)
        return rows.unflatten(2, (-1, size // self.width, self.width)).permute(2, 0, 3, 1, 4).unbind(0)


def _norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    return layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


def _layer(layer: nn.Module, is_packed: bool) -> _Layer:
    three = [getattr(layer.attention.self, name) for name in ("query", "key", "value")]
    weight, bias = join(*three), join(*three, name="bias")
    size = len(bias) // 3
    parts = [(weight, bias), (weight[:size], bias[:size]), (weight[size:], bias[size:])]
    dense = (layer.attention.output.dense, layer.intermediate.dense, layer.output.dense)
    parts += [(part.weight, part.bias) for part in dense]
    qkv, q, kv, out, up, down = (_Dense(frozen(weight, is_packed), bias) for weight, bias in parts)
    norms = (layer.attention.output.LayerNorm, layer.output.LayerNorm)
    return _Layer(qkv, q, kv, out, norms[0], up, down, norms[1])
