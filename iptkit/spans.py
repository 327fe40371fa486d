"""Answers that are a span of a passage: a score to start and one to end at each of its tokens.

P-Tuning v2 (Liu et al. 2022, arXiv 2110.07602), section 3.3; BERT (Devlin et al. 2019, 1810.04805), 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MOST_TOKENS = 30  # the longest answer that is looked for (BERT's SQuAD script: max_answer_length)


def best_span(passage: str, offsets: Sequence[tuple[int, int]], logits: Tensor) -> str:
    """The text from the start to the end that together are likeliest, the end at or behind the start.

    Args:
      offsets: P pairs, where each token begins and ends in the passage.
      logits: [P, 2] scores to start and to end there.
    """
    start, end = logits[:, 0], logits[:, 1]  # [P] each
    both = start[:, None] + end[None, :]
    order = torch.arange(len(start), device=both.device)
    far = order[None, :] - order[:, None]
    best = int(both.masked_fill((far < 0) | (far >= MOST_TOKENS), -torch.inf).argmax())
    first, last = divmod(best, len(start))
    return passage[offsets[first][0] : offsets[last][1]].strip()  # a token may begin with its blank


def over_positions(logits: Tensor, row_of: Tensor, count: int) -> Tensor:
    """[M, 2] log-probabilities of starting and ending at each position, over the positions of its row.

    Args:
      logits: [M, 2 or more] scores at all positions of all rows.
      row_of: [M] row of each position.
      count: number of rows.
    """
    peak = logits.detach().new_full((count, 2), -torch.inf)
    peak = peak.scatter_reduce(0, row_of[:, None].expand(-1, 2), logits[:, :2].detach(), "amax")
    shifted = logits[:, :2] - peak[row_of]
    total = shifted.new_zeros(count, 2).index_add(0, row_of, shifted.exp())
    return shifted - total.log()[row_of]
