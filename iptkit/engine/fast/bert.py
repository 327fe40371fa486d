"""A frozen BERT over flat tokens: no padding in its matrix products, gradients for prompts only.

The tokens of all rows lie in one list and meet their row again only inside attention; behind its attention
the last layer is computed only where it is read. Exact: the same sums as the stock forward of transformers
(tests compare them in float64).

One layer, x [T, d] (Devlin et al. 2019, arXiv 1810.04805, section 3; norms behind the sums):

    x -> q, k, v -> attention over [prompt | tokens of the row] -> + x -> norm -> MLP -> + -> norm
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from iptkit.engine.batches import similar_rows
from iptkit.engine.fast.attention import FREED, Heads, Part, Slots, joined
from iptkit.engine.fast.llama import join
from iptkit.engine.fast.packed_weights import Frozen, frozen, linear, packs
from iptkit.engine.layouts import SLOT
from iptkit.engine.left_memory import DeepMemory
from iptkit.models.backbone import MixedLinear
from iptkit.models.devices import to_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PLAIN = (nn.Linear, MixedLinear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.ModuleList)
NAMED = ("BertModel", "BertEmbeddings", "BertEncoder", "BertLayer", "BertAttention", "BertSelfAttention")
NAMED += ("BertSelfOutput", "BertIntermediate", "BertOutput", "GELUActivation")


@dataclass(frozen=True)
class Rows:
    """T flat tokens of B rows.

    Attributes:
      ids: [T] token ids.
      positions, types: [T] place in the row, and segment, of each.
      prompt_at: where prompt vectors stand in place of ids, row after row.
      starts, sizes: [B] the first token of each row, and how many it has.
      cuts: rows that meet in attention (attention.py), in order.
    """

    ids: Tensor
    positions: Tensor
    types: Tensor
    prompt_at: Tensor
    starts: list[int]
    sizes: list[int]
    cuts: list[slice]

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
        parts = (to_device(t, device) for t in (ids.clamp(min=0), positions, kinds, prompt_at))
        is_one = device.type != "cpu"  # a GPU likes few large operations
        cuts = [slice(0, len(sizes))] if is_one else similar_rows([0] * len(sizes), sizes)
        return cls(*parts, starts, sizes, cuts)


@dataclass(frozen=True)
class _Dense:
    weight: Frozen  # [out, in]
    bias: Tensor  # [out]

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class _Layer:
    qkv: _Dense  # [3 d, d] of query, key and value
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

    def __init__(self, model: PreTrainedModel):
        base = model.base_model
        self.embeddings, layers = base.embeddings, base.encoder.layer
        self.attentions: list[nn.Module] = [layer.attention.self for layer in layers]
        is_packed = packs(m.weight for m in base.encoder.modules() if isinstance(m, nn.Linear))
        self.layers = [_layer(layer, is_packed) for layer in layers]
        count = self.attentions[0].num_attention_heads
        self.heads = Heads(count, count, self.attentions[0].attention_head_size)

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
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
        at = to_device([rows.starts[b] + place for b, of in enumerate(read) for place in of], x.device)
        pairs = [None if prompt is None else prompt.at.get(module) for module in self.attentions]
        given = [x, *(keys for keys, _ in filter(None, pairs))]
        trains = torch.is_grad_enabled() and any(t.requires_grad for t in given)
        wide = torch.promote_types(x.dtype, torch.float32)  # in which tokens meet
        parts = self._parts(rows, pairs, prompt, x.new_empty(0, dtype=wide), trains)
        layers = [itertools.count() if trains else itertools.repeat(0) for _ in parts]
        for i, (layer, pair) in enumerate(zip(self.layers, pairs, strict=True)):
            beside = int(pair is not None)
            where = (self.heads, parts[beside], next(layers[beside]))
            mixed = _Attention.apply(layer.qkv(x).to(wide), *(pair or (None, None)), *where).to(x.dtype)
            if i + 1 == len(self.layers):
                x, mixed = x.index_select(0, at), mixed.index_select(0, at)
            x = _norm(x + layer.out(mixed), layer.norm_mid)
            x = _norm(x + layer.down(gelu(layer.up(x))), layer.norm_out)
        return x

    def _parts(
        self,
        rows: Rows,
        pairs: Sequence[tuple[Tensor, Tensor] | None],
        prompt: DeepMemory | None,
        like: Tensor,
        trains: bool,
    ) -> tuple[list[Part], list[Part]]:
        """Rows that meet in attention, with memories for the layers without a prompt, and for those with one.

        Args:
          pairs: each layer's prompts, or None.  like: a tensor of the memories' kind.
          trains: every layer's memory is needed for the gradients; else all use the same place.
        Raises: ValueError if layers have prompts of different shapes.
        """
        shapes = {tensor.shape for pair in filter(None, pairs) for tensor in pair}
        if len(shapes) > 1 or any(len(shape) != 4 or shape[0] != len(rows.sizes) for shape in shapes):
            told = ", ".join(str(tuple(shape)) for shape in sorted(shapes))
            raise ValueError(
                f"prompts of {told} for {len(rows.sizes)} rows; give all layers keys and values of one shape"
            )
        counts = [sum((pair is not None) == beside for pair in pairs) for beside in (False, True)]
        found, token = ([], []), 0
        for cut in rows.cuts:
            sizes = rows.sizes[cut]
            slots, tokens, new = Slots.of(sizes, like.device), slice(token, token + sum(sizes)), max(sizes)
            token = tokens.stop
            for beside, count in enumerate(counts):
                seen, left = slots.seen[:, None, None], 0
                if beside and shapes:
                    left = next(iter(shapes))[2]
                    lengths = None if prompt.lengths is None else prompt.lengths[cut]
                    seen = DeepMemory({}, lengths).beside(seen, left)
                shape = (2, len(sizes), self.heads.count, left + new, self.heads.width)
                memory = like.new_empty(count if trains else min(count, 1), *shape)
                taken, blind = slots.taken if len(slots.free) else None, (~seen).expand(-1, -1, new, -1)
                found[beside].append(Part(tokens, taken, blind, memory))
        return found

    def _embedded(self, rows: Rows, embeds: Tensor | None) -> Tensor:
        parts = self.embeddings
        x = parts.word_embeddings.weight[rows.ids]
        if embeds is not None:
            x = x.index_copy(0, rows.prompt_at, embeds.flatten(0, 1).to(x))
        x = x + parts.token_type_embeddings.weight[rows.types]
        return _norm(x + parts.position_embeddings.weight[rows.positions], parts.LayerNorm)


class _Attention(torch.autograd.Function):
    """What tokens read from their rows [T, d], given qkv [T, 3 d] and prompts' keys, values [B, H, n, k]."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
        heads: Heads,
        parts: Sequence[Part],
        layer: int,
    ) -> Tensor:
        row, out, kept = 0, [], []
        for part in parts:
            rows = slice(row, row + part.shape[0])
            for place, of in enumerate(() if keys is None else (keys, values)):
                part.memory[layer, place, :, :, : of.shape[2]] = of[rows]
            taken, seen = heads.attend(qkv[part.tokens], part, layer)
            out.append(taken)
            kept.append(seen)
            row = rows.stop
        ctx.heads, ctx.layer = heads, layer
        ctx.kept, ctx.parts = (kept, parts) if any(ctx.needs_input_grad) else (None, None)
        return joined(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        kept, parts, ctx.kept, ctx.parts = ctx.kept, ctx.parts, None, None
        if kept is None:
            raise RuntimeError(FREED)
        new, *left = ctx.needs_input_grad[:3]
        found = [
            ctx.heads.back(outer[part.tokens], seen, part, ctx.layer, new, any(left))
            for part, seen in zip(parts, kept, strict=True)
        ]
        d_qkv = joined([d_new for d_new, _ in found]) if new else None
        d_pair = (
            [joined(of) for of in zip(*(d_left for _, d_left in found), strict=True)] if any(left) else ()
        )
        return (d_qkv, *(d_pair or (None, None)), None, None, None)


def _norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    return layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


def _layer(layer: Any, is_packed: bool) -> _Layer:
    three = [getattr(layer.attention.self, name) for name in ("query", "key", "value")]
    weight, bias = join(*three), join(*three, name="bias")
    dense = (layer.attention.output.dense, layer.intermediate.dense, layer.output.dense)
    parts = [(weight, bias), *((part.weight, part.bias) for part in dense)]
    qkv, out, up, down = (_Dense(frozen(weight, is_packed), bias) for weight, bias in parts)
    norms = (layer.attention.output.LayerNorm, layer.output.LayerNorm)
    return _Layer(qkv, out, norms[0], up, down, norms[1])
