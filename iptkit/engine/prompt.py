"""Prompts as the engine takes them, and the base class of everything that makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

SHAPES = (3, 5, 6)  # dimensions of prompts at the input, of adapters, and of deep prompts


@dataclass(frozen=True)
class Prompt:
    """One prompt per row: what a source hands to the engine.

    Attributes:
      embeds: [B, n, d] vectors in the space of the model's input embeddings, or None.
      keys_values: [B, S, 2, h, n, k] a deep prompt at S attentions (see deep.py), or None.
      head: [B, C, d + 1] weights and, last, biases of a classifier (see heads.py), or None.
      lengths: [B] how many of the n of a deep prompt count, or None for all.
      adapters: [B, N, 2, d, r] behind the blocks of the model (see adapters.py), or None.
    """

    embeds: Tensor | None = None
    keys_values: Tensor | None = None
    head: Tensor | None = None
    lengths: Tensor | None = None
    adapters: Tensor | None = None

    def __post_init__(self) -> None:
        if self.adapters is not None and (self.embeds is not None or self.keys_values is not None):
            raise ValueError("a Prompt has adapters beside vectors or keys and values; give one of them")

    @property
    def length(self) -> int:
        """Positions that the prompt takes in a row; a deep prompt and adapters take none."""
        return 0 if self.embeds is None else self.embeds.shape[1]

    @property
    def reaches_text(self) -> bool:
        """Does every token depend on it, wherever it stands?"""
        return self.keys_values is not None or self.adapters is not None

    @property
    def count(self) -> int:
        """B, how many prompts there are."""
        return next(len(t) for t in self._parts() if t is not None)

    @property
    def are_finite(self) -> Tensor:
        """[B] Are all numbers of each prompt finite?"""
        parts = [t for t in self._parts() if t is not None and t.dim() > 1]
        return torch.stack([t.isfinite().flatten(1).all(1) for t in parts]).all(0)

    def rows(self, index: Tensor) -> Prompt:
        """The prompts of rows `index` [B']."""
        return self._each(lambda t: t.index_select(0, index))

    def detached(self) -> Prompt:
        """The same numbers, cut off from what made them; they collect gradients where that trains."""
        return self._each(lambda t: t.detach().requires_grad_(t.requires_grad))

    def backward(self, leaf: Prompt) -> None:
        """Send the gradients that `leaf` (from `detached`) has collected into what made the prompts."""
        pairs = [(mine, theirs) for mine, theirs in zip(self._parts(), leaf._parts(), strict=True)]
        pairs = [(m, t.grad) for m, t in pairs if t is not None and t.grad is not None]
        torch.autograd.backward([m for m, _ in pairs], [grad for _, grad in pairs])

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.embeds, self.keys_values, self.head, self.lengths, self.adapters

    def _each(self, change: Callable[[Tensor], Tensor]) -> Prompt:
        return Prompt(*(None if t is None else change(t) for t in self._parts()))


def as_prompt(numbers: Tensor) -> Prompt:
    """[B, n, d] as vectors at the input, [B, S, 2, h, n, k] as a deep prompt, [B, N, 2, d, r] as adapters."""
    if numbers.dim() == 3:
        return Prompt(numbers)
    return Prompt(adapters=numbers) if numbers.dim() == 5 else Prompt(keys_values=numbers)


def check_numbers(numbers: Tensor, name: str) -> None:
    """Raise ValueError unless `numbers` are prompts in one of the shapes of `as_prompt`."""
    if numbers.dim() not in SHAPES or (numbers.dim() == 5 and numbers.shape[2] != 2):
        raise ValueError(
            f"{name} has shape {tuple(numbers.shape)}; give [runs, prompt_length, width], e.g. "
            f"{name}.expand(runs, -1, -1), a deep prompt's [runs, sites, 2, heads, prompt_length, "
            "head_width], or adapters' [runs, places, 2, width, rank]"
        )


class PromptSource(nn.Module):
    """A trainable method: a module that makes one prompt per row, and whose parameters are all that trains.

    A *run* is one training: a task, a seed, a learning rate. A subclass defines `forward`; `fit`,
    `evaluate` and the engines need nothing else of it.

    Attributes:
      per_run: True where every trainable tensor is [R, ...], one row per run. Rows of many runs then mix in
        one batch and train as if each had been alone, and each run keeps its own best state. False where all
        runs share the parameters (the auto-encoder of MSF).
      task_weight: of the mean task loss in the objective of a source that all runs share; 0 trains it by
        `penalty` alone.
      about: what its prompts were made for (see compatibility.made_for); an engine with another model is
        refused before anything runs.
      sites: the attentions that its deep prompts go to, () for other prompts.

    Example:
      >>> class OneVector(PromptSource):
      ...     def __init__(self, runs, width):
      ...         super().__init__()
      ...         self.v = nn.Parameter(torch.zeros(runs, 1, width))
      ...
      ...     def forward(self, runs):
      ...         return Prompt(self.v.index_select(0, runs))
      >>> OneVector(2, 8)(torch.tensor([1, 1, 0])).embeds.shape
      torch.Size([3, 1, 8])
    """

    per_run: ClassVar[bool] = True
    task_weight: float = 1.0
    about: dict[str, Any] = {}  # noqa: RUF012 - read only; a source that knows more gets its own
    sites: Sequence[Any] = ()

    def forward(self, runs: Tensor) -> Prompt:
        """Make one prompt per row.

        Args:
          runs: [B] the run of each row, 0 to R - 1.
        Returns: B prompts.
        """
        raise NotImplementedError(f"{type(self).__name__} needs forward(runs) -> Prompt")

    def penalty(self) -> Tensor | None:
        """What a source that all runs share adds to the objective, or None."""
        return None
