"""How rows become one rectangle of tokens: all before the answer first, then all answers, each blind to the
others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from typing import Any

import torch
from torch import Tensor

from iptkit.layouts import SLOT, Ids

PART_COST = 1500  # places of attention that take as long as a further part (SmolLM2, AMD, one thread)
MANY = 4096  # tokens of a batch from which on a further one costs next to nothing


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


def even_batches(
    order: Sequence[int], new: Sequence[int], left: Sequence[int], tokens_per_batch: int
) -> list[list[int]]:
    """Cut `order` into batches of about equal numbers of new tokens, of limited width on their left.

    Args:
      order: indices of rows, similar ones beside each other.
      new, left: tokens of each row that run, and that are looked back at.
      tokens_per_batch: about how many new tokens a batch may have; four times as many padded left ones.
    """
    share = sum(new) / max(1, ceil(sum(new) / tokens_per_batch))
    batches: list[list[int]] = []
    size = longest = 0
    for i in order:
        longest = max(longest, left[i])
        is_wide = batches and longest * (len(batches[-1]) + 1) > 4 * tokens_per_batch
        if not batches or size + new[i] / 2 > share or is_wide:
            batches.append([])
            size, longest = 0, left[i]
        batches[-1].append(i)
        size += new[i]
    return batches


def similar_batches(sizes: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Cut rows that will be padded to one length into batches of similar length, the longest first.

    A batch ends where it is full, or where padding would take more than a third of a row and the batch
    already has an eighth of its tokens (of MANY, if that is less): below that a further forward costs more
    than the padding.

    Args:
      sizes: tokens of each row.
      tokens_per_batch: about how many tokens a batch may have, padding counted in.
    Returns: index lists.
    """
    batches: list[list[int]] = []
    longest, few = 0, min(tokens_per_batch, MANY) / 8
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        taken = longest * len(batches[-1]) if batches else 0
        is_full = taken + longest > tokens_per_batch
        if not batches or is_full or (sizes[i] < longest * 2 / 3 and taken > few):
            batches.append([])
            longest = sizes[i]
        batches[-1].append(i)
    return batches


def similar_rows(left: Sequence[int], new: Sequence[int], least: int = PART_COST) -> list[slice]:
    """Cut a batch's rows, in their order, into parts that waste little when each is padded by itself.

    Args:
      left, new: tokens of each row that are looked back at (>= 0), and that run (>= 1).
      least: >= 0, a cut has to spare more places of attention than this (new times all tokens of a padded
        row).
    Returns: slices that cover all rows in order.
    """
    todo, cuts = [slice(0, len(new))], []
    while todo:
        part = todo.pop()
        begin = _sizes(left[part], new[part])
        end = _sizes(left[part][::-1], new[part][::-1])[::-1]
        spared, last = max(
            ((begin[-1] - begin[i] - end[i + 1], i) for i in range(len(end) - 1)), default=(0, 0)
        )
        if spared > least:
            middle = part.start + last + 1
            todo += [slice(part.start, middle), slice(middle, part.stop)]
        else:
            cuts.append(part)
    return sorted(cuts, key=lambda part: part.start)


def _sizes(left: Sequence[int], new: Sequence[int]) -> list[int]:
    """Places of attention of the first 1, 2 ... rows, padded."""
    lefts, news = accumulate(left, max), accumulate(new, max)
    return [rows * n * (m + n) for rows, (m, n) in enumerate(zip(lefts, news, strict=True), 1)]


def to_device(values: Any, device: torch.device) -> Tensor:
    """A list or a tensor of the CPU as a tensor on `device`; what a GPU is doing is not waited for."""
    return torch.as_tensor(values).to(device, non_blocking=True)


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
