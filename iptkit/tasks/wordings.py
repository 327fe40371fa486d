"""Wordings: different ways to ask a task in words, as templates with slots and verbalizers.

A template such as "{text} All in all, it was {answer}" says how the question is asked; a verbalizer says
which words stand for which label ("great" for positive). This is how discrete prompts (lesson 01) are
written. A filled template is an ordinary `Example`: its input is all words before the answer, and its options
are the label words. So engine, metrics and trainer need no code for templates.

Cloze prompts with verbalizers: Schick & Schütze 2021 (arXiv 2001.07676), section 3.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from iptkit.storage import paths, reading
from iptkit.tasks.examples import ALL_SETS, Card, Example, Task

ANSWER = "answer"
SEPARATOR = "\n\n"  # between the examples in a prompt
Slots = Mapping[str, str]


@dataclass(frozen=True)
class Template:
    """Words with slots, for example "{text} All in all, it was {answer}".

    Args:
      words: has at least one text slot, and {answer} once, at its end, because a causal model reads only what
        comes before the answer.

    Raises:
      ValueError: a slot is missing or occurs twice, or there are words after the answer.

    Example:
      >>> Template("The capital of {country} is {answer}").fill({"country": "Peru"})
      'The capital of Peru is'
    """

    words: str

    def __post_init__(self) -> None:
        given = f"template {self.words!r}"
        try:
            parts = [(text, name) for text, name, _, _ in string.Formatter().parse(self.words)]
        except ValueError as error:
            raise ValueError(
                f"{given} is not well-formed ({error}); write a literal brace as {{{{ or }}}}"
            ) from error
        names = [name for _, name in parts if name is not None]
        if names.count(ANSWER) != 1:
            raise ValueError(
                f"{given} has {names.count(ANSWER)} answer slots; write {{{ANSWER}}} once, at its end"
            )
        if parts[-1][1] != ANSWER:
            raise ValueError(
                f"{given} has words after {{{ANSWER}}}, but a causal model answers at the end; put the "
                "answer slot last"
            )
        if len(names) == 1:
            raise ValueError(f"{given} has no text slot; add one, for example {{text}}")
        if any(not name.isidentifier() for name in names) or len(set(names)) < len(names):
            raise ValueError(f"{given} has the slots {names}, allowed are different names such as {{text}}")

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """Return the names of the text slots, in order."""
        names = (name for _, name, _, _ in string.Formatter().parse(self.words))
        return tuple(name for name in names if name is not None and name != ANSWER)

    def fill(self, slots: Slots) -> str:
        """Return all words before the answer, without a blank at the end.

        Raises: ValueError if a slot is missing or empty.
        """
        missing = [name for name in self.slots if not slots.get(name, "").strip()]
        if missing:
            given = ", ".join(slots) or "nothing"
            raise ValueError(f"template {self.words!r} needs {', '.join(missing)}; given: {given}")
        return self.words.format(**{**slots, ANSWER: ""}).rstrip()


@dataclass(frozen=True)
class Verbalizer:
    """The words that stand for each label; a word may consist of several tokens.

    Raises:
      ValueError: there are fewer than two labels, a label has no words, a word is empty, or a word stands for
        two labels.

    Example:
      >>> Verbalizer({"neg": ("bad", "sad"), "pos": ("good",)}).words
      ('bad', 'sad', 'good')
    """

    of: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if len(self.of) < 2:
            raise ValueError(f"the verbalizer has the labels {list(self.of)}, but needs at least two")
        owner: dict[str, str] = {}
        for label, words in self.of.items():
            if isinstance(words, str) or not words:
                raise ValueError(f"label {label!r} has the words {words!r}; give a tuple with at least one")
            for word in words:
                if not word.strip() or word != word.strip():
                    raise ValueError(
                        f"label {label!r} has the word {word!r}; give words that are not empty and have no "
                        "blanks at their ends"
                    )
                if word in owner:
                    raise ValueError(
                        f"the word {word!r} stands for {owner[word]!r} and for {label!r}; use each word once"
                    )
                owner[word] = label

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels, in the order given."""
        return tuple(self.of)

    @property
    def words(self) -> tuple[str, ...]:
        """Return all words, label by label: these are the options that the engine scores."""
        return tuple(word for words in self.of.values() for word in words)

    def label_scores(self, word_scores: Tensor) -> Tensor:
        """Return scores of the labels [B, labels]: means over each label's words (paper, section 3.1).

        Args:
          word_scores: [B, W] log-likelihoods of `words`.
        """
        parts = word_scores.split([len(words) for words in self.of.values()], dim=-1)
        return torch.stack([part.mean(-1) for part in parts], -1)


@dataclass(frozen=True)
class Wording:
    """A template with its verbalizer: one way to ask a classification."""

    template: Template
    verbalizer: Verbalizer

    def ask(self, slots: Slots, shots: Sequence[tuple[Slots, str]] = ()) -> Example:
        """Return the question as an example whose options are the label words.

        Args:
          slots: the text in question, as values of the template's slots.
          shots: (slots, label) of solved examples to put before it (in-context learning).
        """
        solved = (f"{self.template.fill(s)} {self.verbalizer.of[label][0]}" for s, label in shots)
        words = self.verbalizer.words
        return Example(SEPARATOR.join([*solved, self.template.fill(slots)]), words[:1], words)


def slots_of(card: Card, example: Example) -> dict[str, str]:
    """Return the texts that fill the slots of a card's own template; {"text": input} if it has no template.

    Raises: ValueError if the input was not made with the card's template.

    Example:
      >>> card = Card(*"abcdefgh", template="Is {x} odd?")
      >>> slots_of(card, Example("Is 7 odd?", ("yes",)))
      {'x': '7'}
    """
    asked, _, choices = example.input.rpartition("\nChoices:")
    text = asked if choices and example.options else example.input
    pattern = ""
    for words, name, _, _ in string.Formatter().parse(card.template or "{text}"):
        pattern += re.escape(words) + (f"(?P<{name}>.+?)" if name else "")
    match = re.fullmatch(pattern, text, re.DOTALL)
    if match is None:
        raise ValueError(f"task {card.id}: {text!r} was not made with its template {card.template!r}")
    return match.groupdict()


def in_words(task: Task, card: Card, template: Template) -> Task:
    """Return the task, worded with `template` instead of its card's; for tasks with free answers."""
    return _each(task, lambda example: replace(example, input=template.fill(slots_of(card, example))))


def subjects(task: Task, card: Card) -> Task:
    """Return the task with only the subject as input, so that a prompt has to express the relation.

    Raises: ValueError if the card's template has more than one slot.
    """

    def subject(example: Example) -> Example:
        slots = slots_of(card, example)
        if len(slots) != 1:
            raise ValueError(f"task {card.id} has the slots {', '.join(slots)}, but a relation has only one")
        return replace(example, input=next(iter(slots.values())))

    return _each(task, subject)


def of_task(task_id: str) -> list[Wording]:
    """Return the wordings of a classification that come with the project (data/wordings.json).

    Raises: ValueError if there are none.
    """
    known = _known()
    if task_id not in known["tasks"]:
        raise ValueError(
            f"there are no wordings for {task_id!r}, only for {', '.join(known['tasks'])}; write your own: "
            "wordings.Wording(tasks.Template(...), tasks.Verbalizer(...))"
        )
    return [
        Wording(
            Template(w["template"]), Verbalizer({label: tuple(words) for label, words in w["words"].items()})
        )
        for w in known["sets"][known["tasks"][task_id]]
    ]


def of_relation(task_id: str) -> list[Template]:
    """Return the templates of a relation that come with the project, the plainest first.

    Raises: ValueError if there are none.
    """
    known = _known()["facts"]
    if task_id not in known:
        raise ValueError(
            f"there are no fact templates for {task_id!r}, only for {', '.join(known)}; write your own: "
            "tasks.Template(...)"
        )
    return [Template(words) for words in known[task_id]]


def _each(task: Task, change: Callable[[Example], Example]) -> Task:
    train, train_new, dev, test = (tuple(map(change, getattr(task, name))) for name in ALL_SETS)
    return replace(task, train=train, train_new=train_new, dev=dev, test=test)


def _known() -> dict:
    return reading.read_json(paths.data_dir() / "wordings.json")
