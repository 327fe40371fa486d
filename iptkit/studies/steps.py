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
from iptkit.methods.subspace import AutoEncoder, PromptDecoder, SubspaceConfig
from iptkit.storage import step_cache
from iptkit.studies import score_rows
from iptkit.studies.base import StudyInputs
from iptkit.training.runs import FitConfig, Run
from iptkit.training.trainer import fit

Made = tuple[dict[str, Tensor], dict[str, Any]]  # tensors and JSON values that make a step


class StudySteps(StudyInputs):
    """The steps that build on each other; `study.Study` adds the other ones and makes the table."""

    def zero_shot(self) -> step_cache.Step:
        """Scores under the words alone, without training: values["rows"]."""
        if self.whole is not self:
            return score_rows.view_of_split(self, self.whole.zero_shot())

        def make(_: Path) -> Made:
            found = self.outcomes(self.words(len(self.ids)), self.tasks(self.seeds[0]), "zero-shot")
            return {}, {"rows": score_rows.of_study(self, found, "zero-shot", self.seeds[:1])}

        return step_cache.step("zero-shot", self.key("words", seeds=self.seeds[:1]), make)

    def bank(self) -> step_cache.Step:
        """Prompt tuning of every task and seed, up to MOST_RUNS runs in one `fit`.

        Returns: a step with tensors["P"] [S, T, *prompt] (n, d, or the shape of keys and values),
          tensors["losses"] [steps, S * T], values["rows"] and values["best_step"].
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
            found, more = (
                self.outcomes(source, all_tasks, "test of prompt tuning"),
                score_rows.trained(result),
            )
            rows = score_rows.of_study(self, found, "prompt tuning", seeds, more=more)
            tensors = {"P": by_seed(source.P, len(seeds)), "losses": result.losses.float()}
            return tensors, {"rows": rows, "best_step": result.best_step.tolist()}

        name, key = self.group_name("prompts", seeds), self.key("prompt", self.scale.prompt, seeds=seeds)
        return step_cache.step(name, key, make)

    def mean_prompt(self) -> step_cache.Step:
        """Scores of the mean of the seen tasks' prompts, the same for every task: values["rows"]."""

        def make(_: Path) -> Made:
            bank = self.first_prompts()[: len(self.seen)]
            source = subspace.mean_prompt(bank, len(self.judged), self.prompt_kind)
            found = self.outcomes(source, self.judged_tasks(self.seeds[0]), "test of the mean prompt")
            return {}, {"rows": score_rows.of_study(self, found, "mean prompt", self.seeds[:1])}

        key = self.key("mean prompt", self.scale.prompt, seeds=self.groups()[0])
        return step_cache.step(self.named("mean-prompt"), key, make)

    def subspace(self, intrinsic_dim: int, **changes: Any) -> tuple[AutoEncoder, step_cache.Step]:
        """MSF on the prompts of the seen tasks, first seed, with its scores.

        Args:
          intrinsic_dim: d_I.
          changes: fields of SubspaceConfig to replace (ablations).
        Returns: the auto-encoder, and its step with values["rows"] of MSF and of the mean code.
        """
        autoencoder, step = self.found(intrinsic_dim, **changes)
        return autoencoder, replace(step, values=self.msf(intrinsic_dim, **changes).values)

    def found(self, intrinsic_dim: int, **changes: Any) -> tuple[AutoEncoder, step_cache.Step]:
        """The auto-encoder of `subspace` and the step of its training, without scores."""
        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim, **changes)
        seen = self.first_prompts()[: len(self.seen)]

        def make(checkpoint: Path) -> Made:
            runs = [Run(t, t.seed) for t in self.seen_tasks(self.seeds[0])]
            label = f"MSF, d_I = {intrinsic_dim}"
            how = (config, self._msf(config), self.generator(), checkpoint, label, self.prompt_kind)
            autoencoder, result = subspace.find(self.engine, seen, runs, *how)
            curves = {"losses": result.losses.float(), "penalty": result.penalty}
            curves["dev"] = -result.dev[..., 1].float()
            return autoencoder.state_dict() | curves, {"trained": score_rows.trained(result)[0]}

        step = step_cache.step(self.named(f"subspace-{intrinsic_dim}"), self._msf_key(config), make)
        autoencoder = AutoEncoder(seen, config, self.generator(), self.prompt_kind)
        autoencoder.to(self.backbone.device)
        autoencoder.load_state_dict({k: step.tensors[k] for k in autoencoder.state_dict()})
        return autoencoder, step

    def subspace_step(self, intrinsic_dim: int) -> step_cache.Step:
        """The step of `found`."""
        return self.found(intrinsic_dim)[1]

    def msf(self, intrinsic_dim: int, **changes: Any) -> step_cache.Step:
        """Scores of MSF (each judged task's own prompt through the auto-encoder) and of the mean code.

        Returns: a step with values["rows"]; those of MSF have a "reconstruction", the error of the task's
          prompt (see `subspace.reconstruction_of`).
        """
        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim, **changes)
        only = "unseen" if self.scale.only_unseen else ""

        def make(_: Path) -> Made:
            autoencoder, step = self.found(intrinsic_dim, **changes)
            tasks = self.judged_tasks(self.seeds[0], only)
            mine = self.first_prompts()[[self.ids.index(task.id) for task in tasks]]
            with torch.no_grad():
                own = autoencoder.decode(autoencoder.encode(mine))
                errors = subspace.reconstruction_of(autoencoder, mine).tolist()
            both = FixedPrompt(
                torch.cat([own, subspace.mean_code(autoencoder, len(tasks)).P]), self.prompt_kind
            )
            outcomes = self.outcomes(both, tasks * 2, f"test of MSF, d_I = {intrinsic_dim}")
            more = [{"reconstruction": round(error, 6), **step.values["trained"]} for error in errors]
            how = (self.seeds[:1], intrinsic_dim, only)
            rows = score_rows.of_study(self, outcomes[: len(tasks)], "MSF", *how, more=more)
            rows += score_rows.of_study(self, outcomes[len(tasks) :], "mean code", *how)
            return {}, {"rows": rows}

        key = [*self._msf_key(config), "scores", *([only] if only else [])]
        return step_cache.step(self.named(f"msf-{intrinsic_dim}"), key, make)

    def _msf_key(self, config: SubspaceConfig) -> list[Any]:
        return self.key("msf", self.scale.prompt, self._msf(config), config, seeds=self.groups()[0])

    def _msf(self, config: SubspaceConfig) -> FitConfig:
        """How to train an auto-encoder; without the task loss a step costs almost nothing."""
        alone = None if config.task_weight else self.scale.reconstruction
        return alone or self.scale.msf

    def codes(self, intrinsic_dim: int, decoder: str = "learned") -> step_cache.Step:
        """IST with new data on all tasks and seeds: tensors["u"] [S, T, d_I], values["rows"].

        Args:
          intrinsic_dim: d_I.
          decoder: one of score_rows.DECODERS: "learned" (MSF); "random_around", "fastfood_around" and
            "pca_around", other directions from the mean code (see `methods.baselines`); "random" (of the
            same shape, untrained, centred and scaled by the bank); "reconstruction" (MSF without the task
            loss); "pca" (principal components around the mean prompt); "fastfood" (random directions around
            the prompt of words).
        Raises: ValueError for another decoder.
        """
        check_decoder(decoder)
        name = f"codes-{decoder}-{intrinsic_dim}"
        groups = [self.seeds_run(decoder, seeds) for seeds in self.groups()]
        parts = [self.codes_of_group(intrinsic_dim, decoder, seeds) for seeds in groups if seeds]
        return step_cache.concatenate(name, parts)

    def codes_on_same_data(self, intrinsic_dim: int) -> step_cache.Step:
        """IST on judged seen tasks with the data of their prompts, first seed: as `codes`."""
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
        check_decoder(decoder)
        is_new = data == "train_new"
        method = score_rows.DECODERS[decoder] + ("" if is_new else ", same data")
        only = "unseen" if self.only_on_unseen(decoder) else ""

        def make(checkpoint: Path) -> Made:
            on_new_data = self.unseen_tasks if only else self.fresh_tasks
            all_tasks = [
                t for s in seeds for t in (on_new_data(s) if is_new else self.judged_tasks(s, "seen"))
            ]
            runs = [Run(t, t.seed, data) for t in all_tasks]
            label = f"{method}, d_I = {intrinsic_dim}, {len(runs)} runs"
            used = self.decoder(intrinsic_dim, decoder)
            source, result = subspace.tune(self.engine, used, runs, config, checkpoint, label)
            found, more = self.outcomes(source, all_tasks, f"test of {method}"), score_rows.trained(result)
            side = only if is_new else "seen"
            rows = score_rows.of_study(self, found, method, seeds, intrinsic_dim, side, more)
            return {"u": by_seed(source.u, len(seeds)), "losses": result.losses.float()}, {"rows": rows}

        config = replace(self.scale.ist, lr=self.scale.control_lr.get(decoder, self.scale.ist.lr))
        is_found = decoder in ("learned", "reconstruction", *score_rows.AROUND)
        parts = [
            "ist",
            decoder,
            self.scale.prompt,
            self._msf(replace(self.scale.subspace, task_weight=0.0)) if decoder == "reconstruction" else None,
            self.scale.msf if is_found else None,
            config,
            replace(self.scale.subspace, intrinsic_dim=intrinsic_dim),
            *([] if is_new else [data]),
            *([only] if only else []),
        ]
        needed = tuple(dict.fromkeys((*self.groups()[0], *seeds)))  # those of the decoder, too
        name = self.group_name(f"codes-{decoder}-{intrinsic_dim}", seeds)
        name = name if is_new else self.named(f"codes-same-{intrinsic_dim}")
        return step_cache.step(name, self.key(*parts, seeds=needed), make)

    def decoders(self) -> list[tuple[int, str]]:
        """Each d_I and decoder that IST is run with."""
        controls = [(self.scale.main_dim, decoder) for decoder in self.scale.controls]
        return [*((dim, "learned") for dim in self.scale.dims), *controls]

    def seeds_run(self, decoder: str, seeds: tuple[int, ...]) -> tuple[int, ...]:
        """Those of some seeds that IST with this decoder is run on."""
        return tuple(s for s in seeds if s == self.seeds[0] or decoder not in self.scale.controls_once)

    def only_on_unseen(self, decoder: str) -> bool:
        """Whether IST with this decoder is run on unseen tasks only."""
        return self.scale.only_unseen or (self.scale.unseen_controls and decoder != "learned")

    def decoder(self, intrinsic_dim: int, decoder: str) -> PromptDecoder:
        """The decoder that IST tunes codes for: see `codes`."""
        check_decoder(decoder)
        if decoder in ("learned", "reconstruction"):
            weights = {"task_weight": 0.0} if decoder == "reconstruction" else {}
            return self.found(intrinsic_dim, **weights)[0]
        seen = self.first_prompts()[: len(self.seen)]
        if decoder in score_rows.AROUND:
            learned, draws = self.found(intrinsic_dim)[0], self.generator()
            if decoder == "pca_around":
                return baselines.components_around(learned, seen)
            if decoder == "random_around":
                return baselines.random_around(learned, draws)
            return baselines.fastfood_around(learned, draws)
        if decoder == "pca":
            plane = baselines.PrincipalComponents(seen, intrinsic_dim, self.prompt_kind)
            return plane.to(self.backbone.device)
        if decoder == "fastfood":
            start = self.words(1).P[0]
            std = float((start if self.scale.deep else self.backbone.embedding).float().std())
            around = baselines.FastfoodPrompt(start, std, intrinsic_dim, self.generator(), self.prompt_kind)
            return around.to(self.backbone.device)
        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim)
        random = subspace.random_autoencoder(seen, config, self.generator(), self.prompt_kind)
        return random.to(self.backbone.device)

    @property
    def coded(self) -> tuple[str, ...]:
        """Ids of the tasks that have codes: those judged, or only the unseen ones (see Scale.only_unseen)."""
        return self.unseen if self.scale.only_unseen else self.judged

    def first_codes(self, intrinsic_dim: int) -> Tensor:
        """[T, d_I] codes that IST found with the first seed."""
        return self.codes_of_group(intrinsic_dim, "learned", self.groups()[0]).tensors["u"][0]

    def first_prompts(self) -> Tensor:
        """[T, *prompt] trained prompts of the first seed, on the study's device."""
        return self.bank_of(self.groups()[:1]).tensors["P"][0].to(self.backbone.device)

    def group_name(self, name: str, seeds: tuple[int, ...]) -> str:
        """The name of a step made for a group of seeds: it says which, unless they are all of the study."""
        is_alone = self.seeds_together() == 1  # then studies with more or fewer seeds share the step
        return self.named(f"{name}-seed{seeds[0]}" if is_alone or seeds != self.seeds else name)

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
