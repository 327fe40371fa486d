"""Estimates of how long a run takes: measured times per notebook, corrected by the speed seen so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from iptkit.storage import paths, reading
from iptkit.studies.durations import seconds_of_rest

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
