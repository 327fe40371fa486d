"""How long pieces of work take together if some wait for others: jobs of a study, notebooks of a run."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping


def longest_chains(seconds: Mapping[str, float], needs: Mapping[str, Iterable[str]]) -> dict[str, float]:
    """For each piece of work, the seconds of the longest chain of pieces that ends with it.

    Args:
      seconds: of each piece that is left, by name.
      needs: names of the pieces that each waits for; those without seconds are done.

    Example:
      >>> longest_chains({"a": 1.0, "b": 2.0, "c": 3.0}, {"b": ["a"], "c": ["a"]})
      {'a': 1.0, 'b': 3.0, 'c': 4.0}
    """
    ends: dict[str, float] = {}

    def end(name: str) -> float:
        if name not in ends:
            before = [end(other) for other in needs.get(name, ()) if other in seconds]
            ends[name] = seconds[name] + max(before, default=0.0)
        return ends[name]

    return {name: end(name) for name in seconds}


def seconds_of_rest(
    seconds: Mapping[str, float], needs: Mapping[str, Iterable[str]], at_once: int = 1
) -> float:
    """How long pieces of work take together; a free place takes the piece with the longest chain behind it.

    Args:
      seconds: as for `longest_chains`.
      needs: as for `longest_chains`.
      at_once: pieces that run at once; fewer than 1 counts as 1.

    Example:
      >>> seconds_of_rest({"a": 1.0, "b": 2.0, "c": 3.0}, {"b": ["a"], "c": ["a"]}, 2)
      4.0
    """
    waits = {name: {other for other in needs.get(name, ()) if other in seconds} for name in seconds}
    after = {name: [other for other in seconds if name in waits[other]] for name in seconds}
    behind = longest_chains(seconds, after)
    ready, running, now = [name for name in seconds if not waits[name]], list[tuple[float, str]](), 0.0
    while ready or running:
        ready.sort(key=behind.__getitem__)
        while ready and len(running) < max(1, at_once):
            name = ready.pop()
            heapq.heappush(running, (now + seconds[name], name))
        now, done = heapq.heappop(running)
        for name in after[done]:
            waits[name].remove(done)
            ready += [] if waits[name] else [name]
    return now
