"""Parts of messages: text that is safe to print, the system's words, long lists cut short; warnings."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

NUM_SHOWN = 20  # problems listed in one error
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Note(UserWarning):
    """An ordinary fact, such as which columns of a file were read; commands show it as a note."""


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn, naming the line outside the kit that led here.

    Args:
      text: the warning.
      category: its class.
    """
    kit, level, frame = __name__.partition(".")[0], 1, sys._getframe().f_back
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == kit:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level + 1)


def visible(text: str) -> str:
    r"""The text with every character that could steer a terminal written as its escape.

    These are control characters other than line feed and tab, marks that change the direction of writing, and
    unpaired surrogates, which cannot be printed.

    >>> print(visible("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return STEERING.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def reason(error: OSError) -> str:
    """The operating system's own words for an error."""
    return error.strerror or str(error) or type(error).__name__


def refuse(path: str | Path, problems: Sequence[str]) -> None:
    """Raise ValueError if a file has problems, with the first 20 of them and their number."""
    if problems:
        shown = "\n".join(first(problems))
        raise ValueError(f"{path} has {len(problems)} problem(s); nothing was changed:\n{shown}")


def first(problems: Sequence[str]) -> list[str]:
    """The first 20 problems and, if there are more, a line with their number."""
    more = len(problems) - NUM_SHOWN
    return [*problems[:NUM_SHOWN], *([f"... and {more} more"] if more > 0 else [])]
