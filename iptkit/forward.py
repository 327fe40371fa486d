"""One forward of many rows through a frozen causal model: a flat one for Llamas, else transformers' own.

Both are given the same three things and hand back the same numbers:

    embeds [B, S, d]   new tokens of B rows, padded
    places             which of them are real, their positions, what each may look at
    memory             keys and values to their left [N, 2, B, h, L + S, k], with room for their own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iptkit import injection
from iptkit.backbones import Backbone
from iptkit.flat import FlatLlama, Layout
from iptkit.frozen import frozen, linear
from iptkit.packing import to_device

Text = tuple[int, ...]


@dataclass(frozen=True)
class Places:
    """Where the new tokens of B rows stand.

    Attributes:
      real: [B, S] bool, False for padding.
      positions: [B, S] position ids.
      visible: [B, S, L + S] bool, may new token i look at memory or new token j.
      slots: [T] flat places of the real ones in [B, S]; None where all are real.
    """

    real: Tensor
    positions: Tensor
    visible: Tensor
    slots: Tensor | None = None


class StockForward:
    """transformers' forward, the memory handed to its attention (injection.py)."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        injection.prepare(backbone.model)

    def hidden(
        self,
        embeds: Tensor,
        places: Places,
        memory: Tensor,
        at: Tensor,
        prompt: injection.DeepMemory | None = None,
    ) -> Tensor:
        """Last hidden states [M, d] at the flat positions `at` [M] of [B, S], beside a deep prompt."""
        new, grow = embeds.shape[1], not torch.is_grad_enabled()  # then the new keys are read off below
        pairs = [(k[:, :, :-new], v[:, :, :-new]) for k, v in memory]
        left = injection.LeftMemory(pairs, grow, prompt)
        with injection.left_memory(left):
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


class FlatForward:
    """The Llama layers of flat.py: real tokens only."""

    def __init__(self, backbone: Backbone):
        self.base, head = backbone.model.base_model, backbone.model.lm_head
        self.llama = FlatLlama(backbone.model)
        self.head, self.bias = frozen(head.weight, self.llama.is_packed), head.bias

    def hidden(self, embeds: Tensor, places: Places, memory: Tensor, at: Tensor) -> Tensor:
        """Last hidden states [M, d] at the flat positions `at` [M] of [B, S]."""
        x, layout = self._flat(embeds, places)
        states = self.llama(x, layout, memory)
        if layout.slots is not None:
            at = (places.real.flatten().cumsum(0) - 1)[at]
        return self.base.norm(states.index_select(0, at))

    def read(self, embeds: Tensor, places: Places, memory: Tensor) -> None:
        """Fill `memory` with the new tokens' keys and values."""
        self.llama.read(*self._flat(embeds, places), memory)

    def logits(self, states: Tensor) -> Tensor:
        """[M, V] of last hidden states [M, d]."""
        return linear(states, self.head, self.bias)

    @staticmethod
    def _flat(embeds: Tensor, places: Places) -> tuple[Tensor, Layout]:
        x, positions, blind = embeds.flatten(0, 1), places.positions.flatten(), ~places.visible[:, None]
        if places.slots is not None:
            x, positions = x.index_select(0, places.slots), positions[places.slots]
        return x, Layout(places.slots, positions, blind)


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


class Contexts:
    """Keys and values of texts: groups given to `fill` are kept up to `limit_bytes`, others computed anew.

    A group (the texts of one run) is always computed by itself, because the last bits of a text's keys
    depend on the batch that it was computed in: so a resumed training sees the same bits as an uninterrupted
    one, and groups of an earlier `fill` can be taken as they are.

    Args:
      limit_bytes: of all groups that are kept.
      is_halved: keep the numbers of a "mixed" model in bfloat16; else, and for other models, as they are.
    """

    TOKENS_PER_BATCH = 1024

    def __init__(
        self,
        backbone: Backbone,
        forward: FlatForward | StockForward,
        limit_bytes: int = 2 << 30,
        is_halved: bool = True,
    ):
        self.backbone, self.forward, self.limit_bytes = backbone, forward, limit_bytes
        self.is_halved = is_halved and backbone.dtype == "mixed"
        self.groups: dict[tuple[Text, ...], dict[Text, Tensor]] = {}  # least recently asked for first
        self.kept: dict[Text, Tensor] = {}  # text -> [N, 2, h, L, k], what `memory` takes from

    @property
    def used_bytes(self) -> int:
        """Bytes of all groups that are kept."""
        return sum(t.nbytes for group in self.groups.values() for t in group.values())

    def forget(self) -> None:
        """Give all memory back."""
        self.groups, self.kept = {}, {}

    def fill(self, groups: Sequence[Sequence[Text]]) -> None:
        """Use these groups from now on, in this order as far as they fit; older ones give way."""
        self.kept = {}
        per_token = self._like.nbytes * self.backbone.num_layers * 2 * self.backbone.num_kv_heads
        wanted, total = [], 0
        for group in dict.fromkeys(tuple(sorted(set(g), key=lambda t: (len(t), t))) for g in groups):
            total += per_token * sum(map(len, group))
            if total > self.limit_bytes:
                break
            wanted.append(group)
        needed = per_token * sum(len(t) for group in wanted if group not in self.groups for t in group)
        asked = set(wanted)
        for old in [group for group in self.groups if group not in asked]:
            if self.used_bytes + needed > self.limit_bytes:
                del self.groups[old]
        for group in wanted:
            self.groups[group] = self.groups.pop(group, None) or self._read(group)
            self.kept |= self.groups[group]

    def memory(self, texts: Sequence[Text], more: int) -> tuple[Tensor, Tensor]:
        """Memory [N, 2, B, h, L + more, k] of the texts, padded on their right to L; lengths [B] (CPU)."""
        found = {t: self.kept[t] for t in texts if t in self.kept}
        found |= self._read(sorted({t for t in texts if t and t not in found}, key=lambda t: (len(t), t)))
        lengths = torch.tensor([len(t) for t in texts])
        size = int(lengths.max())
        joined = room(self.backbone, len(texts), size + more, clear=False)
        joined[:, :, :, :, size:] = 0
        _put(joined[:, :, :, :, :size], texts, found)
        return joined, lengths

    @property
    def _like(self) -> Tensor:
        """One key."""
        dtype = torch.bfloat16 if self.is_halved else self.backbone.embedding.dtype
        return torch.empty(self.backbone.head_width, dtype=dtype, device=self.backbone.device)

    @torch.no_grad()
    def _read(self, texts: Sequence[Text]) -> dict[Text, Tensor]:
        out: dict[Text, Tensor] = {}
        start, dtype = 0, self._like.dtype
        while start < len(texts):
            stop, total = start + 1, len(texts[start])
            while stop < len(texts) and total + len(texts[stop]) <= self.TOKENS_PER_BATCH:
                total += len(texts[stop])
                stop += 1
            batch, size = texts[start:stop], len(texts[stop - 1])  # sorted: the last is the longest
            real = torch.tensor([[True] * len(t) + [False] * (size - len(t)) for t in batch])
            slots = None if real.all() else to_device(real.flatten().nonzero()[:, 0], self.backbone.device)
            ids = torch.tensor([[*t, *[0] * (size - len(t))] for t in batch], dtype=torch.long)
            real, ids = (to_device(t, self.backbone.device) for t in (real, ids))
            order = torch.arange(size, device=ids.device)
            causal = (order[:, None] >= order).expand(len(batch), -1, -1)
            places = Places(real, order.expand(len(batch), -1), causal, slots)
            memory = room(self.backbone, len(batch), size)
            self.forward.read(self.backbone.embedding[ids], places, memory)
            memory = memory.to(dtype)
            out |= {t: memory[:, :, row, :, : len(t)].contiguous() for row, t in enumerate(batch)}
            start = stop
        return out


def _put(memory: Tensor, texts: Sequence[Text], found: dict[Text, Tensor]) -> None:
    """Put the keys and values of texts into memory [N, 2, B, h, L, k], zeros behind them."""
    (_copy if memory.device.type == "cpu" else _gather)(memory, texts, found)


def _copy(memory: Tensor, texts: Sequence[Text], found: dict[Text, Tensor]) -> None:
    """Row by row."""
    for row, text in enumerate(texts):
        if text:  # a row may have nothing to its left
            memory[:, :, row, :, : len(text)] = found[text]
        memory[:, :, row, :, len(text) :] = 0  # never looked at, but NaN times 0 would be NaN


def _gather(memory: Tensor, texts: Sequence[Text], found: dict[Text, Tensor]) -> None:
    """In a few large operations, which is what a GPU likes."""
    known = {text: place for place, text in enumerate(found)}
    starts = torch.tensor([0, *map(len, found)]).cumsum(0)
    lengths = torch.tensor([len(text) for text in texts])
    begin = torch.tensor([int(starts[known[text]]) if text else 0 for text in texts])
    offset = torch.arange(memory.shape[4])
    empty = to_device(offset >= lengths[:, None], memory.device)  # [B, L]
    index = to_device((begin[:, None] + offset).where(offset < lengths[:, None], 0).flatten(), memory.device)
    rows = torch.cat(list(found.values()), 3).index_select(3, index).unflatten(3, (len(texts), -1))
    memory.copy_(rows.transpose(2, 3)).masked_fill_(empty[:, None, :, None], 0)
