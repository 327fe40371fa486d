"""What a task is: its examples, its few-shot sets, and the card that describes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

CATEGORIES = ("cls", "mcqa", "qa", "gen", "seq", "tag")
METRICS = ("accuracy", "macro_f1", "exact_match", "token_f1", "rouge_l", "mcc", "span_f1", "tag_accuracy")
DEFAULT_METRIC = {
    "cls": "accuracy",
    "mcqa": "accuracy",
    "qa": "exact_match",
    "gen": "rouge_l",
    "seq": "token_f1",
    "tag": "span_f1",
}
_OF_TEXTS = ("accuracy", "exact_match", "token_f1", "rouge_l")
_OF_CHOICES = (*_OF_TEXTS, "macro_f1", "mcc")
METRICS_OF = {
    "cls": _OF_CHOICES,
    "mcqa": _OF_CHOICES,
    "qa": _OF_TEXTS,
    "gen": _OF_TEXTS,
    "seq": _OF_TEXTS,
    "tag": ("span_f1", "tag_accuracy"),
}
SHOTS_PER_LABEL, SHOTS_PER_TASK = 16, 32
LONGEST_ID = 200  # bytes; file names may have 255, and the names of steps add to the id
ALL_SETS = ("train", "train_new", "dev", "test")


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text: whatever is separated by spaces, tabs and line ends.

    All other characters are part of a word, including a no-break space, U+2028 and U+0085.
    """
    return tuple(re.findall(r"[^ \t\r\n]+", text))


@dataclass(frozen=True)
class Example:
    """One question with its answers.

    input: the question text, without a blank at its end.
    targets: accepted answers, at least one; training uses the first.
    options: all choices (every target is one of them), or () for a free answer.
    """

    input: str
    targets: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaggedExample(Example):
    """A sentence with a tag for every word: `input` has the words, targets[0] the tags, separated by spaces.

    labels: all tags of the task.
    Raises: ValueError if the numbers of words and tags differ, or a tag is not one of the labels.
    """

    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problem = tag_problem(self.input, self.targets[0], self.labels)
        if problem:
            raise ValueError(f"{self.input[:60]!r}: {problem}")

    @property
    def words(self) -> tuple[str, ...]:
        """Return the words of the sentence."""
        return words_of(self.input)

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the tags, one per word."""
        return words_of(self.targets[0])


def tag_problem(text: str, target: str, labels: Sequence[str]) -> str:
    """Return what is wrong with a sentence's tags and how to fix it; "" if they are fine."""
    words, tags = words_of(text), words_of(target)
    if len(words) != len(tags):
        return f"{len(words)} words with {len(tags)} tags; write one tag for every word, separated by blanks"
    unknown = dict.fromkeys(tag for tag in tags if tag not in labels)
    if unknown:
        given = ", ".join(map(repr, unknown))
        allowed = ", ".join(labels) or "(none)"
        return f"unknown tag {given}; the labels are {allowed}: correct the tag, or add it to the labels"
    return ""


@dataclass(frozen=True)
class SpanExample(Example):
    """A question whose answer (targets[0]) is a span of a passage, beginning at character `start`."""

    question: str = ""
    passage: str = ""
    start: int = 0


@dataclass(frozen=True)
class Card:
    """The description of a task, known before any of its examples is read.

    group: leakage group; tasks of one group share texts or facts and stay on the same side of every split.
    origin: the module in iptkit.tasks.sources that reads the rows; "" for tasks in JSONL files.
    packages: the packages that hold the data; names in data/packages.json.
    template: the input text with {slots} that the source fills; the choices follow it.
    shots: number of examples per label (cls) or per task, in each of train, train_new and dev.
    shots_per_label: shots of the labels that have fewer than 4 * shots examples.
    shows_choices: whether the choices are written after the text.
    """

    id: str
    title: str
    category: str
    metric: str
    group: str
    source: str
    licence: str
    about: str
    origin: str = ""
    packages: tuple[str, ...] = ()
    template: str = ""
    labels: tuple[str, ...] = ()
    shots: int = SHOTS_PER_TASK
    shots_per_label: dict[str, int] = field(default_factory=dict)
    shows_choices: bool = True

    def __post_init__(self) -> None:
        _check_id(self.id)


@dataclass(frozen=True)
class Task:
    """A task with the few-shot sets of one seed.

    metric: the score reported for the task, one of METRICS_OF[category].
    labels: the labels of a classification or of tags; their order numbers the classes of a head.
    chance: mean of 1/len(options) over the test set; 0.0 for free answers.
    majority: share of the most frequent first target in the test set.
    train, train_new, dev: disjoint sets drawn by the seed; train_new is the paper's "new data" of seen tasks.
    test: the same for every seed, disjoint from the other sets.

    All examples of a classification get their options in the order of `labels` (or of the first example, if
    there are no labels), so a class number means the same label everywhere.
    Raises: ValueError for a metric that does not fit the category.
    """

    id: str
    title: str
    category: str
    metric: str
    group: str
    chance: float
    majority: float
    source: str
    licence: str
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    train_new: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    seed: int

    def __post_init__(self) -> None:
        _check_id(self.id)
        _check_metric(self.metric, self.category, f"task {self.id!r}")
        if self.category == "cls":
            order = self.labels or next((e.options for e in self.train if e.options), ())
            for name in ALL_SETS:
                rows = tuple(_in_order(example, order) for example in getattr(self, name))
                object.__setattr__(self, name, rows)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(getattr(self, name))}" for name in ALL_SETS)
        return f"Task({self.id}: {self.category}, {self.metric}, {sizes})"


def _in_order(example: Example, order: tuple[str, ...]) -> Example:
    """Return the example with its options in this order, if they are the same options."""
    if example.options == order or sorted(example.options) != sorted(order):
        return example
    return replace(example, options=order)


def card_from(fields: dict, where: str) -> Card:
    """Return a card made from the fields of a JSON object, after checking them.

    Args:
      fields: the attributes of Card; id, title, category, source, licence and about are required.
      where: name of the file, for errors.
    Raises: ValueError that names the field and what is allowed.
    """
    if not isinstance(fields, dict):
        raise ValueError(
            f"{where}: a card is {fields!r:.80}, allowed is a JSON object with the card's fields"
        )
    known = Card.__dataclass_fields__
    for name in fields.keys() - known.keys():
        raise ValueError(f"{where}: unknown field {name!r} on a card; allowed are: {', '.join(known)}")
    for name in ("id", "title", "category", "source", "licence", "about"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise ValueError(f"{where}: card {fields.get('id', '?')!r} needs a text in its field {name!r}")
    category = fields["category"]
    _check_id(fields["id"], f"{where}: ")
    if category not in CATEGORIES:
        raise ValueError(f"{where}: category is {category!r}, allowed are: {', '.join(CATEGORIES)}")
    shots = SHOTS_PER_LABEL if category == "cls" else SHOTS_PER_TASK
    values: dict[str, Any] = {
        "metric": DEFAULT_METRIC[category],
        "group": fields["id"],
        "shots": shots,
        **fields,
    }
    for name, (fits, allowed) in KINDS.items():
        if name in values and not fits(values[name]):
            raise ValueError(
                f"{where}: card {fields['id']!r}: {name} is {values[name]!r:.80}, allowed is {allowed}"
            )
    _check_metric(values["metric"], category, where)
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Card(**values)


def _check_metric(metric: str, category: str, where: str) -> None:
    if metric not in METRICS_OF[category]:
        allowed = ", ".join(METRICS_OF[category])
        raise ValueError(f"{where}: metric is {metric!r}, category {category!r} allows: {allowed}")


def _check_id(name: str, where: str = "") -> None:
    """Raise ValueError for an id that cannot be a file name: steps and pools are stored under it."""
    is_long = len(name.encode("utf-8", "surrogatepass")) > LONGEST_ID
    if is_long or not name.isprintable() or re.search(r"[/\\]|^\.|^\s*$", name):
        raise ValueError(
            f"{where}the id {name!r:.80} cannot be a file name: it may have at most {LONGEST_ID} bytes, no "
            "slash, backslash or invisible character, and no dot at its beginning; choose another id"
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


KINDS: dict[str, tuple[Callable[[object], bool], str]] = {  # the optional fields of a card
    "metric": (_is_text, "a text"),
    "group": (_is_text, "a text"),
    "origin": (lambda value: isinstance(value, str), "a text"),
    "template": (lambda value: isinstance(value, str), "a text"),
    "packages": (_are_texts, "a list of different texts"),
    "labels": (_are_texts, "a list of different texts"),
    "shots": (_is_count, "an integer of at least 1"),
    "shots_per_label": (_are_counts, "an object with an integer of at least 1 per label"),
    "shows_choices": (lambda value: isinstance(value, bool), "true or false"),
}
