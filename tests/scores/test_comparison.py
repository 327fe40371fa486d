"""The difference of two prompts: by hand, paired, and with an interval that is never too narrow."""

import dataclasses

import numpy as np
import pytest
import torch
from stock import backbone
from test_evaluation import task_of

from iptkit.engine.engine import Engine
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.scores import comparison, evaluation
from iptkit.tasks import suites
from iptkit.training.adam import DivergedError

OPTIONS = ("a", "b")


def difference(mine, theirs, task, likelihoods=((-1.0,), (-2.0,))):
    """The difference of given answers, each with the log-likelihoods of one prompt, in turn."""
    answered = [
        [evaluation.Answered((said,), of[i % len(of)]) for i, said in enumerate(answers)]
        for answers, of in zip((mine, theirs), likelihoods, strict=True)
    ]
    return comparison._difference(*answered, task.test, task)


def test_scores_and_log_likelihoods_are_subtracted_on_the_same_examples():
    task = task_of("accuracy", ["a"] * 20, OPTIONS)
    found = difference(["a"] * 15 + ["b"] * 5, ["a"] * 9 + ["b"] * 11, task, ((-1.0, -3.0), (-2.0, -3.5)))
    assert (found.one, found.other, found.examples) == (0.75, 0.45, 20)
    assert found.score == pytest.approx(0.3) and found.log_likelihood == pytest.approx(0.75)
    low, high = found.score_interval
    assert 0.05 < low < 0.15 and 0.45 < high < 0.55  # 0.3 +- 1.96 sqrt(0.21 / 20)
    assert found.log_likelihood_interval[0] > 0.5 and found.log_likelihood_interval[1] < 1.0
    assert str(found).startswith("one: accuracy +0.300 [+0.1")


def test_pairing_makes_the_interval_narrow():
    task = task_of("accuracy", ["a"] * 40, OPTIONS)
    mine = ["a"] * 22 + ["b"] * 18
    same_hard, other_hard = ["a"] * 20 + ["b"] * 20, ["b"] * 20 + ["a"] * 20
    narrow, wide = (
        np.ptp(difference(mine, theirs, task).score_interval) for theirs in (same_hard, other_hard)
    )
    assert narrow < 0.2 < 0.5 < wide


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_prompts_that_answer_alike_are_not_proved_equal(metric):
    task = task_of(metric, ["a", "b"] * 10, OPTIONS)
    found = difference(["a", "b"] * 10, ["a", "b"] * 10, task)
    most = 1.96**2 / (20 + 1.96**2)  # Wilson for 0 of 20
    assert found.score == 0 and found.score_interval == pytest.approx((-most, most), abs=1e-3)


def test_any_metric_and_any_two_prompts_are_compared():
    engine = Engine(backbone("tiny-causal", "float32"))
    moods = suites.load_suite("tiny", only=["tiny-mood", "tiny-plural"], max_test=10)
    draw = torch.Generator().manual_seed(3)
    one, other = (FixedPrompt(torch.randn(2, n, 32, generator=draw)) for n in (4, 2))
    found = comparison.compare((engine, one), (engine, other), moods)
    for difference, mine, theirs in zip(
        found,
        evaluation.measure(engine, one, moods),
        evaluation.measure(engine, other, moods),
        strict=True,
    ):
        assert (difference.one, difference.other) == pytest.approx((mine.score, theirs.score))
        assert difference.log_likelihood == pytest.approx(mine.log_likelihood - theirs.log_likelihood)
    back = comparison.compare((engine, other), (engine, one), moods)
    assert [d.score for d in back] == pytest.approx([-d.score for d in found])
    few = [moods[0], dataclasses.replace(moods[1], dev=moods[1].dev[:1])]
    with pytest.raises(
        ValueError, match="tiny-plural has fewer than two examples in dev to compare on; give"
    ):
        comparison.compare((engine, one), (engine, other), few, "dev")


def test_a_log_likelihood_that_is_not_finite_is_an_error():
    task = task_of("accuracy", ["a"] * 4, OPTIONS)
    with pytest.raises(
        DivergedError, match="task one: the right answer to 'text 0' has the log-likelihood nan"
    ):
        difference(["a"] * 4, ["a"] * 4, task, ((float("nan"),), (-1.0,)))
