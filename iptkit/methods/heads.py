"""Heads: a linear classifier per run on top of an encoder, beside its prompt.

P-Tuning v2 (Liu et al. 2022, arXiv 2110.07602, section 3.3) has such heads instead of label words:

    logits [C] = W h + b          h [d] a hidden state of the encoder, W [C, d], b [C]; head = [W, b]

Which hidden states a head reads (a sentence's first token, every word, every token) is decided in
engine/head_engine.py; this module has the prompt sources that train heads.
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
      num_classes: C, the largest number of classes of any run (2 for spans: start and end).
      generator: draws the start of the heads from U(-1, 1) / sqrt(d), the same for every run.
      prompt: a prompt source with R rows, or None for a linear probe.

    Example:
      >>> WithHead(2, 8, 3, torch.Generator())(torch.tensor([1, 0, 0])).head.shape
      torch.Size([3, 3, 9])
    """

    def __init__(
        self,
        runs: int,
        width: int,
        num_classes: int,
        generator: torch.Generator,
        prompt: PromptSource | None = None,
    ):
        super().__init__()
        shape, device = (num_classes, width + 1), generator.device
        drawn = (torch.rand(shape, generator=generator, device=device) * 2 - 1) * width**-0.5
        if prompt is not None:
            device = next(itertools.chain(prompt.parameters(), prompt.buffers()), drawn).device
        self.head = nn.Parameter(drawn.to(device).expand(runs, -1, -1).clone())
        self.prompt = prompt

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> Prompt with head [B, C, d + 1], and the prompt of the inner source."""
        made = Prompt() if self.prompt is None else self.prompt(runs)
        return replace(made, head=self.head.index_select(0, runs))


class FixedHead(PromptSource):
    """Given heads [R, C, d + 1] that nothing trains, without a prompt."""

    head: Tensor

    def __init__(self, head: Tensor):
        super().__init__()
        self.register_buffer("head", head.detach().clone())

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> Prompt with head [B, C, d + 1]."""
        return Prompt(head=self.head.index_select(0, runs))


class SharedPrompt(PromptSource):
    """One prompt for all runs and a head for each: multi-task P-Tuning v2 (MPT-2, section 3.3).

    The authors did not release their code. In their description the data sets take turns, one batch each;
    here every step takes rows of all data sets and the mean of their losses, which has the same expectation.
    Each data set then continues alone from the shared prompt (`WithHead` with a copy of it).

    Args:
      prompt: a prompt source that trains, with one row.
      runs: R, the number of heads.
      width: d of the encoder.
      num_classes: C, see WithHead.
      generator: draws the start of the heads, see WithHead.
    Raises: ValueError if `prompt` has no parameters, or another number of rows than one.
    """

    per_run = False

    def __init__(
        self, prompt: PromptSource, runs: int, width: int, num_classes: int, generator: torch.Generator
    ):
        super().__init__()
        rows = {len(p) for p in prompt.parameters()}
        if rows != {1}:
            found = ", ".join(map(str, sorted(rows))) or "no"
            raise ValueError(f"a shared prompt trains and has one row; this one has {found} trained rows")
        self.inner = WithHead(runs, width, num_classes, generator).to(next(prompt.parameters()).device)
        self.prompt = prompt

    @property
    def num_runs(self) -> int:
        """R, the number of heads."""
        return len(self.inner.head)

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> Prompt with the shared prompt and the head of its run in every row."""
        made = self.prompt(torch.zeros_like(runs))
        return replace(made, head=self.inner(runs).head)
