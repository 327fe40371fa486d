"""What training and scoring need of an engine; `Engine`, `HeadEngine` and `MaskEngine` have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from torch import Tensor

from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import Site
from iptkit.models.backbone import Backbone
from iptkit.tasks.examples import Example


class PromptEngine(Protocol):
    """Scores rows in one frozen model, each row with its own prompt.

    A row is an example as tokens. `target_row` or `option_row` makes it, and the same engine takes it back.

    Attributes:
      backbone: the frozen model.
    """

    backbone: Backbone

    @property
    def sites(self) -> Sequence[Site]:
        """The attentions that deep prompts enter, () without deep prompts."""

    def target_row(self, example: Example, target: int = 0) -> Any:
        """The example with one accepted answer (training, loss)."""

    def option_row(self, example: Example) -> Any:
        """The example with all its options (scoring)."""

    def positions(self, example: Example, prompt_length: int, generated: int = 0) -> int:
        """How many positions the example takes in the model."""

    def classes(self, example: Example) -> tuple[str, ...]:
        """Names of the classes that a head chooses among; () where answers are words."""

    def keep_contexts(self, groups: Iterable[Iterable[Example]]) -> None:
        """Read the texts of these examples once and keep what they give."""

    def check_room(self, prompt_length: int) -> None:
        """Raise ValueError if the layout has places for another number of prompt vectors."""

    def batches(self, rows: Sequence[Any], prompt_length: int) -> list[list[int]]:
        """Index lists that cut the rows into batches of similar rows."""

    def log_likelihoods(self, prompt: Prompt, rows: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """[B, K] log-likelihoods of every answer of every row, and [B, K] their numbers of tokens."""

    def greedy(self, prompt: Prompt, rows: Sequence[Any], max_tokens: Sequence[int]) -> list[str]:
        """The likeliest answer of every row, as text."""
