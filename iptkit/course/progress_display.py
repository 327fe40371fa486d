"""How far a run is and how long it will take: one line, rewritten at a terminal, repeated at times elsewhere.

The notebooks run in another process and report through a status file (see progress); expected times per
notebook come from data/timings.json and are corrected by the speed of the notebooks that are already done.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from iptkit.storage import messages, progress

SECONDS_BETWEEN_LINES = 15.0
REFRESH_SECONDS = {True: 0.5, False: 1.0}  # at a terminal, elsewhere
FEWEST_SECONDS = 3.0  # of work, before a speed means something
SPEED_LIMITS = (0.2, 5.0)
CACHED = 0.25  # a notebook done in less than this part of its expected time was served from the step cache


def clock(seconds: float) -> str:
    """Write a time as people do.

    >>> clock(45), clock(370), clock(3725)
    ('0:45', '6:10', '1:02:05')
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def step_left(state: Mapping | None, now: float) -> float | None:
    """Estimate the seconds left in a step from its speed so far.

    Args:
      state: what `progress.read_status` gave.
      now: current time in seconds since 1970.
    Returns: seconds, or None while nothing can be said.
    """
    if state is None or not state["total"] or state["done"] >= state["total"]:
        return None
    worked, done = state["time"] - state["started"], state["done"] - state["initial"]
    if worked < FEWEST_SECONDS or done <= 0:
        return None
    return max(0.0, (state["total"] - state["done"]) * worked / done - max(0.0, now - state["time"]))


def run_left(
    expected: Mapping[str, float],
    finished: Mapping[str, float],
    waiting: Sequence[str],
    elapsed: Mapping[str, float],
    steps: Mapping[str, float] = MappingProxyType({}),
    at_once: int = 1,
    needs: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> float | None:
    """Estimate the seconds left in the whole run: the work shared out, or the longest chain of notebooks.

    Args:
      expected: measured seconds of each notebook on the reference machine.
      finished: seconds that each finished notebook took here.
      waiting: names of the running notebooks and of those after them.
      elapsed: seconds that each running one has taken so far.
      steps: seconds left in their current steps, where known.
      at_once: how many run at a time.
      needs: those that a notebook waits for.
    Returns: seconds, or None if a waiting notebook has no expected time.
    """
    if not waiting or any(name not in expected for name in waiting):
        return None
    known = [n for n in finished if n in expected and finished[n] >= CACHED * expected[n]]
    speed = sum(finished[n] for n in known) / sum(expected[n] for n in known) if known else 1.0
    speed = min(max(speed, SPEED_LIMITS[0]), SPEED_LIMITS[1])
    left = {n: max(speed * expected[n] - elapsed.get(n, 0.0), steps.get(n, 0.0), 0.0) for n in waiting}

    def chain(name: str) -> float:
        return left[name] + max((chain(n) for n in needs.get(name, ()) if n in left), default=0.0)

    return max(sum(left.values()) / at_once, *map(chain, left))


@dataclass
class Piece:
    """A notebook (or another piece of work) that runs: its title, its status file, and since when.

    `part` is what of it runs, since `part_started`.
    """

    title: str
    file: Path
    started: float
    part: str = ""
    part_started: float = 0.0

    def state(self) -> dict | None:
        """What it reported last, unless that is left over from an earlier part."""
        found = progress.read_status(self.file)
        is_over = found is not None and found["total"] is not None and found["done"] >= found["total"]
        return None if is_over and found["time"] < self.part_started else found


class Display:
    """Shows the status line from a thread of its own while the caller runs notebooks.

    Args:
      names: the notebooks of this run in order, as in `expected`.
      expected: seconds of each notebook on the reference machine; may be empty.
      status_file: where the notebooks report; where several run at once, each beside it (see `file_of`).
      stream: where to write (default: stdout).
      at_once: how many run at a time.
      needs: those that a notebook waits for, then.
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

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()
        self._erase()

    def file_of(self, name: str) -> Path:
        """Where a piece reports."""
        is_alone = self._at_once == 1 or name not in self._names  # downloads, in this process
        return self._file if is_alone else self._file.with_name(f"{name}.json")

    def start(self, name: str, title: str) -> None:
        """Say that a notebook (or another piece of work) begins."""
        file, now = self.file_of(name), time.time()
        file.unlink(missing_ok=True)
        with self._lock:
            self._running[name], self._last = Piece(title, file, now, "", now), name
            self._said = now
        if not self._is_terminal:
            self.say(f"{title} | started")

    def cell(self, number: int, total: int, name: str = "") -> None:
        """Say that a cell of a running notebook begins (default: of the one that began last)."""
        self.part(f"cell {number}/{total}", name)

    def part(self, text: str, name: str = "") -> None:
        """Say which part of a running piece begins."""
        with self._lock:
            piece = self._running[name or self._last]
            piece.part, piece.part_started = text, time.time()

    def finish(self, seconds: float, word: str = "done", name: str = "") -> None:
        """Say that a running piece is finished."""
        name = name or self._last
        with self._lock:
            self._finished[name] = seconds
            piece = self._running.pop(name)
        self.say(f"{piece.title} | {word} in {clock(seconds)}")

    def say(self, text: str) -> None:
        """Write a line that stays."""
        with self._lock:
            self._erase()
            self._stream.write(f"{messages.visible(text)}\n")  # an error of a notebook may hold anything
            self._stream.flush()
            self._said = time.time()

    def line(self, now: float) -> str:
        """Return the status line of this moment, empty if nothing runs."""
        states = {name: piece.state() for name, piece in self._running.items()}
        told = {name: step_left(state, now) for name, state in states.items()}
        steps = {name: step for name, step in told.items() if step is not None}
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


def describe(state: Mapping | None) -> str:
    """Write a status in words: "fit 36 tasks 120/300, loss 1.23"."""
    if state is None:
        return ""
    factor, unit, form = (1e6, " MB", ".1f") if state["unit"] == "B" else (1, "", ".0f")
    amount = format(state["done"] / factor, form)
    if state["total"] is not None:
        amount = f"{amount}/{format(state['total'] / factor, form)}"
    return f"{state['label']} {amount}{unit}" + (f", {state['note']}" if state["note"] else "")
