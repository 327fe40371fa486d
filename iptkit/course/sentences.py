"""Sentences of the results page whose words follow the numbers: who scores higher than whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iptkit.scores import claims
from iptkit.scores.intervals import difference_text

Gap = Sequence[float]  # mean, low and high end of its interval
HIGHER, LOWER = "scores higher than", "scores lower than"
SAME = "shows no significant difference from"
VERBS = {  # what is compared -> the words for a difference above 0, below 0, and neither
    "score": (HIGHER, LOWER, SAME),
    "log_likelihood": (
        "has a higher log-likelihood than",
        "has a lower log-likelihood than",
        "shows no significant difference in log-likelihood from",
    ),
}
UNITS = {"log_likelihood": " nats"}


def verb(gap: Gap, measure: str = "score", p: float = 0.0) -> str:
    """The verb of a comparison of two methods, from the 95 % interval of their difference.

    Args:
      gap: value of the first method minus value of the second.
      measure: a key of VERBS.
      p: of a test that the difference is 0; above 0.05 it is not significant, whatever the interval.

    Example:
      >>> verb((0.1, 0.02, 0.2)), verb((-0.2, -0.3, -0.1)), verb((0.1, -0.1, 0.3))
      ('scores higher than', 'scores lower than', 'shows no significant difference from')
    """
    higher, lower, same = VERBS[measure]
    if p > claims.LEVEL:
        return same
    return higher if gap[1] > 0 else lower if gap[2] < 0 else same


def against(
    subject: str, gaps: Mapping[str, Gap], measure: str = "score", p: Mapping[str, float] | None = None
) -> str:
    """Sentences that compare a method with others: those it beats, those that beat it, and the rest.

    Args:
      subject: the method, as the subject of the first sentence.
      gaps: name of another method -> value of `subject` minus its value.
      measure: a key of VERBS.
      p: name of another method -> see `verb`.

    Example:
      >>> against("IST", {"a": (0.1, 0.02, 0.2), "b": (0.1, -0.1, 0.3)})[:50]
      'IST scores higher than a (+0.100 [+0.020, +0.200])'
    """
    sentences: list[str] = []
    verbs = {name: verb(gap, measure, (p or {}).get(name, 0.0)) for name, gap in gaps.items()}
    for words in VERBS[measure]:
        named = [f"{name} ({gap_text(gap, measure)})" for name, gap in gaps.items() if verbs[name] == words]
        if named:
            sentences.append(f"{'It' if sentences else subject} {words} {listed(named)}.")
    return " ".join(sentences)


def than(gap: Gap, other: str, measure: str = "score", p: float = 0.0) -> str:
    """Verb, other method and difference.

    Example:
      >>> than((0.1, 0.02, 0.2), "zero-shot")
      'scores higher than zero-shot (+0.100 [+0.020, +0.200])'
    """
    return f"{verb(gap, measure, p)} {other} ({gap_text(gap, measure)})"


def gap_text(gap: Gap, measure: str = "score") -> str:
    """A difference with signs, interval and unit.

    Example:
      >>> gap_text((0.1, 0.02, 0.2), "log_likelihood")
      '+0.100 [+0.020, +0.200] nats'
    """
    return difference_text(gap) + UNITS.get(measure, "")


def with_interval(gap: Gap, places: int = 2) -> str:
    """A mean with its interval, without a plus sign.

    Example:
      >>> with_interval((0.5, 0.4, 0.6))
      '0.50 [0.40, 0.60]'
    """
    mean, low, high = gap[:3]
    return f"{mean:.{places}f} [{low:.2f}, {high:.2f}]"


def listed(parts: Sequence[Any], last: str = "and") -> str:
    """Parts with commas and a last word between them.

    Example:
      >>> listed([1, 2, 3], "or")
      '1, 2 or 3'
    """
    *first, end = map(str, parts)
    return f"{', '.join(first)} {last} {end}" if first else end


def bullets(*texts: str) -> str:
    """A list in Markdown; empty texts are left out."""
    return "\n".join(f"- {text}" for text in texts if text)


def table(heads: Sequence[Any], lines: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown.

    Example:
      >>> print(table(["a", "b"], [[1, 2]]))
      | a | b |
      |---|---|
      | 1 | 2 |
    """
    cells = [list(map(str, heads)), *(list(map(str, line)) for line in lines)]
    shown = [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join([shown[0], "|" + "---|" * len(heads), *shown[1:]])


def folded(title: str, *parts: str) -> str:
    """Parts in Markdown that a reader opens by a click on the title."""
    return "\n\n".join([f"<details><summary>{title}</summary>", *parts, "</details>"])
