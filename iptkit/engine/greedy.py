"""Greedy answers of many rows, token by token, in a causal model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iptkit.engine.prompt import Prompt
from iptkit.engine.rows import Places
from iptkit.models.backbone import Backbone

MOSTLY_DONE = 0.7  # to drop rows is to copy the memory of the others


@dataclass
class Going:
    """Rows that are being answered.

    Attributes:
      prompt: one per row.
      memory: [N, 2, B, h, places, k], of which the first `filled` places are taken.
      state: [B, d] last hidden states.
      seen: [B, filled] real places of memory.
      position: [B] positions of the last tokens.
    """

    prompt: Prompt
    memory: Tensor
    filled: int
    state: Tensor
    seen: Tensor
    position: Tensor

    def keep(self, index: Tensor) -> None:
        """Drop all rows but `index`."""
        self.prompt, self.memory = self.prompt.rows(index), self.memory[:, :, index]
        self.seen, self.position = self.seen[index], self.position[index]


def greedy(
    backbone: Backbone,
    hidden: Callable[..., Tensor],
    logits: Callable[[Tensor], Tensor],
    ends: Collection[int],
    going: Going,
    limits: Sequence[int],
) -> list[list[int]]:
    """The likeliest token each time, until one of `ends` or the row's limit.

    Args:
      hidden: one forward, (prompt, embeds [B, 1, d], places, memory, at [B]) -> states [B, d].
      logits: states [B, d] -> logits [B, V].
      limits: most tokens of each row, >= 1.
    Returns: token ids of each answer.
    """
    answers: list[list[int]] = [[] for _ in limits]
    active, unfinished = list(range(len(limits))), set(range(len(limits)))
    while True:
        tokens = logits(going.state).argmax(-1)
        for row, token in zip(active, tokens.tolist(), strict=True):
            if row in unfinished:
                answers[row].append(token)
                if token in ends or len(answers[row]) == limits[row]:
                    unfinished.remove(row)
        if not unfinished:
            return answers
        if len(unfinished) < MOSTLY_DONE * len(active):
            index = torch.tensor([i for i, row in enumerate(active) if row in unfinished]).to(tokens.device)
            going.keep(index)
            tokens, active = tokens[index], [row for row in active if row in unfinished]
        going.filled += 1
        going.position = (going.position + 1).clamp(max=backbone.max_positions - 1)  # of rows that are done
        going.seen = torch.cat([going.seen, going.seen.new_ones(len(active), 1)], 1)
        places = Places(going.seen[:, -1:], going.position[:, None], going.seen[:, None])
        words, at = backbone.embedding[tokens][:, None], torch.arange(len(active), device=tokens.device)
        going.state = hidden(going.prompt, words, places, going.memory[..., : going.filled, :], at)
