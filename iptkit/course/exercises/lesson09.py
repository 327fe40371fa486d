"""Checks of the exercises of lesson 09, the size of a study."""

from __future__ import annotations

from iptkit.course.exercises.answers import Case, judge_choice, judge_function, judge_number, near
from iptkit.course.exercises.feedback import Feedback


def check_09_1(answer: object, seed: int = 0) -> Feedback:
    """Check a function that counts the FLOPs of prompt tuning with cached texts.

    Args:
      answer: tuning_flops(N, examples, text, prompt, answer, steps, batch) -> a number.
      seed: makes other sizes.
    """
    weights, examples, text, prompt, tokens, steps, batch = 1000 + seed, 32, 71 + seed, 5, 3, 40, 4
    names = ("N", "examples", "text", "prompt", "answer", "steps", "batch")
    sizes = (weights, examples, text, prompt, tokens, steps, batch)
    read, new = 2 * weights * text * examples, weights * (prompt + tokens) * batch * steps
    mistakes = {
        "6 N is for fine-tuning. Frozen weights need no gradient: 4 N in a training step.": read + 6 * new,
        "You count the forward pass alone; in training the gradient also passes back: 4 N.": read + 2 * new,
        "You read the texts again in every step; they are read once, before the first one.": (
            4 * weights * (text + prompt + tokens) * batch * steps
        ),
        "The texts are read without gradient: 2 N per token, not 4 N.": 2 * read + 4 * new,
        "The texts cost something, too: they are read once, forward.": 4 * new,
        "You read one text; there are `examples` of them.": read / examples + 4 * new,
        "You read the texts of all steps; each of the `examples` texts is read once.": (
            2 * weights * text * batch * steps + 4 * new
        ),
        "You read `batch` texts; there are `examples` of them.": 2 * weights * text * batch + 4 * new,
        "You count one example per step; a step has `batch` of them.": read + 4 * new / batch,
        "You count one step.": read + 4 * new / steps,
        "You leave out the answer's last token, as the lesson does. Here all tokens count.": (
            read + 4 * weights * (prompt + tokens - 1) * batch * steps
        ),
        "The answers pass through the model in every step, like the prompt.": (
            read + 4 * weights * prompt * batch * steps
        ),
        "The prompt's tokens pass through the model in every step, like the answer's.": (
            read + 4 * weights * tokens * batch * steps
        ),
    }
    return judge_function(
        answer,
        [Case(dict(zip(names, sizes, strict=True)), read + 4 * new, mistakes, rtol=0)],
        "With long texts and short answers most tokens are read once. That saves more than frozen weights.",
    )


def check_09_2(answer: object, seed: int = 0) -> Feedback:
    """Check a prediction: seconds of three chains of jobs with a common start on a hundred machines.

    Args:
      answer: a number of seconds.
      seed: not used, because nothing is drawn; all checks have it.
    """
    feedback = judge_number(
        answer,
        350,
        350,
        "The prompts come first (100 s), then the three subspaces side by side (50 s), then their codes "
        "(200 s). Three machines are as fast as a hundred: the longest chain is all that is left.",
    )
    hints = {
        850: "This is the time on one machine.",
        8.5: "A job runs on one machine, and a chain cannot be divided.",
        550: "This is the time on two machines.",
        300: "The prompts have to be there before anything else begins.",
    }
    return near(feedback, answer, hints)


def check_09_3(answer: object, seed: int = 0) -> Feedback:
    """Check a choice: what goes wrong if a result is written straight to its final file.

    Args:
      answer: "a", "b", "c" or "d".
      seed: not used; all checks have it.
    """
    return judge_choice(
        answer,
        "b",
        {
            "a": "`write_text` opens the file, which makes it empty, and writes piece by piece. In between, "
            "anything can happen; only the renaming is one step.",
            "b": "The file exists from its first byte on, and existing is all that `run_all` asks for. A "
            "renamed draft is there as a whole, or not at all.",
            "c": "The file is found, and that is the trouble: it may be only half of one.",
            "d": "A job starts when the loop comes to it, after the jobs that it needs. That stays so.",
        },
    )
