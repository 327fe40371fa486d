"""Several notebooks at a time, each in another process with its share of the cores.

A notebook waits for those whose steps it would otherwise make itself (`NEEDS`), which saves time only: where
two ask for the same step, store.step lets the second wait for the first. The longest chain goes first: 02,
which makes the short step of 00 that it reads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path

from iptkit.course import processes
from iptkit.course.lessons import Lesson
from iptkit.course.processes import STOPPED, Children
from iptkit.course.progress_display import Display, run_left
from iptkit.models.machine import free_memory, machine_memory

NEEDS = {"05": ("02",), "06": ("05",)}  # whose long steps a notebook reads
LAST = "90"  # reads what all others found
SLOWER = 1.5  # times as long a notebook takes beside another one, with half of the cores
SHARE = 2 / 3  # of the machine's memory, the most that two notebooks may take unasked
OTHERS = 4 * 2**30  # bytes that a notebook's process takes beside the texts that it keeps


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
    if device != "cpu" or _threads() < 2 or taken > min(SHARE * machine_memory(), free_memory()):
        return 1
    return min((1, 2), key=lambda at_once: together(course, expected, at_once))


def together(course: Sequence[Lesson], expected: Mapping[str, float], at_once: int) -> float:
    """About how many seconds the notebooks take, so many at a time; `expected` as for `fitting`."""
    names = [lesson.name for lesson in course]
    seconds = {name: (SLOWER if at_once > 1 else 1.0) * expected.get(name, 1.0) for name in names}
    return run_left(seconds, {}, names, {}, at_once=at_once, needs=needs(course)) or 0.0


def _threads() -> int:
    """How many cores this run may use: OMP_NUM_THREADS, else all."""
    wished = os.environ.get("OMP_NUM_THREADS", "")
    if wished.isdecimal():
        return max(1, int(wished))
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
    share = {"OMP_NUM_THREADS": str(max(1, _threads() // at_once))}

    def work(lesson: Lesson) -> tuple[float, str]:
        display.start(lesson.name, lesson.title)
        begun, on_cell = time.time(), partial(display.cell, name=lesson.name)
        given = lesson, out / lesson.path.name, parameters, timeout_s, on_cell
        variables = {"IPTKIT_STATUS": str(display.file_of(lesson.name)), **share}
        error = processes.run(*given) if at_once == 1 else children.run(*given, variables)
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
