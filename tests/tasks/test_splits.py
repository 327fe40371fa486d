import doctest
import json
from collections import Counter
from dataclasses import replace

import pytest

from iptkit.storage import paths
from iptkit.tasks import splits, suites

CARDS = {card.id: card for card in suites.list_cards("ipt120")}
STORED = json.loads((paths.data_dir() / "splits" / "ipt120.json").read_text(encoding="utf-8"))
NAMES = ("random", "random20", "random40", "random60", "random80", "cls", "non_cls", "leaky", "no_siblings")


def groups_of(ids):
    return {CARDS[task].group for task in ids}


def test_newly_drawn_splits_equal_the_stored_ones():
    assert splits.draw(suites.list_cards("ipt120")) == STORED and tuple(STORED) == NAMES
    assert splits.draw(suites.list_cards("ipt120"), seed=1) != STORED


@pytest.mark.parametrize("name", NAMES)
def test_every_task_is_on_one_side_and_only_leaky_leaks(name):
    sides = suites.split(name, "ipt120")
    places = Counter((*sides.seen, *sides.unseen, *sides.left_out))
    assert places == Counter(list(CARDS))
    crossing = groups_of(sides.seen) & groups_of(sides.unseen)
    assert sides.is_leaky == bool(crossing) == (name == "leaky")


def test_random_is_100_to_20_with_every_category_on_both_sides():
    for name in ("random", "leaky"):
        sides = suites.split(name, "ipt120")
        assert (len(sides.seen), len(sides.unseen), sides.left_out) == (100, 20, ())
    sides = suites.split("random", "ipt120")
    counts = Counter(card.category for card in CARDS.values())
    unseen = Counter(CARDS[task].category for task in sides.unseen)
    assert all(12 * unseen[category] >= count for category, count in counts.items())
    assert {CARDS[task].category for task in sides.seen} == counts.keys()


def test_smaller_seen_sides_are_nested():
    sides = [suites.split(name, "ipt120") for name in NAMES[1:5] + NAMES[:1]]
    assert [len(each.seen) for each in sides] == [20, 40, 60, 80, 100]
    for small, large in zip(sides, sides[1:], strict=False):
        assert set(small.seen) < set(large.seen) and small.unseen == large.unseen


def test_one_kind_is_seen_and_siblings_of_the_other_kind_are_left_out():
    for name, is_cls in (("cls", True), ("non_cls", False)):
        sides = suites.split(name, "ipt120")
        assert len(sides.seen) == 35 and all((CARDS[i].category == "cls") == is_cls for i in sides.seen)
        assert {CARDS[i].category == "cls" for i in sides.unseen} == {True, False}
        assert all(CARDS[i].group in groups_of(sides.seen) for i in sides.left_out)
        assert all((CARDS[i].category == "cls") != is_cls for i in sides.left_out)
    assert sum(CARDS[i].category == "cls" for i in suites.split("cls", "ipt120").unseen) == 8


def test_no_siblings_has_the_unseen_tasks_of_leaky():
    leaky, clean = (suites.split(name, "ipt120") for name in ("leaky", "no_siblings"))
    assert clean.unseen == leaky.unseen and set(clean.seen) < set(leaky.seen)
    assert all(CARDS[task].group in groups_of(leaky.unseen) for task in clean.left_out)
    assert set(clean.left_out) == set(leaky.seen) - set(clean.seen) != set()


def test_groups_that_do_not_fit_are_refused():
    cards = [replace(card, group="all") for card in CARDS.values()]
    with pytest.raises(ValueError, match="no whole leakage groups with 20 of 120 tasks were found"):
        splits.draw(cards)


def test_examples_in_docstrings():
    assert doctest.testmod(splits).failed == 0
