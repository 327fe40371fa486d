"""Checks of the exercises of lesson 01, discrete prompts."""

from __future__ import annotations

import torch

from iptkit.course.exercises.answers import (
    Case,
    explained,
    judge_choice,
    judge_function,
    judge_number,
    run,
)
from iptkit.course.exercises.feedback import Feedback
from iptkit.tasks.wordings import Template, Verbalizer, Wording, of_task

LABELS = ("negative", "positive")
OPPOSITES = {
    "negative": {"good", "great", "nice", "happy", "glad"},
    "positive": {"bad", "terrible", "sad", "awful"},
}


def check_01_1(answer: object, seed: int = 0) -> Feedback:
    """Check a function that returns a wording of the learner's own for texts with a mood.

    Args:
      answer: my_wording() -> wordings.Wording with the labels "negative" and "positive".
      seed: not used, because nothing is drawn; all checks have it.
    """
    outcome = run(answer, {})
    problem = outcome.problem or _problem(outcome.value)
    return outcome.feedback(
        not problem,
        problem
        or "A wording of your own. Whether it is a good one, only its accuracy can say: look where it falls.",
    )


def _problem(value: object) -> str:
    if isinstance(value, Template | Verbalizer):
        return f"This is a {type(value).__name__} alone; return Wording(Template(...), Verbalizer(...))."
    if isinstance(value, tuple) and len(value) == 2:
        return "These are two things in a tuple; put them together: return Wording(template, verbalizer)."
    if not isinstance(value, Wording):
        return "Your function does not return a wording; return Wording(Template(...), Verbalizer(...))."
    if value.template.slots != ("text",):
        return f"The template has the slots {', '.join(value.template.slots)}; here the text is {{text}}."
    words = value.verbalizer.of
    if set(words) != set(LABELS):
        return f"The verbalizer has the labels {', '.join(words)}; these tasks have {' and '.join(LABELS)}."
    if any({word.lower() for word in words[label]} & OPPOSITES[label] for label in LABELS):
        return "The words of the two labels are swapped: those of 'positive' have to say a good mood."
    if value in of_task("vader-tweets") or value in of_task("tiny-mood"):
        return "This wording comes with the course; change its template or its words."
    return ""


def check_01_2(answer: object, seed: int = 0) -> Feedback:
    """Check a prediction: best minus worst of eight wordings that are equally good.

    Args:
      answer: a number, in shares of right answers.
      seed: not used, because the answer is the same for every draw; all checks have it.
    """
    return judge_number(
        answer,
        0.16,
        0.28,
        "One accuracy of 40 examples has the standard deviation sqrt(0.6 · 0.4 / 40) = 0.08, and eight of "
        "them lie about 2.8 standard deviations apart. So luck alone makes a swing of about 0.22 on average, "
        "and about half of all swings are larger. One swing says little, unless you know what luck makes.",
    )


def check_01_3(answer: object, seed: int = 0) -> Feedback:
    """Check a function that chooses each task's wording on dev and returns the mean test accuracy.

    Args:
      answer: chosen_on_dev(dev [T, K], test [T, K]) -> one number.
      seed: of the random accuracies.
    """
    generator = torch.Generator().manual_seed(seed)
    dev, test = torch.rand(2, 5, 8, generator=generator)
    chosen = test.gather(1, dev.argmax(1, keepdim=True))[:, 0]  # [T]
    mistakes = {
        "This is the best on test, which nobody knows beforehand. Choose with `dev`.": test.max(
            1
        ).values.mean(),
        "These are the dev accuracies of the chosen wordings; return their test accuracies.": (
            dev.max(1).values.mean()
        ),
        "You choose one wording for all tasks; choose one per task, along the second axis.": (
            test[:, dev.mean(0).argmax()].mean()
        ),
        "You take the wording that is worst on dev.": test.gather(1, dev.argmin(1, keepdim=True)).mean(),
        "This is the mean over all wordings: nothing was chosen.": test.mean(),
        "This is one accuracy per task; return their mean.": chosen,
        "You choose a task for each wording; choose a wording for each task: `argmax(1)`.": (
            test.gather(0, dev.argmax(0, keepdim=True)).mean()
        ),
        "`test[:, best]` takes every task with every chosen wording; take task i with wording best[i].": (
            test[:, dev.argmax(1)].mean()
        ),
    }
    arguments = {"dev": dev, "test": test}
    praise = "This is what a user gets who has to decide before the test."
    whole = "`argmax()` without an axis counts through the whole table; choose a wording: `argmax(1)`."
    feedback = judge_function(answer, [Case(arguments, chosen.mean(), mistakes)], praise)
    return explained(feedback, {"out of bounds": whole, "out of range": whole})


def check_01_4(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: what calibration changes for a task with two labels.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "b",
        {
            "a": "The logarithm of p'(positive) / p'(negative) is that of p(positive) / p(negative) minus a "
            "number that is the same for all texts. So the order stays.",
            "b": "All texts move by the same step on the scale log p(positive) / p(negative). Their order "
            "stays, and another share of them is on the positive side. So calibration mends a taste for a "
            "label, and it adds no knowledge.",
            "c": "The texts between the old line and the new one get another label, so accuracy can change.",
            "d": "The step is the same for all texts, near the line and far from it, so no text overtakes "
            "another.",
        },
    )
