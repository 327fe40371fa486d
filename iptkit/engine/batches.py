"""Cut rows into batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import ceil

PART_COST = 1500  # attention scores that take as long as one more part (SmolLM2, AMD, one thread)
MANY = 4096  # tokens in a batch above which one more batch costs next to nothing


def even_batches(
    order: Sequence[int], new: Sequence[int], left: Sequence[int], tokens_per_batch: int
) -> list[list[int]]:
    """Batches with about equal numbers of new tokens, and limited memory on their left.

    Args:
      order: indices of rows, similar rows next to each other.
      new: number of new tokens of each row.
      left: number of tokens to the left of them, in memory.
      tokens_per_batch: approximate limit of new tokens in a batch; four times as many, with padding, may be
        in memory.
    Returns: lists of indices.
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
    """Batches of rows of similar length, to be padded to one length; the longest first.

    A batch ends when it is full, or when padding would take more than a third of a row and the batch already
    has an eighth of its tokens (of MANY, if that is less). Below that size, one more forward pass costs more
    than the padding.

    Args:
      sizes: number of tokens of each row.
      tokens_per_batch: limit of tokens in a batch, including padding.
    Returns: lists of indices.
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
    """Slices of a batch's rows, in order, that waste little when each is padded by itself.

    Args:
      left: number of tokens in memory of each row (>= 0).
      new: number of new tokens of each row (>= 1).
      least: >= 0, attention scores (new tokens times all tokens, with padding) that a cut must save.
    """
    todo, cuts = [slice(0, len(new))], []
    while todo:
        part = todo.pop()
        begin = _sizes(left[part], new[part])
        end = _sizes(left[part][::-1], new[part][::-1])[::-1]
        saved, last = max(
            ((begin[-1] - begin[i] - end[i + 1], i) for i in range(len(end) - 1)), default=(0, 0)
        )
        if saved > least:
            middle = part.start + last + 1
            todo += [slice(part.start, middle), slice(middle, part.stop)]
        else:
            cuts.append(part)
    return sorted(cuts, key=lambda part: part.start)


def _sizes(left: Sequence[int], new: Sequence[int]) -> list[int]:
    """Attention scores of the first 1, 2, ... rows, padded."""
    lefts, news = accumulate(left, max), accumulate(new, max)
    return [rows * n * (m + n) for rows, (m, n) in enumerate(zip(lefts, news, strict=True), 1)]
