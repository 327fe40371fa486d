"""Readers of question records, {"input": ..., "target" or "target_scores": ...}, as BIG-bench has them.

Each function here makes a reader: it takes the parsed file and yields rows. `pattern` takes the input apart
into the slots of a card's template; inputs that it does not match are left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

Reader = Callable[[dict], Iterator[dict]]
WHOLE = r"(?P<text>.+)"


def labels(pattern: str = WHOLE, names: dict[str, str] | None = None) -> Reader:
    """Read a classification; names: the file's labels and those of the card (None: lower case, no dots).

    Records whose best label is not alone, or is not in `names`, are left out.
    """

    def read(data: dict) -> Iterator[dict]:
        for record, slots in _matching(data, pattern):
            best = best_of(record)
            label = _plain(best[0]) if names is None else names.get(best[0])
            if len(best) == 1 and label:
                yield {**slots, "target": label}

    return read


def choices(pattern: str = WHOLE) -> Reader:
    """Read multiple choice; options are put in a random order that the text decides (many files have the
    right one first), without a closing dot and without those that differ in case only.
    """

    def read(data: dict) -> Iterator[dict]:
        for record, slots in _matching(data, pattern):
            yield from choice(
                slots, list(map(clean, record["target_scores"])), list(map(clean, best_of(record)))
            )

    return read


def answers(pattern: str = WHOLE, is_sentence: bool = False) -> Reader:
    """Read free answers; the dot at the end is cut unless the answers are sentences."""

    def read(data: dict) -> Iterator[dict]:
        for record, slots in _matching(data, pattern):
            targets = [
                target.strip() if is_sentence else clean(target) for target in listed(record["target"])
            ]
            if all(targets):
                yield {**slots, "targets": targets}

    return read


def choice(slots: dict, options: list[str], targets: list[str]) -> Iterator[dict]:
    """Yield one row of multiple choice, or none if two options look the same or all of them are right."""
    if len({option.casefold() for option in options}) == len(options) > len(targets):
        random.Random("/".join([*slots.values(), *sorted(options)])).shuffle(options)
        yield {**slots, "options": options, "targets": targets}


def best_of(record: dict) -> list[str]:
    """Return the options of the highest score."""
    scores = record["target_scores"]
    return [option for option, score in scores.items() if score == max(scores.values())]


def listed(target: str | list[str]) -> list[str]:
    """Return the targets of a record that has one or several."""
    return [target] if isinstance(target, str) else list(target)


def clean(text: str) -> str:
    """Join the blanks of a text and cut the dot at its end, unless it belongs to U.S. or to an ellipsis."""
    text = " ".join(text.split())
    return text if re.search(r"\.\w?\.$", text) else text.removesuffix(".").rstrip()


def _matching(data: dict, pattern: str) -> Iterator[tuple[dict, dict]]:
    for record in data["examples"]:
        found = re.fullmatch(pattern, record["input"].strip(), flags=re.DOTALL)
        if found:
            yield record, {name: _joined(text) for name, text in found.groupdict().items()}


def _joined(text: str) -> str:
    """Join the blanks of a text and cut a dot after another mark; some files set one after all texts."""
    return re.sub(r"(?<=[!?])\.$", "", " ".join(text.split()))


def _plain(label: str) -> str:
    return clean(label).lower().replace("_", " ")
