"""How far a subspace carries: one study per split, compared on the tasks that none of them has seen.

The studies are those of `iptkit study --suite ipt120 --split SPLIT --only-unseen` (without the last for the
random split). What they say to claims A9 (the kind of the seen tasks) and A10 (their number) are paired
differences in test scores: of IST to zero-shot on either kind of unseen tasks, of IST with many and few
seen tasks; a ratio to prompt tuning (E_rel) stands beside them. What leakage is worth is a difference too:
the same unseen tasks, with and without their siblings among the seen ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from iptkit.scores import claims, summary
from iptkit.storage import paths
from iptkit.studies import stored_results
from iptkit.studies.verdicts_ipt import digits
from iptkit.tasks import suites

Rows = Sequence[dict[str, Any]]
Gap = tuple[float, float, float]  # mean, low, high
SUITE, METHOD = "ipt120", "IST"
MARGIN = 0.03  # of a score: "not above" is at most so much above
ONE_DRAW = "one draw of seen tasks, one MSF each"
ALIKE = ("backbone", "prompt_length", "test_examples", "prompt", "msf", "ist", "subspace")  # of a scale
BY_NUMBER = ("random20", "random40", "random60", "random80", "random")  # splits with the same unseen tasks
LEAK = ("leaky", "no_siblings")  # splits with the same unseen tasks, with their siblings seen and without
KINDS = {"cls": True, "non_cls": False}  # split -> are its seen tasks classifications?


def stored() -> dict[str, Rows]:
    """Split -> rows, of the studies of SUITE that come with the project.

    Raises: ValueError if two of them were not made with the same sizes (see ALIKE) and number type.
    """
    found, sizes = {}, {}
    for split in dict.fromkeys((*KINDS, *BY_NUMBER, *LEAK)):
        name = SUITE if split == "random" else f"{SUITE}-{split}"
        if (paths.data_dir() / "results" / f"{name}.jsonl").is_file():
            found[split], about = stored_results.stored(name)
            made = {field: about.get("scale", {}).get(field) for field in ALIKE} | {
                "dtype": about.get("dtype")
            }
            first, other = next(iter(sizes.items()), (split, made))
            differs = [
                f"{field} {made[field]} and {other[field]}" for field in made if made[field] != other[field]
            ]
            if differs:
                told = f"the stored studies of the splits {split} and {first} differ in {'; '.join(differs)}"
                raise ValueError(f"{told}, so nothing compares them; make both again (`make study-ipt120`)")
            sizes[split] = made
    return found


def record() -> list[dict[str, Any]]:
    """Judge A9 and A10 by the stored studies; see `claims.record` (the scale has the suite's name)."""
    return [claims.record(scale=SUITE, **verdict) for verdict in verdicts(stored())]


def side_by_side(studies: Mapping[str, Rows], dim: int = 5) -> list[dict[str, Any]]:
    """Rows of IST on the tasks that are unseen in every study, for `results.difference`.

    Args:
      studies: split -> rows of its study.
      dim: d_I.
    Returns: rows whose "method" is the split, of the tasks and seeds that every study has.
    Raises: ValueError if no task is unseen in all of them.
    """
    mine = {name: [r for r in rows if _is_wanted(r, dim)] for name, rows in studies.items()}
    shared = set.intersection(*({(r["task"], r["seed"]) for r in rows} for rows in mine.values()))
    if not shared:
        raise ValueError(f"no task is unseen in all of {', '.join(studies)} with IST at d_I = {dim}")
    return [
        r | {"method": name} for name, rows in mine.items() for r in rows if (r["task"], r["seed"]) in shared
    ]


def kinds(studies: Mapping[str, Rows], dim: int = 5) -> dict[str, Gap]:
    """What a subspace found on tasks of the same kind gives over one found on the other kind.

    Args:
      studies: rows of the splits "cls" and "non_cls".
    Returns: "cls" (on unseen classifications) and "non_cls" (on unseen other tasks): the paired difference in
      score of IST with its 95 % interval over leakage groups.
    """
    rows = side_by_side(_only(studies, KINDS), dim)
    gaps = {}
    for name, is_cls in KINDS.items():
        (other,) = set(KINDS) - {name}
        of_kind = [r for r in rows if (r["category"] == "cls") == is_cls]
        gaps[name] = summary.difference(of_kind, (name, dim), (other, dim))
    return gaps


def leakage(studies: Mapping[str, Rows], dim: int = 5) -> dict[str, Gap]:
    """What seen siblings give to an unseen task: IST in the subspace with them, minus without.

    Args:
      studies: with the rows of both splits of LEAK.
    Returns: "siblings seen", and "none": unseen tasks without a seen sibling, to which only the number of
      seen tasks differs. Each a paired difference in score with its 95 % interval over groups.
    """
    rows = side_by_side(_only(studies, LEAK), dim)
    group = {card.id: card.group for card in suites.list_cards(SUITE)}
    seen = {group[task] for task in suites.split(LEAK[0], SUITE).seen}
    parts = {"siblings seen": [], "none": []}
    for row in rows:
        parts["siblings seen" if group[row["task"]] in seen else "none"].append(row)
    return {name: summary.difference(mine, (LEAK[0], dim), (LEAK[1], dim)) for name, mine in parts.items()}


def shared(studies: Mapping[str, Rows], dim: int = 5) -> set[str]:
    """The tasks that are unseen in every study."""
    return {row["task"] for row in side_by_side(studies, dim)}


def kept(
    rows: Rows, dim: int = 5, is_cls: bool | None = None, only: Collection[str] | None = None
) -> Gap | None:
    """E_rel of IST on a study's unseen tasks with its interval, or None where no task has a usable reference.

    Args:
      is_cls: only classifications (True), only other tasks (False), or all (None).
      only: only these tasks, for example `shared` ones.
    """
    chosen = [r for r in rows if is_cls is None or (r["category"] == "cls") == is_cls]
    chosen = [r for r in chosen if only is None or r["task"] in only]
    lines = summary.summary(chosen, [(METHOD, dim)], ["unseen"])
    return lines[0]["E_rel"] if lines else None


def verdicts(studies: Mapping[str, Rows], dim: int = 5) -> list[dict[str, Any]]:
    """What the studies say to A9 and A10: claim, here, verdict, num_tasks, num_seeds.

    Args:
      studies: rows of the splits of KINDS (for A9), and of the first and the last of BY_NUMBER (for A10).
    """
    found = []
    if set(KINDS) <= set(studies):
        found.append({"name": "A9", **_of_classifications(studies, dim)})
    least, most = (BY_NUMBER[i] for i in (0, -1))
    if {least, most} <= set(studies):
        rows = side_by_side(_only(studies, (least, most)), dim)
        gap = summary.difference(rows, (most, dim), (least, dim))
        counts = [len(suites.split(name, SUITE).seen) for name in (most, least)]
        here = f"unseen: IST with {counts[0]} seen tasks − with {counts[1]} {digits(gap)}; {ONE_DRAW}"
        found.append({"name": "A10", "here": here, "verdict": claims.of_difference(gap), **_counts(rows)})
    return found


def above(studies: Mapping[str, Rows], split: str, is_cls: bool, other: str, dim: int = 5) -> Gap:
    """IST in the subspace of a split of KINDS minus another method, on tasks that neither split has seen.

    Args:
      split: "cls" or "non_cls", whose seen tasks the subspace was found on.
      is_cls: on unseen classifications (True) or other tasks.
      other: a method that the study has, such as "zero-shot" or "mean code".
    """
    common = shared(_only(studies, KINDS), dim)
    rows = [r for r in studies[split] if r["task"] in common and (r["category"] == "cls") == is_cls]
    has_dim = any(r["method"] == other and r["d_I"] == dim for r in rows)
    return summary.difference(rows, (METHOD, dim), (other, dim if has_dim else 0), "unseen")


def _of_classifications(studies: Mapping[str, Rows], dim: int) -> dict[str, Any]:
    """A9: the subspace of classifications serves others (IST above zero-shot), and fails on the rest.

    It fails where it is at most MARGIN above zero-shot; if it does not serve its own kind, that says nothing.
    """
    serves, elsewhere = (above(studies, "cls", is_cls, "zero-shot", dim) for is_cls in (True, False))
    fails = claims.of_difference([-elsewhere[i] for i in (0, 2, 1)], MARGIN)
    rows = side_by_side(_only(studies, KINDS), dim)
    tasks_of = {row["task"]: row["category"] == "cls" for row in rows}
    count, seen = sum(tasks_of.values()), len({r["task"] for r in studies["cls"] if r["split"] == "seen"})
    here = (
        f"{seen} classifications seen: IST − zero-shot on unseen "
        f"classifications ({count}) {digits(serves)}, on other tasks ({len(tasks_of) - count}) "
        f"{digits(elsewhere)}, where a subspace of other tasks does better by "
        f"{digits(kinds(studies, dim)['non_cls'])}; {ONE_DRAW}"
    )
    verdict = claims.of_difference(serves)
    verdict = verdict if verdict == claims.VERDICTS[2] else claims.of_both([verdict, fails])
    return {"here": here, "verdict": verdict, **_counts(rows)}


def _only(studies: Mapping[str, Rows], splits: Collection[str]) -> dict[str, Rows]:
    """Those of these splits. Raises: ValueError if one is missing."""
    missing = [name for name in splits if name not in studies]
    if missing:
        told = f"no rows of the {SUITE} splits {', '.join(missing)} among {', '.join(studies) or 'none'}"
        raise ValueError(
            f"{told}; `iptkit study --suite {SUITE} --split {missing[0]} --dims 5 --only-unseen` makes them"
        )
    return {name: studies[name] for name in splits}


def _counts(rows: Rows) -> dict[str, int]:
    names = {"num_tasks": "task", "num_seeds": "seed"}
    return {count: len({row[name] for row in rows}) for count, name in names.items()}


def _is_wanted(row: Mapping[str, Any], dim: int) -> bool:
    return (row["method"], row["d_I"], row["split"]) == (METHOD, dim, "unseen")
