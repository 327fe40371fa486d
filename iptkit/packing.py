"""How rows become one rectangle of tokens: prompt (and text) first, then all answers, each blind to the
others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packed:
    """B rows of S new tokens.

    Attributes:
      ids: [B, S] token ids; the first n are placeholders for the prompt, answers come without their last
        token (nothing follows it).
      segments: [B, S] 0 = prompt and text, 1.. = answers, -1 = padding.
      offsets: [B, S] position of each token counted from the first new one; every answer starts right after
        segment 0.
      visible: [B, S, S] bool, may token i look at token j.
      head_index: [M] flat positions whose next token is asked for, each once.
      target_head, target_token, target_slot: [A] for every answer token: which head, which id, which flat
        slot b*K + answer.
      answer_tokens: [B, K] tokens per answer, 0 = no such answer.
    """

    ids: Tensor
    segments: Tensor
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


def pack(rows: Sequence[Any], prompt_length: int, with_text: bool, device: torch.device) -> Packed:
    """Lay out `rows` (engine.Row) behind prompts of `prompt_length`; with_text: the text follows the prompt
    here."""
    sizes = [prompt_length + (len(r.text) if with_text else 0) + r.cost for r in rows]
    size, num_answers = max(sizes), max(len(r.answers) for r in rows)
    ids, segments, offsets, lengths = [], [], [], []
    heads: list[int] = []
    targets: list[tuple[int, int, int]] = []  # head, token, slot
    for b, row in enumerate(rows):
        start = prompt_length + (len(row.text) if with_text else 0)
        line = [0] * prompt_length + (list(row.text) if with_text else [])
        segment, offset = [0] * start, list(range(start))
        first = len(heads)
        heads.append(b * size + start - 1)
        for k, answer in enumerate(row.answers):
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
        lengths.append([len(a) for a in row.answers] + [0] * (num_answers - len(row.answers)))
    seg = torch.tensor(segments, device=device)
    order = torch.arange(size, device=device)
    same = (seg[:, :, None] == seg[:, None, :]) | (seg[:, None, :] == 0)
    head, token, slot = (torch.tensor(column, device=device) for column in zip(*targets, strict=True))
    return Packed(
        torch.tensor(ids, device=device),
        seg,
        torch.tensor(offsets, device=device),
        same & (order[:, None] >= order),
        torch.tensor(heads, device=device),
        head,
        token,
        slot,
        torch.tensor(lengths, device=device),
    )
