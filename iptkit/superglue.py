"""Tasks in SuperGLUE's own format, as in FewGLUE: a folder with train.jsonl, dev32.jsonl and val.jsonl.

FewGLUE (Schick & Schütze 2021, arXiv 2009.07118) has 32 examples for training and 32 for choosing per
task; it comes with the code of P-tuning (https://github.com/THUDM/P-tuning). Its texts stay where they are:
nothing of them is copied. The words around the texts are ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from iptkit.examples import Card, Example, Task
from iptkit.fewshot import make_task

SPLITS = ("train", "dev32", "val")
YES_NO = ("no", "yes")
Fields = dict[str, Any]


def load_folder(folder: str | Path, name: str) -> Task:
    """Read a task: train.jsonl to train on, dev32.jsonl to choose by, val.jsonl as test (it has labels).

    Args:
      folder: where the three files are.
      name: one of NAMES.
    Returns: a task with options for every example; train_new is empty.
    Raises:
      ValueError: unknown name.
      FileNotFoundError: a split is missing; names those that are there.
      ValueError: naming file and line of a broken record: no JSON, a field missing, a label that is not
        allowed.
    """
    folder = Path(folder).expanduser()
    if name not in NAMES:
        raise ValueError(f"task {name!r} is unknown; choose one of {', '.join(NAMES)}")
    missing = [split for split in SPLITS if not (folder / f"{split}.jsonl").is_file()]
    if missing:
        there = ", ".join(sorted(path.name for path in folder.glob("*.jsonl"))) or "none"
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(f'{split}.jsonl' for split in missing)} (there: {there}); a task "
            "needs train.jsonl, dev32.jsonl and val.jsonl"
        )
    sets = {split: tuple(_examples(folder / f"{split}.jsonl", NAMES[name])) for split in SPLITS}
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
    parts = {"train": sets["train"], "train_new": (), "dev": sets["dev32"], "test": sets["val"]}
    return make_task(card, 0, parts)


def _examples(path: Path, make: Callable[[Fields], Iterator[Example]]) -> Iterator[Example]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            yield from make(json.loads(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{number}: not UTF-8; save the file as UTF-8") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not a JSON object ({error.msg})") from error
        except KeyError as error:
            raise ValueError(
                f"{path}:{number}: the field {error} is missing or not what SuperGLUE has"
            ) from error
        except TypeError as error:
            raise ValueError(f"{path}:{number}: not a SuperGLUE record ({error})") from error


def _chosen(label: Any, names: dict[Any, str], text: str) -> Iterator[Example]:
    """An example whose options are the names, in their order."""
    if isinstance(label, str) and label.lower() in ("true", "false"):
        label = label.lower() == "true"
    if label not in names or isinstance(label, bool) != isinstance(next(iter(names)), bool):
        raise KeyError(f"label (given: {label!r}, allowed: {', '.join(map(repr, names))})")
    yield Example(text, (names[label],), tuple(names.values()))


BOOLEAN = dict(zip((False, True), YES_NO, strict=True))


def _boolq(f: Fields) -> Iterator[Example]:
    return _chosen(f["label"], BOOLEAN, f"{f['passage']}\nQuestion: {f['question']}?")


def _cb(f: Fields) -> Iterator[Example]:
    names = {"entailment": "yes", "contradiction": "no", "neutral": "maybe"}
    return _chosen(f["label"], names, f"{f['premise']}\nDoes it follow that {f['hypothesis']}?")


def _copa(f: Fields) -> Iterator[Example]:
    asked = {"cause": "Why?", "effect": "What happened then?"}[f["question"]]
    names = {0: f["choice1"], 1: f["choice2"]}
    return _chosen(f["label"], names, f"{f['premise']}\n{asked}")


def _multirc(f: Fields) -> Iterator[Example]:
    for question in f["passage"]["questions"]:
        for answer in question["answers"]:
            text = f"{f['passage']['text']}\nQuestion: {question['question']}\nIs it {answer['text']}?"
            yield from _chosen(answer["label"], {0: "no", 1: "yes"}, text)


def _rte(f: Fields) -> Iterator[Example]:
    names = {"not_entailment": "no", "entailment": "yes"}
    return _chosen(f["label"], names, f"{f['premise']}\nDoes it follow that {f['hypothesis']}?")


def _wic(f: Fields) -> Iterator[Example]:
    text = f"{f['sentence1']}\n{f['sentence2']}\nDoes {f['word']!r} mean the same in both?"
    return _chosen(f["label"], BOOLEAN, text)


def _wsc(f: Fields) -> Iterator[Example]:
    target = f["target"]
    text = f"{f['text']}\nDoes {target['span2_text']!r} refer to {target['span1_text']!r}?"
    return _chosen(f["label"], BOOLEAN, text)


NAMES: dict[str, Callable[[Fields], Iterator[Example]]] = {
    "BoolQ": _boolq,
    "CB": _cb,
    "COPA": _copa,
    "MultiRC": _multirc,
    "RTE": _rte,
    "WiC": _wic,
    "WSC": _wsc,
}
