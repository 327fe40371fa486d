"""Ten files of a user in shapes that public data sets have, and broken ones; all texts are our own."""

import json
import warnings
from collections import Counter

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from iptkit.course import cli
from iptkit.storage import messages, paths
from iptkit.tasks import suites

ANIMALS = ("cat", "dog", "hen", "cow", "owl", "bee", "fox", "ant")
VERBS = ("sings", "naps", "eats", "runs", "hides", "waits")


def texts(count, kind="", start=0):
    """Return different sentences, each with one of two labels, in turn."""
    all_of = [f"The {kind}{a} {v}" for v in VERBS for a in ANIMALS]
    return [(all_of[i], ("good", "bad")[i % 2]) for i in range(start, start + count)]


def parts(**counts):
    """Return the texts of each split, without a text in two of them."""
    start, made = 0, {}
    for name, count in counts.items():
        made[name] = texts(count, start=start)
        start += count
    return made


def csv_of(rows, header="sentence,label", end="\n"):
    return end.join([header, *(f'"{text}",{label}' for text, label in rows)]) + end


def few_shot_tsv(folder):
    """text<TAB>label without a header, train, dev and test: a folder of 16 examples per class."""
    for name, rows in parts(train=16, dev=16, test=12).items():
        (folder / f"{name}.tsv").write_text("".join(f"{t} .\t{label}\n" for t, label in rows))
    return folder, {}, {"category": "cls", "sizes": (16, 0, 16, 12), "labels": ("bad", "good")}


def csv_with_header(folder):
    file = folder / "reviews.csv"
    file.write_text(csv_of(texts(40)))
    return file, {}, {"category": "cls", "sizes": (10, 10, 10, 10), "labels": ("bad", "good")}


def csv_of_excel(folder):
    """Byte order mark, CR LF, and texts with line breaks and quotes."""
    rows = [(f'{t}\r\nand says ""hi"", twice', label) for t, label in texts(40)]
    file = folder / "Reviews.CSV"
    file.write_bytes(b"\xef\xbb\xbf" + csv_of(rows, "Text,Label", "\r\n").encode())
    return file, {}, {"category": "cls", "sizes": (10, 10, 10, 10), "input": '\nand says "hi", twice'}


def glue_tsv(folder):
    """An index column, two sentences, quotes that do not pair, and a test set without labels."""
    names = {"train": 24, "dev": 12, "test": 8}
    for name, rows in parts(**names).items():
        if name == "test":
            lines = ["index\tsentence1\tsentence2", *(f'{i}\t"{t}\tAn echo' for i, (t, _) in enumerate(rows))]
        else:
            lines = ["index\tsentence1\tsentence2\tlabel"]
            lines += [f'{i}\t"{t}\tAn echo\t{label}' for i, (t, label) in enumerate(rows)]
        (folder / f"{name}.tsv").write_text("\n".join(lines))
    told = "dev is the test set"
    return folder, {}, {"category": "cls", "sizes": (12, 0, 12, 12), "told": told, "input": "\nAn echo"}


def saved_dataset(folder):
    """DatasetDict.save_to_disk, with ClassLabel and an unlabelled test split."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["good", "bad", "unsure"])}
    )
    made = {}
    for name, rows in parts(train=24, validation=12, test=8).items():
        labels = [-1 if name == "test" else ("good", "bad").index(label) for _, label in rows]
        made[name] = datasets.Dataset.from_dict({"text": [t for t, _ in rows], "label": labels}, features)
    datasets.disable_progress_bars()
    datasets.DatasetDict(made).save_to_disk(folder / "saved")
    datasets.enable_progress_bars()
    return (
        folder / "saved",
        {},
        {"category": "cls", "sizes": (12, 0, 12, 12), "labels": ("good", "bad", "unsure")},
    )


def parquet_choices(folder):
    """Multiple choice: a list of options and the place of the right one, in shards as on the hub."""
    for name, rows in parts(train=20, validation=8, test=8).items():
        table = pa.table(
            {
                "question": [f"{t}?" for t, _ in rows],
                "choices": [[f"a {t[4:7]}", f"a stone {i}", "a tree"] for i, (t, _) in enumerate(rows)],
                "answer": [i % 3 for i in range(len(rows))],
            }
        )
        pq.write_table(table, folder / f"{name}-00000-of-00001.parquet")
    return folder, {}, {"category": "mcqa", "sizes": (20, 0, 8, 8), "targets": 3}


def superglue_folder(folder):
    """Premise and hypothesis with train, val, and test without labels."""
    for name, rows in parts(train=24, val=12, test=8).items():
        records = [
            {"premise": t, "hypothesis": "It rests.", "idx": i}
            | ({} if name == "test" else {"label": {"good": "entailment", "bad": "not_entailment"}[label]})
            for i, (t, label) in enumerate(rows)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    labels = ("entailment", "not_entailment")
    return folder, {}, {"category": "cls", "sizes": (12, 0, 12, 12), "labels": labels, "told": "no labels"}


def own_lines(folder):
    """The kit's own JSON lines, with splits."""
    for name, rows in parts(train=36, dev=4, test=8).items():
        lines = [{"input": f"{t}. How?", "target": t[-4:]} for t, _ in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder, {}, {"category": "qa", "sizes": (32, 4, 4, 8)}


def conll_folder(folder):
    for name, rows in parts(train=20, dev=6, test=6).items():
        sentences = [
            "".join(f"{w} {'B-animal' if w in ANIMALS else 'O'}\n" for w in t.split()) for t, _ in rows
        ]
        (folder / f"{name}.conll").write_text("\n".join(sentences))
    return folder, {}, {"category": "tag", "sizes": (20, 0, 6, 6), "labels": ("B-animal", "O")}


def nested_answers(folder):
    """Question answering: passage, question, and answers in a nested list."""
    for name, rows in parts(train=24, dev=8).items():
        records = [
            {"id": str(i), "context": f"{t} at home.", "question": "Where?",
             "answers": {"text": ["at home", "home", "home"], "answer_start": [3, 4, 4]}}
            for i, (t, _) in enumerate(rows)
        ]  # fmt: skip
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return folder, {}, {"category": "qa", "sizes": (12, 0, 12, 8), "input": "at home.\nWhere?"}


def unusual_names(folder):
    file = folder / "mine.csv"
    file.write_text(
        csv_of(texts(40), "utterance,intent,note").replace("good\n", "good,x\n").replace("bad\n", "bad,\n")
    )
    return file, {"columns": "input=utterance,target=intent"}, {"category": "cls", "sizes": (10, 10, 10, 10)}


SHAPES = [
    few_shot_tsv,
    csv_with_header,
    csv_of_excel,
    glue_tsv,
    saved_dataset,
    parquet_choices,
    superglue_folder,
    own_lines,
    conll_folder,
    nested_answers,
    unusual_names,
]


def loaded(path, **options):
    """Return the tasks of a path and the warnings, as texts."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        found = suites.load_suite(path, **options)
    return found, [str(warning.message) for warning in noted]


@pytest.mark.parametrize("make", SHAPES, ids=lambda make: make.__name__)
def test_files_of_ten_shapes_load_and_pass_the_check(tmp_path, make):
    path, options, expected = make(tmp_path)
    (task,), told = loaded(path, **options)
    sets = (task.train, task.train_new, task.dev, task.test)
    assert task.category == expected["category"]
    assert tuple(map(len, sets)) == expected["sizes"]
    assert task.labels == expected.get("labels", task.labels)
    assert expected.get("told", "") in "".join(told) and len(told) <= 1
    for example in (e for of in sets for e in of):
        assert example.input.endswith(expected.get("input", "")) and example.targets[0]
        assert "\r" not in example.input
        assert not example.options or example.targets[0] in example.options
    inputs = Counter(e.input for of in sets for e in of)
    assert max(inputs.values()) == 1, "an input in two sets"
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    found = CliRunner().invoke(cli.app, ["tasks", "check", str(path), *words])
    assert found.exit_code == 0 and f"{task.id}: fine ({task.category}" in found.output, found.output


# ---- broken files --------------------------------------------------------------------------------
def unknown_column(folder):
    file = folder / "mine.csv"
    file.write_text(csv_of(texts(12)))
    return (
        file,
        {"columns": "input=sentnce,target=label"},
        "mine.csv has no column 'sentnce'; its columns are: sentence, label",
    )


def empty_split(folder):
    (folder / "train.csv").write_text(csv_of(texts(12)))
    (folder / "test.csv").write_text("sentence,label\n")
    return folder, {}, "test.csv:1: there is no example; add some, or remove the file"


def label_only_in_test(folder):
    (folder / "train.csv").write_text(csv_of(texts(12)))
    (folder / "test.csv").write_text(csv_of([("It rains", "good"), ("It snows", "odd")]))
    told = "test.csv:3: label 'odd' is not one of the labels of train.csv (bad, good); correct it, or add"
    return folder, {}, told


def unlabelled_train(folder):
    (folder / "train.csv").write_text(csv_of([(t, "") for t, _ in texts(12)]))
    (folder / "test.csv").write_text(csv_of(texts(4, start=12)))
    return (
        folder,
        {},
        "train.csv:1: no line has a label (column label); write the answers, or name their column",
    )


def ragged_row(folder):
    file = folder / "mine.csv"
    file.write_text(csv_of(texts(12)) + "The bee, it naps,good\n")
    told = "mine.csv:14: the row has 3 cell(s), but the header has 2; put a text with commas in double quotes"
    return file, {}, told


def ragged_row_of_excel(folder):
    """A German export: semicolons, commas in the header, and a text with a semicolon."""
    file = folder / "mine.csv"
    file.write_text("Nr. (lfd., intern);sentence;label\n" + "".join(f"1;{t};{x}\n" for t, x in texts(12)))
    with open(file, "a") as more:
        more.write("13;The bee; it naps;good\n")
    return file, {}, "mine.csv:14: the row has 4 cell(s), but the header has 3; put a text with semicolons in"


def short_row(folder):
    file = folder / "mine.csv"
    file.write_text(csv_of(texts(12)) + "The bee naps\n")
    return file, {}, "mine.csv:14: the row has 1 cell(s), but the header has 2; add what is missing, or put a"


def comma_in_a_name(folder):
    file = folder / "mine.csv"
    file.write_text("No (all, new);words;tone\n" + "".join(f"1;{t};{x}\n" for t, x in texts(12)))
    told = "mine.csv has no column 'text'; its columns are: 'No (all, new)', words, tone"
    return file, {"columns": "input=text,target=tone"}, told


def roles_with_a_semicolon(folder):
    options = {"columns": "input=sentence;target=label"}
    return csv_with_header(folder)[0], options, "give every role once with its column, separated by commas"


def spreadsheet(folder):
    file = folder / "mine.xlsx"
    file.write_bytes(b"PK")
    return file, {}, 'mine.xlsx is a spreadsheet; save it as a .csv file (in Excel as "CSV UTF-8")'


def wrong_encoding(folder):
    file = folder / "mine.csv"
    file.write_bytes(csv_of([("The caf\u00e9 is open", "good"), *texts(12)]).encode("latin-1"))
    return file, {}, "mine.csv:2: broken UTF-8 at byte 23 of the file; save the file as UTF-8"


def names_without_header(folder):
    file = folder / "mine.csv"
    file.write_text("0,The cat naps\n1,The dog runs\n" * 3)
    told = "name the columns of the input and of the target as the kit knows them"
    return file, {}, f"{told}; name them with --columns 'input=0,target=The cat naps', or, if that line"


def header_of_unknown_names(folder):
    for name, rows in parts(train=12, test=8).items():
        (folder / f"{name}.tsv").write_text("utterance\tintent\n" + "".join(f"{t}\t{x}\n" for t, x in rows))
    return (
        folder,
        {},
        "looks like a header with unknown names; name them with --columns input=utterance,target=intent",
    )


def two_columns_for_one_role(folder):
    file = folder / "mine.csv"
    file.write_text(csv_of([(t, f"{x},x") for t, x in texts(12)], "text,label,answer"))
    return file, {}, "mine.csv: label or answer can be the target; name one: --columns target=label"


def open_quote(folder):
    file = folder / "mine.csv"
    file.write_text(csv_of(texts(6)) + '"The bee,good\n')
    return file, {}, "mine.csv:8: the row cannot be read (unexpected end of data); put a text with quotes"


def two_files_of_one_split(folder):
    for name in ("train.csv", "test.csv", "test.tsv"):
        (folder / name).write_text(csv_of(texts(6)))
    return folder, {}, "has test.csv and test.tsv for the same split; keep one of them"


def no_parquet(folder):
    file = folder / "mine.parquet"
    file.write_bytes(b"PAR1 and no more")
    return file, {}, "mine.parquet is not a Parquet file, or is damaged ("


def shared_input(folder):
    (folder / "train.csv").write_text(csv_of(texts(12)))
    (folder / "test.csv").write_text(csv_of([*texts(4, start=12), texts(3)[2]]))
    return (
        folder,
        {},
        "train.csv:4: same input as test.csv:6; remove it here, or leave such lines out with --drop-",
    )


def odd_column_list(folder):
    return csv_with_header(folder)[0], {"columns": "sentence"}, "columns are 'sentence'; give every role once"


BROKEN = [
    unknown_column,
    empty_split,
    label_only_in_test,
    unlabelled_train,
    ragged_row,
    ragged_row_of_excel,
    short_row,
    comma_in_a_name,
    roles_with_a_semicolon,
    spreadsheet,
    wrong_encoding,
    names_without_header,
    header_of_unknown_names,
    two_columns_for_one_role,
    open_quote,
    two_files_of_one_split,
    no_parquet,
    shared_input,
    odd_column_list,
]


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_a_broken_file_gets_one_clear_line(tmp_path, make):
    path, options, told = make(tmp_path)
    with pytest.raises(ValueError) as error:
        loaded(path, **options)
    assert told in str(error.value)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    found = CliRunner().invoke(cli.app, ["tasks", "check", str(path), *words])
    assert found.exit_code in (1, 2) and told in found.output
    lines = [line for line in found.output.splitlines() if "nothing was changed" not in line]
    assert len(lines) == 1, found.output


# ---- duplicates ----------------------------------------------------------------------------------
def test_duplicates_are_refused_or_dropped(tmp_path):
    file = tmp_path / "mine.csv"
    rows = texts(24)
    file.write_text(csv_of([*rows, rows[0], ("THE CAT  SINGS", "good"), (rows[1][0], "good")]))
    with pytest.raises(
        ValueError, match=r"mine.csv has 2 problem.*\n.*mine.csv:26: same input and answer as line 2; remove"
    ):
        suites.load_suite(file)
    (task,), (told,) = loaded(file, drop_duplicates=True)
    assert "2 duplicate input(s) left out (first: " in told and "mine.csv:26, same as line 2)" in told
    assert "mine.csv:28 has another answer than line 3, which was kept" in told
    drawn = [e for of in (task.train, task.train_new, task.dev, task.test) for e in of]
    assert len(drawn) == 24 and {(e.input, e.targets[0]) for e in drawn} == {*rows}
    (tmp_path / "mine.card.json").write_text('{"drop_duplicates": true}')
    assert loaded(file)[0] == [task]
    found = CliRunner().invoke(cli.app, ["tasks", "check", str(file), "--drop-duplicates"])
    assert found.exit_code == 0 and "2 duplicate input(s) left out" in found.output


def test_what_the_test_set_holds_is_dropped_from_the_others(tmp_path):
    rows = texts(36)
    (tmp_path / "train.csv").write_text(csv_of(rows[:20]))
    (tmp_path / "dev.csv").write_text(csv_of(rows[18:26]))
    (tmp_path / "test.csv").write_text(csv_of([*rows[26:], rows[0], rows[25]]))
    (task,), (told,) = loaded(tmp_path, drop_duplicates=True, full=True)
    assert [len(of) for of in (task.train, task.dev, task.test)] == [
        17,
        7,
        12,
    ] and "4 duplicate input" in told
    sets = [{e.input for e in of} for of in (task.train, task.dev, task.test)]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]


def test_sentences_with_tags_may_recur(tmp_path):
    for name, sentence in (
        ("train", "a B-x\n\na B-x\n\nb O\n"),
        ("dev", "c O\n\nd B-x\n"),
        ("test", "b O\n\ne B-x\n"),
    ):
        (tmp_path / f"{name}.conll").write_text(sentence)
    (task,), (told,) = loaded(tmp_path)
    assert len(task.train) == 3 and "1 input(s) are in two sets (first: " in told and "test.conll:1" in told
    (task,), _ = loaded(tmp_path, drop_duplicates=True)
    assert [e.input for e in task.train] == ["a"] and len(task.test) == 2


# ---- columns, labels, sizes ----------------------------------------------------------------------
@pytest.mark.parametrize(
    "columns", ["input=1,target=0", {"input": 1, "target": 0}, {"input": ["1"], "target": "0"}]
)
def test_columns_of_a_file_without_header_are_counted(tmp_path, columns):
    file = tmp_path / "mine.csv"
    file.write_text("".join(f'{label},"{t}, twice"\n' for t, label in texts(40)))
    (task,), _ = loaded(file, columns=columns)
    assert task.labels == ("bad", "good") and len(task.train) == 10
    assert {e.input for of in (task.train, task.train_new, task.dev, task.test) for e in of} == {
        f"{t}, twice" for t, _ in texts(40)
    }


@pytest.mark.parametrize(("answer", "kind"), [("bad", UserWarning), ("good", messages.Note)])
def test_left_out_duplicates_are_a_note_but_a_warning_if_answers_differ(tmp_path, answer, kind):
    file = tmp_path / "mine.csv"
    file.write_text(csv_of([("it is fine", "good"), *texts(12), ("it is fine", answer)]))
    with pytest.warns(UserWarning, match="1 duplicate input") as noted:
        suites.load_suite(file, drop_duplicates=True)
    assert [one.category for one in noted] == [kind]


def test_a_first_row_that_looks_like_a_header_is_an_example_if_columns_say_so(tmp_path):
    file = tmp_path / "mine.tsv"
    file.write_text("utterance\tintent\n" + "".join(f"{t}\t{label}\n" for t, label in texts(40)))
    with pytest.raises(
        ValueError, match=r"mine.tsv:1: the first line \(utterance, intent\) looks like a header"
    ):
        suites.load_suite(file)
    (task,), notes = loaded(file, columns="input=0,target=1")
    assert "intent" in task.labels
    assert "the first line (utterance, intent) is an example, because the columns are named by" in str(notes)
    assert loaded(file, columns="input=utterance,target=intent")[0][0].labels == ("bad", "good")


def test_a_card_names_the_format_of_a_file_with_another_ending(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"# {i}\nbird B-x X\nw{i} O Y\n\n" for i in range(12)))
    with pytest.raises(
        ValueError, match=r"mine.txt does not end in .*, or name its format in mine.card.json"
    ):
        suites.load_suite(file)
    card = {"format": "conll", "comment": "#", "columns": {"input": 0, "target": 1}}
    (tmp_path / "mine.card.json").write_text(json.dumps(card))
    (task,), _ = loaded(file)
    assert task.category == "tag" and task.labels == ("B-x", "O") and len(task.train) == 3
    (tmp_path / "mine.card.json").write_text(json.dumps({**card, "columns": "input=word"}))
    with pytest.raises(
        ValueError, match="columns name 'word' for input, but those of a CoNLL file are counted"
    ):
        suites.load_suite(file)


def test_a_card_names_columns_and_labels(tmp_path):
    """Numbers as labels get names; two columns make the input."""
    rows = [f'"{t}","so, {i}",{i % 2}' for i, (t, _) in enumerate(texts(40))]
    (tmp_path / "mine.csv").write_text("a,b,c\n" + "\n".join(rows))
    card = {"columns": "input=a+b,target=c", "label_names": {"1": "yes", "0": "no"}, "title": "Mine"}
    (tmp_path / "mine.card.json").write_text(json.dumps(card))
    (task,), told = loaded(tmp_path)
    assert (task.title, task.labels, told) == ("Mine", ("yes", "no"), [])
    for example in task.train:
        number = int(example.input.split("so, ")[1])
        assert example.targets == (("no", "yes")[number % 2],) and "\nso, " in example.input
    for field, value, allowed in (
        ("columns", 3, '"input=...,target=..."'),
        ("label_names", {"0": 1}, '{"0": "bad", "1": "good"}'),
        ("drop_duplicates", "yes", "true, false"),
        ("format", "xml", "jsonl, csv, tsv, parquet, conll"),
        ("format", ["csv"], "jsonl, csv, tsv, parquet, conll"),
        ("max_input", 0, "integers of at least 1"),
        ("files", {"dec": "a"}, '{"train": "...", "dev": "...", "test": "..."}'),
    ):
        (tmp_path / "mine.card.json").write_text(json.dumps({field: value}))
        with pytest.raises(ValueError) as error:
            suites.load_suite(tmp_path)
        assert f"mine.card.json: {field} is {value!r}, allowed are: {allowed}" in str(error.value)


def test_a_category_on_the_card_overrides_what_is_inferred(tmp_path):
    path, _, _ = csv_with_header(tmp_path)
    (tmp_path / "reviews.card.json").write_text('{"category": "qa"}')
    (task,), _ = loaded(path)
    assert task.category == "qa" and task.train[0].options == ()


def test_a_rare_label_is_a_label_and_one_label_is_none(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(csv_of([*texts(20), ("It rains", "odd")]))
    (task,), told = loaded(file)
    assert (
        task.labels == ("bad", "good", "odd") and "'odd' has 1 example(s), so some sets lack them" in told[1]
    )
    file.write_text(csv_of([(t, "good") for t, _ in texts(20)]))
    assert loaded(file)[0][0].category == "qa"
    (tmp_path / "mine.card.json").write_text('{"category": "cls"}')
    with pytest.raises(
        ValueError, match="mine.csv:1: all answers are 'good', but a classification needs two"
    ):
        suites.load_suite(file)


def test_few_examples_of_what_may_be_labels_are_free_answers_with_a_warning(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(csv_of([*texts(6), ("It rains", "odd")]))
    (task,), told = loaded(file)
    warned = [text for text in told if "'odd' is the answer of only one of 7 examples" in text]
    assert task.category == "qa" and '"category": "cls" on the card' in warned[0]
    (tmp_path / "mine.card.json").write_text('{"category": "cls"}')
    assert loaded(file)[0][0].labels == ("bad", "good", "odd")


def test_labels_that_differ_only_in_case_are_reported(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(csv_of([*texts(20), ("It rains", "Good"), ("It snows", "Good")]))
    (task,), told = loaded(file)
    assert task.labels == ("Good", "bad", "good")
    assert any("'Good' and 'good' differ only in case; spell them alike" in text for text in told)


def test_tables_of_other_text_types_are_read(tmp_path):
    rows = texts(20)
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        table = {"text": pa.array([t for t, _ in rows]).cast(kind), "label": [i % 2 for i in range(20)]}
        pq.write_table(pa.table({**table, "picture": [b"x"] * 20}), tmp_path / "mine.parquet")
        (task,), _ = loaded(tmp_path)
        assert {e.input for e in task.train} <= {t for t, _ in rows} and task.labels == ("0", "1")


def test_objects_need_a_part_and_lists_of_answers_are_read(tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = [
        {"question": t, "answer": {"value": f"a {i}", "aliases": [f"b {i}"]}}
        for i, (t, _) in enumerate(texts(12))
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(
        ValueError, match="holds objects with the parts value, aliases; name the part .*answer.value"
    ):
        suites.load_suite(file)
    (task,), _ = loaded(file, columns="target=answer.value")
    assert task.train[0].targets[0].startswith("a ")
    rows = [
        {"question": t, "answers": [{"text": f"a {i}"}, {"text": "or b"}]}
        for i, (t, _) in enumerate(texts(12))
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    (task,), _ = loaded(file)
    assert task.train[0].targets[1] == "or b"


def test_a_large_test_set_of_ones_own_is_whole_on_request(tmp_path):
    for name, count, verb in (("train", 40, "sings"), ("test", 300, "rests")):
        rows = [(f"bird {i} {verb}", ("up", "down")[i % 2]) for i in range(count)]
        (tmp_path / f"{name}.csv").write_text(csv_of(rows))
    assert len(loaded(tmp_path)[0][0].test) == 256 and len(loaded(tmp_path, max_test=1000)[0][0].test) == 300
    found = CliRunner().invoke(cli.app, ["tasks", "check", str(tmp_path)])
    assert "test 256 (of 300)" in found.output


def test_a_tsv_with_quotes_is_read_as_it_was_written(tmp_path):
    """Quotes are part of the texts, unless the rows fit together only with them."""
    file = tmp_path / "mine.tsv"
    file.write_text("text\tlabel\n" + "".join(f'"{t}\t{label}\n' for t, label in texts(12)))
    assert loaded(file)[0][0].train[0].input.startswith('"The')
    file.write_text("text\tlabel\n" + "".join(f'"{t}\nor not"\t{label}\n' for t, label in texts(12)))
    assert loaded(file)[0][0].train[0].input.endswith("s\nor not")
    file.write_text("text\tlabel\n" + "".join(f'"{t} ""now"""\t{label}\n' for t, label in texts(12)))
    assert loaded(file)[0][0].train[0].input.endswith('s "now"')


@pytest.mark.parametrize("begin", ["sep=;\r\n", '"sep=;"\n'])
def test_the_line_in_which_excel_names_the_separator_is_no_row(tmp_path, begin):
    file = tmp_path / "mine.csv"
    rows = "".join(f"{t}, yes;{label}\n" for t, label in texts(12))
    file.write_text(begin + "sentence;label\n" + rows)
    assert loaded(file)[0][0].labels == ("bad", "good")
    file.write_text(begin + "sentence;label\n" + rows + "one cell\n")
    with pytest.raises(ValueError, match="mine.csv:15: the row has 1 cell"):
        suites.load_suite(file)


def test_other_separators_and_empty_lines(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("\n\nsentence;label\n\n" + "".join(f"{t}, yes;{label}\n\n" for t, label in texts(12)))
    assert loaded(file)[0][0].train[0].input.endswith(", yes")


def test_files_for_the_kits_own_suites_are_refused():
    with pytest.raises(ValueError, match="columns, files and drop_duplicates are for files of your own"):
        suites.load_suite("tiny", columns="input=a")


def test_the_example_of_words_to_tag_is_read_without_a_note():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (task,) = suites.load_suite(paths.data_dir() / "own" / "kitchen.conll", full=True)
    assert (task.category, task.metric) == ("tag", "span_f1")
    assert (len(task.train), len(task.dev), len(task.test)) == (36, 18, 18)
    assert {tag[2:] for tag in task.labels if tag != "O"} == {"amount", "food", "tool"}
