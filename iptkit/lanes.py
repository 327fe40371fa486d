"""Several notebooks at a time, each in a process of its own with its share of the cores.

A notebook waits for those whose steps it would otherwise make itself (`NEEDS`), which saves time only: where
two ask for the same step, store.step lets the second wait for the first. The longest chain goes first.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from iptkit import kernels
from iptkit.lessons import Lesson
from iptkit.status import Display

NEEDS = {"02": ("00",), "05": ("02",), "06": ("05",)}  # whose steps a notebook reads
LAST = "90"  # reads what all others found
KEY = "iptkit "  # in front of what a child says, as others may print too


class Children:
    """The processes that run notebooks now."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()
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
        """`kernels.run` in a process of its own.

        Args:
          variables: its environment, beside what this process has.
          The others as for `kernels.run`.
        Returns: what went wrong, "" if nothing did.
        """
        wish = {
            "path": str(lesson.path),
            "target": str(target),
            "parameters": parameters,
            "timeout_s": timeout_s,
        }
        command = [sys.executable, "-m", "iptkit.lanes", json.dumps(wish)]
        with self._lock:
            if self._is_stopped:
                return f"{lesson.path.name} was not run: another notebook failed"
            child = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables}
            )
            self._running.add(child)
        error = None
        with child:  # closes its output and waits for its end
            for line in child.stdout or ():
                said = json.loads(line.removeprefix(KEY)) if line.startswith(KEY) else {}
                if "cell" in said:
                    on_cell(*said["cell"])
                error = said.get("error", error)
        with self._lock:
            self._running.discard(child)
        if error is None:
            return f"{lesson.path.name}: the process that ran it ended with exit status {child.returncode}"
        return error

    def stop(self) -> None:
        """End what runs, as Ctrl-C would: what a step has done so far is in its checkpoint."""
        with self._lock:
            self._is_stopped = True
            for child in self._running:
                child.send_signal(signal.SIGINT)


def needs(course: Sequence[Lesson]) -> dict[str, set[str]]:
    """Names of the lessons that each of these waits for."""
    by_number = {lesson.number: lesson.name for lesson in course}
    found = {
        lesson.name: {by_number[number] for number in NEEDS.get(lesson.number, ()) if number in by_number}
        for lesson in course
    }
    if LAST in by_number:
        found[by_number[LAST]] = set(found) - {by_number[LAST]}
    return found


def run_each(
    chosen: Sequence[Lesson],
    out: Path,
    parameters: dict,
    timeout_s: int | None,
    display: Display,
    at_once: int,
) -> Iterator[tuple[Lesson, float, str]]:
    """Run lessons, one after the other in this process or several at once in others.

    Args:
      out: folder of the executed notebooks.
      parameters, timeout_s: as for `kernels.run`.
      display: shows them, and knows about how long they take.
    Yields: each with its seconds and what went wrong, as it ends. Closing the iterator stops the others.
    """
    children = Children()
    share = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // at_once)))
    }

    def work(lesson: Lesson) -> tuple[float, str]:
        display.start(lesson.name, lesson.title)
        begun, on_cell = time.time(), partial(display.cell, name=lesson.name)
        given = lesson, out / lesson.path.name, parameters, timeout_s, on_cell
        variables = {"IPTKIT_STATUS": str(display.file_of(lesson.name)), **share}
        error = kernels.run(*given) if at_once == 1 else children.run(*given, variables)
        seconds = round(time.time() - begun, 1)
        display.finish(seconds, "failed" if error else "done", lesson.name)
        return seconds, error

    if at_once == 1:
        for lesson in chosen:
            yield lesson, *work(lesson)
        return
    for lesson, result in _each(chosen, display.expected, at_once, work, children.stop):
        yield lesson, *result


def _each(
    chosen: Sequence[Lesson],
    seconds: Mapping[str, float],
    at_once: int,
    work: Callable[[Lesson], Any],
    stop: Callable[[], None],
) -> Iterator[tuple[Lesson, Any]]:
    """Do `work` for every lesson, so many at a time, in threads; yields each with its result as it ends.

    Args:
      seconds: unknown ones are taken to be equally long.
      stop: called before waiting for the others, where the caller or Ctrl-C ends it early.
    """
    waits, by_name = needs(chosen), {lesson.name: lesson for lesson in chosen}

    def chain(name: str) -> float:
        """Seconds from its begin to the end of the last that waits for it."""
        after = [other for other, before in waits.items() if name in before]
        return seconds.get(name, 1.0) + max(map(chain, after), default=0.0)

    sorter = TopologicalSorter(waits)
    sorter.prepare()
    ready: list[str] = []
    with ThreadPoolExecutor(at_once) as pool:
        running: dict[Any, str] = {}
        try:
            while sorter.is_active():
                ready = sorted([*ready, *sorter.get_ready()], key=lambda name: (-chain(name), name))
                while ready and len(running) < at_once:
                    name = ready.pop(0)
                    running[pool.submit(work, by_name[name])] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    yield by_name[name], future.result()
                    sorter.done(name)
        except BaseException:  # the consumer's end among them
            stop()
            raise


def main(text: str) -> None:
    """Run one notebook and say on standard output which cell begins, and what went wrong in the end."""

    def say(**what: Any) -> None:
        print(KEY + json.dumps(what), flush=True)

    wish = json.loads(text)
    lesson = Lesson(Path(wish["path"]))
    try:
        error = kernels.run(
            lesson,
            Path(wish["target"]),
            wish["parameters"],
            wish["timeout_s"],
            lambda number, total: say(cell=[number, total]),
        )
    except (OSError, ValueError) as problem:  # a full disk, say
        error = str(problem)
    except KeyboardInterrupt:
        error = f"{lesson.path.name} was stopped"
    say(error=error)


if __name__ == "__main__":
    main(sys.argv[1])
