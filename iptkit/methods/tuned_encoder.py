"""Fine-tuning of an encoder that starts from a linear probe and keeps its best state on dev.

The head starts at that of a trained probe (LP-FT, Kumar et al. 2022, arXiv 2202.10054), so a training that
ends below the probe has done harm. Steps, order of the examples, evaluations and the choice of the best state
are those of `training.fit`, which prompts and probes are trained with. `fine_tuning.fine_tune_encoder` is the
usual recipe: transformers' Trainer, a new head, the last state.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from iptkit.engine import limits
from iptkit.engine.head_engine import HeadEngine
from iptkit.methods.heads import FixedHead, WithHead
from iptkit.models.backbone import Backbone
from iptkit.storage import progress
from iptkit.tasks.examples import Task
from iptkit.training.adam import DivergedError
from iptkit.training.runs import FitConfig, Run, draw, evaluation_steps
from iptkit.training.state import Clock, is_better
from iptkit.training.trainer import dev_scores, losses_of


@dataclass(frozen=True)
class TunedEncoder:
    """The result of one training.

    Attributes:
      backbone: the trained copy of the model, frozen.
      head: the trained head, for `evaluation.outcomes` with a HeadEngine of `backbone`.
      dev: [2] on dev: accuracy over options and minus the mean token loss, see `training.dev_scores`.
      best_step: number of steps after which the best state was found.
      num_parameters: number of trained parameters.
      seconds: of the training.
      cpu_seconds: of the training.
    """

    backbone: Backbone
    head: FixedHead
    dev: Tensor
    best_step: int
    num_parameters: int
    seconds: float
    cpu_seconds: float


def tune_encoder(
    backbone: Backbone, task: Task, head: Tensor, config: FitConfig, seed: int = 0
) -> TunedEncoder:
    """A copy of an encoder whose weights are trained on a task of classes or tags.

    Training is in float32 without dropout, as that of prompts.

    Args:
      backbone: an encoder; it stays unchanged.
      task: trained on its `train` set; its `dev` set chooses among the states after each evaluation.
      head: [C, d + 1] of a trained probe.
      config: the settings; Adam without weight decay.
      seed: of the order of the examples.
    Raises: ValueError for a task that does not fit the model (see `limits.check`) or has more classes than
      the head; DivergedError if a loss is not finite.
    """
    model = copy.deepcopy(backbone.model).float().requires_grad_(True)
    tuned = replace(backbone, model=model, dtype="float32")
    engine = HeadEngine(tuned)
    limits.check(engine, [task], 0, ("train", "dev"))
    source = WithHead(1, backbone.width, len(head), torch.Generator()).to(backbone.device)
    with torch.no_grad():
        source.head.copy_(head[None])
    run, clock = Run(task, seed), Clock()
    weights = [*model.parameters(), *source.parameters()]
    optimizer = torch.optim.Adam(weights, config.lr, fused=True)
    best, best_step = torch.full((1, 2), -torch.inf, dtype=torch.float64), 0
    kept = [p.detach().clone() for p in weights]
    if not config.steps:
        best = dev_scores(engine, source, [run], config.dev_examples)
    marks = evaluation_steps(config.steps, config.evaluations)
    with progress.track(f"fine-tuning on {task.id}", total=config.steps, unit="step") as bar:
        for step in range(config.steps):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * config.rate(step)
            loss = _step(engine, source, run, step, config, optimizer)
            if not math.isfinite(loss):
                raise DivergedError(
                    f"fine-tuning on task {task.id} (seed {seed}, lr {config.lr}) diverged: its loss at step "
                    f"{step + 1} is {loss}; lower the learning rate"
                )
            bar.update(1, note=f"loss {loss:.2f}")
            if step + 1 in marks:
                found = dev_scores(engine, source, [run], config.dev_examples)
                if is_better(found, best).item():
                    best, best_step = found, step + 1
                    kept = [p.detach().clone() for p in weights]
    spent = clock.read()
    with torch.no_grad():
        for p, value in zip(weights, kept, strict=True):
            p.copy_(value)
    count = sum(p.numel() for p in weights if p.grad is not None)
    model.requires_grad_(False).eval()
    return TunedEncoder(tuned, FixedHead(source.head), best[0], best_step, count, **spent)


def _step(
    engine: HeadEngine,
    source: WithHead,
    run: Run,
    step: int,
    config: FitConfig,
    optimizer: torch.optim.Optimizer,
) -> float:
    """The mean token loss of one training step."""
    rows = [engine.target_row(example) for example in draw(run, step, config.rows_per_run)]
    optimizer.zero_grad()
    made = source(torch.zeros(1, dtype=torch.long, device=engine.backbone.device))
    leaf = made.detached()
    loss = losses_of(engine, leaf, rows, [0] * len(rows), 1.0)
    made.backward(leaf)
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], config.clip)
    optimizer.step()
    return float(loss)
