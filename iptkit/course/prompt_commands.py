"""The commands for prompts of your own: `iptkit tune`, `ask`, `score`, `show` and `export`.

Their work is done by prompts/tuning.py, asking.py and interchange.py, and scores/evaluation.py and
comparison.py. Here options are read and checked before anything runs, and results are put into words.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iptkit.course import output, prompt_words
from iptkit.course.options import MODELS, SUITES, Columns, Device, DropDuplicates, Dtype
from iptkit.course.output import Reply
from iptkit.storage import locks, outputs, paths

if TYPE_CHECKING:
    from iptkit.engine.engine import Engine
    from iptkit.engine.head_engine import HeadEngine
    from iptkit.prompts.saved import SavedPrompt
    from iptkit.tasks.examples import Task

    Opened = tuple[Engine | HeadEngine, SavedPrompt]

app = typer.Typer()

METHODS = ("prompt-tuning", "p-tuning", "deep", "ist")
LAYOUTS = ("text-prompt-answer", "prompt-text-answer")
CHECKPOINT = ".checkpoint"
LARGEST_SEED = 2**63 - 1  # as in engine/calls.py, without its imports

Prompt = Annotated[Path, typer.Argument(metavar="PROMPT", help="A prompt file, or the folder of one.")]
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE",
        help="Your tasks: a file or folder, or a suite such as core36.",
        autocompletion=lambda: SUITES,
    ),
]
OneTask = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="ID",
        help="Which prompt of PROMPT: a task, an index from 0, or TASK:INDEX among several of one task; "
        "default: the only one.",
    ),
]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="TASK", help="Only this task of FILE; can be repeated.")
]


@app.command()
@output.replies
def tune(
    file: File,
    out: Annotated[
        Path,
        typer.Option(metavar="PROMPT", help="File to write, NAME.prompt.safetensors, or a folder."),
    ],
    method: Annotated[
        str,
        typer.Option(
            help="prompt-tuning: vectors beside the text. p-tuning: the same, made by an LSTM. deep: keys "
            "and values at every layer. ist: a few parameters in a subspace of prompts.",
            autocompletion=lambda: METHODS,
        ),
    ] = METHODS[0],
    model: Annotated[
        str, typer.Option(help="Model: a name or a folder.", autocompletion=lambda: MODELS)
    ] = MODELS[0],
    steps: Annotated[int | None, typer.Option(help="Training steps; default: 60, ist 24.")] = None,
    rows: Annotated[
        int | None, typer.Option(help="Examples per task and step; default: 4, encoders 8.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Learning rate; default: prompt-tuning 0.1, p-tuning 0.009, deep 0.0111, ist 0.3; "
            "for encoders prompt-tuning 0.03, deep 0.1."
        ),
    ] = None,
    prompt_length: Annotated[
        int | None, typer.Option(help="Vectors per prompt; default: 4, encoders 16; ist has its subspace's.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="text-prompt-answer (default), prompt-text-answer (which PEFT can read too), or pieces as "
            'JSON: [3, "{text}", 3, " It is"].',
            autocompletion=lambda: LAYOUTS,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST_SEED, help="Draws the dev set, the order of examples and random starts."
        ),
    ] = 0,
    few_shot: Annotated[
        bool,
        typer.Option(
            "--few-shot",
            help="Train on a few-shot set, as studies do (16 examples per label or 32), not on all examples "
            "beside the dev and test sets (up to 2,048 of a single file).",
        ),
    ] = False,
    only: Only = None,
    columns: Columns = "",
    drop_duplicates: DropDuplicates = None,
    subspace: Annotated[
        str | None, typer.Option(help="For ist: a subspace's file, or the stored one: ipt120 (default).")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="File to resume from, NAME.checkpoint, removed at the end; default: beside PROMPT."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the prompt in PROMPT.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Reply:
    """Train a prompt for each task of FILE and measure it on test examples. A stopped command resumes."""
    from iptkit.models import backbone as backbones
    from iptkit.prompts import tuning

    config = tuning.TuneConfig(method, prompt_length, _layout(layout), steps, rows, lr, seed)
    if subspace is not None and method != "ist":
        raise ValueError(f"--subspace is for the method ist, not {method}; leave it out")
    found = tuning.find_subspace(subspace or tuning.STORED) if method == "ist" else None
    if checkpoint is not None and checkpoint.suffix != CHECKPOINT:  # it will be removed: no file of yours
        raise ValueError(f"--checkpoint {checkpoint} does not end in {CHECKPOINT}; name it so")
    with outputs.without_empty_folders(out, checkpoint or out):
        target = _target(out, overwrite)
        kept = outputs.writable_file(checkpoint or target.with_suffix(CHECKPOINT), "--checkpoint")
        tasks = _load(file, seed, only, columns, drop_duplicates, full=not few_shot)
        backbone = backbones.load(model, device, dtype)
        settings = config.fit_config(backbone)
        output.note(
            f"{method} for {backbone.name} on {backbone.device} ({backbone.dtype}): {settings.steps} steps "
            f"of {settings.rows_per_run} examples, learning rate {settings.lr}"
        )
        for task in tasks:
            output.note(
                f"{task.id}: train {len(task.train)}, dev {len(task.dev)}, test {len(task.test)} examples"
            )
        begun = time.time()
        with locks.one_writer(target, "wait for its end, or choose another file with --out"):
            if kept.exists():
                output.note(f"resuming from {kept}")
            tuned = tuning.tune(backbone, tasks, config, found, kept)
            if tuned.fit.resumed_at:
                output.note(f"resumed at step {tuned.fit.resumed_at} of {settings.steps}")
            before = None if tuned.before is None else [score.score for score in tuned.before]
            place = target if out.suffix == target.suffix else target.parent
            tuned.source.save(place, tuned.scores, before=before)
            kept.unlink(missing_ok=True)
    seconds = time.time() - begun
    value = {"prompt": str(place), "method": method, "model": backbone.name, "seconds": round(seconds, 1)}
    value["tasks"] = [
        {**asdict(score), "before": old, "majority": task.majority}
        for score, old, task in zip(tuned.scores, before or itertools.repeat(None), tasks, strict=False)
    ]
    data = [file, *(f"--only={one}" for one in only or ())]
    data += [f"--columns={columns}"] if columns else []
    data += ["--drop-duplicates"] if drop_duplicates else []
    return Reply(value, prompt_words.tuned(tuned, tasks, seconds, str(out), data))


@app.command()
@output.answers
def ask(
    prompt: Prompt,
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXT", help='Texts; "-" reads one per line from stdin.')
    ],
    task: OneTask = None,
    options: Annotated[
        str | None, typer.Option(help="Choices, such as yes,no; default: the labels of the task.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest free answer, in tokens.")] = 32,
    sample: Annotated[bool, typer.Option("--sample", help="Draw free answers at random.")] = False,
    temperature: Annotated[float, typer.Option(help="For --sample: > 0, lower is less random.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="For --sample: draw among tokens of this probability.")] = 1.0,
    seed: Annotated[
        int,
        typer.Option(min=0, max=LARGEST_SEED, help="For --sample: the same seed draws the same answers."),
    ] = 0,
    model: Annotated[str | None, typer.Option(help="Model; default: the one that PROMPT names.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Reply:
    """Answer texts with a trained prompt: the likeliest option with its probability, or a generated line."""
    from iptkit.prompts import asking, prompt_runs, saved

    if not sample and (temperature, top_p, seed) != (1.0, 1.0, 0):
        raise ValueError("--temperature, --top-p and --seed are for --sample; give it too, or leave them out")
    questions = _questions(texts)
    run = prompt_runs.find_run(saved.read_about(prompt), task)
    sampling = asking.Sampling(max_new_tokens, sample, temperature, top_p, seed)
    engine, source = _open(prompt, device, dtype, model)
    choices = None if options is None else [choice.strip() for choice in options.split(",")]
    answers = asking.ask(engine, source, questions, run, choices, sampling)
    bare = "\n".join(answer.answer for answer in answers)
    return Reply(answers, "\n".join(map(prompt_words.answer, answers)), bare=bare)


@app.command()
@output.answers
def score(
    prompt: Prompt,
    file: File,
    task: OneTask = None,
    split: Annotated[
        str,
        typer.Option(
            help="test (not seen in training), dev, train, train_new, or all: every example of FILE, of a "
            "suite its test and training examples."
        ),
    ] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first examples of each task.")] = None,
    minus: Annotated[
        Path | None,
        typer.Option(metavar="PROMPT2", help="Another prompt: the difference on the same examples."),
    ] = None,
    only: Only = None,
    columns: Columns = "",
    drop_duplicates: DropDuplicates = None,
    model: Annotated[str | None, typer.Option(help="Model; default: the one that PROMPT names.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> Reply:
    """Measure a trained prompt on the tasks of FILE, with 95 % intervals; or compare it with another one."""
    from iptkit.prompts import prompt_runs, saved
    from iptkit.scores import comparison, evaluation

    if split not in (*SPLITS, "all"):
        raise ValueError(f"--split is {split!r}; choose one of {', '.join((*SPLITS, 'all'))}")
    about = saved.read_about(prompt)
    first = prompt_runs.find_run(about, task) if task is not None else 0
    sample = prompt_runs.trained_on(about, first).get("sample", 0)
    tasks = _load(file, sample, only, columns, drop_duplicates, full=split == "all", max_test=sys.maxsize)
    tasks = _with_every_example(tasks, file, columns, drop_duplicates) if split == "all" else tasks
    files = [prompt] if minus is None else [prompt, minus]
    runs = [_runs(one, tasks, task, split) for one in files]
    ready = [_ready(one, of, tasks, (device, dtype, model)) for one, of in zip(files, runs, strict=True)]
    part, (asked, *others) = "test" if split == "all" else split, [of for *_, of in ready]
    value: dict[str, Any] = {"prompt": str(prompt), "file": file, "split": split}
    if minus is None:
        scores = evaluation.measure(*ready[0], part, limit, label=f"score {split}")
        value["tasks"] = [asdict(one) for one in scores]
        return Reply(value, prompt_words.scores(scores), bare=prompt_words.numbers(scores))
    if others != [asked]:
        raise ValueError(f"{prompt} and {minus} were trained for other labels, so they cannot be compared")
    found = comparison.compare(ready[0][:2], ready[1][:2], asked, part, limit)
    value |= {"minus": str(minus), "tasks": [asdict(one) for one in found]}
    return Reply(value, prompt_words.differences(found), bare=prompt_words.numbers(found))


SPLITS = ("test", "dev", "train", "train_new")


@app.command()
@output.answers
def show(prompt: Prompt) -> Reply:
    """Show what a prompt is for: method, model, layout, tasks and scores."""
    from iptkit.prompts import saved

    about = saved.read_about(prompt)
    text = prompt_words.header(about)
    return Reply(about, text, bare=text)


@app.command()
@output.replies
def export(
    prompt: Prompt,
    peft: Annotated[Path, typer.Option(metavar="FOLDER", help="A new folder for the PEFT adapter.")],
    task: OneTask = None,
    model: Annotated[str | None, typer.Option(help="Model; default: the one that PROMPT names.")] = None,
) -> Reply:
    """Write a trained prompt as an adapter that PEFT (PeftModel.from_pretrained) loads."""
    from iptkit.prompts import interchange, prompt_runs, saved

    run = prompt_runs.find_run(saved.read_about(prompt), task)
    folder = paths.expanded(peft)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"the folder {folder} is not empty; name a new one with --peft")
    engine, source = _open(prompt, model=model)
    interchange.to_peft(source, folder, engine, run=run)
    names = sorted(os.listdir(folder))
    value = {"folder": folder, "model": engine.backbone.name, "files": names}
    return Reply(value, f"{folder}: {', '.join(names)}")


# ---- options -------------------------------------------------------------------------------------
def _target(out: Path, overwrite: bool) -> Path:
    """The prompt file that --out names, after a check that it can be written and nothing else is lost."""
    from iptkit.engine import prompt_files

    out = paths.expanded(out)
    if out.suffix not in ("", prompt_files.ENDING) and not out.is_dir():
        raise ValueError(
            f"--out {out} does not end in {prompt_files.ENDING}; write NAME.prompt.safetensors, or make a "
            "folder of this name first"
        )
    is_file = out.suffix == prompt_files.ENDING
    target = out if is_file else out / prompt_files.IN_FOLDER
    card = target.parent / prompt_files.CARD
    if os.path.lexists(target) and not target.is_dir():
        if not overwrite:
            raise ValueError(f"{target} exists; choose another --out, or replace it with --overwrite")
        try:
            prompt_files.read(target)
        except (ValueError, OSError) as error:
            raise ValueError(f"--overwrite replaces prompts only, but {error}") from error
    elif not is_file and os.path.lexists(card):
        raise ValueError(f"{card} exists, and a prompt's card would replace it; choose another --out")
    return outputs.writable_file(target, "--out", [CHECKPOINT])


def _layout(given: str | None) -> str | tuple[int | str, ...] | None:
    """The layout that --layout names, or its pieces in JSON."""
    if given is None or not given.lstrip().startswith("["):
        return given
    try:
        pieces = json.loads(given)
    except ValueError as error:
        raise ValueError(f'--layout {given} is no JSON ({error}); for example [3, "{{text}}", 3]') from error
    if not pieces or not all(type(piece) in (int, str) for piece in pieces):
        raise ValueError(f'--layout {given}: pieces are numbers and texts, such as [3, "{{text}}", 3]')
    return tuple(pieces)


def _load(
    file: str,
    seed: int,
    only: Sequence[str] | None,
    columns: str,
    drop: bool | None,
    full: bool,
    max_test: int = 256,
) -> list[Task]:
    """The tasks of a file; one with its own test set has up to `max_test` examples of it, drawn once."""
    from iptkit.tasks import suites

    ids = list(dict.fromkeys(only or ())) or None
    return suites.load_suite(file, seed, ids, max_test, full=full, columns=columns, drop_duplicates=drop)


def _with_every_example(tasks: Sequence[Task], file: str, columns: str, drop: bool | None) -> list[Task]:
    """The tasks with all examples of their files as test sets; a large file has some that are in no set."""
    from iptkit.prompts import prompt_runs
    from iptkit.tasks import own_tasks

    if file in SUITES:
        return [prompt_runs.all_as_test(task) for task in tasks]
    own = own_tasks.read_all(paths.expanded(file), own_tasks.How(columns, drop))
    read = {one.card.id: [example for part in one.kept.values() for example in part] for one in own}
    return [prompt_runs.all_as_test(task, read[task.id]) for task in tasks]


def _runs(prompt: Path, tasks: Sequence[Task], task: str | None, split: str) -> list[int]:
    """The index of a prompt of a file for each task, with warnings of what makes its score say less."""
    from iptkit.prompts import prompt_runs, saved

    about = saved.read_about(prompt)
    runs = prompt_runs.runs_for(about, tasks, task)
    for one, run in zip(tasks, runs, strict=True):
        seen = prompt_runs.seen_in_training(about, run, one, split)
        for known in filter(None, (prompt_runs.difference(about, run, one), seen)):
            warnings.warn(known, stacklevel=1)
    return runs


def _ready(
    prompt: Path, runs: Sequence[int], tasks: Sequence[Task], where: tuple[str, str, str | None]
) -> tuple[Engine | HeadEngine, SavedPrompt, list[Task]]:
    """Engine, prompts and tasks, as `evaluation.measure` takes them."""
    from iptkit.prompts import prompt_runs, saved, tuning

    engine, source = _open(prompt, *where)
    tuning.check_tasks(engine.backbone, tasks)
    about = saved.read_about(prompt)
    tasks = [prompt_runs.with_classes_of(about, run, one) for one, run in zip(tasks, runs, strict=True)]
    return engine, prompt_runs.chosen(source, runs), tasks


def _open(prompt: Path, device: str = "cpu", dtype: str = "auto", model: str | None = None) -> Opened:
    """The engine and the prompts of a file; people are told if a model is about to come from a hub."""
    from iptkit.models import backbone as backbones
    from iptkit.prompts import saved

    name = str(saved.read_about(prompt).get("backbone"))
    bundled = (*backbones.TINY, *backbones.WHEEL_MODELS)
    if model is None and name not in bundled and not os.path.isdir(name):
        output.note(f"loading the model {name} that {prompt} names")
    return saved.open_prompt(prompt, device, dtype, model)


def _questions(texts: Sequence[str]) -> list[str]:
    """The texts, with the lines of stdin in the place of "-"."""
    found: list[str] = []
    for text in texts:
        found += _lines() if text == "-" else [text]
    if not found:
        raise ValueError("there is no text on stdin; write one text per line")
    for i, text in enumerate(found, 1):
        if any("\ud800" <= one <= "\udfff" for one in text):  # how Python reads bytes that are no UTF-8
            raise ValueError(f"text {i} ({text[:40]!a}) is no UTF-8; give texts in UTF-8")
    return found


def _lines() -> list[str]:
    """The lines of stdin; answers have their numbers, so none may be empty."""
    try:
        lines = [line.rstrip("\r\n") for line in sys.stdin]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"stdin is no {error.encoding.upper()} ({error.reason} at byte {error.start}); write texts in it"
        ) from error
    if empty := [i for i, line in enumerate(lines, 1) if not line.strip()]:
        raise ValueError(f"line {empty[0]} of stdin is empty; give a text on every line")
    return lines
