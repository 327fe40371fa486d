import json

import pytest

from iptkit.tasks import superglue

RECORDS = {  # of our own, in SuperGLUE's fields
    "BoolQ": {"passage": "Ducks swim.", "question": "do ducks swim", "label": True},
    "CB": {"premise": "It rains.", "hypothesis": "it is wet", "label": "entailment"},
    "COPA": {
        "premise": "The cup fell.",
        "choice1": "It broke.",
        "choice2": "It flew.",
        "question": "effect",
        "label": 0,
    },
    "MultiRC": {
        "passage": {
            "text": "Ben has a duck.",
            "questions": [
                {
                    "question": "What has Ben?",
                    "answers": [{"text": "a duck", "label": 1}, {"text": "a car", "label": 0}],
                }
            ],
        }
    },
    "RTE": {"premise": "It rains.", "hypothesis": "it is dry", "label": "not_entailment"},
    "WiC": {"word": "bank", "sentence1": "A bank lends.", "sentence2": "He sat on the bank.", "label": False},
    "WSC": {
        "text": "Ann saw Hana and she waved.",
        "target": {"span1_text": "Hana", "span2_text": "she"},
        "label": "True",
    },
}
ANSWERS = {
    "BoolQ": ["yes"],
    "CB": ["yes"],
    "COPA": ["It broke."],
    "MultiRC": ["yes", "no"],
    "RTE": ["no"],
    "WiC": ["no"],
    "WSC": ["yes"],
}


def folder_of(tmp_path, name, record=None, splits=superglue.SPLITS):
    for split in splits:
        text = json.dumps(RECORDS[name]) + "\n"
        if split == "val" and record is not None:
            text += record if isinstance(record, str) else json.dumps(record) + "\n"
        (tmp_path / f"{split}.jsonl").write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", superglue.NAMES)
def test_every_task_is_read(tmp_path, name):
    task = superglue.load_folder(folder_of(tmp_path, name), name)
    assert [e.targets[0] for e in task.train] == ANSWERS[name] and task.train == task.dev == task.test
    assert all(e.targets[0] in e.options and e.input for e in task.test) and task.train_new == ()


@pytest.mark.parametrize("word", ["Ann's", 'a "bank"', "back\\slash", "\x1b[31mred", "Uni\u00f3n"])
def test_words_are_quoted_as_they_are_written(tmp_path, word):
    (tmp_path / "wic").mkdir()
    wic = {**RECORDS["WiC"], "word": word}
    task = superglue.load_folder(folder_of(tmp_path / "wic", "WiC", wic), "WiC")
    assert task.test[-1].input.endswith(f"Does '{word}' mean the same in both?")
    wsc = {**RECORDS["WSC"], "target": {"span1_text": word, "span2_text": word}}
    task = superglue.load_folder(folder_of(tmp_path, "WSC", wsc), "WSC")
    assert task.test[-1].input.endswith(f"Does '{word}' refer to '{word}'?")


def test_the_error_for_a_missing_file_names_the_others(tmp_path):
    folder = folder_of(tmp_path, "RTE", splits=("train", "dev32"))
    with pytest.raises(FileNotFoundError, match=r"has no val.jsonl \(found: dev32.jsonl, train.jsonl\)"):
        superglue.load_folder(folder, "RTE")
    with pytest.raises(ValueError, match="no SuperGLUE task 'SST'; choose one of BoolQ"):
        superglue.load_folder(folder, "SST")


@pytest.mark.parametrize("has_test", [True, False])
def test_the_official_folder_holds_the_dev_set_out(tmp_path, has_test):
    """Train and val have labels, test has none."""
    records = [{**RECORDS["RTE"], "premise": f"It rains {i}.", "idx": i} for i in range(20)]
    records[1:11] = [record | {"label": "entailment"} for record in records[1:11]]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "val.jsonl").write_text(json.dumps({**RECORDS["RTE"], "label": "entailment"}))
    if has_test:
        (tmp_path / "test.jsonl").write_text(json.dumps({"premise": "a", "hypothesis": "b", "idx": 0}))
    told = r"2 example.s. of train.jsonl are the dev set, and val.jsonl is the test set"
    with pytest.warns(UserWarning, match=told + ("; test.jsonl is not used$" if has_test else "$")):
        task = superglue.load_folder(tmp_path, "RTE")
    assert [len(of) for of in (task.train, task.dev, task.test)] == [18, 2, 1]
    assert not {e.input for e in task.train} & {e.input for e in task.dev}


@pytest.mark.parametrize(
    ("name", "record", "told"),
    [
        ("RTE", {"premise": "a", "label": "entailment"}, "val.jsonl:2: the field 'hypothesis' is missing"),
        ("RTE", {**RECORDS["RTE"], "label": "maybe"}, "label is 'maybe', allowed are: 'not_entailment'"),
        ("BoolQ", {**RECORDS["BoolQ"], "label": 1}, "label is 1, allowed are: False, True"),
        ("COPA", {**RECORDS["COPA"], "label": True}, "label is True, allowed are: 0, 1"),
        (
            "WSC",
            {**RECORDS["WSC"], "target": "she"},
            "val.jsonl:2: target has JSON type string, allowed is an object",
        ),
        ("RTE", "{broken\n", "val.jsonl:2: not valid JSON"),
        (
            "BoolQ",
            {**RECORDS["BoolQ"], "passage": ["x", 1]},
            "val.jsonl:2: passage has JSON type list, allowed is a string",
        ),
        (
            "BoolQ",
            {**RECORDS["BoolQ"], "question": None},
            "val.jsonl:2: question has JSON type null, allowed is a string",
        ),
        ("BoolQ", {**RECORDS["BoolQ"], "label": []}, "label is [], allowed are: False, True"),
        ("BoolQ", {**RECORDS["BoolQ"], "label": None}, "label is None, allowed are: False, True"),
        ("BoolQ", {"passage": "a", "question": "b"}, "the field 'label' is missing, as in a test set"),
        ("CB", {**RECORDS["CB"], "premise": " "}, "val.jsonl:2: premise is empty"),
        ("COPA", {**RECORDS["COPA"], "label": 0.0}, "label is 0.0, allowed are: 0, 1"),
        ("COPA", {**RECORDS["COPA"], "choice2": "It broke. "}, "choice1 and choice2 are equal"),
        ("COPA", {**RECORDS["COPA"], "question": "why"}, "question is 'why', allowed are: cause, effect"),
        (
            "MultiRC",
            {"passage": {"text": "a", "questions": {}}},
            "passage.questions has JSON type object, allowed is a list",
        ),
        (
            "MultiRC",
            {"passage": {"text": "a", "questions": ["q"]}},
            "question has JSON type string, allowed is an object",
        ),
        (
            "MultiRC",
            {
                "passage": {
                    "text": "a",
                    "questions": [{"question": "q", "answers": [{"text": 3, "label": 1}]}],
                }
            },
            "answer.text has JSON type number, allowed is a string",
        ),
        ("WiC", {**RECORDS["WiC"], "word": 3}, "word has JSON type number"),
        (
            "WSC",
            {**RECORDS["WSC"], "target": {"span1_text": "a"}},
            "the field 'target.span2_text' is missing",
        ),
        ("RTE", "[" * 100_000, "val.jsonl:2: lists or objects are nested more than 100 deep"),
        ("RTE", '{"premise": "a", "premise": "b"}', "val.jsonl:2: 'premise' appears twice"),
        ("RTE", "[1]", "val.jsonl:2: a JSON list is given"),
    ],
)
def test_errors_name_file_and_line_of_a_broken_record(tmp_path, name, record, told):
    folder = folder_of(tmp_path, name, record)
    before = (folder / "val.jsonl").read_bytes()
    with pytest.raises(ValueError) as error:
        superglue.load_folder(folder, name)
    assert told in str(error.value) and (folder / "val.jsonl").read_bytes() == before


def test_a_training_set_with_one_label_causes_a_warning(tmp_path):
    """The public 32 examples of WSC are like that."""
    of_both = [{**RECORDS["WSC"], "label": label} for label in ("False", "False", "True", "False")]
    for split in superglue.SPLITS:
        records = of_both[:2] if split == "train" else of_both
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, records)))
    told = "task superglue-wsc, seed 0: train has 2 example.s., all with the label 'no', .* add .* of 'yes'"
    with pytest.warns(UserWarning, match=told):
        task = superglue.load_folder(tmp_path, "WSC")
    assert len(task.train) == 2
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, of_both)))
    assert len(superglue.load_folder(tmp_path, "WSC").train) == 4, "warnings are errors here"


@pytest.mark.parametrize("split", superglue.SPLITS)
def test_a_split_without_examples_is_refused(tmp_path, split):
    folder = folder_of(tmp_path, "RTE")
    for text in ("", "\n\n"):
        (folder / f"{split}.jsonl").write_text(text)
        with pytest.raises(ValueError, match=rf"{split}.jsonl has no example"):
            superglue.load_folder(folder, "RTE")


def test_marks_blank_lines_and_other_letters_are_read(tmp_path):
    folder = folder_of(tmp_path, "RTE")
    line = json.dumps({**RECORDS["RTE"], "premise": "caf\u00e9\u2028"}, ensure_ascii=False)
    (folder / "val.jsonl").write_bytes(f"\ufeff{line}\r\n\n".encode())
    assert superglue.load_folder(folder, "RTE").test[0].input.startswith("caf\u00e9\u2028\n")
    (folder / "val.jsonl").write_bytes(f"{line}\n{line}".encode("latin-1", "ignore"))
    with pytest.raises(ValueError, match=r"val.jsonl:1: broken UTF-8 at byte 16"):
        superglue.load_folder(folder, "RTE")


def test_of_many_broken_records_twenty_are_listed(tmp_path):
    folder = folder_of(tmp_path, "RTE")
    (folder / "train.jsonl").write_text('{"premise": 1}\n' * 100_000)
    with pytest.raises(ValueError, match="has 100000 problem") as error:
        superglue.load_folder(folder, "RTE")
    assert len(str(error.value)) < 10_000


def test_errors_name_a_folder_instead_of_a_file_and_a_missing_folder(tmp_path):
    folder = folder_of(tmp_path, "RTE", splits=("train", "val"))
    (folder / "dev32.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"dev32.jsonl is a folder"):
        superglue.load_folder(folder, "RTE")
    with pytest.raises(FileNotFoundError, match="there is no folder .*absent"):
        superglue.load_folder(tmp_path / "absent", "RTE")
