import doctest

import pytest

from iptkit.tasks import columns


@pytest.mark.parametrize(
    ("there", "given", "of", "guessed"),
    [
        (("sentence", "label"), {}, {"input": ("sentence",), "target": ("label",)}, ("input", "target")),
        (("input", "targets", "x"), {}, {"input": ("input",), "target": ("targets",)}, ()),
        (("Text ", "y"), {"target": "y"}, {"input": ("Text ",), "target": ("y",)}, ("input",)),
        (("a", "b", "c"), {"input": "a + b", "target": "C"}, {"input": ("a", "b"), "target": ("c",)}, ()),
        (("a+b", "c"), {"input": "a+b", "target": "c"}, {"input": ("a+b",), "target": ("c",)}, ()),
        (("0", "1"), {"input": 1, "target": 0}, {"input": ("1",), "target": ("0",)}, ()),
        (("idx", "premise", "hypothesis"), {}, {"input": ("premise", "hypothesis")}, ("input",)),
        (
            ("q", "answers"),
            {"input": "q", "target": "answers.text"},
            {"input": ("q",), "target": ("answers.text",)},
            (),
        ),
        (
            ("instruction", "input", "output"),
            {},
            {"input": ("instruction", "input"), "target": ("output",)},
            ("input", "target"),
        ),
        (("tokens", "ner_tags"), {}, {"input": ("tokens",), "target": ("ner_tags",)}, ("input", "target")),
    ],
)
def test_columns_are_given_or_found_by_their_usual_names(there, given, of, guessed):
    found = columns.find(there, given, "mine.csv")
    assert dict(found.of) == of and found.guessed == guessed


@pytest.mark.parametrize(
    ("there", "given", "told"),
    [
        (("a",), {"input": "b"}, "mine.csv has no column 'b'; its columns are: a"),
        (("A", "A "), {"input": "a"}, "mine.csv has no column 'a'; its columns are: A, A "),
        (
            ("text", "sentence"),
            {},
            "mine.csv: text or sentence can be the input; name one: --columns input=text",
        ),
        (("tags", "ner_tags"), {}, "ner_tags or tags can be the target; name one: --columns target=ner_tags"),
    ],
)
def test_columns_that_are_not_clear_are_named(there, given, told):
    with pytest.raises(columns.ColumnsError, match=told):
        columns.find(there, given, "mine.csv")


@pytest.mark.parametrize("text", ["input", "input=", "=a", "input=a,input=b", "inptu=a", "input=a,,"])
def test_a_wrong_text_is_named(text):
    with pytest.raises(
        columns.ColumnsError, match=r"give every role once|allowed are: input, target, options"
    ):
        columns.parse(text)


@pytest.mark.parametrize("given", [3, ["input"], {"input": 1.5}, {"input": []}, {"target": True}, {3: "a"}])
def test_columns_of_a_wrong_type_are_named(given):
    with pytest.raises(columns.ColumnsError, match="columns"):
        columns.checked(given)


@pytest.mark.parametrize(
    ("fields", "picked"),
    [
        ({"q": " a ", "x": 3}, {"input": "a", "target": "3"}),
        ({"q": "a", "x": True}, {"input": "a", "target": "true"}),
        ({"q": "a", "x": None}, {"input": "a"}),
        ({"q": "a", "x": " "}, {"input": "a"}),
        ({"q": None, "x": ["b", "c", "b"]}, {"input": "", "targets": ["b", "c"]}),
        ({"q": "a", "x": {"text": ["b"], "answer_start": [1]}}, {"input": "a", "targets": ["b"]}),
        ({"q": "a", "x": {"text": []}}, {"input": "a"}),
        ({"q": "a"}, {"input": "a"}),
    ],
)
def test_values_become_texts(fields, picked):
    assert columns.pick(fields, columns.Columns({"input": ("q",), "target": ("x",)})) == picked


@pytest.mark.parametrize(
    ("options", "of", "made"),
    [
        (["b ", 2], ("o",), ["b", "2"]),
        ('["b", "c"]', ("o",), ["b", "c"]),
        ({"label": ["A", "B"], "text": ["b", "c"]}, ("o",), ["b", "c"]),
        ("b", ("o", "q"), ["b", "a"]),
        ("b|c", ("o",), "b|c"),
    ],
)
def test_options_become_a_list(options, of, made):
    roles = columns.Columns({"input": ("q",), "target": ("x",), "options": of})
    assert columns.pick({"q": "a", "x": "b", "o": options}, roles)["options"] == made


@pytest.mark.parametrize(
    ("targets", "answers"),
    [
        (["0", "2"], ["a", "c"]),
        (["1", "3"], ["a", "c"]),
        (["A", "C"], ["a", "c"]),
        (["1", "2"], None),  # from 0 or from 1?
        (["0", "3"], None),
        (["a", "2"], None),
        (["A", "D"], None),
        (["A", "1"], None),
    ],
)
def test_places_among_the_options_become_answers(targets, answers):
    rows = [{"input": "q", "target": target, "options": ["a", "b", "c"]} for target in targets]
    note = columns.with_answers(rows)
    assert [row["target"] for row in rows] == (answers or targets) and bool(note) == bool(answers)


def test_examples_in_docstrings():
    assert doctest.testmod(columns).failed == 0


@pytest.mark.parametrize(
    ("there", "roles", "told"),
    [
        (["utterance", "intent"], ("input", "target"), "input=utterance,target=intent"),
        (["utterance", "label", "x"], ("input", "target"), "input=COLUMN,target=label"),
        (["text", "mood"], ("target",), "target=mood"),
        (["premise", "hypothesis", "y"], ("input", "target"), "input=premise+hypothesis,target=y"),
        (["What was said", "mood"], ("input",), "'input=What was said'"),
        (["a, b", "mood"], ("input", "target"), "input=COLUMN,target=mood"),
        (["label"], ("input",), "input=COLUMN"),
        (["id", "utterance", "intent"], ("input", "target"), "input=COLUMN,target=COLUMN"),
        ([], ("input", "target"), "input=COLUMN,target=COLUMN"),
    ],
)
def test_an_example_of_the_option_names_columns_of_the_file(there, roles, told):
    assert columns.example(there, roles) == told
