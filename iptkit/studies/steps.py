"""The cached steps of a study: prompt tuning, MSF, IST and their controls.

    tasks -> prompts (prompt tuning, the bank) -> subspace(d_I) (MSF) -> codes(d_I) (IST)

The settings are those of Qin et al. 2021, section 4: MSF on seen and unseen tasks (a task's own prompt goes
through the auto-encoder, nothing is tuned), IST on seen tasks with new data, and IST on unseen tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iptkit.engine.prompt import Kind
from iptkit.methods import baselines, prompt_tuning, subspace
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt
from iptkit.methods.subspace import AutoEncoder, PromptDecoder
from iptkit.storage import step_cache
from iptkit.studies import score_rows
from iptkit.studies.base import StudyInputs
from iptkit.training.runs import Run
from iptkit.training.trainer import fit

Made = tuple[dict[str, Tensor], dict[str, Any]]  # tensors and JSON values that make a step


class StudySteps(StudyInputs):
    """The steps that build on each other; `study.Study` adds the other ones and makes the table."""

    def zero_shot(self) -> step_cache.Step:
        """Scores under the words alone, without training: values["rows"]."""
        if self.whole is not self:
            return score_rows.view_of_split(self, self.whole.zero_shot())

        def make(_: Path) -> Made:
            scores = self.score(self.words(len(self.ids)), self.tasks(self.seeds[0]), "zero-shot")
            return {}, {"rows": score_rows.of_study(self, scores, "zero-shot", self.seeds[:1])}

        return step_cache.step("zero-shot", self.key("words", seeds=self.seeds[:1]), make)

    def bank(self) -> step_cache.Step:
        """Prompt tuning of every task and seed, up to MOST_RUNS runs in one `fit`.

        Returns: a step with tensors["P"] [S, T, n, d], tensors["losses"] [steps, S * T], values["rows"] and
          values["best_step"].
        """
        return self.bank_of(self.groups())

    def bank_of(self, groups: Sequence[tuple[int, ...]]) -> step_cache.Step:
        """The part of the bank for some groups of seeds that train together (see `groups`)."""
        if self.whole is not self:
            return score_rows.view_of_split(self, self.whole.bank_of(groups))
        return step_cache.concatenate("prompts", [self.prompts_of_group(seeds) for seeds in groups])

    def prompts_of_group(self, seeds: tuple[int, ...]) -> step_cache.Step:
        """Prompt tuning of this study's own tasks with seeds that train together, as `bank`."""

        def make(checkpoint: Path) -> Made:
            all_tasks = [t for s in seeds for t in self.tasks(s)]
            runs = [Run(t, t.seed) for t in all_tasks]
            source = SoftPrompt(self.words(len(runs)).P, self.prompt_kind)
            label = f"prompt tuning, {len(runs)} runs"
            result = fit(self.engine, source, runs, self.scale.prompt, checkpoint, label)
            scores = self.score(source, all_tasks, "test of prompt tuning")
            rows = score_rows.of_study(self, scores, "prompt tuning", seeds)
            tensors = {"P": by_seed(source.P, len(seeds)), "losses": result.losses.float()}
            return tensors, {"rows": rows, "best_step": result.best_step.tolist()}

        name, key = self.group_name("prompts", seeds), self.key("prompt", self.scale.prompt, seeds=seeds)
        return step_cache.step(name, key, make)

    def mean_prompt(self) -> step_cache.Step:
        """Scores of the mean of the seen tasks' prompts, the same for every task: values["rows"]."""

        def make(_: Path) -> Made:
            bank = self.first_prompts()[: len(self.seen)]
            source = subspace.mean_prompt(bank, len(self.ids), self.prompt_kind)
            scores = self.score(source, self.tasks(self.seeds[0]), "test of the mean prompt")
            return {}, {"rows": score_rows.of_study(self, scores, "mean prompt", self.seeds[:1])}

        key = self.key("mean prompt", self.scale.prompt, seeds=self.groups()[0])
        return step_cache.step("mean-prompt", key, make)

    def subspace_step(self, intrinsic_dim: int) -> step_cache.Step:
        """The step of `subspace`: values["rows"] of MSF and of the mean code."""
        return self.subspace(intrinsic_dim)[1]

    def subspace(self, intrinsic_dim: int, **changes: Any) -> tuple[AutoEncoder, step_cache.Step]:
        """MSF on the prompts of the seen tasks, first seed.

        Args:
          intrinsic_dim: d_I.
          changes: fields of SubspaceConfig to replace (ablations).
        Returns: the auto-encoder, and its step with values["rows"] of MSF and of the mean code.
        """
        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim, **changes)
        bank = self.first_prompts()
        seen = bank[: len(self.seen)]
        only = "unseen" if self.scale.only_unseen else ""

        def make(checkpoint: Path) -> Made:
            runs = [Run(t, t.seed) for t in self.seen_tasks(self.seeds[0])]
            label = f"MSF, d_I = {intrinsic_dim}"
            how = (config, self.scale.msf, self._generator(), checkpoint, label, self.prompt_kind)
            autoencoder, result = subspace.find(self.engine, seen, runs, *how)
            rows = self._score_msf(autoencoder, bank, intrinsic_dim, only)
            curves = {"losses": result.losses.float(), "penalty": result.penalty}
            return autoencoder.state_dict() | curves, {"rows": rows}

        parts = ["msf", self.scale.prompt, self.scale.msf, config, *([only] if only else [])]
        key = self.key(*parts, seeds=self.groups()[0])
        step = step_cache.step(f"subspace-{intrinsic_dim}", key, make)
        autoencoder = AutoEncoder(seen, config, self._generator(), self.prompt_kind)
        autoencoder.to(self.backbone.device)
        autoencoder.load_state_dict({k: step.tensors[k] for k in autoencoder.state_dict()})
        return autoencoder, step

    def codes(self, intrinsic_dim: int, decoder: str = "learned") -> step_cache.Step:
        """IST with new data on all tasks and seeds: tensors["u"] [S, T, d_I], values["rows"].

        Args:
          intrinsic_dim: d_I.
          decoder: "learned" (MSF), "random" (of the same shape, untrained, centred and scaled by the bank),
            "pca" (principal components of the bank) or "fastfood" (random directions around the prompt of
            words).
        Raises: ValueError for another decoder.
        """
        check_decoder(decoder)
        name = f"codes-{decoder}-{intrinsic_dim}"
        parts = [self.codes_of_group(intrinsic_dim, decoder, seeds) for seeds in self.groups()]
        return step_cache.concatenate(name, parts)

    def codes_on_same_data(self, intrinsic_dim: int) -> step_cache.Step:
        """IST on seen tasks with the data of their prompts, first seed: as `codes`, with u [1, seen, d_I]."""
        return self.codes_of_group(intrinsic_dim, "learned", self.seeds[:1], "train")

    def codes_of_group(
        self, intrinsic_dim: int, decoder: str, seeds: tuple[int, ...], data: str = "train_new"
    ) -> step_cache.Step:
        """The part of `codes` for seeds that train together.

        Args:
          intrinsic_dim: d_I.
          decoder: as for `codes`.
          seeds: of the few-shot samples.
          data: the set to train on; with "train" only seen tasks are tuned.
        """
        is_new = data == "train_new"
        method = score_rows.DECODERS[decoder] + ("" if is_new else ", same data")
        only = "unseen" if self.only_on_unseen(decoder) else ""

        def make(checkpoint: Path) -> Made:
            on_new_data = self.unseen_tasks if only else self.fresh_tasks
            tasks_of = on_new_data if is_new else self.seen_tasks
            all_tasks = [t for s in seeds for t in tasks_of(s)]
            runs = [Run(t, t.seed, data) for t in all_tasks]
            label = f"{method}, d_I = {intrinsic_dim}, {len(runs)} runs"
            autoencoder = self.decoder(intrinsic_dim, decoder)
            source, result = subspace.tune(self.engine, autoencoder, runs, self.scale.ist, checkpoint, label)
            scores = self.score(source, all_tasks, f"test of {method}")
            rows = score_rows.of_study(self, scores, method, seeds, intrinsic_dim, only if is_new else "seen")
            return {"u": by_seed(source.u, len(seeds)), "losses": result.losses.float()}, {"rows": rows}

        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim)
        msf = self.scale.msf if decoder == "learned" else None
        parts = [
            "ist",
            decoder,
            self.scale.prompt,
            msf,
            self.scale.ist,
            config,
            *([] if is_new else [data]),
            *([only] if only else []),
        ]
        needed = tuple(dict.fromkeys((*self.groups()[0], *seeds)))  # those of the decoder, too
        name = self.group_name(f"codes-{decoder}-{intrinsic_dim}", seeds)
        name = name if is_new else f"codes-same-{intrinsic_dim}"
        return step_cache.step(name, self.key(*parts, seeds=needed), make)

    def decoders(self) -> list[tuple[int, str]]:
        """Each d_I and decoder that IST is run with."""
        controls = [(self.scale.main_dim, decoder) for decoder in self.scale.controls]
        return [*((dim, "learned") for dim in self.scale.dims), *controls]

    def only_on_unseen(self, decoder: str) -> bool:
        """Whether IST with this decoder is run on unseen tasks only."""
        return self.scale.only_unseen or (self.scale.unseen_controls and decoder != "learned")

    def _score_msf(self, autoencoder: AutoEncoder, bank: Tensor, dim: int, only: str) -> list[dict[str, Any]]:
        """Rows of MSF (each task's own prompt through the auto-encoder) and of the mean code."""
        first = self.unseen_tasks(self.seeds[0]) if only else self.tasks(self.seeds[0])
        bank, count = bank[-len(first) :], len(first)
        with torch.no_grad():
            own = autoencoder.decode(autoencoder.encode(bank))
        both = torch.cat([own, subspace.mean_code(autoencoder, count).P])
        source = FixedPrompt(both, self.prompt_kind)
        scores = self.score(source, first * 2, f"test of MSF, d_I = {dim}")
        msf = score_rows.of_study(self, scores[:count], "MSF", self.seeds[:1], dim, only)
        return msf + score_rows.of_study(self, scores[count:], "mean code", self.seeds[:1], dim, only)

    def decoder(self, intrinsic_dim: int, decoder: str) -> PromptDecoder:
        """The decoder that IST tunes codes for: see `codes`."""
        check_decoder(decoder)
        if decoder == "learned":
            return self.subspace(intrinsic_dim)[0]
        seen = self.first_prompts()[: len(self.seen)]
        if decoder == "pca":
            plane = baselines.PrincipalComponents(seen, intrinsic_dim, self.prompt_kind)
            return plane.to(self.backbone.device)
        if decoder == "fastfood":
            start = self.words(1).P[0]
            std = float((start if self.scale.deep else self.backbone.embedding).float().std())
            around = baselines.FastfoodPrompt(start, std, intrinsic_dim, self._generator(), self.prompt_kind)
            return around.to(self.backbone.device)
        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim)
        random = subspace.random_autoencoder(seen, config, self._generator(), self.prompt_kind)
        return random.to(self.backbone.device)

    @property
    def coded(self) -> tuple[str, ...]:
        """Ids of the tasks that have codes: all, or only the unseen ones (see Scale.only_unseen)."""
        return self.unseen if self.scale.only_unseen else self.ids

    def first_codes(self, intrinsic_dim: int) -> Tensor:
        """[T, d_I] codes that IST found with the first seed."""
        return self.codes_of_group(intrinsic_dim, "learned", self.groups()[0]).tensors["u"][0]

    def first_prompts(self) -> Tensor:
        """[T, n, d] trained prompts of the first seed, on the study's device."""
        return self.bank_of(self.groups()[:1]).tensors["P"][0].to(self.backbone.device)

    def group_name(self, name: str, seeds: tuple[int, ...]) -> str:
        """The name of a step made for a group of seeds: it says which, unless they are all of the study."""
        is_alone = self.seeds_together() == 1  # then studies with more or fewer seeds share the step
        return f"{name}-seed{seeds[0]}" if is_alone or seeds != self.seeds else name

    def words(self, runs: int) -> FixedPrompt:
        """The prompt of words that prompt tuning starts from, once for each run."""
        make = prompt_tuning.deep_from_words if self.scale.deep else prompt_tuning.from_words
        one = make(self.backbone, self.scale.prompt_length)
        return FixedPrompt(one.expand(runs, *one.shape), self.prompt_kind)

    @property
    def prompt_kind(self) -> Kind:
        """The kind of the study's prompts: deep ones, or vectors at the input."""
        return "keys_values" if self.scale.deep else "embeds"


def by_seed(stacked: Tensor, seeds: int) -> Tensor:
    """Values of all runs [S * T, ...] by seed and task [S, T, ...]."""
    return stacked.detach().unflatten(0, (seeds, -1))


def check_decoder(decoder: str) -> None:
    """Raise ValueError unless IST can use `decoder`."""
    if decoder not in score_rows.DECODERS:
        raise ValueError(f"decoder {decoder!r} is unknown; choose one of {', '.join(score_rows.DECODERS)}")
