"""The steps of the recipes in data/crossfit.json, which prepare a data set's records.

A step takes the records and its arguments and yields records: some filter, some add a field (named by the
last argument). The formats follow CrossFit (Ye et al. 2021); the code is new.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

Record = dict[str, Any]
Records = Iterable[Record]


def at(record: Any, path: str) -> Any:
    """Return the value at a dotted path; a list on the way gives a list of the values in its items.

    >>> at({"output": [{"answer": "a"}, {"answer": "b"}]}, "output.answer")
    ['a', 'b']
    """
    if isinstance(record, list):
        return [at(item, path) for item in record]
    name, _, rest = path.partition(".")
    return at(record[name], rest) if rest else record[name]


def texts(value: Any) -> list[str]:
    """Return all texts in nested lists, without empty texts and repetitions."""
    if isinstance(value, list):
        return list(dict.fromkeys(text for item in value for text in texts(item)))
    return [str(value)] if value not in ("", None) else []


def cleaned(value: Any) -> Any:
    """Return the value with runs of blanks in texts reduced to one, and with empty texts instead of None."""
    if isinstance(value, dict):
        return {name: cleaned(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item) for item in value]
    return " ".join(value.split()) if isinstance(value, str) else "" if value is None else value


# ---- leaving out and grouping --------------------------------------------------------------------
def only(records: Records, field: str, value: Any) -> Iterator[Record]:
    """Keep the records with this value."""
    return (record for record in records if record[field] == value)


def without(records: Records, field: str, part: str) -> Iterator[Record]:
    """Keep the records whose text does not contain `part`."""
    return (record for record in records if part not in record[field])


def grouped(records: Records, path: str, fields: Sequence[str]) -> Iterator[Record]:
    """Merge the records with the same value at `path`; their `fields` become lists."""
    groups = defaultdict(list)
    for record in records:
        groups[at(record, path)].append(record)
    for group in groups.values():
        yield {**group[0], **{field: [record[field] for record in group] for field in fields}}


# ---- texts ---------------------------------------------------------------------------------------
def joined(records: Records, path: str, between: str, new: str) -> Iterator[Record]:
    """Add the texts at a path, joined into one."""
    for record in records:
        found = at(record, path)
        yield {**record, new: between.join(map(str, found if isinstance(found, list) else [found]))}


def replaced(records: Records, field: str, old: str, by: str) -> Iterator[Record]:
    """Replace one text by another, which may refer to fields of the record: "{sub_label}"."""
    for record in records:
        yield {**record, field: record[field].replace(old, by.format_map(record))}


def stripped(records: Records, field: str, marks: str) -> Iterator[Record]:
    """Remove these marks at both ends."""
    for record in records:
        yield {**record, field: record[field].strip(marks)}


def lower_joint(records: Records, field: str, new: str) -> Iterator[Record]:
    """Add the text in lower case without blanks."""
    for record in records:
        yield {**record, new: "".join(record[field].lower().split())}


def table(records: Records, field: str, context: str, new: str) -> Iterator[Record]:
    """Add a table's context, and its rows as "header: content [n]"; drop records with ragged tables."""
    for record in records:
        heads, cells = (at(record, f"{field}.table.{name}") for name in ("column_header", "content"))
        if len(heads) == len(cells):
            rows = " ".join(f"{head}: {cell} [n]" for head, cell in zip(heads, cells, strict=True))
            yield {**record, context: record[field]["context"], new: rows}


def acronym(records: Records, tokens: str, labels: str) -> Iterator[Record]:
    """Add the acronym (`short`) and its meaning (`long`); drop sentences without exactly one of each.

    The data set labels the first word of a meaning 0 and of an acronym 1, their further words 2 and 3, and
    all others 4.
    """
    for record in records:
        words, marks = record[tokens], record[labels]
        if marks.count(0) == marks.count(1) == 1:
            yield {**record, "short": _stretch(words, marks, 1, 3), "long": _stretch(words, marks, 0, 2)}


def _stretch(words: Sequence[str], marks: Sequence[int], first: int, further: int) -> str:
    start = end = marks.index(first)
    while end + 1 < len(words) and marks[end + 1] == further:
        end += 1
    return " ".join(words[start : end + 1])


# ---- labels --------------------------------------------------------------------------------------
def majority(records: Records, path: str, new: str) -> Iterator[Record]:
    """Add the label of more than half of the annotators; drop records without a majority."""
    for record in records:
        given = at(record, path)
        value, count = Counter(given).most_common(1)[0]
        if 2 * count > len(given):
            yield {**record, new: value}


def banded(records: Records, field: str, low: float, high: float, new: str) -> Iterator[Record]:
    """Add 0 for values below `low` and 1 for those above `high`; drop records in between."""
    for record in records:
        if not low <= record[field] <= high:
            yield {**record, new: int(record[field] > high)}


def shuffled_pair(records: Records, right: str, wrong: str) -> Iterator[Record]:
    """Add two texts as `first` and `second`, in an order drawn from the texts; `place` is the right one."""
    for record in records:
        pair = [record[right], record[wrong]]
        place = random.Random("/".join(sorted(pair))).randrange(2)
        first, second = pair[::-1] if place else pair
        yield {**record, "first": first, "second": second, "place": place}


def right_ones(
    records: Records, field: str, labels: str, between: str, none: str, new: str
) -> Iterator[Record]:
    """Add the answers with label 1, joined into one text, or `none`."""
    for record in records:
        right = [text for text, label in zip(record[field], record[labels], strict=True) if label == 1]
        yield {**record, new: between.join(right) or none}


# ---- options -------------------------------------------------------------------------------------
def without_letters(records: Records, field: str, new: str) -> Iterator[Record]:
    """Add the options without the "A)" at their beginnings."""
    for record in records:
        yield {**record, new: [re.sub(r"^[A-E]\s*\)\s*", "", option) for option in record[field]]}


def lettered_list(records: Records, field: str, new: str) -> Iterator[Record]:
    """Add the options of one text, "a ) 38 , b ) 1,000", as a list."""
    for record in records:
        parts = re.split(r"(?:^|,)\s*[a-e]\s*\)\s*", record[field].strip(" []'\""))
        yield {**record, new: [part.strip() for part in parts[1:]]}


def choices_inside(records: Records, field: str, new: str) -> Iterator[Record]:
    """Add the options that are part of the question, "... (A) cold or (B) hot?"."""
    for record in records:
        parts = re.split(r"\([AB]\)", record[field])[1:]
        yield {**record, new: [re.sub(r"(\s+or)?[\s?.,]*$", "", part).strip() for part in parts]}


STEPS: dict[str, Callable[..., Iterator[Record]]] = {
    step.__name__: step
    for step in (only, without, grouped, joined, replaced, stripped, lower_joint, table, acronym, majority)
    + (banded, shuffled_pair, right_ones, without_letters, lettered_list, choices_inside)
}
