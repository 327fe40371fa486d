"""Draws the splits of a suite: which tasks train the subspace (seen) and which are held out (unseen).

The kinds of splits are those of Qin et al. 2021:

- random, here with 100 seen and 20 unseen tasks; every category has at least half of its share on the unseen
  side. Smaller seen sides ("random20" to "random80") are parts of its seen side.
- classification tasks seen and the rest unseen ("cls"), and the other way round ("non_cls").

All of them keep the tasks of a leakage group on one side. Only "leaky" does not; it shows how much a leak
raises the scores. Its counterpart "no_siblings" has the same unseen tasks, with their siblings removed from
the seen side. data/splits/ stores the drawn splits, because another version of Python could draw others. A
test compares the stored splits with newly drawn ones.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from iptkit.tasks.examples import Card

NUM_UNSEEN = 20
NUM_OF_KIND = 35  # number of seen tasks of "cls" and "non_cls"
NESTED = (20, 40, 60, 80)  # number of seen tasks of "random20" and so on
MAX_DRAWS = 10_000


def draw(cards: Sequence[Card], seed: int = 0) -> dict[str, dict]:
    """Return all splits of a suite by name.

    Args:
      cards: all tasks: at least 101, with at least 36 classification tasks and 36 others.
      seed: seeds all draws.
    Returns: for each name ("random", "random20" ... "random80", "cls", "non_cls", "leaky", "no_siblings") the
      ids of the tasks on each side, in the order of `cards`: "seen", "unseen", and "left_out" if some are on
      neither side. "leaky" also has "is_leaky".
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
    return drawn


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


def _has_shares(cards: Sequence[Card]) -> Callable[[set[str]], bool]:
    """Return a test of chosen tasks: does each category have at least half of its share among them?"""
    counts = Counter(card.category for card in cards)

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
