"""The state of a training: losses, the optimizer, the best parameters on dev, checkpoints."""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iptkit.engine.compatibility import check_source, made_for
from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import PromptSource
from iptkit.models.devices import to_device
from iptkit.storage import digests, tensor_files
from iptkit.training.adam import DivergedError, RunAdam
from iptkit.training.runs import FitConfig, Run

FLUSH_EVERY = 16  # steps between two reads of the losses from a GPU; each read waits for the GPU


class Clock:
    """The duration and the CPU time of a training, of all processes that resumed it.

    Args:
      seconds: duration in earlier processes.
      cpu_seconds: CPU time of earlier processes.
    """

    def __init__(self, seconds: float = 0.0, cpu_seconds: float = 0.0):
        self.seconds, self.cpu_seconds = seconds, cpu_seconds
        self.begun, self.cpu_begun = time.monotonic(), time.process_time()

    def read(self) -> dict[str, float]:
        """The seconds and cpu_seconds up to now."""
        seconds = self.seconds + time.monotonic() - self.begun
        return {"seconds": seconds, "cpu_seconds": self.cpu_seconds + time.process_time() - self.cpu_begun}


class State:
    """Everything that a resumed training needs, and the best parameters so far.

    Args:
      engine: as in `training.fit`.
      source: as in `training.fit`.
      runs: as in `training.fit`.
      config: as in `training.fit`.
    Raises: ValueError if there are no runs, their number differs from that of the source's rows, a run has no
      dev set, or the source was made for another model (see `compatibility.check_source`).
    """

    def __init__(self, engine: PromptEngine, source: PromptSource, runs: Sequence[Run], config: FitConfig):
        parameters = {k: p for k, p in source.named_parameters() if p.requires_grad}
        if not runs:
            raise ValueError("fit got no runs; give at least one Run(task)")
        if source.per_run and any(p.shape[0] != len(runs) for p in parameters.values()):
            rows = next(iter(parameters.values())).shape[0]
            raise ValueError(
                f"the source has rows for {rows} runs, but {len(runs)} runs were given; give one run per row"
            )
        for name in (run.task.id for run in runs if not run.task.dev):
            raise ValueError(f"task {name} has no dev examples, which choose the best step; give it some")
        lr = torch.tensor([run.lr or config.lr for run in runs] if source.per_run else config.lr)
        self.engine, self.source, self.runs, self.config, self.step = engine, source, runs, config, 0
        self.prompt_length = check_source(engine, source)
        self.optimizer = RunAdam(parameters, lr, config.clip, source.per_run)
        self.losses = torch.full((config.steps, len(runs)), torch.nan, dtype=torch.float64)
        self.penalty = torch.zeros(config.steps)
        on_cpu = all(p.device.type == "cpu" for p in parameters.values())
        self.flush_every = 1 if on_cpu else FLUSH_EVERY
        self.pending: list[tuple[int, Tensor, Tensor | None]] = []
        self.dev: list[Tensor] = []
        self.best = {k: p.detach().clone() for k, p in parameters.items()}
        self.best_score = torch.full((len(runs), 2), -torch.inf, dtype=torch.float64)
        self.best_step = torch.zeros(len(runs), dtype=torch.long)
        self.clock = Clock()

    @property
    def num_bytes(self) -> int:
        """The approximate size of a checkpoint: parameters, Adam's two means, the best parameters."""
        return 4 * sum(p.numel() * p.element_size() for p in self.optimizer.parameters.values())

    def record(self, losses: Tensor, penalty: Tensor | None) -> None:
        """Take the losses [R] and the penalty of the present step, and flush if enough steps are pending.

        Raises: see `flush`.
        """
        self.pending.append((self.step, losses, penalty))
        if len(self.pending) >= self.flush_every:
            self.flush()

    def flush(self) -> None:
        """Write the pending values into `losses` and `penalty`.

        Raises: DivergedError if a loss or a penalty is not finite.
        """
        pending, self.pending = self.pending, []
        if not pending:
            return
        kept = torch.stack([losses.double() for _, losses, _ in pending])
        penalties = [penalty.double().view(1) for _, _, penalty in pending if penalty is not None]
        read = torch.cat([kept.flatten(), *penalties]).cpu()  # all at once, which waits for a GPU once
        values, rest = read[: kept.numel()].view(kept.shape), iter(read[kept.numel() :])
        for (step, _, penalty), losses in zip(pending, values, strict=True):
            self.losses[step] = losses
            self._check_finite("loss", self.losses[step], step)
            if penalty is not None:
                self.penalty[step] = next(rest)
                self._check_finite("penalty", self.penalty[step].expand(len(self.runs)), step)

    def _check_finite(self, what: str, values: Tensor, step: int) -> None:
        """Raise DivergedError that names the first run of `values` [R] that is not finite."""
        for bad in (~torch.isfinite(values)).nonzero()[:1].flatten().tolist():
            run = self.runs[bad]
            lr = run.lr or self.config.lr if self.source.per_run else self.config.lr
            raise DivergedError(
                f"training diverged: the {what} of run {bad} (task {run.task.id}, seed {run.seed}, lr {lr}) "
                f"is {float(values[bad])} at step {step} of {self.config.steps}. Its result is not "
                "stored; lower the learning rate"
            )

    def select(self, scores: Tensor) -> None:
        """Keep the present parameters of every run that is better than its best so far.

        Args:
          scores: [R, 2] from `training.dev_scores`. The accuracy decides, then the loss. A shared source is
            kept as a whole: by mean loss, or by its penalty where no task loss trains it.
        Raises: DivergedError if a loss on dev is not finite (the training losses may still be finite).
        """
        self._check_finite("loss on dev", -scores[:, 1], self.step)
        self.dev.append(scores)
        if self.source.per_run:
            better = is_better(scores, self.best_score)
        else:
            penalty = self.source.penalty()
            if self.source.task_weight == 0 and penalty is not None:  # no task may choose the best step then
                scores = torch.full_like(scores, -float(penalty.detach()))
            better = (scores[:, 1].mean() > self.best_score[:, 1].mean()).expand(len(self.runs))
        self.best_score[better], self.best_step[better] = scores[better], self.step
        rows = better.nonzero()[:, 0]
        for name, p in self.optimizer.parameters.items():
            if self.source.per_run:
                index = to_device(rows, p.device)
                self.best[name].index_copy_(0, index, p.detach().index_select(0, index))
            elif better.all():
                self.best[name] = p.detach().clone()

    @torch.no_grad()
    def restore_best(self) -> None:
        """Put the best parameters into the source."""
        for name, p in self.optimizer.parameters.items():
            p.copy_(self.best[name])

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, atomically."""
        tensors = self._saved()
        tensors |= {f"dev.{i:04d}": d for i, d in enumerate(self.dev)}
        about = {"step": self.step, "training": self.training, **self.clock.read()}
        tensor_files.write(path, tensors, about)

    def _saved(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint by name, without the scores on dev."""
        adam = self.optimizer
        groups: dict[str, Mapping[str, Tensor]] = {
            "now": adam.parameters,
            "first": adam.first,
            "second": adam.second,
            "best": self.best,
        }
        saved = {f"{group}.{k}": v for group, members in groups.items() for k, v in members.items()}
        return saved | {k: getattr(self, k) for k in ("losses", "penalty", "best_score", "best_step")}

    @torch.no_grad()
    def load(self, path: str | Path) -> None:
        """Resume from a checkpoint.

        Raises: DamagedError for a damaged file; ValueError for a checkpoint of another training
          (model, layout, prompts, settings or runs), naming the differences, and for an incomplete one. The
          state is unchanged then.
        """
        tensors, about = tensor_files.read(path, must_be_checked=True)
        if differs := differences(about.get("training"), self.training):
            raise ValueError(
                f"{path} is the checkpoint of another training ({'; '.join(differs)}); delete it, or give "
                "this training a file of its own"
            )
        saved, dev = self._saved(), sorted(k for k in tensors if k.startswith("dev."))
        wanted = {k: v.shape for k, v in saved.items()} | dict.fromkeys(dev, self.best_score.shape)
        wrong = [k for k, shape in wanted.items() if k not in tensors or tensors[k].shape != shape]
        wrong = [f"{k} is missing or of another shape" for k in wrong]
        step: Any = about.get("step")
        if type(step) is not int or not 0 <= step <= self.config.steps:
            wrong.append(f"step {step!r}")
        spent = {name: about.get(name, 0.0) for name in self.clock.read()}  # earlier versions wrote none
        wrong += [f"{name} {value!r}" for name, value in spent.items() if not _is_duration(value)]
        if wrong:
            raise ValueError(f"{path} cannot be resumed from ({'; '.join(wrong)}); delete it")
        self.step = self.optimizer.count = step
        for name, tensor in saved.items():
            tensor.copy_(tensors[name])
        self.dev = [tensors[k] for k in dev]
        self.clock = Clock(**spent)

    @functools.cached_property
    def made(self) -> dict[str, Any]:
        """What the prompts are made for, see `compatibility.made_for`."""
        return made_for(self.engine, self.prompt_length)

    @functools.cached_property
    def training(self) -> dict[str, Any]:
        """Model, layout, prompts, settings and runs as JSON; a checkpoint with other ones is refused."""
        runs = [[r.task.id, r.seed, r.data, r.lr, r.skip, _digest(r, self.config)] for r in self.runs]
        shapes = {k: list(p.shape) for k, p in self.optimizer.parameters.items()}
        parameters = {"dtype": self.engine.backbone.dtype, "shapes": shapes, "method": self.source.method}
        parameters["frozen"] = _norms(self.source)
        return {**self.made, **parameters, **asdict(self.config), "runs": runs}


def _is_duration(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _norms(source: PromptSource) -> dict[str, str]:
    """The norms of what does not train, such as the decoder of IST, to tell one from another.

    Three digits: the last ones of a computed buffer depend on the kind of CPU, and a training may go on with
    another kind.
    """
    frozen = {name: p for name, p in source.named_parameters() if not p.requires_grad}
    return {
        name: f"{float(tensor.double().norm()):.3g}"
        for name, tensor in {**frozen, **dict(source.named_buffers())}.items()
    }


def differences(theirs: Any, mine: dict[str, Any]) -> list[str]:
    """The differences between two trainings (see `State.training`), in words."""
    if not isinstance(theirs, dict):
        return ["it does not say of which one, like those of earlier versions"]
    ours, found = {name for name in mine if name not in ("backbone", "runs", "frozen")}, []
    if theirs.get("fingerprint") != mine["fingerprint"]:
        found.append(f"the model {theirs.get('backbone')} there, {mine['backbone']} here, with other weights")
    for name in sorted(ours - {"fingerprint"}):
        if theirs.get(name) != mine[name]:
            found.append(f"{name} {theirs.get(name)!r} there, {mine[name]!r} here")
    ours_frozen, frozen = mine["frozen"], theirs.get("frozen") or {}
    if other := sorted(name for name in ours_frozen if frozen.get(name) != ours_frozen[name]):
        found.append(f"what stays frozen is another ({', '.join(other[:3])})")
    if theirs.get("runs") != mine["runs"]:
        pairs = itertools.zip_longest(theirs.get("runs") or [], mine["runs"])
        place, (there, here) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
        found.append(f"run {place} (task, seed, data, lr, skip, examples) {there} there, {here} here")
    return found


def _digest(run: Run, config: FitConfig) -> str:
    """A digest of the examples that a run trains on and of the dev examples that choose its best step."""
    return digests.digest([run.examples, run.task.dev[: config.dev_examples]])


def is_better(new: Tensor, old: Tensor) -> Tensor:
    """[R] bool for scores [R, 2] of `training.dev_scores`: a higher accuracy, or equal and a lower loss."""
    a, b = new.T, old.T
    return (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] > b[1]))
