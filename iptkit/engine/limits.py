"""What a task must be for an engine, looked at before anything trains: lengths, options, classes.

A text that is too long for the model would show only when it is its turn, that of a test set after the whole
training. So `train.fit` and all that trains beside it `check` every set of every task first. Nothing is cut
unasked; `truncate` cuts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from iptkit.engine.interface import PromptEngine
from iptkit.tasks.examples import ALL_SETS, Example, SpanExample, TaggedExample, Task, words_of

MAX_ANSWER_TOKENS = 64
SIDES = ("left", "right")
_PASSED: WeakKeyDictionary[Any, dict[Any, Task]] = WeakKeyDictionary()  # what `check` has found fine


def check(
    engine: PromptEngine,
    tasks: Iterable[Task],
    prompt_length: int,
    sets: Sequence[str] = ALL_SETS,
    answered: Sequence[str] = ("test",),
    limit: int | None = None,
) -> None:
    """Raise ValueError unless the engine can train on these tasks and score them.

    Args:
      engine: what will read them.
      tasks: the same task may come several times.
      prompt_length: n, positions that the prompt takes (0 for a deep prompt).
      sets: those of ALL_SETS that are looked at.
      answered: those of them whose free answers will be generated.
      limit: first so many examples of each, None for all.

    Raises:
      ValueError: naming task, set and example: prompt, text and answer (or what may be generated) take more
        positions than the model has; options with the same tokens; an answer that can never be given; for a
        head, options that differ from line to line.
    """
    passed = _PASSED.setdefault(engine, {})
    for task in {id(task): task for task in tasks}.values():
        asked = (id(task), prompt_length, tuple(sets), tuple(answered), limit)
        if asked in passed:
            continue
        classes: tuple[str, ...] | None = None
        for of_set, number, example, cap in _examples(engine, task, sets, answered, limit):
            where = f"task {task.id}, {of_set}, example {number} ({example.input[:40]!r})"
            try:
                size, mine = engine.positions(example, prompt_length, cap), engine.classes(example)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            most = engine.backbone.max_positions
            if size > most:
                raise ValueError(
                    f"{where}: prompt ({prompt_length}) + text + answer take {size} positions, "
                    f"{engine.backbone.name} has {most}; shorten the text or the prompt, or have all long "
                    f"texts cut: limits.truncate(engine, task, prompt_length={prompt_length}, "
                    'side="left") drops their beginnings, side="right" their ends'
                )
            classes = mine if classes is None else classes
            if mine != classes:
                raise ValueError(
                    f"{where} has the options {', '.join(mine)}, others have {', '.join(classes)}, but a "
                    "head chooses among the same classes everywhere; score such options as texts with a "
                    "language model (engine.Engine)"
                )
        passed[asked] = task  # kept, so that no other task gets its id


def truncate(engine: PromptEngine, task: Task, prompt_length: int, side: str) -> Task:
    """The task with those texts cut that are too long for the model; all others as they are.

    A cut sentence with tags loses words and their tags, so that less is scored; what is left of a span is a
    span. A text that ends with its choices loses them on the right.

    Args:
      engine, prompt_length: see `check`.
      side: what is dropped, "left" (the beginning) or "right" (the end).

    Raises:
      ValueError: an unknown side, a question about a passage (whose answer could be cut off), no room for
        any text.
    """
    if side not in SIDES:
        raise ValueError(
            f"side is {side!r}; choose one of {', '.join(SIDES)}: what is dropped of a long text"
        )
    sets: dict[str, list[Example]] = {name: [] for name in ALL_SETS}
    for of_set, _, example, cap in _examples(engine, task, ALL_SETS, ("test",), None):
        sets[of_set].append(_fitted(engine, example, prompt_length, cap, side))
    return replace(task, **{name: tuple(rows) for name, rows in sets.items()})


def answer_cap(engine: PromptEngine, task: Task) -> int:
    """Most tokens of a generated answer: a little more than the longest in training; test answers are not
    looked at.

    Raises: ValueError for a task without training examples.
    """
    if not task.train:
        raise ValueError(f"task {task.id} has no training examples, whose answers say how long one may be")
    longest = max(len(engine.target_row(e).answers[0]) for e in task.train)
    return min(MAX_ANSWER_TOKENS, longest + 2)


def _examples(
    engine: PromptEngine,
    task: Task,
    sets: Sequence[str],
    answered: Sequence[str],
    limit: int | None,
) -> Iterator[tuple[str, int, Example, int]]:
    """Set, number from 1 on and example, and how many tokens may be generated for it (0 for none)."""
    caps: list[int] = []
    for name in sets:
        for number, example in enumerate(getattr(task, name)[:limit], 1):
            is_free = name in answered and not example.options
            if is_free and not caps:
                caps.append(answer_cap(engine, task))
            yield name, number, example, caps[0] if is_free else 0


def _fitted(engine: PromptEngine, example: Example, prompt_length: int, generated: int, side: str) -> Example:
    """The example, cut until it fits."""
    most = engine.backbone.max_positions
    while (excess := engine.positions(example, prompt_length, generated) - most) > 0:
        if isinstance(example, SpanExample):
            raise ValueError(
                f"{example.input[:40]!r} is a question about a passage, and its answer could be cut off; "
                "give passages that fit"
            )
        example = _cut(example, _rest(engine.backbone.tokenizer, example.input, excess, side), side)
        if not example.input:
            raise ValueError(
                f"prompt ({prompt_length}) and answer leave no room for a text in the {most} positions of "
                f"{engine.backbone.name}; use a shorter prompt, or leave the example out"
            )
    return example


def _rest(tokenizer: Any, text: str, excess: int, side: str) -> str:
    """The text without its first or last `excess` tokens, at any rate without a character."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if excess >= len(offsets):
        return ""
    if side == "left":
        return text[max(1, offsets[excess][0]) :].lstrip()
    return text[: min(len(text) - 1, offsets[-excess - 1][1])].rstrip()


def _cut(example: Example, text: str, side: str) -> Example:
    """The example with this rest of its text; of words with tags as many as are left, at least one less."""
    if not isinstance(example, TaggedExample):
        return replace(example, input=text)
    count = min(len(words_of(text)), len(example.words) - 1)
    part = slice(len(example.words) - count, None) if side == "left" else slice(count)
    words, tags = " ".join(example.words[part]), list(example.tags[part])
    if tags and tags[0][:2] == "I-" and "B" + tags[0][1:] in example.labels:  # its beginning was cut off
        tags[0] = "B" + tags[0][1:]
    return replace(example, input=words, targets=(" ".join(tags),))
