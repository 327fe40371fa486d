"""How large a study is: `smoke` (tests), `lesson` (the course), `full` (36 tasks), `ipt120` (120 tasks).

The values are in data/scales.json. A notebook names a scale, and all else follows from it: `Scale` has the
sizes of prompt tuning, MSF and IST, and one config for each of the other lessons and for adapters.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, is_dataclass, replace
from dataclasses import fields as dataclass_fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from iptkit.engine.layouts import LAYOUTS
from iptkit.methods.p_tuning import ENCODERS
from iptkit.methods.subspace import SubspaceConfig
from iptkit.methods.word_search import SearchConfig
from iptkit.storage import paths, reading
from iptkit.tasks import suites
from iptkit.training.runs import FitConfig

FILE = "data/scales.json"
DATA = ("few-shot", "full")  # what the methods on an encoder train on: a few examples, or all
ONLY_UNSEEN: dict[str, Any] = {  # fields of a scale whose subspace is only compared on unseen tasks
    "only_unseen": True, "same_data": False, "nearest": False, "stage_two_runs": 0, "controls": (),
    "controls_once": (), "control_lr": {}, "fewer_examples": (), "weights": (), "did_around": False,
    "adapters": None,
}  # fmt: skip
MOST_SEEDS = 1000  # each one draws a few-shot sample of every task


@dataclass(frozen=True)
class Scale:
    """All sizes and settings of one study.

    Attributes:
      name: in every row.
      backbone: for `models.load`.
      suite: for `tasks.load_suite`.
      seen, unseen: task ids; both empty: those of `split`.
      prompt_length: n >= 1.
      seeds: of the few-shot samples of prompt tuning and IST.
      dims: intrinsic dimensions d_I.
      main_dim: the d_I that the controls are run at.
      test_examples: number of test examples per task.
      prompt, msf, ist: how to train prompts, the auto-encoder, and codes.
      reconstruction: how to train the auto-encoder of reconstruction alone; None: as `msf`.
      subspace: shape of the auto-encoder; `dims` replace its d_I.
      grid: ids of the tasks on which starts and learning rates are compared.
      discrete, ptuning, encoders: sizes of lessons 01, 03 and 04.
      fine_tuning_lr, did_lr: learning rates of methods that train the model's own weights.
      context_gib: memory for the keys and values of texts (see `engine.Engine`), in GiB.
      dtype: for `models.load`.
      deep: the prompts are keys and values at every layer (P-Tuning v2) of a causal model. The words that a
        prompt at the input starts from are then part of the text, and a deep prompt starts as their keys and
        values.
      split: for `tasks.split`.
      folds: splits that take turns (cross-fitting): each has a subspace of its own, found with other first
        weights, and together they have every task on the unseen side once. Prompts are shared by all. (): the
        study has the one `split`.
      compared: further splits whose subspaces are compared on unseen tasks only, at main_dim. They need
        `folds`.
      fold: the split that a study with folds gives to this part of it; "" elsewhere. Not for users.
      layout: for `engine.Engine`, if the prompts are at the input.
      controls: other decoders that IST is run with at main_dim, see `score_rows.DECODERS`.
      controls_once: those of them that are run with the first seed only.
      control_lr: learning rates of IST with other decoders, if they differ from that of `ist`.
      unseen_controls: run the controls on unseen tasks only, where they are judged.
      only_unseen: score MSF and IST on unseen tasks only, to compare splits.
      same_data: also run IST on seen tasks with the data of their prompts (T_train^same in the paper).
      nearest: also score unseen tasks under the prompt of a seen one.
      stage_two_runs: how often to tune the prompts of unseen tasks from the IST solution and from words; 0:
        never.
      fewer_examples: numbers of examples for IST and prompt tuning (with `weights` also fine-tuning) of
        unseen tasks; (): this is left out.
      weights: also learn unseen tasks (with `folds`, all tasks) by the model's own weights: "fine-tuning",
        "DID" or both (see `unseen.tuned_weights`).
      did_around: also learn unseen tasks by all weights along main_dim random directions, with the prompt
        that IST starts from (see `unseen.tuned_weights`).
      weights_fit: how many steps and examples a step they train with; None: as prompts.
      adapters: also run IST of unseen tasks in a subspace of adapters at main_dim; None: this is left out.
      adapter_folds: number of folds, from the first, that adapters are tried in.
    """

    name: str
    backbone: str
    suite: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    prompt_length: int
    seeds: tuple[int, ...]
    dims: tuple[int, ...]
    main_dim: int
    test_examples: int
    prompt: FitConfig
    msf: FitConfig
    ist: FitConfig
    subspace: SubspaceConfig
    grid: tuple[str, ...]
    discrete: DiscreteConfig
    ptuning: PTuningConfig
    encoders: EncoderConfig
    fine_tuning_lr: float = 5e-5
    did_lr: float = 0.1
    context_gib: float = 2.5
    dtype: str = "auto"
    deep: bool = False
    split: str = "random"
    folds: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    fold: str = ""
    layout: str = LAYOUTS[0]
    controls: tuple[str, ...] = ("random",)
    controls_once: tuple[str, ...] = ()
    control_lr: dict[str, float] = field(default_factory=dict)
    unseen_controls: bool = False
    only_unseen: bool = False
    same_data: bool = False
    nearest: bool = False
    stage_two_runs: int = 0
    fewer_examples: tuple[int, ...] = ()
    weights: tuple[str, ...] = ()
    did_around: bool = False
    weights_fit: FitConfig | None = None
    adapters: AdapterConfig | None = None
    adapter_folds: int = 1
    reconstruction: FitConfig | None = None

    def __post_init__(self) -> None:
        if self.prompt_length < 1 or self.test_examples < 1 or not self.seeds or not self.dims:
            raise ValueError(
                f"scale {self.name!r}: prompt_length and test_examples must be >= 1, seeds and dims not empty"
            )
        if set(self.weights) - {"fine-tuning", "DID"}:
            raise ValueError(
                f"scale {self.name!r}: weights are {self.weights}; known are fine-tuning and DID"
            )
        if any(count < 1 for count in self.fewer_examples):
            raise ValueError(
                f"scale {self.name!r}: fewer_examples are {self.fewer_examples}; give numbers >= 1"
            )
        if self.layout not in LAYOUTS:
            raise ValueError(f"scale {self.name!r}: layout is {self.layout!r}; choose one of {LAYOUTS}")
        if (self.folds or self.compared) and self.seen:
            raise ValueError(f"scale {self.name!r} names tasks and folds; give either")
        if self.compared and not self.folds:
            raise ValueError(f"scale {self.name!r}: compared needs folds, whose prompts it shares")
        if unknown := {*self.controls_once, *self.control_lr} - {*self.controls}:
            raise ValueError(
                f"scale {self.name!r}: controls_once or control_lr name {', '.join(sorted(unknown))}, which "
                f"are not among its controls {self.controls}"
            )
        if self.main_dim not in self.dims:
            raise ValueError(
                f"scale {self.name!r}: main_dim {self.main_dim} is not among its dims {self.dims}"
            )


@dataclass(frozen=True)
class DiscreteConfig:
    """Sizes of lesson 01 (discrete prompts).

    Attributes:
      tasks: ids of the classifications that are asked in several wordings and for which words are searched.
      relations: ids of the relations whose facts are asked for.
      test_examples: number of test examples per task or relation, >= 1.
      shots: number of solved examples before a question (in-context learning), >= 1.
      shot_test_examples: the first of the test examples that are asked with and without them, >= 1.
      search: how to search.
    """

    tasks: tuple[str, ...]
    relations: tuple[str, ...]
    test_examples: int = 40
    shots: int = 4
    shot_test_examples: int = 40
    search: SearchConfig = SearchConfig()

    def __post_init__(self) -> None:
        for name in ("test_examples", "shots", "shot_test_examples"):
            if getattr(self, name) < 1:
                raise ValueError(f"DiscreteConfig.{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class PTuningConfig:
    """Sizes of lesson 03 (P-tuning).

    Attributes:
      tasks: ids of classifications that have wordings.
      relations: ids of relations, whose facts are asked for by the subject alone.
      layout, relation_layout: pieces of the layout (see `engine.layouts.Layout`) for tasks and for relations.
      seeds: of the few-shot samples, two or more to see how scores vary.
      fit: how to train; `rates` replace its learning rate.
      rates, relation_rates: learning rate of each of `p_tuning.ENCODERS` on tasks and on relations.
      test_examples: number of test examples per task or relation, >= 1.
    """

    tasks: tuple[str, ...]
    relations: tuple[str, ...]
    layout: tuple[int | str, ...]
    relation_layout: tuple[int | str, ...]
    seeds: tuple[int, ...]
    fit: FitConfig
    rates: dict[str, float]
    relation_rates: dict[str, float]
    test_examples: int = 24

    def __post_init__(self) -> None:
        for name in ("rates", "relation_rates"):
            if set(rates := getattr(self, name)) != set(ENCODERS):
                raise ValueError(f"PTuningConfig.{name} names {list(rates)}; give one for each of {ENCODERS}")
        if len(self.seeds) < 2 or self.test_examples < 1:
            given = f"{self.seeds} and {self.test_examples}"
            raise ValueError(f"PTuningConfig needs at least 2 seeds and test_examples >= 1, got {given}")


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of lesson 04 (P-Tuning v2).

    Attributes:
      backbone: an encoder.
      suite: a suite of sentences to classify and words to tag.
      tasks: ids of tasks of the suite.
      shared: those that MPT-2 trains one prompt for, () for none.
      tuned: those that full fine-tuning is run on, () for none.
      ablated: those that depth, length and form are varied on.
      prompt_length, shallow_length: n of deep and of shallow prompts.
      depths: values of k for prompts in the first and in the last k layers.
      lengths: values of n to compare.
      fits: how to train on each kind of data, some or all of DATA; ablations use the last one.
      rates: learning rate of each method (see `lesson04_methods.METHODS`), which replaces that of `fits`.
      std: standard deviation of a deep prompt at the start.
      test_examples: number of test examples per task, >= 1.
      heads: sizes of the comparison of heads; None: it is left out.
    """

    backbone: str
    suite: str
    tasks: tuple[str, ...]
    shared: tuple[str, ...]
    tuned: tuple[str, ...]
    ablated: tuple[str, ...]
    prompt_length: int
    shallow_length: int
    depths: tuple[int, ...]
    lengths: tuple[int, ...]
    fits: dict[str, FitConfig]
    rates: dict[str, float]
    std: float = 0.5
    test_examples: int = 64
    heads: HeadsConfig | None = None

    def __post_init__(self) -> None:
        for name in ("shared", "tuned", "ablated"):
            unknown = set(getattr(self, name)) - set(self.tasks)
            if unknown:
                raise ValueError(
                    f"EncoderConfig.{name} names {', '.join(sorted(unknown))}, which are not among its tasks "
                    f"{', '.join(self.tasks)}"
                )
        if not self.fits or set(self.fits) - set(DATA):
            raise ValueError(
                f"EncoderConfig.fits is for {list(self.fits)}; give one for each of some of {DATA}"
            )
        if min(self.prompt_length, self.shallow_length, self.test_examples, *self.lengths, *self.depths) < 1:
            raise ValueError("EncoderConfig: depths, prompt lengths and test_examples must be at least 1")

    @property
    def data(self) -> str:
        """What ablations train on: the last of `fits`."""
        return list(self.fits)[-1]


@dataclass(frozen=True)
class HeadsConfig:
    """Sizes of the comparison of heads on the causal model (lesson 04).

    Attributes:
      tasks: ids of classifications of the scale's own suite.
      prompt_length: n >= 1.
      fit: how to train; `rates` replace its learning rate.
      rates: learning rate of each head, see `lesson04.HEADS`.
      test_examples: number of test examples per task, >= 1.
    """

    tasks: tuple[str, ...]
    prompt_length: int
    fit: FitConfig
    rates: dict[str, float]
    test_examples: int = 64

    def __post_init__(self) -> None:
        if self.prompt_length < 1 or self.test_examples < 1:
            given = f"{self.prompt_length} and {self.test_examples}"
            raise ValueError(f"HeadsConfig needs prompt_length >= 1 and test_examples >= 1, got {given}")


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the adapter variant of Intrinsic Prompt Tuning (`methods.adapters`).

    Attributes:
      msf: how to train the hyper-matrices and the shared z on all seen tasks.
      ist: how to train z on unseen tasks.
      rank: r of each adapter, >= 1 (16 in the released code).
      up: size of the up-projections at the start, > 0 (see `methods.adapters.HyperAdapters`).
    """

    msf: FitConfig
    ist: FitConfig
    rank: int = 16
    up: float = 0.1

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.up > 0:
            raise ValueError(f"AdapterConfig needs rank >= 1 and up > 0, got {self.rank} and {self.up}")


def load(name: str = "lesson", **changes: Any) -> Scale:
    """The scale `name`, or the one that the environment variable IPTKIT_SCALE names.

    Args:
      name: "smoke", "lesson", "full", "ipt120" or another one of data/scales.json.
      changes: fields of Scale to replace, e.g. seeds=(0, 1).

    Raises:
      ValueError: the scale is unknown (the known ones are listed), or a field is unknown or of another type.

    Example:
      >>> load("smoke").backbone
      'tiny-causal'
    """
    name = os.environ.get("IPTKIT_SCALE") or name
    known = _stored()
    if name not in known:
        raise ValueError(
            f"scale {name!r} is unknown; choose one of {', '.join(known)} (parameter `scale` or IPTKIT_SCALE)"
        )
    fields = {key: value for key, value in known[name].items() if key != "about"}
    scale, hints = _built(Scale, {**fields, "name": name}, f"{FILE}: {name}"), get_type_hints(Scale)
    unknown = [key for key in changes if key not in hints]
    if unknown:
        raise ValueError(f"a scale has no field {', '.join(map(repr, unknown))}; it has: {', '.join(hints)}")
    return replace(scale, **{key: _built(hints[key], value, key) for key, value in changes.items()})


def of_suite(suite: str | None) -> str:
    """The name of the scale for `iptkit study` with a suite: the suite's own if there is one, else "full"."""
    return suite if suite in _stored() else "full"


def _stored() -> dict[str, dict[str, Any]]:
    """The scales of data/scales.json, by name.

    One scale may be `like` another, with some fields, or some parts of these, of its own. Parts of parts (a
    fit of `adapters` or `encoders`) are replaced as a whole.
    """
    known = reading.read_json(paths.data_dir() / "scales.json")
    for name, fields in known.items():
        if not isinstance(fields, dict):
            raise ValueError(
                f"{FILE}: {name} is {fields!r:.80}, allowed is: an object with the fields of Scale"
            )
    return {name: _whole(name, known) for name in known}


def _whole(name: str, known: dict[str, dict[str, Any]], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a scale with those of the scales that it is `like`; `above`: those that led here."""
    if name in above:
        raise ValueError(f"{FILE}: {' is like '.join((*above, name))}; one of them needs fields of its own")
    fields = dict(known[name])
    base = fields.pop("like", None)
    if base is None:
        return fields
    if base not in known:
        raise ValueError(f"{FILE}: {name!r} is like {base!r}, which is not there")
    for key, value in _whole(base, known, (*above, name)).items():
        is_part = isinstance(value, dict) and isinstance(fields.get(key), dict)
        fields[key] = {**value, **fields[key]} if is_part else fields.get(key, value)
    return fields


def variant(
    name: str,
    suite: str | None = None,
    split: str | None = None,
    dims: Sequence[int] = (),
    num_seeds: int | None = None,
    only_unseen: bool = False,
) -> Scale:
    """The scale `name` with other tasks, intrinsic dimensions or seeds; what is not given stays.

    Args:
      name: of the scale.
      suite: for `tasks.load_suite`; it replaces the scale's own tasks.
      split: for `tasks.split`; it replaces the scale's own tasks.
      dims: values of d_I; the controls are run at the scale's main one, or else at the first.
      num_seeds: 1 to MOST_SEEDS; the seeds are 0, 1, ...
      only_unseen: leave out what splits are not compared by: scores on seen tasks, controls, stage two.
    Raises: ValueError for an unknown scale, suite or split, a d_I below 1, or a wrong number of seeds.
    """
    scale = load(name)
    changes: dict[str, Any] = {}
    if suite or split:
        changes = {"suite": suite or scale.suite, "split": split or "random", "seen": (), "unseen": ()}
        changes |= {"folds": (), "compared": ()} if split or suite != scale.suite else {}
        suites.split(changes["split"], changes["suite"])
    if dims:
        if min(dims) < 1 or len(set(dims)) < len(dims):
            raise ValueError(f"dims are {', '.join(map(str, dims))}; give numbers from 1 on, each once")
        changes |= {"dims": tuple(dims), "main_dim": scale.main_dim if scale.main_dim in dims else dims[0]}
    if num_seeds is not None:
        if not 1 <= num_seeds <= MOST_SEEDS:
            raise ValueError(f"num_seeds (--seeds) is {num_seeds}; give 1 to {MOST_SEEDS}")
        changes["seeds"] = tuple(range(num_seeds))
    if only_unseen:
        changes |= ONLY_UNSEEN
    chosen = replace(scale, **changes)
    of = chosen.folds or (chosen.split,)
    seen = min(len(suites.sides(chosen.suite, chosen.seen, chosen.unseen, split).seen) for split in of)
    if {"pca", "pca_around"} & {*chosen.controls} and chosen.main_dim >= seen:
        raise ValueError(
            f"d_I = {chosen.main_dim} is too much for the principal components of {seen} seen tasks; "
            f"give --dims with a value below {seen} first"
        )
    return chosen


def part(scale: Scale, fold: str) -> Scale:
    """The scale of one part of a study with folds.

    Args:
      scale: of the whole study.
      fold: one of its `folds` or `compared`.
    """
    place = scale.folds.index(fold) if fold in scale.folds else -1
    changes: dict[str, Any] = {"split": fold, "fold": fold, "folds": (), "compared": (), "weights": ()}
    if place < 0:
        changes |= ONLY_UNSEEN | {"dims": (scale.main_dim,)}
    elif place >= scale.adapter_folds:
        changes["adapters"] = None
    return replace(scale, **changes)


def _built(kind: Any, value: Any, where: str) -> Any:
    """A JSON value converted to the type of a field: dataclass, tuple, dictionary, number or text.

    Raises: ValueError that names the place, what is given and what is allowed.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind) and not isinstance(value, kind):
        return _config(kind, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_built(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _built(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is UnionType and is_dataclass(inner[0]) and value is not None:
        return _built(inner[0], value, where)
    plain = inner if origin is UnionType else (kind,)
    if not any(_is_a(one, value) for one in plain):
        raise ValueError(f"{where} is {value!r:.80}, allowed is: {' or '.join(map(_words, plain))}")
    return value


def _config(kind: Any, value: Any, where: str) -> Any:
    """A JSON object converted to a dataclass."""
    if not isinstance(value, dict):
        raise ValueError(
            f"{where} is {value!r:.80}, allowed is: an object with the fields of {kind.__name__}"
        )
    hints = get_type_hints(kind)
    unknown = [name for name in value if name not in hints]
    needed = [f.name for f in dataclass_fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    missing = [name for name in needed if name not in value]
    if unknown or missing:
        problems = [f"the field {name!r} is unknown" for name in unknown]
        problems += [f"the field {name!r} is missing" for name in missing]
        raise ValueError(f"{where}: {'; '.join(problems)}; {kind.__name__} has: {', '.join(hints)}")
    fields = {name: _built(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    try:
        return kind(**fields)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _is_a(kind: Any, value: Any) -> bool:
    """Whether a plain value is of a type; true and false are no numbers, and a whole number is a float."""
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, Real)
    return isinstance(value, Integral if kind is int else get_origin(kind) or kind)


def _words(kind: Any) -> str:
    """A type in words."""
    plain = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}
    return plain.get(kind, "a list" if get_origin(kind) is tuple else "an object")
