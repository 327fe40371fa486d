"""Summaries of rows as tables: to print, and for the README."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iptkit.scores.summary import difference, summary

README_METHODS = {  # (method, has a d_I) -> what the README calls it
    ("zero-shot", 0): "zero-shot",
    ("mean prompt", 0): "mean of the seen tasks' prompts",
    ("mean code", 1): "mean code, nothing tuned",
    ("random decoder", 1): "IST through a random decoder",
    ("IST", 1): "**IST, five numbers per task**",
    ("DID", 1): "all weights along as many random directions (DID)",
    ("shared adapters", 1): "the seen tasks' shared adapters, nothing tuned",
    ("IST, adapters", 1): "IST through adapters",
    ("prompt tuning", 0): "prompt tuning",
    ("fine-tuning", 0): "fine-tuning, all weights",
}


def as_text(lines: Sequence[dict[str, Any]]) -> str:
    """The lines of `summary` as a table to print."""
    nothing = (float("nan"),) * 3
    width = max([15, *(len(line["method"]) + 1 for line in lines)])
    table = [
        f"{'method':{width}s} d_I  tasks   score  95 % interval     ratio  E_rel  95 % interval (tasks)",
    ]
    for line in lines:
        (mean, low, high), (rel, least, most) = line["score"], line["E_rel"] or nothing
        table.append(
            f"{line['method']:{width}s}{line['d_I'] or '':>4}  {line['split']:7s}{mean:6.3f}  "
            f"{f'[{low:.3f}, {high:.3f}]':17s}{line['ratio of means']:6.2f}  {rel:5.2f}  "
            f"{f'[{least:.2f}, {most:.2f}]':14s}({line['E_rel tasks']})"
        )
    return "\n".join(table)


def as_markdown(rows: Sequence[dict[str, Any]], dim: int = 5) -> str:
    """The README's table of a study and, under it, its paired differences (95 % intervals, see `summary`).

    Args:
      dim: the d_I of IST and its controls.
    """
    methods = [(method, d and dim) for method, d in README_METHODS]
    lines = {(line["method"], line["split"]): line for line in summary(rows, methods)}
    seen, unseen = (len({r["task"] for r in rows if r["split"] == s}) for s in ("seen", "unseen"))
    table = [
        f"| mean test score | seen tasks ({seen}) | unseen tasks ({unseen}) | E_rel seen | E_rel unseen |",
        "|---|---|---|---|---|",
    ]
    for (method, _), title in README_METHODS.items():
        both = [lines.get((method, split)) for split in ("seen", "unseen")]  # None: not measured
        if not any(both):
            continue
        scores = ["{:.3f} [{:.2f}, {:.2f}]".format(*line["score"]) if line else "" for line in both]
        kept = ["{:.2f}".format(line["E_rel"][0]) if line and line["E_rel"] else "" for line in both]
        table.append(f"| {' | '.join([title, *scores, *kept])} |")
    return "\n".join([*table, "", _differences(rows, dim)])


def _differences(rows: Sequence[dict[str, Any]], dim: int) -> str:
    """One sentence on what beats what."""

    def told(first: tuple[str, int], second: tuple[str, int], split: str | None = None) -> str:
        return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*difference(rows, first, second, split))

    ist, parts = ("IST", dim), []
    parts.append(f"prompt tuning − zero-shot, all tasks {told(('prompt tuning', 0), ('zero-shot', 0))}")
    for method in ("mean code", "random decoder"):
        measured = {row["split"] for row in rows if (row["method"], row["d_I"]) == (method, dim)}
        sides = [split for split in ("seen", "unseen") if split in measured]
        gaps = [f"{split} {told(ist, (method, dim), split)}" for split in sides]
        parts.append(f"IST − {method}, {', '.join(gaps)}")
    return f"Paired differences: {'; '.join(parts)}."
