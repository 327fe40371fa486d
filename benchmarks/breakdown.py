"""Where does the time of a training step go?

python -m benchmarks.breakdown [--scale lesson] [--tasks N] [--steps 5] [--dtype mixed] [--json FILE]

Profiles prompt tuning of all tasks and seeds of a scale, as lesson 02 runs it. Each operation's time counts
for one group, chosen by the operation's name. Time outside all operations belongs to Python and the
profiler.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import keep, timed
from iptkit.engine.engine import Engine
from iptkit.methods import prompt_tuning
from iptkit.models.backbone import load
from iptkit.studies import scales
from iptkit.tasks import suites
from iptkit.training import trainer
from iptkit.training.runs import Run
from iptkit.training.state import State

GROUPS = {  # group -> parts of operation names; the first group that matches an operation counts it
    "products with weights": "mkldnn::_linear aten::mm aten::addmm aten::linear",
    "attention's products": "aten::bmm aten::baddbmm",
    "copies, conversions, clearing, picking": "aten::copy_ aten::_to_copy aten::to aten::cat aten::zero_ "
    "aten::fill_ aten::clone aten::empty aten::resize_ aten::index aten::gather aten::select aten::slice "
    "aten::contiguous aten::nonzero",
    "softmax and logarithms": "softmax logsumexp aten::exp_",
    "SiLU and its gradient": "silu",
    "masks": "masked_fill bitwise logical where",
    "norms, rotation, other sums": "aten::",
}


def group_of(name: str) -> str | None:
    """Return the group that counts an operation; None if no group does."""
    return next(
        (group for group, words in GROUPS.items() if any(word in name for word in words.split())), None
    )


def breakdown(state: Any, engine: Engine, steps: int) -> dict[str, Any]:
    """Return the seconds of a step without the profiler, and the share of each group with it."""

    def step() -> None:
        trainer.train_step(engine, state)
        state.step += 1

    for _ in range(2):  # warm-up: the first steps allocate memory
        step()
    seconds = median(timed(engine.backbone.device, step) for _ in range(steps))
    taken: dict[str, float] = defaultdict(float)
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        whole = sum(timed(engine.backbone.device, step) for _ in range(steps))
    for event in seen.key_averages():
        group = group_of(event.key)
        if group is not None:
            taken[group] += event.self_cpu_time_total / 1e6
    shares = {group: taken[group] / whole for group in GROUPS}
    operations = sorted(seen.key_averages(), key=lambda e: -e.self_cpu_time_total)[:20]
    return {
        "seconds": seconds,
        "seconds_profiled": whole / steps,
        "shares": shares | {"Python, and autograd's own": 1 - sum(shares.values())},
        "operations": {e.key: [e.self_cpu_time_total / 1e6 / whole, e.count // steps] for e in operations},
    }


def main() -> None:
    """Profile, print the shares and store them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.breakdown", description=__doc__)
    parser.add_argument("--scale", default="lesson", help="a scale of data/scales.json (default lesson)")
    parser.add_argument("--tasks", type=int, help="use only the first N tasks and one seed (default: all)")
    parser.add_argument("--steps", type=int, default=5, help="number of profiled steps (default 5)")
    parser.add_argument("--dtype", help="auto, float32, bfloat16 or mixed (default: the scale's)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    scale = scales.load(given.scale)
    names = [*scale.seen, *scale.unseen][: given.tasks]
    seeds = scale.seeds[: 1 if given.tasks else None]
    loaded = [task for seed in seeds for task in suites.load_suite(scale.suite, seed, only=names)]
    backbone = load(scale.backbone, "cpu", given.dtype or scale.dtype)
    engine = Engine(backbone, context_bytes=int(scale.context_gib * 2**30))
    runs = [Run(task, task.seed) for task in loaded]
    start = prompt_tuning.from_words(backbone, scale.prompt_length)
    source = prompt_tuning.SoftPrompt(start.expand(len(runs), -1, -1))
    state = State(engine, source, runs, scale.prompt)
    reading = timed(backbone.device, lambda: engine.keep_contexts(run.examples for run in runs))
    found = breakdown(state, engine, given.steps)
    seconds, slower = found["seconds"], found["seconds_profiled"]
    print(f"{len(runs)} runs, {backbone.dtype}, reading {reading:.1f} s")
    print(f"{seconds:.2f} s a step, {slower:.2f} under the profiler, of which")
    for group, share in found["shares"].items():
        print(f"{share:6.1%}  {group}")
    for name, (share, count) in found["operations"].items():
        print(f"{share:6.1%}  {name}, {count} a step")
    about = {
        "scale": given.scale,
        "runs": len(runs),
        "rows per run": scale.prompt.rows_per_run,
        "dtype": backbone.dtype,
        "prompt length": scale.prompt_length,
    }
    keep(given.json, about, reading_seconds=reading, **found)


if __name__ == "__main__":
    main()
