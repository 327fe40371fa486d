import json
from collections import Counter

import pytest

from iptkit.tasks import fewshot, suites
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


# ---- few examples, own sets ----------------------------------------------------------------------
def test_labels_with_few_examples_go_where_they_are_needed_most():
    counts = {"a": 40, "b": 3, "c": 2, "d": 1}
    card = card_of("cls", 16, "abcd")
    told = "'b' has 3, 'c' has 2, 'd' has 1 example.s., so some sets lack them"
    with pytest.warns(UserWarning, match=told):
        pool = fewshot.make_pool(labelled(counts), card, allow_few=True)
    sets = {**fewshot.sample(pool, card, 0), "test": pool.test}
    found = {name: Counter(e.targets[0] for e in rows) for name, rows in sets.items()}
    assert found["train"] == {"a": 10, "b": 1, "c": 1, "d": 1}
    assert found["dev"] == {"a": 10, "b": 1} and found["train_new"] == {"a": 10}
    assert found["test"] == {"a": 10, "b": 1, "c": 1}
    inputs = [e.input for rows in sets.values() for e in rows]
    assert len(set(inputs)) == len(inputs)
    with pytest.raises(ValueError, match="but needs at least 4"):
        fewshot.make_pool(labelled({"a": 2, "b": 1}), card_of("cls", labels="ab"), allow_few=True)


def test_a_task_of_three_examples_has_three_sets():
    card = card_of("qa")
    with pytest.warns(UserWarning, match="there are 3 example"):
        pool = fewshot.make_pool(labelled({"a": 3}), card, allow_few=True)
    sets = fewshot.sample(pool, card, 0)
    assert [len(sets[name]) for name in ("train", "train_new", "dev")] == [1, 0, 1] and len(pool.test) == 1


@pytest.mark.parametrize(
    ("count", "has_dev", "sizes"),
    [
        (100, True, (32, 32, 9)),
        (100, False, (32, 32, 32)),
        (40, True, (32, 8, 9)),
        (35, True, (32, 0, 9)),  # 3 are too few for train_new
        (20, True, (20, 0, 9)),
        (20, False, (10, 0, 10)),
        (1, True, (1, 0, 9)),
    ],
)
def test_sets_of_ones_own_are_kept(count, has_dev, sizes):
    rows = labelled({"a": count + 9 + 12})
    train, dev, test = rows[:count], rows[count : count + 9] if has_dev else None, rows[count + 9 :]
    pool = fewshot.own_pool(card := card_of("qa", shots=32), train, test, dev)
    for seed in range(3):
        sets = fewshot.sample(pool, card, seed)
        assert tuple(len(sets[name]) for name in ("train", "train_new", "dev")) == sizes
        drawn = [e for name in ("train", "train_new") for e in sets[name]]
        assert {*drawn} <= {*train} and len({*drawn}) == len(drawn) and {*pool.test} == {*test}
        assert {*sets["dev"]} == {*dev} if has_dev else {*sets["dev"]} <= {*train} - {*drawn}
    if count == 100:
        assert fewshot.sample(pool, card, 0)["train"] != fewshot.sample(pool, card, 1)["train"]


def test_a_training_set_that_is_used_whole_is_too_small_for_a_study_and_the_way_out_works(tmp_path):
    def with_rows(count):
        for name, start, end in (("train", 100, 100 + count), ("dev", 0, 32), ("test", 32, 60)):
            rows = [json.dumps({"input": f"q {i}", "target": f"a {i}"}) for i in range(start, end)]
            (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
        (task,) = suites.load_suite(tmp_path)
        return task

    with pytest.raises(
        ValueError, match=r"too few examples beside the 32 of train. Add 4 or more .* one file"
    ):
        fewshot.leave_out(task := with_rows(32), task)
    assert len(fewshot.leave_out(task := with_rows(36), task).train_new) == 4


def test_train_new_has_all_labels_or_is_empty():
    rows = labelled({"a": 40, "b": 16})
    pool = fewshot.own_pool(card := card_of("cls", 16, "ab"), rows, rows[:4], rows[4:8])
    sets = fewshot.sample(pool, card, 0)
    assert Counter(e.targets[0] for e in sets["train"]) == {"a": 16, "b": 16} and sets["train_new"] == ()
    with pytest.raises(ValueError, match="has no example in train and test; add some"):
        fewshot.own_pool(card, [], [])
