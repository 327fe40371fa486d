"""Progress of long work: the only place that shows it.

A notebook that the pipeline runs writes its state to the file $IPTKIT_STATUS, which the pipeline displays.
A user at a terminal or in Jupyter sees a bar, which is gone once the work is done. Everything else stays
silent. $IPTKIT_QUIET=1 turns bars off.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iptkit.storage import files

SECONDS_BETWEEN_WRITES = 1.0
COLUMNS = 100  # of a bar in a notebook


class Bar:
    """Counts the units that are done; made by `track`."""

    def __init__(self, label: str, total: int | None, unit: str, initial: int):
        self.label, self.total, self.unit, self.done, self.note = label, total, unit, initial, ""
        self._initial, self._started, self._written = initial, time.time(), 0.0
        status = os.environ.get("IPTKIT_STATUS")
        self._file = Path(status) if status else None
        self._bar = None if self._file or not _can_draw() else self._draw()
        self._write()

    def update(self, n: int = 1, note: str = "") -> None:
        """Count n more units as done.

        Args:
          n: units since the last call, 0 or more (0 only changes the note).
          note: a few words about the state, for example "loss 1.23".
        """
        self.done += n
        self.note = note or self.note
        if self._bar is not None:
            self._bar.set_postfix_str(self.note, refresh=False)
            self._bar.update(n)
        elif self._file and time.time() - self._written >= SECONDS_BETWEEN_WRITES:
            self._write()

    def close(self) -> None:
        """Write the last state and remove the bar."""
        if self._bar is not None:
            self._bar.close()
        self._write()

    def _draw(self) -> Any:
        from tqdm.std import tqdm

        class InCell(tqdm):
            """A bar in the output of a cell, where tqdm's own would leave a strip of stderr or a widget."""

            def display(self, msg: str | None = None, pos: int | None = None) -> None:
                _show_in_cell(str(self) if msg is None else msg)

        is_in_cell = in_kernel()
        return (InCell if is_in_cell else tqdm)(
            desc=self.label,
            total=self.total,
            initial=self._initial,
            unit=self.unit,
            unit_scale=self.unit == "B",
            leave=False,
            mininterval=0.5,
            file=io.StringIO() if is_in_cell else None,
            ncols=COLUMNS if is_in_cell else None,
            dynamic_ncols=not is_in_cell,
        )

    def _write(self) -> None:
        if self._file is None:
            return
        if not self._file.parent.is_dir():  # the pipeline has ended and removed it
            self._file = None
            return
        self._written = time.time()
        state = {
            "label": self.label,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "note": self.note,
            "initial": self._initial,
            "started": self._started,
            "time": self._written,
        }
        try:
            with files.atomic(self._file, is_flushed=False) as draft:
                draft.write_text(json.dumps(state), encoding="utf-8")
        except (
            PermissionError
        ):  # on Windows, while the display reads the file; the next state will be written
            pass
        except OSError:  # a full disk must not end hours of training
            self._file = None


@contextmanager
def track(label: str, total: int | None = None, unit: str = "step", initial: int = 0) -> Iterator[Bar]:
    """Show the progress of a block of work.

    Args:
      label: what is being done, for example "fit 36 tasks".
      total: number of units, or None if unknown.
      unit: name of one unit: "step", "task", or "B" for bytes.
      initial: units done by an earlier, interrupted run; they do not count for the speed.
    Returns: a context manager that yields a `Bar`.

    >>> with track("prompt tuning", total=2) as bar:
    ...     bar.update(1, note="loss 1.23")
    """
    bar = Bar(label, total, unit, initial)
    try:
        yield bar
    finally:
        bar.close()


def read_status(path: str | Path) -> dict[str, Any] | None:
    """The state in a status file that `track` wrote.

    Returns: its fields, or None if the file is absent, unreadable, incomplete or no status file.
    """
    try:
        state = json.loads(Path(path).read_text(encoding="utf-8"))
        words = {key: str(state[key]) for key in ("label", "unit", "note")}
        numbers = {key: float(state[key]) for key in ("done", "initial", "started", "time")}
        total = None if state["total"] is None else float(state["total"])
        is_finite = all(math.isfinite(number) for number in (*numbers.values(), total or 0.0))
        return {**words, **numbers, "total": total} if is_finite else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


_places: dict[int, Any] = {}  # number of the cell that runs in this kernel -> handle of its line for bars


def _show_in_cell(line: str) -> None:
    """Show a line in the output of the running cell, in place of the one before; "" takes it away."""
    from IPython import get_ipython
    from IPython.display import display

    cell = get_ipython().execution_count
    if cell in _places:
        _places[cell].update({"text/plain": line}, raw=True)
    elif line:
        _places.clear()
        _places[cell] = display({"text/plain": line}, raw=True, display_id=True)


def _can_draw() -> bool:
    if os.environ.get("IPTKIT_QUIET"):
        return False
    return in_kernel() or bool(sys.stderr and sys.stderr.isatty())


def in_kernel() -> bool:
    """Whether this process is a Jupyter kernel."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return getattr(get_ipython() if get_ipython else None, "kernel", None) is not None
