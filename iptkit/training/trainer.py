"""One trainer for every prompt method: all runs train in one batch, and each keeps its best state on dev.

The objective is the SUM over runs of each run's MEAN token loss, clipping is per run and Adam works element
by element. So R runs that train together get the same prompts as R runs that train one by one, and a grid of
learning rates and seeds over all tasks is a single `fit`.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iptkit.engine import limits
from iptkit.engine.calls import check_list, check_modules
from iptkit.engine.compatibility import check_source, prompt_length
from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.models.devices import to_device
from iptkit.storage import files, progress, tensor_files
from iptkit.training.runs import Fit, FitConfig, Run, draw, evaluation_steps, read_by
from iptkit.training.state import State


def fit(
    engine: PromptEngine,
    source: PromptSource,
    runs: Sequence[Run],
    config: FitConfig,
    checkpoint: str | Path | None = None,
    label: str = "fit",
    checkpoint_seconds: float = 20.0,
) -> Fit:
    """The curves of a training of `source` on all runs at once, which leaves it in its best state on dev.

    Args:
      engine: scores the rows in the frozen model.
      source: the prompt source to train. With `per_run = True` each trainable tensor is [R, ...], and the
        best step is chosen for every run by dev accuracy, then dev loss. With `per_run = False` (a shared
        auto-encoder) the objective is `source.task_weight` times the mean over runs plus `source.penalty()`,
        if any, and one best step is chosen for all runs: by the mean dev loss, or by the penalty if
        task_weight is 0.
      runs: R runs in the order of the source's rows.
      config: the settings.
      checkpoint: a file to resume from and to write regularly; the caller removes it when the result is
        stored. A damaged one is set aside with a warning, and the training starts from the beginning.
      label: words on the progress bar.
      checkpoint_seconds: time between two checkpoints; for those above 200 MB it grows in proportion.

    Raises:
      ValueError: there are no runs, or not as many as the source has rows; a run has no dev examples; the
        source was made for another model; the checkpoint is of another training; an example in any set of
        any run's task does not fit the model (see `limits.check`). All this before the first step.
      DivergedError: a loss is not finite (names run, task, step and learning rate).
    """
    checkpoint = None if checkpoint is None else Path(checkpoint)
    check_modules(engine, source)
    check_list(runs, Run, "fit", "runs")
    limits.check(engine, (run.task for run in runs), check_source(engine, source.eval()))
    state = State(engine, source, runs, config)
    if checkpoint is not None and checkpoint.exists():
        try:
            state.load(checkpoint)
        except tensor_files.DamagedError as error:
            aside = files.set_aside(checkpoint)
            warnings.warn(
                f"{error}. The file was set aside as {aside.name}, and training starts from the beginning",
                stacklevel=2,
            )
    saved, start = time.time(), state.step
    wait = checkpoint_seconds * max(1.0, state.num_bytes / 2e8)
    marks = evaluation_steps(config.steps, config.evaluations)
    with progress.track(label, total=config.steps, unit="step", initial=start) as bar:
        bar.update(0, note="reading the texts")
        engine.keep_contexts(read_by(run, config) for run in runs)
        while state.step < config.steps:
            train_step(engine, state)
            state.step += 1
            seen = state.losses[: state.step - len(state.pending)]
            bar.update(1, note=f"loss {seen[-1].mean():.2f}" if len(seen) else "")
            if state.step in marks:
                state.flush()
                state.select(dev_scores(engine, source, runs, config.dev_examples))
            if checkpoint is not None and time.time() - saved > wait:
                state.flush()
                state.save(checkpoint)
                saved = time.time()
    if config.steps == 0:
        state.select(dev_scores(engine, source, runs, config.dev_examples))
    state.restore_best()
    source.about = {**state.made, "method": source.method, **trained_on(runs, config)}
    dev, spent = torch.stack(state.dev), state.clock.read()
    return Fit(state.losses, state.penalty, dev, state.best_step, **spent, resumed_at=start)


def trained_on(runs: Sequence[Run], config: FitConfig) -> dict[str, Any]:
    """The tasks and settings of a training as JSON, for `PromptSource.about`.

    Args:
      runs: R runs.
      config: the settings.
    """
    return {
        "tasks": [run.task.id for run in runs],
        "data": [
            {"task": run.task.id, "sample": run.task.seed, "set": run.data, "examples": len(run.examples)}
            | {
                name: getattr(run.task, name)
                for name in ("category", "metric", "labels", "source", "licence")
            }
            | {"lr": run.lr or config.lr, "seed": run.seed}
            for run in runs
        ],
        "training": asdict(config),
    }


def train_step(engine: PromptEngine, state: State) -> Tensor:
    """The mean token losses [R] of all runs at one training step.

    Args:
      engine: scores the rows.
      state: of the training; its source is changed, its step counter is not.
    Raises: DivergedError, see State.record.
    """
    source, runs, config = state.source.train(), state.runs, state.config
    examples = [(r, e) for r, run in enumerate(runs) for e in draw(run, state.step, config.rows_per_run)]
    rows = [engine.target_row(e) for _, e in examples]
    share = 1.0 if source.per_run else source.task_weight / len(runs)
    with torch.set_grad_enabled(share > 0):  # task weight 0: the loss is only reported
        with seeded(state.step, engine.backbone.device):  # the same dropout after a resume
            made = source(torch.arange(len(runs), device=engine.backbone.device))  # once for all rows
        leaf = made.detached()
        losses = losses_of(engine, leaf, rows, [r for r, _ in examples], share)
        if share > 0:
            made.backward(leaf)
    penalty = None if source.per_run else source.penalty()
    if penalty is not None:
        penalty.backward()
        penalty = penalty.detach()
    state.record(losses, penalty)
    state.optimizer.step(config.rate(state.step))
    return losses


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """A context with torch's global random generators at `seed`; they are restored afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def losses_of(
    engine: PromptEngine, prompts: Prompt, rows: Sequence[Any], owner: Sequence[int], share: float = 0.0
) -> Tensor:
    """The mean token loss [P] of each of P prompts over its rows, in float64 on the engine's device.

    Args:
      engine: scores the rows.
      prompts: P prompts.
      rows: rows with one answer each.
      owner: the index of each row's prompt.
      share: `prompts` collects the gradients of `share` times the sum of the losses; 0 for no gradients.
    """
    device = engine.backbone.device
    of = to_device(owner, device)
    lengths = to_device([float(len(row.answers[0]) or 1) for row in rows], device)
    tokens = torch.zeros(prompts.count, device=device).index_add(0, of, lengths)
    losses = torch.zeros(prompts.count, dtype=torch.float64, device=device)
    for batch in engine.batches(rows, prompts.length):
        mine = of.index_select(0, to_device(batch, device))
        scores, _ = engine.log_likelihoods(prompts.rows(mine), [rows[i] for i in batch])
        loss = -scores[:, 0] / tokens[mine].to(scores)
        if share > 0:
            (share * loss.sum()).backward()
        losses.index_add_(0, mine, loss.detach().double())
    return losses


def credit(scores: Tensor, right: Tensor) -> Tensor:
    """The credit of each row [B]: 1.0 if the right option alone is the likeliest, 1/k if k options tie.

    Args:
      scores: [B, K] log-likelihoods of the options, -inf where a row has fewer options.
      right: [B] indices of the right options.

    Example:
      >>> credit(torch.tensor([[1.0, 2.0], [1.0, 1.0], [2.0, 1.0]]), torch.tensor([1, 0, 1])).tolist()
      [1.0, 0.5, 0.0]
    """
    best = (scores == scores.amax(1, keepdim=True)).double()
    return best.gather(1, right[:, None])[:, 0] / best.sum(1).clamp(min=1)


def per_token(scores: Tensor, tokens: Tensor, right: Tensor) -> Tensor:
    """The mean log-likelihood per token of the right answer of each row [B], in nats, as float64.

    Args:
      scores: [B, K] log-likelihoods of the answers, summed over their tokens.
      tokens: [B, K] numbers of tokens.
      right: [B] indices of the right answers.

    Example:
      >>> per_token(torch.tensor([[-3.0, -1.0]]), torch.tensor([[2, 1]]), torch.tensor([0])).tolist()
      [-1.5]
    """
    at = right[:, None]
    return (scores.gather(1, at) / tokens.gather(1, at))[:, 0].double()


@torch.no_grad()
def dev_scores(engine: PromptEngine, source: PromptSource, runs: Sequence[Run], limit: int) -> Tensor:
    """The scores of every run on its dev set.

    Args:
      engine: scores the rows.
      source: the prompts, one row per run.
      runs: R runs.
      limit: largest number of examples of each dev set.
    Returns: [R, 2], accuracy over the options (0 for free answers) and minus the mean token loss.
    """
    source.eval()
    rows, index, right = [], [], []
    for r, run in enumerate(runs):
        for example in run.task.dev[:limit]:
            rows.append(engine.option_row(example) if example.options else engine.target_row(example))
            index.append(r)
            right.append(example.options.index(example.targets[0]) if example.options else 0)
    owner, found, device = [], [], engine.backbone.device
    for batch in engine.batches(rows, prompt_length(source)):
        of = torch.tensor([index[i] for i in batch])
        scores, tokens = engine.log_likelihoods(source(to_device(of, device)), [rows[i] for i in batch])
        target = to_device([right[i] for i in batch], device)
        hit = credit(scores, target) * ((tokens > 0).sum(1) > 1)
        owner.append(of)
        found.append(torch.stack([hit, per_token(scores, tokens, target)], 1))
    out, count = torch.zeros(len(runs), 2, dtype=torch.float64), torch.zeros(len(runs), dtype=torch.float64)
    if owner:
        of, of_rows = torch.cat(owner), torch.cat(found).cpu()  # waits for a GPU once
        out.index_add_(0, of, of_rows)
        count.index_add_(0, of, torch.ones(len(of), dtype=torch.float64))
    return out / count[:, None]
