"""The data sets of the P-Tuning v2 paper from the model hub, with the settings of its authors.

Parquet files only, through the library `datasets`, no loading scripts. What is where, and the prompt length
and learning rate per data set, stands in data/hub.json. SRL (CoNLL05, CoNLL12) is not public in this form.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iptkit.storage import paths
from iptkit.storage.messages import visible
from iptkit.storage.reading import opened, read_json
from iptkit.tasks import schemes, superglue
from iptkit.tasks.examples import Card, Example, SpanExample, TaggedExample, Task, words_of
from iptkit.tasks.fewshot import make_task

Record = Mapping[str, Any]
BOOLEAN = ("BoolQ", "WiC", "WSC")  # their labels are 0 and 1 on the hub, false and true in SuperGLUE's files


def names() -> tuple[str, ...]:
    """Data sets that `load` knows."""
    return tuple(name for name in _known() if name != "about")


def settings(name: str, model: str = "roberta-large") -> dict[str, Any]:
    """Prompt length, lr, batch and epochs of the authors' script for a data set and a model.

    Raises: ValueError if they have none (lists those there are).

    Example:
      >>> settings("conll03")["prompt_length"]
      11
    """
    of = _entry(name)["paper"]
    if model not in of:
        told = ", ".join(of) or "none"
        raise ValueError(f"the authors have no script for {name} with {model!r}; there are: {told}")
    return dict(of[model])


def load(
    name: str,
    files: Mapping[str, str | Path] | None = None,
    dev_share: float = 0.1,
    labels: Sequence[str] = (),
) -> Task:
    """Read a data set: train, a part of it held out as dev to choose by, and its validation set as test.

    As in the paper, whose SuperGLUE numbers are on the validation sets; but nothing is chosen on them here.

    Args:
      name: one of `names()`.
      files: Parquet files of your own, {"train": ..., "validation": ...}, in place of the hub's.
      dev_share: of the training examples, above 0 and below 1; every 1 / dev_share-th one.
      labels: names of the tags where the data set stores bare numbers.

    Raises:
      ValueError: unknown name, a wrong dev_share, a file that cannot be read, a part without examples, a
        field that is missing or no text, bare numbers without `labels`.
      FileNotFoundError: neither on the hub nor given.
    """
    entry = _entry(name)
    if not 0 < dev_share <= 0.5:
        raise ValueError(f"dev_share is {dev_share}; give a number above 0, at most 0.5")
    read = {part: _records(name, entry, part, files) for part in ("train", "validation")}
    tags = tuple(labels) or _tag_names(entry, read["train"])
    where = {part: str(files[part]) if files else f"{entry['id']}, {part}" for part in read}
    made = {part: _examples(f"{name} ({where[part]})", entry, rows, tags) for part, rows in read.items()}
    empty = [where[part] for part, rows in made.items() if not rows]
    if empty:
        raise ValueError(f"{name}: there is no example in {' and '.join(empty)}; give a part with some")
    if entry["kind"] in ("tags", "entities"):
        made, tags = _as_iob2(name, made, tags if entry["kind"] == "tags" else labels)
    step = round(1 / dev_share)
    dev, train = made["train"][::step], [e for i, e in enumerate(made["train"]) if i % step]
    kinds = {"tags": "tag", "entities": "tag", "span": "qa"}
    options = made["train"][0].options
    card = Card(
        id=f"hub-{name}",
        title=f"{name} from the model hub",
        category=kinds.get(entry["kind"], "mcqa" if name == "copa" else "cls"),
        metric="span_f1" if entry["kind"] in ("tags", "entities") else METRIC[entry["kind"]],
        group=f"hub-{name}",
        source=entry["id"],
        licence="see its page on the hub",
        about=f"{entry['id']}, as on the hub.",
        labels=tags or (() if name == "copa" else options),
    )
    parts = {"train": tuple(train), "train_new": (), "dev": tuple(dev), "test": tuple(made["validation"])}
    return make_task(card, 0, parts)


METRIC = {"superglue": "accuracy", "span": "token_f1"}


# ---- records -------------------------------------------------------------------------------------
def _records(name: str, entry: Record, part: str, files: Mapping[str, str | Path] | None) -> Any:
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets.exceptions import DatasetsError

    if files is not None:
        if part not in files:
            raise FileNotFoundError(f"{name} needs a Parquet file {part!r}; given: {dict(files)}")
        try:
            with opened(files[part], f"{name} needs a Parquet file {part!r}") as file:
                is_empty = not pq.read_metadata(file).num_rows
        except pa.ArrowException as error:
            raise ValueError(f"{files[part]} is no Parquet file ({visible(str(error))})") from error
        if is_empty:  # the library has words of its own for it
            raise ValueError(f"{name}: there is no example in {files[part]}; give a part with some")
        try:
            return datasets.load_dataset("parquet", data_files={part: str(files[part])}, split=part)
        except (OSError, ValueError, DatasetsError) as error:
            told = str(error.__cause__ or error).splitlines()[0]
            raise ValueError(
                f"{files[part]} is no Parquet file of a data set, or damaged ({told})"
            ) from error
    try:
        return datasets.load_dataset(entry["id"], entry["config"], split=part, revision=entry.get("revision"))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{name} ({entry['id']}) is not to be had from the model hub ({str(error).splitlines()[0]}); "
            'give Parquet files: files={"train": ..., "validation": ...}'
        ) from error


def _examples(name: str, entry: Record, rows: Any, tags: tuple[str, ...]) -> list[Example]:
    make = MAKERS[entry["kind"]]
    out = []
    for number, record in enumerate(rows):
        try:
            out += make(record, entry, tags)
        except ValueError as error:
            raise ValueError(f"{name}, record {number}: {error}") from error
        except (KeyError, TypeError, IndexError) as error:
            there = ", ".join(record)
            told = f"{name}, record {number}: {error!r}; its fields are: {there}"
            raise ValueError(
                f"{told}. Change the entry in data/hub.json if the data set has changed"
            ) from error
    return out


def _superglue(record: Record, entry: Record, tags: tuple[str, ...]) -> list[Example]:
    """The hub's flat fields as SuperGLUE's own."""
    name, fields = entry["name"], dict(record)
    if isinstance(fields.get("label"), int) and fields["label"] < 0:
        raise ValueError("the label is missing (-1), as in a test set; give a part with labels")
    if name in BOOLEAN:
        if fields["label"] not in (0, 1):
            raise ValueError(f"the label is {fields['label']!r:.80}, allowed are 0 and 1")
        fields["label"] = bool(fields["label"])
    elif name == "CB":
        fields["label"] = ("entailment", "contradiction", "neutral")[fields["label"]]
    elif name == "RTE":
        fields["label"] = ("entailment", "not_entailment")[fields["label"]]
    if name == "WSC":
        fields["target"] = {key: fields[key] for key in ("span1_text", "span2_text")}
    if name == "MultiRC":
        answer = {"text": fields["answer"], "label": fields["label"]}
        question = {"question": fields["question"], "answers": [answer]}
        fields = {"passage": {"text": fields["paragraph"], "questions": [question]}}
    return list(superglue.NAMES[name](fields))


def _tags(record: Record, entry: Record, tags: tuple[str, ...]) -> list[Example]:
    numbers = record[entry["tags"]]
    if min(numbers, default=0) < 0:
        raise ValueError(f"tag number {min(numbers)}; give a part whose words all have tags")
    return _tagged(record["tokens"], [tags[i] for i in numbers])


def _entities(record: Record, entry: Record, tags: tuple[str, ...]) -> list[Example]:
    """Spans {start, end, type} over the tokens, as IOB2 tags."""
    given = ["O"] * len(record["tokens"])
    for span in record["entities"]:
        if not 0 <= span["start"] < span["end"] <= len(given):
            raise ValueError(f"the span {span} does not lie within its {len(given)} tokens")
        if set(given[span["start"] : span["end"]]) != {"O"}:
            raise ValueError(f"the span {span} overlaps another; a word has one tag")
        for i in range(span["start"], span["end"]):
            given[i] = f"{'B' if i == span['start'] else 'I'}-{span['type']}"
    return _tagged(record["tokens"], given)


def _tagged(tokens: Sequence[str], given: Sequence[str]) -> list[TaggedExample]:
    """The sentence; none for a record without words, which has nothing to tag."""
    words = ["_".join(words_of(word)) or "_" for word in tokens]  # a word is what stands between blanks
    made = TaggedExample(" ".join(words), (" ".join(given),), (), tuple(dict.fromkeys(given)))
    return [made] if words else []


def _as_iob2(
    name: str, made: Mapping[str, Sequence[TaggedExample]], labels: Sequence[str]
) -> tuple[dict[str, list[TaggedExample]], tuple[str, ...]]:
    """All parts with their tags as IOB2, and the tags of the task; a warning says what was converted."""
    every = [(part, record, e) for part, rows in made.items() for record, e in enumerate(rows)]

    def where(sentence: int, place: int) -> str:
        part, record, e = every[sentence]
        return f"{name}, {part}, record {record}, word {place + 1} ({e.words[place]!r})"

    done, known = schemes.read([e.tags for *_, e in every], labels, "auto", where)
    if done.note:
        warnings.warn(f"{name}: {done.note}", stacklevel=3)
    parts: dict[str, list[TaggedExample]] = {part: [] for part in made}
    for (part, _, e), tags in zip(every, done.tags, strict=True):
        parts[part].append(TaggedExample(e.input, (" ".join(tags),), (), known))
    return parts, known


def _span(record: Record, entry: Record, tags: tuple[str, ...]) -> list[Example]:
    """Questions with an answer in their passage (those of SQuAD 2.0 without one are left out)."""
    answers = record["answers"]
    if not answers["text"]:
        return []
    passage, question = (superglue.text_of(record, field) for field in ("context", "question"))
    start = answers["answer_start"][0]  # of the first text
    both = f"{passage}\nQuestion: {question}"
    targets = tuple(dict.fromkeys(answers["text"]))
    return [SpanExample(both, targets, (), question, passage, start)]


MAKERS: dict[str, Callable[[Record, Record, tuple[str, ...]], list[Example]]] = {
    "superglue": _superglue,
    "tags": _tags,
    "entities": _entities,
    "span": _span,
}


def _tag_names(entry: Record, rows: Any) -> tuple[str, ...]:
    """Names of the tags, from the data set's own description."""
    if entry["kind"] != "tags":
        return ()
    feature = getattr(rows.features.get(entry["tags"]), "feature", None)
    if not getattr(feature, "names", None):
        raise ValueError(
            f"{entry['id']} stores its tags as bare numbers; give their names in order: "
            "labels=('O', 'B-...', ...), as in the data set's label.json"
        )
    return tuple(feature.names)


def _entry(name: str) -> Record:
    known = _known()
    if name not in names():
        raise ValueError(f"data set {name!r} is unknown; choose one of {', '.join(names())}")
    return known[name]


def _known() -> dict[str, Any]:
    return read_json(paths.data_dir() / "hub.json")
