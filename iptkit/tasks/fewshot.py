"""From many examples to few: a task's fixed test set, its pool, and the few-shot sets drawn by a seed.

The rule follows CrossFit (Ye et al. 2021, section 3), the source of IPT's tasks: 16 examples per label for
classification, 32 per task otherwise, for training and again for development. IPT also needs a second
training set (the "new data" of seen tasks), so three disjoint sets are drawn. A label with fewer than 64
examples gives a quarter of them to each set.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from iptkit.storage import messages
from iptkit.tasks import schemes
from iptkit.tasks.examples import Card, Example, TaggedExample, Task

TEST_SIZE, POOL_SIZE = 256, 2048
SETS = ("train", "train_new", "dev")
MIN_NEW_EXAMPLES = 4  # of new data: fewer are next to none


@dataclass(frozen=True)
class Pool:
    """All usable examples of a task: `rows` to draw few-shot sets from, and the fixed `test` set.

    Attributes:
      shots: examples per label in each few-shot set; the only key is "" unless the task is a classification.
        A label with 0 has at most three examples, which go to train first, then to dev.
      dev: the task's own dev set; None draws it from `rows`.
      is_own: `rows` are the task's own training set, and train gets all of it if it is small.
    """

    rows: Sequence[Example]
    test: Sequence[Example]
    shots: dict[str, int]
    dev: Sequence[Example] | None = None
    is_own: bool = False


def text_key(text: str) -> str:
    """Return the text without case and repeated blanks: texts with equal keys count as the same."""
    return " ".join(text.casefold().split())


def merge(examples: Iterable[Example], key: Callable[[str], str] = text_key) -> list[Example]:
    """Return the examples with those of equal key merged into one.

    The answers of merged examples are joined, in order. If examples with options disagree on the first
    target, all of them are dropped.
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
    allow_few: bool = False,
) -> Pool:
    """Split the examples of a task into its pool and its test set, which is the same for all seeds.

    The test set has up to 256 examples, spread over the labels as evenly as their counts allow. At least half
    of a label's examples, and enough for three few-shot sets, stay in the pool. If the data set has its own
    test set, 256 examples of it are drawn regardless of their labels, none with an input of the pool.

    Args:
      examples: all examples, or the training examples if `test` is given.
      card: the task's card.
      test: the data set's own test set; None holds one out of `examples`.
      key: maps an input to its key; examples with equal keys are merged (see `merge`).
      allow_few: a label with fewer than 4 examples leaves some sets without it, if another label, or the
        task, has 3.
    Raises: ValueError if a label, or the task, has fewer than 4 examples (3 with `test`), or `test` has none.
    Warns: UserWarning of the labels with fewer than 4 examples, if they are allowed.
    """
    by_label = _by_label(merge(examples, key), card)
    parts: tuple[str, ...] = (*SETS, "test") if test is None else SETS
    shots = {label: min(card.shots, len(rows) // len(parts)) for label, rows in by_label.items()}
    if allow_few and (few := [label for label, count in shots.items() if not count]):
        if max(map(len, by_label.values())) >= 3:
            _warn_of_few(card, {label: len(by_label[label]) for label in few})
            parts = ()
    for label, count in shots.items() if parts else ():
        if count == 0:
            count = len(by_label[label])
            have = f"{count} example{'s' * (count != 1)}{f' of label {label!r}' if label else ''}"
            way = "add examples, or leave out the label" if label else "add examples"
            raise ValueError(
                f"task {card.id!r} has {have}, but needs at least {len(parts)}: one each for "
                f"{', '.join(parts[:-1])} and {parts[-1]}; {way}"
            )
    rng = random.Random(f"{card.id}/test/0")
    for rows in by_label.values():
        rng.shuffle(rows)
    if test is not None:
        return _pool_with_test(by_label, shots, merge(test), card, rng)
    sizes = {label: len(rows) for label, rows in by_label.items()}
    to_keep = {label: max(3 * shots[label], n // 2) for label, n in sizes.items()}
    to_keep |= {label: (0, 1, 1, 2)[sizes[label]] for label, count in shots.items() if not count}
    num_test = _even(TEST_SIZE, {label: n - to_keep[label] for label, n in sizes.items()})
    num_pool = _even(POOL_SIZE, {label: sizes[label] - num_test[label] for label in sizes})
    held_out = [rows[: num_test[label]] for label, rows in by_label.items()]
    pool = [rows[num_test[label] : num_test[label] + num_pool[label]] for label, rows in by_label.items()]
    return Pool(_interleave(pool), _interleave(held_out), shots)


def own_pool(
    card: Card, train: Iterable[Example], test: Iterable[Example], dev: Iterable[Example] | None = None
) -> Pool:
    """Return the pool of a task that has its own sets, each in an order that does not depend on the seed.

    Args:
      card: the task's card.
      train: its training set; few-shot sets are drawn from it only.
      test: its test set, kept whole.
      dev: its dev set, kept whole; None draws it from `train`.
    Raises: ValueError if a set has none, or a label is not one of the card's.
    """
    rng = random.Random(f"{card.id}/own/0")
    rows = {"train": [*train], "test": [*test], **({} if dev is None else {"dev": [*dev]})}
    if empty := [name for name, of in rows.items() if not of]:
        raise ValueError(f"task {card.id!r} has no example in {' and '.join(empty)}; add some")
    by_label = {name: _by_label(of, card) for name, of in rows.items()}
    for of in by_label.values():
        for examples in of.values():
            rng.shuffle(examples)
    rng.shuffle(rows["test"])
    parts = 2 if dev is None else 1
    shots = {label: min(card.shots, len(of) // parts) for label, of in by_label["train"].items()}
    own_dev = None if dev is None else _interleave([*by_label["dev"].values()])
    return Pool(_interleave([*by_label["train"].values()]), rows["test"], shots, own_dev, is_own=True)


def _pool_with_test(
    by_label: dict[str, list[Example]],
    shots: dict[str, int],
    test: list[Example],
    card: Card,
    rng: random.Random,
) -> Pool:
    """Return the pool of a task with its own test set; it has room for three few-shot sets of every label."""
    size = max(POOL_SIZE, len(SETS) * max(shots.values()) * len(shots))
    num_pool = _even(size, {label: len(rows) for label, rows in by_label.items()})
    pool = _interleave([rows[: num_pool[label]] for label, rows in by_label.items()])
    known = {text_key(example.input) for example in pool}
    new = [example for example in test if text_key(example.input) not in known]
    if not new:
        raise ValueError(f"task {card.id!r}: all examples of the test set are in the training set, too")
    _by_label(new, card)  # checks the labels
    return Pool(pool, rng.sample(new, min(len(new), TEST_SIZE)), shots)


def sample(pool: Pool, card: Card, seed: int) -> dict[str, tuple[Example, ...]]:
    """Return the few-shot sets of a seed: train, train_new and dev, disjoint, with the labels in turn.

    From a training set of the task's own, train gets as many examples as the card says, or all if there are
    fewer; dev is the task's own, or gets as many; train_new gets what is left, up to as many. train_new is
    empty if less than MIN_NEW_EXAMPLES, or none of some label, are left.
    """
    rng = random.Random(f"{card.id}/{seed}")
    by_label = _by_label(pool.rows, card)
    if pool.is_own:
        return _own_sample(pool, by_label, rng)
    sets: dict[str, list[list[Example]]] = {name: [] for name in SETS}
    for label, rows in by_label.items():
        if count := pool.shots[label]:
            drawn = rng.sample(rows, 3 * count)
            pieces = drawn[:count], drawn[count : 2 * count], drawn[2 * count :]
        else:
            pieces = rows[:1], [], rows[1:2]
        for name, piece in zip(SETS, pieces, strict=True):
            sets[name].append(piece)
    return {name: tuple(_interleave(pieces)) for name, pieces in sets.items()}


def _own_sample(
    pool: Pool, by_label: dict[str, list[Example]], rng: random.Random
) -> dict[str, tuple[Example, ...]]:
    sets: dict[str, list[list[Example]]] = {name: [] for name in SETS}
    for label, rows in by_label.items():
        count = max(1, pool.shots[label])
        drawn = rng.sample(rows, len(rows))
        end = count if pool.dev is not None else 2 * count
        sets["train"].append(drawn[:count])
        sets["dev"].append(drawn[count:end])
        sets["train_new"].append(drawn[end : end + count])
    new = sets["train_new"]
    lacks_label = any(piece and not rest for piece, rest in zip(sets["train"], new, strict=True))
    if lacks_label or sum(map(len, new)) < MIN_NEW_EXAMPLES:
        sets["train_new"] = [[]]
    made = {name: tuple(_interleave(pieces)) for name, pieces in sets.items()}
    return made if pool.dev is None else {**made, "dev": tuple(pool.dev)}


def make_task(
    card: Card,
    seed: int,
    *,
    train: Iterable[Example],
    train_new: Iterable[Example],
    dev: Iterable[Example],
    test: Iterable[Example],
) -> Task:
    """Return the task of a card with the four sets of a seed.

    Raises: ValueError if train, dev or test is empty, if the card's metric is span F1 and its labels are not
      IOB2 tags, or if a sentence has not one tag per word, or a tag that is not one of the labels.
    Warns: UserWarning if all examples of a training set have the same one of several labels.
    """
    train, train_new, dev, test = map(tuple, (train, train_new, dev, test))
    empty = [name for name, rows in (("train", train), ("dev", dev), ("test", test)) if not rows]
    if empty:
        raise ValueError(
            f"task {card.id!r} ({card.source}) has no example in {' and '.join(empty)}; add some"
        )
    if card.category == "tag":
        odd = [label for label in card.labels if not schemes.is_iob2(label)]
        if card.metric == "span_f1" and odd:
            raise ValueError(
                f"task {card.id!r}: {', '.join(messages.first(odd))} are not IOB2 tags (B-x, I-x and O), "
                'which span_f1 needs; score with the metric "tag_accuracy", or read the tags with their '
                "scheme (tasks.read_conll converts it)"
            )
        train, train_new, dev, test = (
            tuple(_tagged(example, card.labels) for example in rows) for rows in (train, train_new, dev, test)
        )
    for name, rows in (("train", train), ("train_new", train_new)):
        _warn_of_one_label(f"task {card.id}, seed {seed}: {name}", rows)
    chance = sum(1 / len(example.options) for example in test if example.options) / len(test)
    majority = Counter(example.targets[0] for example in test).most_common(1)[0][1] / len(test)
    return Task(
        id=card.id,
        title=card.title,
        category=card.category,
        metric=card.metric,
        group=card.group,
        chance=chance,
        majority=majority,
        source=card.source,
        licence=card.licence,
        labels=card.labels,
        train=train,
        train_new=train_new,
        dev=dev,
        test=test,
        seed=seed,
    )


def leave_out(task: Task, known: Task, dev_examples: int = 0) -> Task:
    """Return `task` without the examples that training on `known`, the same task of another seed, has used.

    The sets of one seed are disjoint, but those of another seed come from the same pool. The training set of
    `known` is removed from train_new and dev. The first `dev_examples` of its dev set, which selected the
    trained prompt, are removed from train_new.
    Raises: ValueError if no example remains in a set.
    Warns: UserWarning if fewer than MIN_NEW_EXAMPLES remain.
    """
    if not task.train_new:
        raise ValueError(
            f"task {task.id} has no train_new, on which a study tunes codes: its training set has too few "
            f"examples beside the {len(task.train)} of train. Add {MIN_NEW_EXAMPLES} or more to it, with "
            "every label; or put all examples into one file, from which all sets are drawn"
        )
    if task.seed == known.seed:
        return task
    trained = {e.input for e in known.train}
    selected = {e.input for e in known.dev[:dev_examples]}
    dev = tuple(e for e in task.dev if e.input not in trained)
    train_new = tuple(e for e in task.train_new if e.input not in trained | selected)
    for name, kept, rows in (("dev", dev, task.dev), ("train_new", train_new, task.train_new)):
        told = (
            f"task {task.id}, seed {task.seed}: only {len(kept)} of {len(rows)} examples of {name} were not "
            f"used with seed {known.seed}"
        )
        way = "give the task more examples, or use fewer seeds"
        if not kept:
            raise ValueError(f"{told}, but at least 1 is needed; {way}")
        if len(kept) < MIN_NEW_EXAMPLES:
            messages.warn(f"{told}, so its scores are uncertain; {way}")
    return replace(task, dev=dev, train_new=train_new)


def _warn_of_few(card: Card, counts: dict[str, int]) -> None:
    """Warn of labels with fewer examples than sets."""
    have = ", ".join(f"{label!r} has {n}" if label else f"there are {n}" for label, n in counts.items())
    messages.warn(
        f"task {card.id}: {have} example(s), so some sets lack them; 4 give one to each of the sets train, "
        "train_new, dev and test"
    )


def _warn_of_one_label(name: str, examples: Sequence[Example]) -> None:
    """Warn if every answer of a set is the same one of several labels."""
    choices = {frozenset(e.labels if isinstance(e, TaggedExample) else e.options) for e in examples}
    seen = {part for e in examples for part in (e.tags if isinstance(e, TaggedExample) else e.targets[:1])}
    if len(examples) > 1 and len(choices) == len(seen) == 1 and len(known := choices.pop()) > 1:
        (label,) = seen
        others = ", ".join(map(repr, sorted(known - seen)))
        messages.warn(
            f"{name} has {len(examples)} example(s), all with the label {label!r}, so a prompt learns only "
            f"that answer; add examples of {others}"
        )


def _tagged(example: Example, labels: tuple[str, ...]) -> TaggedExample:
    return TaggedExample(example.input, example.targets[:1], (), labels)


def _by_label(examples: Sequence[Example], card: Card) -> dict[str, list[Example]]:
    if not examples:
        raise ValueError(f"task {card.id!r} has no usable examples, but needs at least 4; add some")
    if card.category != "cls":
        return {"": list(examples)}
    by_label: dict[str, list[Example]] = {label: [] for label in card.labels}
    for example in examples:
        if example.targets[0] not in by_label:
            raise ValueError(
                f"task {card.id!r}: {example.targets[0]!r} is not one of the labels: {', '.join(card.labels)}"
            )
        by_label[example.targets[0]].append(example)
    return by_label


def _even(total: int, limits: dict[str, int]) -> dict[str, int]:
    """Return shares of `total`, as equal as the limits allow; the smallest limits are filled first."""
    shares, left = {}, total
    for place, label in enumerate(sorted(limits, key=lambda label: limits[label])):
        shares[label] = min(limits[label], left // (len(limits) - place))
        left -= shares[label]
    return shares


def _interleave(lists: list[list]) -> list:
    """Return the items of the lists in turn, so that every prefix of the result is balanced."""
    longest = max(map(len, lists))
    return [items[place] for place in range(longest) for items in lists if place < len(items)]
