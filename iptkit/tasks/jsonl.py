"""The user's own tasks: JSON lines, checked as a whole before anything is used.

One object a line: {"input": "...", "targets": ["..."]} or {"input": "...", "target": "..."}, and for tasks
with choices {"options": ["...", "..."]}. Blank lines are allowed; other fields are not used, but one that
looks like a misspelt name is a problem. Files are only read.

Inputs that differ in case, blanks or composed letters only are different inputs, but near duplicates: an
input in train and its near duplicate in test make the test easier. They are named, and with
"near_duplicates": "drop" in NAME.card.json all but the first are left out.

With "category": "tag" in NAME.card.json the target holds a tag for every word of the input. Tags of spans may
follow any scheme of schemes.py ("scheme" in NAME.card.json names it) and are read as IOB2; for tags that name
no spans the card says "metric": "tag_accuracy".
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
OTHER_NAMES = {  # what other formats call them
    "input": ("text", "question", "prompt", "sentence", "instruction", "source", "inputs"),
    "target": ("output", "label", "answer", "completion", "response", "outputs", "labels", "answers"),
}
NEAR = "near_duplicates"  # in NAME.card.json: "keep" or "drop"
SCHEME = "scheme"  # in NAME.card.json of tags: one of schemes.SCHEMES, or "auto"


def check_jsonl(path: str | Path, max_input: int = MAX_INPUT, max_target: int = MAX_TARGET) -> list[str]:
    """Return every problem of a JSONL file as "file:line: what is wrong; way out" (empty: the file is fine).

    Args:
      max_input: longest input in characters.
      max_target: longest answer or option in characters.
    Raises: FileNotFoundError if there is no such file; ValueError if it cannot be read or is a folder.
    """
    return _read(Path(path), max_input, max_target)[1]


def near_duplicates(path: str | Path) -> list[str]:
    """Return "file:line: ..." for each input that is nearly that of an earlier line (see above).

    Lines with problems are passed over.
    Raises: what `check_jsonl` raises.
    """
    pairs = _near(_read(Path(path), MAX_INPUT, MAX_TARGET)[0])
    return [
        f"{path}:{number}: the input differs from line {first} in case, blanks or composed letters only"
        for number, first in pairs.items()
    ]


def read_jsonl(path: str | Path, max_input: int = MAX_INPUT, max_target: int = MAX_TARGET) -> list[Example]:
    """Read the examples of a JSONL file, in the order of its lines.

    Raises: ValueError with the first 20 problems if there is any; what `check_jsonl` raises.
    """
    examples, problems, _ = _read(Path(path), max_input, max_target)
    messages.refuse(path, problems)
    return list(examples.values())


def read_task(path: str | Path) -> tuple[list[Example], Card]:
    """Read a JSONL task and its card; near duplicates are left out where the card says "drop".

    Warns: where it does not, and there are some; where tags were converted to IOB2.
    Raises: what `read_jsonl` and `read_card` raise.
    """
    path = Path(path)
    examples, problems, note = _read(path, MAX_INPUT, MAX_TARGET)
    messages.refuse(path, problems)
    if note:
        warnings.warn(f"{path}: {note}", stacklevel=2)
    card = read_card(path, list(examples.values()))
    near, wish = _near(examples), _sidecar(path).get(NEAR)
    if wish == "drop":
        examples = {number: example for number, example in examples.items() if number not in near}
    elif near and wish is None:
        number, first = next(iter(near.items()))
        warnings.warn(
            f"{path}: {len(near)} input(s) differ from an earlier one in case, blanks or composed letters "
            f"only (first: line {number}, from line {first}); train and test may share them. To leave them "
            f'out write {{"{NEAR}": "drop"}} into {path.stem}.card.json beside the file, to keep them "keep"',
            stacklevel=2,
        )
    return list(examples.values()), card


def read_card(path: str | Path, examples: list[Example]) -> Card:
    """Return the card of a JSONL task: what NAME.card.json beside it says, the rest inferred.

    The category is cls if all lines have the same options, mcqa if they differ, and qa if there are none.
    Raises: ValueError that names the card's file: what `card_from` raises, a category or labels that do not
      fit the lines.
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
    if category == "tag":
        inferred["labels"] = sorted({tag for example in examples for tag in words_of(example.targets[0])})
    card = card_from({**inferred, **given}, str(sidecar))
    if category == "tag":
        card = replace(card, labels=_labels(own) or tuple(inferred["labels"]))
    if category == "cls" and set(card.labels) != set(inferred["labels"]):
        raise ValueError(
            f"{sidecar}: labels are {', '.join(card.labels)}, but the lines have the options "
            f"{', '.join(inferred['labels'])}; give the same, or leave labels out"
        )
    return card


def _sidecar(path: Path) -> dict:
    """What stands in NAME.card.json, {} where there is none."""
    sidecar = path.with_name(f"{path.stem}.card.json")
    given = reading.read_json(sidecar) if os.path.lexists(sidecar) else {}
    if given.get(NEAR, "keep") not in ("keep", "drop"):
        raise ValueError(f'{sidecar}: {NEAR} is {given[NEAR]!r:.80}, allowed are "keep" and "drop"')
    if given.get(SCHEME, "auto") not in ("auto", *schemes.SCHEMES):
        allowed = ", ".join(("auto", *schemes.SCHEMES))
        raise ValueError(f"{sidecar}: {SCHEME} is {given[SCHEME]!r:.80}, allowed are {allowed}")
    return given


def _labels(own: dict) -> tuple[str, ...]:
    """The labels of a card of tags as IOB2, () where it has none."""
    given = own.get("labels")
    labels = tuple(filter(None, map(str, given))) if isinstance(given, list) else ()
    scheme = _scheme(own)
    return schemes.iob2_labels(labels, schemes.find([labels]) if scheme == "auto" else scheme)


def _scheme(own: dict) -> str:
    """The scheme that a card names, or the one that its metric asks for."""
    return own.get(SCHEME) or ("none" if own.get("metric") == "tag_accuracy" else "auto")


def _read(path: Path, max_input: int, max_target: int) -> tuple[dict[int, Example], list[str], str]:
    """The examples by the numbers of their lines, what is wrong with the others, and what was converted."""
    own, note = _sidecar(path), ""
    is_tag = own.get("category") == "tag"
    max_target = math.inf if is_tag else max_target  # tags are as many as words
    examples: dict[int, Example] = {}
    problems: list[tuple[int, str]] = []
    for line in reading.json_lines(path, "give the path of a .jsonl file with one task"):
        found = [line.problem] if line.problem else _check_fields(line.value, max_input, max_target)
        if not found:
            examples[line.number] = _example(line.value)
        problems += [(line.number, problem) for problem in found]
    if not examples and not problems:
        problems.append((1, "the file is empty; write one JSON object a line, with input and targets"))
    problems += _compare_lines(examples)
    if is_tag and examples:
        examples, found, note = _tagged(examples, own, f"{path.stem}.card.json")
        problems += found
    return examples, [f"{path}:{number}: {problem}" for number, problem in sorted(problems)], note


def _tagged(
    examples: dict[int, Example], own: dict, card: str
) -> tuple[dict[int, Example], list[tuple[int, str]], str]:
    """The examples with their tags as IOB2, all that is wrong with them, and what was converted.

    Args:
      own: what the card says; card: the name of its file.
    """
    problems: list[tuple[int, str]] = []
    for number, example in examples.items():
        if example.options:
            problems.append((number, "a sentence with tags has no options; leave them out"))
        elif len(example.targets) > 1:
            told = f"{len(example.targets)} targets are given; write one, with a tag for every word"
            problems.append((number, told))
        elif told := tag_problem(example.input, example.targets[0], words_of(example.targets[0])):
            problems.append((number, told))
    raw = {number: words_of(example.targets[0]) for number, example in examples.items()}
    made, numbers, known = schemes.convert(tuple(raw.values()), _scheme(own)), list(raw), _labels(own)
    problems += [(numbers[s], f"word {place + 1}: {told}") for s, place, told in made.problems]
    if made.scheme == "none" and own.get("metric", "span_f1") == "span_f1":
        some = ", ".join(messages.first(sorted({tag for tags in raw.values() for tag in tags})))
        told = (
            f'the tags name no spans ({some}), but span_f1 scores spans; write "metric": "tag_accuracy" into '
            f'{card}, or "{SCHEME}": "types" if neighbours with the same tag are one span'
        )
        problems.append((numbers[0], told))
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
    """Lines whose input is nearly that of an earlier line, each with that line's number."""
    first_of: dict[str, int] = {}
    firsts = {
        number: first_of.setdefault(text_key(unicodedata.normalize("NFC", example.input)), number)
        for number, example in examples.items()
    }
    return {number: first for number, first in firsts.items() if number != first}


def _compare_lines(examples: dict[int, Example]) -> list[tuple[int, str]]:
    """Return what is wrong between lines: inputs given twice, options on some lines only."""
    problems, line_of = [], {}
    for number, example in examples.items():
        first = line_of.setdefault(example.input, number)
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


def _check_fields(fields: dict, max_input: int, max_target: float) -> list[str]:
    likes = {name: get_close_matches(name.lower(), FIELDS, 1, 0.8) for name in fields if name not in FIELDS}
    problems = [
        f"field {name!r} looks like {like[0]!r}, which it is not; rename it"
        for name, like in likes.items()
        if like
    ]
    misspelt = {name for like in likes.values() for name in like}
    if "input" in fields:
        problems += _check_text(fields["input"], "input", max_input)
    elif "input" not in misspelt:
        problems.append(_absent("input", fields))
    if "target" in fields and "targets" in fields:
        problems.append("both target and targets are given; keep targets")
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
    """That a field is missing, and which of those there are may be meant."""
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
        return ["target is of JSON type list, a string is needed; rename it to targets, which is a list"]
    if not isinstance(value, str):
        return [
            f"{name} is of JSON type {reading.json_type(value)}, a string is needed; put it in double quotes"
        ]
    if not value.strip():
        return [f"{name} is empty; write its text or remove the line"]
    if len(value) > limit:
        return [f"{name} has {len(value)} characters, {limit} are allowed; shorten it"]
    return []


def _check_texts(value: object, name: str, least: int, limit: float) -> list[str]:
    if not isinstance(value, list):
        return [f'{name} is of JSON type {reading.json_type(value)}, a list of strings is needed: ["..."]']
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


def _example(fields: dict) -> Example:
    targets = fields["targets"] if "targets" in fields else [fields["target"]]
    strip = str.strip
    return Example(
        fields["input"].rstrip(), tuple(map(strip, targets)), tuple(map(strip, fields.get("options") or ()))
    )
