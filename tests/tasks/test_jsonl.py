import json

import pytest

from iptkit.tasks import own_tasks, schemes, suites
from iptkit.tasks.examples import Example
from iptkit.tasks.jsonl import check_jsonl, near_duplicates, read_jsonl

GOOD = {"input": "What is one plus one?", "targets": ["two", "2"]}


def write(path, *lines):
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(raw))
    return path


def read_task(file):
    """The examples and the card, with the warnings that whoever uses the task gets."""
    (found,) = own_tasks.read_all(file)
    card = found.card
    own_tasks.warn(found)
    return found.kept[""], card


def read_card(file):
    (found,) = own_tasks.read_all(file)
    return found.card


def test_reads_both_spellings_blank_lines_and_a_byte_order_mark(tmp_path):
    file = write(
        tmp_path / "a.jsonl",
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        b"",
        b"  \r",
        {"input": "Up or down? \n", "target": " up", "options": ["up", "down"], "note": "ignored"},
    )
    file.write_bytes(file.read_bytes().replace(b', "options": ["up", "down"]', b""))
    assert read_jsonl(file) == [
        Example("What is one plus one?", ("two", "2")),
        Example("Up or down?", ("up",)),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"targets": ["a"]}, "field 'input' is missing (found: targets); add it"),
        (
            {"input": "q", "answer": "a"},
            "field 'target' is missing (found: input, answer); rename 'answer' to 'target', or add it",
        ),
        (
            {"input": "q", "output": ["a"]},
            "field 'target' is missing (found: input, output); rename 'output' to 'targets'",
        ),
        (
            {"input": "q", "Label": "a"},
            "field 'target' is missing (found: input, Label); rename 'Label' to 'target'",
        ),
        (
            {"text": "q", "target": "a"},
            "field 'input' is missing (found: text, target); rename 'text' to 'input'",
        ),
        (
            {f"x{i}": "q" for i in range(9999)} | {"input": "q"},
            "field 'target' is missing (found: x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, ...); add it",
        ),
        (
            b'{"input": "q", "target": "a", "target": "b"}',
            "'target' appears twice in one object; keep one of them",
        ),
        (b'{"input": "q", "target": "a", "weight": NaN}', "NaN is no JSON; write a number, null or a string"),
        (b"[" * 100_000, "lists or objects are nested more than 100 deep"),
        (
            {"input": "q", "target": "a", "options": 0},
            "options has JSON type number, allowed is a list of strings",
        ),
        (
            {"input": 3, "target": "a"},
            "input has JSON type number, allowed is a string; put it in double quotes",
        ),
        (
            {"input": "q", "target": ["a"]},
            "target is a JSON list, allowed is a string; rename it to targets",
        ),
        ({"input": "q", "target": None}, "target has JSON type null, allowed is a string"),
        ({"input": "q", "targets": "a"}, "targets has JSON type string, allowed is a list of strings"),
        ({"input": "q", "targets": ["a", True]}, "targets[1] has JSON type true/false, allowed is a string"),
        ({"input": "q", "targets": []}, "targets has 0 item(s), but needs at least 1; add some"),
        (
            {"input": "q", "target": "a", "targets": ["a"]},
            "there are both target and targets; keep targets only",
        ),
        ({"input": " ", "target": "a"}, "input is empty; write a text, or remove the line"),
        ({"input": "q", "target": ""}, "target is empty"),
        ({"input": "q", "targets": ["a", "a"]}, "targets has the same item twice; keep one"),
        (
            {"input": "q", "target": "no", "options": ["yes", "yes ", "no"]},
            "options has the same item twice; keep one",
        ),
        (
            {"input": "q", "target": "c", "options": ["a", "b"]},
            "target 'c' is not one of the options ['a', 'b']",
        ),
        (
            {"input": "q", "target": "a", "options": ["a"]},
            "options has 1 item(s), but needs at least 2; add some",
        ),
        (
            {"input": "q", "target": "a", "options": {"a": 1}},
            "options has JSON type object, allowed is a list of strings",
        ),
        (
            {"input": "q", "targets": ["one", "one\ntwo"]},
            "target 'one\\ntwo' has a line break, but a free answer ends with its first line; write it",
        ),
        (
            {"input": "q", "target": "no", "options": ["caf\u00e9", "cafe\u0301", "no"]},
            "options has the same item twice; keep one",
        ),
        (
            {"input": "q" * 2001, "target": "a"},
            "input has 2001 characters, but at most 2000 are allowed; shorten it",
        ),
        (
            {"input": "q", "target": "a" * 401},
            "target has 401 characters, but at most 400 are allowed; shorten it",
        ),
        (b'{"input": "q", "target": "\\ud800"}', "target holds half a character"),
        (b'{"input": "q"', "not valid JSON ("),
        (b'["q", "a"]', "a JSON list is given, an object in braces is needed"),
        (b'"q"', "a JSON string is given, an object in braces is needed"),
        (
            {"input": "q", "target": "a", "Optionz": ["a", "b"]},
            "unknown field 'Optionz'; rename it to 'options', or to a name that is less similar",
        ),
        (
            b'{"input": "caf\xe9", "target": "a"}',
            "broken UTF-8 at byte 74 of the file; save the file as UTF-8",
        ),
    ],
)
def test_each_problem_has_file_line_and_how_to_fix_it(tmp_path, line, problem):
    file = write(tmp_path / "a.jsonl", GOOD, line)
    before = file.read_bytes()
    problems = check_jsonl(file)
    assert len(problems) == 1
    assert problems[0].startswith(f"{file}:2: {problem}")
    with pytest.raises(ValueError, match="has 1 problem.*nothing was changed"):
        read_jsonl(file)
    assert file.read_bytes() == before


def test_line_breaks_in_options_and_at_the_end_of_a_target_are_no_problem(tmp_path):
    lines = (
        {"input": "q", "target": "a\nb", "options": ["a\nb", "c"]},
        {"input": "r", "target": "c", "options": ["c", "d"]},
    )
    assert check_jsonl(write(tmp_path / "a.jsonl", *lines)) == []
    assert read_jsonl(write(tmp_path / "b.jsonl", {"input": "q", "target": "a\n"}))[0].targets == ("a",)


def test_the_ending_of_the_file_does_not_matter(tmp_path):
    for name in ("a.txt", "b.csv", "c"):
        assert read_jsonl(write(tmp_path / name, GOOD))[0].targets == ("two", "2")


def test_limits_are_arguments(tmp_path):
    file = write(tmp_path / "a.jsonl", {"input": "q" * 30, "target": "a" * 30})
    assert check_jsonl(file) == [] and len(check_jsonl(file, max_input=20, max_target=10)) == 2


def test_limits_can_be_those_of_the_card(tmp_path):
    file = write(tmp_path / "a.jsonl", {"input": "q" * 2500, "target": "a" * 500})
    assert [p.split("; ")[1] for p in check_jsonl(file)] == [
        'shorten it, or write "max_input": 2500 on the card',
        'shorten it, or write "max_target": 500 on the card',
    ]
    write(tmp_path / "a.card.json", {"max_input": 2500, "max_target": 500})
    assert check_jsonl(file) == [] and len(read_jsonl(file)) == 1
    assert len(check_jsonl(file, max_input=2000)) == 1


def test_same_input_names_both_lines(tmp_path):
    file = write(tmp_path / "a.jsonl", GOOD, b"", {"input": "What is one plus one? ", "target": "two"})
    assert check_jsonl(file) == [
        f"{file}:3: same input as line 1, with another answer (two here, two / 2 there); keep one of the "
        "two, with all answers as its targets, or leave the later ones out with --drop-duplicates "
        "(drop_duplicates=True in Python, or true on the card)"
    ]
    same = {"input": "Up?", "target": "no", "options": ["yes", "no"]}
    write(file, same, same, same | {"target": "yes"})
    again, other = check_jsonl(file)
    assert again.startswith(f"{file}:2: same input and answer as line 1; remove one of the two, or all")
    told = f"{file}:3: same input as line 1, with another answer (yes here, no there); keep the right one, or"
    assert other.startswith(told)


def test_options_on_some_lines_only(tmp_path):
    file = write(tmp_path / "a.jsonl", GOOD, {"input": "q", "target": "a", "options": ["a", "b"]})
    assert check_jsonl(file) == [
        f"{file}:2: this line has options, unlike line 1; give options on every line or on none"
    ]


def test_empty_and_absent_files(tmp_path):
    file = write(tmp_path / "a.jsonl", b"", b"")
    assert check_jsonl(file) == [
        f"{file}:1: the file is empty; write one JSON object per line, with input and targets"
    ]
    with pytest.raises(FileNotFoundError, match="there is no file .*b.jsonl"):
        check_jsonl(tmp_path / "b.jsonl")


def test_all_problems_are_found_and_the_first_twenty_shown(tmp_path):
    file = write(tmp_path / "a.jsonl", *({"input": f"q{i}"} for i in range(30)))
    assert len(check_jsonl(file)) == 30
    with pytest.raises(ValueError, match="has 30 problem") as error:
        read_jsonl(file)
    assert str(error.value).count("is missing") == 20 and str(error.value).endswith("... and 10 more")


@pytest.mark.parametrize(
    ("options", "category"),
    [((["a", "b"], ["a", "b"]), "cls"), ((["a", "b"], ["a", "c"]), "mcqa"), ((None, None), "qa")],
)
def test_category_is_inferred(tmp_path, options, category):
    lines = [{"input": f"q{i}", "target": "a", "options": choice} for i, choice in enumerate(options)]
    file = write(tmp_path / "mine.jsonl", *lines)
    card = read_card(file)
    assert (card.id, card.category, card.group) == ("mine", category, "mine")
    assert card.labels == (("a", "b") if category == "cls" else ())


def test_a_card_file_is_used_and_checked(tmp_path):
    file = write(tmp_path / "mine.jsonl", GOOD)
    sidecar = tmp_path / "mine.card.json"
    write(sidecar, {"category": "seq", "title": "Mine", "metric": "rouge_l"})
    card = read_card(file)
    assert (card.category, card.title, card.metric, card.shots) == ("seq", "Mine", "rouge_l", 32)
    for content, problem in [
        ({"metric": "bleu"}, "metric is 'bleu', category 'qa' allows: accuracy"),
        (
            {"metric": "span_f1"},
            "metric is 'span_f1', category 'qa' allows: accuracy, exact_match, token_f1, rouge_l",
        ),
        ({"metric": "macro_f1"}, "metric is 'macro_f1', category 'qa' allows: accuracy"),
        ({"colour": "red"}, "unknown field 'colour' on a card; allowed are: id"),
        ({"category": "cls"}, "category is 'cls', but the lines look like 'qa'"),
        ({"shots": 0}, "shots is 0, allowed is an integer of at least 1"),
        ({"title": ""}, "card 'mine' needs a text in its field 'title'"),
        ([], "the file holds a JSON list, an object in braces is needed"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "more than 100 deep"),
        (b'{"title": "a",\n"title": "b"}', "'title' appears twice"),
        (b'{"title": "caf\xe9"}', "mine.card.json:1: broken UTF-8 at byte 14"),
        ({"id": "x/../../.."}, "the id 'x/../../..' cannot be a file name"),
        ({"id": ".x"}, "cannot be a file name"),
        ({"id": "x" * 201}, "cannot be a file name: it may have at most 200 bytes"),
        ({"id": "x\\y"}, "cannot be a file name"),
        ({"id": "x\x1b[2J"}, "cannot be a file name"),
        ({"id": 3}, "needs a text in its field 'id'"),
        ({"category": ["qa"]}, "needs a text in its field 'category'"),
        ({"metric": []}, "metric is [], allowed is a text"),
        ({"group": 3}, "group is 3, allowed is a text"),
        ({"labels": "ab"}, "labels is 'ab', allowed is a list of different texts"),
        ({"labels": [1]}, "labels is [1], allowed is a list of different texts"),
        ({"labels": ["a", ["b"]]}, "allowed is a list of different texts"),
        ({"shots": True}, "shots is True, allowed is an integer of at least 1"),
        ({"shots_per_label": []}, "shots_per_label is [], allowed is an object with an integer"),
        ({"shows_choices": "no"}, "shows_choices is 'no', allowed is true or false"),
        ({"packages": {}}, "packages is {}, allowed is a list of different texts"),
        ({"template": None}, "template is None, allowed is a text"),
        (
            {"metric": "span_f1"},
            "metric is 'span_f1', category 'qa' allows: accuracy",
        ),
        ({"near_duplicates": "remove"}, 'near_duplicates is \'remove\', allowed are: "keep", "drop"'),
    ]:
        write(sidecar, content)
        with pytest.raises(ValueError, match="mine.card.json") as error:
            read_card(file)
        assert problem in str(error.value)


def test_an_array_is_a_single_problem(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('[\n  {"input": "q", "target": "a"},\n  {"input": "r", "target": "b"}\n]\n')
    (problem,) = check_jsonl(file)
    assert problem.startswith(f"{file}:1: the file is a JSON array; write one object per line")


def test_labels_of_a_card_are_those_of_the_lines(tmp_path):
    lines = [{"input": f"q{i}", "target": "a", "options": ["a", "b"]} for i in range(4)]
    file = write(tmp_path / "mine.jsonl", *lines)
    write(tmp_path / "mine.card.json", {"labels": ["b", "a"]})
    assert read_card(file).labels == ("b", "a")
    write(tmp_path / "mine.card.json", {"labels": ["a", "c"]})
    with pytest.raises(
        ValueError, match=r"mine.card.json: labels are a, c, but the lines have the options a, b"
    ):
        read_card(file)


def test_empty_options_mean_none(tmp_path):
    file = write(
        tmp_path / "a.jsonl", {**GOOD, "options": []}, {"input": "q", "target": "a", "options": None}
    )
    assert [example.options for example in read_jsonl(file)] == [(), ()]


def test_inputs_that_differ_in_case_are_near_duplicates(tmp_path):
    words = ["polish", "Polish", "caf\u00e9", "cafe\u0301", "to  wax", "to wax", "nail", "wood", "shoe"]
    file = write(
        tmp_path / "mine.jsonl", *({"input": word, "target": str(i)} for i, word in enumerate(words))
    )
    assert check_jsonl(file) == []
    assert near_duplicates(file) == [
        f"{file}:{line}: the input differs from line {first} only in case, blanks or composed letters"
        for line, first in ((2, 1), (4, 3), (6, 5))
    ]
    with pytest.warns(UserWarning, match=r"mine.jsonl: 3 input\(s\) .*first: line 2, from line 1.*\"drop\""):
        examples, _ = read_task(file)
    assert [example.input for example in examples] == words
    sidecar = write(tmp_path / "mine.card.json", {"near_duplicates": "drop"})
    examples, card = read_task(file)
    assert [example.input for example in examples] == [words[i] for i in (0, 2, 4, 6, 7, 8)]
    assert card.id == "mine"
    write(sidecar, {"near_duplicates": "keep"})
    assert len(read_task(file)[0]) == 9


def test_a_suite_keeps_inputs_that_differ_in_case(tmp_path):
    lines = [{"input": word, "target": word} for i in range(6) for word in (f"polish {i}", f"Polish {i}")]
    file = write(tmp_path / "mine.jsonl", *lines)
    with pytest.warns(UserWarning, match="6 input"):
        (task,) = suites.load_suite(file)
    drawn = [e for name in ("train", "train_new", "dev", "test") for e in getattr(task, name)]
    assert len(drawn) == 12 and all(e.targets == (e.input,) for e in drawn)
    write(tmp_path / "mine.card.json", {"near_duplicates": "drop"})
    (task,) = suites.load_suite(file)
    assert all(e.input.startswith("polish") for e in (*task.train, *task.train_new, *task.dev, *task.test))


def test_a_path_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"a.jsonl is a folder, a file is needed; give the path of a .jsonl"):
        check_jsonl(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="cannot be read .File name too long"):
        read_jsonl(tmp_path / f"{'x' * 300}.jsonl")
    file = write(tmp_path / "b.jsonl", GOOD)
    (tmp_path / "b.card.json").mkdir()
    with pytest.raises(ValueError, match=r"b.card.json is a folder"):
        read_card(file)


# ---- tags ----------------------------------------------------------------------------------------
SENTENCE = {"input": "Ada Lee left York today", "target": "B-name I-name O B-place O"}


def tag_task(folder, *lines, **card):
    write(folder / "mine.card.json", {"category": "tag", **card})
    return write(folder / "mine.jsonl", *lines)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("O O O", "5 words with 3 tags; write one tag for every word, separated by blanks"),
        ("O O O O O O O", "5 words with 7 tags; write one tag for every word"),
        ("B-name I-name O B-thing O", "word 4: tag 'B-thing' is not one of the labels in mine.card.json: O"),
    ],
)
def test_a_sentence_has_a_known_tag_for_every_word(tmp_path, target, problem):
    labels = ["O", "B-name", "I-name", "B-place", "I-place"]
    file = tag_task(tmp_path, SENTENCE, {"input": "Ben Roe saw a bee", "target": target}, labels=labels)
    (found,) = check_jsonl(file)
    assert found.startswith(f"{file}:2: {problem}")
    with pytest.raises(ValueError, match="mine.jsonl:2: "):
        read_task(file)


@pytest.mark.parametrize("card", [{}, {"labels": []}])
def test_tags_without_labels_on_the_card_are_those_of_the_lines(tmp_path, card):
    file = tag_task(tmp_path, SENTENCE, **card)
    assert check_jsonl(file) == []
    ((example,), card) = read_task(file)
    assert card.labels == ("B-name", "B-place", "I-name", "O") and card.metric == "span_f1"
    assert example.targets == (SENTENCE["target"],)


@pytest.mark.parametrize(
    ("target", "note"),
    [
        ("I-name I-name O I-place O", "IOB1 was converted to IOB2: 2 of 2 spans began with I-"),
        ("B-name E-name O S-place O", "BIOES was converted to IOB2"),
        ("B-name L-name O U-place O", "BILOU was converted to IOB2"),
        ("name name O place O", "tags without prefixes were converted to IOB2"),
    ],
)
@pytest.mark.parametrize("has_labels", [True, False])
def test_tags_of_other_schemes_are_read_as_iob2(tmp_path, target, note, has_labels):
    labels = {"labels": [*dict.fromkeys(target.split())]} if has_labels else {}
    file = tag_task(tmp_path, {**SENTENCE, "target": target}, **labels)
    assert check_jsonl(file) == []
    with pytest.warns(UserWarning, match=f"mine.jsonl: {note}"):
        ((example,), card) = read_task(file)
    assert example.targets == (SENTENCE["target"],)
    assert set(card.labels) >= {"B-name", "B-place", "I-name", "O"}
    assert all(schemes.is_iob2(label) for label in card.labels)


def test_bad_tags_of_a_scheme_are_all_listed(tmp_path):
    bad = [{"input": f"w{i} is here", "target": "B-x I-y O"} for i in range(30)]
    file = tag_task(tmp_path, *bad, scheme="IOB2")
    assert len(check_jsonl(file)) == 30
    with pytest.raises(ValueError, match="has 30 problem.*nothing was changed") as error:
        read_jsonl(file)
    assert str(error.value).count("word 2: 'I-y' follows 'B-x'") == 20
    assert str(error.value).endswith("... and 10 more")


def test_tags_have_metrics_of_their_own(tmp_path):
    file = tag_task(tmp_path, SENTENCE, metric="accuracy")
    with pytest.raises(
        ValueError, match="card.json: metric is 'accuracy', category 'tag' allows: span_f1, tag_accuracy"
    ):
        read_task(file)


def test_tags_that_name_no_spans_need_their_own_metric(tmp_path):
    verbs = {"input": "Ada left", "target": "noun verb"}
    (found,) = check_jsonl(tag_task(tmp_path, verbs))
    assert "mine.jsonl:1: the tags name no spans (noun, verb), but span_f1 scores spans; write" in found
    file = tag_task(tmp_path, verbs, metric="tag_accuracy")
    ((example,), card) = read_task(file)
    assert example.targets == ("noun verb",) and card.labels == ("noun", "verb")
    with pytest.warns(UserWarning, match="tags without prefixes"):
        ((example,), card) = read_task(tag_task(tmp_path, verbs, scheme="types"))
    assert example.targets == ("B-noun B-verb",) and card.labels == ("B-noun", "B-verb")


def test_wrong_fields_of_tag_tasks(tmp_path):
    file = tag_task(tmp_path, {**SENTENCE, "options": [SENTENCE["target"], "O"]})
    assert [p.split(":1: ")[1] for p in check_jsonl(file)] == [
        "a sentence with tags has no options; remove them"
    ]
    file = tag_task(tmp_path, {"input": "a b", "targets": ["O O", "B-x O"]})
    assert "there are 2 targets; write one, with a tag for every word" in check_jsonl(file)[0]
    with pytest.raises(ValueError, match="mine.card.json: scheme is 'BIO', allowed are: auto, IOB2, IOB1"):
        check_jsonl(tag_task(tmp_path, SENTENCE, scheme="BIO"))
    long = {"input": "w " * 300, "target": "O " * 300}
    assert check_jsonl(tag_task(tmp_path, long)) == [], "there are as many tags as words"


def test_a_field_name_in_capitals_is_a_single_problem(tmp_path):
    file = write(tmp_path / "a.jsonl", {"Input": "q", "Targets": ["a"], "note": 1})
    assert check_jsonl(file) == [
        f"{file}:1: unknown field 'Input'; rename it to 'input', or to a name that is less similar",
        f"{file}:1: unknown field 'Targets'; rename it to 'targets', or to a name that is less similar",
    ]
