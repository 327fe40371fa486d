"""From many examples to few: the fixed test set, the pool, and the few-shot sets of a seed.

The rule follows CrossFit (Ye et al. 2021, section 3), which IPT's tasks come from: 16 examples per label for
classification and 32 per task otherwise, for training and again for development. IPT needs a second training
set ("new data of seen tasks"), so three disjoint sets are drawn. A label with fewer than 64 examples gives a
quarter of them to each set.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from iptkit.storage import messages
from iptkit.tasks import schemes
from iptkit.tasks.examples import Card, Example, TaggedExample, Task

TEST_SIZE, POOL_SIZE = 256, 2048
SETS = ("train", "train_new", "dev")
MIN_NEW_EXAMPLES = 4  # in each set that `leave_out` cuts: fewer would train and choose on next to nothing


@dataclass(frozen=True)
class Pool:
    """All usable examples of a task: what few-shot sets are drawn from, and the fixed test set.

    shots: examples per label and set; the only key is "" unless the task is a classification.
    """

    rows: Sequence[Example]
    test: Sequence[Example]
    shots: dict[str, int]


def text_key(text: str) -> str:
    """Return what must differ for two texts to count as different: letters without case, single blanks."""
    return " ".join(text.casefold().split())


def merge(examples: Iterable[Example], key: Callable[[str], str] = text_key) -> list[Example]:
    """Put examples with the same input text together, that is, with equal keys.

    Free answers are united, in order. Examples with options must agree on the first target, else all
    of them are dropped.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(key(example.input), []).append(example)
    merged = []
    for group in groups.values():
        first = group[0]
        if first.options and len({example.targets[0] for example in group}) > 1:
            continue
        targets = dict.fromkeys(target for example in group for target in example.targets)
        merged.append(Example(first.input, tuple(targets), first.options) if len(group) > 1 else first)
    return merged


def make_pool(
    examples: Iterable[Example],
    card: Card,
    test: Iterable[Example] | None = None,
    key: Callable[[str], str] = text_key,
) -> Pool:
    """Split the examples of a task into its pool and its test set (the same for all seeds).

    The test set has up to 256 examples, as evenly over labels as the counts allow; at least half of a label's
    examples, and three few-shot sets, stay in the pool. Where the data set has a test set of its own, 256
    examples of it are drawn whatever their labels, none with an input of the pool.

    Args:
      test: the data set's own test set, None: held out of `examples`.
      key: of an input; examples with equal keys are put together (see `merge`).
    Raises: ValueError if a label, or the task, has fewer than 4 examples (3 with `test`), or `test` has none.
    """
    by_label = _by_label(merge(examples, key), card)
    parts = (*SETS, "test") if test is None else SETS
    shots = {label: min(card.shots, len(rows) // len(parts)) for label, rows in by_label.items()}
    for label, count in shots.items():
        if count == 0:
            of_label = f" of label {label!r}" if label else ""
            raise ValueError(
                f"task {card.id!r} has {len(by_label[label])} examples{of_label}; at least {len(parts)} are "
                f"needed: one each for {', '.join(parts[:-1])} and {parts[-1]}; add examples or leave out "
                "the label"
            )
    rng = random.Random(f"{card.id}/test/0")
    for rows in by_label.values():
        rng.shuffle(rows)
    if test is not None:
        return _pool_beside(by_label, shots, merge(test), card, rng)
    sizes = {label: len(rows) for label, rows in by_label.items()}
    num_test = _even(TEST_SIZE, {label: n - max(3 * shots[label], n // 2) for label, n in sizes.items()})
    num_pool = _even(POOL_SIZE, {label: sizes[label] - num_test[label] for label in sizes})
    test = [rows[: num_test[label]] for label, rows in by_label.items()]
    pool = [rows[num_test[label] : num_test[label] + num_pool[label]] for label, rows in by_label.items()]
    return Pool(_interleave(pool), _interleave(test), shots)


def _pool_beside(
    by_label: dict[str, list[Example]],
    shots: dict[str, int],
    test: list[Example],
    card: Card,
    rng: random.Random,
) -> Pool:
    """The pool of a task whose test set is given; it holds three few-shot sets of every label."""
    size = max(POOL_SIZE, len(SETS) * max(shots.values()) * len(shots))
    num_pool = _even(size, {label: len(rows) for label, rows in by_label.items()})
    pool = _interleave([rows[: num_pool[label]] for label, rows in by_label.items()])
    known = {text_key(example.input) for example in pool}
    new = [example for example in test if text_key(example.input) not in known]
    if not new:
        raise ValueError(f"task {card.id!r}: the test set has no example that is not in the training set too")
    _by_label(new, card)  # checks the labels
    return Pool(pool, rng.sample(new, min(len(new), TEST_SIZE)), shots)


def sample(pool: Pool, card: Card, seed: int) -> dict[str, tuple[Example, ...]]:
    """Draw the few-shot sets of a seed.

    Returns: train, train_new and dev; disjoint, labels in turn.
    """
    rng = random.Random(f"{card.id}/{seed}")
    by_label = _by_label(pool.rows, card)
    drawn = {label: rng.sample(rows, 3 * pool.shots[label]) for label, rows in by_label.items()}
    return {
        name: tuple(
            _interleave([rows[i * len(rows) // 3 : (i + 1) * len(rows) // 3] for rows in drawn.values()])
        )
        for i, name in enumerate(SETS)
    }


def make_task(card: Card, seed: int, sets: dict[str, tuple[Example, ...]]) -> Task:
    """Put a card and the four sets of a seed together.

    Args:
      sets: train, train_new, dev, test.
    Raises: ValueError if train, dev or test has no example, if the card asks for span F1 and has labels that
      are no IOB2 tags, or if a sentence has another number of tags than of words or a tag that is none of the
      labels.
    Warns: UserWarning if a training set holds one label only where the task has several.
    """
    empty = [name for name in ("train", "dev", "test") if not sets[name]]
    if empty:
        raise ValueError(
            f"task {card.id!r} ({card.source}) has no example in {' and '.join(empty)}; add some"
        )
    if card.category == "tag":
        odd = [label for label in card.labels if not schemes.is_iob2(label)]
        if card.metric == "span_f1" and odd:
            raise ValueError(
                f"task {card.id!r}: {', '.join(messages.first(odd))} name no spans in IOB2 (B-x, I-x and O), "
                'which span_f1 scores; score with the metric "tag_accuracy", or read the tags with their '
                "scheme (conll.read_conll converts it)"
            )
        sets = {name: tuple(map(partial(_tagged, labels=card.labels), rows)) for name, rows in sets.items()}
    for name in SETS[:2]:
        _warn_of_one_label(f"task {card.id}, seed {seed}: {name}", sets[name])
    test = sets["test"]
    chance = sum(1 / len(example.options) for example in test if example.options) / len(test)
    majority = Counter(example.targets[0] for example in test).most_common(1)[0][1] / len(test)
    shared = ("id", "title", "category", "metric", "group", "source", "licence", "labels")
    return Task(
        **{name: getattr(card, name) for name in shared}, chance=chance, majority=majority, seed=seed, **sets
    )


def leave_out(task: Task, known: Task, dev_examples: int = 0) -> Task:
    """Return `task` without what `known`, the same task of another seed, was trained on.

    Sets of one seed are disjoint already; those of another seed are drawn from the same pool. What is left
    out of train_new and dev is the train of `known`; out of train_new also the first `dev_examples` of its
    dev, by which its training was selected.
    Raises: ValueError if fewer than MIN_NEW_EXAMPLES are left of a set.
    """
    if task.seed == known.seed:
        return task
    used = {"dev": {e.input for e in known.train}}
    used["train_new"] = used["dev"] | {e.input for e in known.dev[:dev_examples]}
    kept = {name: tuple(e for e in getattr(task, name) if e.input not in out) for name, out in used.items()}
    for name, examples in kept.items():
        if len(examples) < MIN_NEW_EXAMPLES:
            raise ValueError(
                f"task {task.id}, seed {task.seed}: only {len(examples)} of {len(getattr(task, name))} "
                f"examples of {name} are new beside seed {known.seed}, at least {MIN_NEW_EXAMPLES} "
                "are needed; give the task more examples or use fewer seeds"
            )
    return replace(task, **kept)


def _warn_of_one_label(name: str, examples: Sequence[Example]) -> None:
    """Warn of a set in which every answer is the same label of several."""
    choices = {frozenset(e.labels if isinstance(e, TaggedExample) else e.options) for e in examples}
    seen = {part for e in examples for part in (e.tags if isinstance(e, TaggedExample) else e.targets[:1])}
    if len(examples) > 1 and len(choices) == len(seen) == 1 and len(known := choices.pop()) > 1:
        (label,) = seen
        others = ", ".join(map(repr, sorted(known - seen)))
        warnings.warn(
            f"{name} holds {len(examples)} example(s), all with the label {label!r}: nothing but that answer "
            f"can be learnt from them; add examples of {others}",
            stacklevel=3,
        )


def _tagged(example: Example, labels: tuple[str, ...]) -> TaggedExample:
    return TaggedExample(example.input, example.targets[:1], (), labels)


def _by_label(examples: Sequence[Example], card: Card) -> dict[str, list[Example]]:
    if not examples:
        raise ValueError(f"task {card.id!r} has no usable examples; at least 4 are needed")
    if card.category != "cls":
        return {"": list(examples)}
    by_label: dict[str, list[Example]] = {label: [] for label in card.labels}
    for example in examples:
        if example.targets[0] not in by_label:
            raise ValueError(
                f"task {card.id!r}: label {example.targets[0]!r} is not one of {', '.join(card.labels)}"
            )
        by_label[example.targets[0]].append(example)
    return by_label


def _even(total: int, limits: dict[str, int]) -> dict[str, int]:
    """Share `total` out as evenly as the limits allow, the smallest limits first."""
    shares, left = {}, total
    for place, label in enumerate(sorted(limits, key=lambda label: limits[label])):
        shares[label] = min(limits[label], left // (len(limits) - place))
        left -= shares[label]
    return shares


def _interleave(lists: list[list]) -> list:
    """Take from the lists in turn, so that every beginning of the result holds all of them about equally."""
    longest = max(map(len, lists))
    return [items[place] for place in range(longest) for items in lists if place < len(items)]
