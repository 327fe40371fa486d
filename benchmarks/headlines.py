"""Do the lessons' answers come out again on another kind of CPU, and with other few-shot samples?

python -m benchmarks.headlines FOLDER [--only 02,06] [--seeds 0,10,20] [--kinds native,AVX2]

Runs the lessons at `lesson` scale once for each kind of CPU and first seed, one after another: hours. Each
kind has a step cache of its own in FOLDER, so that it computes everything itself. After each run, the lines
that answer the lessons' questions (`ANSWERS`) go to benchmarks/results/headlines.json (--json), beside the
runs of other machines. A run that the file has is not repeated; a stopped one goes on. If a notebook's code
or its settings have changed since, its answers do not count and are measured again (`measured`). A change of
the kit's own code is not noticed. `python -m benchmarks.page` then writes headlines.md.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import nbformat

from iptkit.course import editions, lessons
from iptkit.storage import digests, files, paths, reading
from iptkit.storage.versions import processor, rows
from iptkit.studies import scales

RESULTS = Path(__file__).parent / "results" / "headlines.json"
KINDS: dict[str, dict[str, str]] = {
    "native": {},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
PART = r"([+-]?\d+\.\d+)"
NUMBER = re.compile(rf"{PART} \[{PART}, {PART}\]")
READERS = {"discrete": ("01",), "ptuning": ("02", "03"), "encoders": ("04",)}  # field of a scale -> lessons
HEADS = ("lesson", "what", "stored", "in the runs", "0 outside the interval", "inside the stored interval")


@dataclass(frozen=True)
class Answer:
    """The line of a lesson's output that answers its question.

    Attributes:
      lesson: the lesson's number, such as "02".
      line: how the line begins, with single spaces. The first such line of the lesson counts.
      values: what its first numbers with an interval say, from left to right.
    """

    lesson: str
    line: str
    values: tuple[str, ...]


ANSWERS = (
    Answer("00", "mean zero-shot score", ("zero-shot, score",)),
    Answer("01", "mean swing", ("best minus worst wording, accuracy",)),
    Answer("02", "gain over zero-shot", ("prompt tuning − zero-shot, score",)),
    Answer(
        "03",
        "LSTM + MLP minus no encoder classifications",
        ("LSTM − no encoder, classifications, accuracy",),
    ),
    Answer("03", "LSTM + MLP minus no encoder relations", ("LSTM − no encoder, relations, exact match",)),
    Answer(
        "04",
        "P-Tuning v2 − prompt tuning",
        ("P-Tuning v2 − prompt tuning, score", "P-Tuning v2 − prompt tuning, log-likelihood"),
    ),
    Answer("05", "seen mean code", ("MSF − mean code, seen, log-likelihood", "MSF − mean code, seen, score")),
    Answer(
        "06", "seen 9 mean code", ("IST − mean code, seen, log-likelihood", "IST − mean code, seen, score")
    ),
    Answer(
        "06",
        "seen 9 random directions around the mean code",
        ("IST − random directions, seen, log-likelihood", "IST − random directions, seen, score"),
    ),
)


def run_all(folder: Path, file: Path, seeds: Sequence[int], kinds: Sequence[str], only: str | None) -> None:
    """Run the lessons for every kind and seed that the file lacks, and add their answers to it.

    Raises: subprocess.CalledProcessError if a lesson fails; its page in the run's folder says where.
    """
    for seed in seeds:
        for kind in kinds:
            name = f"{processor()}{'' if kind == 'native' else f', as {kind}'}, seed {seed}"
            if has(file, name, only):
                continue
            out = folder / f"{kind}-seed{seed}"
            command = [sys.executable, "-m", "iptkit", "run", "--scale", "lesson", "--device", "cpu"]
            command += ["--seed", str(seed), "--out", str(out), "--at-once", "1"]
            steps = {"IPTKIT_STEPS": str(folder / f"steps-{kind}")}
            subprocess.run(
                command + (["--only", only] if only else []),
                check=True,
                env={**env_of(kind), **steps},
            )
            add(file, name, out)


def env_of(kind: str) -> dict[str, str]:
    """The environment of a run as a kind of CPU; what the user's shell says of kinds is left out."""
    ours = {name for variables in KINDS.values() for name in variables}
    return {name: value for name, value in os.environ.items() if name not in ours} | KINDS[kind]


def has(file: Path, name: str, only: str | None) -> bool:
    """Whether a result file has the answers of all lessons that were asked for, of the run of this name."""
    if not file.is_file():
        return False
    run = reading.read_json(file)["runs"].get(name, {"lessons": {}})
    asked = lessons.select(lessons.find(), only.split(",") if only else None)
    known = {lesson.number: current(run, lesson.path) for lesson in asked}
    return all(answer.line in known[answer.lesson] for answer in ANSWERS if answer.lesson in known)


def add(file: Path, name: str, out: Path) -> None:
    """Add the answers in a run's folder to a result file; lessons that are not there keep theirs.

    Raises: ValueError if a lesson does not print one of its lines; the file stays as it is.
    """
    content = reading.read_json(file) if file.is_file() else {"runs": {}}
    run = content["runs"].setdefault(name, {"lessons": {}})
    run["about"] = dict(rows()) | {"model": next(stamped(out), "unknown")}
    new = {path: found for path in notebooks(out) if (found := answers(path))}
    run["lessons"] |= {path.name[:2]: found for path, found in new.items()}
    run["measured"] = run.get("measured", {}) | {path.name[:2]: measured(path) for path in new}
    files.write_json(file, content)


def measured(notebook: Path) -> str:
    """A digest of what a lesson measures: its code (without exercises) and its settings at `lesson` scale.

    A setting that has its default does not count, so a new one changes nothing for lessons without it.

    Args:
      notebook: a lesson or a run of it. The digest of a run is that of the code that was run.
    """
    cells, left_out = nbformat.read(notebook, as_version=4).cells, {*editions.TAGS, "injected-parameters"}
    code = [c.source for c in cells if c.cell_type == "code" and not left_out & {*c.metadata.get("tags", [])}]
    with paths.variables(IPTKIT_SCALE="lesson"):
        scale = scales.load("lesson")
    unset = {field.name for field in fields(scale) if getattr(scale, field.name) == field.default}
    others = {name for name, readers in READERS.items() if notebook.name[:2] not in readers}
    settings = {name: value for name, value in asdict(scale).items() if name not in unset | others}
    return digests.digest([code, settings])


def current(run: Mapping[str, Any], lesson: Path) -> dict[str, str]:
    """The answers of a run to a lesson as the lesson is today; {} if it measures something else now."""
    number = lesson.name[:2]
    is_same = run.get("measured", {}).get(number) == measured(lesson)
    return run["lessons"].get(number, {}) if is_same else {}


def notebooks(folder: Path) -> list[Path]:
    """The lessons in a folder, in order."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def stamped(folder: Path) -> Iterator[str]:
    """What the lessons' last cells say of the causal model: its name, device and number type."""
    lines = (line for path in notebooks(folder) for line in output_lines(path))
    return (line.removeprefix("model ") for line in lines if line.startswith("model smollm2"))


def answers(path: Path) -> dict[str, str]:
    """The lines of a lesson's outputs that answer its question, by `Answer.line`.

    Raises: ValueError if a line is missing or has fewer numbers with an interval than `Answer.values`.
    """
    asked = {answer.line: len(answer.values) for answer in ANSWERS if answer.lesson == path.name[:2]}
    found: dict[str, str] = {}
    for line in output_lines(path):
        for begin, count in asked.items():
            if line.startswith(begin + " ") and len(numbers(line)) >= count:
                found.setdefault(begin, line)
    if missing := [begin for begin in asked if begin not in found]:
        raise ValueError(f"{path} prints too few numbers with an interval after '{missing[0]}'; see ANSWERS")
    return found


def output_lines(path: Path) -> Iterator[str]:
    """All lines of text that a notebook's cells print or show, with single spaces."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            yield from (" ".join(line.split()) for line in text.splitlines())


def numbers(line: str) -> list[re.Match[str]]:
    """The numbers of a line that have an interval; groups 1 to 3 are the number and the interval's ends.

    >>> numbers("gain on 15 tasks +0.272 [+0.115, +0.430]")[0].groups()
    ('+0.272', '+0.115', '+0.430')
    """
    return list(NUMBER.finditer(line))


def answer_cells(runs: Mapping[str, Any], stored: Path) -> Iterator[list[str]]:
    """The cells of `HEADS` for each value of `ANSWERS`.

    Args:
      runs: those of the result file.
      stored: the folder with the stored lessons.
    """
    of = {path.name[:2]: path for path in notebooks(stored)}
    here = {number: answers(path) for number, path in of.items()}
    for answer in ANSWERS:
        found = [current(run, of[answer.lesson]).get(answer.line) for run in runs.values()]
        for place, what in enumerate(answer.values):
            now = numbers(here[answer.lesson][answer.line])[place]
            counts = range_and_counts(now, [numbers(text)[place] for text in found if text])
            yield [answer.lesson, what, now[0], *counts]


def range_and_counts(stored: re.Match[str], each: Sequence[re.Match[str]]) -> list[str]:
    """The range of the runs' numbers, and how many of them the last two of `HEADS` count."""
    values = sorted((one[1] for one in each), key=float)
    certain = sum(not float(one[2]) <= 0 <= float(one[3]) for one in each)
    inside = sum(float(stored[2]) <= float(value) <= float(stored[3]) for value in values)
    return [
        f"{values[0]} to {values[-1]}" if values else "",
        *(f"{n} of {len(each)}" for n in (certain, inside)),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything that the result file lacks."""
    parser = argparse.ArgumentParser(description="Run the lessons as other CPUs and with other seeds.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="lessons, such as 02,06; default: all")
    parser.add_argument("--seeds", default="0,10,20", help="first seeds; default: 0,10,20")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"kinds of CPU; default: {','.join(KINDS)}")
    parser.add_argument("--json", type=Path, default=RESULTS, help="result file; default: the stored one")
    options = parser.parse_args(arguments)
    kinds = options.kinds.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"--kinds {unknown[0]}: the kinds are {', '.join(KINDS)}")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    run_all(options.folder.resolve(), options.json, seeds, kinds, options.only)


if __name__ == "__main__":
    main()
