"""Other processes that run notebooks, one after the other each: the parent's side, and theirs (`main`).

A child reads wishes from its standard input, a line each, and says on its standard output which cell begins
and what went wrong in the end. It ends when its standard input is closed, so with its parent at the latest.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from iptkit.course import lessons
from iptkit.course.lessons import Lesson
from iptkit.storage import files, installation, paths

KERNEL = lessons.KERNEL["name"]
START_TIMEOUT = 180  # seconds for a kernel to start; a busy machine takes long
IOPUB_TIMEOUT = 120  # seconds for a cell's output to arrive after the cell is done
ERROR_LENGTH = 600  # characters of an error that are told; the notebook holds it all


def check() -> None:
    """Make sure that notebooks can be run here, before anything is computed.

    Raises: ImportError for a package that is missing or broken, ValueError for a kernel that is.
    """
    import papermill
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    papermill.execute_notebook  # noqa: B018 - not there in a package of which only the folder is left
    try:
        with paths.variables(JUPYTER_PREFER_ENV_PATH="1"):  # as `pipeline` has it for the notebooks
            python = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except (NoSuchKernel, IndexError) as error:
        raise ValueError(
            f"Jupyter knows no kernel {KERNEL!r}, which runs the notebooks; the package ipykernel brings it: "
            f"{installation.command(*installation.of_course())}"
        ) from error
    if shutil.which(python) is None:
        raise ValueError(
            f"Jupyter's kernel {KERNEL!r} is to run with {python}, which is not there (was it moved?); "
            "make it anew with: python -m ipykernel install --sys-prefix"
        )


def run(
    lesson: Lesson, target: Path, parameters: dict, timeout_s: int | None, on_cell: Callable[[int, int], None]
) -> str:
    """Run a notebook from its first cell to its last or to an error.

    Args:
      lesson: the notebook.
      target: where the executed notebook is written, cell by cell.
      parameters: values for the cell tagged `parameters`.
      timeout_s: the longest that one cell may take in seconds; None for no limit.
      on_cell: called with the number of a code cell and the number of all when it begins.
    Returns: what went wrong, "" if nothing did.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.iorw import LocalHandler, papermill_io

    class Whole(LocalHandler):
        """Each save of the notebook takes the place of the last one when it is written: none is cut."""

        def write(self, buf, path):
            with files.atomic(Path(path)) as draft:
                draft.write_text(buf, encoding="utf-8")

    papermill_io.register(str(target), Whole())
    for name in ("papermill", "asyncio"):  # what fails is told once, below
        logging.getLogger(name).setLevel(logging.CRITICAL)
    counts = {"begun": 0, "all": lesson.num_code_cells + 1}  # papermill adds a cell of parameters

    def on_cell_start(cell, cell_index):
        if cell.cell_type == "code" and cell.source.strip():
            counts["begun"] += 1
            on_cell(counts["begun"], counts["all"])

    try:
        with files.room_for(target):
            papermill.execute_notebook(
                lessons.literal(lesson.path),
                lessons.literal(target),
                parameters,
                kernel_name=KERNEL,
                progress_bar=False,
                start_timeout=START_TIMEOUT,
                cwd=lesson.path.parent,
                execution_timeout=timeout_s,
                iopub_timeout=IOPUB_TIMEOUT,
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                on_cell_start=on_cell_start,
                shutdown_kernel="immediate",  # what it found is stored; taking down gigabytes takes seconds
            )
    except papermill.PapermillExecutionError as error:
        reason = f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        reason = f"the cell took longer than {timeout_s} s; allow more with --cell-timeout"
    except DeadKernelError:
        reason = (
            "its Python died, most likely for want of memory: close other programs or use a smaller --scale"
        )
    except RuntimeError as error:  # jupyter's kernel did not start, or did not answer
        reason = f"its Python does not answer: {error}"
    else:
        return ""
    if len(reason) > ERROR_LENGTH:
        reason = f"{reason[:ERROR_LENGTH]} ..."
    where = f"code cell [{counts['begun']}]"
    return f"{lesson.path.name} failed in {where}: {reason}\nThe notebook up to there: {target}"


STOPPED = "stopped"
GRACE = 60.0  # seconds that a stopped process has to end its kernel
KEY = "iptkit "  # in front of what a child says, as others may print too


class Children:
    """The processes of one run of the course."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()
        self._idle: list[subprocess.Popen] = []
        self._lock, self._is_stopped = threading.Lock(), False

    def run(
        self,
        lesson: Lesson,
        target: Path,
        parameters: dict,
        timeout_s: int | None,
        on_cell: Callable[[int, int], None],
        variables: Mapping[str, str],
    ) -> str:
        """`kernels.run` in another process, one that has nothing to do or a new one.

        Args:
          variables: its environment, beside what the process has.
          The others as for `kernels.run`.
        Returns: what went wrong, "" if nothing did, STOPPED if it was stopped.
        """
        wish = {
            "path": str(lesson.path),
            "target": str(target),
            "parameters": parameters,
            "timeout_s": timeout_s,
            "variables": {**variables},
        }
        with self._lock:
            if self._is_stopped:
                return STOPPED
            while self._idle and self._idle[-1].poll() is not None:  # killed while it had nothing to do
                self._end(self._idle.pop())
            child = self._idle.pop() if self._idle else self._started()
            self._running.add(child)
            with suppress(OSError):  # it is gone, which is told below
                print(json.dumps(wish), file=child.stdin, flush=True)
        error = None
        for line in child.stdout or ():
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
        """End what runs as Ctrl-C would (what a step has done is in its checkpoint), after GRACE by force."""
        with self._lock:
            self._is_stopped = True
            for child in self._running:
                with suppress(OSError):  # of a wish that it did not take any more
                    child.stdin.close()
                killer = threading.Timer(GRACE, child.kill)
                killer.daemon = True
                killer.start()

    def close(self) -> None:
        """End those that have nothing to do."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            self._end(child)

    @staticmethod
    def _started() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "iptkit.course.processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C comes here first, and from here to it, once
        )

    @staticmethod
    def _end(child: subprocess.Popen) -> None:
        with suppress(OSError):
            child.stdin.close()
        child.wait()
        child.stdout.close()


def main() -> None:
    """Run the notebooks that standard input asks for, a line each, until it is closed.

    Says on standard output which cell begins, and in the end of each what went wrong.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's children ignore it
    wishes: SimpleQueue[str | None] = SimpleQueue()
    is_busy, is_alone = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(wishes, is_busy, is_alone), daemon=True).start()
    with suppress(KeyboardInterrupt, BrokenPipeError):  # the latter: its parent was killed
        while text := wishes.get():
            is_busy.set()
            if is_alone.is_set():
                return
            error = _run(json.loads(text))
            is_busy.clear()
            _say(error=error)


def _run(wish: dict[str, Any]) -> str:
    os.environ.update(wish["variables"])
    try:
        return run(
            Lesson(Path(wish["path"])),
            Path(wish["target"]),
            wish["parameters"],
            wish["timeout_s"],
            lambda number, total: _say(cell=[number, total]),
        )
    except (OSError, ValueError) as problem:  # a full disk, say
        return str(problem)
    except KeyboardInterrupt:
        return STOPPED


def _say(**what: Any) -> None:
    print("\n" + KEY + json.dumps(what), flush=True)  # what a kernel wrote may have no end of line


def _listen(wishes: SimpleQueue, is_busy: threading.Event, is_alone: threading.Event) -> None:
    """Hand on what is asked for; interrupt this process when nobody holds its standard input any more."""
    for line in sys.stdin:
        wishes.put(line)
    is_alone.set()
    wishes.put(None)
    if is_busy.is_set():
        if os.name == "posix":
            os.kill(os.getpid(), signal.SIGINT)  # reaches a main thread that waits for its kernel
        else:
            os._exit(1)  # the kernel sees that its parent is gone


if __name__ == "__main__":
    main()
