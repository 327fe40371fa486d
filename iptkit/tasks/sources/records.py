"""Readers of BIG-bench's records, {"input": ..., "target" or "target_scores": ...}.

A reader takes the parsed file and yields rows; `labels`, `choices` and `answers` return one. Their `pattern`
splits an input into the slots of a card's template, and inputs that do not match it are left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

Reader = Callable[[dict], Iterator[dict]]
WHOLE = r"(?P<text>.+)"


def labels(pattern: str = WHOLE, names: dict[str, str] | None = None) -> Reader:
    """Return a reader of a classification.

    Records with several best labels, or with a label that is not in `names`, are left out.

    Args:
      pattern: see the module's docstring.
      names: the file's labels -> those of the card; None for lower case without dots.
    """

    def read(data: dict) -> Iterator[dict]:
        for record, slots in _matching(data, pattern):
            best = best_of(record)
            label = _plain(best[0]) if names is None else names.get(best[0])
            if len(best) == 1 and label:
                yield {**slots, "target": label}

    return read


def choices(pattern: str = WHOLE) -> Reader:
    """Return a reader of multiple choice, which shuffles the options and removes the dots at their ends.

    Many files list the right option first. The order depends only on the text. Records with options that
    differ only in case are left out.
    """

    def read(data: dict) -> Iterator[dict]:
        for record, slots in _matching(data, pattern):
            yield from choice(
                slots, list(map(clean, record["target_scores"])), list(map(clean, best_of(record)))
            )

    return read


def answers(pattern: str = WHOLE, is_sentence: bool = False) -> Reader:
    """Return a reader of free answers, which removes the dots at their ends unless they are sentences."""

    def read(data: dict) -> Iterator[dict]:
        for record, slots in _matching(data, pattern):
            targets = [
                target.strip() if is_sentence else clean(target) for target in listed(record["target"])
            ]
            if all(targets):
                yield {**slots, "targets": targets}

    return read


def choice(slots: dict, options: list[str], targets: list[str]) -> Iterator[dict]:
    """Yield a row of multiple choice, unless two options look the same or all of them are right."""
    if len({option.casefold() for option in options}) == len(options) > len(targets):
        random.Random("/".join([*slots.values(), *sorted(options)])).shuffle(options)
        yield {**slots, "options": options, "targets": targets}


def best_of(record: dict) -> list[str]:
    """Return the options with the highest score."""
    scores = record["target_scores"]
    return [option for option, score in scores.items() if score == max(scores.values())]


def listed(target: str | list[str]) -> list[str]:
    """Return the targets of a record with one or several as a list."""
    return [target] if isinstance(target, str) else list(target)


def clean(text: str) -> str:
    """Return the text with single blanks and without a final dot, except for "U.S." and ellipses."""
    text = " ".join(text.split())
    return text if re.search(r"\.\w?\.$", text) else text.removesuffix(".").rstrip()


def _matching(data: dict, pattern: str) -> Iterator[tuple[dict, dict]]:
    for record in data["examples"]:
        found = re.fullmatch(pattern, record["input"].strip(), flags=re.DOTALL)
        if found:
            yield record, {name: _single_blanks(text) for name, text in found.groupdict().items()}


def _single_blanks(text: str) -> str:
    """Return the text with single blanks and without a dot after another mark, which some files add."""
    return re.sub(r"(?<=[!?])\.$", "", " ".join(text.split()))


def _plain(label: str) -> str:
    return clean(label).lower().replace("_", " ")
