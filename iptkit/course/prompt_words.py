"""What the commands for prompts of your own say: tables of scores, answers, the header of a prompt file."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from iptkit.course import output

if TYPE_CHECKING:
    from iptkit.prompts.asking import Answer
    from iptkit.prompts.tuning import Tuned
    from iptkit.scores.comparison import Difference
    from iptkit.scores.evaluation import Score
    from iptkit.tasks.examples import Task

MOST_LABELS = 6  # on a line
OF_ANSWERS = ("accuracy", "exact_match")  # metrics that the share of the commonest answer compares with
HEADING = ["task", "metric", "score", "95 % interval", "chance", "examples"]


def tuned(made: Tuned, tasks: Sequence[Task], seconds: float, prompt: str, data: Sequence[str]) -> str:
    """Scores before and after a tuning, and the commands that come next.

    Args:
      made: the tuning.
      tasks: its tasks.
      seconds: that it took.
      prompt: where it is saved, as the user wrote it.
      data: words of the command line that name its tasks.
    """
    rows = [[*HEADING[:2], "before", *HEADING[2:5], "commonest", HEADING[5]]]
    for i, (score, task) in enumerate(zip(made.scores, tasks, strict=True)):
        old = "-" if made.before is None else _number(made.before[i].score)
        cells = _cells(score)
        commonest = f"{task.majority:.2f}" if task.metric in OF_ANSWERS else "-"
        rows.append([*cells[:2], old, *cells[2:5], commonest, cells[5]])
    low = [
        f"{score.task}: the interval does not lie above the score of the commonest answer "
        f"({task.majority:.2f}), so nothing shows that this prompt has learned; try more examples, --lr, "
        "--steps or another --model"
        for score, task in zip(made.scores, tasks, strict=True)
        if score.metric in OF_ANSWERS and score.low <= task.majority
    ]
    text = min((example.input for example in tasks[0].test), key=len)
    which = [] if len(tasks) == 1 else ["--task", tasks[0].id]
    asked = [*which, *(["--"] if text.startswith("-") else []), text]
    return "\n".join(
        [
            output.table(rows),
            *low,
            f"saved to {prompt} in {seconds:.0f} s",
            "next:",
            f"  {_typed('iptkit', 'ask', prompt, *asked)}",
            f"  {_typed('iptkit', 'score', prompt, *data)}",
        ]
    )


def scores(found: Sequence[Score]) -> str:
    """A table of scores."""
    return output.table([HEADING, *map(_cells, found)])


def differences(found: Sequence[Difference]) -> str:
    """A table of what one prompt has more than another one."""
    heading = ["task", "metric", "score", "minus", "difference", "95 % interval"]
    heading += ["log-likelihood", "95 % interval", "examples"]
    return output.table([heading, *map(_difference_cells, found)])


def numbers(found: Sequence[Score | Difference]) -> str:
    """The scores, or the differences, alone, one per line."""
    return "\n".join(_number(score.score) for score in found)


def answer(found: Answer) -> str:
    """An answer on one line, with its probability if there are options; (empty) for an empty one."""
    if not found.answer:
        return "(empty)"
    return found.answer if found.probability is None else f"{found.answer}  ({found.probability:.2f})"


def header(about: Mapping[str, Any]) -> str:
    """What the header of a prompt file says, as a table."""
    training = about.get("training") or {}
    facts = {
        "method": about.get("tuned") or about.get("method"),
        "model": f"{about.get('backbone')} (fingerprint {about.get('fingerprint')})",
        "layout": about.get("layout"),
        "prompt length": about.get("prompt_length"),
        "attentions": len(about.get("sites") or ()) or None,
        "engine": about.get("engine"),
        "training": ", ".join(
            f"{name} {training[name]}" for name in ("steps", "rows_per_run") if name in training
        ),
        "versions": ", ".join(f"{name} {version}" for name, version in (about.get("versions") or {}).items()),
    }
    lines = [f"{name:<14}{value}" for name, value in facts.items() if value not in (None, "")]
    rows = [["task", "category", "labels", "lr", "before", "test score"]]
    for i, task in enumerate(about.get("tasks") or ()):
        of = _at(about.get("data"), i) or {}
        labels = _some(of.get("labels") or ())
        before, score = _at(about.get("before"), i), _at(about.get("scores"), i)
        rows.append(
            [task, of.get("category", "-"), labels, of.get("lr", "-"), _number(before), _score(score)]
        )
    table = ["", output.table([list(map(str, row)) for row in rows])] if len(rows) > 1 else []
    return "\n".join([*lines, *table])


def _cells(score: Score) -> list[str]:
    interval = f"[{_number(score.low)}, {_number(score.high)}]"
    shown = (score.task, score.metric, _number(score.score), interval, f"{score.chance:.2f}", score.examples)
    return list(map(str, shown))


def _difference_cells(found: Difference) -> list[str]:
    shown = [found.task, found.metric, _number(found.one), _number(found.other)]
    for value, ends in (
        (found.score, found.score_interval),
        (found.log_likelihood, found.log_likelihood_interval),
    ):
        shown += [f"{value:+.3f}", f"[{ends[0]:+.3f}, {ends[1]:+.3f}]"]
    return [*shown, str(found.examples)]


def _typed(*words: str) -> str:
    """A command as a shell of this system takes it."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _some(labels: Sequence[Any]) -> str:
    """The first labels, and how many there are if these are not all."""
    more = f", ... ({len(labels)})" if len(labels) > MOST_LABELS else ""
    return (", ".join(map(str, labels[:MOST_LABELS])) or "-") + more


def _at(values: Any, i: int) -> Any:
    """Entry i of a list in a header, None if there is none."""
    return values[i] if isinstance(values, list) and i < len(values) else None


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"


def _score(score: Any) -> str:
    if not isinstance(score, dict):
        return _number(score)
    low, high = _number(score.get("low")), _number(score.get("high"))
    return f"{score.get('metric')} {_number(score.get('score'))} [{low}, {high}]"
