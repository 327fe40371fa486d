"""Checks of the exercises of lesson 01, discrete prompts."""

from __future__ import annotations

from iptkit.course.exercises.answers import judge_choice, run
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
    """Check a prediction: what happens if one word stands for two labels.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "c",
        {
            "a": "Then the model's probability of 'good' would count for one label only, and nobody would "
            "have said why. Run the cell and read what it says.",
            "b": "Both labels would get the same evidence from this word, so it could not tell them apart. "
            "Run the cell and read what it says.",
            "c": "The model gives the word one probability. If it stood for both labels, it could not tell "
            "them apart, so the verbalizer refuses it and names the word and both labels.",
            "d": "The model never sees labels, only words. The mistake can be seen in the words alone, "
            "before any model runs.",
        },
    )
