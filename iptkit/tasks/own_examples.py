"""Checks the rows of a user's task and compares them: fields, duplicates, options, tags."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import replace

from iptkit.storage import messages
from iptkit.tasks import fields, schemes, sidecars
from iptkit.tasks.columns import Columns
from iptkit.tasks.examples import Example, tag_problem, words_of
from iptkit.tasks.fewshot import text_key
from iptkit.tasks.own_rows import Caution, Place, Problems, Row, Rows
from iptkit.tasks.sidecars import Sidecar

OPTION = "--drop-duplicates (drop_duplicates=True in Python, or true on the card)"
Examples = dict[Place, Example]


def checked(
    sets: Mapping[str, Rows], own: Sidecar, found: Columns | None
) -> tuple[dict[str, Examples], Problems]:
    """Return the examples of the rows without problems, and the problems of the others."""
    limits = own.max_input, math.inf if own.is_tag else own.max_target  # there are as many tags as words
    made: dict[str, Examples] = {}
    problems: Problems = []
    for name, rows in sets.items():
        made[name] = {}
        for place, row in rows.items():
            wrong = _bare(row, found) or fields.check(row, *limits)
            if not wrong:
                made[name][place] = fields.example_of(row)
            problems += [(place, what) for what in wrong]
    return made, problems


def _bare(row: Row, found: Columns | None) -> list[str]:
    """Return the problem of a row without a label, if its columns were given or found by name."""
    if found is None or {"target", "targets"} & {*row}:
        return []
    return [f"{' and '.join(found.of['target'])} is empty; write the answer, or remove the line"]


def last_first(sets: Mapping[str, Examples]) -> dict[str, Examples]:
    """Return the sets with the test set first: what it holds is a duplicate in the others."""
    return {name: sets[name] for name in reversed([*sets])}


def duplicates(examples: Examples, drop: bool, is_allowed: bool) -> tuple[set[Place], Problems, list[str]]:
    """Return the places of duplicates to leave out, or their problems, and notes.

    Args:
      examples: of all sets, those that keep an input first.
      drop: whether to leave duplicates out.
      is_allowed: duplicates are no problem (short sentences recur).
    """
    firsts: dict[str, Place] = {}
    twice = {p: first for p, e in examples.items() if (first := firsts.setdefault(e.input, p)) != p}
    if not twice:
        return set(), [], []
    if is_allowed and not drop:
        shared = [(p, first) for p, first in twice.items() if p.path != first.path]
        note = (
            f"{len(shared)} input(s) are in two sets (first: {shared[0][0]}, from {shared[0][1]})"
            if shared
            else ""
        )
        return set(), [], [Caution(f"{note}; {OPTION} leaves them out of the earlier one")] if shared else []
    if not drop:
        return set(), [(p, _same(p, first, examples)) for p, first in twice.items()], []
    others = [
        f"{p} has another answer than {first.seen_from(p)}, which was kept"
        for p, first in twice.items()
        if examples[p].targets != examples[first].targets
    ]
    p, first = next(iter(twice.items()))
    note = f"{len(twice)} duplicate input(s) left out (first: {p}, same as {first.seen_from(p)})"
    told = "; ".join([note, *messages.first(others)])
    return {*twice}, [], [Caution(told) if others else told]


def _same(place: Place, first: Place, examples: Examples) -> str:
    if place.path == first.path:
        here, there = examples[place], examples[first]
        if here.targets == there.targets:
            same = f"same input and answer as line {first.number}"
            return f"{same}; remove one of the two, or all later ones with {OPTION}"
        answers = " here, ".join(" / ".join(example.targets)[:60] for example in (here, there))
        way = "keep the right one" if here.options else "keep one of the two, with all answers as its targets"
        return (
            f"same input as line {first.number}, with another answer ({answers} there); {way}, or leave the "
            f"later ones out with {OPTION}"
        )
    return f"same input as {first.seen_from(place)}; remove it here, or leave such lines out with {OPTION}"


def near(examples: Examples) -> dict[Place, Place]:
    """Return the places of near duplicates, each with the place of the input they duplicate."""
    first_of: dict[str, Place] = {}
    firsts = {
        place: first_of.setdefault(text_key(unicodedata.normalize("NFC", example.input)), place)
        for place, example in examples.items()
    }
    return {
        place: first
        for place, first in firsts.items()
        if place != first and examples[place].input != examples[first].input
    }


def mixed_options(examples: Examples) -> Problems:
    """Return the problem of a task with options on some lines only."""
    with_options = [place for place, example in examples.items() if example.options]
    without = [place for place, example in examples.items() if not example.options]
    if not with_options or not without:
        return []
    place, other = max(with_options[0], without[0]), min(with_options[0], without[0])
    lacks = "no options" if place == without[0] else "options"
    other_line = other.seen_from(place)
    return [(place, f"this line has {lacks}, unlike {other_line}; give options on every line or on none")]


# ---- tags ----------------------------------------------------------------------------------------
def iob2_labels(own: Sidecar) -> tuple[str, ...]:
    """Return the labels of a card of tags as IOB2, () if it has none."""
    scheme = schemes.find([own.labels]) if own.scheme == "auto" else own.scheme
    return schemes.iob2_labels(own.labels, scheme)


def tagged(examples: Examples, own: Sidecar) -> tuple[Examples, Problems, str]:
    """Return the examples with IOB2 tags, their problems, and a note on the conversion."""
    problems: Problems = []
    for place, example in examples.items():
        if example.options:
            problems.append((place, "a sentence with tags has no options; remove them"))
        elif len(example.targets) > 1:
            problem = f"there are {len(example.targets)} targets; write one, with a tag for every word"
            problems.append((place, problem))
        elif problem := tag_problem(example.input, example.targets[0], words_of(example.targets[0])):
            problems.append((place, problem))
    raw = {place: words_of(example.targets[0]) for place, example in examples.items()}
    made, places, known = schemes.convert(tuple(raw.values()), own.scheme), list(raw), iob2_labels(own)
    problems += [(places[s], f"word {i + 1}: {problem}") for s, i, problem in made.problems]
    if made.scheme == "none" and own.fields.get("metric", "span_f1") == "span_f1":
        some = ", ".join(
            messages.first(sorted({messages.visible(f"{tag:.40}") for tags in raw.values() for tag in tags}))
        )
        problem = (
            f'the tags name no spans ({some}), but span_f1 scores spans; write "metric": "tag_accuracy" in '
            f'{own.path.name}, or "{sidecars.SCHEME}": "types" if neighbouring words with the same tag '
            "form one span"
        )
        problems.append((places[0], problem))
    if known and not made.problems:
        problems += [
            (
                place,
                f"word {i + 1}: tag {tag!r} is not one of the labels in {own.path.name}: {', '.join(known)}",
            )
            for (place, given), tags in zip(raw.items(), made.tags, strict=True)
            for i, (tag, as_iob2) in enumerate(zip(given, tags, strict=True))
            if as_iob2 not in known
        ]
    if problems:
        return examples, problems, ""
    done = {
        place: replace(example, targets=(" ".join(tags),))
        for (place, example), tags in zip(examples.items(), made.tags, strict=True)
    }
    return done, [], made.note
