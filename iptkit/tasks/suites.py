"""Suites: named lists of tasks. This is the place to load tasks from.

core36    36 tasks from nine small packages, built on first use and then cached as Parquet
encoder9  9 tasks for encoders: sentences to classify and words to tag, built likewise
ipt120    core36 and 84 tasks of BIG-bench, whose archive (358 MB) is downloaded on first use
encoders  all classifications of ipt120, without the list of choices, and the tagging tasks of all packages
crossfit  the 120 tasks of the Intrinsic Prompt Tuning paper, from the model hub (see crossfit.py)
tiny      8 small hand-written tasks for tests; tiny3 is three more, two of them with tags
a path    to a file or folder of your own tasks (task_files.py says which, own_tasks.py reads them)
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Any

from iptkit.storage import paths
from iptkit.storage.paths import expanded
from iptkit.storage.reading import read_json
from iptkit.tasks import fewshot, own_tasks, pools, task_files
from iptkit.tasks.examples import Card, Task, card_from
from iptkit.tasks.jsonl import read_jsonl

SUITES = ("core36", "encoder9", "ipt120", "encoders", "crossfit", "tiny", "tiny3")
SPLIT = ("core36", "ipt120", "crossfit", "tiny")  # the suites with splits
COURSE = SUITES[:2]  # built from the packages that `iptkit fetch` downloads
BUILT = SUITES[:5]  # built from packages or the model hub on first use
CARD_FILES = {  # the other suites have one card file of their own name
    "ipt120": ("core36", "ipt120"),
    "encoders": ("core36", "ipt120", "encoder9", "encoders"),
}


@dataclass(frozen=True)
class Split:
    """Which tasks of a suite train the subspace (seen) and which are held out (unseen).

    No leakage group is on both sides.
    left_out: tasks on neither side: siblings of the other side, or tasks that a smaller seen side omits.
    is_leaky: some leakage groups are on both sides, on purpose, to measure the effect.
    scored: the seen tasks that a study scores; () for all of them.
    """

    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    is_leaky: bool = False
    scored: tuple[str, ...] = ()


def list_cards(
    suite: str | Path = "core36",
    columns: Mapping[str, Any] | str = "",
    drop_duplicates: bool | None = None,
    files: Mapping[str, str] | None = None,
) -> list[Card]:
    """Return the cards of a suite, in its order; for the arguments see `load_suite`.

    Raises: ValueError for an unknown suite, FileNotFoundError for a path that does not exist.
    """
    if str(suite) in SUITES:
        return [card for card, _ in _entries(str(suite))]
    return [task.card for task in _own(suite, own_tasks.How(columns or {}, drop_duplicates, files))]


def load_suite(
    name: str | Path = "core36",
    seed: int = 0,
    only: Sequence[str] | None = None,
    max_test: int = fewshot.TEST_SIZE,
    max_dev: int | None = None,
    full: bool = False,
    *,
    columns: Mapping[str, Any] | str = "",
    drop_duplicates: bool | None = None,
    files: Mapping[str, str] | None = None,
) -> list[Task]:
    """Return the tasks of a suite with the few-shot sets of a seed; missing data is downloaded and built.

    A task of yours with its own training and test sets keeps them: train and train_new are drawn from its
    training set only, dev is its own dev set if it has one, and test its own test set.

    Args:
      name: one of SUITES, or a path to a file or folder of your own tasks (see `task_files`).
      seed: draws train, train_new and dev; the test set does not depend on it.
      only: ids of the tasks to load, None for all.
      max_test: maximum size of the test set, at least 1. The suites have up to 256 test examples; a test set
        of your own can have more.
      max_dev: maximum size of the dev set, None for all of it.
      full: train on all examples (up to 2,048, or all of your own training set) except dev and test, not on a
        few.
      columns: which columns of your files hold the input, the target and the options, as in
        {"input": "sentence", "target": "label"} or "input=premise+hypothesis,target=label"; what is missing
        is found by its usual name.
      drop_duplicates: leave out inputs of your files that appear again, instead of refusing them; None for
        what the card says.
      files: names of the files of your task in the folder `name`, {"train": ..., "dev": ..., "test": ...}.
    Raises: ValueError for unknown names or ids or broken lines; FileNotFoundError for missing files.
    Warns: UserWarning, once per task, of what was inferred or left out of your files.

    >>> [task.id for task in load_suite("tiny", only=["tiny-plural"])]
    ['tiny-plural']
    """
    _check_limit("max_test", max_test)
    _check_limit("max_dev", 1 if max_dev is None else max_dev)
    if str(name) not in SUITES:
        own = _own(name, own_tasks.How(columns or {}, drop_duplicates, files))
        by_id = {task.card.id: task for task in own}
        chosen = [by_id[task_id] for task_id in _select([*by_id], only, name)]
        return [own_task(task, seed, max_test, max_dev, full) for task in chosen]
    if columns or files or drop_duplicates:
        raise ValueError(
            f"columns, files and drop_duplicates are for files of your own, but {name!r} is a suite"
        )
    entries = {card.id: (card, file) for card, file in _entries(str(name))}
    cards_files = [entries[task_id] for task_id in _select([*entries], only, name)]
    if name in BUILT:
        found = pools.load([card for card, _ in cards_files])
    else:
        found = [fewshot.make_pool(read_jsonl(file), card) for card, file in cards_files]
    return [
        _task(card, pool, seed, max_test, max_dev, full)
        for (card, _), pool in zip(cards_files, found, strict=True)
    ]


def with_cards(
    suite: str | Path, only: Sequence[str], seed: int = 0, max_test: int = fewshot.TEST_SIZE
) -> list[tuple[Task, Card]]:
    """Return some tasks of a suite, each with its card; for the arguments see `load_suite`."""
    cards = {card.id: card for card in list_cards(suite)}
    return [(task, cards[task.id]) for task in load_suite(suite, seed, only, max_test)]


def load_task(task_id: str, seed: int = 0, suite: str | Path = "core36") -> Task:
    """Return one task of a suite; for the arguments see `load_suite`."""
    return load_suite(suite, seed, only=[task_id])[0]


def split(name: str = "random", suite: str = "core36") -> Split:
    """Return a split of a suite into seen and unseen tasks.

    Args:
      name: "random" for any suite. For ipt120 also "random20" to "random80" (fewer seen tasks, the same
        unseen ones), "cls" and "non_cls" (which kind of tasks is seen), "leaky" (some leakage groups are on
        both sides, to show the effect), "no_siblings" (the same unseen tasks without leaks), and three kinds
        of splits that leave no task out over all their numbers: "fold1" to "fold6" (20 unseen tasks, 100 seen
        ones, some of them `scored`; "fold1_20" and so on have 20 of the seen ones), "cls1" to "cls5" and
        "non_cls1" to "non_cls3" (a part is unseen, 34 tasks of one kind are seen). For crossfit also the
        paper's own, which leak: "paper_random" (and 20 to 80), "paper_cls" and "paper_non_cls".
      suite: one of SPLIT.
    Raises: ValueError for an unknown suite or split, or a file that breaks the rules: every task once, no
      leakage group on both sides unless the split is marked as leaky, and scored tasks are seen ones.

    >>> len(split("random", "core36").unseen)
    8
    """
    if suite not in SPLIT:
        raise ValueError(
            f"the suite {suite!r} has no splits, only {', '.join(SPLIT[:-1])} and {SPLIT[-1]} have; name the "
            'tasks of both sides yourself: studies.scales.load("lesson", suite=..., seen=(...), unseen=(...))'
        )
    file = paths.data_dir() / "splits" / f"{suite}.json"
    splits = read_json(file)
    if name not in splits:
        raise ValueError(f"suite {suite} has no split {name!r}; choose one of {', '.join(splits)}")
    fields = splits[name]
    sides = Split(
        tuple(fields.get("seen", ())),
        tuple(fields.get("unseen", ())),
        tuple(fields.get("left_out", ())),
        fields.get("is_leaky", False),
        tuple(fields.get("scored", ())),
    )
    group_of = {card.id: card.group for card in list_cards(suite)}
    if sorted(sides.seen + sides.unseen + sides.left_out) != sorted(group_of):
        raise ValueError(
            f"{file.name}, split {name!r}: every task of {suite} must be on exactly one side, or left out"
        )
    not_seen = Counter(sides.scored) - Counter(sides.seen)
    if not_seen:
        raise ValueError(
            f"{file.name}, split {name!r}: scored names {', '.join(sorted(not_seen))}; it may name tasks of "
            'seen only, each once (leave "scored" out to score all seen tasks)'
        )
    crossing = {group_of[task] for task in sides.seen} & {group_of[task] for task in sides.unseen}
    if crossing and not sides.is_leaky:
        raise ValueError(
            f"{file.name}, split {name!r}: leakage groups on both sides: {', '.join(sorted(crossing))}"
        )
    return sides


def sides(
    suite: str, seen: Sequence[str] = (), unseen: Sequence[str] = (), split_name: str = "random"
) -> Split:
    """Return the given tasks as a split, or the suite's split if none are given.

    Raises: ValueError if a task or a leakage group is on both sides, or only `unseen` is given.
    """
    if not seen and not unseen:
        return split(split_name, suite)
    group_of = {card.id: card.group for card in list_cards(suite)}
    groups = [{group_of.get(task, task) for task in side} for side in (seen, unseen)]
    if not seen or len({*seen, *unseen}) < len(seen) + len(unseen) or groups[0] & groups[1]:
        raise ValueError(
            f"seen: {', '.join(seen) or '(none)'}; unseen: {', '.join(unseen) or '(none)'}. Name at least "
            "one seen task and each task once, with no leakage group (`iptkit tasks show ID`) on both sides"
        )
    return Split(tuple(seen), tuple(unseen))


def own_task(
    task: own_tasks.OwnTask,
    seed: int = 0,
    max_test: int = fewshot.TEST_SIZE,
    max_dev: int | None = None,
    full: bool = False,
) -> Task:
    """Return a user's task that was read with the few-shot sets of a seed; see `load_suite`.

    Raises: ValueError if it has problems or too few examples.
    """
    card, sets = task.card, task.kept
    own_tasks.warn(task)
    try:
        if "" in sets:  # users' inputs that differ only in case are different inputs
            pool = fewshot.make_pool(sets[""], card, key=str, allow_few=True)
        else:
            pool = fewshot.own_pool(card, sets["train"], sets["test"], sets.get("dev"))
        return _task(card, pool, seed, max_test, max_dev, full)
    except ValueError as error:
        raise ValueError(f"{task.files.path}: {error}") from error


def _task(card: Card, pool: fewshot.Pool, seed: int, max_test: int, max_dev: int | None, full: bool) -> Task:
    sets = fewshot.sample(pool, card, seed)
    if full:
        held_out = {example.input for example in sets["dev"]}
        sets["train"] = tuple(example for example in pool.rows if example.input not in held_out)
    sets["dev"] = sets["dev"][:max_dev]
    return fewshot.make_task(card, seed, **sets, test=pool.test[:max_test])


def _entries(suite: str) -> list[tuple[Card, Path]]:
    """Return the cards of a suite, each with the file of its examples (which built suites do not have)."""
    files = [paths.data_dir() / "cards" / f"{name}.json" for name in CARD_FILES.get(suite, (suite,))]
    cards = [card_from(fields, file.name) for file in files for fields in read_json(file, list)]
    if suite == "encoders":
        by_id: dict[str, Card] = {}
        for card in cards:  # of a task with two cards the first, that of ipt120
            if card.category in ("cls", "tag"):
                by_id.setdefault(card.id, replace(card, shows_choices=False))
        cards = [*by_id.values()]
    return [(card, paths.data_dir() / suite / f"{card.id}.jsonl") for card in cards]


def _own(suite: str | Path, how: own_tasks.How) -> list[own_tasks.OwnTask]:
    """Return the tasks of a user's path.

    Raises: ValueError if two have the same id, one has problems, or there is neither such a path nor a suite.
    """
    path = expanded(suite)
    if not os.path.lexists(path) and path.suffix.lower() not in task_files.ENDINGS:
        raise ValueError(
            f"there is no suite {str(suite)!r}; choose one of {', '.join(SUITES)}, or give the path of a "
            f"{task_files.ENDINGS_TEXT} file or a folder of them"
        )
    tasks = own_tasks.read_all(path, how)
    file_of: dict[str, PurePath] = {}
    for task in tasks:
        name, file = task.card.id, task.files.path
        if file_of.setdefault(name, file) != file:
            raise ValueError(
                f"{file_of[name]} and {file}: two tasks have the same id {name!r}; rename a "
                "file, or give each .card.json its own id"
            )
    return tasks


def _select(ids: Sequence[str], only: Sequence[str] | None, suite: str | Path) -> Sequence[str]:
    if only is None:
        return ids
    for task_id in only:
        if task_id not in ids:
            close = get_close_matches(task_id, ids, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ";"
            if os.path.isfile(task_id):
                hint = f"; your own file is a suite: --suite {task_id} with the task {Path(task_id).stem};"
            raise ValueError(
                f"suite {suite} has no task {task_id!r}{hint} `iptkit tasks list --suite {suite}` lists its "
                f"tasks (suites: {', '.join(SUITES)}, your own file or folder)"
            )
    return only


def _check_limit(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}, allowed are integers of at least 1")
