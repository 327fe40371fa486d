"""A prompt's run is found by the name of its task, and a head's classes keep their numbers."""

from dataclasses import replace

import pytest
import torch

from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.prompts import prompt_runs
from iptkit.tasks import suites
from iptkit.tasks.examples import Example, TaggedExample

MOOD, KIND, PLURAL = suites.load_suite("tiny", only=["tiny-mood", "tiny-kind", "tiny-plural"])
(PARTS,) = suites.load_suite("tiny3", only=["tiny-parts"])
ABOUT = {"tasks": ["tiny-mood", "tiny-kind"], "data": [{"labels": MOOD.labels}, {"labels": KIND.labels}]}


def test_find_run():
    assert prompt_runs.find_run(ABOUT, "tiny-kind") == 1
    assert prompt_runs.find_run({}, None) == prompt_runs.find_run({"tasks": ["a"]}, None) == 0
    with pytest.raises(
        ValueError, match="2 prompts, for tiny-mood, tiny-kind; choose one by its name or its"
    ):
        prompt_runs.find_run(ABOUT)
    with pytest.raises(ValueError, match="no prompt for the task 'x', only for tiny-mood, tiny-kind"):
        prompt_runs.find_run(ABOUT, "x")
    with pytest.raises(ValueError, match=r"the task is 'x', but this file names no tasks; leave the task"):
        prompt_runs.find_run({}, "x")


def test_each_of_several_runs_of_one_task_is_found():
    about = {"tasks": ["a", "b", "a", "1"]}
    assert [prompt_runs.find_run(about, name) for name in ("a:0", "b", "a:1", "1")] == [0, 1, 2, 3]
    assert [prompt_runs.find_run(about, name) for name in ("0", "2", "3")] == [0, 2, 3]
    assert prompt_runs.runs_for(about, [MOOD, KIND], "a:1") == [2, 2]
    with pytest.raises(ValueError, match="2 prompts for a: a:0, a:1; choose one: --task"):
        prompt_runs.find_run(about, "a")
    for name in ("a:2", "4", "-1"):
        with pytest.raises(ValueError, match=f"no prompt for the task '{name}', only for a:0, b, a:1, 1"):
            prompt_runs.find_run(about, name)
    with pytest.raises(ValueError, match="4 prompts, for a:0, b, a:1, 1; .* its index from 0 to 3: --task"):
        prompt_runs.find_run(about)


def test_a_score_on_examples_of_the_training_is_warned_of():
    (full,) = suites.load_suite("tiny", only=["tiny-mood"], full=True)
    about = {"tasks": ["tiny-mood"], "data": [{"set": "train", "examples": len(full.train)}]}
    few = {"tasks": ["tiny-mood"], "data": [{"set": "train", "examples": len(MOOD.train)}]}

    def said(about, split, task=MOOD):
        return bool(prompt_runs.seen_in_training(about, 0, task, split))

    assert [said(about, split) for split in ("train", "train_new", "dev", "test")] == [
        True,
        True,
        False,
        False,
    ]
    assert [said(few, split) for split in ("train", "train_new", "test")] == [True, False, False]
    assert said(about, "all", full) and not said(about, "all", KIND) and not said({}, "all")


def test_a_file_that_has_grown_or_has_another_name_is_known_by_its_inputs():
    """With more examples the sets are drawn anew, and the test set gets some of the old training set."""
    about = {"tasks": ["tiny-mood"], "data": [{"read": prompt_runs.read_in_training(MOOD)}]}
    test = (*MOOD.test[:3], *MOOD.train[:2], MOOD.dev[0])
    grown = replace(MOOD, id="mood-2", test=test, dev=(*MOOD.dev, MOOD.train[5]))
    told = prompt_runs.seen_in_training(about, 0, grown, "test")
    assert told.startswith("3 of the 6 examples in test of mood-2 were read in the training, so")
    assert told.endswith("; score it on other texts")
    assert "1 of the" in prompt_runs.seen_in_training(about, 0, grown, "dev")
    assert prompt_runs.seen_in_training(about, 0, MOOD, "train").endswith("; --split test does")
    assert not any(prompt_runs.seen_in_training(about, 0, MOOD, split) for split in ("dev", "test"))


def test_runs_for_tasks_go_by_name_unless_there_is_one_or_one_is_named():
    assert prompt_runs.runs_for(ABOUT, [KIND, MOOD]) == [1, 0]
    assert prompt_runs.runs_for(ABOUT, [KIND, PLURAL], "tiny-mood") == [0, 0]
    assert prompt_runs.runs_for({"tasks": ["a"]}, [KIND, PLURAL]) == [0, 0]
    with pytest.raises(ValueError, match="no prompt for the task 'tiny-plural'"):
        prompt_runs.runs_for(ABOUT, [PLURAL])


def test_difference_names_another_task_or_other_labels():
    assert prompt_runs.difference(ABOUT, 0, MOOD) == ""
    assert "trained for the task tiny-mood, and is scored on tiny-kind" in prompt_runs.difference(
        ABOUT, 0, KIND
    )
    about = {"tasks": ["tiny-mood"], "data": [{"labels": ["bad", "good"]}]}
    assert "was trained with the labels bad, good, the file" in prompt_runs.difference(about, 0, MOOD)


def test_classes_are_numbered_as_the_head_does():
    about = {"engine": "HeadEngine", "data": [{"labels": MOOD.labels[::-1]}]}
    task = prompt_runs.with_classes_of(about, 0, MOOD)
    assert {example.options for example in task.test} == {MOOD.labels[::-1]}
    assert prompt_runs.with_classes_of({**about, "engine": "Engine"}, 0, MOOD) is MOOD
    more = {"engine": "HeadEngine", "data": [{"labels": ["B-x", *PARTS.labels]}]}
    assert prompt_runs.with_classes_of(more, 0, PARTS).test[0].labels == ("B-x", *PARTS.labels)
    with pytest.raises(ValueError, match="the labels animal, food, tool, but the head of this prompt"):
        prompt_runs.with_classes_of(about, 0, KIND)


def test_all_as_test_has_every_example_once():
    (task,) = suites.load_suite("tiny", only=["tiny-mood"], full=True)
    examples = prompt_runs.all_as_test(task).test
    assert len(set(examples)) == len(examples) == len(task.train) + len(task.dev) + len(task.test)


def test_all_as_test_adds_what_is_in_no_set():
    rest = (Example("new", ("positive",), MOOD.labels), MOOD.test[0])
    assert prompt_runs.all_as_test(MOOD, rest).test[-1] == rest[0]
    assert len(prompt_runs.all_as_test(MOOD, rest).test) == len(prompt_runs.all_as_test(MOOD).test) + 1
    word = PARTS.test[0].tags[0]
    more = prompt_runs.all_as_test(PARTS, (Example("new", (word,)),)).test[-1]
    assert more == TaggedExample("new", (word,), (), PARTS.labels)


def test_chosen_prompts_come_in_the_order_asked_for():
    source = SoftPrompt(torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)))
    made = prompt_runs.chosen(source, [2, 0, 2]).finished().embeds
    assert torch.equal(made, source.P[[2, 0, 2]])
