"""Checks that an engine can train on a task and score it: lengths, options, classes.

Without them, a text that is too long for the model would be found only when it is read, and one of a test set
after the whole training. So `fit` and all other training call `check` on every set of every task first. No
text is cut unless the user calls `truncate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from iptkit.engine.calls import check_engine
from iptkit.engine.interface import PromptEngine
from iptkit.tasks.examples import ALL_SETS, Example, SpanExample, TaggedExample, Task, words_of

MAX_ANSWER_TOKENS = 64
SIDES = ("left", "right")
_PASSED: WeakKeyDictionary[Any, dict[Any, Task]] = WeakKeyDictionary()  # tasks that have passed `check`


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
      engine: the engine.
      tasks: the tasks; one may occur several times.
      prompt_length: n, positions that the prompt takes (0 for a deep prompt).
      sets: those of ALL_SETS that are checked.
      answered: those of them for which free answers will be generated.
      limit: number of first examples of each set that are checked, None for all.

    Raises:
      ValueError: names the task, the set and the example if prompt, text and answer (or what may be
        generated) take more positions than the model has, two options have the same tokens, an answer can
        never be generated, or, for a head, the options differ from example to example.
    """
    check_engine(engine)
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
                    f"{engine.backbone.name} has {most}; shorten the text or the prompt, or cut all long "
                    "texts with iptkit.engine.truncate: truncate(engine, task, "
                    f'prompt_length={prompt_length}, side="left") cuts their beginnings, side="right" '
                    "their ends"
                )
            classes = mine if classes is None else classes
            if mine != classes:
                raise ValueError(
                    f"{where} has the options {', '.join(mine)}, others have {', '.join(classes)}, but a "
                    "head chooses from the same classes everywhere; score such options as words, with an "
                    "Engine and a language model"
                )
        passed[asked] = task  # the reference keeps id(task) unique


def truncate(engine: PromptEngine, task: Task, prompt_length: int, side: str) -> Task:
    """The task with its long texts cut to fit the model; all other texts are unchanged.

    A tagged sentence loses words together with their tags, so fewer tags are scored; an entity that loses its
    beginning stays an entity. A text that ends with its choices loses them if its right side is cut.

    Args:
      engine: the engine.
      task: the task.
      prompt_length: n, positions that the prompt takes (0 for a deep prompt).
      side: the side that is cut off, "left" (the beginning) or "right" (the end).

    Raises:
      ValueError: the side is unknown, a question about a passage is too long (its answer could be cut off),
        or there is no room for any text.
    """
    check_engine(engine)
    if side not in SIDES:
        raise ValueError(
            f"side is {side!r}; choose one of {', '.join(SIDES)}, the side of a long text that is cut off"
        )
    sets: dict[str, list[Example]] = {name: [] for name in ALL_SETS}
    for of_set, _, example, cap in _examples(engine, task, ALL_SETS, ("test",), None):
        sets[of_set].append(_fitted(engine, example, prompt_length, cap, side))
    train, train_new, dev, test = (tuple(sets[name]) for name in ALL_SETS)
    return replace(task, train=train, train_new=train_new, dev=dev, test=test)


def answer_cap(engine: PromptEngine, task: Task) -> int:
    """The maximum number of tokens of a generated answer: a little more than the longest in training.

    Test answers are not used.

    Args:
      engine: the engine.
      task: the task.
    Raises: ValueError for a task without training examples.
    """
    if not task.train:
        raise ValueError(
            f"task {task.id} has no training examples, whose answers set the limit for generated ones"
        )
    longest = max(len(engine.target_row(e).answers[0]) for e in task.train)
    return min(MAX_ANSWER_TOKENS, longest + 2)


def _examples(
    engine: PromptEngine,
    task: Task,
    sets: Sequence[str],
    answered: Sequence[str],
    limit: int | None,
) -> Iterator[tuple[str, int, Example, int]]:
    """Set, number (from 1), example, and the number of tokens that may be generated for it (0 for none)."""
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
    """The text without its first or last `excess` tokens, and at least one character shorter."""
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    if excess >= len(offsets):
        return ""
    if side == "left":
        return text[max(1, offsets[excess][0]) :].lstrip()
    return text[: min(len(text) - 1, offsets[-excess - 1][1])].rstrip()


def _cut(example: Example, text: str, side: str) -> Example:
    """The example with a shorter text; a tagged sentence loses at least one word with its tag."""
    if not isinstance(example, TaggedExample):
        return replace(example, input=text)
    count = min(len(words_of(text)), len(example.words) - 1)
    part = slice(len(example.words) - count, None) if side == "left" else slice(count)
    words, tags = " ".join(example.words[part]), list(example.tags[part])
    if (
        tags and tags[0][:2] == "I-" and "B" + tags[0][1:] in example.labels
    ):  # the beginning of the entity was cut off
        tags[0] = "B" + tags[0][1:]
    return replace(example, input=words, targets=(" ".join(tags),))
