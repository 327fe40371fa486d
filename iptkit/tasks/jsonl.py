"""Your own tasks in JSON lines files, checked as a whole before anything runs.

Each line is one object: {"input": "...", "targets": ["..."]} or {"input": "...", "target": "..."}, with
"options": ["...", "..."] if the task has choices. Blank lines are allowed. Other fields are ignored, but a
field that looks like a misspelt name is a problem. The files are never changed.

Inputs that differ only in case, blanks or composed letters are different inputs, but near duplicates: if one
is in the training set and the other in the test set, the test gets easier. The kit reports them, and with
"near_duplicates": "drop" in NAME.card.json it keeps only the first.

With "category": "tag" in NAME.card.json, the target holds one tag for every word of the input. Tags of spans
may follow any scheme of schemes.py (name it as "scheme" in NAME.card.json) and are converted to IOB2. If the
tags name no spans, the card needs "metric": "tag_accuracy".
"""

from __future__ import annotations

import math
import os
import unicodedata
import warnings
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from iptkit.storage import messages, reading
from iptkit.tasks import schemes
from iptkit.tasks.examples import Card, Example, card_from, tag_problem, words_of
from iptkit.tasks.fewshot import text_key

MAX_INPUT, MAX_TARGET = 2000, 400
FIELDS = ("input", "target", "targets", "options")
OTHER_NAMES = {  # names of these fields in other formats
    "input": ("text", "question", "prompt", "sentence", "instruction", "source", "inputs"),
    "target": ("output", "label", "answer", "completion", "response", "outputs", "labels", "answers"),
}
NEAR = "near_duplicates"  # a field of NAME.card.json: "keep" or "drop"
SCHEME = "scheme"  # a field of NAME.card.json for tags: one of schemes.SCHEMES, or "auto"


def check_jsonl(path: str | Path, max_input: int = MAX_INPUT, max_target: int = MAX_TARGET) -> list[str]:
    """Return every problem of a JSONL file as "file:line: what is wrong; how to fix it".

    The list is empty if the file is fine.

    Args:
      path: the file.
      max_input: longest input allowed, in characters.
      max_target: longest answer or option allowed, in characters.
    Raises: FileNotFoundError if there is no such file; ValueError if it cannot be read or is a folder.
    """
    return _read(Path(path), max_input, max_target)[1]


def near_duplicates(path: str | Path) -> list[str]:
    """Return "file:line: ..." for each near duplicate of an earlier input (see the module's docstring).

    Lines with problems are skipped. Raises what `check_jsonl` raises.
    """
    pairs = _near(_read(Path(path), MAX_INPUT, MAX_TARGET)[0])
    return [
        f"{path}:{number}: the input differs from line {first} only in case, blanks or composed letters"
        for number, first in pairs.items()
    ]


def read_jsonl(path: str | Path, max_input: int = MAX_INPUT, max_target: int = MAX_TARGET) -> list[Example]:
    """Return the examples of a JSONL file, in the order of its lines.

    Raises: ValueError with the first 20 problems if there are any; otherwise what `check_jsonl` raises.
    """
    examples, problems, _ = _read(Path(path), max_input, max_target)
    messages.refuse(path, problems)
    return list(examples.values())


def read_task(path: str | Path) -> tuple[list[Example], Card]:
    """Return the examples and the card of a JSONL task, without near duplicates if the card says "drop".

    Warns: UserWarning if there are near duplicates and the card says neither "drop" nor "keep", and if tags
      were converted to IOB2.
    Raises: what `read_jsonl` and `read_card` raise.
    """
    path = Path(path)
    examples, problems, note = _read(path, MAX_INPUT, MAX_TARGET)
    messages.refuse(path, problems)
    if note:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    card = read_card(path, list(examples.values()))
    near, choice = _near(examples), _sidecar(path).get(NEAR)
    if choice == "drop":
        examples = {number: example for number, example in examples.items() if number not in near}
    elif near and choice is None:
        number, first = next(iter(near.items()))
        warnings.warn(
            f"{path}: {len(near)} input(s) differ from an earlier one only in case, blanks or composed "
            f"letters (first: line {number}, from line {first}), so the training and test sets may share "
            f'them. Write {{"{NEAR}": "drop"}} in {path.stem}.card.json next to the file to leave them out, '
            'or "keep" to keep them',
            stacklevel=2,
        )
    return list(examples.values()), card


def read_card(path: str | Path, examples: list[Example]) -> Card:
    """Return the card of a JSONL task: the fields of NAME.card.json next to it, the rest inferred.

    The inferred category is cls if all lines have the same options, mcqa if they differ, and qa without any.
    Raises: ValueError that names the card's file, if a field is wrong (see `card_from`), or if the category
      or the labels do not fit the lines.
    """
    path = Path(path)
    sidecar = path.with_name(f"{path.stem}.card.json")
    own = _sidecar(path)
    given = {name: value for name, value in own.items() if name not in (NEAR, SCHEME)}
    options = {frozenset(example.options) for example in examples}
    inferred_category = ("cls" if len(options) == 1 else "mcqa") if any(options) else "qa"
    category = given.get("category", inferred_category)
    if (category == "cls" and inferred_category != "cls") or (category == "mcqa" and not any(options)):
        raise ValueError(
            f"{sidecar}: category is {category!r}, but the lines look like {inferred_category!r}: cls needs "
            "the same options on every line, and mcqa needs options; change the category or the lines"
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
    if category == "tag":
        inferred["labels"] = sorted({tag for example in examples for tag in words_of(example.targets[0])})
    card = card_from({**inferred, **given}, str(sidecar))
    if category == "tag":
        card = replace(card, labels=_labels(own) or tuple(inferred["labels"]))
    if category == "cls" and set(card.labels) != set(inferred["labels"]):
        raise ValueError(
            f"{sidecar}: labels are {', '.join(card.labels)}, but the lines have the options "
            f"{', '.join(inferred['labels'])}; list the same ones, or remove labels"
        )
    return card


def _sidecar(path: Path) -> dict:
    """Return the fields of NAME.card.json, {} if there is no such file."""
    sidecar = path.with_name(f"{path.stem}.card.json")
    given = reading.read_json(sidecar) if os.path.lexists(sidecar) else {}
    if given.get(NEAR, "keep") not in ("keep", "drop"):
        raise ValueError(f'{sidecar}: {NEAR} is {given[NEAR]!r:.80}, allowed are: "keep", "drop"')
    if given.get(SCHEME, "auto") not in ("auto", *schemes.SCHEMES):
        allowed = ", ".join(("auto", *schemes.SCHEMES))
        raise ValueError(f"{sidecar}: {SCHEME} is {given[SCHEME]!r:.80}, allowed are: {allowed}")
    return given


def _labels(own: dict) -> tuple[str, ...]:
    """Return the labels of a card of tags as IOB2, () if it has none."""
    given = own.get("labels")
    labels = tuple(filter(None, map(str, given))) if isinstance(given, list) else ()
    scheme = _scheme(own)
    return schemes.iob2_labels(labels, schemes.find([labels]) if scheme == "auto" else scheme)


def _scheme(own: dict) -> str:
    """Return the scheme that a card names or that its metric implies."""
    return own.get(SCHEME) or ("none" if own.get("metric") == "tag_accuracy" else "auto")


def _read(path: Path, max_input: int, max_target: int) -> tuple[dict[int, Example], list[str], str]:
    """Return the examples by line number, the problems of the other lines, and a note on converted tags."""
    own, note = _sidecar(path), ""
    is_tag = own.get("category") == "tag"
    target_limit = math.inf if is_tag else max_target  # there are as many tags as words
    examples: dict[int, Example] = {}
    problems: list[tuple[int, str]] = []
    for line in reading.json_lines(path, "give the path of a .jsonl file with one task"):
        found = [line.problem] if line.problem else _check_fields(line.value, max_input, target_limit)
        if not found:
            examples[line.number] = _example(line.value)
        problems += [(line.number, problem) for problem in found]
    if not examples and not problems:
        problems.append((1, "the file is empty; write one JSON object per line, with input and targets"))
    problems += _compare_lines(examples)
    if is_tag and examples:
        examples, of_tags, note = _tagged(examples, own, f"{path.stem}.card.json")
        problems += of_tags
    return examples, [f"{path}:{number}: {problem}" for number, problem in sorted(problems)], note


def _tagged(
    examples: dict[int, Example], own: dict, card: str
) -> tuple[dict[int, Example], list[tuple[int, str]], str]:
    """Return the examples with IOB2 tags, their problems, and a note on the conversion.

    Args:
      examples: by line number.
      own: the fields of the card.
      card: the name of its file.
    """
    problems: list[tuple[int, str]] = []
    for number, example in examples.items():
        if example.options:
            problems.append((number, "a sentence with tags has no options; remove them"))
        elif len(example.targets) > 1:
            problem = f"there are {len(example.targets)} targets; write one, with a tag for every word"
            problems.append((number, problem))
        elif problem := tag_problem(example.input, example.targets[0], words_of(example.targets[0])):
            problems.append((number, problem))
    raw = {number: words_of(example.targets[0]) for number, example in examples.items()}
    made, numbers, known = schemes.convert(tuple(raw.values()), _scheme(own)), list(raw), _labels(own)
    problems += [(numbers[s], f"word {place + 1}: {problem}") for s, place, problem in made.problems]
    if made.scheme == "none" and own.get("metric", "span_f1") == "span_f1":
        some = ", ".join(messages.first(sorted({tag for tags in raw.values() for tag in tags})))
        problem = (
            f'the tags name no spans ({some}), but span_f1 scores spans; write "metric": "tag_accuracy" in '
            f'{card}, or "{SCHEME}": "types" if neighbouring words with the same tag form one span'
        )
        problems.append((numbers[0], problem))
    if known and not made.problems:
        problems += [
            (number, f"word {place + 1}: tag {tag!r} is not one of the labels in {card}: {', '.join(known)}")
            for (number, given), tags in zip(raw.items(), made.tags, strict=True)
            for place, (tag, as_iob2) in enumerate(zip(given, tags, strict=True))
            if as_iob2 not in known
        ]
    if problems:
        return examples, problems, ""
    done = {
        n: replace(e, targets=(" ".join(tags),))
        for (n, e), tags in zip(examples.items(), made.tags, strict=True)
    }
    return done, [], made.note


def _near(examples: dict[int, Example]) -> dict[int, int]:
    """Return the line numbers of near duplicates, each with the number of the line they duplicate."""
    first_of: dict[str, int] = {}
    firsts = {
        number: first_of.setdefault(text_key(unicodedata.normalize("NFC", example.input)), number)
        for number, example in examples.items()
    }
    return {number: first for number, first in firsts.items() if number != first}


def _compare_lines(examples: dict[int, Example]) -> list[tuple[int, str]]:
    """Return the problems between lines: an input given twice, options on some lines only."""
    problems: list[tuple[int, str]] = []
    line_of: dict[str, int] = {}
    for number, example in examples.items():
        first = line_of.setdefault(example.input, number)
        if first != number:
            problems.append(
                (number, f"same input as line {first}; keep one of the two, with all answers as its targets")
            )
    with_options = [number for number, example in examples.items() if example.options]
    without = [number for number, example in examples.items() if not example.options]
    if with_options and without:
        number, other = max(with_options[0], without[0]), min(with_options[0], without[0])
        lacks = "no options" if number == without[0] else "options"
        problems.append(
            (number, f"this line has {lacks}, unlike line {other}; give options on every line or on none")
        )
    return problems


def _check_fields(fields: dict, max_input: int, max_target: float) -> list[str]:
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
        problems.append(_absent("targets", fields))
    if fields.get("options") not in (None, []):
        problems += _check_texts(fields["options"], "options", 2, max_target)
    return problems or _check_targets(_example(fields))


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
        return [f"{name} has {len(value)} characters, but at most {limit} are allowed; shorten it"]
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


def _example(fields: dict) -> Example:
    targets = fields["targets"] if "targets" in fields else [fields["target"]]
    strip = str.strip
    return Example(
        fields["input"].rstrip(), tuple(map(strip, targets)), tuple(map(strip, fields.get("options") or ()))
    )
