import doctest
import warnings

import datasets
import pytest

from iptkit.tasks import data_sets

FEATURES = datasets.Features(
    {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["down", "up"])}
)


def split_of(start, count, label=None):
    numbers = range(start, start + count)
    labels = [i % 2 if label is None else label for i in numbers]
    return datasets.Dataset.from_dict(
        {"sentence": [f"Bird {i} flies" for i in numbers], "label": labels}, FEATURES
    )


def made(dataset, *arguments, **options):
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        task = data_sets.from_dataset(dataset, "mine", *arguments, **options)
    return task, [str(warning.message) for warning in noted]


def test_the_splits_of_a_data_set_are_kept():
    whole = datasets.DatasetDict(
        train=split_of(0, 80), validation=split_of(80, 10), test=split_of(90, 30), extra=split_of(120, 3)
    )
    task, (told,) = made(whole)
    assert (task.id, task.category, task.labels) == ("mine", "cls", ("down", "up"))
    assert [len(of) for of in (task.train, task.train_new, task.dev, task.test)] == [32, 32, 10, 30]
    way = "(to use others, name them in a dictionary: {'train': ..., 'test': ...})"
    assert told == f"mine: extra not read {way}; read sentence as the input, label as the target"
    for name, rows in (("validation", task.dev), ("test", task.test)):
        assert {e.input for e in rows} == {*whole[name]["sentence"]}
    assert {e.input for e in (*task.train, *task.train_new)} <= {*whole["train"]["sentence"]}
    other, _ = made(whole, seed=1)
    assert other.test == task.test and other.dev == task.dev and other.train != task.train
    assert len(made(whole, full=True)[0].train) == 80 and len(made(whole, max_test=7, max_dev=3)[0].test) == 7


def test_a_selection_keeps_its_order_and_a_test_split_without_labels_is_not_used():
    whole = {
        "train": split_of(0, 60).select(range(20, 60)),
        "validation": split_of(80, 10),
        "test": split_of(90, 9, -1),
    }
    task, (told,) = made(whole)
    assert (
        "mine, test has no labels, so it is not used; there is no test set, so validation is the test" in told
    )
    assert min(int(e.input.split()[1]) for e in (*task.train, *task.dev)) >= 20 and len(task.test) == 10


def test_a_single_data_set_is_drawn_from():
    task, _ = made(split_of(0, 40))
    assert [len(of) for of in (task.train, task.train_new, task.dev, task.test)] == [10, 10, 10, 10]
    assert made(datasets.DatasetDict(train=split_of(0, 40)))[0] == task
    task, told = made(split_of(0, 40), "input=sentence,target=label", card={"category": "qa"})
    assert (task.category, task.metric, told) == ("qa", "exact_match", [])


def test_words_with_tags():
    tags = datasets.ClassLabel(names=["O", "B-bird", "I-bird"])
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(tags)}
    )
    rows = {"tokens": [["An", "owl", str(i)] for i in range(12)], "ner_tags": [[0, 1, 2]] * 12}
    task, _ = made(datasets.Dataset.from_dict(rows, features))
    assert task.category == "tag" and task.labels == ("O", "B-bird", "I-bird")
    assert all(e.tags == ("O", "B-bird", "I-bird") and e.words[1] == "owl" for e in task.train)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            [1, 2],
            "task 'mine': the data set is a list, allowed are datasets.Dataset and datasets.DatasetDict",
        ),
        ({"train": [1]}, "task 'mine': the data set of split 'train' is a list"),
        (
            datasets.DatasetDict(a=split_of(0, 4), b=split_of(4, 4)),
            "task 'mine' has no split named train .found: a, b.",
        ),
        (
            split_of(0, 4).rename_column("label", "kind"),
            "task 'mine': mine: no column is named target or has another",
        ),
        (split_of(0, 0), "mine:1: there is no example"),
    ],
)
def test_what_cannot_be_a_task_is_named(given, told):
    with pytest.raises(ValueError, match=told):
        made(given)


def test_examples_in_docstrings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert doctest.testmod(data_sets).failed == 0
