"""Word search: prompt words are found by gradient in a frozen model (AutoPrompt).

Shin et al. 2020, "AutoPrompt" (arXiv 2010.15980), section 2.2. The prompt stays a sequence of words, so the
search stands between discrete prompts, which people write, and prompt tuning, whose vectors move freely:

    tokens [R, n]   R runs, n prompt words; the engine gets their embeddings [R, n, d]
    gain [R, V]     (e_w - e_now) . g, the first-order change of the loss for each word w, g [d] the gradient
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iptkit.engine import limits
from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.engine.rows import Row
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.storage import progress
from iptkit.training import trainer
from iptkit.training.runs import Run, draw, evaluation_steps
from iptkit.training.state import is_better


@dataclass(frozen=True)
class SearchConfig:
    """The settings of a search, each >= 1.

    Attributes:
      steps: number of steps; step s tries to swap the word at position s mod n.
      rows: examples per run and step.
      candidates: words that a step tries.
      evaluations: number of evaluations on dev, evenly spaced.
      dev_examples: largest number of examples of each dev set.
    """

    steps: int = 32
    rows: int = 8
    candidates: int = 8
    evaluations: int = 4
    dev_examples: int = 16

    def __post_init__(self) -> None:
        for name in ("steps", "rows", "candidates", "evaluations", "dev_examples"):
            if getattr(self, name) < 1:
                raise ValueError(f"SearchConfig.{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
      tokens: [R, n] the best prompt words on dev.
      losses: [steps, R] mean token loss on the rows of each step, after its swap if it was accepted.
      swaps: [R] number of accepted swaps.
      dev: [evaluations + 1, R, 2] scores as from training.dev_scores, those of the start first.
    """

    tokens: Tensor
    losses: Tensor
    swaps: Tensor
    dev: Tensor


def search(
    engine: Engine, start: Tensor, runs: Sequence[Run], config: SearchConfig, label: str = "search"
) -> Found:
    """The best prompt words that AutoPrompt finds; it swaps one word at a time.

    A step takes some training rows and the gradient g [d] of their loss with respect to the embedding at one
    position. The words w with the lowest first-order change (e_w - e_now) . g of the loss are tried on the
    same rows, and the best one is accepted if it lowers the loss. All runs search in one batch.

    Args:
      engine: a causal or encoder-decoder engine.
      start: [R, n] token ids of the first prompts.
      runs: R runs.
      config: the settings.
      label: words on the progress bar.
    Raises: ValueError for a task that does not fit the model, see `limits.check`.
    """
    limits.check(engine, (run.task for run in runs), start.shape[1])
    table, device = engine.backbone.embedding, engine.backbone.device
    tokens = start.to(device).clone()
    allowed = _words_of_the_vocabulary(engine).to(device)
    losses = torch.zeros(config.steps, len(runs), dtype=torch.float64, device=device)
    swaps = torch.zeros(len(runs), dtype=torch.long, device=device)
    best = [tokens.clone(), _on_dev(engine, tokens, runs, config)]
    dev = [best[1]]
    marks = evaluation_steps(config.steps, config.evaluations)
    engine.keep_contexts(run.examples for run in runs)
    with progress.track(label, total=config.steps, unit="step") as bar:
        for step in range(config.steps):
            place = step % tokens.shape[1]
            rows = [[engine.target_row(e) for e in draw(run, step, config.rows)] for run in runs]
            now, gradient = _loss_and_gradient(engine, tokens, rows)
            change = gradient[:, place] @ table.to(gradient).T  # [R, V], up to a constant per run
            change[:, ~allowed] = torch.inf
            change.scatter_(1, tokens[:, place, None], torch.inf)
            tried = change.topk(config.candidates, largest=False).indices  # [R, C]
            variants = tokens[:, None].expand(-1, config.candidates, -1).clone()
            variants[:, :, place] = tried
            values, which = _losses(engine, variants, rows).min(1)
            better = values < now
            index = torch.arange(len(runs), device=device)
            tokens = torch.where(better[:, None], variants[index, which], tokens)
            losses[step], swaps = torch.where(better, values, now), swaps + better
            is_read = device.type == "cpu" or step + 1 in marks
            bar.update(1, note=f"loss {losses[step].mean():.2f}" if is_read else "")
            if step + 1 in marks:
                dev.append(_on_dev(engine, tokens, runs, config))
                best = _better(best, tokens, dev[-1])
    return Found(best[0].cpu(), losses.cpu(), swaps.cpu(), torch.stack(dev))


def _loss_and_gradient(
    engine: Engine, tokens: Tensor, rows: Sequence[Sequence[Row]]
) -> tuple[Tensor, Tensor]:
    """Mean token loss [R] of each run's rows, and its gradient [R, n, d] with respect to the prompts."""
    embeds = engine.backbone.embedding[tokens].detach().requires_grad_()
    owner = [r for r, of_run in enumerate(rows) for _ in of_run]
    flat = [row for of_run in rows for row in of_run]
    losses = trainer.losses_of(engine, Prompt(embeds), flat, owner, share=1.0)
    assert embeds.grad is not None  # share > 0 leaves it there
    return losses, embeds.grad


@torch.no_grad()
def _losses(engine: Engine, variants: Tensor, rows: Sequence[Sequence[Row]]) -> Tensor:
    """Mean token loss [R, C] of the rows of run r under variants[r, c]."""
    count = variants.shape[1]
    pairs = [(r * count + c, row) for r, of_run in enumerate(rows) for row in of_run for c in range(count)]
    prompts = Prompt(engine.backbone.embedding[variants.flatten(0, 1)])
    losses = trainer.losses_of(engine, prompts, [row for _, row in pairs], [p for p, _ in pairs])
    return losses.view(len(rows), count)


def _on_dev(engine: Engine, tokens: Tensor, runs: Sequence[Run], config: SearchConfig) -> Tensor:
    source = FixedPrompt(engine.backbone.embedding[tokens])
    return trainer.dev_scores(engine, source, runs, config.dev_examples)


def _better(best: list[Tensor], tokens: Tensor, dev: Tensor) -> list[Tensor]:
    """The tokens and scores of the better state of each run: higher accuracy, or equal and a lower loss."""
    old = best[1]
    wins = is_better(dev, old)
    return [
        torch.where(wins[:, None].to(tokens.device), tokens, best[0]),
        torch.where(wins[:, None], dev, old),
    ]


def _words_of_the_vocabulary(engine: Engine) -> Tensor:
    """[V] bool, True for the tokens that a search may use: printable and not special."""
    tokenizer, size = engine.backbone.tokenizer, len(engine.backbone.embedding)
    special = set(tokenizer.all_special_ids)
    texts = tokenizer.batch_decode([[i] for i in range(min(size, len(tokenizer)))])
    allowed = [i not in special and t.strip().isprintable() and bool(t.strip()) for i, t in enumerate(texts)]
    return torch.tensor(allowed + [False] * (size - len(allowed)))
