import pytest

from iptkit.tasks import conll

GOOD = (
    "-DOCSTART- -X- O O\n\nHana NNP I B-name\nhas VBZ I O\n\n"
    "Ben NNP I B-name\nGus NNP I I-name\nran VBD I O\n"
)


def written(tmp_path, text):
    path = tmp_path / "some.conll"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_sentences_with_their_tags(tmp_path):
    first, second = conll.read_conll(written(tmp_path, GOOD))
    assert first.input == "Hana has" and first.tags == ("B-name", "O")
    assert second.tags == ("B-name", "I-name", "O") and second.labels == ("B-name", "I-name", "O")
    words = conll.read_conll(written(tmp_path, GOOD), tag=1, scheme="none")
    assert words[0].tags == ("NNP", "VBZ") and words[0].labels == ("NNP", "VBD", "VBZ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Hana B-name\nhas\n", "some.conll:2: the line has 1 column.s., but needs 2"),
        ("Hana x B-name\nhas O\n", "some.conll:2: the line has 2 column.s., but needs 3"),
        (
            "Hana I-name\n",
            "some.conll:1: 'I-name' follows 'O', but there is no span .* with 'B-name'",
        ),
        ("Hana B-name\nran I-thing\n", "some.conll:2: 'I-thing' follows 'B-name'"),
        ("Hana B-name\n\nran I-name\n", "some.conll:3: 'I-name' follows 'O'"),
        ("Hana NNP\n", "tag 'NNP' is not an IOB2 tag"),
        (b"Hana O\n\xff\xfe O\n", "some.conll:2: broken UTF-8"),
        ("\n\n", "has no sentence"),
    ],
)
def test_errors_name_the_line_and_how_to_fix_it(tmp_path, text, told):
    path = written(tmp_path, text)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=told):
        conll.read_conll(path, scheme="IOB2")
    assert path.read_bytes() == before


def test_other_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        conll.read_conll(tmp_path / "absent.conll")
    with pytest.raises(ValueError, match="scheme 'BIO' is unknown; choose one of auto, IOB2, IOB1, BIOES"):
        conll.read_conll(written(tmp_path, GOOD), scheme="BIO")
    with pytest.raises(ValueError, match="some.conll:7: tag 'I-name' is not one of the labels: B-name, O"):
        conll.read_conll(written(tmp_path, GOOD), labels=("B-name", "O"))


# ---- real files --------------------------------------------------------------------------------------
def test_only_blanks_and_tabs_end_columns_and_only_line_feeds_end_lines(tmp_path):
    words = ["New\u00a0Haven", "a\u2028b", "c\u0085d", "e\u000bf", "g\u001ch"]
    lines = [f"{word}{gap}O" for word, gap in zip(words, (" ", "\t", " \t ", " ", "\t"), strict=True)]
    (sentence,) = conll.read_conll(written(tmp_path, "\n".join(lines)))
    assert list(sentence.words) == words and sentence.tags == ("O",) * 5
    assert len(sentence.input.split(" ")) == 5


def test_a_byte_order_mark_windows_line_ends_and_a_last_empty_line(tmp_path):
    text = "Hana B-name\nhas O\n\nBen B-name\n"
    expected = conll.read_conll(written(tmp_path, text))
    for other in (text.rstrip("\n"), text + "\n\n \t\n", text.replace("\n", "\r\n"), "\ufeff" + text):
        assert conll.read_conll(written(tmp_path, other)) == expected
    assert expected[0].words[0] == "Hana"


def test_latin_1_and_carriage_returns_name_their_lines(tmp_path):
    with pytest.raises(ValueError, match="some.conll:2: broken UTF-8 at byte 10 .*save the file as UTF-8"):
        conll.read_conll(written(tmp_path, "Hana O\nJos\u00e9 O\n".encode("latin-1")))
    with pytest.raises(ValueError, match="some.conll: the file is UTF-16, not UTF-8"):
        conll.read_conll(written(tmp_path, "Hana O\n".encode("utf-16")))
    with pytest.raises(ValueError, match="some.conll:1: there is a carriage return inside the line"):
        conll.read_conll(written(tmp_path, "Hana O\rran O\r"))


def test_comment_lines_before_a_sentence_are_skipped(tmp_path):
    text = "# id 12 of 40\n# more\nHana B-name\n# O\n\n# id 13\nBen B-name\n"
    first, second = conll.read_conll(written(tmp_path, text), comment="#")
    assert first.words == ("Hana", "#") and second.words == ("Ben",)
    with pytest.raises(
        ValueError, match="some.conll:1: the line has 5 column.s., but needs 2; .* comments with comment='#'"
    ):
        conll.read_conll(written(tmp_path, text))


def test_the_first_twenty_bad_tags_are_listed_and_the_others_counted(tmp_path):
    lines = "".join(f"w{i} B-name\nv{i} I-thing\n\n" for i in range(25))
    with pytest.raises(ValueError) as error:
        conll.read_conll(written(tmp_path, lines), scheme="IOB2")
    told = str(error.value).splitlines()
    assert told[0] == "25 bad tag(s):" and len(told) == 22 and told[-1] == "... and 5 more"
    assert "some.conll:2: 'I-thing' follows 'B-name'" in told[1] and "some.conll:59: " in told[20]
    with pytest.raises(ValueError) as error:
        conll.read_conll(written(tmp_path, lines), labels=("O", "B-name", "I-name"))
    assert "some.conll:2: tag 'I-thing' is not one of the labels: O, B-name, I-name" in str(error.value)


@pytest.mark.parametrize(
    ("scheme", "tags", "note"),
    [
        ("IOB1", "I-name I-name B-name O I-place", "IOB1 was converted to IOB2: 2 of 3 spans began with I-"),
        ("BIOES", "B-name E-name S-name O S-place", "BIOES was converted to IOB2 (3 spans)"),
        ("BILOU", "B-name L-name U-name O U-place", "BILOU was converted to IOB2 (3 spans)"),
        ("mixed", "I-name I-name B-name O B-place", "IOB1 was converted to IOB2: 1 of 3 spans began with I-"),
    ],
)
def test_other_schemes_are_converted_with_a_warning(tmp_path, scheme, tags, note):
    text = "".join(f"w{i} {tag}\n" for i, tag in enumerate(tags.split()))
    path = written(tmp_path, text)
    with pytest.warns(UserWarning) as told:
        (sentence,) = conll.read_conll(path)
    assert [str(one.message) for one in told] == [f"{path}: {note}"]
    assert sentence.tags == ("B-name", "I-name", "B-name", "O", "B-place")
    assert set(sentence.labels) == set(sentence.tags)
    with pytest.warns(UserWarning):
        (again,) = conll.read_conll(path, labels=sorted({*tags.split()}))
    assert again.tags == sentence.tags and set(again.labels) >= set(again.tags)


def test_tags_without_prefixes_form_spans_of_equal_neighbours(tmp_path):
    path = written(tmp_path, "Ada name\nLee name\nleft O\nYork place\nBen name\n")
    with pytest.warns(
        UserWarning, match="tags without prefixes were converted to IOB2: .* one span .3 spans"
    ):
        (sentence,) = conll.read_conll(path)
    assert sentence.tags == ("B-name", "I-name", "O", "B-place", "B-name")
    assert conll.read_conll(path, scheme="none")[0].tags == ("name", "name", "O", "place", "name")


def test_only_the_line_that_differs_from_most_is_a_problem(tmp_path):
    with pytest.raises(
        ValueError, match=r"1 problem.*\n.*some.conll:1: the line has 1 column.s., but needs 2"
    ):
        conll.read_conll(written(tmp_path, "Hana\nran O\naway O\n"))
    with pytest.raises(ValueError, match=r"3 problem"):
        conll.read_conll(written(tmp_path, "Hana\nran\naway\n"))
