"""Rows as one rectangle of tokens: first everything before the answers, then all answers of the row.

No answer sees another one, so all options of an example are scored in one forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iptkit.engine.layouts import PROMPT_ID, Ids
from iptkit.models.devices import to_device


@dataclass(frozen=True)
class Row:
    """One example as token ids.

    Attributes:
      text: L ids.
      answers: the ids of each answer that is scored.
      shared: number of first tokens that this row has in common with other rows, with nothing trainable
        before or among them; their keys and values are computed once (see shared_prefixes).
    """

    text: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    shared: int = 0

    @property
    def cost(self) -> int:
        """Answer tokens that run through the model: all but the last of each answer."""
        return sum(len(a) - 1 for a in self.answers)


@dataclass(frozen=True)
class Packed:
    """B rows of S new tokens.

    Attributes:
      ids: [B, S] token ids; answers without their last token, which predicts nothing.
      prompt_at: flat indices in [B, S] of the prompt vectors, row after row.
      segments: [B, S] 0 = before the answers, 1.. = answers, -1 = padding.
      real_at: [T] flat indices in [B, S] of the tokens; None if there is no padding.
      offsets: [B, S] position of each token, from 0 for the first new one; every answer starts right after
        segment 0.
      visible: [B, S, S] bool, True if token i may look at token j.
      scored_at: [M] flat indices in [B, S] at which the LM head predicts the next token, each once.
      target_state: [A] for every answer token the one of the M states that predicts it.
      target_token: [A] for every answer token its id.
      target_answer: [A] for every answer token the flat index b * K + k of its answer.
      answer_tokens: [B, K] number of tokens in each answer, 0 = no such answer.
    """

    ids: Tensor
    prompt_at: Tensor
    segments: Tensor
    real_at: Tensor | None
    offsets: Tensor
    visible: Tensor
    scored_at: Tensor
    target_state: Tensor
    target_token: Tensor
    target_answer: Tensor
    answer_tokens: Tensor

    @property
    def num_answers(self) -> int:
        """K, the largest number of answers in a row."""
        return self.answer_tokens.shape[1]


def shared_prefixes(lines: Sequence[Ids], least: int = 4) -> list[int]:
    """The number of first tokens that each line shares with others, so that they are read once.

    Sorted lines are cut into groups with one common prefix each, such that as few tokens as possible are
    read. At least one token of each line is not shared.

    Args:
      lines: token ids.
      least: minimum length of a shared prefix.

    >>> shared_prefixes([(1, 2, 3, 4), (1, 2, 3, 5, 6), (7, 8)], least=2)
    [3, 3, 0]
    """
    order = sorted(range(len(lines)), key=lambda i: lines[i])
    spared, cut = [0], [(0, 0)]  # of the first i lines: tokens not read; last group's first line and prefix
    for i in range(1, len(order) + 1):
        best, where = spared[i - 1], (i - 1, 0)
        length = len(lines[order[i - 1]]) - 1
        for j in range(i - 2, -1, -1):  # the group starts with line j
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
    """B rows as one rectangle.

    Args:
      lines: token ids before the answers of each row, at least one, PROMPT_ID for each prompt vector.
      answers: the answers of each row, at least one, none of them empty.
      device: where the tensors are.
    """
    sizes = [len(line) + sum(len(a) - 1 for a in of) for line, of in zip(lines, answers, strict=True)]
    size, num_answers = max(sizes), max(map(len, answers))
    ids, segments, offsets, lengths = [], [], [], []
    scored: list[int] = []
    targets: list[tuple[int, int, int]] = []  # state, token, answer
    for b, (before, choices) in enumerate(zip(lines, answers, strict=True)):
        start, line = len(before), list(before)
        segment, offset = [0] * start, list(range(start))
        first = len(scored)
        scored.append(b * size + start - 1)
        for k, answer in enumerate(choices):
            targets.append((first, answer[0], b * num_answers + k))
            for t, token in enumerate(answer[:-1]):
                scored.append(b * size + len(line))
                targets.append((len(scored) - 1, answer[t + 1], b * num_answers + k))
                line.append(token)
                segment.append(k + 1)
                offset.append(start + t)
        missing = size - len(line)
        ids.append(line + [0] * missing)
        segments.append(segment + [-1] * missing)
        offsets.append(offset + [0] * missing)
        lengths.append([len(a) for a in choices] + [0] * (num_answers - len(choices)))
    seg = torch.tensor(segments)
    real_at = None if min(sizes) == size else to_device((seg.flatten() >= 0).nonzero()[:, 0], device)
    seg = to_device(seg, device)
    order = torch.arange(size, device=device)
    same = (seg[:, :, None] == seg[:, None, :]) | (seg[:, None, :] == 0)
    target_state, target_token, target_answer = (
        to_device(column, device) for column in zip(*targets, strict=True)
    )
    numbers = torch.tensor(ids)
    return Packed(
        ids=to_device(numbers.clamp(min=0), device),
        prompt_at=to_device((numbers.flatten() == PROMPT_ID).nonzero()[:, 0], device),
        segments=seg,
        real_at=real_at,
        offsets=to_device(offsets, device),
        visible=same & (order[:, None] >= order),
        scored_at=to_device(scored, device),
        target_state=target_state,
        target_token=target_token,
        target_answer=target_answer,
        answer_tokens=to_device(lengths, device),
    )


@dataclass(frozen=True)
class Places:
    """Positions and mask of the new tokens of B rows.

    Attributes:
      real: [B, S] bool, False at padding.
      positions: [B, S] position ids.
      visible: [B, S, L + S] bool, True if new token i may look at memory or new token j.
      real_at: [T] flat indices in [B, S] of the real tokens; None if there is no padding.
    """

    real: Tensor
    positions: Tensor
    visible: Tensor
    real_at: Tensor | None = None
