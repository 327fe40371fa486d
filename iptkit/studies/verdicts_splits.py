"""How well a subspace generalises: one study per split, compared on the tasks that all of them hold out.

`iptkit study --suite ipt120 --split SPLIT --only-unseen` makes the studies (without --only-unseen for the
random split). Claims A9 (on the kind of the seen tasks) and A10 (on their number) are judged by paired
differences in test scores: between IST and zero-shot on either kind of unseen tasks, and between IST with
many and with few seen tasks. The effect of leakage is such a difference, too: the same unseen tasks with and
without their siblings among the seen ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from iptkit.scores import claims, intervals, summary
from iptkit.scores.intervals import Interval, difference_text
from iptkit.storage import paths
from iptkit.studies import stored_results
from iptkit.tasks import suites

Rows = Sequence[dict[str, Any]]
SUITE, METHOD = "ipt120", "IST"
MARGIN = 0.03  # of a score: "not above" means at most so much above
ONE_DRAW = "one draw of seen tasks, one MSF each"
ALIKE = ("backbone", "prompt_length", "test_examples", "prompt", "msf", "ist", "subspace")  # fields of Scale
BY_NUMBER = ("random20", "random40", "random60", "random80", "random")  # splits with the same unseen tasks
LEAK = ("leaky", "no_siblings")  # splits with the same unseen tasks, whose siblings are seen or not
KINDS = {"cls": True, "non_cls": False}  # split -> whether its seen tasks are classifications


def load_studies() -> dict[str, Rows]:
    """The rows of all stored studies of SUITE, by split.

    Raises: ValueError if two of them were not made with the same sizes (see ALIKE) and dtype.
    """
    found: dict[str, Rows] = {}
    sizes: dict[str, dict[str, Any]] = {}
    for split in dict.fromkeys((*KINDS, *BY_NUMBER, *LEAK)):
        name = SUITE if split == "random" else f"{SUITE}-{split}"
        if (paths.data_dir() / "results" / f"{name}.jsonl").is_file():
            found[split], about = stored_results.load_rows(name)
            mine = {field: about.get("scale", {}).get(field) for field in ALIKE}
            sizes[split] = mine | {"dtype": about.get("dtype")}
            _check_alike(sizes, split)
    return found


def _check_alike(sizes: Mapping[str, Mapping[str, Any]], split: str) -> None:
    """Raise ValueError if the study of a split has other sizes than the first one."""
    first, wanted = next(iter(sizes.items()))
    found = sizes[split]
    differs = [
        f"{field} {found[field]} and {wanted[field]}" for field in found if found[field] != wanted[field]
    ]
    if differs:
        raise ValueError(
            f"the stored studies of the splits {split} and {first} differ in {'; '.join(differs)}, so they "
            "cannot be compared; make both again (`make study-ipt120`)"
        )


def record() -> list[dict[str, Any]]:
    """Judge A9 and A10 by the stored studies and record the verdicts; their scale is named like SUITE."""
    return [claims.record(scale=SUITE, **verdict) for verdict in verdicts(load_studies())]


def side_by_side(studies: Mapping[str, Rows], dim: int = 5) -> list[dict[str, Any]]:
    """Rows of IST on the tasks that are unseen in every study, for `summary.difference`.

    Args:
      studies: split -> rows of its study.
      dim: d_I.
    Returns: rows of the tasks and seeds that all studies share, with the split as "method".
    Raises: ValueError if no task is unseen in all of them.
    """
    mine = {name: [r for r in rows if _is_wanted(r, dim)] for name, rows in studies.items()}
    shared = set.intersection(*({(r["task"], r["seed"]) for r in rows} for rows in mine.values()))
    if not shared:
        raise ValueError(f"no task is unseen in all of {', '.join(studies)} with IST at d_I = {dim}")
    return [
        r | {"method": name} for name, rows in mine.items() for r in rows if (r["task"], r["seed"]) in shared
    ]


def kinds(studies: Mapping[str, Rows], dim: int = 5) -> dict[str, Interval]:
    """The gain of IST from a subspace of tasks of the same kind over one of the other kind.

    Args:
      studies: rows of the splits "cls" and "non_cls".
      dim: d_I.
    Returns: the paired difference in score with its 95 % interval over leakage groups, on unseen
      classifications ("cls") and on other unseen tasks ("non_cls").
    """
    rows = side_by_side(_only(studies, KINDS), dim)
    gaps = {}
    for name, is_cls in KINDS.items():
        (other,) = set(KINDS) - {name}
        of_kind = [r for r in rows if (r["category"] == "cls") == is_cls]
        gaps[name] = summary.difference(of_kind, (name, dim), (other, dim))
    return gaps


def leakage(studies: Mapping[str, Rows], dim: int = 5) -> dict[str, Interval]:
    """The gain of IST on unseen tasks from siblings among the seen tasks.

    Args:
      studies: rows of both splits of LEAK.
      dim: d_I.
    Returns: the paired difference in score with its 95 % interval over groups, on unseen tasks with seen
      siblings ("siblings seen") and without ("none"), for which only the number of seen tasks differs.
    """
    rows = side_by_side(_only(studies, LEAK), dim)
    group = {card.id: card.group for card in suites.list_cards(SUITE)}
    seen = {group[task] for task in suites.split(LEAK[0], SUITE).seen}
    parts: dict[str, list[dict[str, Any]]] = {"siblings seen": [], "none": []}
    for row in rows:
        parts["siblings seen" if group[row["task"]] in seen else "none"].append(row)
    return {name: summary.difference(mine, (LEAK[0], dim), (LEAK[1], dim)) for name, mine in parts.items()}


def shared(studies: Mapping[str, Rows], dim: int = 5) -> set[str]:
    """Ids of the tasks that are unseen in every study."""
    return {row["task"] for row in side_by_side(studies, dim)}


def kept(
    rows: Rows, dim: int = 5, is_cls: bool | None = None, only: Collection[str] | None = None
) -> Interval | None:
    """E_rel of IST on a study's unseen tasks with its interval, or None if no task has a usable reference.

    Args:
      rows: of the study.
      dim: d_I.
      is_cls: only classifications (True), only other tasks (False), or all (None).
      only: only these tasks, for example the `shared` ones.
    """
    chosen = [r for r in rows if is_cls is None or (r["category"] == "cls") == is_cls]
    chosen = [r for r in chosen if only is None or r["task"] in only]
    lines = summary.summary(chosen, [(METHOD, dim)], ["unseen"])
    return lines[0]["E_rel"] if lines else None


def verdicts(studies: Mapping[str, Rows], dim: int = 5) -> list[dict[str, Any]]:
    """Verdicts on A9 and A10: "name", "here" (in words), "verdict", "num_tasks" and "num_seeds" each.

    Args:
      studies: rows of the splits of KINDS (for A9), and of the first and the last of BY_NUMBER (for A10).
      dim: d_I.
    """
    found = []
    if set(KINDS) <= set(studies):
        found.append({"name": "A9", **_of_classifications(studies, dim)})
    least, most = (BY_NUMBER[i] for i in (0, -1))
    if {least, most} <= set(studies):
        rows = side_by_side(_only(studies, (least, most)), dim)
        gap = summary.difference(rows, (most, dim), (least, dim))
        counts = [len(suites.split(name, SUITE).seen) for name in (most, least)]
        here = (
            f"unseen: IST with {counts[0]} seen tasks − with {counts[1]} {difference_text(gap)}; {ONE_DRAW}"
        )
        found.append({"name": "A10", "here": here, "verdict": claims.of_difference(gap), **_counts(rows)})
    return found


def above(studies: Mapping[str, Rows], split: str, is_cls: bool, other: str, dim: int = 5) -> Interval:
    """IST in the subspace of a split of KINDS minus another method, on tasks that are unseen in both splits.

    Args:
      studies: rows of both splits.
      split: "cls" or "non_cls", whose seen tasks the subspace was found on.
      is_cls: on unseen classifications (True) or on other tasks (False).
      other: a method of the study, such as "zero-shot" or "mean code".
      dim: d_I.
    """
    common = shared(_only(studies, KINDS), dim)
    rows = [r for r in studies[split] if r["task"] in common and (r["category"] == "cls") == is_cls]
    has_dim = any(r["method"] == other and r["d_I"] == dim for r in rows)
    return summary.difference(rows, (METHOD, dim), (other, dim if has_dim else 0), "unseen")


def _of_classifications(studies: Mapping[str, Rows], dim: int) -> dict[str, Any]:
    """A9: the subspace of classifications helps on other classifications, but not on other tasks.

    It helps if IST is above zero-shot, and does not help if IST is at most MARGIN above. If it does not help
    on classifications, the claim fails.
    """
    serves, elsewhere = (above(studies, "cls", is_cls, "zero-shot", dim) for is_cls in (True, False))
    fails = claims.of_difference(intervals.opposite(elsewhere), MARGIN)
    rows = side_by_side(_only(studies, KINDS), dim)
    tasks_of = {row["task"]: row["category"] == "cls" for row in rows}
    count, seen = sum(tasks_of.values()), len({r["task"] for r in studies["cls"] if r["split"] == "seen"})
    here = (
        f"{seen} classifications seen: IST − zero-shot on unseen "
        f"classifications ({count}) {difference_text(serves)}, on other tasks ({len(tasks_of) - count}) "
        f"{difference_text(elsewhere)}, where a subspace of other tasks does better by "
        f"{difference_text(kinds(studies, dim)['non_cls'])}; {ONE_DRAW}"
    )
    verdict = claims.of_difference(serves)
    verdict = verdict if verdict == claims.VERDICTS[2] else claims.of_both([verdict, fails])
    return {"here": here, "verdict": verdict, **_counts(rows)}


def _only(studies: Mapping[str, Rows], splits: Collection[str]) -> dict[str, Rows]:
    """The studies of these splits. Raises: ValueError if one is missing."""
    missing = [name for name in splits if name not in studies]
    if missing:
        raise ValueError(
            f"there are rows of the splits {', '.join(studies) or 'none'} of {SUITE}, but not of "
            f"{', '.join(missing)}; make them with `iptkit study --suite {SUITE} --split {missing[0]} "
            "--dims 5 --only-unseen`"
        )
    return {name: studies[name] for name in splits}


def _counts(rows: Rows) -> dict[str, int]:
    """The numbers of tasks and seeds."""
    names = {"num_tasks": "task", "num_seeds": "seed"}
    return {count: len({row[name] for row in rows}) for count, name in names.items()}


def _is_wanted(row: Mapping[str, Any], dim: int) -> bool:
    return (row["method"], row["d_I"], row["split"]) == (METHOD, dim, "unseen")
