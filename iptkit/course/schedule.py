"""Running the notebooks of the course, several at a time if that is faster.

Each then runs in its own process with its share of the cores. A notebook waits for those whose steps it would
otherwise make itself (`NEEDS`). That only saves time: if two need the same step, `step_cache.step` lets the
second wait for the first. The longest chain starts first: it begins with 02, which makes the short step of 00
that it reads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from iptkit.course import execution
from iptkit.course.display import Display
from iptkit.course.estimates import run_left
from iptkit.course.execution import STOPPED
from iptkit.course.lessons import Lesson
from iptkit.course.processes import Children
from iptkit.models.machine import free_memory, machine_memory
from iptkit.studies.durations import longest_chains

NEEDS = {"05": ("02",), "06": ("05",)}  # notebook -> notebooks whose long steps it reads
LAST = "90"  # reads the results of all others
SLOWER = 1.5  # factor of a notebook's time when another one runs, too, and each has half of the cores
SHARE = 2 / 3  # of the machine's memory: the most that two notebooks may take by default
OTHERS = 4 * 2**30  # bytes of a notebook's process in addition to its cached texts


def fitting(course: Sequence[Lesson], expected: Mapping[str, float], context_gib: float, device: str) -> int:
    """How many notebooks to run at a time by default: two if that is faster and they fit, else one.

    More would not be faster, because half of the course is one chain (`NEEDS`). Two on one GPU are untested.

    Args:
      course: the notebooks to run.
      expected: seconds of each by name; notebooks without an entry count as equally long.
      context_gib: memory that a process uses for cached texts at the scale (Scale.context_gib).
      device: "cpu", "cuda" ...
    """
    taken = 2 * (OTHERS + context_gib * 2**30)
    if device != "cpu" or _threads() < 2 or taken > min(SHARE * machine_memory(), free_memory()):
        return 1
    return min((1, 2), key=lambda at_once: together(course, expected, at_once))


def together(course: Sequence[Lesson], expected: Mapping[str, float], at_once: int) -> float:
    """Estimate the seconds that the notebooks take, `at_once` at a time; `expected` as for `fitting`."""
    names = [lesson.name for lesson in course]
    seconds = {name: (SLOWER if at_once > 1 else 1.0) * expected.get(name, 1.0) for name in names}
    return run_left(seconds, {}, names, {}, at_once=at_once, needs=needs(course)) or 0.0


def _threads() -> int:
    """The number of cores that this run may use: OMP_NUM_THREADS, else all."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal():
        return max(1, int(given))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def needs(course: Sequence[Lesson]) -> dict[str, set[str]]:
    """The names of the lessons that each of these lessons waits for."""
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
    parameters: dict[str, Any],
    timeout_s: int | None,
    display: Display,
    at_once: int,
) -> Generator[tuple[Lesson, float, str]]:
    """Run lessons, one after another in this process or several at a time in child processes.

    After a failure no further lesson starts. Closing the generator stops those that are running.

    Args:
      chosen: the lessons.
      out: folder of the executed notebooks.
      parameters: values for the cell tagged `parameters`.
      timeout_s: the longest that one cell may take in seconds; None for no limit.
      display: shows the progress, and knows the expected times.
      at_once: how many lessons run at a time.
    Yields: each lesson when it ends, with its seconds and what went wrong: "" if nothing did, STOPPED if it
      was stopped because another one failed.
    """
    children = Children()
    share = {"OMP_NUM_THREADS": str(max(1, _threads() // at_once))}

    def work(lesson: Lesson) -> tuple[float, str]:
        display.start(lesson.name, lesson.title)
        begun, on_cell = time.time(), partial(display.cell, name=lesson.name)
        given = lesson, out / lesson.path.name, parameters, timeout_s, on_cell
        variables = {"IPTKIT_STATUS": str(display.file_of(lesson.name)), **share}
        error = execution.run(*given) if at_once == 1 else children.run(*given, variables)
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
) -> Generator[tuple[Lesson, float, str]]:
    """Call `work` for every lesson in threads; yield each lesson with the result when it ends.

    Args:
      chosen: the lessons.
      expected: seconds of each by name; lessons without an entry count as equally long.
      at_once: how many lessons run at a time.
      work: runs a lesson; returns its seconds and what went wrong.
      stop: stops all running lessons; called after a failure and if the caller or Ctrl-C ends this early.
    """
    waits, by_name = needs(chosen), {lesson.name: lesson for lesson in chosen}
    times = {name: expected.get(name, 1.0) for name in by_name}
    followers = {name: [other for other, before in waits.items() if name in before] for name in by_name}
    to_the_end = longest_chains(times, followers)  # up to the end of the last follower
    sorter = TopologicalSorter(waits)
    sorter.prepare()
    ready, has_failed = list(sorter.get_ready()), False
    with ThreadPoolExecutor(at_once) as pool:
        running: dict[Future[tuple[float, str]], str] = {}
        try:
            while running or (ready and not has_failed):
                ready.sort(key=lambda name: (-to_the_end[name], name))
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
        except BaseException:  # including the end of the consumer
            stop()
            raise
