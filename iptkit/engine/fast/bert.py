"""A frozen BERT over flat tokens: no padding in its matrix products, gradients for prompts only.

The tokens of all rows form one list and are arranged in rows only for attention; after its attention the
last layer is computed only for the tokens that are read. It computes the same sums as transformers' own
forward pass (tests compare the two in float64).

One layer, x [T, d] (Devlin et al. 2019, arXiv 1810.04805, section 3; norms follow the sums):

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
from iptkit.engine.fast.attention import FREED, GroupedAttention, Padding, Part, concatenated
from iptkit.engine.fast.llama import join
from iptkit.engine.fast.packed_weights import FrozenWeight, frozen_weight, linear, packs
from iptkit.engine.layouts import PROMPT_ID
from iptkit.engine.left_memory import DeepMemory
from iptkit.models.backbone import MixedLinear
from iptkit.models.devices import to_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PLAIN = (nn.Linear, MixedLinear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.ModuleList)
BERT = {
    *("BertModel", "BertEmbeddings", "BertEncoder", "BertLayer", "BertAttention", "BertSelfAttention"),
    *("BertSelfOutput", "BertIntermediate", "BertOutput", "GELUActivation"),
}
Pair = tuple[Tensor, Tensor]  # keys and values


@dataclass(frozen=True)
class FlatRows:
    """T flat tokens of B rows.

    Attributes:
      ids: [T] token ids.
      positions: [T] position of each token in its row.
      types: [T] segment of each token.
      prompt_at: indices of the tokens that are prompt vectors, row after row.
      starts: [B] index of each row's first token.
      sizes: [B] number of tokens in each row.
      cuts: slices of rows, each of which is padded by itself in attention (see attention.Part), in order.
    """

    ids: Tensor
    positions: Tensor
    types: Tensor
    prompt_at: Tensor
    starts: list[int]
    sizes: list[int]
    cuts: list[slice]

    @classmethod
    def of(
        cls, lines: Sequence[Sequence[int]], types: Sequence[Sequence[int]], device: torch.device
    ) -> FlatRows:
        """Rows of token ids.

        Args:
          lines: the token ids of each row, PROMPT_ID for a prompt vector.
          types: the segments of each row's tokens, or () for a row of segment 0 only.
          device: where the tensors are.
        """
        ids = torch.tensor([i for line in lines for i in line])
        positions = torch.tensor([p for line in lines for p in range(len(line))])
        kinds = torch.tensor(
            [k for line, of in zip(lines, types, strict=True) for k in of or [0] * len(line)]
        )
        sizes = [len(line) for line in lines]
        starts = [0, *itertools.accumulate(sizes[:-1])]
        is_one_part = device.type != "cpu"  # a GPU is faster with few large operations
        return cls(
            ids=to_device(ids.clamp(min=0), device),
            positions=to_device(positions, device),
            types=to_device(kinds, device),
            prompt_at=to_device((ids == PROMPT_ID).nonzero()[:, 0], device),
            starts=starts,
            sizes=sizes,
            cuts=[slice(0, len(sizes))] if is_one_part else similar_rows([0] * len(sizes), sizes),
        )


@dataclass(frozen=True)
class _Dense:
    weight: FrozenWeight  # [out, in]
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
      model: one that `fits`. The query, key and value weights of a layer become views of one tensor; their
        values do not change.
    """

    def __init__(self, model: PreTrainedModel):
        base = model.base_model
        self.embeddings, layers = base.embeddings, base.encoder.layer
        self.attention_modules: list[Any] = [layer.attention.self for layer in layers]
        is_packed = packs(m.weight for m in base.encoder.modules() if isinstance(m, nn.Linear))
        self.layers = [_layer(layer, is_packed) for layer in layers]
        first = self.attention_modules[0]
        heads = first.num_attention_heads
        self.attention = GroupedAttention(heads, heads, first.attention_head_size)

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """True for a plain frozen BERT encoder: GELU, no active dropout, no adapters or hooks."""
        base, config = model.base_model, model.config
        if type(base).__name__ != "BertModel" or config.is_decoder or config.hidden_act != "gelu":
            return False
        parts = [base, *base.embeddings.modules(), *base.encoder.modules()]
        weights = [p for part in parts[1:] for p in part.parameters(recurse=False)]
        return (
            all(type(m) in PLAIN or type(m).__name__ in BERT for m in parts)
            and all(type(p) is nn.Parameter and type(p.data) is Tensor for p in weights)
            and not any(p.requires_grad for p in weights)
            and not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in parts)
            and not any("forward" in vars(m) for m in parts)
        )

    def __call__(
        self, rows: FlatRows, read: Sequence[Sequence[int]], embeds: Tensor | None, prompt: DeepMemory | None
    ) -> Tensor:
        """Last hidden states [M, d] of the tokens that are read, row after row.

        Args:
          rows: the tokens.
          read: the positions in each row that are read, in any order.
          embeds: [B, n, d] prompt vectors, or None.
          prompt: prompts' keys and values at some layers, or None.
        """
        x = self._embedded(rows, embeds)
        at = to_device([rows.starts[b] + place for b, of in enumerate(read) for place in of], x.device)
        pairs = [None if prompt is None else prompt.at.get(module) for module in self.attention_modules]
        given = [x, *(keys for keys, _ in filter(None, pairs))]
        trains = torch.is_grad_enabled() and any(t.requires_grad for t in given)
        wide = torch.promote_types(x.dtype, torch.float32)  # dtype of attention
        parts = self._parts(rows, pairs, prompt, x.new_empty(0, dtype=wide), trains)
        layers = [itertools.count() if trains else itertools.repeat(0) for _ in parts]
        for i, (layer, pair) in enumerate(zip(self.layers, pairs, strict=True)):
            has_prompt = int(pair is not None)
            where = (self.attention, parts[has_prompt], next(layers[has_prompt]))
            mixed = _Attention.apply(layer.qkv(x).to(wide), *(pair or (None, None)), *where).to(x.dtype)
            if i + 1 == len(self.layers):
                x, mixed = x.index_select(0, at), mixed.index_select(0, at)
            x = _norm(x + layer.out(mixed), layer.norm_mid)
            x = _norm(x + layer.down(gelu(layer.up(x))), layer.norm_out)
        return x

    def _parts(
        self,
        rows: FlatRows,
        pairs: Sequence[Pair | None],
        prompt: DeepMemory | None,
        like: Tensor,
        trains: bool,
    ) -> tuple[list[Part], list[Part]]:
        """Two lists of parts: for the layers without a prompt, and for those with one.

        Args:
          rows: the tokens.
          pairs: each layer's prompts, or None.
          prompt: where they come from.
          like: a tensor with dtype and device of the memories.
          trains: give every layer a memory of its own, which gradients need; else all layers share one.
        Raises: ValueError if the prompts of different layers differ in shape.
        """
        shapes = {tensor.shape for pair in filter(None, pairs) for tensor in pair}
        if len(shapes) > 1 or any(len(shape) != 4 or shape[0] != len(rows.sizes) for shape in shapes):
            given = ", ".join(str(tuple(shape)) for shape in sorted(shapes))
            raise ValueError(
                f"prompts of shape {given} were given for {len(rows.sizes)} rows; give all layers keys and "
                "values of one shape, a prompt for each row"
            )
        counts = [sum((pair is not None) == has_prompt for pair in pairs) for has_prompt in (False, True)]
        parts: tuple[list[Part], list[Part]] = ([], [])
        token = 0
        for cut in rows.cuts:
            sizes = rows.sizes[cut]
            padding, tokens, new = (
                Padding.of(sizes, like.device),
                slice(token, token + sum(sizes)),
                max(sizes),
            )
            token = tokens.stop
            real_at = padding.real_at if len(padding.padding_at) else None
            for has_prompt, count in enumerate(counts):
                visible, left = padding.is_real[:, None, None], 0
                if has_prompt and shapes and prompt is not None:
                    left = next(iter(shapes))[2]
                    lengths = None if prompt.lengths is None else prompt.lengths[cut]
                    visible = DeepMemory({}, lengths).extended(visible, left)
                shape = (2, len(sizes), self.attention.num_heads, left + new, self.attention.head_width)
                memory = like.new_empty(count if trains else min(count, 1), *shape)
                part = Part(tokens, real_at, visible.expand(-1, -1, new, -1), memory)
                parts[has_prompt].append(part)
        return parts

    def _embedded(self, rows: FlatRows, embeds: Tensor | None) -> Tensor:
        tables = self.embeddings
        x = tables.word_embeddings.weight[rows.ids]
        if embeds is not None:
            x = x.index_copy(0, rows.prompt_at, embeds.flatten(0, 1).to(x))
        x = x + tables.token_type_embeddings.weight[rows.types]
        return _norm(x + tables.position_embeddings.weight[rows.positions], tables.LayerNorm)


class _Attention(torch.autograd.Function):
    """The attention output [T, d] for qkv [T, 3 d] and prompts' keys and values [B, H, n, k]."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        keys: Tensor | None,
        values: Tensor | None,
        attention: GroupedAttention,
        parts: Sequence[Part],
        layer: int,
    ) -> Tensor:
        row, outputs, saved = 0, [], []
        for part in parts:
            rows = slice(row, row + part.shape[0])
            for side, given in enumerate((keys, values)):
                if given is not None:
                    part.memory[layer, side, :, :, : given.shape[2]] = given[rows]
            output, of_part = attention.attend(qkv[part.tokens], part, layer)
            outputs.append(output)
            saved.append(of_part)
            row = rows.stop
        ctx.attention, ctx.layer = attention, layer
        ctx.saved, ctx.parts = (saved, parts) if any(ctx.needs_input_grad) else (None, None)
        return concatenated(outputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        saved, parts, ctx.saved, ctx.parts = ctx.saved, ctx.parts, None, None
        if saved is None:
            raise RuntimeError(FREED)
        new, *left = ctx.needs_input_grad[:3]
        found = [
            ctx.attention.back(outer[part.tokens], of_part, part, ctx.layer, new, any(left))
            for part, of_part in zip(parts, saved, strict=True)
        ]
        d_qkv = concatenated([d_new for d_new, _ in found]) if new else None
        d_keys, d_values = (
            [concatenated(of) for of in zip(*(d_left for _, d_left in found), strict=True)]
            if any(left)
            else (None, None)
        )
        return d_qkv, d_keys, d_values, None, None, None


def _norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    return layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


def _layer(layer: Any, is_packed: bool) -> _Layer:
    three = [getattr(layer.attention.self, name) for name in ("query", "key", "value")]
    weight, bias = join(*three), join(*three, name="bias")
    dense = (layer.attention.output.dense, layer.intermediate.dense, layer.output.dense)
    parts = [(weight, bias), *((part.weight, part.bias) for part in dense)]
    qkv, out, up, down = (_Dense(frozen_weight(weight, is_packed), bias) for weight, bias in parts)
    norms = (layer.attention.output.LayerNorm, layer.output.LayerNorm)
    return _Layer(qkv, out, norms[0], up, down, norms[1])
