import math

import numpy as np
import pytest
import torch

from iptkit.scores.intervals import (
    by_group,
    by_task,
    interval,
    over_tasks,
    sign_flip,
    smallest_effect,
    standard_error,
)


def test_interval_of_known_values():
    assert interval([[0.5, 0.5], [0.5, 0.5]]) == (0.5, 0.5, 0.5)
    mean, low, high = interval([[0.0], [0.0, 0.0], [1.0], [1.0]])
    half = 3.18245 * (1 / 3) ** 0.5 / 2
    assert mean == 0.5 and (high - mean, mean - low) == pytest.approx((half, half), rel=1e-4), "Student's t"
    few = interval([[0.0, 1.0, 0.5]])  # t with 2 degrees of freedom, standard error 0.5 / sqrt(3)
    assert few == pytest.approx((0.5, 0.5 - 4.3027 * 0.28868, 0.5 + 4.3027 * 0.28868), abs=1e-4)
    two = interval([[0.0, 1.0, 0.5], [0.2, 0.2, 0.2]])  # 4 degrees of freedom, half the standard error
    assert two == pytest.approx((0.35, 0.35 - 2.7764 * 0.14434, 0.35 + 2.7764 * 0.14434), abs=1e-4)
    mean, *edges = interval([[0.0], [1.0]])
    assert mean == 0.5 and all(map(math.isnan, edges)), "with one seed nothing is known"
    mean, low, high = interval([[0.0, 0.0, 0.0], [1.0]])
    assert mean == 0.5, "tasks weigh the same, however many seeds they have"
    assert interval([[], [0.2, 0.2]]) == pytest.approx((0.2, 0.2, 0.2))


def test_interval_is_as_wide_as_theory_says():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, 1, generator=generator, dtype=torch.float64)
    mean, low, high = interval(values.tolist())
    half = 1.96 * values.std(correction=0).item() / 40**0.5
    assert mean == pytest.approx(values.mean().item())
    assert high - mean == pytest.approx(half, rel=0.15) and mean - low == pytest.approx(half, rel=0.15)
    narrow = interval(values.tolist(), level=0.5)
    assert low < narrow[1] < mean < narrow[2] < high
    assert interval(values.tolist()) == (mean, low, high) != interval(values.tolist(), seed=1)


@pytest.mark.parametrize("num_tasks", [4, 12, 40])
def test_intervals_have_their_nominal_coverage(num_tasks):
    values = torch.randn(400, num_tasks, 3, generator=torch.Generator().manual_seed(1)).mul(0.3)
    values += torch.randn(400, num_tasks, 1, generator=torch.Generator().manual_seed(2))
    held = [low <= 0 <= high for _, low, high in (interval(v.tolist(), draws=400) for v in values)]
    assert 0.925 <= sum(held) / len(held) <= 0.975


def test_interval_without_values():
    for nothing in ([], [[], []]):
        with pytest.raises(ValueError, match="there are no values to average; give at least one"):
            interval(nothing)


def test_by_task_keeps_the_order_and_leaves_out_missing_values():
    rows = [{"task": t, "score": s} for t, s in (("b", 1.0), ("a", 2.0), ("b", None), ("b", 3.0))]
    assert by_task(rows) == {"b": [1.0, 3.0], "a": [2.0]}


def test_tasks_of_a_group_count_as_one():
    """Siblings with equal scores add no information, and the mean stays the mean over tasks."""
    alone = [[0.1], [0.4], [0.5], [0.9], [0.7]]
    twice, labels = [v for v in alone for _ in "ab"], [name for name in "vwxyz" for _ in "ab"]
    assert interval(twice, groups=labels) == pytest.approx(interval(alone))
    assert interval(alone, groups=list("vwxyz")) == interval(alone)
    narrow, wide = interval(twice), interval(twice, groups=labels)
    assert wide[0] == pytest.approx(narrow[0]) and wide[2] - wide[1] > 1.2 * (narrow[2] - narrow[1])
    uneven = [[1.0], [1.0], [1.0], [0.0], [0.0], [0.0]]
    assert interval(uneven, groups=list("aaabcd"))[0] == 0.5, "over tasks, not over groups"


def test_many_groups_are_drawn_together():
    scores = [[float(x)] for x in np.random.default_rng(0).normal(size=40)]
    twice, labels = [v for v in scores for _ in "ab"], [i for i in range(40) for _ in "ab"]
    alone, together = interval(scores), interval(twice, groups=labels)
    assert together == pytest.approx(alone, abs=0.03)
    as_if = interval(twice)
    assert (together[2] - together[1]) / (as_if[2] - as_if[1]) == pytest.approx(2**0.5, rel=0.1)


def test_over_tasks_takes_the_groups_from_the_rows():
    scores = {"b": [0.1, 0.2], "a": [0.5, 0.4], "d": [0.9, 0.7], "c": [0.6, 0.6], "e": [0.3, 0.1]}
    rows = [{"task": t, "group": g, "score": 0.0} for t, g in zip("abcde" * 2, "xxyyz" * 2, strict=True)]
    values = list(scores.values())
    assert over_tasks(scores, rows) == interval(values, groups=list("xxyyz"))
    assert over_tasks(scores, [{"task": t} for t in "abcde"]) == interval(values)
    some = [row if row["task"] != "d" else {"task": "d"} for row in rows]
    with pytest.raises(ValueError, match="rows of d have no leakage group, but others do; give every row"):
        over_tasks(scores, some)


def test_few_groups_have_wide_intervals():
    """Two groups leave one degree of freedom; with one group the interval is over seeds."""
    values = [[0.1 * i, 0.1 * i + 0.02] for i in range(6)]
    mean, low, high = interval(values, groups=list("aaabbb"))
    assert mean == pytest.approx(0.26) and high - low > 3
    _, low, high = interval(values, groups=list("aaaaaa"))
    assert 0 < high - low < 0.05


# ---- the sign-flip test and the power ----------------------------------------------------------------
def test_sign_flips_of_known_values():
    six = {name: [0.2] for name in "abcdef"}
    assert sign_flip(six) == 2 / 64, "only all plus and all minus are as far from 0"
    assert sign_flip({name: six[name] for name in "abcde"}) == 2 / 32, "five groups are never significant"
    assert sign_flip({name: [-0.2] for name in "abcdef"}) == 2 / 64, "two-sided"
    one = {"a": [0.3], "b": [0.1], "c": [-0.1]}  # |sum| >= 0.3 in 6 of the 8 patterns: 0.1 and 0.1 cancel
    assert sign_flip(one) == 6 / 8
    assert sign_flip({"a": [0.1, -0.1], "b": [0.0]}) == 1.0
    with pytest.raises(ValueError, match="no values to test; give at least one group"):
        sign_flip({"a": []})


def test_tasks_of_a_group_flip_together():
    alone = {name: [0.2] for name in "abcdef"}
    assert sign_flip({name: [0.1, 0.1, 0.2] for name in "abcdef"}) == sign_flip(alone)
    assert sign_flip({"a": [0.1] * 20}) == 1.0, "one group says nothing, however many tasks it has"


def test_drawn_patterns_agree_with_all_of_them():
    values = np.random.default_rng(3).normal(0.4, 1, 13)
    patterns = 1 - 2 * (np.arange(2**13)[:, None] >> np.arange(13) & 1)
    exact = (np.abs(patterns @ values) >= abs(values.sum()) - 1e-12).mean()
    drawn = sign_flip({str(i): [v] for i, v in enumerate(values)})
    assert drawn == pytest.approx(exact, abs=0.01) and 0 < exact < 1
    assert drawn == sign_flip({str(i): [v] for i, v in enumerate(values)}), "the draws are seeded"
    assert sign_flip({str(i): [1.0] for i in range(40)}) == 1 / 20_001


def test_p_is_at_most_the_level_as_often_as_it_says():
    drawn = np.random.default_rng(0).normal(size=(1000, 8))
    rejected = np.mean([sign_flip({str(i): [v] for i, v in enumerate(of)}) <= 0.05 for of in drawn])
    assert 0.025 <= rejected <= 0.06


def test_the_standard_error_is_that_of_the_interval():
    values, groups = [0.1, 0.4, 0.5, 0.9, 0.7, 0.2], list("aabcde")
    error, freedom = standard_error(values, groups)
    mean, low, high = interval([[v] for v in values], groups=groups)
    assert freedom == 4 and (high - low) / 2 == pytest.approx(2.776445 * error)
    alone, more = standard_error(values, range(6))
    assert more == 5 and alone == pytest.approx(np.std(values, ddof=1) / 6**0.5)


def test_four_of_five_designs_see_the_smallest_effect():
    count, rng = 12, np.random.default_rng(1)
    effect = smallest_effect(1 / count**0.5, count - 1)
    assert effect == pytest.approx((2.200985 + 0.875530) / 12**0.5, rel=1e-5)
    drawn = rng.normal(effect, 1, (4000, count))
    t = drawn.mean(1) / (drawn.std(1, ddof=1) / count**0.5)
    assert np.mean(np.abs(t) > 2.200985) == pytest.approx(0.8, abs=0.03)
    assert math.isnan(smallest_effect(0.1, 0)), "one group has no power"


def test_by_group_takes_means_over_seeds():
    rows = [{"task": t, "group": g} for t, g in zip("abc", "xxy", strict=True)]
    assert by_group({"a": [0.1, 0.3], "b": [1.0], "c": [2.0]}, rows) == {"x": [0.2, 1.0], "y": [2.0]}
