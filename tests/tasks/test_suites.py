import doctest
import json
import os
from collections import Counter
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from iptkit.storage import downloads, paths
from iptkit.tasks import fewshot, pools, suites

NAMES_OF_PACKAGES = {name for card in suites.list_cards("core36") for name in card.packages}
needs_downloads = pytest.mark.skipif(
    not all(map(downloads.is_cached, NAMES_OF_PACKAGES)),
    reason="needs the archives that `iptkit fetch` downloads",
)


def check_task(task):
    """Check what must hold for every task of every suite."""
    sets = {"train": task.train, "train_new": task.train_new, "dev": task.dev, "test": task.test}
    inputs = {name: {fewshot.text_key(example.input) for example in rows} for name, rows in sets.items()}
    assert sum(map(len, inputs.values())) == sum(map(len, sets.values())), "the same input twice"
    assert len(set.union(*inputs.values())) == sum(map(len, inputs.values())), "an input in two sets"
    assert len(task.train) == len(task.train_new) == len(task.dev) and 0 < len(task.test) <= 256
    assert (task.category in ("cls", "mcqa")) == bool(task.chance)
    assert bool(task.labels) == (task.category == "cls")
    for example in (*task.train, *task.train_new, *task.dev, *task.test):
        assert example.input == example.input.rstrip() and all(example.targets)
        if task.category == "cls":
            assert example.options == task.labels
        if example.options:
            assert set(example.targets) <= set(example.options)


@pytest.mark.parametrize("task", suites.load_suite("tiny"), ids=lambda task: task.id)
def test_tiny_tasks(task):
    check_task(task)
    shots = 8 * (len(task.labels) or 1)
    assert len(task.train) == shots and len(task.test) >= 24
    if task.category == "cls":
        assert set(Counter(example.targets[0] for example in task.train).values()) == {8}
        assert task.chance == pytest.approx(1 / len(task.labels))


def test_seeds_change_all_but_the_test_set():
    first, again, other = (suites.load_task("tiny-sum", seed, suite="tiny") for seed in (0, 0, 1))
    assert first == again
    assert first.test == other.test and first.train != other.train and first.dev != other.dev


def test_only_max_test_and_max_dev():
    small = suites.load_suite("tiny", only=["tiny-past", "tiny-mood"], max_test=6, max_dev=2)
    assert [task.id for task in small] == ["tiny-past", "tiny-mood"]
    assert all(len(task.test) == 6 and len(task.dev) == 2 for task in small)
    assert Counter(example.targets[0] for example in small[1].test) == {"negative": 3, "positive": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            dict(name="core63"),
            "there is no suite 'core63'; choose one of core36, encoder9, ipt120, encoders, crossfit, tiny, ",
        ),
        (dict(name="tiny", only=["tiny-moood"]), "no task 'tiny-moood'; did you mean tiny-mood"),
        (dict(name="tiny", max_test=0), "max_test is 0, allowed are integers of at least 1"),
        (dict(name="tiny", max_dev=-1), "max_dev is -1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        suites.load_suite(**arguments)


@pytest.mark.parametrize("suite", suites.SPLIT)
def test_splits_keep_leakage_groups_together(suite):
    sides = suites.split("random", suite)
    cards = {card.id: card for card in suites.list_cards(suite)}
    if suite == "core36":
        assert (len(sides.seen), len(sides.unseen)) == (28, 8)
        assert {"cls", "qa", "gen", "seq"} <= {cards[task].category for task in sides.unseen}
    if suite == "tiny":
        assert (len(sides.seen), len(sides.unseen)) == (6, 2)
    assert not {cards[task].group for task in sides.seen} & {cards[task].group for task in sides.unseen}


def test_a_split_that_leaks_is_refused(tmp_path, monkeypatch):
    (tmp_path / "cards").mkdir()
    (tmp_path / "splits").mkdir()
    source = paths.data_dir() / "cards" / "tiny.json"
    (tmp_path / "cards" / "tiny.json").write_bytes(source.read_bytes())
    everything = [card.id for card in suites.list_cards("tiny")]
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    for name, sides, message in [
        (
            "random",
            {"seen": everything[:-2], "unseen": everything[-1:]},
            "every task of tiny must be on exactly one",
        ),
        (
            "random",
            {"seen": everything[:-2], "unseen": everything[-1:], "left_out": everything[-1:]},
            "on exactly one side, or left out",
        ),
        ("random", {"seen": everything[2:], "unseen": everything[:2]}, "leakage groups on both sides: kind"),
        (
            "random",
            {"seen": everything[:-1], "unseen": everything[-1:], "scored": [everything[0], everything[-1]]},
            f"scored names {everything[-1]}; it may name tasks of seen only, each once",
        ),
        (
            "random",
            {"seen": everything[:-1], "unseen": everything[-1:], "scored": [everything[0]] * 2},
            f"scored names {everything[0]}; it may",
        ),
        ("other", {"seen": [], "unseen": []}, "suite tiny has no split 'random'; choose one of other"),
    ]:
        (tmp_path / "splits" / "tiny.json").write_text(json.dumps({name: sides}))
        with pytest.raises(ValueError, match=message):
            suites.split("random", "tiny")


def test_the_users_own_folder_is_a_suite(tmp_path):
    for name, options in (("first", None), ("second", ["up", "down"])):
        lines = [
            {"input": f"{name} {i}", "target": ("up", "down")[i % 2], "options": options} for i in range(24)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    suite = suites.load_suite(tmp_path)
    assert [(task.id, task.category) for task in suite] == [("first", "qa"), ("second", "cls")]
    for task in suite:
        check_task(task)
    assert suites.load_suite(tmp_path / "second.jsonl") == suite[1:]
    assert suites.load_suite(tmp_path, only=["second"]) == suite[1:]
    assert [card.id for card in suites.list_cards(tmp_path)] == ["first", "second"]
    (tmp_path / "first.card.json").write_text('{"id": "second"}')
    with pytest.raises(ValueError, match="two tasks have the same id"):
        suites.load_suite(tmp_path)


def test_endings_may_be_in_capitals_and_hidden_files_are_ignored(tmp_path):
    lines = "".join(f'{{"input": "q {i}", "target": "a"}}\n' for i in range(8))
    (tmp_path / "X.JSONL").write_text(lines)
    (tmp_path / "y.jsonl").write_text(lines)
    (tmp_path / "X.card.json").write_text('{"title": "The first"}')
    for name in ("._y.jsonl", ".y.jsonl.swp", ".y.jsonl"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert [(task.id, task.title) for task in suites.load_suite(tmp_path)] == [("X", "The first"), ("y", "y")]
    assert [card.id for card in suites.list_cards(tmp_path / "X.JSONL")] == ["X"]
    (tmp_path / "y.JSONL").write_text(lines)
    with pytest.raises(ValueError, match=r"y.JSONL and .*y.jsonl: two tasks have the same id 'y'"):
        suites.list_cards(tmp_path)


def test_errors_name_a_folder_among_the_files_and_an_unreadable_one(tmp_path, monkeypatch):
    (tmp_path / "z.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"z.jsonl is a folder, a file is needed"):
        suites.load_suite(tmp_path)

    def no(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", no)
    with pytest.raises(ValueError, match=r"the folder .* cannot be read \(Permission denied\)"):
        suites.list_cards(tmp_path)


def test_the_error_names_a_user_file_with_too_few_examples(tmp_path):
    (tmp_path / "mine.jsonl").write_text('{"input": "q", "target": "a"}')
    with pytest.raises(
        ValueError, match=r"mine.jsonl: task 'mine' has 1 example, but needs at least 4.*; add examples$"
    ):
        suites.load_suite(tmp_path / "mine.jsonl")


def test_paths_without_tasks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no task \(found: nothing\); put one .jsonl, .csv"):
        suites.load_suite(tmp_path)
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"has no task \(found: mine.json\)"):
        suites.load_suite(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        suites.load_suite(tmp_path / "absent.jsonl")


def test_cards_of_core36():
    cards = suites.list_cards("core36")
    assert len({card.id for card in cards}) == 36
    assert Counter(card.category for card in cards) == {"cls": 12, "mcqa": 1, "qa": 10, "gen": 7, "seq": 6}
    for card in cards:
        assert card.origin and card.template and card.packages and card.licence and card.about.endswith(".")
        assert list(card.labels) == sorted(card.labels, key=str.casefold)
        assert card.shots == (16 if card.category == "cls" else 32)


@needs_downloads
def test_core36_from_the_cached_archives():
    suite = {task.id: task for task in suites.load_suite("core36")}
    other_seed = {task.id: task for task in suites.load_suite("core36", seed=1)}
    assert len(suite) == 36
    for card in suites.list_cards("core36"):
        task = suite[card.id]
        check_task(task)
        check_task(other_seed[card.id])
        assert task.test == other_seed[card.id].test and task.train != other_seed[card.id].train
        shots = {label: card.shots_per_label.get(label, card.shots) for label in card.labels or ("",)}
        assert len(task.train) == sum(shots.values()) and len(task.test) >= 64
        if card.category == "cls":
            assert Counter(example.targets[0] for example in task.dev) == shots
        about = json.loads(pq.read_schema(pools.cache_file(card)).metadata[b"iptkit"])
        assert about["shots"] == shots and about["card"]["licence"] == card.licence


@needs_downloads
def test_encoder9_has_sentences_with_classes_and_words_with_tags():
    few, full = (suites.load_suite("encoder9", full=full) for full in (False, True))
    assert Counter(task.category for task in few) == {"cls": 5, "tag": 4}
    for task, whole in zip(few, full, strict=True):
        assert len(whole.train) >= 400 > len(task.train) == 32 and whole.test == task.test
        held_out = {e.input for e in (*whole.dev, *whole.test)}
        assert not held_out & {e.input for e in whole.train} and whole.dev == task.dev
        if task.category == "cls":
            assert all("Choices" not in e.input and set(e.options) == set(task.labels) for e in task.test)
        else:
            assert all(len(e.tags) == len(e.input.split()) for e in (*whole.train, *task.test))
            assert {tag for e in whole.train for tag in e.tags} <= set(task.labels)


def test_encoders_has_the_classifications_of_ipt120_and_all_tagging_tasks():
    cards = suites.list_cards("encoders")
    classes = [card for card in suites.list_cards("ipt120") if card.category == "cls"]
    assert [replace(card, shows_choices=True) for card in cards[: len(classes)]] == classes
    tagging = [card for card in suites.list_cards("encoder9") if card.category == "tag"]
    added = suites.read_json(paths.data_dir() / "cards" / "encoders.json", list)
    assert [card.id for card in cards[43:]] == [*(c.id for c in tagging), *(c["id"] for c in added)]
    assert not any(card.shows_choices for card in cards) and {c.category for c in cards[43:]} == {"tag"}


@needs_downloads
def test_every_i_tag_continues_a_span_of_its_kind():
    for task in suites.load_suite(
        "encoder9", only=["address-tags", "person-tags", "company-tags"], full=True
    ):
        for example in (*task.train, *task.test):
            for before, tag in zip(("", *example.tags), example.tags, strict=False):
                assert tag[0] == "B" or before[2:] == tag[2:], example.tags


def test_a_suite_without_splits_says_so():
    with pytest.raises(
        ValueError, match="'encoder9' has no splits, only core36, ipt120, crossfit and tiny have"
    ):
        suites.split("random", "encoder9")


def test_examples_in_docstrings():
    assert doctest.testmod(suites).failed == 0


def test_sides_are_those_given_or_the_random_split():
    assert suites.sides("core36") == suites.split("random", "core36")
    given = suites.sides("tiny", ["tiny-mood"], ["tiny-plural"])
    assert given == suites.Split(("tiny-mood",), ("tiny-plural",))
    assert suites.sides("tiny", ["tiny-mood"]).unseen == ()
    for seen, unseen in (([], ["tiny-mood"]), (["tiny-mood"], ["tiny-mood"]), (["tiny-mood"] * 2, [])):
        with pytest.raises(
            ValueError, match="at least one seen task and each task once, with no leakage group"
        ):
            suites.sides("tiny", seen, unseen)
    with pytest.raises(ValueError, match="no leakage group"):
        suites.sides("core36", ["babel-en-fr"], ["babel-en-de"])


def test_a_file_with_another_ending_is_not_a_suite(tmp_path):
    (tmp_path / "mine.json").write_text('{"input": "q", "target": "a"}')
    with pytest.raises(ValueError, match=r"mine.json does not end in .jsonl, .csv, .* rename it if"):
        suites.list_cards(tmp_path / "mine.json")
    with pytest.raises(ValueError, match="there is no suite '.*absent.json'"):
        suites.list_cards(tmp_path / "absent.json")
