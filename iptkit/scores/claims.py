"""Verdicts on the papers' claims: what a paper measured and what a lesson measured here, per claim and scale.

    lesson -> record() -> $IPTKIT_RESULTS/claims/SCALE/B4.json -> add_to_stored() -> data/results/claims.jsonl

data/claims.json lists the claims, in our own words, and for each what decides it: effects with what the claim
asks of them, written down before the studies `ipt120` and `encoders` were run. `of_effect` turns an effect
into a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iptkit.storage import files, paths, reading, result_files, versions

VERDICTS = ("holds", "holds in part", "does not hold here", "not testable at this scale")
MEASURES = (
    "score",
    "log_likelihood",  # nats per answer token
    "E_rel",
    "reconstruction",
    "share",  # of the model's parameters
)
ASKS = ("more", "less", "about")
LEVEL = 0.05  # of the sign-flip test
STORED = "claims.jsonl"  # the project's own verdicts, in data/results
FIELDS = ("claim", "scale", "here", "verdict", "tasks", "seeds")  # every row has these


@dataclass(frozen=True)
class Criterion:
    """What a claim asks of one effect, with the verdict by its 95 % interval over tasks.

    Attributes:
      effect: what is measured, in words.
      measure: one of MEASURES.
      asks: one of ASKS. "more" holds if the whole interval is above `value`, and fails if it is below `value`
        or inside `value` ± `equal` (no difference that matters). "less" is the mirror image. "about" holds if
        the whole interval is above `value` - `equal`, and fails if it is below that.
      value: what the effect is compared with.
      equal: margin >= 0 within which an effect makes no difference.
    """

    effect: str
    measure: str
    asks: str
    value: float
    equal: float

    def __post_init__(self) -> None:
        if self.measure not in MEASURES or self.asks not in ASKS or not self.equal >= 0:
            raise ValueError(
                f"the criterion {self.effect!r} has measure {self.measure!r}, asks {self.asks!r} and equal "
                f"{self.equal}; allowed are {', '.join(MEASURES)}; {', '.join(ASKS)}; and a number >= 0"
            )


@dataclass(frozen=True)
class Claim:
    """One claim: our words for it, its source, what the paper measured, the lesson and what decides it."""

    id: str
    claim: str
    source: str
    paper: str
    lesson: str
    criteria: tuple[Criterion, ...] = ()


def known() -> dict[str, Claim]:
    """Return all claims by id, in the order of data/claims.json."""
    listed = reading.read_json(paths.data_dir() / "claims.json")
    return {
        name: Claim(
            name, **{**fields, "criteria": tuple(Criterion(**one) for one in fields.get("criteria", ()))}
        )
        for name, fields in listed.items()
    }


def of_effect(effect: Sequence[float], p: float, criterion: Criterion) -> str:
    """Return the verdict on one effect.

    A significant effect that is wholly inside the margin holds in part: it is there, and makes no difference.

    Args:
      effect: (mean, low, high), as `intervals.interval` returns it.
      p: of the sign-flip test over leakage groups that the effect is `criterion.value`; with "more" and
        "less", an effect holds or is on the other side only if p <= 0.05, too.
      criterion: what the claim asks.

    Example:
      >>> asks = Criterion("a − b", "score", "more", 0.0, 0.02)
      >>> of_effect((0.1, 0.05, 0.2), 0.01, asks), of_effect((0.1, -0.1, 0.3), 0.4, asks)
      ('holds', 'not testable at this scale')
      >>> of_effect((0.0, -0.01, 0.01), 0.9, asks), of_effect((0.01, 0.005, 0.015), 0.01, asks)
      ('does not hold here', 'holds in part')
    """
    holds, in_part, fails, is_open = VERDICTS
    sign = -1 if criterion.asks == "less" else 1
    low, high = sorted(sign * (end - criterion.value) for end in effect[1:3])
    if criterion.asks == "about":
        return holds if low > -criterion.equal else fails if high < -criterion.equal else is_open
    is_inside, is_clear = -criterion.equal < low and high < criterion.equal, p <= LEVEL
    if low > 0 and is_clear:
        return in_part if is_inside else holds
    return fails if is_inside or (high < 0 and is_clear) else is_open


def of_difference(difference: Sequence[float], margin: float = 0.0) -> str:
    """Return the verdict on the claim "a - b > -margin", given an interval of a - b.

    Args:
      difference: (mean, low, high), as `intervals.interval` returns it.
      margin: at least 0. With 0 the claim is that a is better than b; with more, that a is worse by less
        than the margin.

    Example:
      >>> of_difference((0.1, 0.02, 0.2)), of_difference((0.1, -0.1, 0.3)), of_difference((-0.2, -0.3, -0.1))
      ('holds', 'not testable at this scale', 'does not hold here')
    """
    low, high = difference[1:3]
    return VERDICTS[0] if low > -margin else VERDICTS[2] if high < -margin else VERDICTS[3]


def of_both(each: Sequence[str]) -> str:
    """Return one verdict for a claim of several parts.

    Parts with equal verdicts share that verdict. Otherwise the claim holds in part if any part holds, and
    does not hold if any part fails.

    Example:
      >>> of_both(["holds", "does not hold here"]), of_both(["does not hold here", VERDICTS[3]])
      ('holds in part', 'does not hold here')
    """
    holds, in_part, fails, is_open = VERDICTS
    if len(set(each)) == 1:
        return each[0]
    return in_part if holds in each else fails if fails in each else is_open


def record(name: str, scale: str, here: str, verdict: str, num_tasks: int, num_seeds: int) -> dict[str, Any]:
    """Write the verdict on a claim to the results folder and return its row.

    It replaces an earlier verdict on the claim at this scale.

    Args:
      name: id of the claim, for example "B4".
      scale: name of the scale that the measurement ran at.
      here: the measurement in a few words and numbers.
      verdict: one of VERDICTS.
      num_tasks: how many tasks it rests on.
      num_seeds: how many seeds it rests on.
    Raises: ValueError for an unknown claim or verdict; then nothing is written.
    """
    if name not in known():
        raise ValueError(f"there is no claim {name!r}; data/claims.json has {', '.join(known())}")
    if verdict not in VERDICTS:
        raise ValueError(f"the verdict on {name} is {verdict!r}; choose one of {', '.join(VERDICTS)}")
    row: dict[str, Any] = {"claim": name, "scale": scale, "here": here, "verdict": verdict}
    row |= {"tasks": num_tasks, "seeds": num_seeds, "judged_with": dict(versions.rows())}
    files.write_json(_folder(paths.results_dir(), scale) / f"{name}.json", row)
    return row


def record_all(verdicts: Iterable[Mapping[str, Any]], scale: str) -> None:
    """Write verdicts to the results folder, see `record`.

    Args:
      verdicts: dictionaries of the arguments of `record`, for example of `studies.verdicts_ipt.verdicts`;
        their "effects" are not written.
      scale: name of the scale that the measurements ran at.
    """
    for verdict in verdicts:
        record(scale=scale, **{name: value for name, value in verdict.items() if name != "effects"})


def found(folder: str | Path, scale: str) -> list[dict[str, Any]]:
    """Return the rows that `record` wrote to a results folder, in the order of the claims."""
    folder = Path(folder)
    rows = [_verdict(file) for file in reading.listed(_folder(folder, scale), ".json")]
    return sorted(rows, key=lambda row: list(known()).index(row["claim"]))


def _verdict(file: Path) -> dict[str, Any]:
    row = reading.read_json(file)
    missing = [name for name in FIELDS if name not in row]
    if missing or row["claim"] not in list(known()) or row["verdict"] not in VERDICTS:
        wrong = f"it lacks {', '.join(missing)}" if missing else "its claim or verdict is unknown"
        raise ValueError(
            f"{file} is not a verdict of this version ({wrong}); delete it and run its lesson or study again"
        )
    return row


def load_stored() -> list[dict[str, Any]]:
    """Return the verdicts that come with the project.

    Raises: FileNotFoundError if there are none.
    """
    return result_files.read(paths.data_dir() / "results" / STORED)


def add_to_stored(folder: str | Path, scale: str) -> int:
    """Copy the verdicts of a results folder into those that come with the project, and return their number.

    A new verdict replaces an older one on the same claim and scale.
    """
    folder = Path(folder)
    new, file = found(folder, scale), paths.data_dir() / "results" / STORED
    if new:
        rows = {(row["claim"], row["scale"]): row for row in (load_stored() if file.is_file() else [])}
        rows |= {(row["claim"], row["scale"]): row for row in new}
        order = list(known())
        result_files.write(file, sorted(rows.values(), key=lambda r: (order.index(r["claim"]), r["scale"])))
    return len(new)


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows as text to print: claim, verdict and measurement."""
    lines = []
    for row in rows:
        lines += [f"{row['claim']:4s}{row['verdict'].upper()}", f"    {known()[row['claim']].claim}"]
        lines.append(f"    here: {row['here']} ({_sizes(row)})")
    return "\n".join(lines)


def _sizes(row: dict[str, Any]) -> str:
    counts = ((row["tasks"], "task"), (row["seeds"], "seed"))
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)


def _folder(results: Path, scale: str) -> Path:
    folder = Path(results) / "claims" / scale
    folder.mkdir(parents=True, exist_ok=True)
    return folder
