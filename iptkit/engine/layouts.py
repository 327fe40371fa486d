"""The order of prompt vectors, text and fixed words in a row; the answer always comes last.

Prompt tuning puts all vectors in one place. P-tuning (Liu et al. 2021, arXiv 2103.10385, section 3) puts them
in several places and mixes them with words, called anchors: (3, "{text}", 3, " It is").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TEXT, PROMPT = "{text}", "{prompt}"
PROMPT_ID = -1  # in a list of token ids: the next prompt vector
LAYOUTS = ("text-prompt-answer", "prompt-text-answer")
_NAMED = {LAYOUTS[0]: (TEXT, PROMPT), LAYOUTS[1]: (PROMPT, TEXT)}
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The pieces of a row before its answer.

    Args:
      pieces: numbers of prompt vectors (>= 1), or PROMPT once for all of them; TEXT once; fixed words.

    Raises:
      ValueError: TEXT is missing or occurs twice, there is no place for a prompt, a number is below 1, or
        both numbers and PROMPT occur.

    Example:
      >>> Layout((3, "{text}", 2)).prompt_length
      5
    """

    pieces: tuple[int | str, ...]

    def __post_init__(self) -> None:
        numbers = [p for p in self.pieces if isinstance(p, int)]
        problem = ""
        if self.pieces.count(TEXT) != 1:
            problem = f"it has {self.pieces.count(TEXT)} pieces {TEXT!r}; give one"
        elif self.pieces.count(PROMPT) + bool(numbers) != 1:
            problem = f"give numbers of prompt vectors, or {PROMPT!r} once for all of them"
        elif any(n < 1 for n in numbers):
            problem = "every number of prompt vectors must be at least 1"
        elif "" in self.pieces:
            problem = "one of its pieces is empty; leave it out"
        if problem:
            raise ValueError(f"layout {self.pieces}: {problem}; for example (3, {TEXT!r}, 3, ' It is')")

    @classmethod
    def of(cls, given: str | tuple[int | str, ...]) -> Layout:
        """The layout of a name (one of LAYOUTS) or of pieces.

        Raises: ValueError for an unknown name or unusable pieces.
        """
        if isinstance(given, str):
            if given not in _NAMED:
                raise ValueError(f"layout {given!r} is unknown; choose one of {LAYOUTS} or give its pieces")
            return cls(_NAMED[given])
        return cls(tuple(given))

    @property
    def prompt_length(self) -> int | None:
        """The number n of prompt vectors if the layout fixes it, else None."""
        return sum(p for p in self.pieces if isinstance(p, int)) or None

    def line(self, text: Ids, prompt_length: int, tokens: Callable[[str], Ids]) -> tuple[Ids, Ids]:
        """A row before its answer, in two parts: everything left of the first prompt vector, and the rest.

        In a causal model the keys and values of the first part never change, so they can be cached.

        Args:
          text: token ids of the text.
          prompt_length: n, 0 without a prompt (the first part is then empty).
          tokens: returns the ids of fixed words.
        Raises: ValueError if the layout has places for another number of vectors.
        """
        fixed = self.prompt_length
        if fixed is not None and fixed != prompt_length:
            raise ValueError(
                f"the prompt has {prompt_length} vectors, but the layout {self.pieces} has places for {fixed}"
            )
        whole: list[int] = []
        for piece in self.pieces:
            if isinstance(piece, int) or piece == PROMPT:
                whole += [PROMPT_ID] * (piece if isinstance(piece, int) else prompt_length)
            else:
                whole += text if piece == TEXT else tokens(piece)
        first = whole.index(PROMPT_ID) if prompt_length else 0
        return tuple(whole[:first]), tuple(whole[first:])


def tokens_behind(tokenizer: Any, before: str, text: str) -> Ids:
    """The tokens of a text that continues another one, as in running text.

    A SentencePiece tokenizer puts a blank before every text, so " yes" alone would start with two blanks.

    Args:
      tokenizer: a transformers tokenizer.
      before: the text to continue, "" for none; any word will do if `text` starts with a blank.
      text: the continuation.
    """

    def tokens(part: str) -> Ids:
        return tuple(tokenizer(part, add_special_tokens=False).input_ids)

    if before:
        given, both = tokens(before.rstrip()), tokens(before + text)
        if both[: len(given)] == given:
            return both[len(given) :]
    return tokens(text)
