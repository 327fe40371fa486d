"""Attempts to open damaged files, and their outcomes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import damage
from doors import Door, within
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from iptkit.storage.files import DiskFullError

FAULTS = ("raw error", "wrong value", "bad message")
OUTCOMES = ("read", "refused", *FAULTS)
OURS = (ValueError, FileNotFoundError, DiskFullError)
LONGEST = 20_000  # characters of a message; nobody reads more
SECONDS = 600.0  # opening a file is much faster, even on a busy machine: only a hang takes longer


@dataclass
class Outcomes:
    """The number of each outcome at one door, and the first few faults."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, what: str, fault: str = "") -> None:
        self.counts[what] += 1
        if fault and len(self.faults) < 5:
            self.faults.append(fault)


def attempt(door: Door, path: Path, content: str) -> tuple[str, str]:
    """Open a damaged file.

    Returns: one of OUTCOMES and, if it is one of FAULTS, its description.
    """
    try:
        with warnings.catch_warnings(), within(SECONDS, door.name):
            warnings.simplefilter("ignore")  # a warning about a file is as good as a refusal
            value = door.open(path)
    except Exception as error:
        text = str(error)
        if type(error) not in OURS and not (
            type(error).__module__.startswith("iptkit") and isinstance(error, OURS)
        ):
            return "raw error", f"{content}\n{traceback.format_exc()}"
        if getattr(error, "errno", None) and not isinstance(error, DiskFullError):
            return "raw error", f"{content}\n{traceback.format_exc()}"
        if not (path.name in text or path.parent.name in text):
            return "bad message", f"{content}\nthe message does not name the file: {text[:300]}"
        if len(text) > LONGEST or any(ord(c) < 32 and c not in "\n\t" for c in text):
            return "bad message", f"{content}\n{len(text)} characters, or control characters: {text[:300]!r}"
        return "refused", ""
    try:
        if path.is_file():
            door.holds(path, value)
        else:
            assert not os.path.lexists(path), "it is not a file, but was skipped without a message"
    except Exception:
        return "wrong value", f"{content}\n{traceback.format_exc()}"
    return "read", ""


def attack(door: Door, count: int, number: int = 0) -> Outcomes:
    """Open `count` damaged files, and one of each kind of damage.PLACES; `number` seeds the draw."""
    outcomes = Outcomes()
    with tempfile.TemporaryDirectory(prefix="iptkit-attack-") as place:
        good = Path(place) / "good"
        good.mkdir()
        path = door.write(good)
        original, inside = path.read_bytes(), path.relative_to(good)
        assert attempt(door, path, "the good file") == ("read", ""), attempt(door, path, "the good file")

        def one(change: Any, content: str) -> None:
            with fresh(good, Path(place) / "of-this-attempt") as folder:
                change(folder / inside)
                outcomes.add(*attempt(door, folder / inside, content))

        for what in damage.PLACES:
            one(lambda file, what=what: damage.put_in_place_of(file, what), f"{what} instead of the file")

        @seed(number)
        @settings(
            max_examples=count,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data())
        def run(data: Any) -> None:
            bad = data.draw(door.damages(original))
            one(lambda file: file.write_bytes(bad), repr(bad[:600]))

        run()
    return outcomes


@contextlib.contextmanager
def fresh(good: Path, folder: Path) -> Any:
    """Yield a copy of the good files, removed afterwards."""
    shutil.copytree(good, folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
