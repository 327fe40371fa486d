"""Reading text, JSON and JSON lines that anybody may have written.

Whatever is wrong with a file becomes an error that names the file and, where there is one, the line.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from iptkit.storage import messages

MAX_DEPTH = 100  # of nested lists and objects; Python's own limit depends on the depth of the call
LFS = b"version https://git-lfs"  # how Git LFS pointers begin
BOM = b"\xef\xbb\xbf"  # some editors begin UTF-8 files with it
NO_TEXT = {  # first bytes of files that are often taken for text
    b"\xff\xfe": "UTF-16, not UTF-8; save it as UTF-8",
    b"\xfe\xff": "UTF-16, not UTF-8; save it as UTF-8",
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"PK\x03\x04": "compressed (zip); unpack it first",
    b"BZh": "compressed (bzip2); unpack it first",
    b"\xfd7zXZ": "compressed (xz); unpack it first",
    b"PAR1": "a Parquet file; write it as text",
}


@contextlib.contextmanager
def opened(path: str | Path, wanted: str = "") -> Iterator[BinaryIO]:
    """Open a file to read its bytes; arguments and errors are those of `read_bytes`."""
    hint = f"; {wanted}" if wanted else ""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            with open(path, "rb") as file:
                yield file
            return
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"there is no file {path}{hint}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({messages.reason(error)})") from error
    except ValueError as error:
        if "embedded null" not in str(error):  # in the path
            raise
        raise ValueError(f"{path} cannot be read ({error})") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a folder, a file is needed{hint}")
    raise ValueError(f"{path} is no regular file (a pipe or a device); copy its text into a file")


def read_bytes(path: str | Path, wanted: str = "") -> bytes:
    """The bytes of a file.

    Args:
      path: the file.
      wanted: what the user should give instead, for the error if there is no such file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is a folder, no regular file (reading a pipe might never end), or cannot be read.
    """
    with opened(path, wanted) as file:
        return file.read()


def read_text(path: str | Path, wanted: str = "") -> str:
    """The text of a UTF-8 file, without a leading byte order mark.

    Raises: what `read_bytes` raises; ValueError naming the line that is not UTF-8.
    """
    data = read_bytes(path, wanted)
    if what := _no_text(data):
        raise ValueError(f"{path}: the file is {what}")
    try:
        return data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        offset = len(data) - len(error.object) + error.start
        line = data.count(b"\n", 0, offset) + 1
        raise ValueError(f"{path}:{line}: {_broken(offset)}") from error


def read_json(path: str | Path, kind: type[dict] | type[list] | None = dict, wanted: str = "") -> Any:
    """The value of a JSON file.

    Args:
      path: the file.
      kind: the type that the value must have; None for any.
      wanted: as for `read_bytes`.
    Raises: what `read_text` raises; ValueError naming file and line for invalid JSON, a value of another
      type, a repeated name in an object, NaN or infinity, an unpaired surrogate, or values nested too deeply.
    """
    try:
        value = _parsed(read_text(path, wanted))
    except _NotJSONError as error:
        raise ValueError(f"{path}:{error.line}: {error}") from error
    if kind is not None and not isinstance(value, kind):
        needed = "an object in braces" if kind is dict else "a list in brackets"
        raise ValueError(f"{path}: the file holds a JSON {json_type(value)}, {needed} is needed")
    return value


@dataclass(frozen=True)
class Line:
    """One line of a JSON lines file that is not blank: its object, or what is wrong with it.

    Attributes:
      number: the line's number, counted from 1.
      value: the object; empty if there is a problem.
      problem: what is wrong and what to do about it; "" if nothing is.
    """

    number: int
    value: dict[str, Any]
    problem: str = ""


def json_lines(path: str | Path, wanted: str = "", nan: bool = False) -> Iterator[Line]:
    """Yield the lines of a file with one JSON object per line, without blank lines and byte order marks.

    Only a line feed ends a line, so texts may hold every other character.

    Args:
      path: the file.
      wanted: as for `read_bytes`.
      nan: allow NaN and infinity, which are no JSON but which Python writes.
    Raises: what `read_bytes` raises, before the first line.
    """
    data, offset = read_bytes(path, wanted), 0
    if what := _no_text(data) or _one_value(data):
        yield Line(1, {}, f"the file is {what}")
        return
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            text = raw.removeprefix(BOM).decode("utf-8").strip()
            if text:
                value = _parsed(text, nan)
                if isinstance(value, dict):
                    yield Line(number, value)
                else:
                    problem = f"a JSON {json_type(value)} is given, an object in braces is needed"
                    yield Line(number, {}, problem)
        except UnicodeDecodeError as error:
            yield Line(number, {}, _broken(offset + len(raw) - len(error.object) + error.start))
        except _NotJSONError as error:
            yield Line(number, {}, f"{error}; each line needs one whole JSON object")
        offset += len(raw) + 1


def read_json_lines(path: str | Path, wanted: str = "", nan: bool = False) -> list[tuple[int, dict]]:
    """The objects of a JSON lines file, each with its line number; arguments as for `json_lines`.

    Raises: what `json_lines` raises; ValueError with the first 20 broken lines and their number.
    """
    lines = list(json_lines(path, wanted, nan))
    messages.refuse(path, [f"{path}:{line.number}: {line.problem}" for line in lines if line.problem])
    return [(line.number, line.value) for line in lines]


def listed(folder: str | Path, ending: str) -> list[Path]:
    """The files of a folder with this ending, sorted; upper and lower case count as equal.

    Dot files are left out: editors and file managers put them next to others (`.a.jsonl.swp`, `._a.jsonl`).

    Raises: FileNotFoundError if there is no such folder; ValueError if it cannot be read.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"there is no folder {folder}") from error
    except OSError as error:
        raise ValueError(f"the folder {folder} cannot be read ({messages.reason(error)})") from error
    return sorted(
        Path(folder) / name for name in names if name.lower().endswith(ending) and not name.startswith(".")
    )


def check_begin(path: str | Path) -> None:
    """Make sure that a file exists, can be read and is not a Git LFS pointer.

    Raises: what `read_bytes` raises; ValueError for a pointer.
    """
    with opened(path) as file:
        is_pointer = file.read(len(LFS)) == LFS
    if is_pointer:
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file that it stands for; run `git lfs pull` there, or "
            "download the file itself"
        )


def json_type(value: object) -> str:
    """The JSON name of a value's type.

    >>> json_type(None), json_type([1]), json_type(True)
    ('null', 'list', 'true/false')
    """
    names = {str: "string", bool: "true/false", list: "list", dict: "object", type(None): "null"}
    return names.get(type(value), "number")


class _NotJSONError(ValueError):
    """A text is not JSON; `line` says where."""

    def __init__(self, message: str, line: int = 1):
        super().__init__(message)
        self.line = line


def _parsed(text: str, nan: bool = False) -> Any:
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=float if nan else _constant,
            parse_float=float if nan else _number,
        )
    except RecursionError:
        raise _NotJSONError(f"lists or objects are nested more than {MAX_DEPTH} deep") from None
    except json.JSONDecodeError as error:
        raise _NotJSONError(f"not valid JSON ({error.msg}, column {error.colno})", error.lineno) from None
    except _NotJSONError:
        raise
    except ValueError as error:  # an integer with more digits than Python reads
        raise _NotJSONError(f"not valid JSON ({error})") from None
    if text.count("[") + text.count("{") > MAX_DEPTH or re.search(r"\\u[dD]", text):
        _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _NotJSONError(f"{twice[:80]!r} appears twice in one object; keep one of them")
    return found


def _constant(name: str) -> float:
    raise _NotJSONError(f"{name} is no JSON; write a number, null or a string")


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NotJSONError(f"the number {text[:80]} is too large")
    return value


def _check(value: Any) -> None:
    """Refuse values that are nested too deeply, and strings with an unpaired surrogate."""
    waiting = [("", value, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise _NotJSONError(f"lists or objects are nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            waiting += [(f"a name in {name or 'the object'}", key, depth) for key in value]
            waiting += [(f"{name}.{key}".strip("."), of, depth + 1) for key, of in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{name}[{i}]", of, depth + 1) for i, of in enumerate(value)]
        elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise _NotJSONError(
                f"{name[:80] or 'the string'} holds half a character (an unpaired \\u escape); write the "
                "character itself"
            )


def _one_value(data: bytes) -> str:
    """Describe a file that is one list, or one object over several lines, instead of JSON lines; else ""."""
    data = data.removeprefix(BOM).strip()
    try:
        if data.startswith(b"["):
            _parsed(data.decode("utf-8"), nan=True)
            return "a JSON array; write one object per line, without brackets and commas"
        if data.split(b"\n", 1)[0].strip() == b"{":
            _parsed(data.decode("utf-8"), nan=True)
            return "one JSON object over several lines; write every object on a line of its own"
    except ValueError:
        pass  # the lines are checked one by one
    return ""


def _no_text(data: bytes) -> str:
    """Describe a file that is not UTF-8 text, as far as its first bytes and NUL bytes show; else ""."""
    for beginning, what in NO_TEXT.items():
        if data.startswith(beginning):
            return what
    return "no text, or not UTF-8 (it holds NUL bytes); save it as UTF-8" if b"\0" in data else ""


def _broken(offset: int) -> str:
    return (
        f'broken UTF-8 at byte {offset} of the file; save the file as UTF-8 (in Excel: "CSV UTF-8"; or from '
        "Windows-1252 or Latin-1: iconv -f CP1252 -t UTF-8 OLD > NEW)"
    )
