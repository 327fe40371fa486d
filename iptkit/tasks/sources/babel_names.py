"""Names of countries and languages in several languages (CLDR, as shipped by babel).

Babel stores them as pickles. Unpickling can run code, so this module reads a pickle as data: pickletools
splits the stream into operations, and only those for numbers, texts, lists, tuples and dicts are followed.
Everything else, such as a named function or a call, becomes None; nothing is looked up, imported or called.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from functools import cache
from typing import Any

from iptkit.storage import archives

VERSION = 1
LANGUAGES = {"babel-en-fr": "fr", "babel-en-de": "de", "babel-en-es": "es"}
VALUES = ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
OPAQUE = {
    "GLOBAL": 0,
    "NEWOBJ": 2,
    "REDUCE": 2,
    "BUILD": 2,
}  # operation: how many values it takes from the stack
MARK = object()


def rows(task_id: str) -> Iterator[dict]:
    """Yield name and target, for countries and languages whose name differs from the English one."""
    english, other = _names("en"), _names(LANGUAGES[task_id])
    for key, name in english.items():
        translated = other.get(key, name)
        if translated.casefold() != name.casefold():
            yield {"name": name, "target": translated}


@cache
def _names(language: str) -> dict[str, str]:
    file = f"babel/locale-data/{language}.dat"
    locale = read_pickled_data(archives.read("babel", file)[file])
    names = {
        f"{kind}/{code}": name
        for kind, longest in (("territories", 2), ("languages", 3))
        for code, name in locale[kind].items()
        if len(code) <= longest and isinstance(name, str)
    }
    return names


def read_pickled_data(data: bytes) -> Any:
    """Return the numbers, texts, lists, tuples and dicts of a pickle, and None for all else; run no code.

    Raises: ValueError for an operation outside this small set.
    """
    stack: list = []
    memo: dict = {}
    for operation, argument, _ in pickletools.genops(data):
        name = operation.name
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in TUPLES:
            stack.append(tuple(_take(stack, TUPLES[name])))
        elif name in OPAQUE:
            _take(stack, OPAQUE[name])
            stack.append(None)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "MARK"):
            stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "MARK": MARK}[name])
        elif name in ("SETITEM", "SETITEMS", "APPEND", "APPENDS"):
            _fill(stack, name)
        elif name not in ("PROTO", "STOP", "FRAME"):
            raise ValueError(
                f"the pickle has the operation {name}, which is not plain data, so it is not read"
            )
    return stack.pop()


def _take(stack: list, count: int) -> list:
    taken = [stack.pop() for _ in range(count)]
    return taken[::-1]


def _fill(stack: list, name: str) -> None:
    """Move the topmost values into the dict or list below them."""
    if name.endswith("S"):
        start = len(stack) - 1 - stack[::-1].index(MARK)
        values = stack[start + 1 :]
        del stack[start:]
    else:
        values = _take(stack, 2 if name == "SETITEM" else 1)
    if name.startswith("SETITEM"):
        stack[-1].update(zip(values[::2], values[1::2], strict=True))
    else:
        stack[-1].extend(values)
