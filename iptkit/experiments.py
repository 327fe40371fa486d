"""The study as a list of cached steps: prompts of all tasks, one subspace per d_I, codes in it, controls,
and one table of results.

    tasks -> prompts (prompt tuning, the bank) -> subspace(d_I) (MSF) -> codes(d_I) (IST) -> table() (one
    row per measured score)

Settings as in Qin et al. 2021, section 4: MSF seen / unseen (a task's own prompt through the auto-encoder,
nothing tuned), IST on seen tasks
with the same data / with new data, IST on unseen tasks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iptkit import backbones, evaluate, prompts, references, stamp, store, subspace, tasks
from iptkit.engine import Engine
from iptkit.prompts import FixedPrompt, SoftPrompt
from iptkit.scales import Scale
from iptkit.train import Run, fit

MIN_NEW_EXAMPLES = 4


class Study:
    """All measurements of one scale; each expensive part is a step in the step cache.

    Args:
      scale: from scales.load.  device: "cpu", "cuda" or "auto".  seed: first seed; the scale's seeds are
        counted from it.
    """

    def __init__(self, scale: Scale, device: str = "cpu", seed: int = 0):
        self.scale, self.device, self.seed = scale, device, seed
        split = tasks.split("random", scale.suite)
        self.seen = scale.seen or split.seen
        self.unseen = scale.unseen or split.unseen
        self.ids = (*self.seen, *self.unseen)
        self.seeds = tuple(seed + s for s in scale.seeds)

    @functools.cached_property
    def backbone(self) -> backbones.Backbone:
        """The frozen model."""
        return backbones.load(self.scale.backbone, self.device, self.scale.dtype)

    @functools.cached_property
    def engine(self) -> Engine:
        """The engine that scores rows in it."""
        return Engine(self.backbone, context_bytes=3 << 30)

    @functools.cache  # noqa: B019 - a study lives as long as its notebook
    def tasks(self, seed: int) -> list[tasks.Task]:
        """Seen then unseen tasks with the few-shot sets of `seed`."""
        found = {
            t.id: t
            for t in tasks.load_suite(
                self.scale.suite, seed=seed, only=self.ids, max_test=self.scale.test_examples
            )
        }
        return [found[i] for i in self.ids]

    def fresh_tasks(self, seed: int) -> list[tasks.Task]:
        """Tasks for IST: `train_new` and `dev` of `seed` without any input that the bank's prompts (first
        seed) were trained on."""
        return [
            _without(t, known) for t, known in zip(self.tasks(seed), self.tasks(self.seeds[0]), strict=True)
        ]

    # ---- steps -----------------------------------------------------------------------------------
    def zero_shot(self) -> store.Step:
        """Scores of the words alone, no training: values["rows"]."""

        def make(_: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            scores = self._score(self._words(len(self.ids)), self.tasks(self.seeds[0]), "zero-shot")
            return {}, {"rows": self._rows(scores, "zero-shot", self.seeds[0])}

        return store.step("zero-shot", self._key("words"), make)

    def bank(self) -> store.Step:
        """Prompt tuning of every task and seed in one `fit`: tensors["P"] [S, T, n, d], values["rows"],
        values["losses"]."""

        def make(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            all_tasks = [t for s in self.seeds for t in self.tasks(s)]
            runs = [Run(t, t.seed) for t in all_tasks]
            source = SoftPrompt(self._words(len(runs)).P)
            result = fit(
                self.engine, source, runs, self.scale.prompt, checkpoint, f"prompt tuning, {len(runs)} runs"
            )
            scores = self._score(source, all_tasks, "test of prompt tuning")
            rows = [
                r
                for i, s in enumerate(self.seeds)
                for r in self._rows(scores[i * len(self.ids) : (i + 1) * len(self.ids)], "prompt tuning", s)
            ]
            shaped = source.P.detach().unflatten(0, (len(self.seeds), len(self.ids)))
            return {"P": shaped, "losses": result.losses.float()}, {
                "rows": rows,
                "best_step": result.best_step.tolist(),
            }

        return store.step("prompts", self._key("prompt", self.scale.prompt, self.seeds), make)

    def subspace(self, intrinsic_dim: int, **changes: Any) -> tuple[subspace.AutoEncoder, store.Step]:
        """MSF on the seen tasks' prompts of the first seed; `changes` replace fields of SubspaceConfig
        (ablations)."""
        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim, **changes)
        bank = self.bank().tensors["P"][0].to(self.backbone.device)

        def make(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            runs = [Run(t, self.seeds[0]) for t in self.tasks(self.seeds[0])[: len(self.seen)]]
            autoencoder, result = subspace.find(
                self.engine,
                bank[: len(runs)],
                runs,
                config,
                self.scale.msf,
                self._generator(),
                checkpoint,
                f"MSF, d_I = {intrinsic_dim}",
            )
            rows = self._score_msf(autoencoder, bank, intrinsic_dim)
            return dict(autoencoder.state_dict()) | {
                "losses": result.losses.float(),
                "penalty": result.penalty,
            }, {"rows": rows}

        step = store.step(
            f"subspace-{intrinsic_dim}",
            self._key("msf", self.scale.prompt, self.scale.msf, config, self.seeds),
            make,
        )
        autoencoder = subspace.AutoEncoder(bank[: len(self.seen)], config, self._generator()).to(
            self.backbone.device
        )
        autoencoder.load_state_dict({k: v for k, v in step.tensors.items() if k not in ("losses", "penalty")})
        return autoencoder, step

    def codes(self, intrinsic_dim: int, decoder: str = "learned") -> store.Step:
        """IST with new data on all tasks and seeds: tensors["u"] [S, T, d_I], values["rows"].

        decoder: "learned" (MSF) or "random" (same shape, untrained, centred and scaled by the bank).
        """
        if decoder not in ("learned", "random"):
            raise ValueError(f"decoder {decoder!r} is unknown; choose 'learned' or 'random'")
        method = "IST" if decoder == "learned" else "random decoder"

        def make(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            all_tasks = [t for s in self.seeds for t in self.fresh_tasks(s)]
            runs = [Run(t, t.seed, "train_new") for t in all_tasks]
            source, result = subspace.tune(
                self.engine,
                self._decoder(intrinsic_dim, decoder),
                runs,
                self.scale.ist,
                checkpoint,
                f"{method}, d_I = {intrinsic_dim}, {len(runs)} runs",
            )
            scores = self._score(source, all_tasks, f"test of {method}")
            rows = [
                r
                for i, s in enumerate(self.seeds)
                for r in self._rows(
                    scores[i * len(self.ids) : (i + 1) * len(self.ids)], method, s, intrinsic_dim
                )
            ]
            return {
                "u": source.u.detach().unflatten(0, (len(self.seeds), len(self.ids))),
                "losses": result.losses.float(),
            }, {"rows": rows}

        key = self._key(
            "ist",
            decoder,
            self.scale.prompt,
            self.scale.msf if decoder == "learned" else None,
            self.scale.ist,
            replace(self.scale.subspace, intrinsic_dim=intrinsic_dim),
            self.seeds,
        )
        return store.step(f"codes-{decoder}-{intrinsic_dim}", key, make)

    def start_and_rate(self) -> store.Step:
        """Prompt tuning from words and from N(0, 0.02^2) at a fifth, one and five times the scale's lr:
        values["rows"] with start and lr."""
        base = self.scale.prompt.lr
        cells = [
            (start, lr, s, i)
            for start in ("words", "N(0, 0.02²)")
            for lr in (base / 5, base, base * 5)
            for s in self.seeds
            for i in self.scale.grid
        ]

        def make(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            runs = [Run(self._task(i, s), s, lr=lr) for _, lr, s, i in cells]
            words, n = prompts.from_words(self.backbone, self.scale.prompt_length), self.scale.prompt_length
            inits = [
                words
                if start == "words"
                else prompts.from_normal(self.backbone, n, 0.02, torch.Generator().manual_seed(s))
                for start, _, s, _ in cells
            ]
            source = SoftPrompt(torch.stack(inits))
            fit(
                self.engine,
                source,
                runs,
                self.scale.prompt,
                checkpoint,
                f"starts and rates, {len(runs)} runs",
            )
            scores = self._score(source, [run.task for run in runs], "test of starts and rates")
            return {}, {
                "rows": [
                    {"start": start, "lr": lr, "seed": s, "task": i, "score": score}
                    for (start, lr, s, i), score in zip(cells, scores, strict=True)
                ]
            }

        return store.step("start-and-rate", self._key("grid", cells, self.scale.prompt), make)

    def beside_prompt_tuning(self) -> store.Step:
        """Prompt tuning, LoRA and full fine-tuning on one task and all seeds, as many examples seen:
        values["table"]."""
        scale, config = self.scale, self.scale.prompt
        rates = {"LoRA": scale.lora_lr, "fine-tuning": scale.fine_tuning_lr}

        def make(_: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
            bank = self.bank()
            mine = [r["score"] for r in bank.values["rows"] if r["task"] == scale.beside]
            table = [
                {
                    "method": "prompt tuning",
                    "numbers": scale.prompt_length * self.backbone.width,
                    "scores": mine,
                    "seconds": bank.seconds / len(bank.values["rows"]),
                }
            ]
            for method, lr in rates.items():
                runs = [
                    references.fine_tune(
                        self.backbone,
                        self._task(scale.beside, s),
                        method,
                        config.steps,
                        config.rows_per_run,
                        lr,
                        s,
                        scale.test_examples,
                    )
                    for s in self.seeds
                ]
                table.append(
                    {
                        "method": method,
                        "numbers": runs[0].numbers,
                        "scores": [r.score for r in runs],
                        "seconds": sum(r.seconds for r in runs) / len(runs),
                    }
                )
            return {}, {"table": table}

        return store.step("beside", self._key("beside", scale.beside, config, rates, self.seeds), make)

    def table(self) -> list[dict[str, Any]]:
        """Every measured score of this scale, one row each (see `_rows` for the fields); makes what is
        missing."""
        rows = self.zero_shot().values["rows"] + self.bank().values["rows"]
        for dim in self.scale.dims:
            rows += self.subspace(dim)[1].values["rows"] + self.codes(dim).values["rows"]
        return rows + self.codes(self.scale.main_dim, "random").values["rows"]

    def _task(self, task_id: str, seed: int) -> tasks.Task:
        return next(t for t in self.tasks(seed) if t.id == task_id)

    # ---- helpers ---------------------------------------------------------------------------------
    def _decoder(self, intrinsic_dim: int, decoder: str) -> subspace.AutoEncoder:
        if decoder == "learned":
            return self.subspace(intrinsic_dim)[0]
        bank = self.bank().tensors["P"][0, : len(self.seen)].to(self.backbone.device)
        config = replace(self.scale.subspace, intrinsic_dim=intrinsic_dim)
        return subspace.random_autoencoder(bank, config, self._generator()).to(self.backbone.device)

    def _score_msf(self, autoencoder: subspace.AutoEncoder, bank: Tensor, dim: int) -> list[dict[str, Any]]:
        """MSF (own prompt through the auto-encoder), the mean code and the mean prompt: one evaluation of
        all three."""
        with torch.no_grad():
            own = autoencoder.decode(autoencoder.encode(bank))
            code, mean = (
                subspace.mean_code(autoencoder, len(bank)).P,
                subspace.mean_prompt(bank[: len(self.seen)], len(bank)).P,
            )
        first = self.tasks(self.seeds[0])
        scores = self._score(
            FixedPrompt(torch.cat([own, code, mean])), first * 3, f"test of MSF, d_I = {dim}"
        )
        size = len(first)
        named = zip(("MSF", "mean code", "mean prompt"), (dim, dim, 0), strict=True)
        return [
            row
            for i, (method, d) in enumerate(named)
            for row in self._rows(scores[i * size : (i + 1) * size], method, self.seeds[0], d)
        ]

    def _words(self, runs: int) -> FixedPrompt:
        return FixedPrompt(prompts.from_words(self.backbone, self.scale.prompt_length).expand(runs, -1, -1))

    def _score(self, source: nn.Module, on: Sequence[tasks.Task], label: str) -> list[float]:
        return evaluate.evaluate(self.engine, source, on, limit=self.scale.test_examples, label=label)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _key(self, *parts: Any) -> list[Any]:
        scale = self.scale
        cards = {c.id: asdict(c) for c in tasks.list_cards(scale.suite)}
        dtype = backbones.resolve_dtype(scale.backbone, self.device, scale.dtype)
        return [
            scale.backbone,
            dtype,
            scale.suite,
            [cards[i] for i in self.ids],
            len(self.seen),
            scale.prompt_length,
            scale.test_examples,
            self.seed,
            *parts,
        ]

    def _rows(
        self, scores: Sequence[float], method: str, seed: int, intrinsic_dim: int = 0
    ) -> list[dict[str, Any]]:
        rows = []
        for position, (task, score) in enumerate(zip(self.tasks(seed), scores, strict=True)):
            is_seen = position < len(self.seen)
            rows.append(
                {
                    "task": task.id,
                    "category": task.category,
                    "split": "seen" if is_seen else "unseen",
                    "setting": _setting(method, is_seen),
                    "method": method,
                    "d_I": intrinsic_dim,
                    "seed": seed,
                    "metric": task.metric,
                    "score": score,
                    "chance": task.chance,
                    "n_test": min(len(task.test), self.scale.test_examples),
                    "backbone": self.scale.backbone,
                    "scale": self.scale.name,
                    "dtype": self.backbone.dtype,
                    "device": str(self.backbone.device),
                }
            )
        return rows


def summary(
    rows: Sequence[dict[str, Any]],
    methods: Sequence[tuple[str, int]],
    splits: Sequence[str] = ("seen", "unseen"),
) -> list[dict[str, Any]]:
    """One line per (method, d_I, split): mean score, E_rel (per task, floor 0 and floor chance) and ratio
    of means, each with its interval."""
    out = []
    for method, dim in methods:
        for side in splits:
            mine = evaluate.by_task(
                [r for r in rows if (r["method"], r["d_I"], r["split"]) == (method, dim, side)]
            )
            full = evaluate.by_task([r for r in rows if (r["method"], r["split"]) == ("prompt tuning", side)])
            chance = {r["task"]: r["chance"] for r in rows}
            if not mine:
                continue
            reference = {t: sum(v) / len(v) for t, v in full.items()}
            line: dict[str, Any] = {
                "method": method,
                "d_I": dim,
                "split": side,
                "tasks": len(mine),
                "score": evaluate.interval(list(mine.values())),
            }
            line["ratio of means"] = line["score"][0] / (sum(reference[t] for t in mine) / len(mine))
            for name, floor in (("E_rel", dict.fromkeys(mine, 0.0)), ("E_rel above chance", chance)):
                ratios = [[evaluate.relative(s, reference[t], floor[t]) for s in v] for t, v in mine.items()]
                kept = [r for r in ratios if None not in r]
                line[name] = evaluate.interval(kept) if kept else None
                line[f"{name} tasks"] = len(kept)
            out.append(line)
    return out


def difference(
    rows: Sequence[dict[str, Any]], first: tuple[str, int], second: tuple[str, int], split: str | None = None
) -> tuple[float, float, float]:
    """Mean over tasks of score(first) - score(second), paired by task (and by seed where both have it),
    with its interval."""

    def scores(which: tuple[str, int]) -> dict[str, dict[int, float]]:
        out: dict[str, dict[int, float]] = {}
        for r in rows:
            if (r["method"], r["d_I"]) == which and split in (None, r["split"]):
                out.setdefault(r["task"], {})[r["seed"]] = r["score"]
        return out

    a, b = scores(first), scores(second)
    pairs = []
    for task in a:
        fallback = sum(b[task].values()) / len(b[task])
        pairs.append([value - b[task].get(seed, fallback) for seed, value in a[task].items()])
    return evaluate.interval(pairs)


def _without(task: tasks.Task, known: tasks.Task) -> tasks.Task:
    if task.seed == known.seed:
        return task
    used = {e.input for e in known.train}
    kept = {
        name: tuple(e for e in getattr(task, name) if e.input not in used) for name in ("train_new", "dev")
    }
    for name, examples in kept.items():
        if len(examples) < MIN_NEW_EXAMPLES:
            raise ValueError(
                f"task {task.id}, seed {task.seed}: only {len(examples)} examples of {name} are new "
                f"to the bank, {MIN_NEW_EXAMPLES} are "
                "needed; give the task more examples or use fewer seeds"
            )
    return replace(task, **kept)


def _setting(method: str, is_seen: bool) -> str:
    if method in ("IST", "random decoder"):
        return f"{method}, {'seen tasks, new data' if is_seen else 'unseen tasks'}"
    return f"{method}, {'seen' if is_seen else 'unseen'} tasks"


def provenance(study: Study) -> dict[str, Any]:
    """Versions, device and settings of a study, to be stored beside its results."""
    return {
        "scale": asdict(study.scale),
        "dtype": study.backbone.dtype,
        "device": str(study.backbone.device),
        "seed": study.seed,
        **dict(stamp.rows()),
    }
