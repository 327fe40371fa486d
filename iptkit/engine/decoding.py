"""Answers of many rows at once, token by token: the likeliest tokens, or tokens drawn at random.

`decode` is the loop. It gets the rows as a `Decoding`, which runs the model (`CausalDecoding`, and
seq2seq.Seq2SeqDecoding), and a function that chooses the next tokens: `likeliest` or a `Sampler`.
"""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from iptkit.engine.prompt import Prompt
from iptkit.engine.rows import Places
from iptkit.models.backbone import Backbone
from iptkit.models.devices import to_device

MOSTLY_DONE = 0.7  # finished rows are dropped below this share of unfinished ones: it copies memory
Choose = Callable[[Tensor, Sequence[int], int], Tensor]  # logits [b, V], their rows, step -> tokens [b]


class Decoding(Protocol):
    """Rows whose answers are being generated."""

    def logits(self) -> Tensor:
        """[B, V] logits of the next token of each row."""

    def advance(self, tokens: Tensor) -> None:
        """Append a token to each row, `tokens` [B], and run it through the model."""

    def only(self, index: Tensor) -> None:
        """Drop all rows except those of `index` [B']."""


@dataclass
class CausalDecoding:
    """Rows of a causal model, after the forward pass of everything before the answer.

    Attributes:
      backbone: the model.
      hidden: one forward pass, (prompt, embeds [B, 1, d], places, memory, at [B]) -> states [B, d].
      head: states [B, d] -> logits [B, V].
      prompt: one per row.
      memory: [N, 2, B, h, places, k] with room for all answers.
      filled: number of positions of the memory that are filled.
      state: [B, d] last hidden states.
      visible: [B, filled] bool, False at padding in the memory.
      position: [B] position ids of the last tokens.
    """

    backbone: Backbone
    hidden: Callable[..., Tensor]
    head: Callable[[Tensor], Tensor]
    prompt: Prompt
    memory: Tensor
    filled: int
    state: Tensor
    visible: Tensor
    position: Tensor

    def logits(self) -> Tensor:
        """[B, V] logits of the next token of each row."""
        return self.head(self.state)

    def only(self, index: Tensor) -> None:
        """Drop all rows except those of `index` [B']; `advance` must follow."""
        self.prompt, self.memory = self.prompt.rows(index), self.memory[:, :, index]
        self.visible, self.position = self.visible[index], self.position[index]

    def advance(self, tokens: Tensor) -> None:
        """Append a token to each row, `tokens` [B], and run it through the model."""
        self.filled += 1
        self.position = (self.position + 1).clamp(max=self.backbone.max_positions - 1)  # for finished rows
        self.visible = torch.cat([self.visible, self.visible.new_ones(len(tokens), 1)], 1)
        places = Places(self.visible[:, -1:], self.position[:, None], self.visible[:, None])
        words, at = self.backbone.embedding[tokens][:, None], torch.arange(len(tokens), device=tokens.device)
        self.state = self.hidden(self.prompt, words, places, [self.memory[..., : self.filled, :]], at)


def decode(
    rows: Decoding, limits: Sequence[int], choose: Choose, is_done: Callable[[list[int]], bool]
) -> list[list[int]]:
    """The token ids of each row's answer, up to the row's limit or until it is done.

    Args:
      rows: B rows.
      limits: maximum number of tokens of each row, >= 1.
      choose: the next tokens [b] of logits [b, V], the indices of their b rows, and the step from 0.
      is_done: True if an answer, as ids so far, ends with its last token.
    """
    answers: list[list[int]] = [[] for _ in limits]
    active, unfinished = list(range(len(limits))), set(range(len(limits)))
    for step in itertools.count():
        tokens = choose(rows.logits(), active, step)
        for row, token in zip(active, tokens.tolist(), strict=True):
            if row in unfinished:
                answers[row].append(token)
                if len(answers[row]) == limits[row] or is_done(answers[row]):
                    unfinished.remove(row)
        if not unfinished:
            break
        if len(unfinished) < MOSTLY_DONE * len(active):
            index = torch.tensor([i for i, row in enumerate(active) if row in unfinished]).to(tokens.device)
            rows.only(index)
            tokens, active = tokens[index], [row for row in active if row in unfinished]
        rows.advance(tokens)
    return answers


# ---- which token comes next ----------------------------------------------------------------------
def likeliest(logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
    """[b] the most likely token of each row; see `Choose`."""
    return logits.argmax(-1)


def probabilities(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """[b, V] probabilities from which tokens are drawn, in float64.

    Args:
      logits: [b, V].
      temperature: > 0; the logits are divided by it.
      top_p: in (0, 1]; only the most likely tokens stay, as few as have this probability together (nucleus
        sampling; Holtzman et al. 2020, arXiv 1904.09751).

    Example:
      >>> probabilities(torch.tensor([[0.6, 0.1, 0.3]]).log(), 1.0, 0.8).round(decimals=3)
      tensor([[0.6670, 0.0000, 0.3330]], dtype=torch.float64)
    """
    logits = logits.double()
    found = ((logits - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)
    if top_p == 1:
        return found
    falling, order = found.sort(dim=-1, descending=True, stable=True)
    before = falling.cumsum(-1) - falling  # the probability of all tokens that are more likely
    kept = torch.zeros_like(found).scatter(-1, order, falling * (before < top_p))
    return kept / kept.sum(-1, keepdim=True)


@dataclass(frozen=True)
class SampleConfig:
    """The settings of a generation; see `Engine.generate`.

    Raises: ValueError for something else than a number, one out of its range, or one that would have no
      effect.
    """

    max_new_tokens: int = 32
    do_sample: bool = False
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.max_new_tokens, numbers.Integral) or self.max_new_tokens < 1:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens!r}; it must be at least 1, and a whole number"
            )
        for name in ("temperature", "top_p"):
            if not isinstance(getattr(self, name), numbers.Real):
                raise ValueError(f"{name} is {getattr(self, name)!r}; give a number")
        if not (0 < self.temperature < math.inf and 0 < self.top_p <= 1):
            raise ValueError(
                f"temperature is {self.temperature} and top_p {self.top_p}; give a finite temperature > 0 "
                "and 0 < top_p <= 1"
            )
        if not self.do_sample and (self.temperature, self.top_p) != (1, 1):
            raise ValueError(
                f"temperature={self.temperature} and top_p={self.top_p} have no effect on the likeliest "
                "tokens; leave them out, or give do_sample=True and a generator"
            )

    def numbers(self, count: int, generator: torch.Generator | None) -> Tensor | None:
        """[count, max_new_tokens] random numbers in [0, 1), float64 on a CPU; None if no tokens are drawn.

        All are drawn at once, so they do not depend on the order in which texts are read.

        Args:
          count: number of texts.
          generator: draws them.
        Raises: ValueError if a generator is missing or would not be used.
        """
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ValueError(
                f"generator is {generator!r}; give a torch.Generator: torch.Generator().manual_seed(0)"
            )
        if (generator is not None) != self.do_sample:
            raise ValueError(
                f"do_sample={self.do_sample} and generator={generator}: give both or neither; to draw tokens "
                "in a way that can be repeated: do_sample=True, generator=torch.Generator().manual_seed(0)"
            )
        if generator is None:
            return None
        size = (count, self.max_new_tokens)
        return torch.rand(size, generator=generator, dtype=torch.float64, device=generator.device).cpu()


@dataclass(frozen=True)
class Sampler:
    """Draws tokens by given random numbers, so that a row's text does not depend on the rows beside it.

    The token of a row at a step is the first one, in the order of the vocabulary, at which the sum of the
    probabilities is above the row's random number of that step.

    Attributes:
      uniform: [B, T] float64 in [0, 1), for each row and step, on a CPU.
      temperature: see `probabilities`.
      top_p: see `probabilities`.
    """

    uniform: Tensor
    temperature: float
    top_p: float

    def __call__(self, logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        """[b] tokens; see `Choose`."""
        sums = probabilities(logits, self.temperature, self.top_p).cumsum(-1)
        total = sums[:, -1:]
        drawn = to_device(self.uniform[list(rows), step], logits.device)[:, None] * total
        below = torch.nextafter(total, torch.zeros_like(total))  # rounding must not reach the total
        return torch.searchsorted(sums, torch.minimum(drawn, below), right=True)[:, 0]


# ---- where an answer ends ------------------------------------------------------------------------
@dataclass(frozen=True)
class Ending:
    """Where an answer ends: at an end token, or before a string.

    Attributes:
      tokenizer: decodes the answer; its special tokens are left out.
      ends: ids of end tokens.
      stop: strings, none of them empty.
    """

    tokenizer: Any
    ends: Collection[int]
    stop: Sequence[str] = ()

    @classmethod
    def before(cls, backbone: Backbone, stop: str | Sequence[str]) -> Ending:
        """The end of a model's answers: its end token, or one string or several.

        Decoded answers have no special tokens, so a string that names one becomes an end token.

        Args:
          backbone: the model.
          stop: a string, or several, or () for none.
        Raises: ValueError for an empty string, or something else than a string.
        """
        stop = (stop,) if isinstance(stop, str) or not isinstance(stop, Iterable) else tuple(stop)
        if not all(isinstance(one, str) and one for one in stop):
            raise ValueError(f"stop is {stop!r}; give strings that are not empty, or () for none")
        tokenizer = backbone.tokenizer
        special = [one for one in stop if one in tokenizer.all_special_tokens]
        return cls(tokenizer, {backbone.eos, *tokenizer.convert_tokens_to_ids(special)}, stop)

    def is_done(self, ids: list[int]) -> bool:
        """True if the last token of an answer, as ids so far, ends it."""
        if ids[-1] in self.ends:
            return True
        text = self._decoded(ids) if self.stop else ""
        return any(stop in text for stop in self.stop)

    def text(self, ids: list[int]) -> str:
        """The text of an answer before the first of the strings."""
        text = self._decoded(ids)
        return text[: min((at for stop in self.stop if (at := text.find(stop)) >= 0), default=len(text))]

    def _decoded(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)
