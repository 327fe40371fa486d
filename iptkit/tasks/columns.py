"""Which columns of a user's file hold the input, the answer and the options, and how values become texts.

Columns are given by name ({"input": "sentence", "target": "label"}), or found by their usual names. Several
columns make one input, joined by line breaks ("premise+hypothesis"), or several options, one each. A name
with dots leads into a nested value ("answers.text"). In a file without a header, the names are 0, 1, 2, ...
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iptkit.storage import messages

ROLES = ("input", "target", "options")
OTHER_NAMES = {  # names of these fields in other formats
    "input": ("text", "question", "prompt", "sentence", "instruction", "source", "inputs"),
    "target": ("output", "label", "answer", "completion", "response", "outputs", "labels", "answers"),
    "options": ("choices", "endings"),
}
PAIRS = (  # two columns that together are the input
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text_a", "text_b"),
    ("context", "question"),
    ("passage", "question"),
    ("instruction", "context"),
)
INSTRUCTION = ("instruction", "input")  # a pair, too, although input is a name of the kit's own
TAGGED = ({"tokens", "words"}, {"ner_tags", "pos_tags", "tags"})  # usual names for words and their tags
LETTERS = "ABCDEFGHIJ"
Given = Mapping[str, str | int | Sequence[str]]


class ColumnsError(ValueError):
    """The columns that were given, or that are there, do not say what is the input and what the answer."""


@dataclass(frozen=True)
class Columns:
    """The columns of each role.

    Attributes:
      of: names of the columns of each role; a role that is missing here has none.
      guessed: the roles whose columns were found by their usual names.
    """

    of: Mapping[str, tuple[str, ...]]
    guessed: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether the columns have the kit's own names, so that values are taken as they are."""
        return all(names[0] in (role, f"{role}s") and len(names) == 1 for role, names in self.of.items())

    def __str__(self) -> str:
        return ",".join(f"{role}={'+'.join(names)}" for role, names in self.of.items())


def parse(text: str) -> dict[str, str]:
    """Return the columns of each role from a text such as "input=premise+hypothesis,target=label".

    Raises: ValueError if a part has no "=", or a role is unknown or given twice.

    >>> parse("input=sentence,target=label")
    {'input': 'sentence', 'target': 'label'}
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        role, equals, names = (piece.strip() for piece in part.partition("="))
        if not equals or not names or role in found or "=" in names:
            raise ColumnsError(
                f"columns are {text!r:.200}; give every role once with its column, separated by commas: "
                "input=sentence,target=label (a name that has a comma goes on the card)"
            )
        found[role] = names
    return checked(found)


def checked(given: object) -> dict[str, Any]:
    """Return the columns that a user gave, or raise ColumnsError for a wrong type or an unknown role."""
    if isinstance(given, str):
        return parse(given) if given.strip() else {}
    if not isinstance(given, Mapping):
        raise ColumnsError(f'columns are {given!r:.80}, allowed is {{"input": "...", "target": "..."}}')
    for role, names in given.items():
        if role not in (*ROLES, "targets"):
            raise ColumnsError(
                f"columns name {role!r:.80}; allowed are: {', '.join(ROLES)}; write ROLE=COLUMN, "
                "such as input=text,target=label"
            )
        each = [names] if isinstance(names, str | int) and not isinstance(names, bool) else names
        if not isinstance(each, list | tuple) or not each or not all(isinstance(n, str | int) for n in each):
            raise ColumnsError(f"columns: {role} is {names!r:.80}, allowed is a name or a list of names")
    return {"target" if role == "targets" else role: names for role, names in given.items()}


def find(there: Sequence[str], given: Given, where: str) -> Columns:
    """Return the columns of every role among those that are there.

    Args:
      there: names of the columns of a file.
      given: the columns of some roles, as in `checked`; the others are found by their usual names.
      where: name of the file, for errors.
    Raises: ColumnsError for a column that is not there, or if several could be meant. A role without any
      usual name is left out.
    """
    of = {role: _given(there, names, where) for role, names in given.items()}
    guessed = []
    for role in ROLES:
        if role in of:
            continue
        names, is_exact = _usual(role, there, {name for names in of.values() for name in names}, where)
        if names:
            of[role] = names
            guessed += [] if is_exact else [role]
    return Columns({role: of[role] for role in ROLES if role in of}, tuple(guessed))


def missing(role: str, there: Sequence[str], where: str) -> ColumnsError:
    """Return the error for a file without a column for a role."""
    return ColumnsError(
        f"{where}: no column is named {role} or has another usual name for it; its columns are: "
        f"{listed(there)}; name it: --columns {example(there, (role,))} (columns= in Python, or on the card)"
    )


def example(there: Sequence[str], roles: Sequence[str] = ("input", "target")) -> str:
    """Return a --columns option for some roles with columns of a file, as a shell takes it.

    A role has its usual column, else the column that is left for it; COLUMN stands for one of several.

    >>> example(["utterance", "intent"])
    'input=utterance,target=intent'
    >>> example(["id", "utterance", "intent"])
    'input=COLUMN,target=COLUMN'
    """
    usual: dict[str, tuple[str, ...]] = {}
    for role in ROLES:
        with contextlib.suppress(ColumnsError):
            taken = {name for names in usual.values() for name in names}
            usual |= {role: _usual(role, there, taken, "")[0]}
    taken = {name for names in usual.values() for name in names}
    rest = [name for name in there if name.strip() and name not in taken]
    open_roles = [role for role in ("input", "target") if not usual.get(role)]
    left = dict(zip(open_roles, rest, strict=True)) if len(rest) == len(open_roles) else {}
    of = {role: "+".join(usual.get(role) or filter(None, [left.get(role)])) for role in roles}
    names = [n if n and n.isprintable() and "," not in n else "COLUMN" for n in of.values()]
    return shlex.quote(",".join(f"{role}={name:.200}" for role, name in zip(roles, names, strict=True)))


def listed(names: Iterable[str]) -> str:
    """Return the names for a message, cut short."""
    names = list(names)
    more = ", ..." if len(names) > 20 else ""
    shown = [messages.visible(f"{name:.40}") or "(no name)" for name in names[:20]]
    return ", ".join(repr(name) if "," in name else name for name in shown) + more or "none"


def parts(names: object) -> list[str]:
    """Return the single names in what was given for a role."""
    if isinstance(names, list | tuple):
        return [str(name) for name in names]
    return [part.strip() for part in str(names).split("+")]


def are_tagged(fields: Mapping[str, Any], columns: Columns) -> bool:
    """Return whether a record holds a list of words and a list of as many tags."""
    words, tags = (_value(fields, columns.of.get(role, ("",))[0]) for role in ("input", "target"))
    are_lists = isinstance(words, list) and isinstance(tags, list)
    return are_lists and len(words) == len(tags) > 0 and "options" not in columns.of


def pick(fields: Mapping[str, Any], columns: Columns, is_tag: bool = False) -> dict[str, Any]:
    """Return the input, targets and options of a record as the fields of a JSON line.

    A target that is missing, null or an empty text is left out: the record has no label.

    Args:
      fields: values by column.
      columns: those of the roles.
      is_tag: a list in the column of the target holds one tag per word, not several answers.
    """
    texts = [_text(_value(fields, name)) for name in columns.of["input"]]
    made: dict[str, Any] = {"input": "\n".join(text.strip() for text in texts if text.strip())}
    targets = [_value(fields, name) for name in columns.of.get("target", ())]
    if targets:
        target = targets[0] if len(targets) == 1 else targets
        target = _answer(target)
        if is_tag and isinstance(target, list):
            target = None if None in target else target
        elif isinstance(target, list | tuple):
            texts = list(dict.fromkeys(filter(None, (_text(_answer(item)).strip() for item in target))))
            made |= {"targets": texts} if texts else {}
            target = None
        if text := _text(target).strip():
            made["target"] = text
    options = [_value(fields, name) for name in columns.of.get("options", ())]
    if options:
        made["options"] = _options(options[0] if len(options) == 1 else options)
    return made


def with_answers(rows: Sequence[dict[str, Any]]) -> str:
    """Turn targets that are places among the options (0, 1, ... or A, B, ...) into the options themselves.

    Args:
      rows: fields as `pick` returns them; changed in place.
    Returns: a note on what was done; "" if nothing was.
    """
    some = [row for row in rows if isinstance(row.get("options"), list) and "target" in row]
    if not some or any(row["target"] in row["options"] for row in some):
        return ""
    targets = {str(row["target"]) for row in some}
    if all(target in LETTERS for target in targets):
        places, kind = {target: LETTERS.index(target) for target in targets}, "the letter"
    elif all(target.isdecimal() and len(target) < 4 for target in targets):
        first = 0 if "0" in targets else 1
        if first and not any(int(row["target"]) == len(row["options"]) for row in some):
            return ""  # nothing says whether places count from 0 or from 1
        places, kind = {target: int(target) - first for target in targets}, f"the place (from {first})"
    else:
        return ""
    if any(places[str(row["target"])] >= len(row["options"]) for row in some):
        return ""
    for row in some:
        row["target"] = row["options"][places[str(row["target"])]]
    return f"targets are read as {kind} of the right option"


def check_values(fields: Mapping[str, Any], columns: Columns, where: str) -> None:
    """Raise ColumnsError if a column of the input or the target holds objects of which one part is needed."""
    for role in ("input", "target"):
        for name in columns.of.get(role, ()):
            value = _value(fields, name)
            if isinstance(value, Mapping) and (role == "input" or "text" not in value):
                raise ColumnsError(
                    f"{where}: the column {name} holds objects with the parts {listed(value)}; name the part "
                    f"that is the {role}: --columns {role}={name}.{next(iter(value), '...')} (columns= in "
                    "Python, or on the card)"
                )


def _given(there: Sequence[str], names: object, where: str) -> tuple[str, ...]:
    """Return the columns that are there for the name or names of a role."""
    wanted = [names] if isinstance(names, str) and names in there else parts(names)
    found = []
    for name in wanted:
        head, dot, path = name.partition(".")
        alike = [one for one in there if one.strip().casefold() == name.strip().casefold()]
        if name in there or (dot and head in there):
            found.append(name)
        elif len(alike) == 1:
            found.append(alike[0])
        else:
            raise ColumnsError(f"{where} has no column {name!r:.80}; its columns are: {listed(there)}")
    return tuple(found)


def _usual(role: str, there: Sequence[str], taken: set[str], where: str) -> tuple[tuple[str, ...], bool]:
    """Return the columns of a role by their usual names, and whether these are the kit's own."""
    names = {name.strip().lower(): name for name in there if name not in taken}
    if role == "input" and all(name in names for name in INSTRUCTION):
        return tuple(names[name] for name in INSTRUCTION), False
    own = [names[name] for name in (role, f"{role}s") if name in names]
    if own:
        return (own[0],), True
    if role == "input":
        pairs = [pair for pair in PAIRS if all(name in names for name in pair)]
        if len(pairs) == 1:
            return tuple(names[name] for name in pairs[0]), False
    usual = [names[name] for name in OTHER_NAMES[role] if name in names]
    if role != "options" and not usual:
        usual = [names[name] for name in sorted(TAGGED[role == "target"]) if name in names]
    if len(usual) > 1:
        raise ColumnsError(
            f"{where}: {' or '.join(usual)} can be the {role}; name one: --columns {role}={usual[0]} "
            "(columns= in Python, or on the card)"
        )
    return tuple(usual), False


def _value(fields: Mapping[str, Any], name: str) -> Any:
    if name in fields:
        return fields[name]
    at: Any = fields
    for part in name.split("."):
        at = at.get(part) if isinstance(at, Mapping) else None
    return at


def _answer(value: Any) -> Any:
    """Return the text of an answer with other facts: {"text": ["..."], "answer_start": [...]} in SQuAD."""
    return value.get("text") if isinstance(value, Mapping) else value


def _text(value: Any) -> str:
    """Return a value as a text; "" for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):  # words
        return " ".join("_".join(_text(item).split()) or "_" for item in value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _options(value: Any) -> Any:
    """Return options as a list of texts, or the value itself, whose type is then a problem of its line."""
    if isinstance(value, dict):  # CommonsenseQA: {"label": ["A", ...], "text": ["...", ...]}
        value = value.get("text")
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    if not isinstance(value, list | tuple):
        return value
    return [item if isinstance(item, dict | list) else _text(item).strip() for item in value]
