"""The study as a list of cached steps, from the prompts of all tasks to one table of results.

    tasks -> prompts (prompt tuning, the bank) -> subspace(d_I) (MSF) -> codes(d_I) (IST) -> table()

Settings as in Qin et al. 2021, section 4: MSF on seen and unseen tasks (a task's own prompt through
the auto-encoder, nothing tuned), IST on seen tasks with new data, IST on unseen tasks. The table has
one row per measured score; `summary` and `difference` read it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iptkit import backbones, evaluate, fewshot, lesson_studies, prompts, results, store, subspace, tasks
from iptkit.engine import Engine
from iptkit.prompts import FixedPrompt, SoftPrompt
from iptkit.results import as_markdown, as_text, difference, provenance, stored, summary, write
from iptkit.scales import Scale
from iptkit.train import Run, fit

__all__ = ["Study", "as_markdown", "as_text", "difference", "provenance", "stored", "summary", "write"]

Made = tuple[dict[str, Tensor], dict[str, Any]]  # tensors and JSON values of a step


class Study:
    """All measurements of one scale; each expensive part is a step in the step cache.

    Args:
      scale: from scales.load.
      device: "cpu", "cuda" or "auto".
      seed: first seed; the scale's seeds are counted from it.
    """

    def __init__(self, scale: Scale, device: str = "cpu", seed: int = 0):
        self.scale, self.device, self.seed = scale, device, seed
        sides = tasks.sides(scale.suite, scale.seen, scale.unseen, scale.split)
        self.seen, self.unseen = sides.seen, sides.unseen
        self.ids = (*self.seen, *self.unseen)
        self.seeds = tuple(seed + s for s in scale.seeds)

    @functools.cached_property
    def backbone(self) -> backbones.Backbone:
        """The frozen model."""
        return backbones.load(self.scale.backbone, self.device, self.scale.dtype)

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine that scores rows in it."""
        return Engine(self.backbone, context_bytes=int(self.scale.context_gib * 2**30))

    @functools.cache  # noqa: B019 - a study lives as long as its notebook
    def tasks(self, seed: int) -> list[tasks.Task]:
        """Seen then unseen tasks with the few-shot sets of `seed`."""
        limit = self.scale.test_examples
        return tasks.load_suite(self.scale.suite, seed=seed, only=self.ids, max_test=limit)

    def task(self, task_id: str, seed: int) -> tasks.Task:
        """One of them."""
        return next(t for t in self.tasks(seed) if t.id == task_id)

    def fresh_tasks(self, seed: int) -> list[tasks.Task]:
        """Tasks for IST: seen ones without what the bank's prompts were trained and selected on."""
        dev, count = self.scale.prompt.dev_examples, len(self.seen)
        mine, first = self.tasks(seed), self.tasks(self.seeds[0])
        seen = [fewshot.leave_out(t, known, dev) for t, known in zip(mine[:count], first, strict=False)]
        return [*seen, *mine[count:]]  # of the unseen ones the auto-encoder knows nothing

    # ---- steps -----------------------------------------------------------------------------------
    def zero_shot(self) -> store.Step:
        """Scores of the words alone, no training: values["rows"]."""

        def make(_: Path) -> Made:
            scores = self.score(self._words(len(self.ids)), self.tasks(self.seeds[0]), "zero-shot")
            return {}, {"rows": results.rows(self, scores, "zero-shot", self.seeds[:1])}

        return store.step("zero-shot", self.key("words", seeds=self.seeds[:1]), make)

    def bank(self) -> store.Step:
        """Prompt tuning of every task and seed in one `fit`.

        Returns: tensors["P"] [S, T, n, d], tensors["losses"]; values["rows"], values["best_step"].
        """

        def make(checkpoint: Path) -> Made:
            all_tasks = [t for s in self.seeds for t in self.tasks(s)]
            runs = [Run(t, t.seed) for t in all_tasks]
            source = SoftPrompt(self._words(len(runs)).P)
            label = f"prompt tuning, {len(runs)} runs"
            result = fit(self.engine, source, runs, self.scale.prompt, checkpoint, label)
            scores = self.score(source, all_tasks, "test of prompt tuning")
            rows = results.rows(self, scores, "prompt tuning", self.seeds)
            tensors = {"P": self._by_seed(source.P), "losses": result.losses.float()}
            return tensors, {"rows": rows, "best_step": result.best_step.tolist()}

        return store.step("prompts", self.key("prompt", self.scale.prompt), make)

    def mean_prompt(self) -> store.Step:
        """Scores of the mean of the seen tasks' prompts, the same for every task: values["rows"]."""

        def make(_: Path) -> Made:
            source = subspace.mean_prompt(self._first_prompts()[: len(self.seen)], len(self.ids))
            scores = self.score(source, self.tasks(self.seeds[0]), "test of the mean prompt")
            return {}, {"rows": results.rows(self, scores, "mean prompt", self.seeds[:1])}

        return store.step("mean-prompt", self.key("mean prompt", self.scale.prompt), make)

    def subspace(self, intrinsic_dim: int, **changes: Any) -> tuple[subspace.AutoEncoder, store.Step]:
        """MSF on the seen tasks' prompts of the first seed.

        Args:
          intrinsic_dim: d_I.
          changes: fields of SubspaceConfig to replace (ablations).
        Returns: the auto-encoder, and its step with values["rows"] of MSF and of the mean code.
        """
        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim, **changes)
        bank = self._first_prompts()
        seen = bank[: len(self.seen)]

        def make(checkpoint: Path) -> Made:
            runs = [Run(t, t.seed) for t in self.tasks(self.seeds[0])[: len(seen)]]
            label = f"MSF, d_I = {intrinsic_dim}"
            autoencoder, result = subspace.find(
                self.engine, seen, runs, config, self.scale.msf, self._generator(), checkpoint, label
            )
            rows = self._score_msf(autoencoder, bank, intrinsic_dim)
            curves = {"losses": result.losses.float(), "penalty": result.penalty}
            return autoencoder.state_dict() | curves, {"rows": rows}

        key = self.key("msf", self.scale.prompt, self.scale.msf, config)
        step = store.step(f"subspace-{intrinsic_dim}", key, make)
        autoencoder = subspace.AutoEncoder(seen, config, self._generator()).to(self.backbone.device)
        autoencoder.load_state_dict({k: step.tensors[k] for k in autoencoder.state_dict()})
        return autoencoder, step

    def codes(self, intrinsic_dim: int, decoder: str = "learned") -> store.Step:
        """IST with new data on all tasks and seeds: tensors["u"] [S, T, d_I], values["rows"].

        Args:
          intrinsic_dim: d_I.
          decoder: "learned" (MSF) or "random" (same shape, untrained, centred and scaled by the bank).
        Raises: ValueError for another decoder.
        """
        check_decoder(decoder)
        method = "IST" if decoder == "learned" else "random decoder"

        def make(checkpoint: Path) -> Made:
            all_tasks = [t for s in self.seeds for t in self.fresh_tasks(s)]
            runs = [Run(t, t.seed, "train_new") for t in all_tasks]
            label = f"{method}, d_I = {intrinsic_dim}, {len(runs)} runs"
            autoencoder = self.decoder(intrinsic_dim, decoder)
            source, result = subspace.tune(self.engine, autoencoder, runs, self.scale.ist, checkpoint, label)
            scores = self.score(source, all_tasks, f"test of {method}")
            rows = results.rows(self, scores, method, self.seeds, intrinsic_dim)
            return {"u": self._by_seed(source.u), "losses": result.losses.float()}, {"rows": rows}

        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim)
        msf = self.scale.msf if decoder == "learned" else None
        key = self.key("ist", decoder, self.scale.prompt, msf, self.scale.ist, config)
        return store.step(f"codes-{decoder}-{intrinsic_dim}", key, make)

    def start_and_rate(self) -> store.Step:
        """Prompt tuning from words and from noise at three learning rates: values["rows"]."""
        return lesson_studies.start_and_rate(self)

    def beside_prompt_tuning(self) -> store.Step:
        """Prompt tuning, LoRA and full fine-tuning on one task: values["table"]."""
        return lesson_studies.beside_prompt_tuning(self)

    def table(self) -> list[dict[str, Any]]:
        """Every measured score once, one row each (see `results`); makes what is missing."""
        return [row for step in self.steps() for row in step.values["rows"]]

    def steps(self) -> list[store.Step]:
        """All steps of the table; makes what is missing."""
        steps = [self.zero_shot(), self.bank(), self.mean_prompt()]
        steps += [self.subspace(dim)[1] for dim in self.scale.dims]
        steps += [self.codes(dim) for dim in self.scale.dims]  # side by side: the same texts, read once
        return [*steps, self.codes(self.scale.main_dim, "random")]

    # ---- what steps are made of ------------------------------------------------------------------
    def score(self, source: nn.Module, on: Sequence[tasks.Task], label: str) -> list[float]:
        """Test scores of each row of `source` on its task, `label` on the progress bar."""
        return evaluate.evaluate(self.engine, source, on, limit=self.scale.test_examples, label=label)

    def key(self, *parts: Any, seeds: Sequence[int] | None = None) -> list[Any]:
        """All that determines a step: model, words, the examples themselves, sizes and `parts`.

        Args:
          parts: what is particular to the step.
          seeds: those whose few-shot sets it uses (default: all of the study).
        """
        scale, seeds = self.scale, self.seeds if seeds is None else seeds
        return [
            *self.model_key(),
            prompts.WORDS,
            [[seed, self._digest(seed)] for seed in seeds],
            len(self.seen),
            scale.prompt_length,
            scale.test_examples,
            self.seed,
            *parts,
        ]

    def key_of(self, read: Sequence[tuple[tasks.Task, tasks.Card]], *parts: Any) -> list[Any]:
        """All that determines a step on other tasks than the study's own: model, examples and `parts`."""
        return [*self.model_key(), digest_of([task for task, _ in read]), *parts]

    def model_key(self) -> list[str]:
        """What determines the model's numbers."""
        name = self.scale.backbone
        return [
            backbones.identity(name, lambda: self.backbone),
            backbones.resolve_dtype(name, self.device, self.scale.dtype),
        ]

    @functools.cache  # noqa: B019 - as above
    def _digest(self, seed: int) -> str:
        return digest_of(self.tasks(seed))

    def _score_msf(self, autoencoder: subspace.AutoEncoder, bank: Tensor, dim: int) -> list[dict[str, Any]]:
        """MSF (own prompt through the auto-encoder) and the mean code, in one evaluation."""
        first, count = self.tasks(self.seeds[0]), len(bank)
        with torch.no_grad():
            own = autoencoder.decode(autoencoder.encode(bank))
        source = FixedPrompt(torch.cat([own, subspace.mean_code(autoencoder, count).P]))
        scores = self.score(source, first * 2, f"test of MSF, d_I = {dim}")
        msf = results.rows(self, scores[:count], "MSF", self.seeds[:1], dim)
        return msf + results.rows(self, scores[count:], "mean code", self.seeds[:1], dim)

    def decoder(self, intrinsic_dim: int, decoder: str) -> subspace.AutoEncoder:
        """The auto-encoder that IST decodes with: "learned" (MSF) or "random" (see `codes`)."""
        check_decoder(decoder)
        if decoder == "learned":
            return self.subspace(intrinsic_dim)[0]
        seen = self._first_prompts()[: len(self.seen)]
        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim)
        return subspace.random_autoencoder(seen, config, self._generator()).to(self.backbone.device)

    def _first_prompts(self) -> Tensor:
        """[T, n, d] trained prompts of the first seed."""
        return self.bank().tensors["P"][0].to(self.backbone.device)

    def _by_seed(self, stacked: Tensor) -> Tensor:
        """[S*T, ...] of all runs -> [S, T, ...]."""
        return stacked.detach().unflatten(0, (len(self.seeds), len(self.ids)))

    def _words(self, runs: int) -> FixedPrompt:
        return FixedPrompt(prompts.from_words(self.backbone, self.scale.prompt_length).expand(runs, -1, -1))

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def digest_of(some: Sequence[tasks.Task]) -> str:
    """Names all that is read of tasks: every example, metrics and labels."""
    names = ("id", "category", "metric", "labels", "train", "train_new", "dev", "test")
    return store.digest([[getattr(task, name) for name in names] for task in some])


def check_decoder(decoder: str) -> None:
    """Raise ValueError unless `decoder` is one that IST can use."""
    if decoder not in ("learned", "random"):
        raise ValueError(f"decoder {decoder!r} is unknown; choose 'learned' or 'random'")
