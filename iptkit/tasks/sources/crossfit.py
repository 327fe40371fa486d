"""The 120 tasks of Intrinsic Prompt Tuning (Qin et al. 2021), from the model hub or from your own files.

The tasks are CrossFit's (Ye et al. 2021, arXiv 2104.08835), in its text-to-text format. data/crossfit.json
has a recipe for each: where it is and how its records become texts. The kit reads the hub's Parquet files
through `datasets` and never runs loading scripts. The names of data sets and fields were never tried, because
the hub could not be reached where this was written.

With $IPTKIT_CROSSFIT set to a folder, FOLDER/TASK/train.parquet or train.jsonl and test.parquet or test.jsonl
are read instead of the hub. Their records have the hub's fields, or `input` with `target` or `targets` (and
`options`). Without a test file, `fewshot.make_pool` holds a test set out.
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
# Like the paper, which cuts texts at 412 and answers at 64 of BART's tokens of about four characters.
LIMITS = Limits(input=550, target=86, is_cut=True)
MOST = {
    "train": 200_000,
    "test": 20_000,
}  # maximum number of records; of larger parts a random sample is read
PARQUET_BRANCH = "refs/convert/parquet"  # the hub's own copies of data sets that still have a script


@functools.cache
def recipes() -> dict[str, dict[str, Any]]:
    """Return the recipes of data/crossfit.json, by task."""
    known = reading.read_json(paths.data_dir() / "crossfit.json")
    return {name: recipe for name, recipe in known.items() if name != "about"}


def rows(task_id: str) -> Iterator[dict]:
    """Yield the training part of a task as {"text", "targets"}, with "options" for multiple choice.

    Raises: FileNotFoundError if it is neither on the hub nor among the user's files; ValueError for records
      that do not fit the recipe, or a damaged file.
    """
    yield from made(task_id, _records(task_id, "train"), _place(task_id, "train"))


def test_rows(task_id: str) -> Iterator[dict] | None:
    """Return the rows of the test part of a task, None if the data set has none."""
    own = own_files(task_id)
    there = "test" in own if own else "test" in recipes()[task_id]
    return made(task_id, _records(task_id, "test"), _place(task_id, "test")) if there else None


def depends(task_id: str) -> list:
    """Return what a task's rows depend on besides VERSION: its recipe and the state of the user's files."""
    about = ("sure", "example", "gives")
    recipe = {key: value for key, value in recipes()[task_id].items() if key not in about}
    states = [(file, file.stat()) for file in own_files(task_id).values()]
    return [recipe, [[str(file), state.st_size, state.st_mtime_ns] for file, state in states]]


# ---- records -------------------------------------------------------------------------------------
def own_files(task_id: str) -> dict[str, Path]:
    """Return the user's files of a task by part, {} if it has no folder.

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
                f"{file} is not a Parquet file, or is damaged ({messages.visible(str(error))})"
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
        f"{task_id}, part {recipe[part]!r} of {recipe['hub']!r}, cannot be read from the model hub "
        f"({str(first).splitlines()[0] if str(first) else type(first).__name__}); this name {sure}: correct "
        f"it in data/crossfit.json if the data set has moved. {_way_out(task_id)}"
    ) from first


def _drawn(count: int, most: int) -> set[int] | None:
    return None if count <= most else set(random.Random(f"{count}/{most}").sample(range(count), most))


def _way_out(task_id: str) -> str:
    fields = ", ".join(recipes()[task_id]["example"])
    return (
        f"Or set IPTKIT_CROSSFIT to a folder with {task_id}/train.parquet or train.jsonl (and test.parquet "
        f"or test.jsonl) with the fields {fields}, or input and target. Or leave the task out: only=[...]"
    )


# ---- rows ----------------------------------------------------------------------------------------
def made(task_id: str, records: Iterable[Record], place: str = "") -> Iterator[dict]:
    """Yield the rows that a task's recipe makes from records; records without an answer are left out.

    Args:
      task_id: the task.
      records: with the hub's fields, or ready-made with "input" and "target" or "targets".
      place: where the records come from, for errors.
    Raises: ValueError that names the missing field, or the value that does not fit.
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
        problem = error if isinstance(error, ValueError) else repr(error)
        raise ValueError(
            f"{task_id}{place}: {problem}. An example of a correct record: "
            f"{json.dumps(recipe['example'], ensure_ascii=False)}, or one with input and target. If the data "
            "set has changed, correct its recipe in data/crossfit.json"
        ) from error


def _row(recipe: dict, labels: list[str], record: Record) -> Iterator[dict]:
    options = _options(recipe, record)
    lettered = "".join(f" ({chr(65 + i)}) {option}" for i, option in enumerate(options))
    row: dict[str, Any] = {
        "text": TEXTS.vformat(recipe["input"], (), {**record, "lettered": lettered}).strip()
    }
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
    """Return the label's name in a list, or an empty list if it is missing or not a label of the task."""
    if "names" in recipe:
        return texts(recipe["names"].get(str(value), ""))
    if value in ("", -1):
        return []
    if value in labels:
        return [value]
    if not isinstance(value, int) or not 0 <= value < len(labels):
        raise ValueError(f"label is {value!r}, allowed are 0 to {len(labels) - 1} ({', '.join(labels)})")
    return [labels[value]]


def _options(recipe: dict, record: Record) -> list[str]:
    given = recipe.get("options", [])
    if isinstance(given, str):
        return list(map(str, at(record, given)))
    return [TEXTS.vformat(text, (), record) for text in given]


def _answer(recipe: dict, options: list[str], record: Record) -> list[str]:
    """Return the right option in a list, or an empty list if the answer is missing."""
    value = next(iter(texts(at(record, recipe["answer"]))), "")
    if value in ("", "-1"):
        return []
    keys = recipe.get("keys", [str(i) for i in range(len(options))])
    if isinstance(keys, str):
        keys = options if keys == "text" else list(at(record, keys) if "." in keys else keys)
    if value not in keys:
        raise ValueError(f"the answer is {value!r}, allowed are: {', '.join(map(str, keys))}")
    return [options[keys.index(value)]]


def _ready(record: Record) -> Iterator[dict]:
    """Yield the row of a record with input and target or targets, unless the answer is missing."""
    given = {name: record.get(name) or [] for name in ("targets", "target", "options")}
    for name, value in given.items():
        if not all(
            isinstance(text, str | int | float) for text in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(f"{name} is {value!r:.80}, allowed are a text or a list of texts")
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
    """Formats texts and numbers only: a list would become text in brackets."""

    def format_field(self, value: Any, format_spec: str) -> str:
        if not isinstance(value, str | int | float):
            raise ValueError(f"a field is {value!r:.80}, allowed are a text or a number")
        return super().format_field(value, format_spec)


TEXTS = _Texts()


def _with_fields(records: Iterable[Record], needed: Iterable[str]) -> Iterator[Record]:
    for number, record in enumerate(records, 1):
        missing = [name for name in needed if name not in record]
        if missing:
            there = ", ".join(f"{name:.40}" for name in list(record)[:20])
            raise ValueError(f"record {number} has no {', '.join(map(repr, missing))} (found: {there})")
        yield record


@functools.cache
def _labels() -> dict[str, list[str]]:
    cards = reading.read_json(paths.data_dir() / "cards" / "crossfit.json", list)
    return {card["id"]: card.get("labels", []) for card in cards}
