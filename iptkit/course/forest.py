"""Figures of the results page: points with 95 % intervals, effects beside the margins that claims ask for.

One visual grammar: a filled circle is for seen tasks, a hollow one for unseen tasks, and a shaded band marks
differences that are too small to matter. In `forest`, colour and shape of a point say the verdict.
`described` says in words what `dots` draws.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iptkit.course import plots
from iptkit.scores import claims

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, BAND, EDGE = "#332288", "#e3e3e3", "#777777"
AXES = {  # measure -> what its axis shows
    "log_likelihood": "difference in log-likelihood (nats per answer token)",
    "score": "difference in score",
    "E_rel": "E_rel: share of prompt tuning's score",
    "reconstruction": "squared error of rebuilt prompts (the mean prompt has 1)",
}
LOOKS = dict(  # verdict -> marker, colour of its edge, whether it is filled
    zip(
        claims.VERDICTS,
        (("o", "#117733", True), ("s", "#0077BB", True), ("X", "#882255", True), ("o", "#555555", False)),
        strict=True,
    )
)
SERIES = {  # the same for `dots`
    "seen tasks": ("o", INK, True),
    "unseen tasks": ("o", INK, False),
    "on classifications": ("s", INK, True),
    "on other tasks": ("D", "#B8541A", False),
}
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "D", "^")
WIDTH, LABELS, ROW, GAP, TOP = 9.0, 4.15, 0.37, 0.72, 0.62  # inches
Interval = Sequence[float]  # mean, low, high


@dataclass(frozen=True)
class Panel:
    """One axis of `dots`.

    Attributes:
      label: what the axis shows.
      rows: row -> series -> (mean, low, high), in the order in which they are drawn.
      lines: name in the legend -> value of a vertical line, such as a paper's result.
      zero: the value that means "no difference"; None for an axis without one.
      margin: how far from `zero` a difference still makes none; it is shaded.
    """

    label: str
    rows: Mapping[str, Mapping[str, Interval]]
    lines: Mapping[str, float] = field(default_factory=dict)
    zero: float | None = 0.0
    margin: float = 0.0


@dataclass(frozen=True)
class Line:
    """One line of `curves`: its name, x, and (mean, low, high) for each x."""

    name: str
    x: Sequence[float]
    values: Sequence[Interval]


def forest(verdicts: Sequence[Mapping[str, Any]], paper: Mapping[str, float]) -> Figure:
    """The effects of all claims with their intervals, beside what each claim asks for; an axis a measure.

    Args:
      verdicts: as `studies.effects.verdicts` returns them.
      paper: effect -> what the paper reports, on axes of E_rel.
    """
    from matplotlib.figure import Figure

    effects = [(v["name"], effect) for v in verdicts for effect in v["effects"]]
    panels = [(m, [(n, e) for n, e in effects if e["measure"] == m]) for m in AXES]
    panels = [(measure, mine) for measure, mine in panels if mine]
    height = TOP + sum(len(mine) * ROW + GAP for _, mine in panels)
    drawn = Figure(figsize=(WIDTH, height))
    drawn.set_layout_engine("none")
    above = height - TOP
    for measure, mine in panels:
        tall = len(mine) * ROW
        place = (LABELS / WIDTH, (above - tall) / height, (WIDTH - LABELS - 0.3) / WIDTH, tall / height)
        _effects(drawn.add_axes(place), measure, mine, paper if measure == "E_rel" else {})
        above -= tall + GAP
    _legend(drawn, bool(paper), {e["verdict"] for _, e in effects})
    return drawn


def forest_described(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """`forest` in words: each claim with its effects and their verdicts."""
    texts = []
    for verdict in verdicts:
        each = [f"{_short(e)} ({e['verdict']})" for e in verdict["effects"]]
        texts.append(f"{verdict['name']} {', '.join(each)}")
    return (
        "The effects of each claim with 95 % intervals, beside the margins asked for, in nats per answer "
        f"token, score, E_rel and squared error. {'; '.join(texts)}."
    )


def dots(panels: Sequence[Panel]) -> Figure:
    """Points with intervals, rows from top to bottom, an axis a panel.

    Args:
      panels: with the rows of the first; a panel may lack some.
    """
    from matplotlib.figure import Figure

    names, series = list(panels[0].rows), _series(panels)
    height = 0.95 + 0.25 * (len(series) > 1 or any(p.lines for p in panels)) + 0.4 * len(names)
    drawn = Figure(figsize=(WIDTH, height))
    every = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, panel in zip(every, panels, strict=True):
        for row, name in enumerate(names):
            for number, one in enumerate(series):
                if one in panel.rows.get(name, {}):
                    shift = 0.16 * (2 * number - len(series) + 1)
                    _point(ax, panel.rows[name][one], row + shift, SERIES[one])
        if panel.zero is not None and panel.margin:
            ends = (panel.zero - panel.margin, panel.zero + panel.margin)
            ax.axvspan(*ends, color=BAND, linewidth=0, zorder=0)
            for end in ends:
                ax.axvline(end, color=EDGE, linewidth=0.7, zorder=1)
        if panel.zero is not None:
            ax.axvline(panel.zero, color=plots.BLACK, linewidth=0.9, zorder=1)
        for number, (title, value) in enumerate(panel.lines.items()):
            ax.axvline(value, color="#882255", linewidth=1.3, linestyle=DASHES[1 + number], label=title)
        ax.set_xlabel(panel.label)
        ax.locator_params(axis="x", nbins=4)
        ax.grid(False, axis="y")
    every[0].set_yticks(range(len(names)), [textwrap.fill(name, 48) for name in names])
    every[0].set_ylim(len(names) - 0.5, -0.5)
    if len(series) > 1:
        for one in series:
            marker, color, is_filled = SERIES[one]
            face = color if is_filled else "white"
            every[0].plot([], [], marker, color=color, mfc=face, mew=1.6, ms=7, label=one)
    found = [pair for ax in every for pair in zip(*ax.get_legend_handles_labels(), strict=True)]
    unique = {label: handle for handle, label in found}
    if unique:
        drawn.legend(list(unique.values()), list(unique), loc="outside upper right", ncols=4)
    return drawn


def described(panels: Sequence[Panel]) -> str:
    """`dots` in words: the means, panel by panel."""
    texts = []
    for panel in panels:
        form = "+.2f" if panel.zero == 0.0 else ".2f"
        each = []
        for name, of in panel.rows.items():
            values = ", ".join(f"{one} {of[one][0]:{form}}".strip() for one in of)
            each.append(f"{name} {values}")
        each += [f"{name} {value:.2f}" for name, value in panel.lines.items()]
        label = panel.label.replace("\n", " ")
        texts.append(f"{label}: {'; '.join(each)}.")
    return " ".join(texts)


def curves(panels: Mapping[str, Sequence[Line]], x_labels: Sequence[str], y_label: str) -> Figure:
    """Lines over budgets, with intervals; a panel each.

    Args:
      panels: title -> its lines.
      x_labels: of the x axes.
      y_label: of the y axis that they share.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(WIDTH, 3.4))
    every = drawn.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (title, lines), x_label in zip(every, panels.items(), x_labels, strict=True):
        ax.axhline(1.0, color=plots.BLACK, linewidth=0.9, zorder=1)
        for number, line in enumerate(lines):
            shift = 1.04 ** (2 * number - len(lines) + 1)  # so that intervals do not cover each other
            x, ink = [value * shift for value in line.x], (INK, "#117733", "#882255", "#555555")[number % 4]
            means = [v[0] for v in line.values]
            ends = [[v[0] - v[1] for v in line.values], [v[2] - v[0] for v in line.values]]
            look = {"color": ink, "linestyle": DASHES[number % 4], "marker": MARKERS[number % 4]}
            ax.errorbar(x, means, ends, capsize=2, elinewidth=1, label=line.name, **look)
        ax.set_xscale("log")
        ticks = sorted({value for line in lines for value in line.x})
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
        ax.set_title(title, loc="left")
        ax.set_xlabel(x_label)
        if len(lines) > 1:
            drawn.legend(*ax.get_legend_handles_labels(), loc="outside lower right", ncols=4, fontsize=8)
    every[0].set_ylabel(y_label)
    return drawn


def runs(gaps: Sequence[float], deviations: Sequence[tuple[float, float]], names: tuple[str, str]) -> Figure:
    """Two methods task by task: the sorted differences in log-likelihood, and the deviations over runs.

    Args:
      gaps: second − first method, one per task.
      deviations: standard deviation of the score over runs, of the first and of the second method, per task.
      names: of the methods.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(WIDTH, 3.3))
    left, right = drawn.subplots(1, 2)
    for rank, gap in enumerate(sorted(gaps)):
        left.plot(rank, gap, "o", color=INK, ms=3.5, mfc=INK if gap > 0 else "white")
    left.axhline(0, color=plots.BLACK, linewidth=0.9)
    left.set_xlabel("tasks, sorted")
    left.set_ylabel(f"{names[1]} − {names[0]}\n(nats per answer token)")
    most = max((value for pair in deviations for value in pair), default=0.0) * 1.05 or 1.0
    right.plot([0, most], [0, most], color=plots.BLACK, linewidth=0.9)
    right.plot([a for a, _ in deviations], [b for _, b in deviations], "o", color=INK, ms=3.5, mfc="white")
    right.set_xlabel(f"standard deviation of the score: {names[0]}")
    right.set_ylabel(names[1])
    right.set_title("below the line: varies less", loc="left", fontsize=9)
    return drawn


# ---- parts ---------------------------------------------------------------------------------------
def _effects(
    ax: Axes, measure: str, mine: Sequence[tuple[str, Mapping[str, Any]]], paper: Mapping[str, float]
) -> None:
    """One panel of `forest`."""
    before = ""
    for row, (name, effect) in enumerate(mine):
        value, equal = effect["value"], effect["equal"]
        low, high = row - 0.42, row + 0.42
        if equal:
            ax.fill_betweenx([low, high], value - equal, value + equal, color=BAND, linewidth=0, zorder=0)
            for end in (value - equal, value + equal):
                ax.plot([end, end], [low, high], color=EDGE, linewidth=0.7, zorder=1)
        ax.plot([value, value], [low, high], color=plots.BLACK, linewidth=1.2, zorder=1)
        asked = value - equal if effect["asks"] == "about" else value
        ax.plot(asked, high, "<" if effect["asks"] == "less" else ">", color=plots.BLACK, ms=5.5, zorder=3)
        if effect["effect"] in paper:
            ax.plot(paper[effect["effect"]], row, "*", color="#B8541A", ms=11, zorder=4)
        _point(ax, (effect["mean"], effect["low"], effect["high"]), row, LOOKS[effect["verdict"]])
        if name != before:
            ax.annotate(
                name, (0, row), (-LABELS * 72 + 8, 0), ("axes fraction", "data"), "offset points",
                va="center", fontsize=9, fontweight="bold",
            )  # fmt: skip
            if row:
                ax.axhline(row - 0.5, color="#bbbbbb", linewidth=0.6, zorder=0)
        before = name
    ax.set_yticks(range(len(mine)), [textwrap.fill(_named(e), 54) for _, e in mine], fontsize=8.5)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(mine) - 0.5, -0.5)
    ax.set_xlabel(AXES[measure])
    ax.grid(False, axis="y")
    ax.margins(x=0.06)


def _named(effect: Mapping[str, Any]) -> str:
    """An effect without the words that its axis already has."""
    return str(effect["effect"].replace(" (the mean prompt has 1)", ""))


def _short(effect: Mapping[str, Any]) -> str:
    """The mean of an effect, with what it is if that is not a difference in score."""
    kinds = {"log_likelihood": "{:+.2f} nats", "E_rel": "E_rel {:.2f}", "reconstruction": "error {:.2f}"}
    return kinds.get(effect["measure"], "{:+.2f}").format(effect["mean"] + 0.0)


def _point(ax: Axes, interval: Interval, y: float, look: tuple[str, str, bool]) -> None:
    """A mean and its interval, in one of LOOKS or SERIES."""
    marker, color, is_filled = look
    mean, low, high = interval[:3]
    ax.plot([low, high], [y, y], color=color, linewidth=1.8, zorder=3, solid_capstyle="butt")
    face = color if is_filled else "white"
    ax.plot(mean, y, marker, color=color, mfc=face, mew=1.6, ms=7, zorder=5)


def _legend(drawn: Figure, has_paper: bool, verdicts: set[str]) -> None:
    """What the signs of `forest` mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    signs: list[Any] = [
        Line2D([], [], color=c, marker=m, mfc=c if filled else "white", mew=1.6, ms=7, label=verdict)
        for verdict, (m, c, filled) in LOOKS.items()
        if verdict in verdicts
    ]
    signs.append(Patch(facecolor=BAND, edgecolor=EDGE, label="margin"))
    asked: dict[str, Any] = {"color": plots.BLACK, "linestyle": "none", "ms": 5.5}
    signs.append(Line2D([], [], marker=">", label="the claim asks for this side", **asked))
    if has_paper:
        signs.append(Line2D([], [], color="#B8541A", marker="*", ms=11, linestyle="none", label="the paper"))
    drawn.legend(handles=signs, loc="upper center", ncols=4, fontsize=9, borderaxespad=0.2)


def _series(panels: Sequence[Panel]) -> list[str]:
    return list(dict.fromkeys(one for panel in panels for of in panel.rows.values() for one in of))
