"""One trainer for every prompt method: all runs in one batch, the best state on dev kept for each run.

The objective is the SUM over runs of each run's MEAN token loss, clipping is per run and Adam is
elementwise, so R runs trained
together give what training them one by one gives. A learning-rate x seed grid over all tasks is then one
`fit`.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from iptkit import files, progress
from iptkit.engine import Engine, Row
from iptkit.prompts import Prompt
from iptkit.tasks import Example, Task

SETS = ("train", "train_new")


@dataclass(frozen=True)
class Run:
    """One training: a task, the seed of its batches, the set it trains on, its learning rate (None:
    FitConfig.lr)."""

    task: Task
    seed: int = 0
    data: str = "train"
    lr: float | None = None

    def __post_init__(self) -> None:
        if self.data not in SETS:
            raise ValueError(f"Run.data is {self.data!r}; choose one of {SETS}")
        if self.lr is not None and not self.lr > 0:
            raise ValueError(f"Run.lr is {self.lr}; give a number > 0, or None for FitConfig.lr")

    @property
    def examples(self) -> tuple[Example, ...]:
        """The training examples of this run."""
        return getattr(self.task, self.data)


@dataclass(frozen=True)
class FitConfig:
    """How to train. steps >= 0; rows_per_run examples per run and step >= 1; lr > 0 (Adam, linear warm-up
    over the share `warmup` of the
    steps, then linear decay to 0); clip: largest gradient norm of a run; evaluations on dev, evenly spaced,
    the last after the last step;
    dev_examples: at most so many of each dev set."""

    steps: int = 100
    rows_per_run: int = 8
    lr: float = 0.02
    warmup: float = 0.1
    clip: float = 1.0
    evaluations: int = 4
    dev_examples: int = 32

    def __post_init__(self) -> None:
        for name, low in (("steps", 0), ("rows_per_run", 1), ("evaluations", 1), ("dev_examples", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"FitConfig.{name} is {getattr(self, name)}; it must be at least {low}")
        if self.lr <= 0 or self.clip <= 0 or not 0 <= self.warmup < 1:
            raise ValueError(
                f"FitConfig needs lr > 0, clip > 0 and 0 <= warmup < 1, got lr={self.lr}, "
                f"clip={self.clip}, warmup={self.warmup}"
            )

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at `step` (0-based)."""
        warm = max(1, math.ceil(self.warmup * self.steps))
        return min((step + 1) / warm, (self.steps - step) / max(1, self.steps - warm + 1))


@dataclass
class Fit:
    """What a training gave: losses [steps, R], penalty [steps], dev [evaluations, R, 2] = (accuracy over
    options, -mean token loss),
    best_step [R], seconds of this process. The source carries the best state."""

    losses: Tensor
    penalty: Tensor
    dev: Tensor
    best_step: Tensor
    seconds: float = 0.0
    resumed_at: int = field(default=0)


def draw(run: Run, step: int, count: int) -> list[Example]:
    """The examples of `run` at `step`: epochs shuffled by (task, seed, epoch), so a resumed run draws the
    same."""
    total, out = len(run.examples), []
    for position in range(step * count, (step + 1) * count):
        order = list(range(total))
        random.Random(f"{run.task.id}/{run.data}/{run.seed}/{position // total}").shuffle(order)
        out.append(run.examples[order[position % total]])
    return out


def fit(
    engine: Engine,
    source: nn.Module,
    runs: Sequence[Run],
    config: FitConfig,
    checkpoint: Path | None = None,
    label: str = "fit",
    checkpoint_seconds: float = 20.0,
) -> Fit:
    """Train `source` on all runs at once and leave it in its best state on dev.

    Args:
      source: a prompt source with `forward(runs [B]) -> Prompt`. `per_run = True`: each trainable tensor is
        [R, ...] and every run is selected
        by itself. `per_run = False` (a shared auto-encoder): the objective is `source.config.task_weight`
        times the mean over runs plus
        `source.penalty()`, selected by mean dev loss.
      runs: R runs in the order of the source's rows.
      checkpoint: file to resume from and to write every `checkpoint_seconds`; removed by the caller when
        its result is stored.
    Raises:
      ValueError: no runs, or the number of runs and the source's rows differ.
      FloatingPointError: a loss is not finite (names the run and the step).
    """
    state = _State(source, runs, config)
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint)
    begun, saved, start = time.time(), time.time(), state.step
    marks = {round(config.steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    with progress.track(label, total=config.steps, unit="step", initial=start) as bar:
        bar.update(0, note="reading the texts")
        engine.keep_contexts(e for run in runs for e in (*run.examples, *run.task.dev[: config.dev_examples]))
        while state.step < config.steps:
            losses = train_step(engine, state)
            state.step += 1
            bar.update(1, note=f"loss {losses.mean():.2f}")
            if state.step in marks:
                state.select(dev_scores(engine, source, runs, config.dev_examples))
            if checkpoint is not None and time.time() - saved > checkpoint_seconds:
                state.save(checkpoint)
                saved = time.time()
    if config.steps == 0:
        state.select(dev_scores(engine, source, runs, config.dev_examples))
    return state.finish(time.time() - begun, start)


def train_step(engine: Engine, state: _State) -> Tensor:
    """One step of all runs; returns their mean token losses [R]."""
    source, runs, config = state.source, state.runs, state.config
    examples = [(r, e) for r, run in enumerate(runs) for e in draw(run, state.step, config.rows_per_run)]
    rows = [engine.target_row(e) for _, e in examples]
    index = torch.tensor([r for r, _ in examples])
    tokens = torch.zeros(len(runs)).index_add(
        0, index, torch.tensor([float(len(row.answers[0])) for row in rows])
    )
    share = 1.0 if source.per_run else source.config.task_weight / len(runs)
    losses = torch.zeros(len(runs), dtype=torch.float64)
    for batch in engine.batches(rows, state.prompt_length):
        of = index[batch]
        device = engine.backbone.device
        scores, _ = engine.log_likelihoods(source(of.to(device)), [rows[i] for i in batch])
        loss = -scores[:, 0] / tokens[of].to(scores)
        (share * loss.sum()).backward()
        losses.index_add_(0, of, loss.detach().double().cpu())
    if not torch.isfinite(losses).all():
        bad = int((~torch.isfinite(losses)).nonzero()[0])
        raise FloatingPointError(
            f"the loss of run {bad} ({runs[bad].task.id}, lr {runs[bad].lr or config.lr}) is not "
            f"finite at step {state.step}; lower its lr"
        )
    if not source.per_run:
        penalty = source.penalty()
        penalty.backward()
        state.penalty[state.step] = penalty.detach()
    state.losses[state.step] = losses
    state.optimizer.step(config.rate(state.step))
    return losses


@torch.no_grad()
def dev_scores(engine: Engine, source: nn.Module, runs: Sequence[Run], limit: int) -> Tensor:
    """[R, 2] per run: accuracy over the options (0 for free answers) and minus the mean token loss of the
    target, on dev."""
    rows, index, right = [], [], []
    for r, run in enumerate(runs):
        for example in run.task.dev[:limit]:
            rows.append(engine.option_row(example) if example.options else engine.target_row(example))
            index.append(r)
            right.append(example.options.index(example.targets[0]) if example.options else 0)
    out, count = torch.zeros(len(runs), 2, dtype=torch.float64), torch.zeros(len(runs), dtype=torch.float64)
    for batch in engine.batches(rows, prompt_length(source)):
        of = torch.tensor([index[i] for i in batch])
        scores, tokens = engine.log_likelihoods(
            source(of.to(engine.backbone.device)), [rows[i] for i in batch]
        )
        target = torch.tensor([right[i] for i in batch], device=scores.device)[:, None]
        loss = (scores.gather(1, target) / tokens.gather(1, target))[:, 0].double().cpu()
        hit = (scores.argmax(1) == target[:, 0]) & ((tokens > 0).sum(1) > 1)
        out.index_add_(0, of, torch.stack([hit.double().cpu(), loss], 1))
        count.index_add_(0, of, torch.ones(len(of), dtype=torch.float64))
    return out / count[:, None]


def prompt_length(source: nn.Module) -> int:
    """n of the prompts a source makes."""
    with torch.no_grad():
        prompt: Prompt = source(
            torch.zeros(
                1, dtype=torch.long, device=next(iter([*source.parameters(), *source.buffers()])).device
            )
        )
    return prompt.length


class RunAdam:
    """Adam with one learning rate and one clipped gradient norm per run (torch's knows one learning rate
    per tensor).

    Kingma & Ba 2015, betas 0.9 / 0.999, eps 1e-8. For a shared source all tensors form one group.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], lr: Tensor, clip: float, per_run: bool):
        self.parameters, self.lr, self.clip, self.per_run, self.count = parameters, lr, clip, per_run, 0
        self.first = {k: torch.zeros_like(p) for k, p in parameters.items()}
        self.second = {k: torch.zeros_like(p) for k, p in parameters.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Clip, update, clear the gradients; `rate`: share of the peak learning rate."""
        self.count += 1
        squares = [
            p.grad.flatten(1).square().sum(1) if self.per_run else p.grad.square().sum()
            for p in self.parameters.values()
        ]
        scale = (self.clip / (torch.stack(squares).sum(0).sqrt() + 1e-12)).clamp(max=1.0)
        for name, p in self.parameters.items():
            shape = (-1, *[1] * (p.dim() - 1)) if self.per_run else ()
            gradient = p.grad * scale.view(shape)
            self.first[name].lerp_(gradient, 0.1)
            self.second[name].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            mean = self.first[name] / (1 - 0.9**self.count)
            spread = (self.second[name] / (1 - 0.999**self.count)).sqrt() + 1e-8
            p.sub_(rate * self.lr.to(p).view(shape) * mean / spread)
            p.grad = None


class _State:
    """Everything a resumed training needs, and the best state so far."""

    def __init__(self, source: nn.Module, runs: Sequence[Run], config: FitConfig):
        parameters = {k: p for k, p in source.named_parameters() if p.requires_grad}
        if not runs:
            raise ValueError("fit got no runs; give at least one Run(task)")
        if source.per_run and any(p.shape[0] != len(runs) for p in parameters.values()):
            raise ValueError(
                f"the source has rows for {next(iter(parameters.values())).shape[0]} runs, but "
                f"{len(runs)} runs were given"
            )
        lr = (
            torch.tensor([run.lr or config.lr for run in runs]) if source.per_run else torch.tensor(config.lr)
        )
        self.source, self.runs, self.config, self.step = source, runs, config, 0
        self.prompt_length = prompt_length(source)
        self.optimizer = RunAdam(parameters, lr, config.clip, source.per_run)
        self.losses = torch.full((config.steps, len(runs)), torch.nan, dtype=torch.float64)
        self.penalty = torch.zeros(config.steps)
        self.dev: list[Tensor] = []
        self.best = {k: p.detach().clone() for k, p in parameters.items()}
        self.best_score = torch.full((len(runs), 2), -torch.inf, dtype=torch.float64)
        self.best_step = torch.zeros(len(runs), dtype=torch.long)

    def select(self, scores: Tensor) -> None:
        """Keep the present state of every run that is better on dev than its best so far."""
        self.dev.append(scores)
        if self.source.per_run:
            a, b = scores.T, self.best_score.T
            better = (a[0] > b[0]) | ((a[0] == b[0]) & (a[1] > b[1]))
        else:
            better = (scores[:, 1].mean() > self.best_score[:, 1].mean()).expand(len(self.runs))
        self.best_score[better], self.best_step[better] = scores[better], self.step
        for name, p in self.optimizer.parameters.items():
            if self.source.per_run:
                self.best[name][better.to(p.device)] = p.detach()[better.to(p.device)]
            elif better.all():
                self.best[name] = p.detach().clone()

    def finish(self, seconds: float, resumed_at: int) -> Fit:
        with torch.no_grad():
            for name, p in self.optimizer.parameters.items():
                p.copy_(self.best[name])
        return Fit(self.losses, self.penalty, torch.stack(self.dev), self.best_step, seconds, resumed_at)

    def save(self, path: Path) -> None:
        groups = {
            "now": self.optimizer.parameters,
            "first": self.optimizer.first,
            "second": self.optimizer.second,
            "best": self.best,
        }
        tensors = {f"{group}.{k}": v for group, members in groups.items() for k, v in members.items()}
        tensors |= {
            "losses": self.losses,
            "penalty": self.penalty,
            "best_score": self.best_score,
            "best_step": self.best_step,
        }
        tensors |= {f"dev.{i:04d}": d for i, d in enumerate(self.dev)}
        files.write_tensors(path, tensors, {"step": self.step})

    @torch.no_grad()
    def load(self, path: Path) -> None:
        tensors, about = files.read_tensors(path)
        self.step = self.optimizer.count = about["step"]
        for name, p in self.optimizer.parameters.items():
            p.copy_(tensors[f"now.{name}"])
            self.optimizer.first[name].copy_(tensors[f"first.{name}"])
            self.optimizer.second[name].copy_(tensors[f"second.{name}"])
            self.best[name].copy_(tensors[f"best.{name}"])
        self.losses, self.penalty = tensors["losses"], tensors["penalty"]
        self.best_score, self.best_step = tensors["best_score"], tensors["best_step"]
        self.dev = [tensors[k] for k in sorted(tensors) if k.startswith("dev.")]


__all__ = [
    "SETS",
    "Fit",
    "FitConfig",
    "Row",
    "Run",
    "RunAdam",
    "dev_scores",
    "draw",
    "fit",
    "prompt_length",
    "train_step",
]
