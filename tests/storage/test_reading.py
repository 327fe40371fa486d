"""Readers of files that anybody may have written: what is wrong is named with file and line."""

import errno
import gzip
import os

import pytest

from iptkit.storage import reading

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1,\n "a": 2}', ":1: 'a' appears twice in one object; keep one of them"),
        (b'{"a": {"b": 1, "b": 1}}', ":1: 'b' appears twice in one object"),
        (DEEP.encode(), ":1: lists or objects are nested more than 100 deep"),
        (b"[" * 150 + b"]" * 150, ":1: lists or objects are nested more than 100 deep"),
        (b'{"a": NaN}', ":1: NaN is no JSON; write a number, null or a string"),
        (b'{"a": -Infinity}', ":1: -Infinity is no JSON"),
        (b'{"a": 1e999}', ":1: the number 1e999 is too large"),
        (b'{"a": ' + b"1" * 5000 + b"}", ":1: not valid JSON (Exceeds the limit"),
        (rb'{"a": ["x", {"b": "\ud800"}]}', ":1: a[1].b holds half a character"),
        (rb'{"\uDFFF": 1}', ":1: a name in the object holds half a character"),
        (b'{"a": "\xe9"}', ":1: broken UTF-8 at byte 7 of the file; save the file as UTF-8"),
        (b'{"a": 1,\n\n "b": "\xe9"}', ":3: broken UTF-8 at byte 17 of the file"),
        (b'\xef\xbb\xbf{"a": "\xe9"}', ":1: broken UTF-8 at byte 10 of the file"),
        (b'{"a": 1,\n "b" 2}', ":2: not valid JSON (Expecting ':' delimiter, column 6)"),
        (b"", ":1: not valid JSON (Expecting value, column 1)"),
        (b"[1]", ": the file holds a JSON list, an object in braces is needed"),
        ('{"a": 1}'.encode("utf-16"), ": the file is UTF-16, not UTF-8; save it as UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), ": the file is no text, or not UTF-8 (it holds NUL bytes)"),
        (gzip.compress(b'{"a": 1}', mtime=0), ": the file is compressed (gzip); unpack it first"),
    ],
)
def test_what_is_wrong_with_a_json_file_is_named_with_its_line(tmp_path, data, message):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(ValueError) as error:
        reading.read_json(path)
    assert str(error.value).startswith(f"{path}{message}")


def test_a_json_file_may_begin_with_a_mark_and_hold_anything_that_json_has(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes('\ufeff{"a": ["é\u2028", "\\ud83d\\ude00", 1e300, null]}\r\n'.encode())
    assert reading.read_json(path) == {"a": ["é\u2028", "\U0001f600", 1e300, None]}
    path.write_text("[" * 100 + "]" * 100)
    assert reading.read_json(path, list)
    path.write_text("3")
    assert reading.read_json(path, None) == 3


def refused(path):
    for read in (reading.read_bytes, reading.read_text, reading.read_json, reading.read_json_lines):
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            read(path, wanted="give a file") if read is reading.read_text else read(path)
        yield error.value


def test_what_cannot_be_read_is_distinguished_from_what_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("{}")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "astray").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, kind, message in [
        ("absent", FileNotFoundError, "there is no file {}"),
        ("file/inside", FileNotFoundError, "there is no file {}"),
        ("astray", FileNotFoundError, "there is no file {}"),
        ("folder", ValueError, "{} is a folder, a file is needed"),
        ("pipe", ValueError, "{} is no regular file (a pipe or a device)"),
        ("round", ValueError, "{} cannot be read (Too many levels of symbolic links)"),
        ("x" * 300, ValueError, "{} cannot be read (File name too long)"),
        ("a\0b", ValueError, "{} cannot be read (embedded null"),
    ]:
        for error in refused(tmp_path / name):
            assert type(error) is kind and str(error).startswith(message.format(tmp_path / name))

    def no(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", no)
    for error in refused(tmp_path / "file"):
        assert str(error) == f"{tmp_path / 'file'} cannot be read (Permission denied)"


def lines_of(tmp_path, data):
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    return path, [(line.number, line.problem or line.value) for line in reading.json_lines(path)]


def test_lines_end_at_line_feeds_and_blank_ones_are_left_out(tmp_path):
    text = '\ufeff{"a": "x\u2028y\u0085z"}\r\n\n  \r\n\ufeff{"b": 1}\n\n'
    _, found = lines_of(tmp_path, text.encode())
    assert found == [(1, {"a": "x\u2028y\u0085z"}), (4, {"b": 1})]
    assert lines_of(tmp_path, b'{"a": 1}')[1] == [(1, {"a": 1})]
    assert lines_of(tmp_path, b"")[1] == lines_of(tmp_path, b"\n\n")[1] == []


@pytest.mark.parametrize(
    ("data", "number", "message"),
    [
        (b'{"a": 1}\n{"a": 1, "a": 2}', 2, "'a' appears twice in one object; keep one of them; each line"),
        (b"{}\n" + DEEP.encode(), 2, "lists or objects are nested more than 100 deep"),
        (DEEP.encode(), 1, "lists or objects are nested more than 100 deep"),
        (b'{}\n{"a": "\xe9"}', 2, "broken UTF-8 at byte 10 of the file; save the file as UTF-8"),
        (b'\n\n{"a": NaN}', 3, "NaN is no JSON"),
        (b"{}\n3", 2, "a JSON number is given, an object in braces is needed"),
        (b'{}\n{"a": 1', 2, "not valid JSON (Expecting ',' delimiter, column 8); each line needs one whole"),
        (
            b'[{"a": 1}]',
            1,
            "the file is a JSON array; write one object per line, without brackets and commas",
        ),
        (b'{\n"a": 1\n}', 1, "the file is one JSON object over several lines; write every object on a line"),
        (gzip.compress(b"{}", mtime=0), 1, "the file is compressed (gzip); unpack it first"),
    ],
)
def test_what_is_wrong_with_a_line_is_reported(tmp_path, data, number, message):
    path, found = lines_of(tmp_path, data)
    (problem,) = [(n, problem) for n, problem in found if isinstance(problem, str)]
    assert problem[0] == number and problem[1].startswith(message)
    with pytest.raises(ValueError) as error:
        reading.read_json_lines(path)
    assert f"{path}:{number}: {message}" in str(error.value)


def test_python_s_nan_is_read_where_it_is_allowed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": NaN, "b": -Infinity}')
    ((_, row),) = reading.read_json_lines(path, nan=True)
    assert row["a"] != row["a"] and row["b"] == -float("inf")


def test_a_hundred_thousand_bad_lines_are_twenty_and_a_count(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{\n" * 100_000)
    with pytest.raises(ValueError, match=r"100000 problem.*nothing was changed") as error:
        reading.read_json_lines(path)
    text = str(error.value)
    assert text.count("not valid JSON") == 20 and text.endswith("... and 99980 more") and len(text) < 10_000


def test_a_folder_is_listed_without_dot_files_and_whatever_the_capitals(tmp_path, monkeypatch):
    for name in ("b.jsonl", "A.JSONL", "._b.jsonl", ".a.jsonl.swp", ".c.jsonl", "b.jsonl~", "notes.txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in reading.listed(tmp_path, ".jsonl")] == ["A.JSONL", "b.jsonl"]
    with pytest.raises(FileNotFoundError, match="there is no folder .*absent"):
        reading.listed(tmp_path / "absent", ".jsonl")

    def no(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "listdir", no)
    with pytest.raises(ValueError, match=r"the folder .* cannot be read \(Permission denied\)"):
        reading.listed(tmp_path, ".jsonl")
