import doctest
import json
from collections import Counter
from dataclasses import replace

import pytest

from iptkit.storage import paths
from iptkit.tasks import splits, suites

CARDS = {card.id: card for card in suites.list_cards("ipt120")}
STORED = json.loads((paths.data_dir() / "splits" / "ipt120.json").read_text(encoding="utf-8"))
FOLDS, SMALL = (tuple(f"fold{number}{end}" for number in range(1, 7)) for end in ("", "_20"))
PARTS = {"cls": ("cls1", "cls2", "cls3", "cls4", "cls5"), "non_cls": ("non_cls1", "non_cls2", "non_cls3")}
NAMES = (
    *("random", "random20", "random40", "random60", "random80", "cls", "non_cls", "leaky", "no_siblings"),
    *(*FOLDS, *SMALL, *PARTS["cls"], *PARTS["non_cls"]),
)


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


@pytest.mark.parametrize("names", [FOLDS, SMALL, *PARTS.values()])
def test_every_task_is_unseen_once_over_the_splits_of_a_kind(names):
    unseen = [task for name in names for task in suites.split(name, "ipt120").unseen]
    assert sorted(unseen) == sorted(CARDS)


def test_folds_are_100_to_20_with_half_the_share_of_every_category():
    counts = Counter(card.category for card in CARDS.values())
    for name in FOLDS:
        sides = suites.split(name, "ipt120")
        assert (len(sides.seen), len(sides.unseen), sides.left_out) == (100, 20, ())
        unseen = Counter(CARDS[task].category for task in sides.unseen)
        assert all(12 * unseen[category] >= count for category, count in counts.items()), name


def test_a_fold_scores_the_seen_tasks_that_the_next_one_holds_out():
    folds = [suites.split(name, "ipt120") for name in FOLDS]
    for fold, following in zip(folds, folds[1:] + folds[:1], strict=True):
        assert fold.scored == following.unseen and set(fold.scored) < set(fold.seen)
    assert sorted(task for fold in folds for task in fold.scored) == sorted(CARDS)
    assert suites.sides("ipt120", split_name="fold6").scored == folds[0].unseen
    others = (name for name in NAMES if name not in FOLDS)
    assert not any(suites.split(name, "ipt120").scored for name in others)


def test_small_folds_are_nested_in_the_folds():
    for name, small_name in zip(FOLDS, SMALL, strict=True):
        large, small = (suites.split(each, "ipt120") for each in (name, small_name))
        assert len(small.seen) == 20 and set(small.seen) < set(large.seen)
        assert small.unseen == large.unseen and set(small.left_out) == set(large.seen) - set(small.seen)


@pytest.mark.parametrize(("kind", "num_unseen", "num_cls"), [("cls", 24, {8, 9}), ("non_cls", 40, {14, 15})])
def test_parts_are_even_and_one_kind_is_seen(kind, num_unseen, num_cls):
    for name in PARTS[kind]:
        sides = suites.split(name, "ipt120")
        assert len(sides.seen) == 34 and {CARDS[i].category == "cls" for i in sides.seen} == {kind == "cls"}
        assert len(sides.unseen) == num_unseen
        assert sum(CARDS[i].category == "cls" for i in sides.unseen) in num_cls
        assert groups_of(sides.unseen).isdisjoint(groups_of(CARDS.keys() - {*sides.unseen}))


def test_groups_that_make_no_even_parts_are_refused(monkeypatch):
    monkeypatch.setattr(splits, "NUM_FOLDS", 40)
    with pytest.raises(ValueError, match="no 40 even parts of the 77 leakage groups with 120 tasks were"):
        splits.draw([*CARDS.values()])


def test_groups_that_do_not_fit_are_refused():
    cards = [replace(card, group="all") for card in CARDS.values()]
    with pytest.raises(ValueError, match="no whole leakage groups with 20 of 120 tasks were found"):
        splits.draw(cards)


def test_examples_in_docstrings():
    assert doctest.testmod(splits).failed == 0
