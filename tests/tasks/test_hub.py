import datasets
import pytest
from datasets import ClassLabel, Features, Value
from datasets import List as Many

from iptkit.methods import p_tuning_v2
from iptkit.scores import metrics
from iptkit.tasks import hub

TAGS = ["O", "B-PER", "I-PER"]
YES = ClassLabel(names=["False", "True"])
TEXT = Value("string")
ROWS = {  # of our own, in the hub's fields
    "boolq": ({"question": TEXT, "passage": TEXT, "label": YES}, ["do ducks swim", "Ducks swim.", 1], "yes"),
    "cb": (
        {
            "premise": TEXT,
            "hypothesis": TEXT,
            "label": ClassLabel(names=["entailment", "contradiction", "neutral"]),
        },
        ["It rains.", "it is dry", 1],
        "no",
    ),
    "copa": (
        {
            "premise": TEXT,
            "choice1": TEXT,
            "choice2": TEXT,
            "question": TEXT,
            "label": ClassLabel(names=["choice1", "choice2"]),
        },
        ["The cup fell.", "It flew.", "It broke.", "effect", 1],
        "It broke.",
    ),
    "multirc": (
        {"paragraph": TEXT, "question": TEXT, "answer": TEXT, "label": YES},
        ["Ben has a duck.", "What has Ben?", "a duck", 1],
        "yes",
    ),
    "rte": (
        {"premise": TEXT, "hypothesis": TEXT, "label": ClassLabel(names=["entailment", "not_entailment"])},
        ["It rains.", "it is dry", 1],
        "no",
    ),
    "wic": (
        {"word": TEXT, "sentence1": TEXT, "sentence2": TEXT, "label": YES},
        ["bank", "A bank lends.", "He sat on the bank.", 0],
        "no",
    ),
    "wsc": (
        {"text": TEXT, "span1_text": TEXT, "span2_text": TEXT, "label": YES},
        ["Ann saw Hana and she waved.", "Hana", "she", 0],
        "no",
    ),
    "conll03": (
        {"tokens": Many(TEXT), "ner_tags": Many(ClassLabel(names=TAGS))},
        [["Hana", "Lee", "ran"], [1, 2, 0]],
        "B-PER I-PER O",
    ),
    "ontonotes": (
        {"tokens": Many(TEXT), "tags": Many(ClassLabel(names=TAGS))},
        [["Ben", "ran"], [1, 0]],
        "B-PER O",
    ),
    "conll04": (
        {
            "tokens": Many(TEXT),
            "entities": Many({"start": Value("int64"), "end": Value("int64"), "type": TEXT}),
        },
        [["Ben", "Lee", "ran"], [{"start": 0, "end": 2, "type": "Peop"}]],
        "B-Peop I-Peop O",
    ),
    "squad": (
        {
            "question": TEXT,
            "context": TEXT,
            "answers": {"text": Many(TEXT), "answer_start": Many(Value("int32"))},
        },
        ["What has Ben?", "Ben has a duck.", {"text": ["a duck", "duck"], "answer_start": [8, 10]}],
        "a duck",
    ),
}
ROWS["squad2"] = ROWS["squad"]


def files_of(tmp_path, name, count=20):
    features, values, _ = ROWS[name]
    columns = {key: [value] * count for key, value in zip(features, values, strict=True)}
    table = datasets.Dataset.from_dict(columns, features=Features(features))
    files = {part: tmp_path / f"{part}.parquet" for part in ("train", "validation")}
    for path in files.values():
        table.to_parquet(path)
    return files


@pytest.mark.filterwarnings("ignore:.* all with the label")  # one record, many times
@pytest.mark.parametrize("name", hub.names())
def test_every_data_set_is_read_from_files_of_its_schema(tmp_path, name):
    task = hub.load(name, files_of(tmp_path, name))
    assert (len(task.train), len(task.dev), len(task.test)) == (18, 2, 20)
    example = task.test[0]
    assert example.targets[0] == ROWS[name][2]
    if task.category == "tag":
        assert example.labels and set(example.tags) <= set(example.labels)
        assert len(example.tags) == len(example.input.split())
    elif name.startswith("squad"):
        start = example.start
        assert example.passage[start : start + len(example.targets[0])] == example.targets[0]
    else:
        assert example.targets[0] in example.options


def test_settings_are_those_of_the_authors_scripts():
    assert hub.settings("rte") == {"prompt_length": 128, "lr": 5e-3, "batch": 32, "epochs": 100}
    assert hub.settings("wic", "bert-large")["form"] in p_tuning_v2.FORMS
    with pytest.raises(ValueError, match="no script for conll03 with 'bert-large'; they have: roberta-large"):
        hub.settings("conll03", "bert-large")


def test_errors_name_what_is_missing(tmp_path):
    files = files_of(tmp_path, "rte")
    with pytest.raises(ValueError, match="no data set 'sst'; choose one of boolq, cb"):
        hub.load("sst")
    with pytest.raises(FileNotFoundError, match="needs a Parquet file 'validation'"):
        hub.load("rte", {"train": files["train"]})
    with pytest.raises(
        ValueError, match=r"cb \(.*train.parquet\), record 0: .* its fields are: premise, hypothesis, label"
    ):
        hub.load("cb", with_a_label_that_cb_has_not(files))
    with pytest.raises(ValueError, match="dev_share is 0.7"):
        hub.load("rte", files, dev_share=0.7)


def with_a_label_that_cb_has_not(files):
    table = datasets.load_dataset("parquet", data_files=str(files["train"]), split="train")
    table = table.cast_column("label", Value("int64")).map(lambda row: {"label": 7})
    for path in files.values():
        table.to_parquet(path)
    return files


def test_tags_that_are_numbers_need_names(tmp_path):
    features = Features({"tokens": Many(TEXT), "tags": Many(Value("int32"))})
    table = datasets.Dataset.from_dict(
        {"tokens": [["Ben", "ran"]] * 4, "tags": [[1, 0]] * 4}, features=features
    )
    path = tmp_path / "some.parquet"
    table.to_parquet(path)
    files = {"train": path, "validation": path}
    with pytest.raises(ValueError, match="stores its tags as numbers without names; give the names"):
        hub.load("ontonotes", files, dev_share=0.5)
    assert hub.load("ontonotes", files, 0.5, TAGS).test[0].tags == ("B-PER", "O")


def test_without_the_hub_the_error_says_what_to_do(monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        FileNotFoundError, match=r"squad \(rajpurkar/squad\) cannot be read from the hub .* give Parquet"
    ):
        hub.load("squad")


def test_errors_name_wrong_and_empty_files(tmp_path):
    files = files_of(tmp_path, "rte")
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no")
    with pytest.raises(ValueError, match=r"text is not a Parquet file"):
        hub.load("rte", {**files, "validation": tmp_path / "text"})
    with pytest.raises(ValueError, match=r"folder is a folder, a file is needed; rte needs a Parquet file"):
        hub.load("rte", {**files, "train": tmp_path / "folder"})
    with pytest.raises(
        FileNotFoundError, match=r"there is no file .*absent; rte needs a Parquet file 'train'"
    ):
        hub.load("rte", {**files, "train": tmp_path / "absent"})
    features = Features({name: TEXT for name in ("premise", "hypothesis")} | {"label": Value("int64")})
    empty, nulls = tmp_path / "empty.parquet", tmp_path / "nulls.parquet"
    rows = {"premise": ["a", None], "hypothesis": ["b", "b"], "label": [0, 1]}
    datasets.Dataset.from_dict({name: [] for name in features}, features=features).to_parquet(empty)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(nulls)
    with pytest.raises(ValueError, match=r"there is no example in .*empty.parquet; give a file with some"):
        hub.load("rte", {**files, "validation": empty})
    with pytest.raises(ValueError, match=r"nulls.parquet\), record 1: premise has JSON type null"):
        hub.load("rte", {**files, "validation": nulls})


@pytest.mark.parametrize(
    ("name", "tags", "given", "expected", "note"),
    [
        ("conll03", ["O", "I-PER", "B-PER", "I-LOC"], "I-PER I-PER B-PER O I-LOC", 2, "IOB1 was converted"),
        ("ontonotes", ["O", "B-PER", "I-PER", "I-LOC"], "B-PER I-PER B-PER O I-LOC", 1, "IOB1 was converted"),
        ("conll03", ["O", "B-PER", "E-PER", "S-PER", "S-LOC"], "B-PER E-PER S-PER O S-LOC", 0, "BIOES was"),
    ],
)
def test_tags_of_other_schemes_are_converted_with_a_warning(tmp_path, name, tags, given, expected, note):
    """CoNLL-2003 was published as IOB1; in other data sets some spans begin with I-."""
    names = ClassLabel(names=tags)
    field = "ner_tags" if name == "conll03" else "tags"
    numbers = [tags.index(tag) for tag in given.split()]
    table = datasets.Dataset.from_dict(
        {"tokens": [["Hana", "Lee", "Ben", "in", "Rome"]] * 10, field: [numbers] * 10},
        features=Features({"tokens": Many(TEXT), field: Many(names)}),
    )
    files = {part: tmp_path / f"{part}.parquet" for part in ("train", "validation")}
    for path in files.values():
        table.to_parquet(path)
    with pytest.warns(UserWarning, match=f"{name}: {note}") as told:
        task = hub.load(name, files)
    assert len(told) == 1
    if expected:
        assert f"{20 * expected} of 60 spans began with I-" in str(told[0].message)
    assert task.test[0].tags == ("B-PER", "I-PER", "B-PER", "O", "B-LOC")
    assert set(task.labels) == {"O", "B-PER", "I-PER", "B-LOC", "I-LOC"}
    right = [example.targets[0] for example in task.test]
    assert metrics.span_f1(right, task.test, task) == 1.0


def test_bad_tags_and_spans_name_their_records(tmp_path):
    tags = ["O", "B-PER", "I-PER", "X"]
    features = Features({"tokens": Many(TEXT), "tags": Many(Value("int32"))})

    files = dict.fromkeys(("train", "validation"), tmp_path / "some.parquet")

    def load(numbers):
        columns = {"tokens": [["Ben", "ran"]] * 4, "tags": numbers}
        datasets.Dataset.from_dict(columns, features=features).to_parquet(files["train"])
        return hub.load("ontonotes", files, 0.5, tags)

    with pytest.raises(
        ValueError, match="4 bad tag.*\n.*record 1, word 2 ..ran..: tag 'X' is not an IOB2 tag"
    ):
        load([[1, 0], [1, 3], [1, 0], [3, 0]])
    with pytest.raises(ValueError, match="record 2: a tag is -1, as in a test set; give a file with tags"):
        load([[1, 0], [1, 0], [-1, 0], [1, 0]])
    with pytest.raises(ValueError, match="record 0: .* 2 words with 1 tags"):
        load([[1], [1, 0], [1, 0], [1, 0]])

    def entities(*spans):
        features, _, _ = ROWS["conll04"]
        record = {"tokens": ["Ben", "Lee", "ran"], "entities": [{**s, "type": "Peop"} for s in spans]}
        made = {key: [value] * 20 for key, value in record.items()}
        datasets.Dataset.from_dict(made, features=Features(features)).to_parquet(files["train"])
        return hub.load("conll04", files)

    with pytest.raises(
        ValueError, match="record 0: the span .* overlaps another, but a word can have one tag"
    ):
        entities({"start": 0, "end": 2}, {"start": 1, "end": 3})
    with pytest.raises(
        ValueError, match="record 0: the span .* does not fit in the 3 tokens of its sentence"
    ):
        entities({"start": 2, "end": 4})
