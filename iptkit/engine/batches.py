"""Cut rows into batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import ceil

PART_COST = 1500  # places of attention that take as long as a further part (SmolLM2, AMD, one thread)
MANY = 4096  # tokens of a batch from which on a further one costs next to nothing


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
