"""From the records of a user's files to the rows of a task: columns, labels, and which set each file is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, NamedTuple

from iptkit.storage import messages
from iptkit.tasks import columns, task_files
from iptkit.tasks.columns import Columns
from iptkit.tasks.record_files import Records
from iptkit.tasks.sidecars import Sidecar
from iptkit.tasks.task_files import TaskFiles

MOST_LABELS, LONGEST_LABEL = 20, 40  # of a classification that is inferred from its labels
MANY_TIMES = 4  # each label on average, or at least twice every one
Row = dict[str, Any]  # input, target or targets, and options, as in a JSON line


class Place(NamedTuple):
    """A line of a file; of a table, its record from 1."""

    path: PurePath
    number: int

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"

    def seen_from(self, other: Place) -> str:
        """Return the place as a problem of another place names it."""
        return f"line {self.number}" if self.path == other.path else f"{self.path.name}:{self.number}"


class Caution(str):
    """A note that makes a warning, because it concerns what the scores mean."""

    __slots__ = ()


Rows = dict[Place, Row]
Problems = list[tuple[Place, str]]


def read_rows(
    parts: Mapping[str, Sequence[Records]], found: Columns | None, own: Sidecar
) -> tuple[dict[str, Rows], Problems]:
    """Return the fields of every record of every split, and the problems of files without a column."""
    made: dict[str, Rows] = {}
    problems: Problems = []
    for name, every in parts.items():
        made[name] = {}
        for records in every:
            if found is None:
                made[name] |= {Place(records.path, n): row for n, row in records.rows.items()}
                continue
            heads = {one if one in records.columns else one.split(".")[0] for one in found.of["input"]}
            if records.columns and not heads <= {*records.columns}:
                lacks = ", ".join(sorted(heads - {*records.columns}))
                what = f"there is no column {lacks!r} (found: {columns.listed(records.columns)}); rename them"
                problems.append((Place(records.path, 1), what))
                continue
            picked = {n: columns.pick(row, found, own.is_tag) for n, row in records.rows.items()}
            made[name] |= {Place(records.path, n): row for n, row in picked.items()}
    return made, problems


def with_names(rows: Mapping[str, Rows], names: Mapping[str, str]) -> dict[str, Rows]:
    """Return the rows with the names of labels in place of the labels, in targets and options."""
    if not names:
        return dict(rows)

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    roles = ("target", "targets", "options")
    return {
        part: {p: {k: named(v) if k in roles else v for k, v in row.items()} for p, row in of.items()}
        for part, of in rows.items()
    }


def with_labels(
    parts: Mapping[str, Sequence[Records]], rows: Mapping[str, Rows], found: Columns | None, notes: list[str]
) -> tuple[dict[str, Rows], list[str]]:
    """Return the splits without test sets that have no labels, and the notes with those left out.

    Raises: ColumnsError if the training set has no labels, although the columns are known.
    """
    bare = [name for name, of in rows.items() if of and _is_bare(of)]
    bare = [name for name in bare if not any(records.problems for records in parts[name])]
    if found and (training := [name for name in bare if name in ("", "train")]):
        raise columns.ColumnsError(
            f"{parts[training[0]][0].path}:1: no line has a label (column "
            f"{' and '.join(found.of['target'])}); write the answers, or name their column"
        )
    bare = [name for name in bare if name not in ("", "train")]
    said = [Caution(f"{parts[name][0].path.name} has no labels, so it is not used") for name in bare]
    return {name: of for name, of in rows.items() if name not in bare}, notes + said


def _is_bare(rows: Rows) -> bool:
    """Return whether no row has a label (-1 stands for none)."""
    return all(not {"target", "targets"} & {*row} for row in rows.values()) or all(
        str(row.get("target")) == "-1" for row in rows.values()
    )


def with_sets(
    files: TaskFiles, rows: Mapping[str, Rows], notes: list[str]
) -> tuple[dict[str, Rows], list[str]]:
    """Return the rows of "train", "dev" and "test" (or of ""), and the notes with what stands for what."""
    if "" in rows:
        return {"": rows[""]}, notes
    devs = [name for name in rows if task_files.role_of(name) == "dev"]
    if len(devs) > 1 + ("test" not in rows):
        raise columns.ColumnsError(
            f"{files.path} has {len(devs)} dev sets ({', '.join(devs)}); keep one, or name the files on the "
            "card"
        )
    if not devs and "test" not in rows:
        return {"": rows["train"]}, [*notes, "there is no dev or test set, so all sets are drawn from train"]
    sets = {"train": rows["train"]}
    if "test" in rows:
        sets |= {"dev": rows[devs[0]]} if devs else {}
        sets["test"] = rows["test"]
    else:
        sets |= {"dev": rows[devs[0]]} if len(devs) > 1 else {}
        sets["test"] = rows[devs[-1]]
        notes = [*notes, Caution(f"there is no test set, so {devs[-1]} is the test set")]
    if "dev" not in sets:
        notes = [*notes, "there is no dev set, so it is drawn from train"]
    return sets, notes


def with_classes(
    sets: Mapping[str, Rows], own: Sidecar, names: Sequence[str]
) -> tuple[Sidecar, dict[str, Rows], Problems, str]:
    """Return the card and the rows with the labels as options, if it is a classification.

    Args:
      sets: rows without options.
      own: what the card says.
      names: class names of the column of the target.
    Returns: also the problems of rows with other labels, and a note on what was inferred.
    """
    category, training = own.fields.get("category"), next(iter(sets.values()))
    targets = [row["target"] for row in training.values() if "target" in row]
    has_several = any("targets" in row for of in sets.values() for row in of.values())
    if has_several or category not in (None, "cls"):
        return own, dict(sets), [], ""
    if not (category or names or _are_labels(targets)):
        return own, dict(sets), [], _may_be_labels(targets)
    known = own.labels or tuple(names)
    labels = known or tuple(
        sorted({*targets}, key=lambda label: (int(label) if label.isdecimal() else 0, label))
    )
    if not labels or not training:  # there are problems of other kinds
        return own, dict(sets), [], ""
    if len(labels) < 2:
        raise columns.ColumnsError(
            f"{next(iter(training)).path}:1: all answers are {labels[0]!r:.80}, but a classification needs "
            "two labels or more; add examples of others, or list all labels on the card"
        )
    shown = ", ".join(messages.first([messages.visible(f"{label:.40}") for label in labels]))
    where = "the labels" if known else f"the labels of {next(iter(training)).path.name}"
    way = "correct it, or add it to them" if known else "correct it, or add examples of it there"
    if not known and not category:
        way += ', or write "category": "qa" on the card if answers are free texts'
    problems = [
        (place, f"label {row['target']!r:.80} is not one of {where} ({shown}); {way}")
        for of in sets.values()
        for place, row in of.items()
        if "target" in row and row["target"] not in labels
    ]
    wrong = {place for place, _ in problems}
    filled = {
        name: {place: {**row, "options": [*labels]} for place, row in of.items() if place not in wrong}
        for name, of in sets.items()
    }
    note = "" if category or names else f"taken as a classification with the labels {shown}"
    if not known and (twins := _twins(labels)):
        told = f"the labels {' and '.join(map(repr, twins))} differ only in case"
        note = Caution("; ".join(filter(None, [note, told, "spell them alike if they are one"])))
    own = replace(own, fields={**own.fields, "category": "cls", "labels": [*labels]})
    return own, filled, problems, note


def _are_labels(targets: Sequence[str]) -> bool:
    """Return whether answers look like the labels of a classification: few, short, repeated."""
    counts = Counter(targets)
    is_repeated = min(counts.values(), default=0) >= 2 or len(targets) >= MANY_TIMES * len(counts)
    return _are_few_and_short(counts) and is_repeated


def _are_few_and_short(labels: Collection[str]) -> bool:
    is_short = all(len(label) <= LONGEST_LABEL and "\n" not in label for label in labels)
    return is_short and 2 <= len(labels) <= MOST_LABELS


def _may_be_labels(targets: Sequence[str]) -> str:
    """Return a note if answers could be labels of which the file has too few examples to tell; else ""."""
    counts = Counter(targets)
    if not _are_few_and_short(counts) or len(counts) == len(targets):
        return ""
    rare = next(label for label, count in counts.items() if count == 1)
    return Caution(
        f"taken as a task with free answers, because {rare!r} is the answer of only one of "
        f'{len(targets)} examples; if the answers are labels, write "category": "cls" on the card, or add '
        "examples"
    )


def _twins(labels: Sequence[str]) -> list[str]:
    """Return the first labels that differ only in case; [] if there are none."""
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(label.casefold(), []).append(label)
    return next((found for found in alike.values() if len(found) > 1), [])


def missing_examples(
    parts: Mapping[str, Sequence[Records]], sets: Mapping[str, Mapping[Place, Any]]
) -> Problems:
    """Return a problem for every set without an example."""
    problems = [
        (Place(of[0].path, 1), "there is no example; add some, or remove the file")
        for name, of in parts.items()
        if not any(records.rows for records in of)
    ]
    if not problems and not any(sets.values()):
        problems.append((Place(next(iter(parts.values()))[0].path, 1), "there is no example; add some"))
    return problems
