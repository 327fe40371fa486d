"""The status line of a run: how far it is and how long it will take.

At a terminal the line is rewritten in place; elsewhere it is printed from time to time. Notebooks run in
other processes and report through status files (see `progress`).
"""
# By choice without rich: its Live display draws nothing outside a terminal, so the thread that prints plain
# lines there would stay, and rewriting one line at a terminal takes less code than setting up Live.

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

from iptkit.course.estimates import clock, run_left, step_left
from iptkit.storage import messages, progress

SECONDS_BETWEEN_LINES = 15.0
REFRESH_SECONDS = {True: 0.5, False: 1.0}  # at a terminal, elsewhere


@dataclass
class Piece:
    """A notebook, or another piece of work, that is running.

    Attributes:
      title: its name on the status line.
      file: the status file that it writes.
      started: time when it began.
      part: the part of it that is running, in words.
      part_started: time when that part began.
    """

    title: str
    file: Path
    started: float
    part: str = ""
    part_started: float = 0.0

    def state(self) -> dict[str, Any] | None:
        """The state that it reported last, or None if that is the end of an earlier part."""
        found = progress.read_status(self.file)
        if found is None:
            return None
        is_over = found["total"] is not None and found["done"] >= found["total"]
        return None if is_over and found["time"] < self.part_started else found


class Display:
    """Shows the status line from its own thread while the caller runs notebooks.

    Args:
      names: the notebooks of this run in order, named as in `expected`.
      expected: seconds of each notebook on the reference machine; may be empty.
      status_file: the file that notebooks report to; if several run at a time, see `file_of`.
      stream: where to write (default: stdout).
      at_once: how many notebooks run at a time.
      needs: the notebooks that a notebook waits for, if several run at a time.
    """

    def __init__(
        self,
        names: Sequence[str],
        expected: Mapping[str, float],
        status_file: Path,
        stream: TextIO | None = None,
        at_once: int = 1,
        needs: Mapping[str, Collection[str]] = MappingProxyType({}),
    ):
        self._names, self.expected, self._file = list(names), expected, status_file
        self._at_once, self._needs = at_once, needs
        self._stream = stream or sys.stdout
        self._is_terminal = self._stream.isatty()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)
        self._finished: dict[str, float] = {}
        self._running: dict[str, Piece] = {}
        self._last, self._said = "", time.time()

    def __enter__(self) -> Display:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._erase()

    def file_of(self, name: str) -> Path:
        """The status file of a piece of work."""
        is_alone = self._at_once == 1 or name not in self._names  # downloads, in this process
        return self._file if is_alone else self._file.with_name(f"{name}.json")

    def start(self, name: str, title: str) -> None:
        """Show that a notebook, or another piece of work, begins."""
        file, now = self.file_of(name), time.time()
        file.unlink(missing_ok=True)
        with self._lock:
            self._running[name], self._last = Piece(title, file, now, "", now), name
            self._said = now
        if not self._is_terminal:
            self.say(f"{title} | started")

    def cell(self, number: int, total: int, name: str = "") -> None:
        """Show that a cell of a running notebook begins (default: of the one that began last)."""
        self.part(f"cell {number}/{total}", name)

    def part(self, text: str, name: str = "") -> None:
        """Show which part of a running piece begins (default: of the one that began last)."""
        with self._lock:
            piece = self._running[name or self._last]
            piece.part, piece.part_started = text, time.time()

    def finish(self, seconds: float, word: str = "done", name: str = "") -> None:
        """Print that a running piece is finished (default: the one that began last)."""
        name = name or self._last
        with self._lock:
            self._finished[name] = seconds
            piece = self._running.pop(name)
        self.say(f"{piece.title} | {word} in {clock(seconds)}")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        with self._lock:
            self._erase()
            self._stream.write(f"{messages.visible(text)}\n")  # an error of a notebook may hold anything
            self._stream.flush()
            self._said = time.time()

    def line(self, now: float) -> str:
        """The status line at time `now`; empty if nothing runs."""
        states = {name: piece.state() for name, piece in self._running.items()}
        estimates = {name: step_left(state, now) for name, state in states.items()}
        steps = {name: step for name, step in estimates.items() if step is not None}
        whole = self._run_left(now, steps)
        parts = []
        for name, piece in self._running.items():
            step = steps.get(name)
            parts += [piece.title, piece.part, describe(states[name])]
            parts.append("" if step is None else f"{clock(step)} left")
            parts.append(f"{clock(now - piece.started)} so far" if step is None and whole is None else "")
        parts.append("" if whole is None or not self._running else f"whole run ~{clock(whole)} left")
        return messages.visible(" | ".join(part for part in parts if part))

    def _run_left(self, now: float, steps: Mapping[str, float]) -> float | None:
        waiting = [name for name in self._names if name not in self._finished]
        elapsed = {name: now - piece.started for name, piece in self._running.items()}
        whole = run_left(self.expected, self._finished, waiting, elapsed, steps, self._at_once, self._needs)
        before = sum(step for name, step in steps.items() if name not in self._names)  # downloads
        return None if whole is None else whole + before

    def _repeat(self) -> None:
        while not self._stop.wait(REFRESH_SECONDS[self._is_terminal]):
            with self._lock:
                now = time.time()
                text = self.line(now)
                if not text:
                    continue
                if self._is_terminal:
                    width = shutil.get_terminal_size().columns - 1
                    self._stream.write(f"\r{text[:width]}\x1b[K")
                    self._stream.flush()
                elif now - self._said >= SECONDS_BETWEEN_LINES:
                    self._stream.write(f"{text}\n")
                    self._stream.flush()
                    self._said = now

    def _erase(self) -> None:
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def describe(state: Mapping[str, Any] | None) -> str:
    """A status in words, for example "fit 36 tasks 120/300, loss 1.23"."""
    if state is None:
        return ""
    factor, unit, form = (1e6, " MB", ".1f") if state["unit"] == "B" else (1, "", ".0f")
    amount = format(state["done"] / factor, form)
    if state["total"] is not None:
        amount = f"{amount}/{format(state['total'] / factor, form)}"
    return f"{state['label']} {amount}{unit}" + (f", {state['note']}" if state["note"] else "")
