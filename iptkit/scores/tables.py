"""Summaries of result rows as tables to print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def as_text(lines: Sequence[dict[str, Any]]) -> str:
    """Return the lines of `summary.summary` as a table to print."""
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
