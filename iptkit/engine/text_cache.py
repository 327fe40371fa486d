"""Cached keys and values of texts, which stand to the left of prompts in many rows and training steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iptkit.engine.batches import similar_rows
from iptkit.engine.fast.llama_forward import FlatForward
from iptkit.engine.fast.memory import own_pages
from iptkit.engine.forward import StockForward, empty_memory
from iptkit.engine.rows import Places
from iptkit.models.backbone import Backbone
from iptkit.models.devices import to_device

Text = tuple[int, ...]


class TextCache:
    """Keys and values of texts: groups given to `fill` are cached, other texts are computed when needed.

    A group (the texts of one run) is always computed by itself, because floating-point rounding of a text's
    keys depends on the batch they are computed in. So a resumed training sees the same bits as an
    uninterrupted one, and groups of an earlier `fill` can be reused.

    Args:
      backbone: a causal model.
      forward: its forward pass.
      limit_bytes: limit for all cached groups together.
      is_halved: cache the keys and values of a "mixed" model in float16, which takes half the memory of
        float32 and is eight times as precise as bfloat16. A text that float16 cannot represent (see FINE),
        and the texts of other models, keep the dtype of the residual stream.
    """

    TOKENS_PER_BATCH = 1024
    FINE = 2.0**-10  # largest relative change of a layer's keys or values by float16

    def __init__(
        self,
        backbone: Backbone,
        forward: FlatForward | StockForward,
        limit_bytes: int = 2 << 30,
        is_halved: bool = True,
    ):
        self.backbone, self.forward, self.limit_bytes = backbone, forward, limit_bytes
        self.is_halved = is_halved and backbone.dtype == "mixed"
        self.groups: dict[tuple[Text, ...], dict[Text, Tensor]] = {}  # least recently used first
        self.kept: dict[Text, Tensor] = {}  # text -> [N, 2, h, L, k], what `memory` and `parts` read

    @property
    def used_bytes(self) -> int:
        """Bytes of all cached groups."""
        return sum(t.nbytes for group in self.groups.values() for t in group.values())

    def forget(self) -> None:
        """Free all memory."""
        self.groups, self.kept = {}, {}

    def fill(self, groups: Sequence[Sequence[Text]]) -> None:
        """Cache these groups, or the first ones if not all fit; older groups are dropped to make room.

        Args:
          groups: token ids of texts.
        """
        self.kept = {}
        per_token = self._like.nbytes * self.backbone.num_layers * 2 * self.backbone.num_kv_heads
        wanted, total = [], 0
        for group in dict.fromkeys(
            tuple(sorted({t for t in g if t}, key=lambda t: (len(t), t))) for g in groups
        ):
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
            known = self.groups.pop(group, None)  # the most recently used group comes last
            self.groups[group] = known or self._read(group, is_kept=True)
            if self.used_bytes > self.limit_bytes:  # texts that float16 cannot represent take twice the room
                del self.groups[group]
                break
            self.kept |= self.groups[group]

    def memory(self, texts: Sequence[Text], more: int) -> Tensor:
        """The texts' keys and values [N, 2, B, h, L + more, k], each padded on its right to the longest, L.

        Args:
          texts: one per row.
          more: further positions for the keys and values of new tokens.
        """
        return self._laid_out(texts, more, self._found(texts))

    def parts(self, texts: Sequence[Text], new: Sequence[int]) -> list[Tensor]:
        """The same as `memory` for each part of similar rows, in order.

        Args:
          texts: one per row.
          new: number of new tokens of each row.
        Returns: [N, 2, b, h, L + S, k] for the b rows of each part, with the part's largest L and S.
        """
        found, cuts = self._found(texts), self._cuts([len(text) for text in texts], new)
        return [self._laid_out(texts[cut], max(new[cut]), found) for cut in cuts]

    def _cuts(self, left: Sequence[int], new: Sequence[int]) -> list[slice]:
        return similar_rows(left, new) if self.forward.wants_parts else [slice(0, len(new))]

    def _found(self, texts: Sequence[Text]) -> dict[Text, Tensor]:
        found = {t: self.kept[t] for t in texts if t in self.kept}
        return found | self._read(
            sorted({t for t in texts if t and t not in found}, key=lambda t: (len(t), t))
        )

    def _laid_out(self, texts: Sequence[Text], more: int, found: dict[Text, Tensor]) -> Tensor:
        size = max(map(len, texts))
        memory = empty_memory(self.backbone, len(texts), size + more, clear=not size)
        if size:
            memory[:, :, :, :, size:] = 0
            _put(memory[:, :, :, :, :size], texts, found)
        return memory

    @property
    def _like(self) -> Tensor:
        """A tensor with the shape of one key and the dtype and device of the cache."""
        dtype = torch.float16 if self.is_halved else self.backbone.embedding.dtype
        return torch.empty(self.backbone.head_width, dtype=dtype, device=self.backbone.device)

    def _empty(self, texts: Sequence[Text], is_kept: bool) -> dict[Text, Tensor]:
        """[N, 2, h, L, k] for each text, all in one block; a block that is cached on a CPU has own pages."""
        model, like = self.backbone, self._like
        per_token = model.num_layers * 2 * model.num_kv_heads * model.head_width
        sizes = [per_token * len(text) for text in texts]
        total = sum(sizes)
        has_pages = is_kept and total > 0 and like.device.type == "cpu"
        pages = own_pages(total * like.element_size()) if has_pages else None
        block = like.new_empty(total) if pages is None else torch.frombuffer(pages, dtype=like.dtype)
        shape = (model.num_layers, 2, model.num_kv_heads, -1, model.head_width)
        return {text: part.view(shape) for text, part in zip(texts, block.split(sizes), strict=True)}

    @torch.no_grad()
    def _read(self, texts: Sequence[Text], is_kept: bool = False) -> dict[Text, Tensor]:
        out, start = self._empty(texts, is_kept), 0
        while start < len(texts):
            stop, total = start + 1, len(texts[start])
            while stop < len(texts) and total + len(texts[stop]) <= self.TOKENS_PER_BATCH:
                total += len(texts[stop])
                stop += 1
            batch, size = texts[start:stop], len(texts[stop - 1])  # sorted: the last is the longest
            sizes, device = [len(text) for text in batch], self.backbone.device
            real = torch.arange(size) < torch.tensor(sizes)[:, None]
            real_at = None if real.all() else to_device(real.flatten().nonzero()[:, 0], device)
            ids = torch.tensor([[*t, *[0] * (size - len(t))] for t in batch], dtype=torch.long)
            real, ids = (to_device(t, device) for t in (real, ids))
            order = torch.arange(size, device=device)
            causal = (order[:, None] >= order).expand(len(batch), -1, -1)
            places = Places(real, order.expand(len(batch), -1), causal, real_at)
            cuts = self._cuts([0] * len(batch), sizes)
            memory = [empty_memory(self.backbone, len(sizes[cut]), max(sizes[cut])) for cut in cuts]
            self.forward.read(self.backbone.embedding[ids], places, memory)
            read = {
                text: of_part[:, :, row, :, : len(text)]
                for cut, of_part in zip(cuts, memory, strict=True)
                for row, text in enumerate(batch[cut])
            }
            for text, values in read.items():
                out[text].copy_(values)
            if self.is_halved:
                fits = torch.stack([self._fits(out[text], values) for text, values in read.items()])
                for (text, values), it_fits in zip(read.items(), fits.tolist(), strict=True):
                    if not it_fits:
                        out[text] = values.clone(memory_format=torch.contiguous_format)
            start = stop
        return out

    def _fits(self, halved: Tensor, values: Tensor) -> Tensor:
        """A bool: True if float16 represents the keys and the values [N, 2, h, L, k] of every layer.

        It does not where one is too large, or all are too small.
        """
        change, size = ((t * t).sum((2, 3, 4)) for t in (halved.to(values.dtype) - values, values))
        return (change <= self.FINE**2 * size).all()


def _put(memory: Tensor, texts: Sequence[Text], found: dict[Text, Tensor]) -> None:
    """Write the keys and values of texts into memory [N, 2, B, h, L, k], and zeros after them."""
    (_copy if memory.device.type == "cpu" else _gather)(memory, texts, found)


def _copy(memory: Tensor, texts: Sequence[Text], found: dict[Text, Tensor]) -> None:
    """Row by row."""
    for row, text in enumerate(texts):
        if text:  # a row may have no text
            memory[:, :, row, :, : len(text)] = found[text]
        memory[:, :, row, :, len(text) :] = 0  # masked, but NaN times a weight of 0 would be NaN


def _gather(memory: Tensor, texts: Sequence[Text], found: dict[Text, Tensor]) -> None:
    """In a few large operations, which suits a GPU."""
    known = {text: place for place, text in enumerate(found)}
    starts = torch.tensor([0, *map(len, found)]).cumsum(0)
    lengths = torch.tensor([len(text) for text in texts])
    begin = torch.tensor([int(starts[known[text]]) if text else 0 for text in texts])
    offset = torch.arange(memory.shape[4])
    empty = to_device(offset >= lengths[:, None], memory.device)  # [B, L]
    index = to_device((begin[:, None] + offset).where(offset < lengths[:, None], 0).flatten(), memory.device)
    rows = torch.cat(list(found.values()), 3).index_select(3, index).unflatten(3, (len(texts), -1))
    memory.copy_(rows.transpose(2, 3)).masked_fill_(empty[:, None, :, None], 0)
