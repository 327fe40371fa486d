"""Reads a user's task: finds its columns, checks every example, and infers its card. Changes no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iptkit.storage import messages
from iptkit.tasks import columns, own_examples, own_rows, record_files, sidecars, task_files
from iptkit.tasks.columns import Columns
from iptkit.tasks.examples import Card, Example, card_from, words_of
from iptkit.tasks.own_examples import Examples
from iptkit.tasks.own_rows import Caution, Place, Problems
from iptkit.tasks.record_files import Records
from iptkit.tasks.sidecars import Sidecar
from iptkit.tasks.task_files import TaskFiles

NO_LIMIT = 10**9


@dataclass(frozen=True)
class How:
    """How a user wants files to be read; a card can say the same.

    Attributes:
      columns: the columns of some roles, as in `columns.checked`; the text of --columns is allowed.
      drop_duplicates: leave out inputs that appear again, instead of refusing the task.
      files: names of the files of each split in a task folder; None for the usual ones.
      kind: the format of the files, as in `record_files.FORMATS`; "" for what the card or the ending says.
    """

    columns: Mapping[str, Any] | str = field(default_factory=dict)
    drop_duplicates: bool | None = None
    files: Mapping[str, str] | None = None
    kind: str = ""


@dataclass(frozen=True)
class OwnTask:
    """A user's task as it was read.

    Attributes:
      files: where it is from.
      sets: examples by place, of "train", "dev" and "test" (those that are there), or of "" if all sets are
        drawn from one; near duplicates are among them.
      problems: "file:line: what is wrong; how to fix it"; if there are any, the task cannot be used.
      notes: what was inferred, converted or left out.
      near: near duplicates, each with the place of the input that it differs from only in case, blanks or
        composed letters.
      near_choice: "drop", "keep", or "" if the user has not said.
      card_or_none: None if there are problems.
    """

    files: TaskFiles
    sets: Mapping[str, Examples] = field(default_factory=dict)
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    near: Mapping[Place, Place] = field(default_factory=dict)
    near_choice: str = ""
    card_or_none: Card | None = None

    @property
    def kept(self) -> dict[str, list[Example]]:
        """The examples of each set, without near duplicates if the user drops them."""
        gone = {*self.near} if self.near_choice == "drop" else set()
        return {name: [e for place, e in of.items() if place not in gone] for name, of in self.sets.items()}

    @property
    def card(self) -> Card:
        """Its card.

        Raises: ValueError with the first 20 problems, if there are any.
        """
        messages.refuse(str(self.files.path), self.problems)
        assert self.card_or_none is not None
        return self.card_or_none


def read_all(path: str | Path, how: How | None = None) -> list[OwnTask]:
    """Return the tasks of a file or folder, with their problems; for what is a task see `task_files`.

    Raises: what `task_files.find` raises; what `record_files.read` raises for a file that cannot be read;
    ValueError for a wrong card, or two tasks with the same id.
    """
    how = how or How()
    return [read(files, how) for files in task_files.find(path, how.files)]


def read(files: TaskFiles, how: How | None = None, settings: Mapping[str, Any] | None = None) -> OwnTask:
    """Return a task with its problems.

    Args:
      files: its files.
      how: how they are read.
      settings: some of `sidecars.SETTINGS`, which replace those of the card.
    Raises: what `record_files.read` raises; ValueError for a wrong card.
    """
    how = how or How()
    own = sidecars.read(files.card)
    own = replace(own, settings={**own.settings, **(settings or {})})
    try:
        given = columns.checked(how.columns) or own.columns
        parts = _parts(files, given, own, how.kind)
        return of_records(files, own, parts, given, how.drop_duplicates)
    except columns.ColumnsError as error:
        return OwnTask(files, problems=[str(error)])


def of_records(
    files: TaskFiles,
    own: Sidecar,
    parts: Mapping[str, Sequence[Records]],
    given: columns.Given,
    drop: bool | None = None,
) -> OwnTask:
    """Return the task of records that were read.

    Args:
      files: where they are from.
      own: what the card says.
      parts: the records of each split, as in `TaskFiles.parts`.
      given: the columns of some roles.
      drop: whether duplicates are left out; None for what the card says.
    Raises: ColumnsError if the columns are not clear; ValueError for a wrong card.
    """
    notes = [*files.notes]
    problems: Problems = [
        (Place(r.path, n), what) for of in parts.values() for r in of for n, what in r.problems
    ]
    first = next(iter(parts.values()))
    own, found = _roles(first, own, given)
    rows, wrong = own_rows.read_rows(parts, found, own)
    problems += wrong
    if found:
        notes += _said(first[0], found)
        notes += filter(None, [columns.with_answers([row for of in rows.values() for row in of.values()])])
    names = own.settings.get("label_names", {})
    rows = own_rows.with_names(rows, names)
    rows, notes = own_rows.with_labels(parts, rows, found, notes)
    sets, notes = own_rows.with_sets(files, rows, notes)
    if found and not any(row.get("options") for of in sets.values() for row in of.values()):
        known = tuple(names.values()) or _class_names(first, found)
        own, sets, wrong, note = own_rows.with_classes(sets, own, known)
        problems += wrong
        notes += filter(None, [note])
    examples, wrong = own_examples.checked(sets, own, found)
    problems += wrong
    everything = {
        place: example for of in own_examples.last_first(examples).values() for place, example in of.items()
    }
    problems += own_examples.mixed_options(everything)
    drop = own.settings.get("drop_duplicates", False) if drop is None else drop
    gone, wrong, said = own_examples.duplicates(everything, drop, is_allowed=first[0].kind == "conll")
    problems, notes = problems + wrong, notes + said
    if own.is_tag and everything:
        everything, wrong, note = own_examples.tagged(everything, own)
        problems += wrong
        notes += filter(None, [note])
    choice = own.settings.get(sidecars.NEAR, "drop" if drop else "")
    near = (
        {}
        if first[0].kind == "conll"
        else own_examples.near({p: e for p, e in everything.items() if p not in gone})
    )
    kept = {name: {p: everything[p] for p in of if p not in gone} for name, of in examples.items()}
    if not problems:
        problems += own_rows.missing_examples(parts, kept)
    told = [f"{place}: {what}" for place, what in sorted(problems, key=lambda item: item[0])]
    if told:
        return OwnTask(files, kept, told, notes, near, choice)
    card = card_of(files, own, [example for of in kept.values() for example in of.values()])
    return OwnTask(files, kept, (), notes, near, choice, card)


def warn(task: OwnTask) -> None:
    """Warn once of what was inferred, converted or left out, and once of near duplicates without a choice.

    The first is a `messages.Note` if no caution is among it.
    """
    if task.notes:
        needs_care = any(isinstance(note, Caution) for note in task.notes)
        kind = UserWarning if needs_care else messages.Note
        messages.warn(f"{task.files.path}: {'; '.join(task.notes)}", kind)
    if task.near and not task.near_choice:
        place, first = next(iter(task.near.items()))
        messages.warn(
            f"{task.files.path}: {len(task.near)} input(s) differ from an earlier one only in case, blanks "
            f"or composed letters (first: line {place.number}, from {first.seen_from(place)}), so the "
            f'training and test sets may share them. Write {{"{sidecars.NEAR}": "drop"}} in '
            f'{task.files.card.name} next to the file to leave them out, or "keep" to keep them'
        )


def near_lines(task: OwnTask) -> list[str]:
    """Return "file:line: ..." for each near duplicate of a task."""
    return [
        f"{place}: the input differs from {first.seen_from(place)} only in case, blanks or composed letters"
        for place, first in task.near.items()
    ]


def card_of(files: TaskFiles, own: Sidecar, examples: Sequence[Example]) -> Card:
    """Return the card of a task: the fields of its card file, the rest inferred.

    The inferred category is cls if all examples have the same options, mcqa if they differ, and qa
    without any.
    Raises: ValueError that names the card's file, if a field is wrong (see `card_from`), or if the category
      or the labels do not fit the examples.
    """
    options = {frozenset(example.options) for example in examples}
    inferred_category = ("cls" if len(options) == 1 else "mcqa") if any(options) else "qa"
    category = own.fields.get("category", inferred_category)
    if (category == "cls" and inferred_category != "cls") or (category == "mcqa" and not any(options)):
        raise ValueError(
            f"{own.path}: category is {category!r}, but the lines look like {inferred_category!r}: cls needs "
            "the same options on every line, and mcqa needs options; change the category or the lines"
        )
    inferred = {
        "id": files.id,
        "title": files.id,
        "category": category,
        "source": str(files.path),
        "licence": "the user's own",
        "about": f"read from {files.path.name or files.path}",
        "labels": list(examples[0].options) if category == "cls" else [],
    }
    if category == "tag":
        inferred["labels"] = sorted({tag for example in examples for tag in words_of(example.targets[0])})
    card = card_from({**inferred, **own.fields}, str(own.path))
    if category == "tag":
        card = replace(card, labels=own_examples.iob2_labels(own) or tuple(inferred["labels"]))
    if category == "cls" and set(card.labels) != set(inferred["labels"]):
        raise ValueError(
            f"{own.path}: labels are {', '.join(card.labels)}, but the lines have the options "
            f"{', '.join(inferred['labels'])}; list the same ones, or remove labels"
        )
    return card


# ---- columns -------------------------------------------------------------------------------------
def _parts(files: TaskFiles, given: columns.Given, own: Sidecar, kind: str) -> dict[str, list[Records]]:
    """Return the records of each split; the first file says whether the others have a header."""
    kind, comment = kind or own.settings.get("format", ""), own.settings.get("comment", "")
    has_header: bool | None = None
    parts: dict[str, list[Records]] = {}
    for name, paths in files.parts.items():
        for path in paths:
            found = record_files.read(path, given, kind, comment, has_header)
            has_header = not found.first
            parts.setdefault(name, []).append(found)
    kinds = {records.kind for of in parts.values() for records in of}
    if len(kinds) > 1 and "conll" in kinds:
        raise columns.ColumnsError(
            f"{files.path}: CoNLL files are mixed with others; write all in one format"
        )
    if not given:
        _check_first_rows([records for of in parts.values() for records in of])
    return parts


def _check_first_rows(every: Sequence[Records]) -> None:
    """Raise ColumnsError if the first rows of tables without a known header look like a header."""
    for records in every:
        if not records.first:
            continue
        targets = Counter(row[records.columns[-1]] for row in records.rows.values() if row)
        is_repeated = len(every) > 1 and all(other.first == records.first for other in every)
        target = records.first[-1]
        is_odd = targets[target] == 1 and len(targets) > 2 and min(targets.values(), default=0) == 1
        is_odd = is_odd and sum(count == 1 for count in targets.values()) == 1
        if (is_repeated or is_odd) and len(records.rows) > 2:
            names = columns.listed(records.first)
            raise columns.ColumnsError(
                f"{records.path}:1: the first line ({names}) looks like a header with unknown names; name "
                f"them with --columns {columns.example(records.first)}, or, if that line is an example, by "
                "their places from 0: --columns input=0,target=1 (columns= in Python, or on the card)"
            )


def _roles(first: Sequence[Records], own: Sidecar, given: columns.Given) -> tuple[Sidecar, Columns | None]:
    """Return the card with what the columns say, and the columns; None for lines with the kit's fields."""
    records = first[0]
    if records.kind == "conll":
        settings = {"max_input": NO_LIMIT, **own.settings}  # a sentence can only be as long as the file
        return replace(own, fields={"category": "tag", **own.fields}, settings=settings), None
    there = tuple(dict.fromkeys(name for of in first for name in of.columns))
    if not there:  # nothing could be read
        return own, None
    where = str(records.path)
    if records.kind == "jsonl" and not given:
        if "input" in there and {"target", "targets"} & {*there}:
            return own, None
        found = columns.find(there, {}, where)
        rows = [row for of in first for row in of.rows.values()]
        names = [name for role in found.guessed for name in found.of[role] if role != "options"]
        if (
            not found.guessed
            or not {"input", "target"} <= {*found.of}
            or not all(name in row for row in rows for name in names)
        ):
            return own, None  # every line says what it lacks
    else:
        found = columns.find(there, given, where)
        for role in ("input", "target"):
            if role not in found.of:
                raise columns.missing(role, there, where)
    row = next((row for of in first for row in of.rows.values()), {})
    columns.check_values(row, found, where)
    if columns.are_tagged(row, found) and own.fields.get("category", "tag") == "tag":
        known = _class_names(first, found)
        labels = {"labels": list(known)} if known else {}
        own = replace(own, fields={"category": "tag", **labels, **own.fields})
    return own, found


def _class_names(first: Sequence[Records], found: Columns) -> tuple[str, ...]:
    return first[0].names.get(found.of["target"][0], ())


def _said(records: Records, found: Columns) -> list[str]:
    """Return a note on the columns that were found by their names, if any."""
    if records.first and not found.guessed:
        if records.columns[0] == "0":
            line = columns.listed(records.first)
            return [f"the first line ({line}) is an example, because the columns are named by their places"]
        return ["there is no header, so the columns are read as text and answer"]
    what = [f"{' and '.join(found.of[role])} as the {role}" for role in found.guessed]
    return [f"read {', '.join(what)}"] if what else []
