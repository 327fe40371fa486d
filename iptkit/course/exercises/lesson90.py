"""Checks of the exercises of lesson 90, from a measurement to a verdict."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from iptkit.course.exercises.answers import Outcome, judge_choice, judge_number, near, run
from iptkit.course.exercises.feedback import Feedback
from iptkit.scores.claims import LEVEL, VERDICTS, Criterion, of_effect

HOLDS, IN_PART, FAILS, OPEN = VERDICTS
ENDS = (  # of intervals: distances from `value` in units of `equal`, for each way to lie around the margin
    (1.4, 3.0),
    (0.3, 2.0),
    (0.15, 0.4),
    (-0.5, 0.6),
    (-0.4, -0.15),
    (-0.5, 2.0),
    (-2.0, 0.5),
    (-2.0, 2.4),
    (-2.0, -0.3),
    (-3.0, -1.4),
)


@dataclass(frozen=True)
class Measured:
    """One input of the learner's function, and what the rules ask of it."""

    low: float
    high: float
    p: float
    value: float
    equal: float

    @property
    def middle(self) -> float:
        """The mean, if the interval is symmetric."""
        return (self.low + self.high) / 2

    @property
    def is_above(self) -> bool:
        """Whether the whole interval is above `value`."""
        return self.low > self.value

    @property
    def is_below(self) -> bool:
        """Whether the whole interval is below `value`."""
        return self.high < self.value

    @property
    def is_inside(self) -> bool:
        """Whether the whole interval is inside the margin."""
        return self.value - self.equal < self.low and self.high < self.value + self.equal

    @property
    def is_clear(self) -> bool:
        """Whether p is small enough."""
        return self.p <= LEVEL

    def verdict(self) -> str:
        """The right answer."""
        asks = Criterion("the learner's effect", "score", "more", self.value, self.equal)
        return of_effect((self.middle, self.low, self.high), self.p, asks)

    def judged(
        self,
        above: bool | None = None,
        inside: bool | None = None,
        below: bool | None = None,
        clear: bool | None = None,
    ) -> str:
        """The verdict if some questions have another answer than their right one."""
        above = self.is_above if above is None else above
        inside = self.is_inside if inside is None else inside
        below = self.is_below if below is None else below
        clear = self.is_clear if clear is None else clear
        if above and clear:
            return IN_PART if inside else HOLDS
        return FAILS if inside or (below and clear) else OPEN

    def __str__(self) -> str:
        return f"verdict({', '.join(f'{name}={number:g}' for name, number in asdict(self).items())})"


def measurements(seed: int) -> list[Measured]:
    """Inputs of every kind, with and without a `value`, simple ones first; no end is on an edge.

    Args:
      seed: of the random numbers.
    """
    drawn, found = random.Random(seed), []
    small = round(drawn.uniform(0.02, 0.04), 3)
    pairs = (
        (0.0, small),
        (round(3 * small, 3), small),
        (round(-2 * small, 3), small),
        (0.87, 0.1),
        (0.0, 0.0),
    )
    for value, equal in pairs:
        agreed, torn = [], []
        for ends in ENDS:
            low, high = (round(value + (equal or small) * end * drawn.uniform(0.92, 1.08), 3) for end in ends)
            is_apart = low > value or high < value
            # Mostly p is small just where the interval leaves out `value`. Small studies are where it is not:
            # with five groups the smallest p is 0.0625.
            clear = drawn.uniform(0.002, 0.04) if is_apart else drawn.uniform(0.03, 0.048)
            not_clear = drawn.uniform(0.062, 0.13) if is_apart else drawn.uniform(0.1, 0.9)
            both = [Measured(low, high, round(p, 3), value, equal) for p in (clear, not_clear)]
            agreed.append(both[not is_apart])
            torn.append(both[is_apart])
        found += [*agreed, *torn, replace(agreed[0], p=LEVEL)]
    return found


NO_EVIDENCE = "Absence of evidence is not evidence of absence."
MISTAKES: dict[str, Callable[[Measured], str]] = {  # hint -> what a function with this mistake returns
    f"{NO_EVIDENCE} You say {FAILS!r} as soon as the interval holds `value`. If it also reaches out of the "
    "margin, an effect that matters may well be there.": (
        lambda m: m.judged() if m.is_above or m.is_below else FAILS
    ),
    f"{NO_EVIDENCE} You say {FAILS!r} to all that is left at the end. That an effect was not shown does not "
    "show that there is none: one verdict is for what the data leave open.": (
        lambda m: FAILS if m.judged() == OPEN else m.judged()
    ),
    f"{NO_EVIDENCE} You say {FAILS!r} as soon as p is above 0.05. A large p can also come from too little "
    "data: then the interval is wide.": lambda m: m.judged() if m.is_clear else FAILS,
    "You do not use p. Rows of the table that ask for one side of `value` ask for a small p, too.": (
        lambda m: m.judged(clear=True)
    ),
    "Above `value` you do not use p: there, too, it has to be at most 0.05.": (
        lambda m: m.judged(clear=True if m.is_above else None)
    ),
    "Below `value` you do not use p: there, too, it has to be at most 0.05.": (
        lambda m: m.judged(clear=True if m.is_below else None)
    ),
    "You read p the wrong way round: a small p says that luck alone would rarely give such a difference.": (
        lambda m: m.judged(clear=not m.is_clear)
    ),
    "A p of exactly 0.05 counts: the table says at most.": lambda m: m.judged(clear=m.p < LEVEL),
    "You do not use the margin. In it, a difference from `value` is too small to matter.": lambda m: m.judged(
        inside=False
    ),
    "You judge by the middle of the interval. The effect may be anywhere in the interval, so both ends "
    "count.": lambda m: replace(m, low=m.middle, high=m.middle).judged(),
    "You use neither p nor the margin.": lambda m: replace(m, equal=0.0).judged(clear=True),
    "You use nothing but the middle of the interval. Its ends, p and the margin count as well.": (
        lambda m: HOLDS if m.middle > m.value else FAILS
    ),
    "You judge by the middle of the interval, and you do not use p.": (
        lambda m: replace(m, low=m.middle, high=m.middle).judged(clear=True)
    ),
    "You take p and the middle of the interval for the sides. The rules want p and the whole interval.": (
        lambda m: m.judged(above=m.middle > m.value, below=m.middle < m.value)
    ),
    "You take the middle of the interval for the margin; wholly inside means both ends.": (
        lambda m: m.judged(inside=abs(m.middle - m.value) < m.equal)
    ),
    "You compare with 0; the claim asks for more than `value`.": lambda m: replace(m, value=0.0).judged(),
    "Your margin lies around 0; it lies around `value`.": (
        lambda m: m.judged(inside=replace(m, value=0.0).is_inside)
    ),
    "Your margin is right, but above and below are those of 0; compare the interval with `value`.": (
        lambda m: m.judged(above=m.low > 0, below=m.high < 0)
    ),
    "Your margin has an upper edge only. An interval that reaches far below `value` is not inside.": (
        lambda m: m.judged(inside=m.high < m.value + m.equal)
    ),
    "Your margin has a lower edge only. An interval that reaches far above `value` is not inside.": (
        lambda m: m.judged(inside=m.low > m.value - m.equal)
    ),
    "Your margin begins at `value`; it goes as far below `value` as above it.": (
        lambda m: m.judged(inside=m.is_above and m.high < m.value + m.equal)
    ),
    "Your margin ends at `value`; it goes as far above `value` as below it.": (
        lambda m: m.judged(inside=m.is_below and m.low > m.value - m.equal)
    ),
    "You compare the width of the interval with that of the margin. A narrow interval can lie outside.": (
        lambda m: m.judged(inside=m.high - m.low < 2 * m.equal)
    ),
    "Your margin is half as wide as it should be: it reaches `equal` to each side of `value`.": (
        lambda m: m.judged(inside=replace(m, equal=m.equal / 2).is_inside)
    ),
    "You multiply `value` by `equal`; the margin goes from value - equal to value + equal.": (
        lambda m: m.judged(inside=replace(m, equal=abs(m.value) * m.equal).is_inside)
    ),
    "An interval with one end inside the margin counts as inside for you. Wholly inside means both ends.": (
        lambda m: m.judged(inside=m.low < m.value + m.equal and m.high > m.value - m.equal)
    ),
    f"You say {HOLDS!r} to an effect wholly inside the margin. It is there, but too small to matter.": (
        lambda m: HOLDS if m.judged() == IN_PART else m.judged()
    ),
    "Your order hides a row: you ask about the margin before you ask whether the effect is above `value`. A "
    f"clear effect inside the margin holds in part, and {FAILS!r} is for the rest of it.": (
        lambda m: FAILS if m.judged() == IN_PART else m.judged()
    ),
    f"You say {IN_PART!r} to every interval inside the margin with a small p. The claim asks for more, so it "
    "has to be wholly above `value`, too.": (lambda m: IN_PART if m.is_inside and m.is_clear else m.judged()),
    f"You say {IN_PART!r} without looking at p.": (
        lambda m: IN_PART if m.is_inside and m.is_above else m.judged()
    ),
    f"You say {IN_PART!r} to every interval inside the margin. It has to be wholly above `value`, with a "
    "small p.": lambda m: IN_PART if m.is_inside else m.judged(),
    f"You say {IN_PART!r} when the lower end alone is in the margin. An interval that begins in the margin "
    "and ends above it is not wholly inside.": (
        lambda m: IN_PART if m.judged() == HOLDS and m.low < m.value + m.equal else m.judged()
    ),
    f"For {HOLDS!r} you ask for an interval that begins above the margin. It is enough that it begins above "
    "`value` and is not wholly inside the margin.": (
        lambda m: OPEN if m.judged() == HOLDS and m.low < m.value + m.equal else m.judged()
    ),
    "Above `value` you ask for an interval wholly above the margin. It has to be wholly above `value`; the "
    f"margin only tells {HOLDS!r} from {IN_PART!r}.": lambda m: m.judged(above=m.low > m.value + m.equal),
    "You ask for an interval wholly below the margin. With a small p it is enough that it is wholly below "
    "`value`.": lambda m: m.judged(below=m.high < m.value - m.equal),
    "A clear effect on the other side speaks against the claim, too: see the row for intervals wholly below "
    "`value`.": lambda m: m.judged(below=False),
    "An interval wholly inside the margin says that no difference that matters is there. That speaks against "
    "the claim.": (lambda m: OPEN if m.judged() == FAILS and not (m.is_below and m.is_clear) else m.judged()),
    f"For {FAILS!r} inside the margin you ask for a small p. What is wholly inside the margin does not "
    "matter, whatever p is.": (lambda m: OPEN if m.judged() == FAILS and not m.is_clear else m.judged()),
    f"For {FAILS!r} inside the margin you ask for a large p. What is wholly inside the margin does not "
    "matter, whatever p is.": (
        lambda m: OPEN if m.is_inside and m.is_clear and not m.is_above else m.judged()
    ),
    "Your two sides are swapped: this claim asks for more, not for less.": (
        lambda m: m.judged(above=m.is_below, below=m.is_above)
    ),
}


def check_90_1(answer: object, seed: int = 0) -> Feedback:
    """Check a function that turns a measurement into the verdict on a claim that asks for "more".

    Args:
      answer: verdict(low, high, p, value, equal) -> one of `claims.VERDICTS`.
      seed: of the random measurements.
    """
    given = measurements(seed)
    outcomes: list[Outcome] = []
    for one in given:
        outcome = run(answer, asdict(one))
        problem = outcome.problem or _no_verdict(outcome.value)
        if problem:
            return outcome.feedback(False, f"{problem}\nThe input was {one}." if outcomes else problem)
        outcomes.append(outcome)
    return _compared(given, outcomes)


def _no_verdict(value: object) -> str:
    """What is wrong with a result that is none of the four words, as a hint; empty if it is one."""
    if isinstance(value, str) and value in VERDICTS:
        return ""
    words = ", ".join(f'"{word}"' for word in VERDICTS)
    what = repr(value[:40]) if isinstance(value, str) else f"something of type {type(value).__name__}"
    return f"Your function returns {what}; return one of these texts, letter by letter: {words}."


def _compared(given: list[Measured], outcomes: list[Outcome]) -> Feedback:
    right, words = [one.verdict() for one in given], [outcome.value for outcome in outcomes]
    if words == right:
        return outcomes[-1].feedback(
            True,
            f"All four words have their place. {FAILS!r} needs evidence as much as {HOLDS!r} does; what the "
            f"data leave open is {OPEN!r}.",
        )
    hint = next((hint for hint, wrong in MISTAKES.items() if [*map(wrong, given)] == words), "")
    wrong_at = [k for k in range(len(given)) if words[k] != right[k]]
    first = given[wrong_at[0]]
    message = f"{first} should be {first.verdict()!r}, and yours is {words[wrong_at[0]]!r}."
    if hint:
        message = f"{hint} An example: {message}"
    else:
        message = f"{message} {_reason(first, words[wrong_at[0]])}"
        if all(given[k].value for k in wrong_at):
            message = (
                "Where `value` is 0, all is right. Look for a place where your code forgets `value`, or uses "
                f"it twice. {message}"
            )
    return outcomes[wrong_at[0]].feedback(False, message)


def _reason(one: Measured, yours: str) -> str:
    """Why a measurement has its verdict."""
    right = one.verdict()
    margin = f"the margin from {one.value - one.equal:g} to {one.value + one.equal:g}"
    p = f"p is {'at most' if one.is_clear else 'above'} 0.05"
    if right == OPEN and yours == FAILS:
        return f"{NO_EVIDENCE} This interval reaches out of {margin}, and no row speaks against the claim."
    if right == OPEN:
        where = "lies on one side of `value`" if one.is_above or one.is_below else "holds `value`"
        return f"The interval {where}, reaches out of {margin}, and {p}: no other row fits."
    if right == FAILS and one.is_inside:
        but = f"It is wholly above `value`, but {p}." if one.is_above else "That is enough, whatever p is."
        return f"The interval is wholly inside {margin}. {but}"
    if right == FAILS:
        return f"The interval is wholly below `value`, and {p}."
    inside = f"{'' if right == IN_PART else 'not '}wholly inside {margin}"
    return f"The interval is wholly above `value`, {inside}, and {p}."


def check_90_2(answer: object, seed: int = 0) -> Feedback:
    """Check a prediction: how many of 40 claims have p <= 0.05 if none of the effects exists.

    Args:
      answer: a number of claims.
      seed: not used, because the answer is the same for every draw; all checks have it.
    """
    feedback = judge_number(
        answer,
        1.5,
        2.5,
        "Without any effect, p is at most 0.05 in 5 % of the claims, and 5 % of 40 are 2. A study of many "
        "claims finds something even where nothing is there. So a claim and its rule are written down first, "
        "and a single p just below 0.05 among many says little.",
    )
    hints = {
        0: "No effect does not mean no small p: luck makes some differences large.",
        0.05: "0.05 is the share of the claims; the question is for their number.",
        1: "That would be 1 of 20 claims; here are 40.",
        5: "That would be 5 of 100 claims; here are 40.",
        20: "Luck decides the sign of a difference in half of the claims, but a small p also wants it far "
        "from 0.",
        38: "These are the claims with p above 0.05; count the others.",
        40: "Then every p would be small, but without an effect a small p is rare.",
    }
    return near(feedback, answer, hints)


def check_90_3(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: what an interval that holds 0, and more than the margin, says with its power.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "d",
        {
            "a": "The interval holds 0, but 0.10 as well, twice the margin. Absence of evidence is not "
            "evidence of absence: the study would have missed an effect of 0.10 more often than not.",
            "b": "0.03 is only the middle of the interval. To say that no difference matters, the whole "
            "interval has to be inside -0.05 to 0.05, and it reaches to 0.15.",
            "c": "Luck alone makes a mean positive every other time. The interval reaches to -0.09, so the "
            "effect may have the other sign.",
            "d": "The interval holds 0, effects that matter, and effects of the other sign. One of 0.17 "
            "would probably have shown. To see 0.05 as surely, the study would need about "
            "(0.17 / 0.05)² = 12 times as many groups of tasks.",
        },
    )
