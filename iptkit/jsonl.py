"""The user's own tasks: JSON lines, checked as a whole before anything is used.

One object a line: {"input": "...", "targets": ["..."]} or {"input": "...", "target": "..."}, and for tasks
with choices {"options": ["...", "..."]}. Blank lines are allowed; other fields are not used, but one that
looks like a misspelt name is a problem. Files are only read.
"""

import json
import unicodedata
from difflib import get_close_matches
from pathlib import Path

from iptkit.examples import Card, Example, card_from
from iptkit.fewshot import text_key

MAX_INPUT, MAX_TARGET, NUM_SHOWN = 2000, 400, 20
FIELDS = ("input", "target", "targets", "options")
BOM = b"\xef\xbb\xbf"  # some editors begin UTF-8 files with it


def check_jsonl(path: str | Path, max_input: int = MAX_INPUT, max_target: int = MAX_TARGET) -> list[str]:
    """Return every problem of a JSONL file as "file:line: what is wrong; way out" (empty: the file is fine).

    Args:
      max_input: longest input in characters.
      max_target: longest answer or option in characters.
    Raises: FileNotFoundError if there is no such file.
    """
    return _read(Path(path), max_input, max_target)[1]


def read_jsonl(path: str | Path, max_input: int = MAX_INPUT, max_target: int = MAX_TARGET) -> list[Example]:
    """Read the examples of a JSONL file, in the order of its lines.

    Raises: ValueError with the first 20 problems if there is any; FileNotFoundError if there is no such file.
    """
    examples, problems = _read(Path(path), max_input, max_target)
    if problems:
        shown = "\n".join(problems[:NUM_SHOWN])
        more = f"\n... and {len(problems) - NUM_SHOWN} more" if len(problems) > NUM_SHOWN else ""
        raise ValueError(f"{path} has {len(problems)} problem(s); nothing was changed:\n{shown}{more}")
    return examples


def read_card(path: str | Path, examples: list[Example]) -> Card:
    """Return the card of a JSONL task: what NAME.card.json beside it says, the rest inferred.

    The category is cls if all lines have the same options, mcqa if they differ, and qa if there are none.
    """
    path = Path(path)
    sidecar = path.with_name(f"{path.stem}.card.json")
    given = _read_sidecar(sidecar) if sidecar.is_file() else {}
    options = {frozenset(example.options) for example in examples}
    inferred_category = ("cls" if len(options) == 1 else "mcqa") if any(options) else "qa"
    category = given.get("category", inferred_category)
    if (category == "cls" and inferred_category != "cls") or (category == "mcqa" and not any(options)):
        raise ValueError(
            f"{sidecar}: category is {category!r}, but its lines look like {inferred_category!r}: "
            "cls needs the same options on all lines, mcqa needs options; change the category or the lines"
        )
    inferred = {
        "id": path.stem,
        "title": path.stem,
        "category": category,
        "source": str(path),
        "licence": "the user's own",
        "about": f"read from {path.name}",
        "labels": list(examples[0].options) if category == "cls" else [],
    }
    return card_from({**inferred, **given}, str(sidecar))


def _read_sidecar(sidecar: Path) -> dict:
    try:
        given = json.loads(sidecar.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{sidecar}: not valid JSON in UTF-8 ({error})") from error
    if not isinstance(given, dict):
        raise ValueError(f"{sidecar}: needs one JSON object with the fields of a card")
    return given


def _read(path: Path, max_input: int, max_target: int) -> tuple[list[Example], list[str]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give the path of a .jsonl file with one task")
    text = path.read_bytes()
    offset = len(BOM) if text.startswith(BOM) else 0
    if _is_array(text[offset:]):
        return [], [
            f"{path}:1: the file is a JSON array; write its objects one a line, no brackets, no commas"
        ]
    examples: dict[int, Example] = {}
    problems: list[tuple[int, str]] = []
    for number, raw in enumerate(text[offset:].split(b"\n"), start=1):
        fields, found = _parse(raw, offset)
        offset += len(raw) + 1
        if fields is not None:
            found += _check_fields(fields, max_input, max_target)
            if not found:
                examples[number] = _example(fields)
        problems += [(number, problem) for problem in found]
    if not examples and not problems:
        problems.append((1, "the file is empty; write one JSON object a line, with input and targets"))
    problems += _compare_lines(examples)
    return list(examples.values()), [f"{path}:{number}: {problem}" for number, problem in sorted(problems)]


def _is_array(text: bytes) -> bool:
    if not text.lstrip().startswith(b"["):
        return False
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _compare_lines(examples: dict[int, Example]) -> list[tuple[int, str]]:
    """Return what is wrong between lines: inputs given twice, options on some lines only."""
    problems, line_of = [], {}
    for number, example in examples.items():
        first = line_of.setdefault(text_key(example.input), number)
        if first != number:
            problems.append(
                (number, f"same input as line {first}; keep one of them, with all answers in its targets")
            )
    with_options = [number for number, example in examples.items() if example.options]
    without = [number for number, example in examples.items() if not example.options]
    if with_options and without:
        number, other = max(with_options[0], without[0]), min(with_options[0], without[0])
        lacks = "no options" if number == without[0] else "options"
        problems.append(
            (number, f"this line has {lacks}, unlike line {other}; give options on all lines or on none")
        )
    return problems


def _parse(raw: bytes, offset: int) -> tuple[dict | None, list[str]]:
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        return None, [f"broken UTF-8 at byte {offset + error.start} of the file; save the file as UTF-8"]
    if not text:
        return None, []
    try:
        fields = json.loads(text)
    except ValueError as error:
        return None, [f"not valid JSON ({error}); each line needs one whole JSON object"]
    if not isinstance(fields, dict):
        return None, [f"a JSON {_json_type(fields)} is given, an object in braces is needed"]
    return fields, []


def _check_fields(fields: dict, max_input: int, max_target: int) -> list[str]:
    problems = [
        f"field {name!r} looks like {like[0]!r}, which it is not; rename it"
        for name in fields.keys() - set(FIELDS)
        if (like := get_close_matches(name.lower(), FIELDS, 1, 0.8))
    ]
    has_input = "input" in fields
    problems += _check_text(fields["input"], "input", max_input) if has_input else [_absent("input", fields)]
    if "target" in fields and "targets" in fields:
        problems.append("both target and targets are given; keep targets")
    elif "target" in fields:
        problems += _check_text(fields["target"], "target", max_target)
    elif "targets" in fields:
        problems += _check_texts(fields["targets"], "targets", 1, max_target)
    else:
        problems.append(_absent("targets", fields))
    if fields.get("options") is not None:
        problems += _check_texts(fields["options"], "options", 2, max_target)
    return problems or _check_targets(_example(fields))


def _check_targets(example: Example) -> list[str]:
    """Return what is wrong with answers that can never be given: no option, or longer than a line."""
    if example.options:
        return [
            f"target {target!r} is not one of the options {list(example.options)}; write it exactly as "
            "there, or add it to them"
            for target in example.targets
            if target not in example.options
        ]
    return [
        f"target {target[:40]!r} holds a line break, but a free answer ends at its first line; write it "
        "in one line, or give options"
        for target in example.targets
        if "\n" in target
    ]


def _absent(name: str, fields: dict) -> str:
    return f"field {name!r} is missing (found: {', '.join(fields) or 'none'}); add it"


def _check_text(value: object, name: str, limit: int) -> list[str]:
    if not isinstance(value, str):
        return [f"{name} is of JSON type {_json_type(value)}, a string is needed; put it in double quotes"]
    if not value.strip():
        return [f"{name} is empty; write its text or remove the line"]
    if any("\ud800" <= character <= "\udfff" for character in value):
        return [f"{name} holds half a character (an unpaired \\u escape); write the character itself"]
    if len(value) > limit:
        return [f"{name} has {len(value)} characters, {limit} are allowed; shorten it"]
    return []


def _check_texts(value: object, name: str, least: int, limit: int) -> list[str]:
    if not isinstance(value, list):
        return [f'{name} is of JSON type {_json_type(value)}, a list of strings is needed: ["..."]']
    if len(value) < least:
        return [f"{name} has {len(value)} entries, at least {least} are needed"]
    problems = [
        problem
        for place, text in enumerate(value)
        for problem in _check_text(text, f"{name}[{place}]", limit)
    ]
    if not problems and len({unicodedata.normalize("NFC", text.strip()) for text in value}) < len(value):
        problems.append(f"{name} names an entry twice; keep it once")
    return problems


def _json_type(value: object) -> str:
    names = {
        bool: "true/false",
        int: "number",
        float: "number",
        list: "list",
        dict: "object",
        type(None): "null",
    }
    return names.get(type(value), "string")


def _example(fields: dict) -> Example:
    targets = fields["targets"] if "targets" in fields else [fields["target"]]
    strip = str.strip
    return Example(
        fields["input"].rstrip(), tuple(map(strip, targets)), tuple(map(strip, fields.get("options") or ()))
    )
