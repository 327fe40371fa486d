"""Child processes that run notebooks, each one notebook after another.

A child reads requests from its standard input, one per line. On its standard output it reports each cell that
begins and, at the end, what went wrong. It ends when its standard input is closed, so at the latest when its
parent ends. `Children` is the parent's side, `main` the child's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from iptkit.course import execution
from iptkit.course.execution import STOPPED
from iptkit.course.lessons import Lesson

GRACE = 60.0  # seconds that a child has to end its kernel before it is killed
KEY = "iptkit "  # begins a line that a child reports; other code may print, too


class Children:
    """The child processes of one run of the course."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._idle: list[subprocess.Popen[str]] = []
        self._lock, self._is_stopped = threading.Lock(), False

    def run(
        self,
        lesson: Lesson,
        target: Path,
        parameters: dict[str, Any],
        timeout_s: int | None,
        on_cell: Callable[[int, int], None],
        variables: Mapping[str, str],
    ) -> str:
        """Run a notebook as `execution.run` does, in an idle child or a new one.

        Args:
          lesson: the notebook.
          target: where the executed notebook is written.
          parameters: values for the cell tagged `parameters`.
          timeout_s: the longest that one cell may take in seconds; None for no limit.
          on_cell: called when a code cell begins, with its number and the number of all code cells.
          variables: environment variables to set in the child.
        Returns: what went wrong, "" if nothing did, STOPPED if it was stopped.
        """
        request = {
            "path": str(lesson.path),
            "target": str(target),
            "parameters": parameters,
            "timeout_s": timeout_s,
            "variables": {**variables},
        }
        with self._lock:
            if self._is_stopped:
                return STOPPED
            while self._idle and self._idle[-1].poll() is not None:  # killed while it was idle
                self._end(self._idle.pop())
            child = self._idle.pop() if self._idle else self._started()
            self._running.add(child)
            with suppress(OSError):  # it has died, which is reported below
                print(json.dumps(request), file=_pipe(child.stdin), flush=True)
        error = None
        for line in _pipe(child.stdout):
            said = json.loads(line.removeprefix(KEY)) if line.startswith(KEY) else {}
            if "cell" in said:
                on_cell(*said["cell"])
            if "error" in said:
                error = said["error"]
                break
        with self._lock:
            self._running.discard(child)
            if error is not None and not self._is_stopped:
                self._idle.append(child)
                return error
        self._end(child)
        if error is None and not self._is_stopped:
            return f"{lesson.path.name}: the process that ran it ended with exit status {child.returncode}"
        return STOPPED if error is None else error

    def stop(self) -> None:
        """Interrupt the running children as Ctrl-C would, and kill them after GRACE; checkpoints stay."""
        with self._lock:
            self._is_stopped = True
            for child in self._running:
                with suppress(OSError):  # from a request that it never read
                    _pipe(child.stdin).close()
                killer = threading.Timer(GRACE, child.kill)
                killer.daemon = True
                killer.start()

    def close(self) -> None:
        """End the idle children."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            self._end(child)

    @staticmethod
    def _started() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "iptkit.course.processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # so that Ctrl-C reaches only the parent, which then stops the child
        )

    @staticmethod
    def _end(child: subprocess.Popen[str]) -> None:
        with suppress(OSError):
            _pipe(child.stdin).close()
        child.wait()
        _pipe(child.stdout).close()


def _pipe(stream: IO[str] | None) -> IO[str]:
    """A standard stream of a child, which is always a pipe here."""
    assert stream is not None
    return stream


def main() -> None:
    """Run the notebooks that standard input requests, one per line, until it is closed.

    Reports on standard output each cell that begins and, at the end of each notebook, what went wrong.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a background shell ignore it
    requests: SimpleQueue[str | None] = SimpleQueue()
    is_busy, is_alone = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(requests, is_busy, is_alone), daemon=True).start()
    with suppress(KeyboardInterrupt, BrokenPipeError):  # the latter if its parent was killed
        while text := requests.get():
            is_busy.set()
            if is_alone.is_set():
                return
            error = _run(json.loads(text))
            is_busy.clear()
            _report(error=error)


def _run(request: dict[str, Any]) -> str:
    os.environ.update(request["variables"])
    try:
        return execution.run(
            Lesson(Path(request["path"])),
            Path(request["target"]),
            request["parameters"],
            request["timeout_s"],
            lambda number, total: _report(cell=[number, total]),
        )
    except (OSError, ValueError) as problem:  # for example a full disk
        return str(problem)
    except KeyboardInterrupt:
        return STOPPED


def _report(**what: Any) -> None:
    print("\n" + KEY + json.dumps(what), flush=True)  # a kernel's output may lack its line end


def _listen(requests: SimpleQueue, is_busy: threading.Event, is_alone: threading.Event) -> None:
    """Pass requests on; interrupt this process when its standard input is closed."""
    for line in sys.stdin:
        requests.put(line)
    is_alone.set()
    requests.put(None)
    if is_busy.is_set():
        if os.name == "posix":
            os.kill(os.getpid(), signal.SIGINT)  # also reaches a main thread that waits for its kernel
        else:
            os._exit(1)  # the kernel notices that its parent is gone


if __name__ == "__main__":
    main()
