"""Pools of the suites that are built from packages or the hub, cached as Parquet to load in a second.

The name of a file has a hash of everything it depends on: the card, the hashes of the archives, the version
of the source that reads them (and what its `depends` returns), and the version of the rules in this module.
`datasets.load_dataset("parquet", data_files=...)` can read the files, too. Their column `split` is pool or
test. The schema's metadata under the key "iptkit" holds the card, the shots per label and, for BIG-bench, the
canary of the file that the rows came from.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq

from iptkit.storage import downloads, files, messages, paths, progress
from iptkit.tasks import fewshot
from iptkit.tasks.examples import Card, Example

RULES = 1  # version of `make_pool` and of the texts made here
MAX_INPUT, MAX_TARGET = 120, 48  # SmolLM2 tokens, as estimated by `estimate_tokens`
CHARACTERS_PER_TOKEN = 3  # low on purpose: English has about 4
SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("input", pa.string()),
        ("targets", pa.list_(pa.string())),
        ("options", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Limits:
    """The maximum length of a source's texts, in tokens as estimated by `estimate_tokens`.

    is_cut: whether longer texts are cut; otherwise they are left out.
    """

    input: int
    target: int
    is_cut: bool = False

    def fit(self, text: str, limit: float) -> str:
        """Return the text, cut after a whole word if it is too long, or "" if it must not be cut."""
        if estimate_tokens(text) <= limit:
            return text
        return _beginning(text, limit) if self.is_cut else ""


def load(cards: Sequence[Card]) -> list[fewshot.Pool]:
    """Return the pools of tasks that have a source; those that are not cached are built first.

    Raises: what `downloads.fetch` raises.
    """
    missing = [card for card in cards if not cache_file(card).is_file()]
    if missing:
        build(missing)
    return [_read(cache_file(card)) for card in cards]


def build(cards: Sequence[Card]) -> None:
    """Read the archives and write the pools of these tasks, each completely or not at all."""
    downloads.fetch_all(dict.fromkeys(name for card in cards for name in card.packages))
    try:
        with progress.track("build tasks", total=len(cards), unit="task") as bar:
            for card, rows, notes in _with_rows(cards):
                test = getattr(_source(card.origin), "test_rows", lambda task_id: None)(card.id)
                test = None if test is None else examples(card, test)
                _write(fewshot.make_pool(examples(card, rows), card, test), card, notes, cache_file(card))
                bar.update(1, note=card.id)
    finally:  # forget what the sources have parsed; after an error, a corrected recipe is then read again
        for origin in {card.origin for card in cards}:
            for value in vars(_source(origin)).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def cache_file(card: Card) -> Path:
    """Return the file of a task's pool."""
    source, limits = _source(card.origin), _limits(card)
    depends = {
        "card": vars(card),
        "rules": RULES,
        "source": source.VERSION,
        "archives": [downloads.package(name).sha256 for name in card.packages],
        "sizes": [fewshot.TEST_SIZE, fewshot.POOL_SIZE, limits.input, limits.target],
    }
    if hasattr(source, "depends"):
        depends["rows"] = source.depends(card.id)
    version = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:12]
    return paths.tasks_dir() / f"{card.id}-{version}.parquet"


def examples(card: Card, rows: Iterable[dict] | None = None) -> Iterator[Example]:
    """Yield the examples made from rows (default: all of the task's source), within the source's limits."""
    limits = _limits(card)
    longest = math.inf if card.category == "tag" else limits.target  # there are as many tags as words
    for row in _source(card.origin).rows(card.id) if rows is None else rows:
        options = () if card.category == "tag" else tuple(row.get("options", card.labels))
        targets = tuple(row["targets"]) if "targets" in row else (row["target"],)
        targets = tuple(dict.fromkeys(limits.fit(target, longest) for target in targets))
        text = card.template.format(**row) + (_choices(card.category, options) if card.shows_choices else "")
        text, targets = limits.fit(text, limits.input), tuple(filter(None, targets))
        if limits.is_cut:
            options = tuple(limits.fit(option, longest) for option in options)
        if text and targets and not (limits.is_cut and len(set(options)) < len(options)):
            yield Example(text, targets, options)


def estimate_tokens(text: str) -> float:
    """Return an upper estimate of a text's SmolLM2 tokens; each digit is a token."""
    num_digits = sum(map(str.isdigit, text))
    return num_digits + (len(text) - num_digits) / CHARACTERS_PER_TOKEN


def _beginning(text: str, limit: float) -> str:
    cost, end = 0.0, 0
    for character in text:
        cost += 1 if character.isdigit() else 1 / CHARACTERS_PER_TOKEN
        if cost > limit:
            break
        end += 1
    words = text[:end].rsplit(maxsplit=1)
    is_whole = text[end : end + 1].isspace() or len(words) < 2
    return (text[:end] if is_whole else words[0]).rstrip()


def _choices(category: str, options: Iterable[str]) -> str:
    if category == "cls":
        return "\nChoices: " + ", ".join(options)
    return "\nChoices:" + "".join(f"\n- {option}" for option in options) if category == "mcqa" else ""


def _with_rows(cards: Sequence[Card]) -> Iterator[tuple[Card, Iterable[dict], dict[str, str]]]:
    """Yield each card with its rows and the notes to store with them; a large archive is read only once."""
    by_origin = defaultdict(list)
    for card in cards:
        by_origin[card.origin].append(card)
    for origin, group in by_origin.items():  # tasks of one source share what it has parsed
        source, card_of = _source(origin), {card.id: card for card in group}
        if hasattr(source, "stream"):
            for task_id, rows, notes in source.stream(card_of):
                yield card_of[task_id], rows, notes
        else:
            yield from ((card, source.rows(card.id), {}) for card in group)


def _source(origin: str) -> ModuleType:
    return importlib.import_module(f"iptkit.tasks.sources.{origin}")


def _limits(card: Card) -> Limits:
    return getattr(_source(card.origin), "LIMITS", Limits(MAX_INPUT, MAX_TARGET))


def _write(pool: fewshot.Pool, card: Card, notes: dict[str, str], file: Path) -> None:
    rows = [*(("pool", row) for row in pool.rows), *(("test", row) for row in pool.test)]
    columns = [
        [split for split, _ in rows],
        *([getattr(row, name) for _, row in rows] for name in SCHEMA.names[1:]),
    ]
    about = json.dumps({"card": vars(card), "shots": pool.shots, **notes}, ensure_ascii=False)
    table = pa.table(columns, schema=SCHEMA.with_metadata({"iptkit": about}))
    with files.atomic(file) as draft:
        pq.write_table(table, draft, compression="zstd")


def _read(file: Path) -> fewshot.Pool:
    try:
        with pq.ParquetFile(file) as stored:  # pq.read_table would first import pandas
            table = stored.read()
        shots = json.loads(table.schema.metadata[b"iptkit"])["shots"]
        splits, inputs, targets, options = (table.column(name).to_pylist() for name in SCHEMA.names)
        rows = [Example(*row) for row in zip(inputs, map(tuple, targets), map(tuple, options), strict=True)]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno:  # the operating system's error, not the file's
            raise ValueError(f"{file} cannot be read ({messages.reason(error)})") from error
        raise ValueError(
            f"{file} is damaged ({messages.visible(str(error))}); delete it and run the same command again"
        ) from error
    num_pool = splits.count("pool")
    return fewshot.Pool(rows[:num_pool], rows[num_pool:], shots)
