"""Do the lessons' results come out again on another kind of CPU, and with other few-shot samples?

python -m benchmarks.headlines FOLDER [--only 02,06] [--seeds 0,10,20] [--scale lesson]

Runs the lessons once for each kind of CPU and first seed, one after another: hours. A stopped run goes on
where it was. Each kind has a step cache of its own, so that it computes everything itself.
FOLDER/headlines.md then has, for each lesson, the result of each run: the output of the cell tagged
`summary`, which answers the lesson's question. Read it beside the lesson's own summary.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import nbformat

from iptkit.course import lessons
from iptkit.course.site import SUMMARY_TAG
from iptkit.storage import files, reading

KINDS: dict[str, dict[str, str]] = {
    "this CPU": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}


def run_all(folder: Path, scale: str, seeds: Sequence[int], only: str | None) -> dict[str, Path]:
    """Run the lessons for every kind and seed; return the folder of each run by its name.

    Raises: subprocess.CalledProcessError if a lesson fails; its page in the run's folder says where.
    """
    runs = {}
    for number, (kind, variables) in enumerate(KINDS.items()):
        for seed in seeds:
            out = runs[f"{kind}, seed {seed}"] = folder / f"kind{number}-seed{seed}"
            if is_finished(out, only):
                continue
            more = ["--only", only] if only else []
            command = [sys.executable, "-m", "iptkit", "run", "--scale", scale, "--device", "cpu"]
            command += ["--seed", str(seed), "--out", str(out), "--at-once", "1", *more]
            steps = {"IPTKIT_STEPS": str(folder / f"steps{number}")}
            subprocess.run(command, check=True, env={**os.environ, **variables, **steps})
    return runs


def is_finished(out: Path, only: str | None) -> bool:
    """Whether a run's folder has all lessons that were asked for, without a failed one."""
    if not (out / "timings.json").is_file():
        return False
    status = reading.read_json(out / "timings.json")["status"]
    asked = [lesson.name for lesson in lessons.select(lessons.find(), only.split(",") if only else None)]
    return all(status.get(name) == "ok" for name in asked)


def summaries(run: Path) -> Iterator[tuple[str, str]]:
    """The name of each lesson in a run's folder, and the text of its result."""
    for path in sorted(run.glob("[0-9][0-9]_*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        tagged = [cell for cell in cells if SUMMARY_TAG in cell.metadata.get("tags", [])]
        outputs = [output for cell in tagged for output in cell.get("outputs", [])]
        texts = [one.get("text") or one.get("data", {}).get("text/plain", "") for one in outputs]
        yield path.stem, "\n".join(text.strip() for text in texts if text.strip())


def page(runs: Mapping[str, Path]) -> str:
    """The results of all runs in Markdown, lesson by lesson; runs with the same result stand together."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, run in runs.items():
        for lesson, text in summaries(run):
            found.setdefault(lesson, {}).setdefault(text, []).append(name)
    parts = ["# The lessons' results, run by run"]
    for lesson, of in found.items():
        parts.append(f"## {lesson}")
        parts += [f"**{'; '.join(names)}**\n\n```\n{text}\n```" for text, names in of.items()]
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything that is missing, then write the page."""
    parser = argparse.ArgumentParser(description="Run the lessons as other CPUs and with other seeds.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="lessons, such as 02,06; default: all")
    parser.add_argument("--seeds", default="0,10,20", help="first seeds; default: 0,10,20")
    parser.add_argument("--scale", default="lesson")
    options = parser.parse_args(arguments)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    folder = options.folder.resolve()
    text = page(run_all(folder, options.scale, seeds, options.only))
    with files.atomic(folder / "headlines.md") as new:
        new.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
