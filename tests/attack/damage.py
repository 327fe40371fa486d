"""Hypothesis strategies that damage a good file: its values, its bytes or its place on the disk."""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

HALF = "\ud800"  # an unpaired surrogate: JSON can escape it, but UTF-8 cannot encode it
ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 3, 2**63, 10**400, 1e308, -0.0, "", " ", "\u200b", "x", "x" * 5000, "a\nb",
    "\x1b[31mred", "{tag}", "../../x", "caf\u00e9", "cafe\u0301", "左", "\u2028", HALF, [], [[]], ["x", 1],
    ["a", "a"], {}, {"x": 1}, [None], "NaN", "true", "0",
]  # fmt: skip
ODD_BYTES = [
    b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"\r\n", b"\r", b"\n\n", b"\t", b"\xc2\xa0", b"\xe2\x80\xa8",
    b"\xc2\x85", b"\xe9", b"[", b"{", b'"', b"NaN", b"Infinity", b"1e999", b"\\ud800", b"\x1b[2J", b"#",
]  # fmt: skip
WHOLE = [
    b"", b" ", b"\n", b"\x00" * 64, b"[" * 100_000, b'{"a":' * 50_000, b"null", b"[]", b"{}", b"1", b'"x"',
    b"\xff\xd8\xff\xe0", b"9" * 5000, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
]  # fmt: skip
PLACES = ("folder", "loop", "pipe", "missing")
Damage = Callable[[bytes], bytes]


@st.composite
def of_bytes(draw: Any, original: bytes) -> bytes:
    """Draw the file with one to three changes: cut, flipped, inserted, removed, repeated or re-encoded."""
    data = original
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        end = min(len(data), at + draw(st.sampled_from([1, 2, 8, 60])))
        kind = draw(st.sampled_from(["cut", "flip", "insert", "remove", "twice", "encode", "whole"]))
        if kind == "cut":
            data = data[:at]
        elif kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif kind == "insert":
            odd = draw(st.sampled_from(ODD_BYTES) | st.binary(max_size=6))
            data = data[:at] + odd + data[at:]
        elif kind == "remove":
            data = data[:at] + data[end:]
        elif kind == "twice":
            data = data[:end] + data[at:]
        elif kind == "encode":
            data = draw(st.sampled_from([_utf16, _crlf, _latin1, _gzip, _bom]))(data)
        elif kind == "whole":
            data = draw(st.sampled_from(WHOLE))
    return data


@st.composite
def of_value(draw: Any, value: Any, keys: bool = True) -> Any:
    """Draw a JSON value with one to three places changed, removed, added or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        value = draw(_changed(value))
    return value


@st.composite
def _changed(draw: Any, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value)))
        kind = draw(st.sampled_from(["inside", "inside", "remove", "rename", "add", "twice"]))
        if kind == "inside":
            return {**value, key: draw(_changed(value[key]))}
        if kind == "remove":
            return {k: v for k, v in value.items() if k != key}
        if kind == "rename":
            new = draw(st.sampled_from([key.upper(), key + "s", key[:-1] or "_", "label", "text", "output"]))
            return {new if k == key else k: v for k, v in value.items()}
        if kind == "add":
            return {**value, draw(st.sampled_from(["note", "Target", "option", "id"])): _odd(draw)}
        return Twice({**value}, key, draw(_changed(value[key])))
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        kind = draw(st.sampled_from(["inside", "inside", "remove", "twice", "shuffle"]))
        if kind == "inside":
            return [*value[:at], draw(_changed(value[at])), *value[at + 1 :]]
        if kind == "remove":
            return [*value[:at], *value[at + 1 :]]
        return [*value[:at], value[at], *value[at:]] if kind == "twice" else value[at:] + value[:at]
    return _odd(draw)


def _odd(draw: Any) -> Any:
    return draw(st.sampled_from(ODD_VALUES) | st.floats(allow_nan=True) | st.text(max_size=8))


class Twice(dict):
    """An object whose JSON text has a key twice."""

    def __init__(self, value: dict, key: str, again: Any):
        super().__init__(value)
        self.key, self.again = key, again


def as_json(value: Any) -> str:
    """Return the JSON text of a value, including repeated keys, unpaired surrogates and NaN."""
    if isinstance(value, Twice):
        pairs = [*value.items(), (value.key, value.again)]
        return "{" + ", ".join(f"{json.dumps(k)}: {as_json(v)}" for k, v in pairs) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {as_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_json, value)) + "]"
    return json.dumps(value)


@st.composite
def of_lines(draw: Any, rows: list[Any]) -> bytes:
    """Draw JSON lines with one row changed."""
    at = draw(st.integers(0, len(rows) - 1))
    lines = [*map(as_json, rows)]
    lines[at] = as_json(draw(of_value(rows[at])))
    lines += draw(st.sampled_from([[], [""], [" "], [lines[at]]]))
    return draw(st.sampled_from(["\n", "\n", "\r\n"])).join(lines).encode()


@st.composite
def of_safetensors(draw: Any, original: bytes) -> bytes:
    """Draw a safetensors file with a changed header, odd numbers or damaged bytes."""
    size = struct.unpack("<Q", original[:8])[0]
    header, body = json.loads(original[8 : 8 + size]), original[8 + size :]
    kind = draw(st.sampled_from(["header", "tensor", "about", "numbers", "bytes", "length"]))
    names = sorted(name for name in header if name != "__metadata__")
    if kind == "bytes":
        return draw(of_bytes(original))
    if kind == "length":
        wrong = draw(st.sampled_from([0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1]))
        return struct.pack("<Q", wrong) + original[8:]
    if kind == "header":
        header = draw(of_value(header))
    elif kind == "about":
        about = json.loads(header.get("__metadata__", {}).get("about", "{}"))
        header["__metadata__"] = {"about": as_json(draw(of_value(about)))}
    elif kind == "tensor":
        name = draw(st.sampled_from(names))
        renamed = draw(st.sampled_from(["gone", "renamed", "shape"]))
        if renamed == "gone":  # the file stays valid: the other tensors move up
            begin, end = header.pop(name)["data_offsets"]
            body = body[:begin] + body[end:]
            for other in header.values():
                if "data_offsets" in other and other["data_offsets"][0] >= end:
                    other["data_offsets"] = [place - (end - begin) for place in other["data_offsets"]]
        elif renamed == "renamed":
            header[f"{name}_x"] = header.pop(name)
        else:
            header[name]["shape"] = draw(st.sampled_from([header[name]["shape"][::-1], [], [-1], [2**40, 0]]))
    else:
        at = 4 * draw(st.integers(0, max(0, len(body) // 4 - 1)))
        odd = draw(st.sampled_from([float("nan"), float("inf"), -float("inf"), 3e38]))
        body = body[:at] + struct.pack("<f", odd) + body[at + 4 :]
    text = as_json(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def put_in_place_of(path: Path, what: str) -> None:
    """Replace the file by something that is not a file: one of PLACES."""
    path.unlink(missing_ok=True)
    if what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    elif what == "pipe":
        os.mkfifo(path)


def _utf16(data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode("utf-16", "replace")


def _latin1(data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode("latin-1", "replace")


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # the same bytes whenever it runs


def _crlf(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def _bom(data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data
