"""A trained prompt for each of your tasks in one call: what `iptkit tune` does.

    model = models.load("smollm2-135m")
    tuned = tune(model, tasks.load_suite("mine.jsonl", full=True), TuneConfig("prompt-tuning"))
    tuned.source.save("mine.prompt.safetensors", tuned.scores)

Every step is a public function of its own: an engine for the model, a prompt source for the method, `fit` on
the training examples, `measure` on the test examples. Test examples choose nothing.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from iptkit.engine.calls import check_backbone, check_list, check_seed
from iptkit.engine.compatibility import check_source
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.layouts import LAYOUTS, Layout
from iptkit.engine.prompt import PromptSource
from iptkit.engine.sites import find_sites
from iptkit.methods import subspace as subspaces
from iptkit.methods.heads import WithHead
from iptkit.methods.p_tuning import EncodedPrompt
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt, deep_from_words, from_words
from iptkit.methods.subspace import AutoEncoder, IntrinsicPrompt
from iptkit.models.backbone import Backbone
from iptkit.prompts import prompt_runs
from iptkit.scores.evaluation import Score, measure
from iptkit.storage import paths
from iptkit.tasks.examples import Task
from iptkit.training.runs import Fit, FitConfig, Run
from iptkit.training.trainer import fit

METHODS = ("prompt-tuning", "p-tuning", "deep", "ist")
STORED = "ipt120"  # the subspace that comes with the project
ONLY_WITH_HEADS = "tag"  # the category of tasks that language models are not trained on here


@dataclass(frozen=True)
class Defaults:
    """The settings of a method, chosen on dev sets by the studies in data/scales.json (scale "full").

    Attributes:
      prompt_length: n; of "ist" that of the subspace.
      steps: number of training steps.
      rows: examples per task and step.
      lr: peak learning rate.
    """

    prompt_length: int
    steps: int
    rows: int
    lr: float


LANGUAGE_MODEL = {
    "prompt-tuning": Defaults(4, 60, 4, 0.1),
    "p-tuning": Defaults(4, 60, 4, 0.009),
    "deep": Defaults(4, 60, 4, 0.0111),
    "ist": Defaults(4, 24, 4, 0.3),
}
ENCODER = {"prompt-tuning": Defaults(16, 60, 8, 0.03), "deep": Defaults(16, 60, 8, 0.1)}


@dataclass(frozen=True)
class TuneConfig:
    """How to tune; None stands for the method's default, see LANGUAGE_MODEL and ENCODER.

    Attributes:
      method: one of METHODS. "prompt-tuning": vectors at the input, "p-tuning": the same made by an LSTM,
        "deep": keys and values at every layer (P-Tuning v2), "ist": a code in a subspace of prompts.
      prompt_length: n >= 1; not for "ist". A layout with numbers of vectors sets it too.
      layout: of a language model, see engine/layouts.py. Numbers of vectors are not for "deep".
      steps: number of training steps, >= 1.
      rows: examples per task and step, >= 1.
      lr: peak learning rate > 0.
      seed: of the order of the examples, and of random starts; from 0 to 2^63 - 1.
    """

    method: str = METHODS[0]
    prompt_length: int | None = None
    layout: str | tuple[int | str, ...] | None = None
    steps: int | None = None
    rows: int | None = None
    lr: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is unknown; choose one of {', '.join(METHODS)}")
        for name in ("prompt_length", "steps", "rows"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, numbers.Integral) or value < 1):
                raise ValueError(f"{name} is {value!r}; give a whole number of at least 1")
        if self.lr is not None and not (isinstance(self.lr, numbers.Real) and 0 < self.lr < math.inf):
            raise ValueError(f"the learning rate lr is {self.lr!r}; give a finite number > 0")
        check_seed(self.seed)
        layout = None if self.layout is None else Layout.of(self.layout)
        if layout is not None and layout.prompt_length and self.method == "deep":
            raise ValueError(
                f"the layout {self.layout} has places for {layout.prompt_length} vectors, but a deep prompt "
                f"has keys and values in their place; choose one of {' and '.join(LAYOUTS)}"
            )
        if self.method == "ist" and self.prompt_length is not None:
            raise ValueError("the subspace of 'ist' sets the prompt length; leave prompt_length out")

    def defaults(self, backbone: Backbone) -> Defaults:
        """The method's defaults for a model. Raises: ValueError if the method is not for such a model."""
        if backbone.kind == "seq2seq" and self.layout not in (None, LAYOUTS[1]):
            raise ValueError(
                f"{backbone.name} has an encoder that reads the prompt before the text; leave layout out"
            )
        if backbone.kind != "encoder":
            return LANGUAGE_MODEL[self.method]
        if self.method not in ENCODER:
            raise ValueError(
                f"{backbone.name} is an encoder, for which the methods are {' and '.join(ENCODER)}; "
                f"{self.method!r} needs a language model, such as smollm2-135m"
            )
        if self.layout is not None:
            raise ValueError(
                f"{backbone.name} is an encoder, which has no layout (its vectors stand behind [CLS]); leave "
                "layout out"
            )
        return ENCODER[self.method]

    def fit_config(self, backbone: Backbone) -> FitConfig:
        """The settings of the training for a model."""
        usual = self.defaults(backbone)
        lr = usual.lr if self.lr is None else self.lr
        return FitConfig(steps=self.steps or usual.steps, rows_per_run=self.rows or usual.rows, lr=lr)


@dataclass(frozen=True)
class Tuned:
    """What a tuning has made.

    Attributes:
      engine: the engine that the prompts are for.
      source: the trained prompts, one run per task.
      scores: of each task on its test set.
      before: the same with the prompt that the training starts from: words, or for "ist" the mean code. Where
        the start is random ("p-tuning", and "deep" of an encoder-decoder) these are words at the input. None
        for an encoder, whose head starts at random.
      fit: curves of the training.
    """

    engine: Engine | HeadEngine
    source: PromptSource
    scores: list[Score]
    before: list[Score] | None
    fit: Fit


def tune(
    backbone: Backbone,
    tasks: Sequence[Task],
    config: TuneConfig | None = None,
    subspace: AutoEncoder | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 5.0,
) -> Tuned:
    """Train one prompt per task in a frozen model, and measure it on the test examples.

    Args:
      backbone: the model. An encoder also gets a head per task, and takes classifications and tags only.
      tasks: the tasks; all train together.
      config: method and settings; None for prompt tuning with its defaults.
      subspace: of "ist"; None for the stored one, of smollm2-135m.
      checkpoint: see `training.fit`.
      checkpoint_seconds: see `training.fit`.

    Raises: ValueError, before anything runs, for a method or a task that the model does not fit, a subspace
      of another model, and whatever `training.fit` refuses; DivergedError if a loss is not finite.

    Example:
      >>> from iptkit.models.backbone import load
      >>> from iptkit.tasks.suites import load_suite
      >>> moods = load_suite("tiny", only=["tiny-mood"])
      >>> tune(load("tiny-causal"), moods, TuneConfig(steps=2)).scores[0].metric
      'accuracy'
    """
    check_backbone(backbone, "tune")
    check_list(tasks, Task, "tune", "tasks")
    config = TuneConfig() if config is None else config
    if not isinstance(config, TuneConfig):
        raise ValueError(f"tune got {config!r:.80} for config; give TuneConfig(METHOD, ...)")
    fit_config = config.fit_config(backbone)
    check_tasks(backbone, tasks)
    engine, source, start = _prepared(backbone, tasks, config, subspace)
    check_source(engine, source.eval())
    runs = [Run(task, config.seed) for task in tasks]
    label = f"{config.method}, {len(tasks)} task{'s' * (len(tasks) > 1)}"
    fitted = fit(engine, source, runs, fit_config, checkpoint, label, checkpoint_seconds)
    data = zip(source.about["data"], tasks, strict=True)
    read = [{**one, "read": prompt_runs.read_in_training(task)} for one, task in data]
    source.about = {**source.about, "tuned": config.method, "data": read}
    before = None if start is None else measure(engine, start, tasks, label="test of the start")
    scores = measure(engine, source, tasks, label="test")
    return Tuned(engine, source, scores, before, fitted)


def check_tasks(backbone: Backbone, tasks: Sequence[Task]) -> None:
    """Raise ValueError if a task is not one that the model can be tuned for here.

    Args:
      backbone: the model.
      tasks: the tasks.
    """
    if not tasks:
        raise ValueError("there are no tasks; give at least one")
    for task in tasks:
        if backbone.kind == "encoder" and task.category not in ("cls", ONLY_WITH_HEADS):
            raise ValueError(
                f"task {task.id} is of category {task.category!r}, but {backbone.name} is an encoder with a "
                "head, which takes classifications (cls) and tags (tag); use a language model, such as "
                "smollm2-135m"
            )
        if backbone.kind != "encoder" and task.category == ONLY_WITH_HEADS:
            raise ValueError(
                f"task {task.id} has a tag for every word, which needs a head; use an encoder, such as "
                f"minilm-l6, in place of {backbone.name}"
            )


def stored_subspaces() -> list[str]:
    """The names of the subspaces that come with the project."""
    files = (paths.data_dir() / "results").glob(f"*{subspaces.ENDING}")
    return sorted(file.name.removesuffix(subspaces.ENDING) for file in files)


def find_subspace(name: str | Path) -> AutoEncoder:
    """A subspace by the name of a stored one, or from a file; see `subspace.load`.

    Raises: FileNotFoundError that lists the stored ones.
    """
    if str(name) in stored_subspaces():
        return subspaces.load_stored(str(name))
    if not paths.expanded(name).is_file():
        raise FileNotFoundError(
            f"there is no subspace {str(name)!r}; give the path of a file that subspace.save wrote, or the "
            f"name of a stored one: {', '.join(stored_subspaces())}"
        )
    return subspaces.load(name)


# ---- engine and source of each method ------------------------------------------------------------
Prepared = tuple[Engine | HeadEngine, PromptSource, PromptSource | None]  # the last one is the start, if any


def _prepared(
    backbone: Backbone, tasks: Sequence[Task], config: TuneConfig, subspace: AutoEncoder | None
) -> Prepared:
    """The engine, the source to train, and the prompts to compare with."""
    if config.method == "ist":
        return _in_subspace(backbone, len(tasks), config, subspace or find_subspace(STORED))
    named, runs = LAYOUTS[0] if config.layout is None else config.layout, len(tasks)
    layout = Layout.of(named)
    n = config.prompt_length or layout.prompt_length or config.defaults(backbone).prompt_length
    sites = find_sites(backbone.model) if config.method == "deep" else []
    generator = torch.Generator().manual_seed(config.seed)
    words = from_words(backbone, n).expand(runs, -1, -1)
    source: PromptSource
    start = FixedPrompt(words)
    if config.method == "p-tuning":
        source = EncodedPrompt(words, "lstm", generator).to(backbone.device)
    elif config.method == "prompt-tuning":
        source = SoftPrompt(words)
    elif backbone.kind == "causal":
        one = deep_from_words(backbone, n)
        deep = one.expand(runs, *one.shape)
        source, start = SoftPrompt(deep, "keys_values"), FixedPrompt(deep, "keys_values")
        source.sites = sites
    else:
        source = DeepPrompt(runs, sites, n, generator)
    if backbone.kind == "encoder":
        classes = max(len(task.labels) for task in tasks)
        headed = WithHead(runs, backbone.width, classes, generator, source).to(backbone.device)
        return HeadEngine(backbone, sites), headed, None
    return Engine(backbone, named, sites=sites), source, start


def _in_subspace(backbone: Backbone, runs: int, config: TuneConfig, decoder: AutoEncoder) -> Prepared:
    layout = config.layout if config.layout is not None else decoder.about.get("layout") or LAYOUTS[0]
    sites = find_sites(backbone.model) if decoder.kind == "keys_values" else []
    engine = Engine(backbone, layout if isinstance(layout, str) else tuple(layout), sites=sites)
    decoder = decoder.to(backbone.device)
    check_source(engine, decoder)
    return engine, IntrinsicPrompt(decoder, runs), subspaces.mean_code(decoder, runs)
