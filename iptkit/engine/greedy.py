"""Greedy decoding of many rows in a causal model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iptkit.engine.prompt import Prompt
from iptkit.engine.rows import Places
from iptkit.models.backbone import Backbone

MOSTLY_DONE = 0.7  # finished rows are dropped below this share of unfinished ones: it copies memory


@dataclass
class Decoding:
    """The state of rows while their answers are generated.

    Attributes:
      prompt: one per row.
      memory: [N, 2, B, h, places, k] with room for all answers.
      filled: number of positions of the memory that are filled.
      state: [B, d] last hidden states.
      visible: [B, filled] bool, False at padding in the memory.
      position: [B] position ids of the last tokens.
    """

    prompt: Prompt
    memory: Tensor
    filled: int
    state: Tensor
    visible: Tensor
    position: Tensor

    def only(self, index: Tensor) -> None:
        """Drop all rows except those of `index`."""
        self.prompt, self.memory = self.prompt.rows(index), self.memory[:, :, index]
        self.visible, self.position = self.visible[index], self.position[index]


def greedy(
    backbone: Backbone,
    hidden: Callable[..., Tensor],
    logits: Callable[[Tensor], Tensor],
    ends: Collection[int],
    rows: Decoding,
    limits: Sequence[int],
) -> list[list[int]]:
    """The token ids of each row's answer: the most likely token at each step, up to an end or the limit.

    Args:
      backbone: the model.
      hidden: one forward pass, (prompt, embeds [B, 1, d], places, memory, at [B]) -> states [B, d].
      logits: states [B, d] -> logits [B, V].
      ends: token ids that end an answer (and are part of it).
      rows: B rows, after the forward pass of everything before the answer.
      limits: maximum number of tokens of each row, >= 1.
    """
    answers: list[list[int]] = [[] for _ in limits]
    active, unfinished = list(range(len(limits))), set(range(len(limits)))
    while True:
        tokens = logits(rows.state).argmax(-1)
        for row, token in zip(active, tokens.tolist(), strict=True):
            if row in unfinished:
                answers[row].append(token)
                if token in ends or len(answers[row]) == limits[row]:
                    unfinished.remove(row)
        if not unfinished:
            return answers
        if len(unfinished) < MOSTLY_DONE * len(active):
            index = torch.tensor([i for i, row in enumerate(active) if row in unfinished]).to(tokens.device)
            rows.only(index)
            tokens, active = tokens[index], [row for row in active if row in unfinished]
        rows.filled += 1
        rows.position = (rows.position + 1).clamp(max=backbone.max_positions - 1)  # for finished rows
        rows.visible = torch.cat([rows.visible, rows.visible.new_ones(len(active), 1)], 1)
        places = Places(rows.visible[:, -1:], rows.position[:, None], rows.visible[:, None])
        words, at = backbone.embedding[tokens][:, None], torch.arange(len(active), device=tokens.device)
        rows.state = hidden(rows.prompt, words, places, [rows.memory[..., : rows.filled, :]], at)
