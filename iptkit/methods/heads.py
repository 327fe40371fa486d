"""Heads: a linear classifier per run beside its prompt, for encoders (P-Tuning v2, section 3.3).

What they score is the encoder's business (encoders.py); these are the sources that train them.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor, nn

from iptkit.engine.prompt import Prompt, PromptSource


class WithHead(PromptSource):
    """A prompt source with a linear head per run.

    Args:
      runs: R.
      width: d of the encoder.
      num_classes: C, the most that any run needs (2 for spans: start and end).
      generator: draws the first weights, U(-1, 1) / sqrt(d); every run begins with the same.
      prompt: a source with R rows, or None for a linear probe.
    """

    def __init__(
        self,
        runs: int,
        width: int,
        num_classes: int,
        generator: torch.Generator,
        prompt: nn.Module | None = None,
    ):
        super().__init__()
        shape, device = (num_classes, width + 1), generator.device
        drawn = (torch.rand(shape, generator=generator, device=device) * 2 - 1) * width**-0.5
        if prompt is not None:
            device = next(itertools.chain(prompt.parameters(), prompt.buffers()), drawn).device
        self.head = nn.Parameter(drawn.to(device).expand(runs, -1, -1).clone())
        self.prompt = prompt

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> Prompt with head [B, C, d + 1] and what the inner source makes."""
        made = Prompt() if self.prompt is None else self.prompt(runs)
        return replace(made, head=self.head.index_select(0, runs))


class FixedHead(PromptSource):
    """Given heads [R, C, d + 1] that nothing trains, without a prompt."""

    def __init__(self, head: Tensor):
        super().__init__()
        self.register_buffer("head", head.detach().clone())

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> Prompt with head [B, C, d + 1]."""
        return Prompt(head=self.head.index_select(0, runs))


class SharedPrompt(PromptSource):
    """One deep prompt for all runs, a head for each: multi-task P-Tuning v2 (MPT-2; paper, section 3.3).

    The authors never released their code. By their account every batch comes from one data set in turn; here
    every step takes rows of all data sets and the mean of their losses, which is the same in the mean.
    Afterwards each data set trains on from the shared prompt (`WithHead` with a copy of it).

    Args:
      prompt: a source of one row.
      runs, width, num_classes, generator: of the heads, see WithHead.
    Raises: ValueError if `prompt` has another number of rows than one.
    """

    per_run = False

    def __init__(
        self, prompt: nn.Module, runs: int, width: int, num_classes: int, generator: torch.Generator
    ):
        super().__init__()
        rows = {len(p) for p in prompt.parameters()}
        if rows != {1}:
            raise ValueError(f"a shared prompt has one row, this one has {sorted(rows)}")
        self.inner = WithHead(runs, width, num_classes, generator).to(next(prompt.parameters()).device)
        self.prompt = prompt

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> the same prompt and the run's own head for each row."""
        made = self.prompt(torch.zeros_like(runs))
        return replace(made, head=self.inner(runs).head)
