"""docs/figure.svg: how much of prompt tuning's score a few parameters per task keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iptkit.course import plots
from iptkit.scores import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDES = ("seen", "unseen")


def ladder(rows: Sequence[dict[str, Any]], dim: int) -> dict[str, dict[str, Sequence[float]]]:
    """The values in the figure: method -> side -> mean test score and the ends of its 95 % interval.

    Args:
      rows: result rows of a study.
      dim: the d_I of its mean code and IST.
    """
    methods = [("zero-shot", 0), ("mean code", dim), ("IST", dim), ("prompt tuning", 0)]
    found: dict[str, dict[str, Sequence[float]]] = {}
    for side in SIDES:
        mine = {r["task"] for r in rows if (r["method"], r["split"]) == ("IST", side)}
        of_tasks = [row for row in rows if row["task"] in mine]
        for line in summary.summary(of_tasks, methods, [side]):
            found.setdefault(line["method"], {})[side] = line["score"]
    return found


def alt(rows: Sequence[dict[str, Any]], dim: int) -> str:
    """The figure in words; arguments as for `ladder`."""
    means = {
        side: ", ".join(f"{method} {of[side][0]:.2f}" for method, of in ladder(rows, dim).items())
        for side in SIDES
    }
    sides = "; ".join(f"{num_tasks(rows, side)} {side} tasks: {means[side]}" for side in SIDES)
    return f"Mean test score with 95 % intervals. {sides}."


def figure(rows: Sequence[dict[str, Any]], dim: int, prompt_size: int) -> str:
    """The text of an SVG file that shows `ladder`; the same bytes each time.

    Args:
      rows: result rows of a study.
      dim: the d_I of its mean code and IST.
      prompt_size: trainable parameters of one prompt.
    """
    from matplotlib.figure import Figure

    def draw() -> Figure:
        drawn = Figure(figsize=(7.2, 3.8))
        _draw(drawn.subplots(), rows, dim, prompt_size)
        return drawn

    return plots.svg(draw)


def num_tasks(rows: Sequence[dict[str, Any]], side: str) -> int:
    """The number of seen or unseen tasks in result rows."""
    return len({row["task"] for row in rows if row["split"] == side})


def in_words(count: int) -> str:
    """A number up to ten as a word.

    Example:
      >>> in_words(5), in_words(12)
      ('Five', '12')
    """
    words = ("Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten")
    return words[count] if count < len(words) else str(count)


def _draw(ax: Axes, rows: Sequence[dict[str, Any]], dim: int, prompt_size: int) -> None:
    steps = ladder(rows, dim)
    trains = {"zero-shot": 0, "mean code": 0, "IST": dim, "prompt tuning": prompt_size}
    for place, (method, of) in enumerate(steps.items()):
        for sign, side in ((-1, "seen"), (1, "unseen")):
            look, (mean, low, high), at = plots.style(method), of[side], place + sign * 0.12
            face = look["color"] if side == "seen" else "white"
            ends = [[mean - low], [high - mean]]
            ax.errorbar(at, mean, ends, color=plots.BLACK, capsize=3, linewidth=1.6, zorder=2)
            ax.plot(at, mean, "o", color=plots.BLACK, mfc=face, ms=8, mew=1.6, zorder=3)
            ax.annotate(
                f"{mean:.2f}",
                (at, mean),
                (sign * 8, -3),
                textcoords="offset points",
                ha="right" if sign < 0 else "left",
                fontsize=9,
            )
    for side, face in (("seen", plots.GREY), ("unseen", "white")):
        label = f"{num_tasks(rows, side)} {side} tasks"
        ax.plot([], [], "o", color=plots.GREY, mfc=face, ms=8, mew=1.8, label=label)
    ax.set_xticks(range(len(steps)), [f"{method}\n{trains[method]:,} parameters" for method in steps])
    ax.set_xlim(-0.5, len(steps) - 0.4)
    ax.set_ylim(bottom=0)
    ax.set_ylabel("mean test score")
    ax.set_title(f"How much do {in_words(dim).lower()} trainable parameters per task keep?", loc="left")
    ax.grid(False, axis="x")
    ax.legend(loc="upper left")
