import pytest

from iptkit import conll

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
        ("Hana B-name\nhas\n", "some.conll:2: 1 columns, expected 2"),
        ("Hana x B-name\nhas O\n", "some.conll:2: 2 columns, expected 3"),
        ("Hana I-name\n", "some.conll:1: 'I-name' follows 'O', but goes on with no span .* with 'B-name'"),
        ("Hana B-name\nran I-thing\n", "some.conll:2: 'I-thing' follows 'B-name'"),
        ("Hana B-name\n\nran I-name\n", "some.conll:3: 'I-name' follows 'O'"),
        ("Hana NNP\n", "'NNP' is no IOB2 tag"),
        (b"Hana O\n\xff\xfe O\n", "some.conll:2: not UTF-8"),
        ("\n\n", "holds no sentence"),
    ],
)
def test_a_broken_file_names_line_and_way_out(tmp_path, text, told):
    path = written(tmp_path, text)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=told):
        conll.read_conll(path)
    assert path.read_bytes() == before


def test_other_mistakes(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        conll.read_conll(tmp_path / "absent.conll")
    with pytest.raises(ValueError, match="scheme 'BIO' is unknown; choose one of IOB2, none"):
        conll.read_conll(written(tmp_path, GOOD), scheme="BIO")
    with pytest.raises(ValueError, match="some.conll:7: tag 'I-name' is not one of B-name, O"):
        conll.read_conll(written(tmp_path, GOOD), labels=("B-name", "O"))
    with pytest.raises(ValueError, match="tags:2: 'I-x' follows 'O'"):
        conll.check_iob2(["O", "I-x"])
