from collections import Counter

import pytest

from iptkit.tasks import fewshot
from iptkit.tasks.examples import Card, Example


def card_of(category, shots=4, labels=(), **fields):
    about = dict(
        id="made", title="Made", metric="accuracy", group="made", source="here", licence="none", about="x"
    )
    return Card(**{**about, **fields}, category=category, shots=shots, labels=tuple(labels))


def labelled(counts):
    options = tuple(counts)
    return [Example(f"{label} {i}", (label,), options) for label, n in counts.items() for i in range(n)]


def test_pool_shares_are_as_even_as_the_counts_allow():
    pool = fewshot.make_pool(labelled({"a": 400, "b": 100, "c": 10}), card_of("cls", 16, "abc"))
    assert pool.shots == {"a": 16, "b": 16, "c": 2}
    assert Counter(row.targets[0] for row in pool.test) == {"a": 200, "b": 50, "c": 4}
    assert Counter(row.targets[0] for row in pool.rows) == {"a": 200, "b": 50, "c": 6}
    assert len(pool.test) == 254 and [row.targets[0] for row in pool.test[:6]] == list("abcabc")


def test_large_tasks_are_capped():
    pool = fewshot.make_pool([Example(f"q {i}", ("a",)) for i in range(5000)], card_of("qa"))
    assert (len(pool.rows), len(pool.test)) == (fewshot.POOL_SIZE, fewshot.TEST_SIZE)


def test_same_inputs_are_merged():
    merged = fewshot.merge(
        [
            Example("Big?", ("large", "great")),
            Example("big?", ("huge", "large")),
            Example("x", ("a",), ("a", "b")),
            Example("X ", ("b",), ("a", "b")),
            Example("y", ("a",), ("a", "b")),
            Example("y", ("a",), ("a", "b")),
        ]
    )
    assert merged == [Example("Big?", ("large", "great", "huge")), Example("y", ("a",), ("a", "b"))]


@pytest.mark.parametrize(
    ("rows", "card", "message"),
    [
        ([], card_of("qa"), "has no usable examples"),
        (
            labelled({"a": 9, "b": 3}),
            card_of("cls", labels="ab"),
            "has 3 examples of label 'b', but needs at least 4",
        ),
        (labelled({"c": 9}), card_of("cls", labels="ab"), "'c' is not one of the labels: a, b"),
    ],
)
def test_too_few_examples(rows, card, message):
    with pytest.raises(ValueError, match=message):
        fewshot.make_pool(rows, card)


def test_sets_without_examples_are_refused():
    card, one = card_of("qa"), (Example("q", ("a",)),)
    for empty in ("train", "dev", "test"):
        sets = {name: one for name in ("train", "train_new", "dev", "test")} | {empty: ()}
        with pytest.raises(ValueError, match=rf"has no example in {empty}; add some"):
            fewshot.make_task(card, 0, **sets)
