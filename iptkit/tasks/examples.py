"""What a task is: examples, the task with its few-shot sets, and the card that describes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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
LONGEST_ID = 200  # in bytes; a file's name has at most 255, and steps add to theirs
ALL_SETS = ("train", "train_new", "dev", "test")


def words_of(text: str) -> tuple[str, ...]:
    """What stands between blanks, tabs and line ends; all other characters are part of a word.

    A no-break space, U+2028 or U+0085 inside a word leaves it one word.
    """
    return tuple(re.findall(r"[^ \t\r\n]+", text))


@dataclass(frozen=True)
class Example:
    """One question with its answers.

    input: the whole text before the prompt, without a blank at its end.
    targets: accepted answers, at least one; the first is trained on.
    options: all choices (every target is one of them), or () for a free answer.
    """

    input: str
    targets: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaggedExample(Example):
    """A sentence whose words carry tags: `input` holds the words, targets[0] the tags, with blanks between.

    labels: all tags of the task.
    Raises: ValueError unless there is a tag for every word, and each is one of the labels.
    """

    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problem = tag_problem(self.input, self.targets[0], self.labels)
        if problem:
            raise ValueError(f"{self.input[:60]!r}: {problem}")

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the sentence."""
        return words_of(self.input)

    @property
    def tags(self) -> tuple[str, ...]:
        """One per word."""
        return words_of(self.targets[0])


def tag_problem(text: str, target: str, labels: Sequence[str]) -> str:
    """What is wrong with a sentence's tags, and the way out; "" if they are fine."""
    words, tags = words_of(text), words_of(target)
    if len(words) != len(tags):
        return f"{len(words)} words with {len(tags)} tags; write one tag for every word, blanks between them"
    unknown = dict.fromkeys(tag for tag in tags if tag not in labels)
    if unknown:
        told = ", ".join(map(repr, unknown))
        return (
            f"unknown tag {told}; the labels are {', '.join(labels) or '(none)'}: correct it or add it there"
        )
    return ""


@dataclass(frozen=True)
class SpanExample(Example):
    """A question whose answer (targets[0]) is a stretch of a passage, beginning at character `start`."""

    question: str = ""
    passage: str = ""
    start: int = 0


@dataclass(frozen=True)
class Card:
    """What is known about a task before any of its examples is read.

    group: leakage group; tasks of one group share texts or facts and stay on one side of every split.
    origin: module of iptkit.tasks.sources that reads the rows; "" for tasks in JSONL files.
    packages: names in data/packages.json.
    template: the input text with {slots} that the source fills; choices are appended to it.
    shots: examples per label (cls) or per task, in each of train, train_new and dev.
    shots_per_label: labels with fewer than 4 * shots examples, and the shots that they get.
    shows_choices: the labels of a classification are written into its texts.
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

    metric: one of METRICS_OF[category], the score reported for the task.
    labels: of a classification or of tags, in the order of the class numbers of a head.
    chance: mean of 1/len(options) over the test set; 0.0 for free answers.
    majority: share of the commonest first target in the test set.
    train, train_new, dev: disjoint by input text, drawn by seed; train_new is the "new data of a seen task".
    test: the same for every seed, disjoint from the others.

    The examples of a classification list their options in the order of `labels` (of the first example, where
    there are none), whatever the order they came in: a class number means the same label everywhere.
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


def _in_order(example: Example, order: tuple[str, ...]) -> Example:
    """The example with its options in this order, if they are the same ones."""
    if example.options == order or sorted(example.options) != sorted(order):
        return example
    return replace(example, options=order)


def card_from(fields: dict, where: str) -> Card:
    """Make a card from the fields of a JSON object, checking them.

    Args:
      fields: the attributes of Card; id, title, category, source, licence and about must be there.
      where: name of the file, for errors.
    Raises: ValueError that names the field and what is allowed.
    """
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: a card is one JSON object with its fields, not {fields!r:.80}")
    allowed = Card.__dataclass_fields__
    for name in fields.keys() - allowed.keys():
        raise ValueError(f"{where}: unknown field {name!r} on a card; allowed are: {', '.join(allowed)}")
    for name in ("id", "title", "category", "source", "licence", "about"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise ValueError(f"{where}: card {fields.get('id', '?')!r} needs a text in the field {name!r}")
    category = fields["category"]
    _check_id(fields["id"], f"{where}: ")
    _one_of(category, CATEGORIES, "category", where)
    shots = SHOTS_PER_LABEL if category == "cls" else SHOTS_PER_TASK
    values = {"metric": DEFAULT_METRIC[category], "group": fields["id"], "shots": shots, **fields}
    for name, (fits, allowed) in KINDS.items():
        if name in values and not fits(values[name]):
            raise ValueError(
                f"{where}: card {fields['id']!r}: {name} is {values[name]!r:.80}, allowed is {allowed}"
            )
    _check_metric(values["metric"], category, where)
    return Card(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    )


def _check_metric(metric: str, category: str, where: str) -> None:
    if metric not in METRICS_OF[category]:
        allowed = ", ".join(METRICS_OF[category])
        raise ValueError(f"{where}: metric is {metric!r}, allowed are: {allowed} (category {category!r})")


def _check_id(name: str, where: str = "") -> None:
    """Refuse an id that is no name of a file: steps and pools lie in folders and files named after it."""
    is_long = len(name.encode("utf-8", "surrogatepass")) > LONGEST_ID
    if is_long or not name.isprintable() or re.search(r"[/\\]|^\.|^\s*$", name):
        raise ValueError(
            f"{where}the id {name!r:.80} is no name for a file: at most {LONGEST_ID} bytes, no slash, "
            "backslash or invisible character, no dot at its beginning; give the task another id"
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


KINDS = {  # of the fields that a card may have beside those it must have
    "metric": (_is_text, "a text"),
    "group": (_is_text, "a text"),
    "origin": (lambda value: isinstance(value, str), "a text"),
    "template": (lambda value: isinstance(value, str), "a text"),
    "packages": (_are_texts, "a list of texts, each once"),
    "labels": (_are_texts, "a list of texts, each once"),
    "shots": (_is_count, "an integer from 1 on"),
    "shots_per_label": (_are_counts, "an object with an integer from 1 on for labels"),
    "shows_choices": (lambda value: isinstance(value, bool), "true or false"),
}


def _one_of(value: str, allowed: tuple[str, ...], name: str, where: str) -> None:
    if value not in allowed:
        raise ValueError(f"{where}: {name} is {value!r}, allowed are: {', '.join(allowed)}")
