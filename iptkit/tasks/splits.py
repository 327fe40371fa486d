"""Drawing the splits of a suite: which tasks train the subspace and which are held out.

The shapes are those of Qin et al. 2021: random (here 100 seen, 20 unseen), classification seen and the rest
unseen, and the other way round; and for their study of the number of seen tasks, parts of the random split's
seen side. Of that split each category gets at least half of its share unseen. All draws keep leakage groups
on one side, but for "leaky", which shows what it is worth when siblings cross, beside "no_siblings": the same
unseen tasks, their siblings left out of the seen ones. What was drawn lies in data/splits/, so that it stays
the same when a Python draws otherwise; a test compares the two.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from iptkit.tasks.examples import Card

NUM_UNSEEN = 20
NUM_OF_KIND = 35  # seen tasks of "cls" and "non_cls"
NESTED = (20, 40, 60, 80)  # seen tasks of "random20" and so on
MAX_DRAWS = 10_000


def draw(cards: Sequence[Card], seed: int = 0) -> dict[str, dict]:
    """Draw all splits of a suite.

    Args:
      cards: all tasks, at least 101 of them, and at least 36 of classification and of the rest.
      seed: of all draws.
    Returns: by name ("random", "random20" ... "random80", "cls", "non_cls", "leaky", "no_siblings") ids of
      the sides, each in the order of `cards`: seen, unseen, and where tasks are on neither side left_out;
      is_leaky.
    Raises: ValueError if no draw of whole groups has the sizes wanted.

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
    """Draw leakage groups, those that still fit, until they have `count` tasks; again until `is_good`."""
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
        f"{MAX_DRAWS} draws gave no {count} of {len(cards)} tasks in whole leakage groups; "
        "give more tasks or smaller groups"
    )


def _has_shares(cards: Sequence[Card]) -> Callable[[set[str]], bool]:
    """Tell of chosen tasks whether each category has at least half of its share among them."""
    counts = Counter(card.category for card in cards)

    def is_good(chosen: set[str]) -> bool:
        of_chosen = Counter(card.category for card in cards if card.id in chosen)
        share = len(chosen) / len(cards) / 2
        return all(of_chosen[category] >= max(1, share * count) for category, count in counts.items())

    return is_good


def _without_siblings(cards: Sequence[Card], side: set[str]) -> set[str]:
    """All tasks that are neither in `side` nor related to one of it."""
    groups = {card.group for card in cards if card.id in side}
    return {card.id for card in cards if card.group not in groups}


def _sides(cards: Sequence[Card], seen: set[str], unseen: set[str]) -> dict:
    sides = {
        "seen": [card.id for card in cards if card.id in seen],
        "unseen": [card.id for card in cards if card.id in unseen],
    }
    left_out = [card.id for card in cards if card.id not in seen | unseen]
    return {**sides, "left_out": left_out} if left_out else sides
