"""The study of P-Tuning v2 on many tasks: all classifications and tag sets of the suite `encoders`.

Claims B3 to B10 (data/claims.json, "criteria") are about methods, so their intervals have to be over tasks,
by leakage group. Each task is trained on a few examples and on all, in an encoder and in its first layers:

    commonest answer          no model
    linear probe              a head on the frozen encoder
    prompt tuning             vectors at the input, and a head
    P-Tuning v2               keys and values at every layer, and a head; also by length, depth and form
    MPT-2                     one deep prompt for several tasks, then each task from there
    fine-tuning               all weights, from the probe (tuned_encoder.py)

The first layers have the linear probe, P-Tuning v2 and fine-tuning only, and MPT-2 trains on all examples
only: no criterion compares more. In a causal model, a linear head is compared with label words (`heads`), for
which the encoder has no output.

Fine-tuning tries its learning rates in turn until it is better than the probe on dev; rows whose "is_trained"
is false are below the probe, and B3 and B9 leave such tasks out. The learning rates of the other methods are
chosen first, on dev on a few named tasks (`rates`), and then hold for all tasks and for parts of the model.
`write` records the verdicts of `verdicts_encoders`. Settings are in data/encoder_study.json.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.interface import PromptEngine
from iptkit.engine.layouts import PROMPT, TEXT
from iptkit.engine.prompt import PromptSource
from iptkit.methods import p_tuning_v2
from iptkit.methods.heads import SharedPrompt, WithHead
from iptkit.methods.tuned_encoder import TunedEncoder, tune_encoder
from iptkit.models import backbone as models
from iptkit.models.devices import resolve_device
from iptkit.scores import claims, evaluation, metrics
from iptkit.scores.evaluation import Outcome
from iptkit.storage import paths, reading, step_cache
from iptkit.studies import provenance, score_rows, verdicts_encoders
from iptkit.studies.base import digest_of
from iptkit.studies.lesson04 import HEADS
from iptkit.studies.lesson04_methods import COMMONEST, METHODS, Lab, answers_of, classes, encoder
from iptkit.studies.scales import DATA, HeadsConfig
from iptkit.studies.score_rows import Row
from iptkit.studies.steps import Made
from iptkit.tasks import suites
from iptkit.tasks.examples import Task
from iptkit.training.runs import Fit, FitConfig, Run
from iptkit.training.trainer import fit

FILE = "encoder_study.json"
PROBE, SHALLOW, DEEP, SHARED, TUNED = METHODS
MLP = f"{DEEP}, mlp"  # key of its learning rate
SHARE_OF_DEV = 8  # one in 8 of the "full" training examples moves to dev


@dataclass(frozen=True)
class TuningConfig:
    """How fine-tuning is trained.

    Attributes:
      fit: the settings; `rates` replace its learning rate.
      rates: learning rates in the order in which they are tried.
    """

    fit: FitConfig
    rates: tuple[float, ...]


@dataclass(frozen=True)
class EncoderStudyConfig:
    """All sizes and settings of the study at one scale.

    Attributes:
      name: "smoke" or "full".
      backbone: an encoder.
      layers: for each kind of data the models that are compared, by their number of first layers; 0 is the
        whole encoder.
      suite: for `tasks.load_suite`.
      tasks: ids of tasks of the suite, () for all.
      rated: those that learning rates are chosen on.
      shared: sets of tasks that MPT-2 trains one prompt for, by name.
      ablated: those that length, depth and form are varied on, in the whole encoder, on the last of `fits`.
      seeds: of the few-shot samples.
      form_seeds: of the samples on which forms are compared; the first ones are `seeds`. Each sample is
        scored on its own part of the test set.
      prompt_length, shallow_length: n of deep and of shallow prompts.
      std: standard deviation of a deep prompt at the start.
      lengths: values of n to compare.
      depths: values of k for prompts in the first and in the last k layers.
      test_examples: largest number of test examples per task and sample, >= 1.
      dev_examples: largest size of the dev set beside all examples; few-shot ones keep theirs.
      fits: how to train on each kind of data, some or all of DATA.
      tuning: how to fine-tune on each of them.
      rate_grid: for each method that `rated` trains, the learning rates to choose from.
      heads: sizes of the comparison of heads, few-shot.
      causal: the model in which heads are compared.
    """

    name: str
    backbone: str
    layers: dict[str, tuple[int, ...]]
    suite: str
    tasks: tuple[str, ...]
    rated: tuple[str, ...]
    shared: dict[str, tuple[str, ...]]
    ablated: tuple[str, ...]
    seeds: tuple[int, ...]
    form_seeds: tuple[int, ...]
    prompt_length: int
    shallow_length: int
    std: float
    lengths: tuple[int, ...]
    depths: tuple[int, ...]
    test_examples: int
    dev_examples: int
    fits: dict[str, FitConfig]
    tuning: dict[str, TuningConfig]
    rate_grid: dict[str, tuple[float, ...]]
    heads: HeadsConfig
    causal: str

    def __post_init__(self) -> None:
        for name in ("layers", "tuning"):
            if not self.fits or set(self.fits) - set(DATA) or set(getattr(self, name)) != set(self.fits):
                given = f"{list(self.fits)} and {list(getattr(self, name))}"
                raise ValueError(f"{FILE}: fits and {name} are for {given}; give both for some of {DATA}")
        if self.form_seeds[: len(self.seeds)] != self.seeds or not self.seeds:
            raise ValueError(
                f"{FILE}: form_seeds are {self.form_seeds}; give the seeds {self.seeds} first, at least one"
            )
        least = min(self.prompt_length, self.shallow_length, self.test_examples, *self.lengths, *self.depths)
        if least < 1:
            raise ValueError(f"{FILE}: lengths, depths and test_examples must be at least 1, not {least}")

    @property
    def ablated_data(self) -> str:
        """What ablations train on: the last of `fits`."""
        return list(self.fits)[-1]


def load(name: str) -> EncoderStudyConfig:
    """The settings of a scale, one of those in data/encoder_study.json.

    Raises: ValueError for an unknown scale or field.
    """
    known = reading.read_json(paths.data_dir() / FILE)
    if name not in known:
        raise ValueError(
            f"the study of encoders has no scale {name!r}; choose one of {', '.join(known)} (--scale)"
        )
    given = known[name]
    names = [field.name for field in dataclass_fields(EncoderStudyConfig) if field.name != "name"]
    if sorted(given) != sorted(names):
        wrong = sorted(set(given) ^ set(names))
        raise ValueError(f"{FILE}, scale {name!r}: missing or unknown fields: {', '.join(wrong)}")
    fits = {data: FitConfig(**fields) for data, fields in given["fits"].items()}
    tuning = {
        data: TuningConfig(FitConfig(**fields["fit"]), tuple(fields["rates"]))
        for data, fields in given["tuning"].items()
    }
    named = {
        key: {of: tuple(values) for of, values in given[key].items()}
        for key in ("shared", "layers", "rate_grid")
    }
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }
    heads: dict[str, Any] = {
        key: tuple(value) if key == "tasks" else value for key, value in given["heads"].items()
    }
    heads["fit"] = FitConfig(**heads["fit"])
    plain |= {"name": name, "fits": fits, "tuning": tuning, "heads": HeadsConfig(**heads), **named}
    return EncoderStudyConfig(**plain)


class EncoderStudy:
    """All measurements of one scale; every fit, and every task of fine-tuning, is a step in the step cache.

    Args:
      scale: from `load`.
      device: "cpu", "cuda" or "auto".
      seed: of the starts of prompts and heads.
    Raises: ValueError for an unknown device.
    """

    def __init__(self, scale: EncoderStudyConfig, device: str = "cpu", seed: int = 0):
        self.scale, self.device, self.seed = scale, str(resolve_device(device)), seed
        self._labs: dict[int, Lab] = {}
        self._tasks: dict[tuple[int, str], dict[str, Task]] = {}

    @property
    def backbone(self) -> models.Backbone:
        """The whole encoder."""
        return encoder(self.scale.backbone, self.device)

    @functools.cached_property
    def ids(self) -> tuple[str, ...]:
        """Ids of all tasks, in the order of the suite."""
        return self.scale.tasks or tuple(card.id for card in suites.list_cards(self.scale.suite))

    @functools.cached_property
    def rates(self) -> dict[str, dict[str, float]]:
        """Data -> method -> its learning rate, chosen by the part `rates`; makes what is missing of it."""
        return best_rates([row for step, _ in rates(self) for row in step.values["rows"]])

    def lab(self, layers: int) -> Lab:
        """The first `layers` of the encoder, 0 for all, and the rows that were made for it."""
        if layers not in self._labs:
            model = first_layers(self.backbone, layers) if layers else self.backbone
            self._labs[layers] = Lab(self.scale, self.seed, model)
        return self._labs[layers]

    def read(self, seed: int, data: str, only: Sequence[str] = ()) -> list[Task]:
        """Tasks (default: all) with the sets of a seed, and with the part of the test set for that seed."""
        if (seed, data) not in self._tasks:
            config, is_full = self.scale, data == "full"
            loaded = suites.load_suite(config.suite, seed, list(self.ids), full=is_full)
            place, parts = config.form_seeds.index(seed), len(config.form_seeds)
            found = [part_of_test(task, place, parts, config.test_examples) for task in loaded]
            found = [with_more_dev(task, config.dev_examples) for task in found] if is_full else found
            self._tasks[seed, data] = {task.id: task for task in found}
        tasks = self._tasks[seed, data]
        return [tasks[name] for name in only or self.ids]

    def key(self, layers: int, read: Sequence[Task], *parts: Any) -> list[Any]:
        """All that determines a step: model, examples, sizes and `parts`."""
        config = self.scale
        name = models.identity(config.backbone, lambda: self.backbone)
        kind = self.backbone.device.type
        sizes = [config.prompt_length, config.shallow_length, config.std, config.test_examples, self.seed]
        return [name, layers, kind, digest_of(read), *sizes, *parts]


def rows(study: EncoderStudy) -> list[Row]:
    """All rows, each with its "part", one of PARTS; makes what is missing."""
    return [row for step, what in steps(study) for row in _rows_of(study, step, what)]


def write(study: EncoderStudy, path: str | Path) -> int:
    """Measure what is missing, write the rows and their provenance, and return the number of rows.

    If the study has the settings of its scale, verdicts on claims are recorded in the results folder
    (`claims.record`), as of the scale SCALE-encoders: lesson 04's study judges some of them by other rules.
    """
    made = list(steps(study))
    found = [row for step, what in made for row in _rows_of(study, step, what)]
    once = {step.folder: step for step, _ in made}
    count = provenance.write_rows(study, path, found, list(once.values()), "encoders")
    if study.scale == load(study.scale.name):
        claims.record_all(verdicts_encoders.verdicts(found), f"{study.scale.name}-encoders")
    return count


Measured = Iterator[tuple[step_cache.Step, dict[str, Any]]]  # steps, and fields that their rows get


def steps(study: EncoderStudy) -> Measured:
    """All steps in order, each with the fields that its rows get; makes what is missing."""
    for part, measure in PARTS.items():
        for step, what in measure(study):
            yield step, {"part": part, **what}


# ---- parts ---------------------------------------------------------------------------------------
def rates(study: EncoderStudy) -> Measured:
    """Scores on dev, not on test, of the `rated` tasks at every learning rate of the grid; rows have "lr".

    The other parts use what `best_rates` finds in these rows.
    """
    for data in study.scale.fits:
        for method in study.scale.rate_grid:
            if method != MLP or data == study.scale.ablated_data:
                yield rated(study, method, data), {}


def compared(study: EncoderStudy) -> Measured:
    """The main table: every method in the whole encoder, three methods in its first layers.

    MPT-2 trains on the last of `fits` only, as ablations do.
    """
    for data in study.scale.fits:
        yield commonest(study, data), {}
        for layers in study.scale.layers[data]:
            for method in (PROBE, DEEP) if layers else (PROBE, SHALLOW, DEEP):
                yield trained(study, method, layers, data), {}
            if not layers and data == study.scale.ablated_data:
                for name in study.scale.shared:
                    yield multi_task(study, name, layers, data), {"shared": name}
            for task in study.ids:
                yield fine_tuned(study, task, layers, data), {}


def lengths(study: EncoderStudy) -> Measured:
    """P-Tuning v2 at several prompt lengths; rows have "length"."""
    for n in study.scale.lengths:
        yield _ablated(study, {} if n == study.scale.prompt_length else {"prompt_length": n}), {"length": n}


def depths(study: EncoderStudy) -> Measured:
    """P-Tuning v2 with prompts in the first k and in the last k layers; rows have "layers" and "order"."""
    every = list(range(study.backbone.num_layers))
    for k in study.scale.depths:
        for order, chosen in (("first", every[:k]), ("last", every[-k:])):
            yield _ablated(study, {"layers": tuple(chosen)}), {"layers": k, "order": order}


def forms(study: EncoderStudy) -> Measured:
    """P-Tuning v2 with and without its MLP, on all samples of `form_seeds`; rows have "form"."""
    for form in p_tuning_v2.FORMS:
        changes = {} if form == p_tuning_v2.FORMS[0] else {"form": form}
        for seed in study.scale.form_seeds:
            yield _ablated(study, changes, (seed,)), {"form": form, "seed": seed}


def heads(study: EncoderStudy) -> Measured:
    """Deep prompts in the causal model, with answers from one of HEADS; rows have "head".

    The LM head answers with the label names, after " It was". The linear head reads the state of the last
    token.
    """
    for head in HEADS:
        yield with_head(study, head), {"head": head}


PARTS = {part.__name__: part for part in (rates, compared, lengths, depths, forms, heads)}
ABLATIONS = ("lengths", "depths", "forms")


def _ablated(study: EncoderStudy, changes: dict[str, Any], seeds: Sequence[int] = ()) -> step_cache.Step:
    """P-Tuning v2 with changes on the `ablated` tasks; without changes it is that of the main table."""
    config = study.scale
    if not changes and set(seeds) <= set(config.seeds):
        return trained(study, DEEP, 0, config.ablated_data)
    return trained(study, DEEP, 0, config.ablated_data, config.ablated, seeds, changes)


# ---- methods -------------------------------------------------------------------------------------
def trained(
    study: EncoderStudy,
    method: str,
    layers: int,
    data: str,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    changes: Mapping[str, Any] | None = None,
) -> step_cache.Step:
    """A probe or prompts, all runs in one fit.

    Args:
      study: the study.
      method: PROBE, SHALLOW or DEEP.
      layers: of the model, 0 for all.
      data: what to train on, one of DATA.
      only: ids of the tasks, () for all.
      seeds: of the samples, () for all of the main table.
      changes: arguments of the deep prompt that differ: layers, prompt_length, form.
    Returns: a step with values["rows"]; for PROBE also the tensor "head" [R, C, d + 1] and values["dev"],
      R pairs of accuracy over options and log-likelihood on dev.
    """
    config, changes = study.scale, dict(changes or {})
    read = [task for seed in seeds or config.seeds for task in study.read(seed, data, only)]
    rate = study.rates[data][MLP if changes.get("form") == "mlp" else method]

    def make(checkpoint: Path) -> Made:
        lab = study.lab(layers)
        source = lab.source(method, read, **changes)
        label = f"{method}, {len(read)} runs"
        made = lab.train(source, read, rate, config.fits[data], label, checkpoint)
        found = _outcomes(lab, source, read, label)
        numbers = _numbers(lab, source, read)
        rows = [
            _row(lab, task, method, outcome, data, count)
            | _training([made], r, rate, config.fits[data], len(read))
            for r, (task, outcome, count) in enumerate(zip(read, found, numbers, strict=True))
        ]
        if method != PROBE:
            return {}, {"rows": rows}
        return {"head": source.head.detach()}, {"rows": rows, "dev": _best_on_dev(made)}

    parts = [method, sorted(changes.items()), rate, config.fits[data]]
    if changes.get("form") == "mlp":
        parts += [p_tuning_v2.MLP_STD, p_tuning_v2.MLP_INNER]
    return step_cache.step(_name(method), study.key(layers, read, *parts), make)


def multi_task(study: EncoderStudy, name: str, layers: int, data: str) -> step_cache.Step:
    """MPT-2: one deep prompt for a set of tasks, then each task alone from there.

    Both stages together take as many steps as the other methods.

    Args:
      study: the study.
      name: of the set, see `EncoderStudyConfig.shared`.
      layers: of the model, 0 for all.
      data: what to train on, one of DATA.
    """
    config, rate, whole = study.scale, study.rates[data][SHARED], study.scale.fits[data]
    sets = [study.read(seed, data, config.shared[name]) for seed in config.seeds]
    read = [task for of_seed in sets for task in of_seed]
    half = replace(whole, steps=whole.steps // 2)
    rest = replace(whole, steps=whole.steps - half.steps)

    def make(_: Path) -> Made:
        lab, starts, heads, fits = study.lab(layers), [], [], []
        for mine in sets:
            prompt = lab.deep_prompt(1)
            shared = SharedPrompt(prompt, len(mine), lab.width, classes(read), lab.generator())
            fits.append(lab.train(shared, mine, rate, half, f"MPT-2, {name}"))
            starts.append(prompt.P.detach().expand(len(mine), -1, -1))
            heads.append(shared.inner.head.detach())
        prompt = lab.deep_prompt(len(read))
        source = lab.with_head(read, prompt)
        with torch.no_grad():
            prompt.P.copy_(torch.cat(starts))
            source.head.copy_(torch.cat(heads))
        drawn = half.steps * half.rows_per_run  # of the first stage; the second continues after them
        fits.append(lab.train(source, read, rate, rest, f"MPT-2, {name}, each task", skip=drawn))
        found = _outcomes(lab, source, read, "MPT-2")
        numbers = _numbers(lab, source, read)
        rows = [
            _row(lab, task, SHARED, outcome, data, count) | _training(fits, r, rate, whole, len(read))
            for r, (task, outcome, count) in enumerate(zip(read, found, numbers, strict=True))
        ]
        return {}, {"rows": rows}

    return step_cache.step(_name(SHARED), study.key(layers, read, rate, half, rest), make)


def fine_tuned(study: EncoderStudy, task_id: str, layers: int, data: str) -> step_cache.Step:
    """Fine-tuning of one task, from the probe's head, at the first learning rate that beats the probe on dev.

    If none does, the best one on dev is kept and its rows have is_trained = false.

    Args:
      study: the study.
      task_id: of the task.
      layers: of the model, 0 for all.
      data: what to train on, one of DATA.
    """
    config, plan = study.scale, study.scale.tuning[data]
    read = [study.read(seed, data, [task_id])[0] for seed in config.seeds]
    fitted = config.fits[data], study.rates[data][PROBE]

    def make(_: Path) -> Made:
        probe, lab = trained(study, PROBE, layers, data), study.lab(layers)
        rows = []
        for place, task in enumerate(read):
            r = place * len(study.ids) + study.ids.index(task_id)
            head = probe.tensors["head"][r, : len(task.labels)]
            rows.append(_fine_tuned(lab, task, head, tuple(probe.values["dev"][r]), data, plan))
        return {}, {"rows": rows}

    return step_cache.step(_name(TUNED), study.key(layers, read, plan, *fitted), make)


def _fine_tuned(
    lab: Lab, task: Task, head: torch.Tensor, of_probe: tuple[float, ...], data: str, plan: TuningConfig
) -> Row:
    best: TunedEncoder | None = None
    lr, tries, spent = 0.0, 0, {"seconds": 0.0, "cpu_seconds": 0.0}
    for rate in plan.rates:
        made = tune_encoder(lab.backbone, task, head, replace(plan.fit, lr=rate), task.seed)
        tries += 1
        spent = {name: value + getattr(made, name) for name, value in spent.items()}
        if best is None or _order(made) > _order(best):
            best, lr = made, rate
        if _order(best) > of_probe:
            break
    assert best is not None  # as there is at least one learning rate
    limit = lab.config.test_examples
    (outcome,) = evaluation.outcomes(HeadEngine(best.backbone), best.head, [task], "test", limit)
    return _row(lab, task, TUNED, outcome, data, best.num_parameters) | {
        "lr": lr,
        "steps": plan.fit.steps,
        "best_step": best.best_step,
        "tries": tries,
        "is_trained": _order(best) > of_probe,
        **spent,
    }


def _order(made: TunedEncoder) -> tuple[float, ...]:
    """Accuracy over options, then log-likelihood on dev: a larger one is better (see `state.is_better`)."""
    return tuple(made.dev.tolist())


def rated(study: EncoderStudy, method: str, data: str) -> step_cache.Step:
    """A method on the `rated` tasks at every learning rate of the grid, all runs in one fit.

    Args:
      study: the study.
      method: PROBE, SHALLOW, DEEP or MLP.
      data: what to train on, one of DATA.
    """
    config = study.scale
    read = study.read(config.seeds[0], data, config.rated)
    grid = [(lr, task) for lr in config.rate_grid[method] for task in read]

    def make(checkpoint: Path) -> Made:
        lab = study.lab(0)
        changes = {"form": "mlp"} if method == MLP else {}
        source = lab.source(DEEP if method == MLP else method, [task for _, task in grid], **changes)
        runs = [Run(task, task.seed, lr=lr) for lr, task in grid]
        made = fit(lab.engine(source), source, runs, config.fits[data], checkpoint, f"rates of {method}")
        rows = [
            score_rows.row(task, method, dev[0], **_about(lab, task, data))
            | {"log_likelihood": dev[1]}
            | _training([made], r, lr, config.fits[data], len(grid))
            for r, ((lr, task), dev) in enumerate(zip(grid, _best_on_dev(made), strict=True))
        ]
        return {}, {"rows": rows}

    key = study.key(0, read, method, config.rate_grid[method], config.fits[data])
    return step_cache.step(_name(f"{method}, rates"), key, make)


def best_rates(found: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The learning rate of each method with the highest log-likelihood on dev, for each kind of data.

    It counts the best evaluation of each task, whichever state its accuracy on dev has chosen.

    Args:
      found: rows of the part `rates`.
    Returns: data -> method -> learning rate; that of P-Tuning v2 holds for MPT-2, too.
    """
    values: dict[tuple[str, str, float], list[float]] = {}
    for row in found:
        values.setdefault((row["data"], row["method"], row["lr"]), []).append(max(row["dev_curve"]))
    best: dict[str, dict[str, float]] = {}
    for data, method, lr in sorted(values, key=lambda of: fmean(values[of])):
        best.setdefault(data, {})[method] = lr
    return {data: of | {SHARED: of[DEEP]} for data, of in best.items()}


def with_head(study: EncoderStudy, head: str) -> step_cache.Step:
    """P-Tuning v2 in the causal model with one of HEADS, all tasks of the comparison in one fit."""
    config, plan = study.scale, study.scale.heads
    read = [task for seed in config.seeds for task in study.read(seed, "few-shot", plan.tasks)]
    rate = plan.rates[head]

    def make(checkpoint: Path) -> Made:
        lab = Lab(config, study.seed, models.load(config.causal, study.device, "float32"))
        prompt = lab.deep_prompt(len(read), prompt_length=plan.prompt_length)
        engine: PromptEngine
        source: PromptSource
        if head == "LM head":
            engine = Engine(lab.backbone, (PROMPT, TEXT, " It was"), sites=prompt.sites)
            source, numbers = prompt, [prompt.P[0].numel()] * len(read)
        else:
            source = with_linear = lab.with_head(read, prompt)
            engine, numbers = lab.engine(source), _numbers(lab, with_linear, read)
        runs = [Run(task, task.seed, lr=rate) for task in read]
        made = fit(engine, source, runs, plan.fit, checkpoint, f"{head}, {len(runs)} runs")
        found = evaluation.outcomes(engine, source, read, limit=plan.test_examples, label=f"test of {head}")
        rows = [
            _row(lab, task, DEEP, outcome, "few-shot", count)
            | {"n_test": min(len(task.test), plan.test_examples)}
            | _training([made], r, rate, plan.fit, len(read))
            for r, (task, outcome, count) in enumerate(zip(read, found, numbers, strict=True))
        ]
        return {}, {"rows": rows}

    causal = models.identity(config.causal, lambda: models.load(config.causal, study.device, "float32"))
    return step_cache.step(_name(head), study.key(0, read, causal, head, plan), make)


def commonest(study: EncoderStudy, data: str) -> step_cache.Step:
    """The commonest class or tag of the training examples as the answer to everything, without a model.

    Its log-likelihood is that of the training examples' frequencies, to each of which one is added.
    """
    config = study.scale
    read = [task for seed in config.seeds for task in study.read(seed, data)]

    def make(_: Path) -> Made:
        lab = study.lab(0)
        limit = config.test_examples
        rows = [_row(lab, task, COMMONEST, _of_frequencies(task, limit), data, 0) for task in read]
        return {}, {"rows": rows}

    return step_cache.step(_name(COMMONEST), study.key(0, read), make)


def _of_frequencies(task: Task, limit: int) -> Outcome:
    counts = Counter(label for example in task.train for label in answers_of(example))
    ((answer, _),) = counts.most_common(1)
    total = sum(counts.values()) + len(task.labels)
    test = task.test[:limit]
    said = [" ".join([answer] * len(answers_of(e))) for e in test]
    logs = [
        math.fsum(math.log((counts[label] + 1) / total) for label in answers_of(e)) / len(answers_of(e))
        for e in test
    ]
    return Outcome(metrics.METRICS[task.metric](said, test, task), math.fsum(logs) / len(logs))


# ---- models and examples ---------------------------------------------------------------------------
def first_layers(backbone: models.Backbone, count: int) -> models.Backbone:
    """A copy of a BERT with its first layers only.

    Args:
      backbone: the whole model; it stays unchanged.
      count: number of layers, from 1 to those of the model.
    Raises: ValueError for another count, or a model without a list of encoder layers.
    """
    if not 1 <= count <= backbone.num_layers:
        raise ValueError(
            f"{backbone.name} has {backbone.num_layers} layers, so its first {count} cannot be taken"
        )
    model = deepcopy(backbone.model)
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise ValueError(f"{backbone.name} ({type(model).__name__}) has no list encoder.layer; use a BERT")
    model.base_model.encoder.layer = layers[:count]
    model.config.num_hidden_layers = count
    name = f"{backbone.name}, first {count} layers"
    return replace(backbone, name=name, model=model, num_layers=count)


def part_of_test(task: Task, place: int, parts: int, most: int) -> Task:
    """The task with one of several equal parts of its test set, of at most `most` examples.

    So two samples of a task are scored on different examples, and their errors are independent.
    """
    size = min(most, len(task.test) // parts)
    if size < 1:
        raise ValueError(f"task {task.id} has {len(task.test)} test examples, too few for {parts} parts")
    return replace(task, test=task.test[place * size : (place + 1) * size])


def with_more_dev(task: Task, most: int) -> Task:
    """The task with training examples moved to dev, up to `most` there and one in SHARE_OF_DEV of them."""
    count = max(0, min(most - len(task.dev), len(task.train) // SHARE_OF_DEV))
    return replace(task, dev=(*task.dev, *task.train[:count]), train=task.train[count:])


# ---- rows ------------------------------------------------------------------------------------------
def _rows_of(study: EncoderStudy, step: step_cache.Step, what: dict[str, Any]) -> list[Row]:
    """The rows of a step with more fields and the processor that made them; ablations use some tasks only."""
    only = study.scale.ablated if what["part"] in ABLATIONS else study.ids
    seed, more = what.get("seed"), {**what, "processor": step.made_with["processor"]}
    found = [row for row in step.values["rows"] if row["task"] in only]
    return [row | more for row in found if seed in (None, row["seed"])]


def _row(lab: Lab, task: Task, method: str, outcome: Outcome, data: str, numbers: int) -> Row:
    more = _about(lab, task, data) | {"log_likelihood": outcome.log_likelihood}
    return score_rows.row(task, method, outcome.score, **more, numbers=numbers, share=numbers / lab.size)


def _about(lab: Lab, task: Task, data: str) -> dict[str, Any]:
    return {
        "category": task.category,
        "metric": task.metric,
        "data": data,
        "chance": task.chance,
        "n_train": len(task.train),
        "n_test": len(task.test),
        "backbone": lab.backbone.name,
        "fold": "",
    }


def _training(fits: Sequence[Fit], r: int, lr: float, config: FitConfig, together: int) -> dict[str, Any]:
    """How run r of the last of several fits was trained; together they took `config.steps`."""
    made = fits[-1]
    return {
        "lr": lr,
        "steps": config.steps,
        "best_step": config.steps - len(made.losses) + int(made.best_step[r]),
        "dev_curve": [round(value, 4) for value in made.dev[:, r, 1].tolist()],
        "seconds": sum(one.seconds for one in fits) / together,
        "cpu_seconds": sum(one.cpu_seconds for one in fits) / together,
    }


def _best_on_dev(made: Fit) -> list[list[float]]:
    """[R, 2] the scores on dev of the states that a fit has kept."""
    return [max(made.dev[:, r].tolist()) for r in range(made.dev.shape[1])]


def _outcomes(lab: Lab, source: WithHead, read: Sequence[Task], label: str) -> list[Outcome]:
    return evaluation.outcomes(
        lab.engine(source), source, read, limit=lab.config.test_examples, label=f"test of {label}"
    )


def _numbers(lab: Lab, source: WithHead, read: Sequence[Task]) -> list[int]:
    """Trained parameters of each run."""
    prompt = 0 if source.prompt is None else sum(p[0].numel() for p in source.prompt.parameters())
    return [prompt + len(task.labels) * (lab.width + 1) for task in read]


def _name(what: str) -> str:
    """The name of a step: "encoders-P-Tuning-v2"."""
    return "encoders-" + what.replace(",", "").replace(" ", "-")
