import json
import warnings

import datasets
import pytest

from iptkit.tasks import suites, task_files

LINES = "".join(f'{{"input": "q {i}", "target": "a {i}"}}\n' for i in range(12))

FILES = '{"files": {"train": "...", "test": "..."}}'


def lines(start, count):
    return "".join(f'{{"input": "q {i}", "target": "a {i}"}}\n' for i in range(start, start + count))


def found(path, files=None):
    return {
        task.id: {n: [p.name for p in ps] for n, ps in task.parts.items()}
        for task in task_files.find(path, files)
    }


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(LINES)
    return folder


def test_files_named_after_splits_are_one_task(tmp_path):
    folder = touch(
        tmp_path / "mood", "train.jsonl", "Validation.JSONL", "test.jsonl", "labels.csv", ".dev.jsonl"
    )
    parts = {"train": ["train.jsonl"], "validation": ["Validation.JSONL"], "test": ["test.jsonl"]}
    assert found(folder) == {"mood": parts}
    (note,) = task_files.find(folder)[0].notes
    assert note == f"labels.csv not read (to use others, name them in card.json: {FILES})"


def test_a_folder_of_files_has_one_task_per_file(tmp_path):
    assert found(touch(tmp_path / "a", "train.jsonl", "other.jsonl")) == {
        "other": {"": ["other.jsonl"]},
        "train": {"": ["train.jsonl"]},
    }
    assert found(touch(tmp_path / "b", "x.csv", "y.TSV", "z.parquet", "w.conll", "n.txt")).keys() == {*"wxyz"}
    mixed = task_files.find(touch(tmp_path / "c", "x.jsonl", "y.csv"))
    assert [task.id for task in mixed] == ["x"]
    assert mixed[0].notes == ("y.csv not read (beside .jsonl files no others are read)",)


def test_files_with_a_common_beginning_are_one_task_each(tmp_path):
    names = [
        f"{task}_16_{seed}_{part}.tsv"
        for task in ("sst2", "qnli")
        for seed in (13, 21)
        for part in ("train", "dev", "test")
    ]
    grouped = found(touch(tmp_path, *names, "solo_train.tsv"))
    assert grouped.keys() == {"qnli_16_13", "qnli_16_21", "sst2_16_13", "sst2_16_21", "solo_train"}
    assert grouped["sst2_16_21"] == {n: [f"sst2_16_21_{n}.tsv"] for n in ("train", "dev", "test")}


def test_a_folder_of_task_folders(tmp_path):
    for name in ("mood", "topic"):
        touch(tmp_path / name, "train.jsonl", "test.jsonl")
    touch(tmp_path / "notes", "a.txt")
    assert found(tmp_path).keys() == {"mood", "topic"}
    for name, start in (("mood", 0), ("topic", 50)):
        (tmp_path / name / "train.jsonl").write_text(lines(start, 20))
        (tmp_path / name / "test.jsonl").write_text(lines(start + 20, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mood, topic = suites.load_suite(tmp_path)
        assert suites.load_suite(tmp_path, only=["topic"]) == [topic]
    assert len(mood.test) == 5 and {e.input for e in topic.test} == {f"q {i}" for i in range(70, 75)}
    assert [card.id for card in suites.list_cards(tmp_path)] == ["mood", "topic"]


def test_shards_are_one_split(tmp_path):
    names = [f"train-0000{i}-of-00002.parquet" for i in range(2)]
    parts = {"train": names, "test": ["test-00000-of-00001.parquet"]}
    assert found(touch(tmp_path / "x", *names, *parts["test"])) == {"x": parts}
    assert found(touch(tmp_path / "birds" / "data", *names, *parts["test"]).parent) == {"birds": parts}


@pytest.mark.parametrize("by_card", [True, False])
def test_names_of_files_can_be_given(tmp_path, by_card):
    for name, start in (("eng.train", 0), ("eng.testa", 9), ("eng.testb", 15)):
        text = "".join(f"w{i} B-x\nis O\n\n" for i in range(start, start + 6))
        (tmp_path / name).write_text(text)
    files = {"train": "eng.train", "dev": "eng.testa", "test": "eng.testb"}
    if by_card:
        (tmp_path / "card.json").write_text(
            f'{{"id": "mine", "files": {str(files).replace(chr(39), chr(34))}}}'
        )
    (task,) = suites.load_suite(tmp_path, files=None if by_card else files)
    assert (task.category, len(task.train), len(task.dev), len(task.test)) == ("tag", 6, 6, 6)
    assert task.id == "mine" or not by_card
    for wrong, told in (
        ({"train": "a", "dec": "b"}, "files name the split 'dec'; allowed are: train, dev, test"),
        ({"test": "eng.testa"}, "files name no train file"),
        ({**files, "test": "eng.testc"}, "there is no file .*eng.testc"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=told):
            suites.load_suite(tmp_path, files=wrong)


@pytest.mark.parametrize("kind", ["alone", "beside a test set", "saved"])
def test_other_names_get_a_note_and_the_card_that_it_names_works(tmp_path, kind):
    """The matched dev set of MNLI, for example."""
    folder = tmp_path / "mnli"
    sets = {"train": (0, 20), "validation_matched": (20, 6), **({} if kind == "alone" else {"test": (30, 6)})}
    for name, (start, count) in sets.items():
        if kind == "saved":
            rows = [{"input": f"q {i}", "target": f"a {i}"} for i in range(start, start + count)]
            datasets.Dataset.from_list(rows).save_to_disk(folder / name)
            (folder / "dataset_dict.json").write_text(json.dumps({"splits": [*sets]}))
        else:
            touch(folder)
            (folder / f"{name}.jsonl").write_text(lines(start, count))
    name = "validation_matched" + ("" if kind == "saved" else ".jsonl")
    notes = [note for task in task_files.find(folder) for note in task.notes]
    way = f"(to use others, name them in card.json: {FILES})"
    told = {"alone": f"no file is named dev or test, so train.jsonl is a task of its own {way}"}
    assert notes == [told.get(kind, f"{name} not read {way}")]
    train = name.replace("validation_matched", "train")
    (folder / "card.json").write_text(json.dumps({"files": {"train": train, "test": name}}))
    with pytest.warns(UserWarning, match="there is no dev set, so it is drawn from train"):
        (task,) = suites.load_suite(folder)
    assert task.id == "mnli" and {e.input for e in task.test} == {f"q {i}" for i in range(20, 26)}


@pytest.mark.parametrize("where", ["absolute", "../../mine.jsonl", "sub/mine.jsonl", "..", ".", ""])
def test_a_card_names_files_of_its_folder_only_but_python_may_name_any(tmp_path, where):
    """A card may be a stranger's, the argument is the user's own."""
    folder = touch(tmp_path / "tasks" / "one", "test.jsonl")
    for place in (tmp_path, touch(folder / "sub")):
        (place / "mine.jsonl").write_text(lines(100, 20))
    name = str(tmp_path / "mine.jsonl") if where == "absolute" else where
    files = {"train": name, "test": "test.jsonl"}
    (folder / "card.json").write_text(json.dumps({"files": files}))
    with pytest.raises(
        ValueError, match="card.json: files names .* of the task's folder, without a path: mo"
    ):
        suites.load_suite(folder)
    with pytest.raises(ValueError, match="card.json: files names"):
        suites.load_suite(folder.parent)
    if name.endswith("mine.jsonl"):
        with pytest.warns(UserWarning, match="no dev set"):
            (task,) = suites.load_suite(folder, files=files)
        assert {e.input for e in task.train} <= {f"q {i}" for i in range(100, 120)}


def test_two_dev_sets(tmp_path):
    """With dev32 and val, as FewGLUE has them, val is the test set; with a test set, one is too many."""
    for name, start, count in (("train", 0, 20), ("dev32", 20, 6), ("val", 26, 5)):
        (tmp_path / f"{name}.jsonl").write_text(lines(start, count))
    with pytest.warns(UserWarning, match="there is no test set, so val is the test set$"):
        (task,) = suites.load_suite(tmp_path)
    assert (len(task.train), len(task.dev), len(task.test)) == (20, 6, 5)
    (tmp_path / "test.jsonl").write_text(lines(40, 3))
    with pytest.raises(
        ValueError, match="has 2 dev sets .dev32, val.; keep one, or name the files on the card"
    ):
        suites.load_suite(tmp_path)


def test_a_saved_data_set_of_other_splits_or_a_broken_one(tmp_path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["a", "b"]}')
    with pytest.raises(ValueError, match=r"has no split named train \(found: a, b\)"):
        suites.load_suite(tmp_path)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["a\x1b[2J", "b"]}))
    with pytest.raises(ValueError, match=r"found: a\\x1b\[2J, b\)"):
        suites.load_suite(tmp_path)
    for split in ("../x", "..", ""):
        (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
        with pytest.raises(ValueError, match="dataset_dict.json: splits is not a list of names"):
            suites.load_suite(tmp_path)
    (tmp_path / "dataset_dict.json").unlink()
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    with pytest.raises(ValueError, match="_data_files does not list files of this folder"):
        suites.load_suite(tmp_path)
