import numpy as np
import pytest

from iptkit.scores.summary import difference, of_folds, ratios, relative, summary


def test_relative_performance():
    assert relative(0.6, 0.8) == pytest.approx(0.75)
    assert relative(0.6, 0.8, floor=0.5) == pytest.approx(1 / 3)
    assert relative(0.9, 0.8) == pytest.approx(1.125), "a method may be better than prompt tuning"
    assert relative(0.4, 0.8, floor=0.5) == pytest.approx(-1 / 3), "or worse than guessing"


@pytest.mark.parametrize(
    ("reference", "floor"), [(0.0, 0.0), (-0.3, 0.0), (0.04, 0.0), (0.5, 0.5), (0.4, 0.5), (0.54, 0.5)]
)
def test_relative_performance_needs_a_reference_above_its_floor(reference, floor):
    assert relative(0.6, reference, floor) is None


def test_least_is_the_smallest_denominator_allowed():
    assert relative(0.5, 0.05) == pytest.approx(10.0)
    assert relative(0.5, 0.3, least=0.4) is None


# ---- few-shot samples, folds, log-likelihood -----------------------------------------------------------
def rows_of(method, dim, scores, split="unseen", seeds=(0, 1), **more):
    """A row for each task and seed; its log-likelihood is its score - 1."""
    return [
        {"method": method, "d_I": dim, "split": split, "task": t, "seed": s, "score": x, "chance": 0.2}
        | {"log_likelihood": x - 1}
        | more
        for t, values in scores.items()
        for s, x in zip(seeds, values, strict=False)
    ]


def test_crossed_ratios_divide_by_the_other_samples():
    rows = rows_of("prompt tuning", 0, {"a": [0.8, 0.4]}, "both") + rows_of("IST", 5, {"a": [0.4, 0.6]})
    assert ratios(rows, ("IST", 5), "unseen", crossed=True)["a"] == pytest.approx([0.4 / 0.4, 0.6 / 0.8])
    assert ratios(rows, ("IST", 5), "unseen")["a"] == pytest.approx([0.4 / 0.6, 0.6 / 0.6])
    above = ratios(rows, ("IST", 5), "unseen", is_above_chance=True, crossed=True)
    assert above["a"] == pytest.approx([0.2 / 0.2, 0.4 / 0.6])
    (line,) = summary(rows, [("IST", 5)], ["unseen"], crossed=True)
    assert line["E_rel"][0] == pytest.approx(0.875) and line["ratio of means"] == pytest.approx(0.5 / 0.6)
    (line,) = summary(rows, [("IST", 5)], ["unseen"])
    assert line["E_rel"][0] == pytest.approx(5 / 6)
    three = rows + rows_of("prompt tuning", 0, {"a": [0.6]}, "both", seeds=(2,))
    found = ratios(three, ("IST", 5), "unseen", crossed=True)
    assert found["a"] == pytest.approx([0.4 / 0.5, 0.6 / 0.7]), "the mean of the other two"


def test_a_method_with_one_sample_is_divided_by_those_it_does_not_have():
    rows = rows_of("prompt tuning", 0, {"a": [0.8, 0.4]}, "both") + rows_of("MSF", 5, {"a": [0.3]})
    assert ratios(rows, ("MSF", 5), "unseen", crossed=True)["a"] == pytest.approx([0.3 / 0.4])
    rows = rows_of("prompt tuning", 0, {"a": [0.8]}, "both") + rows_of("MSF", 5, {"a": [0.4]})
    assert ratios(rows, ("MSF", 5), "unseen", crossed=True)["a"] == [0.5], "there is no other one"


def test_crossed_ratios_leave_out_the_luck_of_a_sample():
    """Both methods are equally good, and a sample is easy or hard for both."""
    rng, tasks = np.random.default_rng(0), [f"t{i}" for i in range(3000)]
    luck = {task: 0.6 * (1 + 0.3 * rng.choice([-1, 1], 2)) for task in tasks}
    rows = rows_of("prompt tuning", 0, luck, "both") + rows_of("IST", 5, {t: [v[0]] for t, v in luck.items()})
    rows += rows_of(
        "other", 5, {t: [0.6 * (1 + 0.3 * x)] for t, x in zip(tasks, rng.choice([-1, 1], 3000), strict=True)}
    )
    for crossed, is_fair in ((True, True), (False, False)):
        mine, other = (
            np.mean([r for of in ratios(rows, (m, 5), "unseen", crossed=crossed).values() for r in of])
            for m in ("IST", "other")
        )
        assert (abs(mine - other) < 0.02) == is_fair, "as if its own luck were another one's"


def test_a_task_counts_if_every_reference_is_usable():
    rows = rows_of("prompt tuning", 0, {"a": [0.8, 0.04], "b": [0.8, 0.5]}, "both")
    rows += rows_of("IST", 5, {"a": [0.4, 0.4], "b": [0.4, 0.4]})
    assert list(ratios(rows, ("IST", 5), "unseen", crossed=True)) == ["b"]
    assert list(ratios(rows, ("IST", 5), "unseen")) == ["a", "b"]
    with pytest.raises(ValueError, match="'fine-tuning' without d_I was not measured on a, b"):
        ratios(rows, ("IST", 5), "unseen", "fine-tuning")


def test_rows_of_both_sides_match_either():
    rows = rows_of("zero-shot", 0, {"a": [0.1], "b": [0.2]}, "both", seeds=(0,))
    rows += rows_of("prompt tuning", 0, {"a": [0.5, 0.5], "b": [0.5, 0.5]}, "both")
    rows += rows_of("IST", 5, {"a": [0.3, 0.5]}, "unseen") + rows_of("IST", 5, {"b": [0.9, 0.9]}, "seen")
    assert difference(rows, ("IST", 5), ("zero-shot", 0), "unseen")[0] == pytest.approx(0.3)
    assert difference(rows, ("IST", 5), ("zero-shot", 0), "seen")[0] == pytest.approx(0.7)
    lines = summary(rows, [("IST", 5), ("zero-shot", 0)])
    assert [(x["split"], x["tasks"]) for x in lines] == [
        ("seen", 1),
        ("unseen", 1),
        ("seen", 2),
        ("unseen", 2),
    ]
    assert lines[0]["E_rel"][0] == pytest.approx(1.8)


def test_log_likelihoods_are_compared_by_differences():
    rows = rows_of("prompt tuning", 0, {"a": [0.5, 0.7]}) + rows_of("IST", 5, {"a": [0.3, 0.4]})
    (line,) = summary(rows, [("IST", 5)], value="log_likelihood")
    assert line["log_likelihood"][0] == pytest.approx(-0.65) and line["difference"][0] == pytest.approx(-0.25)
    assert "E_rel" not in line and "score" not in line
    rows = [r | {"log_likelihood": 2 * r["score"]} for r in rows]
    gap = difference(rows, ("IST", 5), ("prompt tuning", 0), value="log_likelihood")
    assert gap[0] == pytest.approx(2 * difference(rows, ("IST", 5), ("prompt tuning", 0))[0])
    with pytest.raises(ValueError, match="the value is 'loss'; choose one of score, log_likelihood"):
        difference(rows, ("IST", 5), ("prompt tuning", 0), value="loss")
    old = [{k: v for k, v in r.items() if k != "log_likelihood"} for r in rows]
    with pytest.raises(ValueError, match="on a has no log_likelihood; make the study again"):
        difference(old, ("IST", 5), ("prompt tuning", 0), value="log_likelihood")


def test_folds_are_chosen_by_their_kind():
    names = ["fold1", "fold12", "fold1_20", "cls3", "non_cls2", "", None, "fold1_x"]
    rows = [{"fold": name} if name is not None else {} for name in names]
    kept = {kind: [r.get("fold") for r in of_folds(rows, kind)] for kind in ("main", "few", "cls", "non_cls")}
    assert kept == {
        "main": ["fold1", "fold12", "", None],
        "few": ["fold1_20", "", None],
        "cls": ["cls3", "", None],
        "non_cls": ["non_cls2", "", None],
    }
    with pytest.raises(ValueError, match="no kind of folds 'all'; choose one of main, few, cls, non_cls"):
        of_folds(rows, "all")


def test_rows_of_several_kinds_of_folds_are_refused():
    rows = rows_of("prompt tuning", 0, {"a": [0.5]}, "both", seeds=(0,))
    rows += rows_of("IST", 5, {"a": [0.3]}, fold="fold1") + rows_of("IST", 5, {"a": [0.9]}, fold="fold1_20")
    told = "have a on the unseen side of fold1_20 and of fold1; choose one kind of folds"
    with pytest.raises(ValueError, match=told):
        summary(rows, [("IST", 5)])
    with pytest.raises(ValueError, match=told):
        difference(rows, ("IST", 5), ("prompt tuning", 0), "unseen")
    with pytest.raises(ValueError, match=told):
        ratios(rows, ("IST", 5), "unseen")
    assert difference(of_folds(rows, "few"), ("IST", 5), ("prompt tuning", 0), "unseen")[0] == pytest.approx(
        0.4
    )
