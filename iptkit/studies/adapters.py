"""The adapter variant of Intrinsic Prompt Tuning as steps of a `Study`: see adapters.py.

    seen tasks -> subspace(d_I): hyper-matrices and the z that all seen tasks share
    unseen tasks -> codes(d_I): z alone trains, through them or through random hyper-matrices

Random ones are used twice: as they were drawn, with no good start, and around the shared adapters, so that
only the directions are random (as in IST's random decoder, which starts from the mean of the seen prompts).
Text and words stand in the row as beside fine-tuning; every token passes the adapters, so rows run whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iptkit.engine import layouts
from iptkit.engine.adapter_hooks import find_places
from iptkit.engine.engine import Engine
from iptkit.methods import prompt_tuning
from iptkit.methods.adapters import HyperAdapters, RandomAround
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.methods.subspace import IntrinsicPrompt
from iptkit.scores import evaluation
from iptkit.storage import step_cache
from iptkit.studies.scales import AdapterConfig
from iptkit.studies.score_rows import rows
from iptkit.studies.steps import StudySteps
from iptkit.training import trainer
from iptkit.training.runs import Run

SHARED = "shared adapters"  # the z of the seen tasks, nothing tuned
METHODS = {  # what IST decodes with -> its method
    "learned": "IST, adapters",
    "around": "random around shared",
    "random": "random adapters",
}


def subspace(study: StudySteps, intrinsic_dim: int) -> tuple[HyperAdapters, step_cache.Step]:
    """Hyper-matrices and one z, trained on the data of the seen tasks' prompts, first seed.

    Returns: them, and their step with values["rows"] of SHARED on unseen tasks.
    """
    chosen, first = config_of(study), study.seeds[0]

    def make(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        engine, source = engine_of(study), drawn(study, intrinsic_dim)
        runs = [Run(task, task.seed) for task in study.seen_tasks(first)]
        label = f"MSF of adapters, d_I = {intrinsic_dim}"
        result = trainer.fit(engine, source, runs, chosen.msf, checkpoint, label)
        with torch.no_grad():
            one = source.decode(source.z)
        every = FixedPrompt(one.expand(len(study.unseen), *one.shape[1:]), source.kind)
        rows = _scored(study, engine, every, SHARED, intrinsic_dim)
        curves = {"losses": result.losses.float(), "dev": -result.dev[:, :, 1].float()}
        return {**source.state_dict(), **curves}, {"rows": rows, "best_step": int(result.best_step[0])}

    key = study.key("adapters", chosen.rank, chosen.up, chosen.msf, intrinsic_dim, seeds=(first,))
    step = step_cache.step(f"adapters-{intrinsic_dim}", key, make)
    source = drawn(study, intrinsic_dim)
    source.load_state_dict({name: step.tensors[name] for name in source.state_dict()})
    return source, step


def codes(study: StudySteps, intrinsic_dim: int, decoder: str = "learned") -> step_cache.Step:
    """IST of unseen tasks in a subspace of adapters, with the data of IST, first seed.

    Args:
      decoder: "learned" (`subspace`), "around" (random directions around the shared adapters) or "random"
        (hyper-matrices as they were drawn).
    Returns: a step with tensors["u"] [T, d_I] and values["rows"].
    Raises: ValueError for another decoder.
    """
    if decoder not in METHODS:
        raise ValueError(f"decoder {decoder!r} is unknown; choose one of {', '.join(METHODS)}")
    chosen, first, method = config_of(study), study.seeds[0], METHODS[decoder]

    def make(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        unseen = study.unseen_tasks(first)
        hyper = decoder_of(study, intrinsic_dim, decoder)
        engine, source = engine_of(study), IntrinsicPrompt(hyper, len(unseen)).to(study.backbone.device)
        runs = [Run(task, task.seed, "train_new") for task in unseen]
        label = f"{method}, d_I = {intrinsic_dim}, {len(runs)} runs"
        result = trainer.fit(engine, source, runs, chosen.ist, checkpoint, label)
        rows = _scored(study, engine, source, method, intrinsic_dim)
        return {"u": source.u.detach(), "losses": result.losses.float()}, {"rows": rows}

    msf = None if decoder == "random" else chosen.msf
    key = study.key(
        "adapter codes", decoder, chosen.rank, chosen.up, msf, chosen.ist, intrinsic_dim, seeds=(first,)
    )
    return step_cache.step(f"adapter-codes-{decoder}-{intrinsic_dim}", key, make)


def decoder_of(study: StudySteps, intrinsic_dim: int, decoder: str) -> HyperAdapters | RandomAround:
    """What IST decodes with: see `codes`."""
    random = drawn(study, intrinsic_dim)
    if decoder == "random":
        return random
    found = subspace(study, intrinsic_dim)[0]
    return found if decoder == "learned" else RandomAround(found, random)


def config_of(study: StudySteps) -> AdapterConfig:
    """Its scale's sizes of adapters.

    Raises: ValueError if it has none.
    """
    if study.scale.adapters is None:
        raise ValueError(
            f"scale {study.scale.name!r} has no adapters; give it sizes: "
            "adapters=AdapterConfig(msf=FitConfig(...), ist=FitConfig(...))"
        )
    return study.scale.adapters


def engine_of(study: StudySteps) -> Engine:
    """Text, then the words that are asked with; no vectors."""
    study.engine.forget_contexts()  # the memory is needed
    return Engine(study.backbone, (layouts.PROMPT, layouts.TEXT, prompt_tuning.WORDS))


def drawn(study: StudySteps, intrinsic_dim: int) -> HyperAdapters:
    """Hyper-matrices before any training."""
    chosen, backbone = config_of(study), study.backbone
    sizes = len(find_places(backbone.model)), backbone.width, chosen.rank
    draws = torch.Generator().manual_seed(study.seed)
    return HyperAdapters(intrinsic_dim, *sizes, draws, chosen.up).to(backbone.device)


def _scored(study: StudySteps, engine: Engine, source: Any, method: str, dim: int) -> list[dict[str, Any]]:
    unseen, limit = study.unseen_tasks(study.seeds[0]), study.scale.test_examples
    scores = evaluation.evaluate(engine, source, unseen, limit=limit, label=f"test of {method}")
    return rows(study, scores, method, study.seeds[:1], dim, only="unseen")
