"""A task from a data set of the library `datasets` that is in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iptkit.tasks import columns as column_names
from iptkit.tasks import fewshot, own_tasks, record_files, sidecars, suites, task_files
from iptkit.tasks.examples import Task


def from_dataset(
    dataset: Any,
    id: str,
    columns: Mapping[str, Any] | str = "",
    seed: int = 0,
    *,
    card: Mapping[str, Any] | None = None,
    drop_duplicates: bool | None = None,
    max_test: int = fewshot.TEST_SIZE,
    max_dev: int | None = None,
    full: bool = False,
) -> Task:
    """Return a task made from a data set in memory, with the few-shot sets of a seed.

    The splits train, dev (or validation, valid, val) and test of a `DatasetDict` are kept. A test split
    without labels (-1) is not used; then validation is the test set, and dev is drawn from train. Of a plain
    `Dataset` all sets are drawn. Names of classes (`ClassLabel`) become the options.

    Args:
      dataset: a `datasets.DatasetDict`, a mapping of `datasets.Dataset` by split, or a single one.
      id: the name of the task.
      columns: which columns hold the input, the target and the options; see `suites.load_suite`.
      seed: draws train, train_new and what else is drawn.
      card: fields of the task's card, such as {"category": "qa", "metric": "token_f1"}.
      drop_duplicates: leave out inputs that appear again, instead of refusing them.
      max_test: maximum size of the test set.
      max_dev: maximum size of the dev set, None for all of it.
      full: train on the whole training set, not on a few examples.
    Raises: ValueError for another type, columns that are not there, or broken examples.
    Warns: UserWarning of what was inferred or left out.

    >>> import datasets
    >>> rows = [{"question": f"1 + {i} =", "answer": str(1 + i)} for i in range(8)]
    >>> given = {"input": "question", "target": "answer"}
    >>> len(from_dataset(datasets.Dataset.from_list(rows), "sums", given).train)
    2
    """
    splits = dict(dataset) if isinstance(dataset, Mapping) else {"": dataset}
    for name, split in splits.items():
        if not (hasattr(split, "with_format") and hasattr(split, "features") and hasattr(split, "num_rows")):
            of = f" of split {name!r}" if name else ""
            raise ValueError(
                f"task {id!r}: the data set{of} is a {type(split).__name__}, allowed are datasets.Dataset "
                "and datasets.DatasetDict; make one with datasets.Dataset.from_list(list(...))"
            )
    notes: tuple[str, ...] = ()
    if "" not in splits:
        way = "to use others, name them in a dictionary: {'train': ..., 'test': ...}"
        splits, notes = task_files.chosen(splits, splits.__getitem__, f"task {id!r}", way)
    where = {name: Path(f"{id}, {name}" if name else id) for name in splits}
    files = task_files.TaskFiles(
        id, Path(id), Path(f"card of {id}"), {name: (path,) for name, path in where.items()}, notes
    )
    given = column_names.checked(columns)
    own = sidecars.of_fields(files.card, dict(card or {}))
    parts = {name: [record_files.of_table(where[name], _table(of), "dataset")] for name, of in splits.items()}
    try:
        found = own_tasks.of_records(files, own, parts, given or own.columns, drop_duplicates)
    except column_names.ColumnsError as error:
        raise ValueError(f"task {id!r}: {error}") from error
    return suites.own_task(found, seed, max_test, max_dev, full)


def _table(dataset: Any) -> Any:
    """Return the rows of a `Dataset` as a table, with the names of its classes."""
    table = dataset.with_format("arrow")[:]
    return table.replace_schema_metadata(dataset.features.arrow_schema.metadata)
