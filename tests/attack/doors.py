"""The doors: every place where iptkit reads a file that could be damaged.

A door writes good files, opens one of them, and checks what was read. A damaged file may be refused by an
error of iptkit that names the file. It may also be read, if the damage left it well-formed; then `holds`
compares what was read with a second, simple way of reading it.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import damage
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file
from typer.testing import CliRunner

from iptkit.course import cli
from iptkit.engine import sites
from iptkit.engine.engine import Engine
from iptkit.engine.prompt import PromptSource
from iptkit.methods import p_tuning_v2, prompt_tuning, subspace
from iptkit.models import backbone
from iptkit.prompts import interchange, saved
from iptkit.scores import claims, metrics, summary
from iptkit.storage import files, result_files, step_cache, tensor_files
from iptkit.studies import codes, provenance, scales
from iptkit.studies.study import Study
from iptkit.tasks import conll, examples, suites, superglue
from iptkit.training import trainer
from iptkit.training.runs import Fit, FitConfig, Run


@dataclass(frozen=True)
class Door:
    """One place where a file is read.

    write: writes good files to a folder and returns the one to damage.
    damages: a strategy for the bytes of the damaged file, given the good ones.
    open: reads the file; it must raise errors of iptkit only.
    holds: raises AssertionError if a value that was read without an error is wrong.
    weight: the door's share of the files in a long attack; opening a model takes longer than reading a line.
    """

    name: str
    write: Callable[[Path], Path]
    damages: Callable[[bytes], st.SearchStrategy[bytes]]
    open: Callable[[Path], Any]
    holds: Callable[[Path, Any], None]
    weight: int = 4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@functools.cache
def engine() -> Engine:
    return Engine(backbone.load("tiny-causal", dtype="float32"))


def lines_of(path: Path) -> list[dict]:
    """Return the objects of a JSON lines file, read in a simple way."""
    text = path.read_bytes().decode("utf-8-sig")
    return [json.loads(line.strip()) for line in text.split("\n") if line.strip()]


def no_claim(path: Path, value: Any) -> None:
    """Check nothing: there is no simple way to read this file."""


# ---- own tasks -------------------------------------------------------------------------------------
CLASSES = [
    {"input": f"{name} saw {count} birds", "target": target, "options": ["few", "many"]}
    for name in ("Ann", "Ben", "Cem", "Dia")
    for count, target in ((2, "few"), (3, "few"), (70, "many"), (90, "many"))
]
FREE = [{"input": f"Name the number after {n}.", "targets": [str(n + 1)]} for n in range(12)]
TAGGED = (
    "Ann B-name\nLee I-name\nsings O\n\nBen B-name\nrests O\n\nCem B-name\nruns O\n\nDia B-name\nsits O\n"
)
CARD = {"title": "Few or many", "category": "cls", "metric": "accuracy", "about": "counts birds"}
SUPERGLUE = {
    "BoolQ": {"passage": "Birds fly.", "question": "do birds fly", "label": True},
    "CB": {"premise": "It rains.", "hypothesis": "it is wet", "label": "entailment"},
    "COPA": {"premise": "It rained.", "choice1": "I got wet", "choice2": "I ate", "question": "effect",
             "label": 0},
    "MultiRC": {"passage": {"text": "Birds fly.", "questions": [{"question": "What flies?", "answers": [
        {"text": "birds", "label": 1}, {"text": "mud", "label": 0}]}]}},
    "RTE": {"premise": "It rains.", "hypothesis": "it is wet", "label": "not_entailment"},
    "WiC": {"sentence1": "a bank", "sentence2": "the bank", "word": "bank", "label": False},
    "WSC": {"text": "Ann saw Bo, she left.", "target": {"span1_text": "Ann", "span2_text": "she"},
            "label": True},
}  # fmt: skip


def write_lines(name: str, rows: list[Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


def damaged_lines(rows: list[Any]) -> Callable[[bytes], st.SearchStrategy[bytes]]:
    return lambda original: damage.of_lines(rows) | damage.of_bytes(original)


def damaged_json(original: bytes) -> st.SearchStrategy[bytes]:
    changed = damage.of_value(json.loads(original)).map(lambda value: damage.as_json(value).encode())
    return changed | damage.of_bytes(original)


def tasks_are_read_whole(path: Path, found: list[examples.Task]) -> None:
    """Check that every line is an example of the task and that perfect answers get the perfect score."""
    (task,) = found
    rows = lines_of(path)
    inputs = {row["input"].rstrip() for row in rows}
    for part in ("train", "train_new", "dev", "test"):
        examples = getattr(task, part)
        assert {e.input for e in examples} <= inputs
        for example in examples:
            row = next(row for row in rows if row["input"].rstrip() == example.input)
            targets = row["targets"] if "targets" in row else [row["target"]]
            assert list(example.targets) == [target.strip() for target in targets]
            options, labels = [option.strip() for option in row.get("options") or ()], list(task.labels)
            if sorted(options) == sorted(labels):  # those of a classification are in the order of its labels
                options = labels
            assert list(example.options) == options
            assert not example.options or set(example.targets) <= set(example.options)
    answers = [e.targets[0] for e in task.test]
    assert metrics.METRICS[task.metric](answers, task.test, task) == 1.0 or task.metric in (
        "mcc",
        "macro_f1",
    )


def write_csv(folder: Path) -> Path:
    path = folder / "birds.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["sentence", "label"])
        table.writeheader()
        table.writerows({"sentence": row["input"], "label": row["target"]} for row in CLASSES)
    return path


def rows_are_the_csv_files(path: Path, found: list[examples.Task]) -> None:
    """Check that every example is a row of the file, read in a simple way."""
    text = path.read_bytes().decode("utf-8-sig")
    mark = next((mark for mark in ",;\t" if mark in text.lstrip("\r\n").split("\n")[0]), ",")
    rows = [
        [cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), delimiter=mark)
    ]
    for task in found:
        for example in (*task.train, *task.train_new, *task.dev, *task.test):
            assert any(example.input in row and example.targets[0] in row for row in rows)


def write_tsv(folder: Path) -> Path:
    for part, rows in (("test", CLASSES[8:12]), ("dev", CLASSES[12:]), ("train", CLASSES[:8])):
        path = folder / f"{part}.tsv"
        text = "".join(f"{row['input']}\t{row['target']}\n" for row in rows)
        path.write_text(text, encoding="utf-8")
    return path


def rows_are_the_tsv_files(path: Path, found: list[examples.Task]) -> None:
    lines = [line.split("\t") for line in path.read_bytes().decode("utf-8-sig").split("\n")]
    texts = {tuple(cell.strip() for cell in line) for line in lines}
    (task,) = found
    assert all((example.input, example.targets[0]) in texts for example in task.train), texts


def table() -> Any:
    names = ["few", "many"]
    features = {
        "question": {"dtype": "string", "_type": "Value"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    rows = {
        "question": [row["input"] for row in CLASSES],
        "label": [names.index(r["target"]) for r in CLASSES],
    }
    return pa.table(rows).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def write_parquet(folder: Path) -> Path:
    pq.write_table(table(), folder / "birds.parquet")
    return folder / "birds.parquet"


def write_saved(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with pa.ipc.new_stream(folder / "data.arrow", table().schema) as stream:
            stream.write_table(table())
        (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
        return folder / name

    return write


def examples_are_whole(path: Path, found: list[examples.Task]) -> None:
    for task in found:
        for example in (*task.train, *task.train_new, *task.dev, *task.test):
            assert example.input.strip() and example.targets[0] and "None" not in example.targets
            assert not example.options or {*example.targets} <= {*example.options}


def write_card(folder: Path) -> Path:
    write_lines("birds.jsonl", CLASSES)(folder)
    path = folder / "birds.card.json"
    path.write_text(json.dumps(CARD), encoding="utf-8")
    return path


def write_folder_card(folder: Path) -> Path:
    """Write a task folder whose card names its files."""
    for name, rows in (("a", CLASSES[:8]), ("b", CLASSES[8:12]), ("c", CLASSES[12:])):
        write_lines(f"{name}.jsonl", rows)(folder)
    path = folder / "card.json"
    files = {"train": "a.jsonl", "dev": "b.jsonl", "test": "c.jsonl"}
    path.write_text(json.dumps({**CARD, "files": files}), encoding="utf-8")
    return path


def write_splits(folder: Path) -> Path:
    """Write a saved `DatasetDict`."""
    whole = table()
    for name, start, count in (("train", 0, 8), ("validation", 8, 4), ("test", 12, 4)):
        (folder / name).mkdir()
        with pa.ipc.new_stream(folder / name / "data.arrow", whole.schema) as stream:
            stream.write_table(whole.slice(start, count))
        (folder / name / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    path = folder / "dataset_dict.json"
    path.write_text('{"splits": ["train", "validation", "test"]}')
    return path


def card_is_kept(path: Path, found: list[examples.Task]) -> None:
    given = json.loads(path.read_bytes().decode("utf-8-sig"))
    assert [task.title for task in found] == [given.get("title", "birds")]
    name = found[0].id
    assert name.isprintable() and name.strip() and "/" not in name and name[0] != ".", "a folder's name"


def words_are_read_whole(path: Path, found: list[Any]) -> None:
    """Check that the words and sentences are those of the lines."""
    text = path.read_bytes().decode("utf-8-sig")
    lines = [line.strip(" \t\r") for line in text.split("\n")]
    words = [re.split(r"[ \t]+", line)[0] for line in lines if line and not line.startswith("-DOCSTART-")]
    assert [word for example in found for word in example.input.split(" ")] == words
    for example in found:
        assert len(example.tags) == len(example.input.split(" "))
        assert set(example.tags) <= set(example.labels)


def write_conll(folder: Path) -> Path:
    path = folder / "names.conll"
    path.write_text(TAGGED, encoding="utf-8")
    return path


def write_superglue(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for split in ("dev32", "val", "train"):
            path = write_lines(f"{split}.jsonl", [SUPERGLUE[name]] * 2)(folder)
        return path

    return write


def texts_are_texts(path: Path, task: examples.Task) -> None:
    """Check that no text is the printed form of a list, a dictionary, None or a number."""
    given = [text for row in lines_of(path) for text in texts_in(row)]
    assert task.train and all(e.targets[0] in e.options for e in task.train)
    assert all(len(set(e.options)) == len(e.options) for e in task.train)
    for example in task.train:
        assert not re.search(r"\[['\"\d]|\{['\"]|\bNone\b", example.input) or any(
            example.input.startswith(text) or text in example.input
            for text in given
            if re.search(r"[\[{N]", text)
        )


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from texts_in(part)


CROSSFIT = [
    {"text": f"{name} won a {thing}.", "label": n}
    for name in ("Ann", "Bo")
    for n, thing in enumerate(("war", "cup", "deal", "prize"))
]


def open_crossfit(path: Path) -> list[dict]:
    with mock.patch.dict(os.environ, IPTKIT_CROSSFIT=str(path.parent.parent)):
        from iptkit.tasks.sources import crossfit

        return list(crossfit.rows("ag_news"))


def write_crossfit(folder: Path) -> Path:
    (folder / "ag_news").mkdir()
    return write_lines("ag_news/train.jsonl", CROSSFIT)(folder)


# ---- results ---------------------------------------------------------------------------------------
ROWS = [
    {"task": task, "category": "cls", "group": task, "split": "seen", "setting": method, "method": method,
     "d_I": 0, "seed": seed, "metric": "accuracy", "score": 0.5, "chance": 0.25, "n_test": 4,
     "backbone": "tiny-causal", "scale": "smoke", "dtype": "float32", "device": "cpu"}
    for task in ("a", "b") for seed in (0, 1) for method in ("prompt tuning", "zero-shot")
]  # fmt: skip


def open_rows(path: Path) -> list[dict]:
    rows = result_files.read(path, summary.OF_SUBSPACE)
    try:
        summary.summary(rows, [("zero-shot", 0)], ("seen",))
    except ValueError as error:  # each row is correct, but they do not belong together
        raise ValueError(f"{path.name}: {error}") from error
    return rows


def rows_are_the_lines(path: Path, rows: list[dict]) -> None:
    assert len(rows) == len(lines_of(path))


@functools.cache
def study() -> Study:
    return Study(scales.load("smoke"))


def write_about(folder: Path) -> Path:
    write_lines("rows.jsonl", ROWS)(folder)
    path = folder / "rows.about.json"
    files.write_json(path, {"command": provenance.command(study()), **provenance.describe(study())})
    return path


def open_about(path: Path) -> list[str]:
    return provenance.differences(study(), path.with_name("rows.jsonl"))


def write_claim(folder: Path) -> Path:
    with mock.patch.dict(os.environ, IPTKIT_RESULTS=str(folder)):
        claims.record("B4", "smoke", "0.1", claims.VERDICTS[0], 6, 2)
    (path,) = (file for file in folder.rglob("B4.json"))
    return path


def open_claim(path: Path) -> str:
    return claims.as_text(claims.found(path.parents[2], "smoke"))


# ---- tensors ---------------------------------------------------------------------------------------
@functools.cache
def autoencoder() -> subspace.AutoEncoder:
    bank = torch.randn(4, 3, 32, generator=seeded(1))
    return subspace.AutoEncoder(bank, subspace.SubspaceConfig(2, 8), seeded(2))


def write_subspace(folder: Path) -> Path:
    path = folder / "mine.subspace.safetensors"
    subspace.save(autoencoder(), path)
    return path


def subspace_works(path: Path, found: subspace.AutoEncoder) -> None:
    """Check that it decodes to finite prompts and that its tensors are those of the file."""
    assert found.codes().isfinite().all() and found.decode(found.codes()).isfinite().all()
    stored, _ = tensor_files.read(path)
    state = found.state_dict()
    assert stored.keys() == state.keys() and all(torch.equal(stored[k], state[k]) for k in state)


def write_codes(folder: Path) -> Path:
    path = folder / "mine.codes.safetensors"
    tensors = {
        "u-5": torch.randn(2, 3, 5, generator=seeded()),
        "msf-5": torch.randn(3, 5, generator=seeded(1)),
    }
    labels = {"side": ["seen", "seen", "unseen"], "category": ["cls"] * 3, "group": ["a", "b", "c"]}
    tensor_files.write(path, tensors, {"tasks": ["a", "b", "c"], "labels": labels, "seeds": {"5": [0, 1]}})
    return path


def codes_fit(path: Path, found: codes.Codes) -> None:
    assert found.u.shape[1] == found.msf.shape[0] == len(found.tasks) and len(found.seeds) == len(found.u)
    assert all(len(values) == len(found.tasks) for values in found.labels.values())
    assert math.isfinite(float(found.u.sum())) and math.isfinite(float(found.msf.sum()))


def write_peft(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        made = Engine(engine().backbone, "prompt-text-answer")
        vectors = torch.randn(1, 3, made.backbone.width, generator=seeded())
        interchange.to_peft(prompt_tuning.SoftPrompt(vectors), folder, made)
        return folder / name

    return write


def open_peft(path: Path) -> PromptSource:
    return interchange.from_peft(path.parent, engine().backbone)


def prompt_is_in_the_file(path: Path, found: PromptSource) -> None:
    stored = load_file(path.parent / "adapter_model.safetensors")["prompt_embeddings"]
    assert torch.equal(found.finished().embeds[0], stored.float()) and stored.isfinite().all()


def write_prompt(kind: str) -> Callable[[Path], Path]:
    """Write a prompt file: vectors, or a deep prompt."""

    def write(folder: Path) -> Path:
        backbone, task = engine().backbone, suites.load_task("tiny-mood", suite="tiny")
        places = sites.find_sites(backbone.model)
        source: PromptSource = (
            p_tuning_v2.DeepPrompt(1, places, 2, seeded())
            if kind == "deep"
            else prompt_tuning.SoftPrompt(torch.randn(1, 3, backbone.width, generator=seeded()))
        )
        made = Engine(backbone, sites=places if kind == "deep" else ())
        trainer.fit(made, source, [Run(task)], replace(CONFIG, steps=1, evaluations=1))
        return source.save(folder / "mine.safetensors")

    return write


def open_prompt(path: Path) -> saved.SavedPrompt:
    return saved.open_prompt(path, model=engine().backbone)[1]


def prompt_is_the_files(path: Path, found: saved.SavedPrompt) -> None:
    """Check that its numbers are those of the file, and that it can be used and saved again."""
    stored, made = load_file(path), found.finished().tensors()
    assert all(torch.equal(made[name].float(), stored[name].float()) for name in made)
    assert all(part.isfinite().all() for part in made.values())
    again = found.save(path.with_name("again.safetensors"))
    assert saved.read_about(again)["backbone"] == found.about["backbone"]


def made_step(_: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"P": torch.arange(24.0).view(2, 3, 4)}, {"rows": ROWS[:2]}


def write_step(folder: Path) -> Path:
    step_cache.step("a-step", {"lr": 0.1}, made_step, folder)
    (path,) = folder.glob("*/*.safetensors")
    return path


def open_step(path: Path) -> step_cache.Step:
    return step_cache.step("a-step", {"lr": 0.1}, made_step, path.parent.parent)


def step_is_the_one_made(path: Path, found: step_cache.Step) -> None:
    tensors, values = made_step(path)
    assert torch.equal(found.tensors["P"], tensors["P"]) and found.values == values
    assert found.tensors.keys() == tensors.keys()


@functools.cache
def runs() -> tuple[Run, ...]:
    return tuple(Run(t) for t in suites.load_suite("tiny", only=["tiny-mood", "tiny-sum"], max_test=4))


CONFIG = FitConfig(steps=4, rows_per_run=2, lr=0.05, evaluations=2, dev_examples=2)


def trained(checkpoint: Path | None) -> tuple[torch.Tensor, Fit]:
    source = prompt_tuning.SoftPrompt(prompt_tuning.from_words(engine().backbone, 3).expand(2, -1, -1))
    found = trainer.fit(engine(), source, runs(), CONFIG, checkpoint, checkpoint_seconds=0)
    return source.P.detach(), found


@functools.cache
def undisturbed() -> torch.Tensor:
    return trained(None)[0]


def write_checkpoint(folder: Path) -> Path:
    path = folder / "checkpoint.safetensors"
    trained(path)
    return path


def training_ends_the_same(path: Path, found: tuple[torch.Tensor, Fit]) -> None:
    assert torch.equal(found[0], undisturbed())


# ---- models ----------------------------------------------------------------------------------------
@functools.cache
def model_files() -> dict[str, bytes]:
    import tempfile

    loaded = backbone.load("tiny-causal", dtype="float32")
    with tempfile.TemporaryDirectory() as place:
        loaded.model.save_pretrained(place)
        loaded.tokenizer.save_pretrained(place)
        return {file.name: file.read_bytes() for file in Path(place).iterdir()}


def write_model(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        for file, content in model_files().items():
            (folder / file).write_bytes(content)
        return folder / name

    return write


def open_model(path: Path) -> list[str]:
    return [backbone.fingerprint(backbone.load(str(path.parent), dtype="float32").model) for _ in range(2)]


def weights_are_the_files(path: Path, found: list[str]) -> None:
    """Check that loading is deterministic and that the weights are finite and those of the file."""
    assert found[0] == found[1], "weights differ from one load to the next"
    state = backbone.load(str(path.parent), dtype="float32").model.state_dict()
    stored = load_file(path.parent / "model.safetensors")
    assert all(value.isfinite().all() for value in state.values())
    tied = {"lm_head.weight": "model.embed_tokens.weight"}
    for name, value in state.items():
        if "rotary" not in name:
            assert torch.equal(value, stored[name if name in stored else tied[name]].float()), name


def damaged_tensors(original: bytes) -> st.SearchStrategy[bytes]:
    return damage.of_safetensors(original)


def commanded(*words: str) -> Callable[[Path], str]:
    """Return a function that runs an `iptkit` command on a file, and raises its output if it fails."""

    def open_it(path: Path) -> str:
        found = CliRunner().invoke(cli.app, [str(path) if word == "FILE" else word for word in words])
        if found.exception and not isinstance(found.exception, SystemExit):
            raise found.exception
        if found.exit_code:
            raise ValueError(found.output)
        return found.output

    return open_it


def terminal_is_safe(path: Path, output: str) -> None:
    """Check that the output has no control characters."""
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", output)


CHECK, SHOW = commanded("tasks", "check", "FILE"), commanded("tasks", "show", "birds", "--suite", "FILE")
DOORS = [
    Door(
        "own task, options",
        write_lines("birds.jsonl", CLASSES),
        damaged_lines(CLASSES),
        suites.load_suite,
        tasks_are_read_whole,
    ),
    Door(
        "own task, free",
        write_lines("next.jsonl", FREE),
        damaged_lines(FREE),
        suites.load_suite,
        tasks_are_read_whole,
    ),
    Door("tasks check", write_lines("birds.jsonl", CLASSES), damaged_lines(CLASSES), CHECK, terminal_is_safe),
    Door("tasks show", write_lines("birds.jsonl", CLASSES), damaged_lines(CLASSES), SHOW, terminal_is_safe),
    Door(
        "card",
        write_card,
        damaged_json,
        lambda path: suites.load_suite(path.with_name("birds.jsonl")),
        card_is_kept,
    ),
    Door("own task, CSV", write_csv, damage.of_bytes, suites.load_suite, rows_are_the_csv_files),
    Door(
        "own task, TSV folder",
        write_tsv,
        damage.of_bytes,
        lambda path: suites.load_suite(path.parent),
        rows_are_the_tsv_files,
    ),
    Door("own task, Parquet", write_parquet, damage.of_bytes, suites.load_suite, examples_are_whole),
    Door(
        "own task, saved data",
        write_saved("data.arrow"),
        damage.of_bytes,
        lambda path: suites.load_suite(path.parent),
        examples_are_whole,
    ),
    Door(
        "own task, saved state",
        write_saved("state.json"),
        damaged_json,
        lambda path: suites.load_suite(path.parent),
        examples_are_whole,
    ),
    Door(
        "own task, saved splits",
        write_splits,
        damaged_json,
        lambda path: suites.load_suite(path.parent),
        examples_are_whole,
    ),
    Door(
        "own task, folder card",
        write_folder_card,
        damaged_json,
        lambda path: suites.load_suite(path.parent),
        examples_are_whole,
    ),
    Door("own task, CoNLL", write_conll, damage.of_bytes, suites.load_suite, examples_are_whole),
    Door("CoNLL", write_conll, damage.of_bytes, conll.read_conll, words_are_read_whole),
    *(
        Door(
            f"SuperGLUE {name}",
            write_superglue(name),
            damaged_lines([record] * 2),
            lambda path, name=name: superglue.load_folder(path.parent, name),
            texts_are_texts,
        )
        for name, record in SUPERGLUE.items()
    ),
    Door("CrossFit", write_crossfit, damaged_lines(CROSSFIT), open_crossfit, no_claim),
    Door("rows", write_lines("rows.jsonl", ROWS), damaged_lines(ROWS), open_rows, rows_are_the_lines),
    Door("provenance", write_about, damaged_json, open_about, no_claim, 1),
    Door("claim", write_claim, damaged_json, open_claim, no_claim),
    Door("subspace", write_subspace, damaged_tensors, subspace.load, subspace_works),
    Door("codes", write_codes, damaged_tensors, lambda path: codes.load(path, 5), codes_fit),
    Door(
        "PEFT's numbers",
        write_peft("adapter_model.safetensors"),
        damaged_tensors,
        open_peft,
        prompt_is_in_the_file,
    ),
    Door("PEFT's config", write_peft("adapter_config.json"), damaged_json, open_peft, prompt_is_in_the_file),
    Door("prompt", write_prompt("vectors"), damaged_tensors, open_prompt, prompt_is_the_files),
    Door("deep prompt", write_prompt("deep"), damaged_tensors, open_prompt, prompt_is_the_files),
    Door(
        "prompt shown", write_prompt("vectors"), damaged_tensors, commanded("show", "FILE"), terminal_is_safe
    ),
    Door("step", write_step, damaged_tensors, open_step, step_is_the_one_made, 1),
    Door("checkpoint", write_checkpoint, damaged_tensors, trained, training_ends_the_same, 1),
    Door(
        "model weights",
        write_model("model.safetensors"),
        damaged_tensors,
        open_model,
        weights_are_the_files,
        1,
    ),
    Door("model config", write_model("config.json"), damaged_json, open_model, weights_are_the_files, 1),
    Door("tokenizer", write_model("tokenizer.json"), damaged_json, open_model, no_claim, 1),
]


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Raise TimeoutError in the block if it takes longer: reading a pipe without a writer waits forever."""
    import signal

    def late(*_: Any) -> None:
        raise TimeoutError(f"{what} took over {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
