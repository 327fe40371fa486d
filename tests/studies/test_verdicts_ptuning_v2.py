"""Verdicts on rows made by hand."""

import pytest

from iptkit.scores import intervals
from iptkit.studies import lesson04_methods
from iptkit.studies import verdicts_ptuning_v2 as dr


def row(part, task, seed, score, category="tag", **more):
    fixed = {"data": "full", "method": dr.DEEP, "share": 0.005}
    return {"part": part, "task": task, "category": category, "seed": seed, "score": score, **fixed, **more}


SCORES = {
    lesson04_methods.COMMONEST: 0.1,
    dr.PROBE: 0.3,
    dr.SHALLOW: 0.4,
    dr.DEEP: 0.6,
    dr.SHARED: 0.7,
    dr.TUNED: 0.62,
}
TASKS = [("a", "tag"), ("b", "tag"), ("c", "cls")]


@pytest.fixture
def rows():
    """Two tagging tasks and a classification, three seeds, with every claim true."""
    out = []
    for seed in range(3):
        for task, category in TASKS:
            for method, score in SCORES.items():
                near = 0.55 if (method, category) == (dr.SHALLOW, "cls") else score
                shares = {dr.SHALLOW: 0.0001}
                made = row("compared", task, seed, near, category, method=method)
                out.append(made | {"share": shares.get(method, 0.005)})
                out.append(made | {"score": 0.0, "data": "few-shot"})
            for k in (1, 2, 4):
                out += [
                    row("depths", task, seed, 0.5 + k / 100, category, layers=k, order="first"),
                    row("depths", task, seed, 0.6 if k < 4 else 0.54, category, layers=k, order="last"),
                ]
            for n in (1, 16, 128):
                longer = 0.5 + (n if category == "tag" else -n) / 1280
                out.append(row("lengths", task, seed, longer, category, length=n))
            helps = 0.1 if task == "a" else -0.1
            out.append(row("forms", task, seed, 0.5, category, form="embedding"))
            out.append(row("forms", task, seed, 0.5 + helps, category, form="mlp"))
        out.append(row("heads", "d", seed, 0.7, "cls", head="linear"))
        out.append(row("heads", "d", seed, 0.7, "cls", head="LM head"))
    few = [r for r in out if r["data"] == "few-shot"]
    return few + [r for r in out if r["data"] == "full"]


def changed(rows, change, **wanted):
    return [r | change if all(r.get(k) == v for k, v in wanted.items()) else r for r in rows]


def verdict_of(rows, name):
    return next(v["verdict"] for v in dr.verdicts(rows) if v["name"] == name)


def test_every_claim_gets_a_verdict_from_the_last_data(rows):
    found = dr.verdicts(rows)
    assert [v["name"] for v in found] == [f"B{i}" for i in range(3, 11)]
    assert {v["verdict"] for v in found} == {"holds"} and {v["num_seeds"] for v in found} == {3}
    assert found[0]["here"] == (
        "fine-tuning − prompt tuning: tags +0.220 [+0.220, +0.220] (2), classes +0.070 [+0.070, +0.070] (1); "
        "trained on all examples"
    )
    assert found[0]["num_tasks"] == 3 and dr.share(rows, dr.SHALLOW) == pytest.approx(0.0001)


def test_differences_are_paired_by_task_and_seed():
    first = [row("compared", "a", s, 0.1 * s) for s in range(3)] + [row("compared", "b", 0, 1.0)]
    second = [row("compared", "a", s, 0.1 * s - 0.05) for s in range(3)]
    mean, low, high, count = dr.difference(first, second)
    assert (mean, low, high) == pytest.approx((0.05, 0.05, 0.05)) and count == 1
    of = [
        row("compared", t, 0, x, group=g)
        for t, x, g in zip("abcd", (0.1, 0.3, 0.5, 0.2), "xxyz", strict=True)
    ]
    gap = dr.difference(of, [r | {"score": 0.0} for r in of])
    assert gap[:3] == intervals.interval([[0.1], [0.3], [0.5], [0.2]], groups="xxyz") and gap[3] == 4
    assert intervals.difference_text((0.12345, -0.5, 0.5)) == "+0.123 [-0.500, +0.500]"


def test_another_field_is_compared_likewise():
    first = [row("compared", "a", s, 0.5, log_likelihood=-1.0) for s in range(3)]
    second = [row("compared", "a", s, 0.5, log_likelihood=-1.5) for s in range(3)]
    assert dr.difference(first, second, value="log_likelihood") == (0.5, 0.5, 0.5, 1)
    assert dr.difference(first, second)[0] == 0


def test_some_claims_are_judged_by_rows_that_lack_what_the_others_need(rows):
    compared = [r for r in rows if r["part"] == "compared"]
    assert [v["name"] for v in dr.verdicts(compared, ("B8", "B4"))] == ["B4", "B8"]


@pytest.mark.parametrize(
    ("name", "change", "wanted", "verdict"),
    [
        ("B3", {"score": 0.4}, {"method": dr.TUNED}, "does not hold here"),
        ("B3", {"score": 0.2}, {"method": dr.TUNED}, "does not hold here"),
        ("B3", {"score": 0.1}, {"method": dr.SHALLOW, "category": "cls"}, "holds in part"),
        ("B3", {"score": 0.9}, {"method": dr.SHALLOW, "category": "cls"}, "holds in part"),
        ("B3", {"score": 0.42}, {"method": dr.TUNED}, "does not hold here"),
        ("B3", {"score": 0.45}, {"method": dr.TUNED, "category": "tag"}, "holds in part"),
        ("B4", {"share": 0.05}, {"method": dr.DEEP}, "does not hold here"),
        ("B4", {"score": 0.6}, {"method": dr.SHALLOW}, "holds in part"),
        ("B5", {"score": 0.4}, {"form": "mlp"}, "holds in part"),
        ("B5", {"score": 0.6}, {"form": "mlp"}, "does not hold here"),
        ("B5", {"score": 0.5}, {"form": "mlp", "task": "b"}, "holds"),
        ("B5", {"score": 0.5}, {"form": "mlp"}, "not testable at this scale"),
        ("B6", {"score": 0.9}, {"length": 128}, "holds in part"),
        ("B6", {"length": 64}, {"length": 128}, "holds in part"),
        ("B6", {"score": 0.9}, {"length": 16}, "does not hold here"),
        ("B7", {"score": 0.5}, {"method": dr.SHARED}, "does not hold here"),
        ("B8", {"score": 0.1}, {"head": "linear"}, "holds in part"),
        ("B8", {"score": 0.9}, {"method": lesson04_methods.COMMONEST}, "does not hold here"),
        ("B9", {"score": 0.4}, {"method": dr.TUNED}, "holds"),
        ("B9", {"score": 0.7}, {"method": dr.TUNED}, "does not hold here"),
        ("B10", {"score": 0.4}, {"order": "last"}, "does not hold here"),
        ("B10", {"score": 0.4}, {"order": "last", "task": "a"}, "holds in part"),
    ],
)
def test_verdicts_on_other_scores(rows, name, change, wanted, verdict):
    assert verdict_of(changed(rows, change, **wanted), name) == verdict


def test_without_a_comparison_of_heads_the_words_are_left_out(rows):
    found = next(v for v in dr.verdicts([r for r in rows if r["part"] != "heads"]) if v["name"] == "B8")
    assert "label words" not in found["here"] and found["verdict"] == "holds in part"


def test_what_was_not_measured_or_not_repeated_has_no_verdict(rows):
    classes = [r for r in rows if r["category"] == "cls"]
    assert verdict_of(classes, "B3") == verdict_of(classes, "B6") == "not testable at this scale"
    once = [r for r in rows if r["seed"] == 0]
    for name in ("B3", "B5", "B6", "B7", "B8", "B9", "B10"):
        assert verdict_of(once, name) == "not testable at this scale"
    assert verdict_of([r for r in rows if r["part"] != "depths"], "B10") == "not testable at this scale"
