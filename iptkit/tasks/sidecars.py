"""The card file beside a user's task: fields of the task's card, and how its files are read.

It is NAME.card.json next to the file NAME.jsonl (.csv, ...). For a folder it is card.json or NAME.card.json
in the folder, or NAME.card.json next to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from iptkit.storage import reading
from iptkit.tasks import columns, record_files, schemes
from iptkit.tasks.fields import MAX_INPUT, MAX_TARGET

NEAR, SCHEME = "near_duplicates", "scheme"
KINDS = tuple(dict.fromkeys(record_files.FORMATS.values()))
SPLITS = ("train", "dev", "test")


def _are_files(value: object) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= {*SPLITS}
        and all(isinstance(v, str) for v in value.values())
    )


def _are_names(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(v, str) and v.strip() for v in value.values())
    )


def _is_limit(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


SETTINGS: dict[
    str, tuple[Callable[[Any], bool], str]
] = {  # what a card says about reading, and what is allowed
    NEAR: (lambda value: value in ("keep", "drop"), '"keep", "drop"'),
    SCHEME: (
        lambda value: value in ("auto", *schemes.SCHEMES),
        ", ".join(("auto", *schemes.SCHEMES)),
    ),
    "columns": (lambda value: isinstance(value, str | dict), '"input=...,target=..."'),
    "drop_duplicates": (lambda value: isinstance(value, bool), "true, false"),
    "files": (_are_files, '{"train": "...", "dev": "...", "test": "..."}'),
    "format": (lambda value: value in KINDS, ", ".join(KINDS)),
    "comment": (lambda value: isinstance(value, str), "a text"),
    "label_names": (_are_names, '{"0": "bad", "1": "good"}'),
    "max_input": (_is_limit, "integers of at least 1"),
    "max_target": (_is_limit, "integers of at least 1"),
}


@dataclass(frozen=True)
class Sidecar:
    """What a card file says about a task.

    Attributes:
      path: the card file, which need not exist.
      settings: its fields that say how the files are read (the names in SETTINGS).
      fields: its other fields, those of a `Card`.
    """

    path: PurePath
    settings: Mapping[str, Any]
    fields: Mapping[str, Any]

    @property
    def is_tag(self) -> bool:
        """Whether it says that the task has a tag for every word."""
        return self.fields.get("category") == "tag"

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of the roles that it names."""
        try:
            return columns.checked(self.settings.get("columns", {}))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    @property
    def scheme(self) -> str:
        """The scheme that it names or that its metric implies."""
        return self.settings.get(SCHEME) or (
            "none" if self.fields.get("metric") == "tag_accuracy" else "auto"
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Its labels, () if it has none that are a list of texts."""
        given = self.fields.get("labels")
        return tuple(filter(None, map(str, given))) if isinstance(given, list) else ()

    @property
    def max_input(self) -> int:
        """The longest input allowed, in characters."""
        return self.settings.get("max_input", MAX_INPUT)

    @property
    def max_target(self) -> int:
        """The longest answer or option allowed, in characters."""
        return self.settings.get("max_target", MAX_TARGET)


def read(path: str | PurePath) -> Sidecar:
    """Return what a card file says; nothing if there is no such file.

    Raises: ValueError that names the file, and the field if one about reading is wrong.
    """
    return of_fields(path, reading.read_json(Path(path)) if os.path.lexists(path) else {})


def of_fields(path: str | PurePath, given: Mapping[str, Any]) -> Sidecar:
    """Return what the fields of a card say; `path` is its file, for errors.

    Raises: ValueError as `read` does.
    """
    for name, (fits, allowed) in SETTINGS.items():
        if name in given and not _fits(fits, given[name]):
            raise ValueError(f"{path}: {name} is {given[name]!r:.80}, allowed are: {allowed}")
    return Sidecar(
        PurePath(path),
        {name: value for name, value in given.items() if name in SETTINGS},
        {name: value for name, value in given.items() if name not in SETTINGS},
    )


def beside(file: str | Path) -> Path:
    """Return the path of the card of a file."""
    return Path(file).with_name(f"{Path(file).stem}.card.json")


def of_folder(folder: str | Path) -> Path:
    """Return the path of the card of a folder, which need not exist."""
    folder = Path(folder)
    name = folder.absolute().name
    places = (
        folder / "card.json",
        folder / f"{name}.card.json",
        folder.absolute().with_name(f"{name}.card.json"),
    )
    return next((place for place in places if os.path.lexists(place)), places[0])


def _fits(fits: Callable[[Any], bool], value: Any) -> bool:
    try:
        return fits(value)
    except TypeError:  # a list is in no set
        return False
