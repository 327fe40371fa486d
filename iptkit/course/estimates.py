"""Estimates of how long a run takes: measured times per notebook, corrected by the speed seen so far.

For studies that have not begun: FLOPs and hours, `of_study`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from iptkit.course import output
from iptkit.storage import paths, reading
from iptkit.studies.durations import seconds_of_rest

if TYPE_CHECKING:
    from iptkit.studies.forecast import Forecast

FEWEST_SECONDS = 3.0  # of work before its speed means something
SPEED_LIMITS = (0.2, 5.0)
CACHED = 0.25  # a notebook that took less than this part of its expected time came from the step cache


def clock(seconds: float) -> str:
    """A duration as minutes and seconds, or hours, minutes and seconds.

    >>> clock(45), clock(370), clock(3725)
    ('0:45', '6:10', '1:02:05')
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def expected_seconds(scale: str) -> dict[str, float]:
    """The measured seconds of each notebook at a scale, from data/timings.json; empty if not measured."""
    try:
        seconds = reading.read_json(paths.data_dir() / "timings.json")[scale]["seconds"]
        return {name: float(value) for name, value in seconds.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def step_left(state: Mapping[str, Any] | None, now: float) -> float | None:
    """Estimate the seconds left in a step from its speed so far.

    Args:
      state: what `progress.read_status` returned.
      now: current time in seconds since 1970.
    Returns: seconds, or None if they cannot be estimated yet.
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
    """Estimate the seconds left in a run.

    Args:
      expected: measured seconds of each notebook on the reference machine.
      finished: seconds that each finished notebook took here.
      waiting: names of the notebooks that are running or have not started.
      elapsed: seconds that each running notebook has taken so far.
      steps: seconds left in the current steps of running notebooks, where known.
      at_once: how many notebooks run at a time.
      needs: the notebooks that a notebook waits for.
    Returns: seconds, or None if the expected time of a waiting notebook is unknown.
    """
    if not waiting or any(name not in expected for name in waiting):
        return None
    known = [n for n in finished if n in expected and finished[n] >= CACHED * expected[n]]
    speed = sum(finished[n] for n in known) / sum(expected[n] for n in known) if known else 1.0
    speed = min(max(speed, SPEED_LIMITS[0]), SPEED_LIMITS[1])
    left = {n: max(speed * expected[n] - elapsed.get(n, 0.0), steps.get(n, 0.0), 0.0) for n in waiting}
    return seconds_of_rest(left, needs, at_once)


# ---- studies -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class StudyEstimate:
    """What a study takes on this machine.

    Attributes:
      scale: its scale.
      forecast: FLOPs by kind of job.
      speed: measured speed of large matrix products, in TFLOP/s.
    """

    scale: str
    forecast: Forecast
    speed: float


def of_study(scale: str, device: str = "auto", **changes: Any) -> StudyEstimate:
    """Estimate what a study takes, finished jobs included; nothing is trained, scored or downloaded.

    Args:
      scale: a name that `scales.load` knows.
      device: "cpu", "cuda", "cuda:1" ... or "auto": a GPU if there is one.
      changes: suite, split, dims, num_seeds and only_unseen of `scales.variant`.
    Raises: what `scales.variant` and `forecast.forecast` raise.
    """
    from iptkit.models.devices import matmul_speed, resolve_device
    from iptkit.studies import forecast, scales

    with paths.variables(IPTKIT_SCALE=scale):  # a value of the user's would override the name
        chosen = scales.variant(scale, **changes)
    place = str(resolve_device(device))
    return StudyEstimate(scale, forecast.forecast(chosen, place), matmul_speed(place))


def hours(flops: float, tflops: float) -> float:
    """The hours that a job takes where large matrix products reach so many TFLOP/s, see `costs.OF_PEAK`."""
    from iptkit.studies.costs import OF_PEAK

    return flops / (OF_PEAK * tflops * 1e12) / 3600


def as_value(found: StudyEstimate, tflops: float | None = None) -> dict[str, Any]:
    """An estimate as JSON.

    Args:
      found: the estimate.
      tflops: speed of another machine, None for none.
    """
    speeds = {"here": found.speed} | ({"there": tflops} if tflops else {})

    def told(flops: float) -> dict[str, Any]:
        return {"flops": flops, "hours": {name: hours(flops, speed) for name, speed in speeds.items()}}

    costs = found.forecast.costs
    return {
        "scale": found.scale,
        "tflops": speeds,
        "kinds": [{"kind": cost.kind, "jobs": cost.jobs, **told(cost.flops)} for cost in costs],
        **told(found.forecast.flops),
        "notes": found.forecast.notes,
    }


def as_text(found: StudyEstimate, tflops: float | None = None) -> str:
    """An estimate as a table with a line for each kind of job, its sum, and notes.

    Args:
      found: the estimate.
      tflops: speed of another machine, None for none.
    """
    speeds = [found.speed, *([tflops] if tflops else [])]
    costs, total = found.forecast.costs, found.forecast.flops
    rows = [["jobs of", "jobs", "FLOP", "hours here", *(["hours there"] if tflops else [])]]
    for kind, jobs, flops in [
        *((cost.kind, cost.jobs, cost.flops) for cost in costs),
        ("all", sum(cost.jobs for cost in costs), total),
    ]:
        rows.append([kind, str(jobs), f"{flops:.1e}", *(f"{hours(flops, speed):,.1f}" for speed in speeds)])
    named = [
        f"here: {found.speed:.2f} TFLOP/s, measured",
        *([f"there: {tflops:g} TFLOP/s"] if tflops else []),
    ]
    about = f"{'; '.join(named)}; a job is taken to reach half of this speed"
    return "\n".join([output.table(rows), "", about, *(f"note: {note}" for note in found.forecast.notes)])
