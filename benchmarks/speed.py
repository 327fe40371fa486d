"""How fast is iptkit beside what a user would pick instead, and how much memory does it take?

python -m benchmarks.speed [--rows a,b8,b32,c,...] [--rounds 5] [--dtype float32] [--device cpu] [--memory]
    [--json FILE]

Every row pairs iptkit with PEFT or a plain transformers loop (benchmarks/pairs.py), in one process and
dtype, on the same examples. The two take turns; the first turn of each is not counted. Reading the texts,
which iptkit does once before the first training step, stands in a column of its own; in (e) and (f) it is
part of every turn. With --memory each side then does one turn in a process of its own (Linux), and the most
memory it takes is noted.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import alone, forget_peak, give_back, keep, peak_bytes, timed
from benchmarks.pairs import ENCODER, MIXED, MODEL, PAIRS, PROMPT_LENGTH, ROWS, Bench, Pair
from benchmarks.products import Products, flops_of
from iptkit.engine.fast.packed_weights import packed_bytes

WHOLE = 100  # steps of a whole training
SIDES = ("ours", "theirs")


# ---- measuring -----------------------------------------------------------------------------------
def measure(name: str, bench: Bench, rounds: int) -> dict[str, Any]:
    """One row of the table: both sides in turns, medians."""
    pair, device = PAIRS[name](bench), bench.mine.device
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for i in range(rounds + 1):
        for side in seconds:
            work = getattr(pair, side)
            seconds[side].append(timed(device, lambda work=work, i=i: work.step(i)))
    rates = {s: [getattr(pair, s).examples / t for t in times[1:]] for s, times in seconds.items()}
    found = {
        "row": name,
        "what": pair.what,
        "other": pair.other,
        "dtype": bench.dtype,
        "examples_per_second": {s: median(r) for s, r in rates.items()},
        "all_examples_per_second": rates,
        "times": median(a / b for a, b in zip(rates["ours"], rates["theirs"], strict=True)),
        "reading_texts_seconds": pair.reading_seconds,
        "examples_per_turn": {s: getattr(pair, s).examples for s in rates},
    }
    for side in SIDES:
        found |= account(pair, side, rounds + 1, rates[side])
    found["times_at_peak"] = 1 / (found["ours_products_seconds"] * median(rates["theirs"]))
    return found


def account(pair: Pair, side: str, turn: int, rates: Sequence[float]) -> dict[str, float]:
    """FLOPs of one more turn, and the seconds of the same products alone, both for an example."""
    work, products = getattr(pair, side), Products()

    def step() -> None:
        with products:
            work.step(turn)

    flops, alone_seconds = flops_of(step) / work.examples, products.seconds() / work.examples
    return {
        f"{side}_gflop_per_example": flops / 1e9,
        f"{side}_products_seconds": alone_seconds,
        f"{side}_products_tflop_per_second": flops / alone_seconds / 1e12,
        f"{side}_of_peak": alone_seconds * median(rates),
    }


def memory(name: str, side: str, dtype: str) -> int:
    """Bytes that a turn takes at most beyond what stays, with texts and packed weights that iptkit keeps.

    Turns come before it, so that weights that were only mapped are read and optimizers have their state.
    """
    bench = Bench(dtype, "cpu")
    pair = PAIRS[name](bench)
    if side == "theirs" and name[0] in "ef":
        pair.ours.step(0)  # what it said is compared
    work = getattr(pair, side)
    for i in range(work.warm):
        work.step(i)
    give_back()
    forget_peak()
    before = peak_bytes()
    work.step(work.warm)
    return peak_bytes() - before + (pair.kept_bytes + packed_bytes() if side == "ours" else 0)


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| | what | iptkit, examples/s | the other, examples/s | × | reading, s "
        f"| × over {WHOLE} steps with reading | GFLOP an example | TFLOP/s of its products alone "
        "| of that peak | × if iptkit ran at its peak | peak memory, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        both = r["examples_per_second"]
        each = sorted(a / b for a, b in zip(*r["all_examples_per_second"].values(), strict=True))
        reading = whole = ""
        if r["reading_texts_seconds"] > 0:
            step = r["examples_per_turn"]["ours"] / both["ours"]
            share = step * WHOLE / (step * WHOLE + r["reading_texts_seconds"])
            reading, whole = f"{r['reading_texts_seconds']:.1f}", f"{r['times'] * share:.1f}"
        told = {
            "gflop_per_example": ".1f", "products_tflop_per_second": ".3f", "of_peak": ".0%",
        }  # fmt: skip
        of_both = [", ".join(format(r[f"{s}_{name}"], how) for s in SIDES) for name, how in told.items()]
        most = ", ".join(f"{r['peak_bytes'][s] / 2**20:.0f}" for s in SIDES) if "peak_bytes" in r else ""
        lines.append(
            f"| {r['row']} | {r['what']} | {both['ours']:.1f} | {r['other']}: {both['theirs']:.1f} "
            f"| {r['times']:.1f} ({each[0]:.1f} to {each[-1]:.1f}) | {reading} | {whole} "
            f"| {' | '.join(of_both)} | {r['times_at_peak']:.1f} | {most} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--rows", default=",".join(PAIRS), help=f"some of {', '.join(PAIRS)}")
    parser.add_argument("--rounds", type=int, default=5, help="counted turns of each side (default 5)")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or mixed (default float32)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (default cpu)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--memory", action="store_true", help="also measure peak memory (on a CPU, Linux)")
    given = parser.parse_args()
    if given.memory and given.device != "cpu":
        parser.error(f"--memory measures on a CPU; the device is {given.device}")
    names = given.rows.split(",")
    if set(names) - set(PAIRS):
        parser.error(f"--rows is {given.rows}; choose from {', '.join(PAIRS)}")
    warnings.filterwarnings("ignore", category=FutureWarning)  # of the other libraries about each other
    bench = Bench(given.dtype, given.device)
    rows = []
    for name in names:
        rows.append(measure(name, bench, given.rounds))
        if given.memory:
            rows[-1]["peak_bytes"] = {side: alone(memory, name, side, given.dtype) for side in SIDES}
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(f"\n{table(rows)}")
    about = {
        "models": f"{MODEL}, {ENCODER}", "device": given.device, "tasks": ", ".join(MIXED),
        "rows per task": ROWS, "prompt length": PROMPT_LENGTH, "rounds": given.rounds,
    }  # fmt: skip
    keep(given.json, about, rows=rows)


if __name__ == "__main__":
    main()
