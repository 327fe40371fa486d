"""The data sets of the P-Tuning v2 paper, read from the Hugging Face hub or from your own Parquet files.

    task = hub.load("conll03")
    hub.settings("conll03")  # prompt length, learning rate, batch size and epochs of the paper's authors

The kit reads Parquet files through the library `datasets` and never runs loading scripts. data/hub.json lists
the data sets with their place on the hub and their settings. The paper's SRL data (CoNLL05, CoNLL12) is not
public in this form.
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
METRIC = {"superglue": "accuracy", "span": "token_f1", "tags": "span_f1", "entities": "span_f1"}
BOOLEAN = ("BoolQ", "WiC", "WSC")  # labels are 0 and 1 on the hub, but false and true in SuperGLUE's files


def names() -> tuple[str, ...]:
    """Return the names of the data sets that `load` can read."""
    return tuple(name for name in _known() if name != "about")


def settings(name: str, model: str = "roberta-large") -> dict[str, Any]:
    """Return prompt length, lr, batch size and epochs of the authors' script for a data set and a model.

    Raises: ValueError if the authors have no such script; the message lists the models they have.

    Example:
      >>> settings("conll03")["prompt_length"]
      11
    """
    of = _entry(name)["paper"]
    if model not in of:
        others = ", ".join(of) or "none"
        raise ValueError(f"the authors have no script for {name} with {model!r}; they have: {others}")
    return dict(of[model])


def load(
    name: str,
    files: Mapping[str, str | Path] | None = None,
    dev_share: float = 0.1,
    labels: Sequence[str] = (),
) -> Task:
    """Return a data set as a task; its validation set becomes the test set.

    A part of the training set is held out as dev set, for model selection. The paper reports SuperGLUE scores
    on the validation sets, too, but here nothing is selected on them.

    Args:
      name: one of `names()`.
      files: your own Parquet files instead of the hub's, {"train": ..., "validation": ...}.
      dev_share: share of the training examples that become the dev set, above 0 and at most 0.5.
      labels: names of the tags, if the data set stores tags as numbers without names.

    Raises:
      ValueError: the name is unknown, dev_share is out of range, a file cannot be read, a part has no
        example, a field is missing or is not a text, or tags are numbers without names.
      FileNotFoundError: the data set is not on the hub, or a file is missing.
    """
    entry = _entry(name)
    if not 0 < dev_share <= 0.5:
        raise ValueError(f"dev_share is {dev_share}, allowed are numbers above 0 and up to 0.5")
    read = {part: _records(name, entry, part, files) for part in ("train", "validation")}
    tags = tuple(labels) or _tag_names(entry, read["train"])
    where = {part: str(files[part]) if files else f"{entry['id']}, {part}" for part in read}
    made = {part: _examples(f"{name} ({where[part]})", entry, rows, tags) for part, rows in read.items()}
    empty = [where[part] for part, rows in made.items() if not rows]
    if empty:
        raise ValueError(f"{name}: there is no example in {' and '.join(empty)}; give a file with some")
    if entry["kind"] in ("tags", "entities"):
        made, tags = _as_iob2(name, made, tags if entry["kind"] == "tags" else labels)
    train, dev = superglue.held_out(made["train"], dev_share)
    kinds = {"tags": "tag", "entities": "tag", "span": "qa"}
    options = made["train"][0].options
    card = Card(
        id=f"hub-{name}",
        title=f"{name} from the model hub",
        category=kinds.get(entry["kind"], "mcqa" if name == "copa" else "cls"),
        metric=METRIC[entry["kind"]],
        group=f"hub-{name}",
        source=entry["id"],
        licence="see its page on the hub",
        about=f"{entry['id']}, as on the hub.",
        labels=tags or (() if name == "copa" else options),
    )
    return make_task(card, 0, train=train, train_new=(), dev=dev, test=made["validation"])


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
            raise ValueError(f"{files[part]} is not a Parquet file ({visible(str(error))})") from error
        if is_empty:  # `load_dataset` has a message that does not name the file
            raise ValueError(f"{name}: there is no example in {files[part]}; give a file with some")
        try:
            return datasets.load_dataset("parquet", data_files={part: str(files[part])}, split=part)
        except (OSError, ValueError, DatasetsError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise ValueError(
                f"{files[part]} is not a Parquet file of a data set, or is damaged ({reason})"
            ) from error
    try:
        return datasets.load_dataset(entry["id"], entry["config"], split=part, revision=entry.get("revision"))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{name} ({entry['id']}) cannot be read from the hub ({str(error).splitlines()[0]}); give "
            'Parquet files: files={"train": ..., "validation": ...}'
        ) from error


def _examples(name: str, entry: Record, rows: Any, tags: tuple[str, ...]) -> Sequence[Example]:
    make = MAKERS[entry["kind"]]
    out: list[Example] = []
    for number, record in enumerate(rows):
        try:
            out += make(record, entry, tags)
        except ValueError as error:
            raise ValueError(f"{name}, record {number}: {error}") from error
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"{name}, record {number}: {error!r}; its fields are: {', '.join(record)}. If the data set "
                "has changed, correct its entry in data/hub.json"
            ) from error
    return out


def _superglue(record: Record, entry: Record, tags: tuple[str, ...]) -> Sequence[Example]:
    """Convert the hub's flat fields to those of SuperGLUE's own files, and return their examples."""
    name, fields = entry["name"], dict(record)
    if isinstance(fields.get("label"), int) and fields["label"] < 0:
        raise ValueError("label is -1, as in a test set; give a file with labels")
    if name in BOOLEAN:
        if fields["label"] not in (0, 1):
            raise ValueError(f"label is {fields['label']!r:.80}, allowed are: 0, 1")
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


def _tags(record: Record, entry: Record, tags: tuple[str, ...]) -> Sequence[Example]:
    numbers = record[entry["tags"]]
    if min(numbers, default=0) < 0:
        raise ValueError(f"a tag is {min(numbers)}, as in a test set; give a file with tags for all words")
    return _tagged(record["tokens"], [tags[i] for i in numbers])


def _entities(record: Record, entry: Record, tags: tuple[str, ...]) -> Sequence[Example]:
    """Return the sentence with its spans {start, end, type} as IOB2 tags."""
    given = ["O"] * len(record["tokens"])
    for span in record["entities"]:
        if not 0 <= span["start"] < span["end"] <= len(given):
            raise ValueError(f"the span {span} does not fit in the {len(given)} tokens of its sentence")
        if set(given[span["start"] : span["end"]]) != {"O"}:
            raise ValueError(f"the span {span} overlaps another, but a word can have one tag only")
        for i in range(span["start"], span["end"]):
            given[i] = f"{'B' if i == span['start'] else 'I'}-{span['type']}"
    return _tagged(record["tokens"], given)


def _tagged(tokens: Sequence[str], given: Sequence[str]) -> list[TaggedExample]:
    """Return the sentence in a list, or an empty list if it has no words."""
    words = ["_".join(words_of(word)) or "_" for word in tokens]  # a word must not contain a blank
    made = TaggedExample(" ".join(words), (" ".join(given),), (), tuple(dict.fromkeys(given)))
    return [made] if words else []


def _as_iob2(
    name: str, made: Mapping[str, Sequence[Example]], labels: Sequence[str]
) -> tuple[dict[str, Sequence[Example]], tuple[str, ...]]:
    """Return all parts with IOB2 tags, and the labels of the task; warn if tags were converted."""
    every = [
        (part, record, e)
        for part, rows in made.items()
        for record, e in enumerate(rows)
        if isinstance(e, TaggedExample)
    ]

    def where(sentence: int, place: int) -> str:
        part, record, e = every[sentence]
        return f"{name}, {part}, record {record}, word {place + 1} ({e.words[place]!r})"

    done, known = schemes.read([e.tags for *_, e in every], labels, "auto", where)
    if done.note:
        warnings.warn(f"{name}: {done.note}", stacklevel=3)
    parts: dict[str, list[TaggedExample]] = {part: [] for part in made}
    for (part, _, e), tags in zip(every, done.tags, strict=True):
        parts[part].append(TaggedExample(e.input, (" ".join(tags),), (), known))
    return {**parts}, known


def _span(record: Record, entry: Record, tags: tuple[str, ...]) -> Sequence[Example]:
    """Return the question with its answer in the passage, or nothing if SQuAD 2.0 says there is none."""
    answers = record["answers"]
    if not answers["text"]:
        return []
    passage, question = (superglue.text_of(record, field) for field in ("context", "question"))
    start = answers["answer_start"][0]  # of the first text
    both = f"{passage}\nQuestion: {question}"
    targets = tuple(dict.fromkeys(answers["text"]))
    return [SpanExample(both, targets, (), question, passage, start)]


MAKERS: dict[str, Callable[[Record, Record, tuple[str, ...]], Sequence[Example]]] = {
    "superglue": _superglue,
    "tags": _tags,
    "entities": _entities,
    "span": _span,
}


def _tag_names(entry: Record, rows: Any) -> tuple[str, ...]:
    """Return the names of the tags, from the data set's own description."""
    if entry["kind"] != "tags":
        return ()
    feature = getattr(rows.features.get(entry["tags"]), "feature", None)
    found = getattr(feature, "names", None)
    if not found:
        raise ValueError(
            f"{entry['id']} stores its tags as numbers without names; give the names in order, as in the "
            "data set's label.json: labels=('O', 'B-...', ...)"
        )
    return tuple(found)


def _entry(name: str) -> Record:
    known = _known()
    if name not in names():
        raise ValueError(f"there is no data set {name!r}; choose one of {', '.join(names())}")
    return known[name]


def _known() -> dict[str, Any]:
    return read_json(paths.data_dir() / "hub.json")
