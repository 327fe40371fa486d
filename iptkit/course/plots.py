"""The look of the figures: white background, one colour and marker per method, a description in words.

Most colours come from Paul Tol's schemes for colour-blind readers, and all have a contrast of at least 3:1 on
white. Line styles and markers distinguish the methods in print.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

GREY, BLACK = "#777777", "#000000"
METHODS: dict[str, dict[str, str]] = {
    "zero-shot": {"color": BLACK, "marker": "_", "linestyle": "--"},
    "prompt tuning": {"color": "#332288", "marker": "o", "linestyle": "-"},
    "MSF": {"color": "#117733", "marker": "s", "linestyle": "-"},
    "IST": {"color": "#CC6677", "marker": "D", "linestyle": "-"},
    "mean code": {"color": "#997700", "marker": "^", "linestyle": "-."},
    "mean prompt": {"color": "#808000", "marker": "v", "linestyle": "-."},
    "random decoder": {"color": "#7766BB", "marker": "X", "linestyle": ":"},
    "random directions around the mean code": {"color": "#0099AA", "marker": "+", "linestyle": "--"},
    "Fastfood around the mean code": {"color": "#3355AA", "marker": "4", "linestyle": "-."},
    "principal components around the mean code": {"color": "#227755", "marker": ".", "linestyle": "-."},
    "reconstruction alone": {"color": "#885522", "marker": "$r$", "linestyle": ":"},
    "PCA": {"color": "#228877", "marker": "P", "linestyle": "-."},
    "PCA of the prompts": {"color": "#225555", "marker": "3", "linestyle": ":"},
    "Fastfood over the prompt": {"color": "#4477AA", "marker": "d", "linestyle": ":"},
    "nearest task's prompt": {"color": "#8A8A8A", "marker": "2", "linestyle": "-."},
    "IST, same data": {"color": "#EE6677", "marker": "x", "linestyle": "--"},
    "stage two": {"color": "#AA3377", "marker": "H", "linestyle": "-"},
    "linear probe": {"color": "#661100", "marker": "1", "linestyle": "--"},
    "P-Tuning v2": {"color": "#0077BB", "marker": "h", "linestyle": "-"},
    "MPT-2": {"color": "#CC5500", "marker": "p", "linestyle": "-"},
    "LoRA": {"color": "#AA4499", "marker": "<", "linestyle": "-"},
    "fine-tuning": {"color": "#882255", "marker": ">", "linestyle": "-"},
    "DID": {"color": "#B07700", "marker": "8", "linestyle": "--"},
    "chance": {"color": GREY, "marker": "|", "linestyle": ":"},
    "paper": {"color": GREY, "marker": "*", "linestyle": "-"},
}


def use() -> None:
    """Set matplotlib's defaults for the course: white background, readable sizes, no transparency."""
    import matplotlib

    matplotlib.rcParams.update(
        {
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "savefig.facecolor": "white",
            "savefig.transparent": False,
            "text.color": BLACK,
            "axes.labelcolor": BLACK,
            "xtick.color": BLACK,
            "ytick.color": BLACK,
            "axes.edgecolor": BLACK,
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 100,
            "savefig.dpi": 100,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "axes.axisbelow": True,
            "lines.linewidth": 1.6,
            "lines.markersize": 6,
            "legend.frameon": False,
            "image.cmap": "cividis",
        }
    )


def svg(draw: Callable[[], Figure]) -> str:
    """The text of an SVG file in the look of the course; the same bytes each time.

    Args:
      draw: makes the figure.
    """
    import matplotlib

    with matplotlib.rc_context():
        use()
        matplotlib.rcParams.update({"svg.hashsalt": "iptkit", "svg.fonttype": "path"})
        text = io.StringIO()
        draw().savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def style(method: str) -> dict[str, Any]:
    """The colour, marker and line style of a method, as arguments of matplotlib.

    Raises: ValueError if the method has none.
    """
    if method not in METHODS:
        raise ValueError(f"no style for the method {method!r}; there are: {', '.join(METHODS)}")
    return dict(METHODS[method])


def curve(
    ax: Axes,
    x: Sequence[float],
    mean: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    method: str = "IST",
    label: str | None = None,
) -> Line2D:
    """Draw a method's mean over x, with its interval as a band.

    Args:
      ax: matplotlib axes.
      x: one value per point.
      mean: one value per point.
      low: lower end of the interval per point; None (with `high`) for no band.
      high: upper end of the interval per point.
      method: key of METHODS.
      label: words for the legend (default: the method's name; "" for none).
    Returns: the line.
    """
    look = style(method)
    (line,) = ax.plot(x, mean, label=method if label is None else label or "_nolegend_", **look)
    if low is not None and high is not None:
        ax.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
    return line


def level(ax: Axes, value: float, method: str, label: str | None = None) -> Line2D:
    """Draw a horizontal line for a method that does not depend on x, such as chance or a paper's result.

    Args:
      ax: matplotlib axes.
      value: height of the line.
      method: key of METHODS.
      label: words for the legend (default: the method's name; "" for none).
    Returns: the line.
    """
    look = style(method)
    look.pop("marker")
    return ax.axhline(value, label=method if label is None else label or "_nolegend_", linewidth=1.2, **look)


def bars(
    ax: Axes,
    groups: Sequence[str],
    values: Mapping[str, Sequence[float]],
    low: Mapping[str, Sequence[float]] | None = None,
    high: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Draw grouped bars, one colour per method, with intervals where given.

    Args:
      ax: matplotlib axes.
      groups: names along the x axis.
      values: method -> one value per group.
      low: method -> lower ends of its intervals, for all or some of the methods.
      high: method -> upper ends of its intervals, for the same methods.
    """
    width = 0.8 / len(values)
    for index, (method, heights) in enumerate(values.items()):
        places = [group + (index - (len(values) - 1) / 2) * width for group in range(len(groups))]
        ax.bar(places, heights, width * 0.92, color=style(method)["color"], label=method)
        if low and high and method in low and method in high:
            ends = [
                [h - a for h, a in zip(heights, low[method], strict=True)],
                [b - h for h, b in zip(heights, high[method], strict=True)],
            ]
            ax.errorbar(places, heights, ends, fmt="none", ecolor=BLACK, elinewidth=1, capsize=2)
    ax.set_xticks(range(len(groups)), groups)
    ax.grid(False, axis="x")


def show(fig: Figure, alt: str) -> None:
    """Display a figure in a notebook with a description in words, and close it.

    Args:
      fig: matplotlib figure.
      alt: what a reader who cannot see the figure should know: its axes and what stands out.
    Raises: ValueError if alt is empty.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    if not alt.strip():
        raise ValueError("show(fig, alt=...) needs a description of the figure in words")
    if fig.canvas.manager is None:  # not made by pyplot, whose first figure makes notebooks show pictures
        plt.switch_backend(plt.get_backend())
    display(fig, metadata={"image/png": {"alt": alt.strip()}})
    plt.close(fig)
