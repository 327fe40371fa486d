"""What the papers claim, beside what a lesson measured: one row per claim and scale.

    lesson -> record(...) -> $IPTKIT_RESULTS/claims/SCALE/B4.json -> kept with the lesson's outputs -> read()

The claims themselves are in data/claims.json, in words of our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iptkit.storage import files, paths, step_cache
from iptkit.storage.versions import rows

VERDICTS = ("holds", "holds in part", "does not hold here", "not testable at this scale")
STORED = "claims.jsonl"  # in data/results
FIELDS = ("claim", "scale", "here", "verdict", "tasks", "seeds")  # of a row


@dataclass(frozen=True)
class Claim:
    """One claim: our words for it, where it stands, what the paper measured, and the lesson that tries it."""

    id: str
    claim: str
    source: str
    paper: str
    lesson: str


def known() -> dict[str, Claim]:
    """All claims by id, in order."""
    listed = files.read_json(paths.data_dir() / "claims.json")
    return {name: Claim(name, **fields) for name, fields in listed.items()}


def of_difference(difference: Sequence[float], margin: float = 0.0) -> str:
    """The verdict on "a - b is above -margin", by an interval.

    Args:
      difference: mean, low and high of `evaluation.interval`.
      margin: >= 0; 0 asks whether a is better, more than 0 whether it is at most so much worse.

    Example:
      >>> of_difference((0.1, 0.02, 0.2)), of_difference((0.1, -0.1, 0.3)), of_difference((-0.2, -0.3, -0.1))
      ('holds', 'not testable at this scale', 'does not hold here')
    """
    low, high = difference[1:3]
    return VERDICTS[0] if low > -margin else VERDICTS[2] if high < -margin else VERDICTS[3]


def of_both(each: Sequence[str]) -> str:
    """One verdict of several parts: holds where all do, in part where one does, fails where one fails.

    Example:
      >>> of_both(["holds", "does not hold here"]), of_both(["does not hold here", VERDICTS[3]])
      ('holds in part', 'does not hold here')
    """
    holds, in_part, fails, is_open = VERDICTS
    if len(set(each)) == 1:
        return each[0]
    return in_part if holds in each else fails if fails in each else is_open


def record(name: str, scale: str, here: str, verdict: str, num_tasks: int, num_seeds: int) -> dict[str, Any]:
    """Write what was measured on a claim into the results folder, in place of an older row of the scale.

    Args:
      name: of the claim, for example "B4".
      here: the measurement in a few words and numbers.
      verdict: one of VERDICTS.
    Returns: the row.
    Raises: ValueError for an unknown claim or verdict; nothing is written then.
    """
    if name not in known():
        raise ValueError(f"the claim {name!r} is unknown; data/claims.json has {', '.join(known())}")
    if verdict not in VERDICTS:
        raise ValueError(f"the verdict on {name} is {verdict!r}; choose one of {', '.join(VERDICTS)}")
    row = {"claim": name, "scale": scale, "here": here, "verdict": verdict}
    row |= {"tasks": num_tasks, "seeds": num_seeds, "judged_with": dict(rows())}
    files.write_json(_folder(paths.results_dir(), scale) / f"{name}.json", row)
    return row


def found(folder: str | Path, scale: str) -> list[dict[str, Any]]:
    """The rows that `record` left in a results folder, in the order of the claims."""
    folder = Path(folder)
    rows = [_verdict(file) for file in files.listed(_folder(folder, scale), ".json")]
    return sorted(rows, key=lambda row: list(known()).index(row["claim"]))


def _verdict(file: Path) -> dict[str, Any]:
    row = files.read_json(file)
    missing = [name for name in FIELDS if name not in row]
    if missing or row["claim"] not in list(known()) or row["verdict"] not in VERDICTS:
        wrong = f"it lacks {', '.join(missing)}" if missing else "its claim or verdict is not known"
        raise ValueError(f"{file} is no verdict of this version ({wrong}); delete it and judge again")
    return row


def stored() -> list[dict[str, Any]]:
    """The rows that come with the project.

    Raises: FileNotFoundError if there are none.
    """
    return step_cache.read_results(paths.data_dir() / "results" / STORED)


def keep(folder: str | Path, scale: str) -> int:
    """Put the rows of a results folder among those that come with the project, in place of older ones.

    Returns: how many.
    """
    folder = Path(folder)
    new, file = found(folder, scale), paths.data_dir() / "results" / STORED
    if new:
        rows = {(row["claim"], row["scale"]): row for row in (stored() if file.is_file() else [])}
        rows |= {(row["claim"], row["scale"]): row for row in new}
        order = list(known())
        step_cache.write_results(
            file, sorted(rows.values(), key=lambda r: (order.index(r["claim"]), r["scale"]))
        )
    return len(new)


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """Rows to print: the claim, what was measured, the verdict."""
    lines = []
    for row in rows:
        lines += [f"{row['claim']:4s}{row['verdict'].upper()}", f"    {known()[row['claim']].claim}"]
        lines.append(f"    here: {row['here']} ({_sizes(row)})")
    return "\n".join(lines)


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The README's table of claims."""
    lines = ["| | claim | paper | here | verdict |", "|---|---|---|---|---|"]
    for row in rows:
        claim = known()[row["claim"]]
        here = f"{row['here']} ({row['scale']}, {_sizes(row)})"
        lines.append(f"| {claim.id} | {claim.claim} | {claim.paper} | {here} | {row['verdict']} |")
    return "\n".join(lines)


def _sizes(row: dict[str, Any]) -> str:
    counts = ((row["tasks"], "task"), (row["seeds"], "seed"))
    return ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts)


def _folder(results: Path, scale: str) -> Path:
    folder = Path(results) / "claims" / scale
    folder.mkdir(parents=True, exist_ok=True)
    return folder
