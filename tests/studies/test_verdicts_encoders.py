"""Verdicts of the study of encoders, on rows made by hand with known effects."""

import encoded
import numpy as np
import pytest

from iptkit.scores import claims, intervals
from iptkit.studies import effects
from iptkit.studies import verdicts_encoders as ve

HOLDS, IN_PART, FAILS, OPEN = claims.VERDICTS


def verdict_of(name, rows):
    return next(v for v in ve.verdicts(rows) if v["name"] == name)


def test_every_criterion_has_its_measurement():
    asked = [one for claim in ve.judged().values() for one in claim.criteria]
    assert list(ve.judged()) == [f"B{i}" for i in range(3, 11)]
    assert {one.effect for one in asked} == ve.EFFECTS.keys(), "none is missing, none is left over"
    for one in asked:
        assert ("classifications, all" in one.effect) <= ("cls" in repr(ve.EFFECTS[one.effect])), one.effect
        assert ("few-shot" in one.effect) == ("few-shot" in repr(ve.EFFECTS[one.effect])), one.effect
    with pytest.raises(ValueError, match="nothing says how to measure 'a − b'; EFFECTS has fine-tuning − "):
        effects.effect_of(encoded.rows(), claims.Criterion("a − b", "score", "more", 0.0, 0.0), ve.EFFECTS)


def test_verdicts_find_the_effects_that_were_put_in():
    found = {v["name"]: v for v in ve.verdicts(encoded.rows())}
    assert {name: v["verdict"] for name, v in found.items()} == dict.fromkeys(ve.judged(), HOLDS)
    of = {(name, e["effect"]): e for name, v in found.items() for e in v["effects"]}
    for (name, effect), mean, tolerance in (
        (("B3", "fine-tuning − prompt tuning, tags, all examples"), 0.21, 0.01),
        (("B3", "fine-tuning − prompt tuning, classifications, all examples"), 0.11, 0.01),
        (("B3", "fine-tuning − prompt tuning: tags − classifications, all examples"), 0.10, 0.01),
        (("B4", "parameters that deep prompts train, of all"), 0.0034, 1e-9),
        (("B4", "P-Tuning v2 − prompt tuning, all tasks, all examples"), 0.15, 0.01),
        (("B5", "no MLP − MLP, all examples"), 0.0, 0.01),
        (
            ("B5", "covariance over tasks of MLP − no MLP between two samples, all examples"),
            0.0009,
            0.0003,
        ),
        (("B6", "64 − 16 vectors, tags, all examples"), 0.06, 0.01),
        (("B7", "MPT-2 − P-Tuning v2, all examples"), 0.05, 0.01),
        (("B8", "P-Tuning v2 − commonest answer, tags, all examples"), 0.6, 0.01),
        (("B9", "P-Tuning v2 − fine-tuning, all tasks, all examples, first 3 layers"), 0.0, 0.01),
        (("B10", "last k − first k layers, mean over k < 6, all examples"), 0.04, 0.01),
    ):
        assert of[name, effect]["mean"] == pytest.approx(mean, abs=tolerance), effect
    assert {e["tasks"] for (_, effect), e in of.items() if "all tasks" in effect} == {36}
    assert (found["B5"]["num_tasks"], found["B5"]["num_seeds"]) == (36, 2)
    assert (found["B8"]["num_tasks"], found["B8"]["num_seeds"]) == (36, 1)
    assert (
        "of all (36 in 24 groups) 0.34% [0.34%, 0.34%], p < 0.001 (more than 0.10% is" in found["B4"]["here"]
    )
    assert "two samples, all examples (36 in 24 groups) +0.000" in found["B5"]["here"]
    assert "left out" not in found["B3"]["here"] + found["B9"]["here"]


@pytest.mark.parametrize(
    ("name", "changes", "verdict"),
    [
        ("B3", {"fine-tuning": (0.81, 0.71)}, IN_PART),  # as far behind on classifications as on tags
        ("B3", {"fine-tuning": (0.50, 0.45)}, IN_PART),  # worse than prompts, less so on tags
        ("B3", {"fine-tuning": (0.50, 0.35)}, FAILS),
        ("B4", {"prompt tuning": (0.70, 0.70)}, IN_PART),  # the sizes are right, no difference
        ("B5", {"mlp": (0.80, 0.80)}, IN_PART),  # it helps on average, by as much in each task and more
        ("B6", {"length 64": (0.76, 0.76)}, IN_PART),
        ("B6", {"length 64": (0.76, 0.70)}, FAILS),
        ("B7", {"MPT-2": (0.70, 0.70)}, FAILS),
        ("B7", {"MPT-2": (0.60, 0.60)}, FAILS),
        ("B8", {"LM head": (0.70, None)}, IN_PART),
        ("B8", {"P-Tuning v2": (0.30, 0.10), "LM head": (0.70, None)}, FAILS),
        ("B9", {"fine-tuning": (0.80, 0.70)}, IN_PART),
        ("B9", {"fine-tuning": (0.80, 0.80), "fine-tuning, 3": (0.80, 0.80)}, FAILS),
        ("B9", {"fine-tuning": (0.50, 0.50), "fine-tuning, 3": (0.50, 0.50)}, HOLDS),  # prompts are better
        ("B10", {"last 1": (0.60, 0.60), "last 3": (0.64, 0.64)}, FAILS),
        ("B10", {"last 1": (0.50, 0.50)}, FAILS),
    ],
)
def test_verdicts_on_other_effects(name, changes, verdict):
    assert verdict_of(name, encoded.rows(changes))["verdict"] == verdict


@pytest.mark.parametrize("name", [f"B{i}" for i in range(3, 11)])
def test_what_noise_hides_stays_undecided(name):
    near = {"prompt tuning": (0.70, 0.70), "commonest answer": (0.65, 0.65)}
    rows = encoded.rows(encoded.LEVELS | near, noise=0.2, groups=12, seed=1, spread=0.0)
    found = verdict_of(name, rows)
    opened = [effect for effect in found["effects"] if effect["verdict"] == OPEN]
    assert opened and all(
        f"this design sees differences of {e['smallest']:.{e.get('digits', 3)}f} and more" in found["here"]
        for e in opened
    )


def test_a_mlp_that_helps_by_luck_alone_does_not_depend_on_the_task():
    (about, covariance) = verdict_of("B5", encoded.rows(spread=0.0))["effects"]
    assert about["verdict"] == HOLDS and covariance["verdict"] == FAILS
    assert abs(covariance["mean"]) < 1e-4 and covariance["digits"] == 5
    once = [r for r in encoded.rows() if r["part"] != "forms" or r["seed"] == 0]
    assert "B5" not in {v["name"] for v in ve.verdicts(once)}, "one sample has no covariance"


def test_too_many_or_too_few_parameters():
    for share, verdict in ((0.05, IN_PART), (0.0005, IN_PART), (0.02, HOLDS)):
        rows = encoded.rows(shares=encoded.SHARES | {"P-Tuning v2": share})
        assert verdict_of("B4", rows)["verdict"] == verdict


def test_untrained_fine_tuning_is_left_out_and_counted():
    bad = ("t2a", "t2b", "t3a")
    rows = [
        r | {"score": 0.0} if r["method"] == "fine-tuning" and r["task"] in bad else r
        for r in encoded.rows(untrained=bad)
    ]
    found = {name: verdict_of(name, rows) for name in ("B3", "B9")}
    assert {v["verdict"] for v in found.values()} == {HOLDS}
    assert "classifications, all examples (16 in 11 groups, 2 left out)" in found["B3"]["here"]
    assert "tags − classifications, all examples (33 in 23 groups, 3 left out)" in found["B3"]["here"]
    assert "first 3 layers (33 in 23 groups, 3 left out)" in found["B9"]["here"]
    none = encoded.rows(untrained=[r["task"] for r in rows])
    assert {v["name"] for v in ve.verdicts(none)}.isdisjoint(("B3", "B9"))


def test_five_groups_of_a_kind_decide_nothing_about_it():
    rows = [
        r for r in encoded.rows() if r["category"] == "cls" or r["group"] in ("g1", "g3", "g5", "g7", "g9")
    ]
    found = {v["name"]: [e["verdict"] for e in v["effects"]] for v in ve.verdicts(rows)}
    assert found["B3"] == [OPEN, HOLDS, OPEN] and found["B9"] == [HOLDS, OPEN, HOLDS]
    assert found["B6"] == [OPEN, HOLDS] and found["B10"] == [HOLDS]
    contrast = verdict_of("B3", rows)["effects"][2]
    assert (contrast["groups"], contrast["least_groups"]) == (17, 5)
    assert verdict_of("B3", rows)["here"].count("undecided: it takes 6 groups") == 2


def test_a_contrast_of_two_kinds_by_hand():
    """Welch's interval of independent groups of one task each, and the same mean from its values."""
    rng = np.random.default_rng(5)
    gaps = {
        f"{kind}{i}": rng.normal(0, size)
        for kind, n, size in (("tag", 7, 0.1), ("cls", 11, 0.3))
        for i in range(n)
    }
    rows = [
        {"task": t, "group": t, "category": t[:3], "seed": 0, "data": "full", "part": "compared",
         "backbone": "m", "method": method, "score": score}
        for t, gap in gaps.items() for method, score in (("fine-tuning", gap), ("prompt tuning", 0.0))
    ]  # fmt: skip
    effect = ve.EFFECTS["fine-tuning − prompt tuning: tags − classifications, all examples"]
    found = effect.measured(rows, "score")
    a, b = ([v for t, v in gaps.items() if t[:3] == kind] for kind in ("tag", "cls"))
    scipy_stats = pytest.importorskip("scipy.stats")
    interval = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found["mean"] == pytest.approx(np.mean(a) - np.mean(b))
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    values = effect.values(rows, "score")
    assert np.mean([*values.values()]) == pytest.approx(found["mean"]) and len(values) == 18
    error, _ = intervals.standard_error([v for (v,) in values.values()], [*values])
    assert error == pytest.approx(np.hypot(np.std(a) / 7**0.5, np.std(b) / 11**0.5) * (18 / 17) ** 0.5)


def test_a_claim_is_judged_where_all_it_compares_was_measured():
    rows = encoded.rows()
    some = [r for r in rows if r["backbone"] != encoded.CUT and r["part"] != "heads"]
    assert [v["name"] for v in ve.verdicts(some)] == ["B3", "B4", "B5", "B6", "B7", "B10"]
    few = [r for r in rows if r["data"] == "few-shot"]
    assert ve.verdicts(few) == [], "the criteria are about all examples"
