"""The 120 tasks of Intrinsic Prompt Tuning (Qin et al. 2021), from the model hub or from files of your own.

They are CrossFit's (Ye et al. 2021, arXiv 2104.08835), in its text-to-text format; how each is read stands in
data/crossfit.json. The hub holds Parquet files for `datasets`; loading scripts are not run. No name of a
data set or of a field was tried: the hub was out of reach where this was written.

With $IPTKIT_CROSSFIT set to a folder, FOLDER/TASK/train.parquet or train.jsonl and test.parquet or test.jsonl
are read in place of the hub. Records have the hub's fields, or `input` with `target` or `targets` (and
`options`). Where there is no test file, fewshot.make_pool holds the test set out.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import string
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from iptkit.storage import messages, paths, reading
from iptkit.tasks.pools import Limits
from iptkit.tasks.sources.crossfit_records import STEPS, Record, at, cleaned, texts

VERSION = 1
# The paper cuts texts at 412 tokens and answers at 64 (BART's; about four characters each), and so do these.
LIMITS = Limits(input=550, target=86, is_cut=True)
MOST = {"train": 200_000, "test": 20_000}  # records read of a larger part, drawn at random
PARQUET_BRANCH = "refs/convert/parquet"  # the hub's own copies of data sets that still have a script


@functools.cache
def recipes() -> dict[str, dict[str, Any]]:
    """data/crossfit.json, by task."""
    known = reading.read_json(paths.data_dir() / "crossfit.json")
    return {name: recipe for name, recipe in known.items() if name != "about"}


def rows(task_id: str) -> Iterator[dict]:
    """Yield the training part of a task as {"text", "targets"} with "options" for multiple choice.

    Raises: FileNotFoundError if it is neither on the hub nor among the own files; ValueError for records
      that the recipe does not fit, or a file that is damaged.
    """
    yield from made(task_id, _records(task_id, "train"), _place(task_id, "train"))


def test_rows(task_id: str) -> Iterator[dict] | None:
    """The test part of a task like `rows`, None where the data set has none."""
    own = own_files(task_id)
    there = "test" in own if own else "test" in recipes()[task_id]
    return made(task_id, _records(task_id, "test"), _place(task_id, "test")) if there else None


def depends(task_id: str) -> list:
    """All that a task's rows depend on besides VERSION: its recipe and the state of own files."""
    about = ("sure", "example", "gives")
    recipe = {key: value for key, value in recipes()[task_id].items() if key not in about}
    states = [(file, file.stat()) for file in own_files(task_id).values()]
    return [recipe, [[str(file), state.st_size, state.st_mtime_ns] for file, state in states]]


# ---- records -------------------------------------------------------------------------------------
def own_files(task_id: str) -> dict[str, Path]:
    """The own files of a task by part, {} if it has no folder.

    Raises: FileNotFoundError if its folder has no train file.
    """
    folder = paths.crossfit_dir()
    if folder is None or not os.path.isdir(folder / task_id):
        return {}
    found = {
        part: folder / task_id / f"{part}{ending}"
        for part in ("train", "test")
        for ending in (".jsonl", ".parquet")
        if os.path.lexists(folder / task_id / f"{part}{ending}")
    }
    if "train" not in found:
        raise FileNotFoundError(f"{folder / task_id} has no train.parquet or train.jsonl; put it there")
    return found


def _place(task_id: str, part: str) -> str:
    own = own_files(task_id)
    return str(own[part]) if own else f"{recipes()[task_id].get('hub')} of the model hub"


def _records(task_id: str, part: str) -> Iterator[Record]:
    own = own_files(task_id)
    if own:
        return _parquet(own[part], MOST[part]) if own[part].suffix == ".parquet" else _jsonl(own[part])
    return _from_hub(task_id, part)


def _parquet(file: Path, most: int) -> Iterator[Record]:
    with reading.opened(file) as source:
        try:
            with pq.ParquetFile(source) as stored:
                wanted, number = _drawn(stored.metadata.num_rows, most), 0
                for batch in stored.iter_batches():
                    for record in batch.to_pylist():
                        if wanted is None or number in wanted:
                            yield record
                        number += 1
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{file} is not a Parquet file, or damaged ({messages.visible(str(error))})"
            ) from error


def _jsonl(file: Path) -> Iterator[Record]:
    for _, record in reading.read_json_lines(file):
        yield record


def _from_hub(task_id: str, part: str) -> Iterator[Record]:
    recipe = recipes()[task_id]
    if "gone" in recipe:
        raise FileNotFoundError(f"{task_id} cannot be downloaded: {recipe['gone']}. {_way_out(task_id)}")
    import datasets
    from datasets.exceptions import DatasetsError

    first = None
    for revision in (None, PARQUET_BRANCH):
        try:
            table = datasets.load_dataset(
                recipe["hub"], recipe.get("config"), split=recipe[part], revision=revision
            )
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            first = first or error
            continue
        needed = list(recipe["example"])
        if set(needed) <= set(table.column_names):
            table = table.select_columns(needed)
        wanted = _drawn(len(table), MOST[part])
        return iter(table if wanted is None else table.select(sorted(wanted)))
    sure = "was never tried" if recipe["sure"] else "is a guess"
    raise FileNotFoundError(
        f"{task_id}, part {recipe[part]!r} of {recipe['hub']!r}, is not to be had from the model hub "
        f"({str(first).splitlines()[0] if str(first) else type(first).__name__}); this name {sure}: correct "
        f"it in data/crossfit.json if the data set has moved. {_way_out(task_id)}"
    ) from first


def _drawn(count: int, most: int) -> set[int] | None:
    return None if count <= most else set(random.Random(f"{count}/{most}").sample(range(count), most))


def _way_out(task_id: str) -> str:
    fields = ", ".join(recipes()[task_id]["example"])
    return (
        f"Or set IPTKIT_CROSSFIT to a folder with {task_id}/train.parquet or train.jsonl (and test.parquet "
        f"or test.jsonl); fields: {fields}, or input and target. Or leave the task out: only=[...]"
    )


# ---- rows ----------------------------------------------------------------------------------------
def made(task_id: str, records: Iterable[Record], place: str = "") -> Iterator[dict]:
    """Make rows from a task's records by its recipe; those without an answer are left out.

    Args:
      place: where the records come from, for errors.
    Raises: ValueError that names the field that is missing, or the value that does not fit.
    """
    place = place and f", {place}"
    recipe, labels = recipes()[task_id], _labels()[task_id]
    records = map(cleaned, records)
    first = next(records, None)
    if first is None:
        return
    is_ready = "input" in first and ("target" in first or "targets" in first)
    records = _with_fields(itertools.chain([first], records), ["input"] if is_ready else recipe["example"])
    for name, *arguments in () if is_ready else recipe.get("steps", ()):
        records = STEPS[name](records, *arguments)
    try:
        for record in records:
            yield from _ready(record) if is_ready else _row(recipe, labels, record)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        told = error if isinstance(error, ValueError) else repr(error)
        raise ValueError(
            f"{task_id}{place}: {told}. A record that fits: "
            f"{json.dumps(recipe['example'], ensure_ascii=False)}, or one with input and target. Correct "
            "data/crossfit.json if the data set has changed"
        ) from error


def _row(recipe: dict, labels: list[str], record: Record) -> Iterator[dict]:
    options = _options(recipe, record)
    lettered = "".join(f" ({chr(65 + i)}) {option}" for i, option in enumerate(options))
    row = {"text": TEXTS.vformat(recipe["input"], (), {**record, "lettered": lettered}).strip()}
    if "label" in recipe:
        row["targets"] = _label(recipe, labels, record[recipe["label"]])
    elif "answer" in recipe:
        row["targets"] = _answer(recipe, options, record)
        row["options"] = options
    elif "answers" in recipe:
        row["targets"] = texts(at(record, recipe["answers"]))
    else:
        row["targets"] = texts(TEXTS.vformat(recipe["target"], (), record).strip())
    if row["text"] and row["targets"]:
        yield row


def _label(recipe: dict, labels: list[str], value: Any) -> list[str]:
    """The label's name, or none where it is missing or not among those of the task."""
    if "names" in recipe:
        return texts(recipe["names"].get(str(value), ""))
    if value in ("", -1):
        return []
    if value in labels:
        return [value]
    if not isinstance(value, int) or not 0 <= value < len(labels):
        raise ValueError(f"the label is {value!r}, allowed are 0 to {len(labels) - 1} ({', '.join(labels)})")
    return [labels[value]]


def _options(recipe: dict, record: Record) -> list[str]:
    given = recipe.get("options", [])
    if isinstance(given, str):
        return list(map(str, at(record, given)))
    return [TEXTS.vformat(text, (), record) for text in given]


def _answer(recipe: dict, options: list[str], record: Record) -> list[str]:
    """The right option, or none where the answer is missing."""
    value = next(iter(texts(at(record, recipe["answer"]))), "")
    if value in ("", "-1"):
        return []
    keys = recipe.get("keys", [str(i) for i in range(len(options))])
    if isinstance(keys, str):
        keys = options if keys == "text" else list(at(record, keys) if "." in keys else keys)
    if value not in keys:
        raise ValueError(f"the answer is {value!r}, allowed are {', '.join(map(str, keys))}")
    return [options[keys.index(value)]]


def _ready(record: Record) -> Iterator[dict]:
    """The row of a record with input and target or targets, none where the answer is missing."""
    given = {name: record.get(name) or [] for name in ("targets", "target", "options")}
    for name, value in given.items():
        if not all(
            isinstance(text, str | int | float) for text in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(f"{name} is {value!r:.80}, allowed are a text and a list of texts")
    if not isinstance(record["input"], str) or not record["input"]:
        raise ValueError(f"input is {record['input']!r:.80}, allowed is a text that is not empty")
    row = {"text": record["input"], "targets": texts(given["targets"] or record.get("target"))}
    if given["options"]:
        row["options"] = texts(record["options"])
        if other := [text for text in row["targets"] if text not in row["options"]]:
            raise ValueError(f"the answer {other[0]!r:.80} is not one of the options {row['options']!r:.200}")
    if row["targets"]:
        yield row


class _Texts(string.Formatter):
    """Fills texts and numbers into a text, and nothing else: a list would become text in brackets."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if not isinstance(value, str | int | float):
            raise ValueError(f"a field is {value!r:.80}, a text or a number is needed")
        return super().format_field(value, format_spec)


TEXTS = _Texts()


def _with_fields(records: Iterable[Record], needed: Iterable[str]) -> Iterator[Record]:
    for number, record in enumerate(records, 1):
        missing = [name for name in needed if name not in record]
        if missing:
            there = ", ".join(f"{name:.40}" for name in list(record)[:20])
            raise ValueError(f"record {number} has no {', '.join(map(repr, missing))}, only {there}")
        yield record


@functools.cache
def _labels() -> dict[str, list[str]]:
    cards = reading.read_json(paths.data_dir() / "cards" / "crossfit.json", list)
    return {card["id"]: card.get("labels", []) for card in cards}
