"""How do time and memory of a training step grow with tasks, text length and prompt length?

python -m benchmarks.growth [--axes tasks,text,prompt] [--rounds 3] [--dtype float32] [--json FILE]

Every point is prompt tuning in a process of its own, on generated texts of one length. Each task has 4
different examples; each step takes 2 of them. Memory is the peak of the process beyond the loaded model
(Linux).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import alone, forget_peak, give_back, keep, peak_bytes, timed
from benchmarks.pairs import MODEL
from iptkit.engine.engine import Engine
from iptkit.methods import prompt_tuning
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.models.backbone import load
from iptkit.tasks import suites
from iptkit.tasks.examples import Example
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run
from iptkit.training.state import State

AXES = {
    "tasks": (1, 4, 16, 64, 256),
    "text": (16, 32, 64, 128, 256, 512),
    "prompt": (1, 4, 16, 64, 128),
}
USUAL = {"tasks": 16, "text": 32, "prompt": 10}
EXAMPLES, ROWS = 4, 2
CONFIG = FitConfig(steps=1000, rows_per_run=ROWS, lr=0.02, warmup=0.0)
WORDS = ("cat", "dog", "tree", "house", "river", "road", "bird", "book")  # one token each


def texts(count: int, length: int) -> list[str]:
    """Return random texts of `length` tokens each."""
    drawn = random.Random(length)
    return ["".join(f" {drawn.choice(WORDS)}" for _ in range(length)) for _ in range(count)]


def point(sizes: dict[str, int], rounds: int, dtype: str) -> dict[str, Any]:
    """Return the seconds of a step and of reading the texts, and the memory, at one set of sizes."""
    backbone = load(MODEL, "cpu", dtype)
    (task,) = suites.load_suite("core36", only=["country-capital"], max_test=1)
    lines = texts(EXAMPLES * sizes["tasks"], sizes["text"])
    runs = [
        Run(replace(task, train=tuple(Example(line, ("river",)) for line in lines[t :: sizes["tasks"]])))
        for t in range(sizes["tasks"])
    ]
    words = prompt_tuning.from_words(backbone, sizes["prompt"])
    engine = Engine(backbone, context_bytes=16 << 30)
    state = State(engine, SoftPrompt(words.expand(len(runs), -1, -1)), runs, CONFIG)
    give_back()
    forget_peak()
    before = peak_bytes()
    reading = timed(backbone.device, lambda: engine.keep_contexts(run.examples for run in runs))
    kept = peak_bytes()
    seconds = []
    for step in range(rounds + 1):
        state.step = step
        seconds.append(timed(backbone.device, lambda: trainer.train_step(engine, state)))
    return {
        **sizes,
        "step_seconds": median(seconds[1:]),
        "reading_seconds": reading,
        "examples_per_second": len(runs) * ROWS / median(seconds[1:]),
        "kept_bytes": engine.contexts.used_bytes,
        "reading_peak_bytes": kept - before,
        "peak_bytes": peak_bytes() - before,
    }


def table(axis: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return the points of one axis as a Markdown table."""
    lines = [
        f"| {axis} | s/step | examples/s | reading, s | keys and values kept, MiB | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r[axis]} | {r['step_seconds']:.2f} | {r['examples_per_second']:.1f} "
            f"| {r['reading_seconds']:.2f} | {r['kept_bytes'] / 2**20:.0f} | {r['peak_bytes'] / 2**20:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure every point, print a table per axis and store them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--axes", default=",".join(AXES), help=f"some of {', '.join(AXES)}")
    parser.add_argument("--rounds", type=int, default=3, help="measured steps of each point (default 3)")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or mixed (default float32)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    axes = given.axes.split(",")
    if set(axes) - set(AXES):
        parser.error(f"--axes is {given.axes}; choose from {', '.join(AXES)}")
    found: dict[str, list[dict[str, Any]]] = {}
    for axis in axes:
        found[axis] = [alone(point, USUAL | {axis: size}, given.rounds, given.dtype) for size in AXES[axis]]
        print(f"\n{table(axis, found[axis])}", flush=True)
    about = {"model": MODEL, "dtype": given.dtype, "usual": USUAL, "rows per task": ROWS}
    keep(given.json, about | {"examples per task": EXAMPLES, "rounds": given.rounds}, axes=found)


if __name__ == "__main__":
    main()
