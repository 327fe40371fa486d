"""Verdicts on rows made by hand, and that the stored ones are those of the stored rows."""

import pytest

from iptkit.scores import claims
from iptkit.studies import adapters, stored_results, unseen, verdicts_folds, verdicts_splits
from iptkit.studies import verdicts_ipt as sr

SCORES = {  # method -> d_I, score on seen, on unseen tasks
    "prompt tuning": (0, 0.80, 0.80),
    "IST": (5, 0.72, 0.56),
    "mean code": (5, 0.50, 0.40),
    "random decoder": (5, 0.45, 0.35),
    "MSF": (5, 0.78, 0.50),
}


def rows_of(changes=None, seeds=3):
    """Twelve seen and four unseen tasks; every claim true but A1, which is true in part."""
    rows = []
    for method, (dim, *scores) in {**SCORES, **(changes or {})}.items():
        for side, score, count in zip(("seen", "unseen"), scores, (12, 4), strict=True):
            for i in range(count):
                for seed in range(seeds if method not in ("MSF", "mean code") else 1):
                    noise = 0.01 * ((i + seed) % 3 - 1)
                    rows.append(
                        {
                            "task": f"{side}{i}", "split": side, "method": method, "d_I": dim, "seed": seed,
                            "score": score + noise, "chance": 0.0, "category": "cls",
                        }
                    )  # fmt: skip
    return rows


def verdict_of(name, changes=None):
    return next(v["verdict"] for v in sr.verdicts(rows_of(changes), 5) if v["name"] == name)


def test_verdicts_say_what_was_measured():
    found = {v["name"]: v for v in sr.verdicts(rows_of(), 5)}
    assert {name: v["verdict"] for name, v in found.items()} == {
        "A1": "holds in part", "A3": "holds", "A4": "holds", "A7": "holds", "A8": "holds",
    }  # fmt: skip
    counts = {name: (v["num_tasks"], v["num_seeds"]) for name, v in found.items()}
    assert counts == {"A1": (4, 3), "A3": (12, 1), "A4": (16, 1), "A7": (16, 3), "A8": (16, 3)}
    assert [v["name"] for v in sr.verdicts([r | {"d_I": r["d_I"] and 7} for r in rows_of()], 7)] == [
        "A1", "A3", "A4", "A8",
    ], "the paper's figures of A7 are for d_I = 5"  # fmt: skip
    assert found["A7"]["here"].startswith("E_rel at d_I = 5: seen (12) 0.900 [")
    assert "unseen (4) 0.700 [" in found["A7"]["here"]
    assert found["A8"]["here"].startswith("prompt tuning − IST: seen (12) +0.080 [")


@pytest.mark.parametrize(
    ("name", "changes", "verdict"),
    [
        ("A1", {"IST": (5, 0.72, 0.80)}, "holds"),
        ("A1", {"random decoder": (5, 0.45, 0.60)}, "does not hold here"),
        ("A1", {"random decoder": (5, 0.45, 0.56)}, "not testable at this scale"),
        ("A3", {"MSF": (5, 0.30, 0.50)}, "does not hold here"),
        ("A4", {"mean code": (5, 0.50, 0.60)}, "holds in part"),
        ("A4", {"mean code": (5, 0.80, 0.60)}, "does not hold here"),
        ("A7", {"IST": (5, 0.72, 0.30)}, "holds in part"),
        ("A7", {"IST": (5, 0.40, 0.30)}, "does not hold here"),
        ("A8", {"IST": (5, 0.72, 0.90)}, "holds in part"),
        ("A8", {"IST": (5, 0.90, 0.90)}, "does not hold here"),
        ("A8", {"IST": (5, 0.90, 0.80)}, "does not hold here"),
    ],
)
def test_verdicts_on_other_scores(name, changes, verdict):
    assert verdict_of(name, changes) == verdict


def test_without_a_usable_reference_e_rel_decides_nothing():
    """Prompt tuning at zero: no ratio, and so no verdict on A7."""
    assert verdict_of("A7", {"prompt tuning": (0, 0.0, 0.0)}) == "not testable at this scale"


def runs_of(words, second):
    """Four unseen tasks, three runs each of both, around these scores, so far apart."""
    methods = {unseen.FROM_WORDS: (0, *words), unseen.STAGE_TWO: (5, *second)}
    return [
        {
            "task": f"unseen{i}", "split": "unseen", "method": method, "d_I": dim, "seed": 0, "run": run,
            "score": score + i / 10 + spread * (run - 1), "chance": 0.0, "category": "cls",
        }
        for method, (dim, score, spread) in methods.items()
        for i in range(4)
        for run in range(3)
    ]  # fmt: skip


BEYOND = {  # what A13 and A14 are judged by, beside SCORES
    adapters.METHODS["learned"]: (5, 0.0, 0.70),
    adapters.SHARED: (5, 0.0, 0.60),
    sr.FASTFOOD: (5, 0.0, 0.30),
    "DID": (5, 0.0, 0.20),
}


@pytest.mark.parametrize(
    ("name", "changes", "verdict"),
    [
        ("A13", {}, "holds"),
        ("A13", {adapters.METHODS["learned"]: (5, 0.0, 0.40)}, "does not hold here"),
        (
            "A13",
            {adapters.METHODS["learned"]: (5, 0.0, 0.56), adapters.SHARED: (5, 0.0, 0.56)},
            "not testable at this scale",
        ),
        ("A13", {adapters.SHARED: (5, 0.0, 0.80)}, "holds in part"),
        ("A14", {}, "holds"),
        ("A14", {"DID": (5, 0.0, 0.56)}, "holds in part"),
        ("A14", {"DID": (5, 0.0, 0.70), sr.FASTFOOD: (5, 0.0, 0.70)}, "does not hold here"),
    ],
)
def test_other_subspaces_are_judged_where_they_were_measured(name, changes, verdict):
    assert verdict_of(name, {**BEYOND, **changes}) == verdict
    found = {v["name"]: v for v in sr.verdicts(rows_of(BEYOND), 5)}
    assert "of prompts +0.140 [" in found["A13"]["here"] and "untuned +0.100 [" in found["A13"]["here"]
    assert f"{sr.FASTFOOD} +0.260 [" in found["A14"]["here"] and "DID +0.360 [" in found["A14"]["here"]
    some = {method: BEYOND[method] for method in BEYOND if method != "DID"}
    assert "A14" not in {v["name"] for v in sr.verdicts(rows_of(some), 5)}


@pytest.mark.parametrize(
    ("words", "second", "verdict"),
    [
        ((0.4, 0.05), (0.5, 0.01), "holds"),
        ((0.4, 0.01), (0.5, 0.05), "holds in part"),
        ((0.5, 0.05), (0.4, 0.01), "holds in part"),
        ((0.5, 0.01), (0.4, 0.05), "does not hold here"),
        ((0.4, 0.01), (0.4, 0.01), "not testable at this scale"),
    ],
)
def test_stage_two_is_judged_by_its_scores_and_their_deviation(words, second, verdict):
    runs = runs_of(words, second)
    (found,) = (v for v in sr.verdicts(rows_of() + runs, 5) if v["name"] == "A12")
    assert (found["verdict"], found["num_tasks"], found["num_seeds"]) == (verdict, 4, 1)
    assert sr.run_deviations(runs, unseen.STAGE_TWO)["unseen3"] == pytest.approx(second[1])
    gap, less = second[0] - words[0], second[1] - words[1]
    assert f"from words {gap:+.3f} [" in found["here"] and f"over runs {less:+.3f} [" in found["here"]


def test_a_deviation_takes_two_runs():
    one = [row for row in runs_of((0.4, 0.1), (0.5, 0.1)) if row["run"] == 0]
    with pytest.raises(ValueError, match="fewer than two runs on unseen0.*stage_two_runs >= 2"):
        sr.run_deviations(one, unseen.STAGE_TWO)


@pytest.mark.parametrize(
    ("name", "scale"), [("core36", "full"), ("ipt120", "ipt120"), ("ipt120-long", "ipt120-long")]
)
def test_the_stored_verdicts_are_those_of_the_stored_rows(name, scale):
    rows, about = stored_results.load_rows(name)
    dim = about["scale"]["main_dim"]
    if any(row.get("fold") for row in rows):
        found = verdicts_folds.verdicts(rows, dim)
    else:
        found = sr.verdicts(rows, dim)
        found += verdicts_splits.verdicts(verdicts_splits.load_studies()) if name == "ipt120" else []
    expected = {v["name"]: v for v in found}
    kept = {r["claim"]: r for r in claims.load_stored() if r["scale"] == scale and r["claim"][0] == "A"}
    assert (
        kept.keys() == expected.keys() >= sr.JUDGES.keys() - (set(sr.OPTIONAL) if name != "ipt120" else set())
    )
    for name, row in kept.items():
        mine = expected[name]
        assert (row["here"], row["verdict"]) == (mine["here"], mine["verdict"])
        assert (row["tasks"], row["seeds"]) == (mine["num_tasks"], mine["num_seeds"])
