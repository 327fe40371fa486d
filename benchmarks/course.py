"""How much of the course's time do its matrix products need, at the peak speed of the machine?

python -m benchmarks.course [--scale lesson] [--lessons 01,02,...] [--json FILE]

Runs the lessons' expensive steps without notebooks and without a step cache. Counts the FLOPs of their
matrix products and attention (torch's FlopCounterMode), padding included. Divides them by the speed that the
causal model's products reach alone. The table compares these seconds with the notebooks' own
(data/timings.json). The difference is everything else: norms and activations, copies, Adam, Python, imports,
first use of memory. Counting slows the steps down, so their own time is not shown.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import keep, matmul_peak
from benchmarks.products import flops_of
from iptkit.course import estimates
from iptkit.studies import lesson01, lesson03, lesson04, scales
from iptkit.studies.study import Study

PEAK_TOKENS = (512, 1024)  # batch sizes; the fastest one is the peak
Work = Callable[[Study], Any]
LESSONS: dict[str, dict[str, Work]] = {
    "00": {"zero-shot": Study.zero_shot},
    "01": {
        "wordings": lesson01.wordings_of,
        "in context": lesson01.in_context,
        "token search": lesson01.token_search,
        "facts": lesson01.facts,
    },
    "02": {
        "prompt tuning": Study.bank,
        "starts and rates": Study.start_and_rate,
    },
    "03": {"P-tuning and best words": lesson03.compared},
    "04": {"probe, shallow and deep prompts": partial(lesson04.rows, part="compared")},
    "05": {
        "mean prompt": Study.mean_prompt,
        "MSF, every d_I": lambda study: [study.subspace(dim) for dim in study.scale.dims],
        "MSF, one loss": lambda study: [
            study.subspace(study.scale.main_dim, **{weight: 0.0})
            for weight in ("task_weight", "recon_weight")
        ],
    },
    "06": {
        "IST, every d_I": lambda study: [study.codes(dim) for dim in study.scale.dims],
        "controls": lambda study: [study.codes(study.scale.main_dim, name) for name in study.scale.controls],
    },
}
NEEDED: dict[str, list[Work]] = {"05": [Study.bank], "06": [Study.bank, LESSONS["05"]["MSF, every d_I"]]}


def line(lesson: str, step: str, flops: float, peak: float, seconds: float = 0.0) -> str:
    """Return a row of the table; the last two cells are empty if the notebook's seconds are unknown."""
    told = f"{seconds:.0f} | {flops / peak / seconds:.0%}" if seconds else " | "
    return f"| {lesson} | {step} | {flops / 1e12:.1f} | {flops / peak:.0f} | {told} |"


def main() -> None:
    """Count, print the table and store it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.course", description=__doc__)
    parser.add_argument("--scale", default="lesson", help="default lesson")
    parser.add_argument("--lessons", default=",".join(LESSONS), help=f"some of {', '.join(LESSONS)}")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    names = given.lessons.split(",")
    if set(names) - set(LESSONS):
        parser.error(f"--lessons is {given.lessons}; choose from {', '.join(LESSONS)}")
    scale, rows, totals = scales.load(given.scale), [], []
    took = {name[:2]: seconds for name, seconds in estimates.expected_seconds(given.scale).items()}
    model = Study(scale).backbone  # in the number type that the lessons use on this machine
    peak = max(matmul_peak(model, tokens, 5) for tokens in PEAK_TOKENS)
    print(f"matrix products alone, {model.dtype}: {peak / 1e12:.3f} TFLOP/s\n")
    print(
        "| lesson | step | TFLOP | at that peak, s | notebook, s | share |\n|---|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as steps:
        os.environ["IPTKIT_STEPS"] = steps
        for name in names:
            study = Study(scale)  # each lesson starts with an empty text cache
            for needed in NEEDED.get(name, ()):
                needed(study)
            for step, work in LESSONS[name].items():
                flops = flops_of(partial(work, study))
                rows.append({"lesson": name, "step": step, "flops": flops})
                print(line(name, step, rows[-1]["flops"], peak), flush=True)
            study.engine.forget_contexts()  # the study stays alive in its cached methods
            total = sum(row["flops"] for row in rows if row["lesson"] == name)
            totals.append({"lesson": name, "flops": total, "notebook_seconds": took.get(name, 0.0)})
            print(line(name, "all", total, peak, took.get(name, 0.0)), flush=True)
    whole = [sum(total[part] for total in totals) for part in ("flops", "notebook_seconds")]
    print(line("all", "", whole[0], peak, whole[1]))
    about = {"scale": given.scale, "dtype": model.dtype, "peak FLOP/s": peak}
    keep(given.json, about, rows=rows, lessons=totals)


if __name__ == "__main__":
    main()
