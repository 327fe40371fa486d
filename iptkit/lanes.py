"""Several notebooks at a time, each in another process with its share of the cores.

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
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from iptkit import kernels
from iptkit.allocator import machine_memory
from iptkit.lessons import Lesson
from iptkit.status import Display, run_left

NEEDS = {"02": ("00",), "05": ("02",), "06": ("05",)}  # whose steps a notebook reads
LAST = "90"  # reads what all others found
STOPPED = "stopped"
SLOWER = 1.5  # times as long a notebook takes beside another one, with half of the cores
SHARE = 2 / 3  # of the machine's memory, the most that two notebooks may take unasked
OTHERS = 4 * 2**30  # bytes that a notebook's process takes beside the texts that it keeps
GRACE = 60.0  # seconds that a stopped process has to end its kernel
KEY = "iptkit "  # in front of what a child says, as others may print too


class Children:
    """Processes that run notebooks, each one after the other. Each ends when this one closes its standard
    input, or is gone."""

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
          variables: its environment, beside what this process has.
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
            child = self._idle.pop() if self._idle else self._started(variables)
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
    def _started(variables: Mapping[str, str]) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "iptkit.lanes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **variables},
            start_new_session=True,  # Ctrl-C comes here first, and from here to it, once
        )

    @staticmethod
    def _end(child: subprocess.Popen) -> None:
        with suppress(OSError):
            child.stdin.close()
        child.wait()
        child.stdout.close()


def fitting(course: Sequence[Lesson], expected: Mapping[str, float], context_gib: float, device: str) -> int:
    """How many notebooks run at a time where nobody says: two where that ends sooner and fits, else one.

    More would not end sooner: half of the course is one chain (`NEEDS`). Two on one GPU were never tried.

    Args:
      course: the notebooks to run.
      expected: seconds of each by name; unknown ones are taken to be equally long.
      context_gib: what a process keeps of texts at the scale (Scale.context_gib).
      device: "cpu", "cuda" ...
    """
    taken = 2 * (OTHERS + context_gib * 2**30)
    if device != "cpu" or _cores() < 2 or taken > SHARE * machine_memory():
        return 1
    names = [lesson.name for lesson in course]
    seconds = {name: expected.get(name, 1.0) for name in names}
    beside = run_left(seconds, {}, names, {}, at_once=2, needs=needs(course))
    return 2 if SLOWER * beside < sum(seconds.values()) else 1


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    Yields: each with its seconds and what went wrong ("", or STOPPED beside a failed one), as it ends.
      After a failure nothing more begins; closing the iterator stops what still runs.
    """
    children = Children()
    wished = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(wished) if wished.isdecimal() else _cores()
    share = {"OMP_NUM_THREADS": str(max(1, threads // at_once))}

    def work(lesson: Lesson) -> tuple[float, str]:
        display.start(lesson.name, lesson.title)
        begun, on_cell = time.time(), partial(display.cell, name=lesson.name)
        given = lesson, out / lesson.path.name, parameters, timeout_s, on_cell
        variables = {"IPTKIT_STATUS": str(display.file_of(lesson.name)), **share}
        error = kernels.run(*given) if at_once == 1 else children.run(*given, variables)
        seconds = round(time.time() - begun, 1)
        word = "stopped" if error == STOPPED else "failed" if error else "done"
        display.finish(seconds, word, lesson.name)
        return seconds, error

    if at_once == 1:
        for lesson in chosen:
            seconds, error = work(lesson)
            yield lesson, seconds, error
            if error:
                return
    else:
        with (
            closing(children),
            closing(_each(chosen, display.expected, at_once, work, children.stop)) as ended,
        ):
            yield from ended


def _each(
    chosen: Sequence[Lesson],
    expected: Mapping[str, float],
    at_once: int,
    work: Callable[[Lesson], tuple[float, str]],
    stop: Callable[[], None],
) -> Iterator[tuple[Lesson, float, str]]:
    """Do `work` for every lesson, so many at a time, in threads; yields each with what it gave as it ends.

    Args:
      expected: seconds of each by name; unknown ones are taken to be equally long.
      stop: ends what runs; called after a failure, and where the caller or Ctrl-C ends this early.
    """
    waits, by_name = needs(chosen), {lesson.name: lesson for lesson in chosen}

    def chain(name: str) -> float:
        """Seconds from its begin to the end of the last that waits for it."""
        after = [other for other, before in waits.items() if name in before]
        return expected.get(name, 1.0) + max(map(chain, after), default=0.0)

    sorter = TopologicalSorter(waits)
    sorter.prepare()
    ready, has_failed = list(sorter.get_ready()), False
    with ThreadPoolExecutor(at_once) as pool:
        running: dict[Future, str] = {}
        try:
            while running or (ready and not has_failed):
                ready.sort(key=lambda name: (-chain(name), name))
                while ready and len(running) < at_once and not has_failed:
                    name = ready.pop(0)
                    running[pool.submit(work, by_name[name])] = name
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    seconds, error = future.result()
                    if error and not has_failed:
                        has_failed = True
                        stop()
                    yield by_name[name], seconds, error
                    sorter.done(name)
                    ready += sorter.get_ready()
        except BaseException:  # the consumer's end among them
            stop()
            raise


def main() -> None:
    """Run the notebooks that standard input asks for, a line each, until it is closed.

    Says on standard output which cell begins, and in the end of each what went wrong.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's children ignore it
    wishes: SimpleQueue[str | None] = SimpleQueue()
    is_busy, is_alone = threading.Event(), threading.Event()
    threading.Thread(target=_listen, args=(wishes, is_busy, is_alone), daemon=True).start()
    with suppress(KeyboardInterrupt):
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
        return kernels.run(
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
    print(KEY + json.dumps(what), flush=True)


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
