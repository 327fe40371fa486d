"""Draws the splits of a suite: which tasks train the subspace (seen) and which are held out (unseen).

The kinds of splits are those of Qin et al. 2021:

- random, here with 100 seen and 20 unseen tasks; every category has at least half of its share on the unseen
  side. Smaller seen sides ("random20" to "random80") are parts of its seen side.
- classification tasks seen and the rest unseen ("cls"), and the other way round ("non_cls").

Every task is unseen once over each of three further kinds of splits:

- "fold1" to "fold6", six folds of 20 unseen tasks and 100 seen ones. A study of all folds scores each task
  once as an unseen one and once as a seen one: the "scored" seen tasks of a fold are unseen in the next.
  "fold1_20" and so on have the same unseen tasks and 20 of the seen ones.
- "cls1" to "cls5", five parts, each with a fifth of the classifications and a fifth of the other tasks. One
  part is unseen; the seen tasks are classifications of the others.
- "non_cls1" to "non_cls3", three parts likewise; the seen tasks are of the other categories.

All of them keep the tasks of a leakage group on one side. Only "leaky" does not; it shows how much a leak
raises the scores. Its counterpart "no_siblings" has the same unseen tasks, with their siblings removed from
the seen side. data/splits/ stores the drawn splits, because another version of Python could draw others. A
test compares the stored splits with newly drawn ones.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

from iptkit.tasks.examples import Card

NUM_UNSEEN = 20
NUM_OF_KIND = 35  # number of seen tasks of "cls" and "non_cls"
NESTED = (20, 40, 60, 80)  # number of seen tasks of "random20" and so on
NUM_FOLDS = 6
NUM_SEEN_OF_FOLD = 20  # of "fold1_20" and so on
NUM_PARTS = {"cls": 5, "non_cls": 3}
NUM_OF_KIND_OF_PART = 34  # number of seen tasks of "cls1" and so on
NUM_PARTITIONS = 200  # the most even one of so many is taken
MAX_DRAWS = 10_000


def draw(cards: Sequence[Card], seed: int = 0) -> dict[str, dict]:
    """Return all splits of a suite by name.

    Args:
      cards: all tasks: at least 101, with at least 43 classification tasks and 51 others.
      seed: seeds all draws.
    Returns: for each name ("random", "random20" ... "random80", "cls", "non_cls", "leaky", "no_siblings",
      "fold1" ... "fold6", "fold1_20" ... "fold6_20", "cls1" ... "cls5", "non_cls1" ... "non_cls3") the ids of
      the tasks on each side, in the order of `cards`: "seen", "unseen", and "left_out" if some are on neither
      side. "leaky" also has "is_leaky", "fold1" to "fold6" have "scored".
    Raises: ValueError if no draw of whole leakage groups has the required sizes.

    >>> from iptkit import tasks
    >>> len(draw(tasks.list_cards("ipt120"))["random40"]["seen"])
    40
    """
    unseen = _whole_groups(cards, NUM_UNSEEN, random.Random(f"random/{seed}"), _has_shares(cards))
    drawn = {"random": _sides(cards, {card.id for card in cards} - unseen, unseen)}
    order = [*drawn["random"]["seen"]]
    random.Random(f"nested/{seed}").shuffle(order)
    for count in NESTED:
        drawn[f"random{count}"] = _sides(cards, set(order[:count]), unseen)
    for name, is_cls in (("cls", True), ("non_cls", False)):
        of_kind = [card for card in cards if (card.category == "cls") == is_cls]
        seen = _whole_groups(of_kind, NUM_OF_KIND, random.Random(f"{name}/{seed}"))
        drawn[name] = _sides(cards, seen, _without_siblings(cards, seen))
    leaky = set(random.Random(f"leaky/{seed}").sample([card.id for card in cards], NUM_UNSEEN))
    seen = {card.id for card in cards} - leaky
    drawn["leaky"] = {**_sides(cards, seen, leaky), "is_leaky": True}
    drawn["no_siblings"] = _sides(cards, _without_siblings(cards, leaky), leaky)
    return {**drawn, **_folds(cards, seed), **_parts_of_kinds(cards, seed)}


def _folds(cards: Sequence[Card], seed: int) -> dict[str, dict]:
    """Return the splits "fold1", "fold2", ... and then those with fewer seen tasks."""
    folds = _even_parts(cards, NUM_FOLDS, random.Random(f"fold/{seed}"), _has_shares(cards, NUM_FOLDS))
    full, small = {}, {}
    for number, (unseen, scored) in enumerate(zip(folds, folds[1:] + folds[:1], strict=True), 1):
        sides = _sides(cards, {card.id for card in cards} - unseen, unseen)
        full[f"fold{number}"] = {**sides, "scored": [card.id for card in cards if card.id in scored]}
        name = f"fold{number}_{NUM_SEEN_OF_FOLD}"
        seen = random.Random(f"{name}/{seed}").sample(sides["seen"], NUM_SEEN_OF_FOLD)
        small[name] = _sides(cards, set(seen), unseen)
    return {**full, **small}


def _parts_of_kinds(cards: Sequence[Card], seed: int) -> dict[str, dict]:
    """Return the splits "cls1", "cls2", ... and "non_cls1", "non_cls2", ..."""
    drawn = {}
    for kind, num_parts in NUM_PARTS.items():
        parts = _even_parts(cards, num_parts, random.Random(f"parts/{kind}/{seed}"))
        for number, unseen in enumerate(parts, 1):
            of_kind = [card.id for card in cards if (card.category == "cls") == (kind == "cls")]
            others = [task for task in of_kind if task not in unseen]
            name = f"{kind}{number}"
            seen = random.Random(f"{name}/{seed}").sample(others, NUM_OF_KIND_OF_PART)
            drawn[name] = _sides(cards, set(seen), unseen)
    return drawn


def _even_parts(
    cards: Sequence[Card],
    num_parts: int,
    rng: random.Random,
    is_good: Callable[[set[str]], bool] = lambda part: True,
) -> list[set[str]]:
    """Return all tasks in parts of equal size, of whole leakage groups, with similar shares of each category.

    In a draw, each group in turn, large ones first, goes to the part that has room for it and the smallest
    shares of its categories. Of the draws in which every part `is_good`, the most even one is taken.
    """
    groups: dict[str, list[Card]] = {}
    for card in cards:
        groups.setdefault(card.group, []).append(card)
    categories = {name: Counter(card.category for card in members) for name, members in groups.items()}
    names, total = list(groups), Counter(card.category for card in cards)
    size = math.ceil(len(cards) / num_parts)
    best: list[set[str]] = []
    least = math.inf
    for _ in range(NUM_PARTITIONS):
        rng.shuffle(names)
        counts: list[Counter[str]] = [Counter() for _ in range(num_parts)]
        parts: list[set[str]] = [set() for _ in range(num_parts)]
        for name in sorted(names, key=lambda name: -len(groups[name])):
            room = [i for i in range(num_parts) if len(parts[i]) + len(groups[name]) <= size]
            if not room:
                break
            index = min(
                room, key=lambda i: sum(n * counts[i][c] / total[c] for c, n in categories[name].items())
            )
            parts[index] |= {card.id for card in groups[name]}
            counts[index] += categories[name]
        else:
            unevenness = sum(n**2 / total[category] for of in counts for category, n in of.items())
            if unevenness < least and all(map(is_good, parts)):
                best, least = parts, unevenness
    if not best:
        raise ValueError(
            f"no {num_parts} even parts of the {len(groups)} leakage groups with {len(cards)} tasks were "
            f"found in {NUM_PARTITIONS} draws; give more tasks or smaller groups"
        )
    return best


def _whole_groups(
    cards: Sequence[Card],
    count: int,
    rng: random.Random,
    is_good: Callable[[set[str]], bool] = lambda chosen: True,
) -> set[str]:
    """Return the tasks of leakage groups that are drawn until they have `count` tasks and `is_good` holds."""
    groups: dict[str, set[str]] = {}
    for card in cards:
        groups.setdefault(card.group, set()).add(card.id)
    names = list(groups)
    for _ in range(MAX_DRAWS):
        rng.shuffle(names)
        chosen: set[str] = set()
        for name in names:
            if len(chosen) + len(groups[name]) <= count:
                chosen |= groups[name]
        if len(chosen) == count and is_good(chosen):
            return chosen
    raise ValueError(
        f"no whole leakage groups with {count} of {len(cards)} tasks were found in {MAX_DRAWS} draws; give "
        "more tasks or smaller groups"
    )


def _has_shares(cards: Sequence[Card], least: int = 1) -> Callable[[set[str]], bool]:
    """Return a test of chosen tasks: does each category have at least half of its share among them?

    Categories with fewer than `least` tasks are not tested.
    """
    of_all = Counter(card.category for card in cards)
    counts = {category: count for category, count in of_all.items() if count >= least}

    def is_good(chosen: set[str]) -> bool:
        of_chosen = Counter(card.category for card in cards if card.id in chosen)
        share = len(chosen) / len(cards) / 2
        return all(of_chosen[category] >= max(1, share * count) for category, count in counts.items())

    return is_good


def _without_siblings(cards: Sequence[Card], side: set[str]) -> set[str]:
    """Return all tasks that share no leakage group with a task of `side`."""
    groups = {card.group for card in cards if card.id in side}
    return {card.id for card in cards if card.group not in groups}


def _sides(cards: Sequence[Card], seen: set[str], unseen: set[str]) -> dict:
    sides = {
        "seen": [card.id for card in cards if card.id in seen],
        "unseen": [card.id for card in cards if card.id in unseen],
    }
    left_out = [card.id for card in cards if card.id not in seen | unseen]
    return {**sides, "left_out": left_out} if left_out else sides
