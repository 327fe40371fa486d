"""A frozen BERT over flat tokens: no padding in its matrix products, the last layer only where it is read.

The tokens of all rows lie in one list and meet their row again only inside attention. Exact: the same sums as
the stock forward of transformers (tests compare them in float64).

One layer, x [T, d] (Devlin et al. 2019, arXiv 1810.04805, section 3; norms behind the sums):

    x -> q, k, v -> attention over [prompt | tokens of the row] -> + x -> norm -> MLP -> + -> norm
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from iptkit.flat import join
from iptkit.injection import DeepMemory
from iptkit.layouts import SLOT

PLAIN = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.ModuleList)
NAMED = ("BertModel", "BertEmbeddings", "BertEncoder", "BertLayer", "BertAttention", "BertSelfAttention")
NAMED += ("BertSelfOutput", "BertIntermediate", "BertOutput", "GELUActivation")


@dataclass(frozen=True)
class Rows:
    """Where T flat tokens stand in B rows of up to S tokens.

    Attributes:
      ids: [T] token ids, SLOT where a prompt vector stands.
      positions, types: [T] place in the row, and segment, of each.
      row: [T] whose each is.
      seen: [B, S] bool, False for padding.
    """

    ids: Tensor
    positions: Tensor
    types: Tensor
    row: Tensor
    seen: Tensor

    @classmethod
    def of(cls, lines: Sequence[Sequence[int]], types: Sequence[Sequence[int]], device: torch.device) -> Rows:
        """Rows of token ids; types: their segments, or () for a row of segment 0 alone."""
        sizes = torch.tensor([len(line) for line in lines])
        seen = torch.arange(int(sizes.max())) < sizes[:, None]
        row, positions = seen.nonzero().unbind(1)
        ids = torch.tensor([i for line in lines for i in line])
        kinds = [k for line, of in zip(lines, types, strict=True) for k in of or [0] * len(line)]
        return cls(*(t.to(device) for t in (ids, positions, torch.tensor(kinds), row, seen)))


@dataclass(frozen=True)
class _Layer:
    weight: Tensor  # [3 d, d] of query, key and value
    bias: Tensor  # [3 d]
    out: nn.Linear
    norm_mid: nn.LayerNorm
    up: nn.Linear
    down: nn.Linear
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
        self.layers = [_layer(layer) for layer in layers]
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

    def __call__(self, rows: Rows, at: Tensor, embeds: Tensor | None, prompt: DeepMemory | None) -> Tensor:
        """Last hidden states [M, d] of the flat tokens `at` [M], which are in the order of their rows.

        Args:
          embeds: [B, n, d], in the places of SLOT; or None.
          prompt: keys and values beside the tokens of some layers; or None.
        """
        x = self._embedded(rows, embeds)
        for i, (layer, attention) in enumerate(zip(self.layers, self.attentions, strict=True)):
            beside = None if prompt is None else prompt.at.get(attention)
            mask = rows.seen[:, None, None, :]
            if beside is not None:
                mask = prompt.beside(mask, beside[0].shape[2])
            read = None if i + 1 < len(self.layers) else at
            mixed, x = self._attention(layer, x, rows, read, mask, beside)
            x = _norm(x + layer.out(mixed), layer.norm_mid)
            x = _norm(x + layer.down(gelu(layer.up(x))), layer.norm_out)
        return x

    def _embedded(self, rows: Rows, embeds: Tensor | None) -> Tensor:
        parts = self.embeddings
        x = parts.word_embeddings.weight[rows.ids.clamp(min=0)]
        if embeds is not None:
            x = x.masked_scatter((rows.ids == SLOT)[:, None], embeds.to(x))
        x = x + parts.token_type_embeddings.weight[rows.types]
        return _norm(x + parts.position_embeddings.weight[rows.positions], parts.LayerNorm)

    def _attention(
        self,
        layer: _Layer,
        x: Tensor,
        rows: Rows,
        at: Tensor | None,
        mask: Tensor,
        beside: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """What the tokens `at` (None for all) read from their rows [M, d], and those tokens' x [M, d]."""
        size, row, place = x.shape[1], rows.row, rows.positions
        if at is None:
            query, both = linear(x, layer.weight, layer.bias).split([size, 2 * size], 1)
        else:
            both = linear(x, layer.weight[size:], layer.bias[size:])
            x, row = x[at], row[at]
            query = linear(x, layer.weight[:size], layer.bias[:size])
            first = torch.searchsorted(row, torch.arange(len(rows.seen), device=row.device))
            place = torch.arange(len(row), device=row.device) - first[row]
        keys, values = self._padded(both, rows.row, rows.positions, rows.seen.shape).chunk(2, 1)
        if beside is not None:
            keys, values = (torch.cat([p.to(t), t], 2) for p, t in zip(beside, (keys, values), strict=True))
        new = rows.seen.shape[1] if at is None else int(place.max()) + 1
        queries = self._padded(query, row, place, (len(rows.seen), new))
        mixed = scaled_dot_product_attention(queries, keys, values, mask)  # [B, H, new, k]
        return mixed.transpose(1, 2)[row, place].flatten(1), x

    def _padded(self, flat: Tensor, row: Tensor, place: Tensor, shape: tuple[int, int]) -> Tensor:
        """[T, c k] -> [B, c, S, k], zeros where no token stands."""
        padded = flat.new_zeros(*shape, flat.shape[1]).index_put((row, place), flat)
        return padded.unflatten(2, (-1, self.width)).transpose(1, 2)


def _norm(x: Tensor, module: nn.LayerNorm) -> Tensor:
    return layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)


def _layer(layer: nn.Module) -> _Layer:
    three = [getattr(layer.attention.self, name) for name in ("query", "key", "value")]
    return _Layer(
        weight=join(*three),
        bias=join(*three, name="bias"),
        out=layer.attention.output.dense,
        norm_mid=layer.attention.output.LayerNorm,
        up=layer.intermediate.dense,
        down=layer.output.dense,
        norm_out=layer.output.LayerNorm,
    )
