"""One trainer for every prompt method: all runs in one batch, the best state on dev kept for each run.

The objective is the SUM over runs of each run's MEAN token loss, clipping is per run and Adam is
elementwise, so R runs trained together give what training them one by one gives. A grid of learning
rates and seeds over all tasks is then one `fit`.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iptkit.engine import limits
from iptkit.engine.compatibility import check_source, prompt_length
from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.models.devices import to_device
from iptkit.storage import files, progress, tensor_files
from iptkit.training.runs import Fit, FitConfig, Run, draw, read_by
from iptkit.training.state import State as _State


def fit(
    engine: PromptEngine,
    source: PromptSource,
    runs: Sequence[Run],
    config: FitConfig,
    checkpoint: str | Path | None = None,
    label: str = "fit",
    checkpoint_seconds: float = 20.0,
) -> Fit:
    """Train `source` on all runs at once and leave it in its best state on dev.

    Args:
      source: a prompt source with `forward(runs [B]) -> Prompt`. With `per_run = True` each trainable
        tensor is [R, ...] and every run is selected by itself, on dev accuracy, then dev loss. With
        `per_run = False` (a shared auto-encoder) the objective is `source.task_weight` times
        the mean over runs plus `source.penalty()`, if any, and all is selected at once: on the mean dev loss,
        or on the penalty if task_weight is 0.
      runs: R runs in the order of the source's rows.
      config: how to train.
      checkpoint: file to resume from and to write every `checkpoint_seconds`, above 200 MB less often in
        proportion to its size; the caller removes it when the result is stored. A damaged one is set aside
        with a warning, and training begins at its start.
      label: words on the progress bar.

    Raises:
      ValueError: no runs, or the number of runs and the source's rows differ; a run without dev examples; a
        source that was made for another model; the checkpoint of another training; what does not fit the
        model in any set of any run's task. All of it before the first step (see limits.check).
      optim.DivergedError: a loss is not finite (names run, task, step and learning rate).
    """
    checkpoint = None if checkpoint is None else Path(checkpoint)
    limits.check(engine, (run.task for run in runs), check_source(engine, source.eval()))
    state = _State(engine, source, runs, config)
    if checkpoint is not None and checkpoint.exists():
        try:
            state.load(checkpoint)
        except tensor_files.DamagedError as error:
            aside = files.set_aside(checkpoint)
            told = f"{error}. It is not used: it was set aside as {aside.name}, and training begins anew"
            warnings.warn(told, stacklevel=2)
    begun, saved, start = time.time(), time.time(), state.step
    wait = checkpoint_seconds * max(1.0, state.num_bytes / 2e8)
    marks = {round(config.steps * (i + 1) / config.evaluations) for i in range(config.evaluations)}
    with progress.track(label, total=config.steps, unit="step", initial=start) as bar:
        bar.update(0, note="reading the texts")
        engine.keep_contexts(read_by(run, config) for run in runs)
        while state.step < config.steps:
            train_step(engine, state)
            state.step += 1
            seen = state.losses[: state.step - len(state.unread)]
            bar.update(1, note=f"loss {seen[-1].mean():.2f}" if len(seen) else "")
            if state.step in marks:
                state.read()
                state.select(dev_scores(engine, source, runs, config.dev_examples))
            if checkpoint is not None and time.time() - saved > wait:
                state.read()
                state.save(checkpoint)
                saved = time.time()
    if config.steps == 0:
        state.select(dev_scores(engine, source, runs, config.dev_examples))
    state.restore_best()
    seconds = time.time() - begun
    return Fit(state.losses, state.penalty, torch.stack(state.dev), state.best_step, seconds, start)


def train_step(engine: PromptEngine, state: _State) -> Tensor:
    """One step of all runs; returns their mean token losses [R].

    Raises: see State.keep.
    """
    source, runs, config = state.source.train(), state.runs, state.config
    examples = [(r, e) for r, run in enumerate(runs) for e in draw(run, state.step, config.rows_per_run)]
    rows = [engine.target_row(e) for _, e in examples]
    share = 1.0 if source.per_run else source.task_weight / len(runs)
    with torch.set_grad_enabled(share > 0):  # task weight 0: the loss is only looked at
        with seeded(state.step, engine.backbone.device):  # dropout: the same after a resume
            made = source(torch.arange(len(runs), device=engine.backbone.device))  # once for all rows
        leaf = made.detached()
        losses = losses_of(engine, leaf, rows, [r for r, _ in examples], share)
        if share > 0:
            made.backward(leaf)
    penalty = None if source.per_run else source.penalty()
    if penalty is not None:
        penalty.backward()
        penalty = penalty.detach()
    state.keep(losses, penalty)
    state.optimizer.step(config.rate(state.step))
    return losses


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own random numbers start from `seed` inside and are outside as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def losses_of(
    engine: PromptEngine, prompts: Prompt, rows: Sequence[Any], owner: Sequence[int], share: float = 0.0
) -> Tensor:
    """Mean token loss [P] of each of P prompts over its rows, in float64 on the engine's device.

    Args:
      rows: one answer each.  owner: the prompt of each row.
      share: gradients of `share` times the sum of the losses are left in `prompts`; 0 for none.
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
    """What the likeliest options earn [B]: 1.0 for the right one alone, 1/k if it is one of k tied ones.

    Args:
      scores: [B, K], -inf where a row has fewer options.  right: [B] numbers of the right options.

    >>> credit(torch.tensor([[1.0, 2.0], [1.0, 1.0], [2.0, 1.0]]), torch.tensor([1, 0, 1])).tolist()
    [1.0, 0.5, 0.0]
    """
    best = (scores == scores.amax(1, keepdim=True)).double()
    return best.gather(1, right[:, None])[:, 0] / best.sum(1).clamp(min=1)


@torch.no_grad()
def dev_scores(engine: PromptEngine, source: PromptSource, runs: Sequence[Run], limit: int) -> Tensor:
    """Score every run on its dev set, at most `limit` examples of each.

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
        target = to_device([right[i] for i in batch], device)[:, None]
        loss = (scores.gather(1, target) / tokens.gather(1, target))[:, 0].double()
        hit = credit(scores, target[:, 0]) * ((tokens > 0).sum(1) > 1)
        owner.append(of)
        found.append(torch.stack([hit, loss], 1))
    out, count = torch.zeros(len(runs), 2, dtype=torch.float64), torch.zeros(len(runs), dtype=torch.float64)
    if owner:
        of, of_rows = torch.cat(owner), torch.cat(found).cpu()  # a GPU is waited for once
        out.index_add_(0, of, of_rows)
        count.index_add_(0, of, torch.ones(len(of), dtype=torch.float64))
    return out / count[:, None]
