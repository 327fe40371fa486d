import dataclasses
import json

import pytest

from iptkit.tasks import examples, suites
from iptkit.tasks.examples import DEFAULT_METRIC, METRICS_OF, Example, TaggedExample


def test_labels_number_the_classes_whatever_the_order_of_options(tmp_path):
    names = ["red", "green", "blue"]
    orders = [names[k:] + names[:k] for k in range(3)]
    lines = [
        {"input": f"thing {i}", "target": names[i % 3], "options": orders[i // 3 % 3]} for i in range(24)
    ]
    file = tmp_path / "colours.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    (task,) = suites.load_suite(file)
    sets = [*task.train, *task.train_new, *task.dev, *task.test]
    assert len(sets) == 24 and {e.options for e in sets} == {task.labels} and set(task.labels) == set(names)
    (tmp_path / "colours.card.json").write_text(json.dumps({"labels": ["blue", "red", "green"]}))
    (task,) = suites.load_suite(file)
    assert {e.options for e in task.train} == {("blue", "red", "green")}, "the card's order"
    bare = dataclasses.replace(task, labels=(), train=(Example("x", ("red",), ("red", "blue", "green")),))
    assert {e.options for e in bare.test} == {("red", "blue", "green")}, "without labels that of the first"


def test_a_task_prints_its_sizes_and_not_its_examples():
    task = suites.load_task("tiny-plural", suite="tiny")
    sizes = f"train {len(task.train)}, train_new {len(task.train_new)}, dev {len(task.dev)}, test 46"
    assert repr(task) == str(task) == f"Task(tiny-plural: gen, exact_match, {sizes})"


@pytest.mark.parametrize(
    ("category", "metric"), [("qa", "span_f1"), ("cls", "tag_accuracy"), ("gen", "mcc"), ("tag", "rouge_l")]
)
def test_a_metric_that_does_not_fit_is_refused_before_anything_trains(category, metric):
    task = suites.load_task("tiny-plural", suite="tiny")
    with pytest.raises(
        ValueError, match=f"task 'tiny-plural': metric is '{metric}', category '{category}' allows: "
    ):
        dataclasses.replace(task, category=category, metric=metric)


def test_every_category_has_its_default_among_its_metrics():
    assert set(METRICS_OF) == set(examples.CATEGORIES)
    assert all(DEFAULT_METRIC[category] in metrics for category, metrics in METRICS_OF.items())
    assert {metric for metrics in METRICS_OF.values() for metric in metrics} == set(examples.METRICS)


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ("O O O", "5 words with 3 tags; write one tag for every word"),
        ("O " * 7, "5 words with 7 tags"),
        ("O O O O X", "unknown tag 'X'; the labels are B-x, O"),
    ],
)
def test_a_tagged_sentence_has_a_known_tag_for_every_word(tags, told):
    with pytest.raises(ValueError, match=told):
        TaggedExample("one two three four five", (tags,), (), ("B-x", "O"))
