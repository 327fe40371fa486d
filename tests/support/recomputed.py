"""Definitions of the big studies' measures, written down a second time with pandas and numpy alone.

Nothing here uses `intervals`, `summary` or the criteria's code.
"""

import functools
import itertools
import math

import numpy as np
import pandas as pd

MAIN = r"fold\d+"  # names of the folds that hold out each task once
DRAWS = 20_000


def framed(rows):
    frame = pd.DataFrame(rows)
    frame["fold"] = frame.fold.fillna("")
    return frame, frame.drop_duplicates("task").set_index("task").group


def mine(frame, method, side, folds=MAIN, is_cls=None, dim=5):
    """Rows of a method; those without a fold belong to all folds, those of both sides to either."""
    kept = (frame.method == method) & frame.d_I.isin([0, dim]) & frame.split.isin([side, "both"])
    kept &= (frame.fold == "") | frame.fold.str.fullmatch(folds)
    return frame[kept & ((frame.category == "cls") == is_cls)] if is_cls is not None else frame[kept]


def means(rows, value):
    """Task -> mean over few-shot samples of the mean over runs."""
    return rows.groupby(["task", "seed"])[value].mean().groupby("task").mean()


def gap(first, second, value):
    return (means(first, value) - means(second, value)).dropna()


def below(seed, whole):
    """Prompt tuning's score with the other samples."""
    others = whole[whole.seed != seed]
    return (others if len(others) else whole).score.mean()


def kept(rows, reference):
    """Task -> mean over samples of a score over prompt tuning's score with the other samples."""
    found = {}
    for task, of_task in rows.groupby("task"):
        whole, ratios = reference[reference.task == task], []
        for row in of_task.itertuples():
            divisor = below(row.seed, whole)
            ratios.append(row.score / divisor if divisor >= 0.05 else np.nan)
        found[task] = np.mean(ratios)
    return pd.Series(found).dropna()


def deviations(rows):
    return rows.groupby("task").score.std()


def ratio_of_means(rows, reference):
    """The mean score over tasks divided by that of prompt tuning with the other samples."""
    divisors = []
    for task, of_task in rows.groupby("task"):
        whole = reference[reference.task == task]
        divisors.append(np.mean([below(seed, whole) for seed in of_task.seed]))
    return rows.groupby("task").score.mean().mean() / np.mean(divisors)


def above_chance(rows, reference):
    """As `kept`, with the score of guessing taken from both scores."""
    chance = reference.groupby("task").chance.first()
    less = [part.assign(score=part.score - part.task.map(chance)) for part in (rows, reference)]
    return kept(*less)


@functools.cache
def student(share, freedom):
    """The quantile of Student's t above 0, by adding up its density."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / (freedom * math.pi) ** 0.5
    x = np.linspace(0, 60, 600_001)
    density = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    below = 0.5 + np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2) * (x[1] - x[0])])
    return float(np.interp(share, below, x))


def judged(values, group, asks, value, equal):
    """Mean, interval, p, smallest effect and verdict of values by task."""
    labels = group[values.index]
    size, each = labels.nunique(), (values - values.mean()).groupby(labels).sum()
    error = math.sqrt((each**2).sum() * size / (size - 1)) / len(values)
    half, smallest = (
        student(0.975, size - 1) * error,
        (student(0.975, size - 1) + student(0.8, size - 1)) * error,
    )
    low, high = values.mean() - half, values.mean() + half
    rng = np.random.default_rng(12345)
    if size >= 30:  # a bootstrap over groups
        sums, counts = (getattr(values.groupby(labels), name)().to_numpy() for name in ("sum", "count"))
        drawn = rng.integers(0, size, (DRAWS, size))
        low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    sums = (values - value).groupby(labels).sum().to_numpy()
    all_signs = itertools.product([1, -1], repeat=size)
    signs = np.array([*all_signs]) if size <= 12 else rng.choice([1, -1], (DRAWS, size))
    p = (np.abs(signs @ sums) >= abs(sums.sum()) - 1e-9).mean()
    verdict = verdict_of(low, high, p, size, asks, value, equal)
    return {"mean": values.mean(), "low": low, "high": high, "p": p, "smallest": smallest, "verdict": verdict}


def verdict_of(low, high, p, size, asks, value, equal):
    verdict = "not testable at this scale"
    if size >= 6 and asks == "about":
        verdict = (
            "holds" if low > value - equal else "does not hold here" if high < value - equal else verdict
        )
    elif size >= 6:
        least, most = (low - value, high - value) if asks == "more" else (value - high, value - low)
        is_inside = -equal < least and most < equal
        if least > 0 and p <= 0.05:
            verdict = "holds in part" if is_inside else "holds"
        elif is_inside or (most < 0 and p <= 0.05):
            verdict = "does not hold here"
    return verdict
