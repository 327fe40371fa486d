"""SuperGLUE tasks from a folder with train.jsonl and val.jsonl, in SuperGLUE's own format.

The folders of SuperGLUE itself have them, and a test.jsonl without labels, which is not used. FewGLUE (Schick
& Schütze 2021, arXiv 2009.07118) has a third file, dev32.jsonl: 32 training examples and 32 for model
selection per task; it comes with the code of P-tuning (https://github.com/THUDM/P-tuning). The kit reads the
files in place and copies nothing. It wraps the texts in questions of its own words.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from iptkit.storage import messages, paths, reading
from iptkit.tasks.examples import Card, Example, Task
from iptkit.tasks.fewshot import make_task

SPLITS = ("train", "dev32", "val")
DEV_SHARE = 0.1  # of the training examples, if there is no dev set
YES_NO = ("no", "yes")
Fields = dict[str, Any]


def load_folder(folder: str | Path, name: str) -> Task:
    """Return a task from a folder.

    train.jsonl is the training set, dev32.jsonl the dev set, and val.jsonl, which has labels, the test set.
    Without dev32.jsonl, every tenth training example goes to the dev set.

    Args:
      folder: the folder with the files.
      name: one of NAMES.
    Returns: a task with options for every example; train_new is empty.
    Warns: UserWarning if the dev set is held out, and if there is a test.jsonl, which is not used.

    Raises:
      ValueError: the name is unknown.
      FileNotFoundError: a file is missing; the message names those that are there.
      ValueError: a file has no example, or has broken records: not JSON, a field that is missing, empty or
        not a text, a label that is not allowed, two equal choices. The message lists the first 20 by line.
    """
    folder = paths.expanded(folder)
    if name not in NAMES:
        raise ValueError(f"there is no SuperGLUE task {name!r}; choose one of {', '.join(NAMES)}")
    lacks = [split for split in SPLITS if not os.path.lexists(folder / f"{split}.jsonl")]
    if missing := [split for split in lacks if split != "dev32"]:
        there = ", ".join(path.name for path in reading.listed(folder, ".jsonl")) or "none"
        raise FileNotFoundError(
            f"{folder} has no {', '.join(f'{split}.jsonl' for split in missing)} (found: {there}); a task "
            "needs train.jsonl and val.jsonl, and may have dev32.jsonl"
        )
    there_are = [split for split in SPLITS if split not in lacks]
    sets = {split: _examples(folder / f"{split}.jsonl", NAMES[name]) for split in there_are}
    if lacks:
        sets["train"], sets["dev32"] = held_out(sets["train"], DEV_SHARE)
        unused = "; test.jsonl is not used" if os.path.lexists(folder / "test.jsonl") else ""
        warnings.warn(
            f"{folder}: there is no dev32.jsonl, so {len(sets['dev32'])} example(s) of train.jsonl are the "
            f"dev set, and val.jsonl is the test set{unused}",
            stacklevel=2,
        )
    card = Card(
        id=f"superglue-{name.lower()}",
        title=f"SuperGLUE {name}",
        category="mcqa" if name == "COPA" else "cls",
        metric="accuracy",
        group=f"superglue-{name.lower()}",
        source=str(folder),
        licence="that of SuperGLUE's data sets",
        about=f"{name} of SuperGLUE, as in the folder.",
    )
    return make_task(card, 0, train=sets["train"], train_new=(), dev=sets["dev32"], test=sets["val"])


def held_out(examples: Sequence[Example], share: float) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Return the examples without a share of them that lies evenly among them, and this share."""
    step = round(1 / share)
    return tuple(e for i, e in enumerate(examples) if i % step), tuple(examples[::step])


def _examples(path: Path, make: Callable[[Fields], Iterator[Example]]) -> tuple[Example, ...]:
    found: list[Example] = []
    problems = []
    for line in reading.json_lines(path):
        try:
            if not line.problem:
                found += make(line.value)
            problem = line.problem
        except ValueError as error:
            problem = str(error)
        problems += [f"{path}:{line.number}: {problem}"] if problem else []
    messages.refuse(path, problems)
    if not found:
        raise ValueError(f"{path} has no example; a task needs some in each of its files")
    return tuple(found)


KINDS: dict[type, str] = {str: "a string", dict: "an object", list: "a list"}


def _field(fields: Any, name: str, kind: type = str) -> Any:
    """Return a field of a record, by its path (a.b); ValueError if it is missing or of another type."""
    at, _, last = name.rpartition(".")
    holder = _field(fields, at, dict) if at else fields
    if last not in holder:
        there = ", ".join(f"{other:.40}" for other in list(holder)[:10]) or "none"
        raise ValueError(f"the field {name!r} is missing (found: {there}); add it")
    value = holder[last]
    if not isinstance(value, kind):
        raise ValueError(f"{name} has JSON type {reading.json_type(value)}, allowed is {KINDS[kind]}")
    return value


def text_of(fields: Any, name: str) -> str:
    """Return a text of a record, by a path such as "passage.text"; ValueError if it is missing or empty."""
    if not (value := _field(fields, name)).strip():
        raise ValueError(f"{name} is empty; write a text, or remove the record")
    return value


def _chosen(fields: Any, names: dict[Any, str], text: str) -> Iterator[Example]:
    """Yield an example whose options are the names, in order; the record's label selects the right one."""
    if "label" not in fields:
        raise ValueError("the field 'label' is missing, as in a test set; give a file with labels")
    label = fields["label"]
    if isinstance(label, str) and label.lower() in ("true", "false"):
        label = label.lower() == "true"
    if not any(label == known and type(label) is type(known) for known in names):
        allowed = ", ".join(map(repr, names))
        raise ValueError(f"label is {label!r:.80}, allowed are: {allowed}")
    yield Example(text, (names[label],), tuple(names.values()))


BOOLEAN = dict(zip((False, True), YES_NO, strict=True))


def _boolq(f: Fields) -> Iterator[Example]:
    return _chosen(f, BOOLEAN, f"{text_of(f, 'passage')}\nQuestion: {text_of(f, 'question')}?")


def _cb(f: Fields) -> Iterator[Example]:
    names = {"entailment": "yes", "contradiction": "no", "neutral": "maybe"}
    return _chosen(f, names, f"{text_of(f, 'premise')}\nDoes it follow that {text_of(f, 'hypothesis')}?")


def _copa(f: Fields) -> Iterator[Example]:
    asks = {"cause": "Why?", "effect": "What happened then?"}
    if (asked := text_of(f, "question")) not in asks:
        raise ValueError(f"question is {asked!r:.80}, allowed are: {', '.join(asks)}")
    names = {0: text_of(f, "choice1"), 1: text_of(f, "choice2")}
    if names[0].strip() == names[1].strip():
        raise ValueError("choice1 and choice2 are equal, so no answer is right; change one of them")
    return _chosen(f, names, f"{text_of(f, 'premise')}\n{asks[asked]}")


def _multirc(f: Fields) -> Iterator[Example]:
    passage = text_of(f, "passage.text")
    for question in _field(f, "passage.questions", list):
        asked = {"question": question}
        for answer in _field(asked, "question.answers", list):
            text = f"{passage}\nQuestion: {text_of(asked, 'question.question')}\nIs it "
            text += f"{_field({'answer': answer}, 'answer.text')}?"
            yield from _chosen(answer, {0: "no", 1: "yes"}, text)


def _rte(f: Fields) -> Iterator[Example]:
    names = {"not_entailment": "no", "entailment": "yes"}
    return _chosen(f, names, f"{text_of(f, 'premise')}\nDoes it follow that {text_of(f, 'hypothesis')}?")


def _wic(f: Fields) -> Iterator[Example]:
    text = f"{text_of(f, 'sentence1')}\n{text_of(f, 'sentence2')}\n"
    return _chosen(f, BOOLEAN, f"{text}Does '{text_of(f, 'word')}' mean the same in both?")


def _wsc(f: Fields) -> Iterator[Example]:
    one, other = text_of(f, "target.span2_text"), text_of(f, "target.span1_text")
    return _chosen(f, BOOLEAN, f"{text_of(f, 'text')}\nDoes '{one}' refer to '{other}'?")


NAMES: dict[str, Callable[[Fields], Iterator[Example]]] = {
    "BoolQ": _boolq,
    "CB": _cb,
    "COPA": _copa,
    "MultiRC": _multirc,
    "RTE": _rte,
    "WiC": _wic,
    "WSC": _wsc,
}
