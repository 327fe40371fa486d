"""How rows become one rectangle of tokens: all before the answer first, then all answers, each blind to the
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iptkit.engine.layouts import SLOT, Ids
from iptkit.models.devices import to_device


@dataclass(frozen=True)
class Row:
    """One example as token ids: `text` (L ids) and one tuple of ids per answer that is to be scored.

    `shared`: so many first tokens before the answer stand in other rows too, and nothing that trains stands
    before or among them; their keys and values are computed once (see shared_prefixes).
    """

    text: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    shared: int = 0

    @property
    def cost(self) -> int:
        """Tokens that run through the model beside the prompt (text-first layout)."""
        return sum(len(a) - 1 for a in self.answers)


@dataclass(frozen=True)
class Packed:
    """B rows of S new tokens.

    Attributes:
      ids: [B, S] token ids; answers come without their last token (nothing follows it).
      prompt_at: flat places in [B, S] where prompt vectors stand in place of ids, row after row.
      segments: [B, S] 0 = before the answer, 1.. = answers, -1 = padding.
      slots: [T] flat places of all but padding; None where there is no padding.
      offsets: [B, S] position of each token counted from the first new one; every answer starts right after
        segment 0.
      visible: [B, S, S] bool, may token i look at token j.
      head_index: [M] flat positions whose next token is asked for, each once.
      target_head, target_token, target_slot: [A] for every answer token: which head, which id, which flat
        slot b*K + answer.
      answer_tokens: [B, K] tokens per answer, 0 = no such answer.
    """

    ids: Tensor
    prompt_at: Tensor
    segments: Tensor
    slots: Tensor | None
    offsets: Tensor
    visible: Tensor
    head_index: Tensor
    target_head: Tensor
    target_token: Tensor
    target_slot: Tensor
    answer_tokens: Tensor

    @property
    def num_answers(self) -> int:
        """K, the most answers any row has."""
        return self.answer_tokens.shape[1]


def shared_prefixes(lines: Sequence[Ids], least: int = 4) -> list[int]:
    """How many first tokens each line shares with others, so that reading them once serves all.

    Sorted lines are cut into groups with one common prefix each, so that the fewest tokens are read. At least
    one token of a line is its own.

    Args:
      least: prefixes shorter than this are not worth keeping.

    >>> shared_prefixes([(1, 2, 3, 4), (1, 2, 3, 5, 6), (7, 8)], least=2)
    [3, 3, 0]
    """
    order = sorted(range(len(lines)), key=lambda i: lines[i])
    spared, cut = [0], [(0, 0)]  # for the first i lines: tokens not read; begin and prefix of the last group
    for i in range(1, len(order) + 1):
        best, where = spared[i - 1], (i - 1, 0)
        length = len(lines[order[i - 1]]) - 1
        for j in range(i - 2, -1, -1):  # the group begins with line j
            common = _common(lines[order[j]], lines[order[j + 1]])
            length = min(length, common, len(lines[order[j]]) - 1)
            if length < least:
                break
            if spared[j] + (i - j - 1) * length > best:
                best, where = spared[j] + (i - j - 1) * length, (j, length)
        spared.append(best)
        cut.append(where)
    out, i = [0] * len(lines), len(order)
    while i > 0:
        begin, length = cut[i]
        for k in order[begin:i]:
            out[k] = length
        i = begin
    return out


def _common(a: Ids, b: Ids) -> int:
    return next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def pack(lines: Sequence[Ids], answers: Sequence[Sequence[Ids]], device: torch.device) -> Packed:
    """Lay out rows.

    Args:
      lines: B rows of token ids before the answer, SLOT for each prompt vector; at least one id each.
      answers: the answers of each row, at least one, none of them empty.
    """
    sizes = [len(line) + sum(len(a) - 1 for a in of) for line, of in zip(lines, answers, strict=True)]
    size, num_answers = max(sizes), max(map(len, answers))
    ids, segments, offsets, lengths = [], [], [], []
    heads: list[int] = []
    targets: list[tuple[int, int, int]] = []  # head, token, slot
    for b, (before, choices) in enumerate(zip(lines, answers, strict=True)):
        start, line = len(before), list(before)
        segment, offset = [0] * start, list(range(start))
        first = len(heads)
        heads.append(b * size + start - 1)
        for k, answer in enumerate(choices):
            slot = b * num_answers + k
            targets.append((first, answer[0], slot))
            for t, token in enumerate(answer[:-1]):
                heads.append(b * size + len(line))
                targets.append((len(heads) - 1, answer[t + 1], slot))
                line.append(token)
                segment.append(k + 1)
                offset.append(start + t)
        missing = size - len(line)
        ids.append(line + [0] * missing)
        segments.append(segment + [-1] * missing)
        offsets.append(offset + [0] * missing)
        lengths.append([len(a) for a in choices] + [0] * (num_answers - len(choices)))
    seg = torch.tensor(segments)
    slots = None if min(sizes) == size else to_device((seg.flatten() >= 0).nonzero()[:, 0], device)
    seg = to_device(seg, device)
    order = torch.arange(size, device=device)
    same = (seg[:, :, None] == seg[:, None, :]) | (seg[:, None, :] == 0)
    head, token, slot = (to_device(column, device) for column in zip(*targets, strict=True))
    numbers = torch.tensor(ids)
    return Packed(
        to_device(numbers.clamp(min=0), device),
        to_device((numbers.flatten() == SLOT).nonzero()[:, 0], device),
        seg,
        slots,
        to_device(offsets, device),
        same & (order[:, None] >= order),
        to_device(heads, device),
        head,
        token,
        slot,
        to_device(lengths, device),
    )


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
