"""How fast is iptkit compared with PEFT and transformers, and how much memory does it take?

python -m benchmarks.speed [--rows a,b8,b32,c,...] [--rounds 5] [--dtype float32] [--device cpu] [--memory]
    [--json FILE]

Every row compares iptkit with PEFT or a plain transformers loop (benchmarks/pairs.py), in one process, in
one number type and on the same examples. The two sides take turns; the first round is not counted. iptkit
computes the texts' keys and values once before the first training step; the column "reading" shows that
time. In rows e and f it is part of every round. With --memory each side also does one round in a process of
its own (Linux), and the peak memory is stored.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import alone, forget_peak, give_back, keep, peak_bytes, timed
from benchmarks.pairs import ENCODER, MIXED, MODEL, PAIRS, PROMPT_LENGTH, ROWS, Bench, Pair
from benchmarks.products import Products, flops_of
from iptkit.engine.fast.packed_weights import packed_bytes

WHOLE = 100  # steps of a complete training
SIDES = ("ours", "theirs")


# ---- measuring -----------------------------------------------------------------------------------
def measure(name: str, bench: Bench, rounds: int) -> dict[str, Any]:
    """Return one row of the table: both sides take turns, medians over the counted rounds."""
    pair, device = PAIRS[name](bench), bench.mine.device
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for i in range(rounds + 1):
        for side in seconds:
            work = getattr(pair, side)
            seconds[side].append(timed(device, partial(work.step, i)))
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
    """Return the FLOPs of one more round and the time of the same products alone, per example."""
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
    """Return the peak memory of one round in bytes, with the texts and packed weights that iptkit keeps.

    Uncounted rounds come first, so that mapped weights are loaded and optimizers have their state.
    """
    bench = Bench(dtype, "cpu")
    pair = PAIRS[name](bench)
    if side == "theirs" and name[0] in "ef":
        pair.ours.step(0)  # the other side compares its answers with these
    work = getattr(pair, side)
    for i in range(work.warm):
        work.step(i)
    give_back()
    forget_peak()
    before = peak_bytes()
    work.step(work.warm)
    return peak_bytes() - before + (pair.kept_bytes + packed_bytes() if side == "ours" else 0)


def ratios(row: dict[str, Any]) -> list[float]:
    """Return how many times as fast as the other side iptkit was in each counted round, lowest first."""
    return sorted(a / b for a, b in zip(*row["all_examples_per_second"].values(), strict=True))


def times_with_reading(row: dict[str, Any]) -> float | None:
    """Return how many times as fast iptkit is over WHOLE steps with reading; None if none comes before."""
    if row["reading_texts_seconds"] <= 0:
        return None
    steps = WHOLE * row["examples_per_turn"]["ours"] / row["examples_per_second"]["ours"]
    return row["times"] * steps / (steps + row["reading_texts_seconds"])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| | what | iptkit, examples/s | the other, examples/s | × | reading, s "
        f"| × over {WHOLE} steps with reading | GFLOP an example | TFLOP/s of its products alone "
        "| of that peak | × if iptkit ran at its peak | peak memory, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        both, each, over = r["examples_per_second"], ratios(r), times_with_reading(r)
        reading = f"{r['reading_texts_seconds']:.1f}" if over is not None else ""
        whole = f"{over:.1f}" if over is not None else ""
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
    """Measure every row, print the table and store it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--rows", default=",".join(PAIRS), help=f"some of {', '.join(PAIRS)}")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of each side (default 5)")
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
    warnings.filterwarnings("ignore", category=FutureWarning)  # raised by the other libraries
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
