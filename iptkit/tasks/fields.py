"""What one line of a task must hold: an input, one or more targets, and options or none."""

from __future__ import annotations

import unicodedata
from difflib import get_close_matches

from iptkit.storage import reading
from iptkit.tasks.columns import OTHER_NAMES
from iptkit.tasks.examples import Example

MAX_INPUT, MAX_TARGET = 2000, 400
FIELDS = ("input", "target", "targets", "options")


def check(fields: dict, max_input: float, max_target: float) -> list[str]:
    """Return the problems of the fields of a line; for the limits see `jsonl.check_jsonl`."""
    likes = {name: get_close_matches(name.lower(), FIELDS, 1, 0.8) for name in fields if name not in FIELDS}
    problems = [
        f"unknown field {name!r}; rename it to {like[0]!r}, or to a name that is less similar"
        for name, like in likes.items()
        if like
    ]
    misspelt = {name for like in likes.values() for name in like}
    if "input" in fields:
        problems += _check_text(fields["input"], "input", max_input)
    elif "input" not in misspelt:
        problems.append(_absent("input", fields))
    if "target" in fields and "targets" in fields:
        problems.append("there are both target and targets; keep targets only")
    elif "target" in fields:
        problems += _check_text(fields["target"], "target", max_target)
    elif "targets" in fields:
        problems += _check_texts(fields["targets"], "targets", 1, max_target)
    elif not misspelt & {"target", "targets"}:
        problems.append(_absent("target", fields))
    if fields.get("options") not in (None, []):
        problems += _check_texts(fields["options"], "options", 2, max_target)
    return problems or _check_targets(example_of(fields))


def _check_targets(example: Example) -> list[str]:
    """Return the problems of answers that the model can never give: not an option, or more than one line."""
    if example.options:
        return [
            f"target {target!r} is not one of the options {list(example.options)}; spell it as there, or add "
            "it to them"
            for target in example.targets
            if target not in example.options
        ]
    return [
        f"target {target[:40]!r} has a line break, but a free answer ends with its first line; write it on "
        "one line, or give options"
        for target in example.targets
        if "\n" in target
    ]


def _absent(name: str, fields: dict) -> str:
    """Return the problem of a missing field, with the field that may be meant."""
    there = ", ".join(f"{other:.40}" for other in list(fields)[:10]) + (", ..." if len(fields) > 10 else "")
    missing = f"field {name!r} is missing (found: {there or 'none'})"
    kind = name.rstrip("s")
    meant = next((other for other in fields if other.strip().lower() in OTHER_NAMES[kind]), None)
    if meant is None:
        return f"{missing}; add it"
    new = "targets" if kind == "target" and isinstance(fields[meant], list) else kind
    return f"{missing}; rename {meant!r} to {new!r}, or add it"


def _check_text(value: object, name: str, limit: float) -> list[str]:
    if name == "target" and isinstance(value, list):
        return ["target is a JSON list, allowed is a string; rename it to targets, which is a list"]
    if not isinstance(value, str):
        return [
            f"{name} has JSON type {reading.json_type(value)}, allowed is a string; put it in double quotes"
        ]
    if not value.strip():
        return [f"{name} is empty; write a text, or remove the line"]
    if len(value) > limit:
        role = "max_input" if name == "input" else "max_target"
        return [
            f"{name} has {len(value)} characters, but at most {limit} are allowed; shorten it, or write "
            f'"{role}": {len(value)} on the card'
        ]
    return []


def _check_texts(value: object, name: str, least: int, limit: float) -> list[str]:
    if not isinstance(value, list):
        return [f'{name} has JSON type {reading.json_type(value)}, allowed is a list of strings: ["..."]']
    if len(value) < least:
        return [f"{name} has {len(value)} item(s), but needs at least {least}; add some"]
    problems = [
        problem
        for place, text in enumerate(value)
        for problem in _check_text(text, f"{name}[{place}]", limit)
    ]
    if not problems and len({unicodedata.normalize("NFC", text.strip()) for text in value}) < len(value):
        problems.append(f"{name} has the same item twice; keep one")
    return problems


def example_of(fields: dict) -> Example:
    """Return the example of a line without problems."""
    targets = fields["targets"] if "targets" in fields else [fields["target"]]
    strip = str.strip
    return Example(
        fields["input"].rstrip(), tuple(map(strip, targets)), tuple(map(strip, fields.get("options") or ()))
    )
