"""What training and scoring need from an engine: the base class of all engines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from torch import Tensor

from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import Site
from iptkit.models.backbone import Backbone
from iptkit.tasks.examples import Example


class PromptEngine(Protocol):
    """Scores rows in one frozen model, each row with its own prompt.

    A row is an example as token ids; `target_row` and `option_row` make it, for the same engine only. Any
    class with these attributes and methods is such an engine. `Engine`, `HeadEngine` and `MaskEngine` inherit
    from it, so that a type checker, and Python, report a missing method.

    Attributes:
      backbone: the frozen model.
      sites: the attentions that deep prompts go to, empty without deep prompts.
      layout: the order of prompt, text and fixed words in a row (see layouts.py); None for a head's rows.
    """

    backbone: Backbone
    sites: Sequence[Site]
    layout: str | tuple[int | str, ...] | None = None

    @abstractmethod
    def target_row(self, example: Example, target: int = 0) -> Any:
        """The example with one accepted answer (for training, and the loss).

        Args:
          example: the example.
          target: index of the answer in its targets.
        """

    @abstractmethod
    def option_row(self, example: Example) -> Any:
        """The example with all its options (for scoring)."""

    @abstractmethod
    def positions(self, example: Example, prompt_length: int, generated: int = 0) -> int:
        """The number of positions that the example takes in the model.

        Args:
          example: the example.
          prompt_length: n, positions of the prompt.
          generated: number of tokens that may be generated for it.
        """

    @abstractmethod
    def classes(self, example: Example) -> tuple[str, ...]:
        """Names of the classes that a head chooses from; () if answers are words."""

    @abstractmethod
    def keep_contexts(self, groups: Iterable[Iterable[Example]]) -> None:
        """Read the texts of these examples once, and cache their keys and values."""

    @abstractmethod
    def check_room(self, prompt_length: int) -> None:
        """Raise ValueError if a prompt of this length has no place in a row."""

    @abstractmethod
    def batches(self, rows: Sequence[Any], prompt_length: int) -> list[list[int]]:
        """Batches of similar rows, as lists of indices.

        Args:
          rows: the rows.
          prompt_length: n, positions of the prompt.
        """

    @abstractmethod
    def log_likelihoods(self, prompt: Prompt, rows: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """[B, K] log-likelihood of every answer of every row, and [B, K] its number of tokens or labels.

        Args:
          prompt: one per row.
          rows: B rows.
        """

    @abstractmethod
    def greedy(self, prompt: Prompt, rows: Sequence[Any], max_tokens: Sequence[int]) -> list[str]:
        """The most likely answer of every row, as text.

        Args:
          prompt: one per row.
          rows: B rows.
          max_tokens: limit of each row, >= 1.
        """
