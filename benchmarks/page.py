"""The tables of benchmarks/README.md, learning-rates.md and headlines.md, made from the stored results.

python -m benchmarks.page [--check]

Each block between `<!-- begin NAME -->` and `<!-- end NAME -->` comes from benchmarks/results/*.json,
data/timings.json or the stored lessons. The text around the blocks is written by hand and holds no measured
number. With --check nothing is written; the exit status is 1 if a page differs from what this command would
write.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import table as errors_table
from benchmarks.growth import AXES
from benchmarks.headlines import HEADS, answer_cells
from benchmarks.pairs import DEEP_LENGTH, PAIRS
from benchmarks.speed import SIDES, WHOLE, ratios, times_with_reading

HERE = Path(__file__).parent
RESULTS, TIMINGS = HERE / "results", HERE.parent / "data" / "timings.json"
NOTEBOOKS = HERE.parent / "notebooks"
# A row or an axis comes from the first file that has it: more rounds first, then the newer engine.
SPEED = ("speed-float32-amd-15.json", "speed-float32-amd.json", "speed-float32-amd-76d02fc.json")
MIXED, OTHER_CPU = "speed-mixed-amd.json", "speed-float32.json"
GROWTH = ("growth-float32-amd-tasks.json", "growth-float32-amd.json")
ERRORS, BREAKDOWN, COMPILED = "errors.json", "breakdown-lesson.json", "compiled-512.json"
COURSE = "course-lesson.json"
RATES = ("lesson", "lesson-deep", "lesson-03", "lesson-04", "full-04", "ipt120-weights", "ipt120-adapters")
TRAINING = ("a", "b8", "b32", "b128", "c", "d")  # training steps of the causal model, in iptkit's layout
GOAL = 15  # times as fast as the other side
PRODUCTS = ("products with weights", "attention's products")  # groups of benchmarks.breakdown
METHODS = {  # names in the result files -> on the page
    "adapters (MSF)": "MSF of adapters",
    "IST, adapters": "IST of adapters",
    "random adapters": "IST, random adapters",
    "random around shared": "IST, random directions around the shared adapters",
    "random decoder": "IST, random decoder",
    "lstm, tasks": "LSTM encoder, classification",
    "lstm, relations": "LSTM encoder, relations",
    "mlp, tasks": "MLP encoder, classification",
    "mlp, relations": "MLP encoder, relations",
    "none, tasks": "no encoder, classification",
    "none, relations": "no encoder, relations",
}


@dataclass(frozen=True)
class Stored:
    """The files that the pages are made from.

    Attributes:
      results: the folder of the benchmarks' result files.
      timings: the file with the seconds of every notebook.
    """

    results: Path = RESULTS
    timings: Path = TIMINGS

    def read(self, name: str) -> dict[str, Any]:
        """Return the content of a result file. Raises: FileNotFoundError, which names the file."""
        return json.loads((self.results / name).read_text(encoding="utf-8"))

    def speed(self) -> dict[str, dict[str, Any]]:
        """Return the rows of the speed table by name, each with its `commit` and `rounds`.

        A row whose file has no `peak_bytes` takes those of the next file that has some.
        """
        found: dict[str, dict[str, Any]] = {}
        for content in map(self.read, SPEED):
            about = {"commit": commit(content["about"]), "rounds": content["about"]["rounds"]}
            for row in content["rows"]:
                kept = found.setdefault(row["row"], about | row)
                if "peak_bytes" in row:
                    kept.setdefault("peak_bytes", row["peak_bytes"])
        return {name: found[name] for name in PAIRS if name in found}


# ---- blocks --------------------------------------------------------------------------------------
def setup(stored: Stored) -> str:
    """The models, tasks and machine of the speed table."""
    about = stored.read(SPEED[0])["about"]
    count = len(about["tasks"].split(", "))
    return (
        f"Models: {about['models']}. Tasks: {count} of core36 (g: of encoder9); rows with more tasks repeat "
        f"them with other few-shot sets. Each step takes {about['rows per task']} examples per task. Prompts "
        f"have {about['prompt length']} virtual tokens, deep prompts {DEEP_LENGTH} per layer. "
        f"Machine: {about['processor']}; {about['packages'].partition(', datasets')[0]}."
    )


def speed(stored: Stored) -> str:
    """The speed table, and the rounds and the commit of each row."""
    rows, mixed, other = stored.speed(), stored.read(MIXED), stored.read(OTHER_CPU)
    elsewhere = [{row["row"]: row["times"] for row in content["rows"]} for content in (mixed, other)]
    other_name = other["about"]["processor"].partition("(")[0]
    heads = (
        "row", "what", "other side", "examples/s", "× (range)", f"× over {WHOLE} steps", "products",
        "× products only", "memory, MiB", "× mixed", f"× {other_name}",
    )  # fmt: skip
    cells = [[*speed_cells(row), *(number(of.get(name)) for of in elsewhere)] for name, row in rows.items()]
    rounds = grouped((f"{row['rounds']}", name) for name, row in rows.items())
    commits = grouped((row["commit"], name) for name, row in rows.items())
    return (
        f"{markdown(heads, cells)}\n\nCounted rounds: {rounds}. Commits: {commits}. "
        f"Mixed: {mixed['about']['processor']}, commit {commit(mixed['about'])}. "
        f"{other_name}: {other['about']['processor']}, float32, commit {commit(other['about'])}."
    )


def limit(stored: Stored) -> str:
    """What share the matrix products take, and the speed that would be left without everything else."""
    rows, mixed = stored.speed(), stored.read(MIXED)["rows"]
    training = [rows[name] for name in TRAINING if name in rows]
    step, best, best_mixed = (
        max(some, key=lambda row: row["times_at_peak"]) for some in (training, rows.values(), mixed)
    )
    shares = [span([row[f"{side}_of_peak"] for row in training], ".0%") for side in SIDES]
    fewer = span([row["theirs_gflop_per_example"] / row["ours_gflop_per_example"] for row in training], ".1f")
    can = "cannot" if max(best["times_at_peak"], best_mixed["times_at_peak"]) < GOAL else "could"
    seen = stored.read(BREAKDOWN)
    weights, attention = (seen["shares"][group] for group in PRODUCTS)
    return (
        f"Matrix products, run alone, take {shares[0]} of iptkit's time in rows {', '.join(TRAINING)}, and "
        f"{shares[1]} of the other side's. If everything else in iptkit took no time, the best of these rows "
        f"({step['row']}) would be {step['times_at_peak']:.1f} times as fast as the other side, the best of "
        f"all ({best['row']}) {best['times_at_peak']:.1f} times, the best in mixed ({best_mixed['row']}) "
        f"{best_mixed['times_at_peak']:.1f} times. So {GOAL} times {can} be reached on this machine. "
        f"iptkit does {fewer} times fewer FLOPs per example in these rows; only still fewer would help. "
        f"In a training step of lesson 02 ({seen['about']['runs']} runs, {seen['about']['dtype']}), products "
        f"with weights take {weights:.0%} of the time and attention's products {attention:.0%}; without the "
        f"rest the step would be {1 / (weights + attention):.1f} times as fast."
    )


def errors(stored: Stored) -> str:
    """Errors against float64 by kind of CPU and number type."""
    found = stored.read(ERRORS)
    about, shown = found["about"], errors_table(found["errors"])
    return f"{shown}\n\n{about['processor']}, {about['tasks']} tasks, commit {commit(about)}."


def growth(stored: Stored) -> str:
    """Time and memory of a training step, one row per axis.

    Raises: ValueError if no file has an axis.
    """
    cells, sources, about = [], [], {}
    for axis in AXES:
        found = next((content for content in map(stored.read, GROWTH) if axis in content["axes"]), None)
        if found is None:
            raise ValueError(f"none of {', '.join(GROWTH)} has the axis {axis!r}; run benchmarks.growth")
        points, about = found["axes"][axis], found["about"]
        sources.append((commit(about), axis))
        units = {axis: 1, "examples_per_second": 1, "kept_bytes": 2**20, "peak_bytes": 2**20}
        each = (", ".join(f"{p[name] / unit:.0f}" for p in points) for name, unit in units.items())
        cells.append([axis, *each])
    usual = ", ".join(f"{name} {size}" for name, size in about["usual"].items())
    heads = ("axis", "sizes", "examples/s", "keys and values, MiB", "peak memory, MiB")
    return (
        f"{markdown(heads, cells)}\n\nThe other axes stay at {usual}. "
        f"{about['dtype']}, {about['processor']}, commits {grouped(sources)}."
    )


def course(stored: Stored) -> str:
    """Minutes of every notebook, and the share that its matrix products take where they were counted."""
    known = json.loads(stored.timings.read_text(encoding="utf-8"))["lesson"]
    made = known["made_with"]
    seconds = {name[:2]: value for name, value in known["seconds"].items()}
    counted = stored.read(COURSE)["lessons"]
    teraflop = {lesson["lesson"]: lesson["flops"] / 1e12 for lesson in counted}
    share = {n: teraflop[n] / known["teraflops"] / seconds[n] for n in seconds if n in teraflop}
    cells = [
        ["minutes", *map(minutes, seconds.values()), minutes(sum(seconds.values()))],
        ["TFLOP", *(f"{teraflop[n]:.0f}" if n in share else "" for n in seconds), ""],
        ["products", *(f"{share[n]:.0%}" if n in share else "" for n in seconds), ""],
    ]
    return (
        f"{markdown(['notebook', *seconds, 'all'], cells)}\n\n"
        f"{made['processor']}, {made['threads']} threads, commit {commit(made)}. "
        f"*Products*: their share of the time at {known['teraflops']:.2f} TFLOP/s, the speed of large ones "
        f"there; counted for {', '.join(share)} only."
    )


def compiled(stored: Stored) -> str:
    """The line about torch.compile among the things that do not pay."""
    found = stored.read(COMPILED)
    ours, theirs = (sum(row[side] for row in found["rows"]) / 1000 for side in ("ours", "compiled"))
    return (
        f"- `torch.compile` of {len(found['rows'])} element-wise chains ({found['about']['tokens']} tokens): "
        f"{theirs:.1f} ms together, {ours:.1f} ms as iptkit writes them."
    )


def rates(stored: Stored) -> str:
    """What every learning rate reached, the best of each method in bold."""
    rows = []
    for name in RATES:
        tried: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for cell in stored.read(f"learning-rates-{name}.json")["cells"]:
            tried[cell["method"].removesuffix(" (04)")].append(cell)
        rows += [[name, *rates_cells(method, cells)] for method, cells in tried.items()]
    return markdown(("file", "method", "tasks", "learning rate: mean dev loss"), rows)


def headlines(stored: Stored) -> str:
    """Each lesson's answer, as stored and in the runs of other CPUs and seeds."""
    runs = stored.read("headlines.json")["runs"]
    about = {name: run["about"] for name, run in runs.items()}
    names = [f"- {name}: {of['model']}; commit {commit(of)}" for name, of in about.items()]
    return "\n".join([markdown(HEADS, answer_cells(runs, NOTEBOOKS)), "", "Runs:", "", *names])


PAGES: dict[str, dict[str, Callable[[Stored], str]]] = {
    "README.md": {
        "setup": setup,
        "speed": speed,
        "limit": limit,
        "errors": errors,
        "growth": growth,
        "course": course,
        "compiled": compiled,
    },
    "learning-rates.md": {"rates": rates},
    "headlines.md": {"headlines": headlines},
}


# ---- parts of blocks -----------------------------------------------------------------------------
def markdown(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def speed_cells(row: dict[str, Any]) -> list[str]:
    """Return the cells of the speed table that a row's own result file fills."""
    rate, each = row["examples_per_second"], ratios(row)
    peak = [f"{row['peak_bytes'][side] / 2**20:.0f}" for side in SIDES] if "peak_bytes" in row else []
    return [
        row["row"],
        row["what"].replace("5 numbers", "5 parameters"),  # the words of older result files
        row["other"],
        ", ".join(f"{rate[side]:.1f}" for side in SIDES),
        f"{row['times']:.1f} ({each[0]:.1f} to {each[-1]:.1f})",
        number(times_with_reading(row)),
        ", ".join(f"{row[f'{side}_of_peak']:.0%}" for side in SIDES),
        number(row["times_at_peak"]),
        ", ".join(peak),
    ]


def rates_cells(method: str, tried: Sequence[dict[str, Any]]) -> list[str]:
    """Return a method's name, its number of tasks, and what each learning rate reached, by rate."""
    is_loss = all(cell["dev_loss"] is not None for cell in tried)
    key, sign = ("dev_loss", 1) if is_loss else ("option_accuracy", -1)
    best = min(tried, key=lambda cell: sign * cell[key])
    each = []
    for cell in sorted(tried, key=lambda cell: cell["lr"]):
        shown = f"{cell['lr']:.2g}: {cell[key]:.3f}"
        each.append(f"**{shown}**" if cell is best else shown)
    title = METHODS.get(method, method) + ("" if is_loss else " (score)")
    return [title, str(best["tasks"]), ", ".join(each)]


def number(value: float | None) -> str:
    """Return a number with one decimal place; an empty text for None."""
    return "" if value is None else f"{value:.1f}"


def span(values: Sequence[float], form: str) -> str:
    """Return the lowest and the highest value.

    >>> span([2.0, 1.0], ".1f")
    '1.0 to 2.0'
    """
    return f"{min(values):{form}} to {max(values):{form}}"


def minutes(seconds: float) -> str:
    """Return seconds as minutes and seconds.

    >>> minutes(125.2)
    '2:05'
    """
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def commit(about: dict[str, Any]) -> str:
    """Return the commit that a result was measured at.

    >>> commit({"iptkit": "0.1.0 (commit 80f505ba)"})
    '80f505ba'
    """
    found = re.search(r"commit (\S+?)\)", about["iptkit"])
    return found[1] if found else "unknown"


def grouped(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names grouped by their key.

    >>> grouped([("5", "a"), ("15", "b"), ("5", "c")])
    '5 (a, c), 15 (b)'
    """
    found: dict[str, list[str]] = defaultdict(list)
    for key, name in pairs:
        found[key].append(name)
    return ", ".join(f"{key} ({', '.join(names)})" for key, names in found.items())


# ---- the pages -----------------------------------------------------------------------------------
def page(name: str, text: str, stored: Stored) -> str:
    """Return a page with every block made anew from the stored results.

    Args:
      name: a key of `PAGES`.
      text: the page as it is.
      stored: the files to read.
    Raises: ValueError if the page does not have each of its blocks once.
    """
    blocks = PAGES[name]
    marked = re.compile(r"<!-- begin (\S+) -->\n.*?<!-- end \1 -->", re.DOTALL)
    found = marked.findall(text)
    if sorted(found) != sorted(blocks):
        raise ValueError(
            f"{name} has the blocks {', '.join(found) or 'none'}; it must have each of {', '.join(blocks)} "
            "once, between <!-- begin NAME --> and <!-- end NAME -->"
        )
    return marked.sub(lambda m: f"<!-- begin {m[1]} -->\n{blocks[m[1]](stored)}\n<!-- end {m[1]} -->", text)


def main() -> None:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit status 1 if a page differs")
    given = parser.parse_args()
    texts = {name: (HERE / name).read_text(encoding="utf-8") for name in PAGES}
    made = {name: page(name, text, Stored()) for name, text in texts.items()}
    old = [name for name in PAGES if made[name] != texts[name]]
    if given.check and old:
        sys.exit(f"{', '.join(old)} differs from the stored results; run python -m benchmarks.page")
    for name in old:
        (HERE / name).write_text(made[name], encoding="utf-8")


if __name__ == "__main__":
    main()
