"""The adapter variant of Intrinsic Prompt Tuning (`methods.adapters`) as steps of a `Study`.

    seen tasks -> subspace(d_I): hyper-matrices and one z that all seen tasks share
    unseen tasks -> codes(d_I): only z trains, through these hyper-matrices or through random ones

Random hyper-matrices are used in two ways: as drawn, and around the shared adapters, so that only the
directions are random (like the random decoder of IST, which starts from the mean of the seen prompts). A row
is the text followed by words, as in fine-tuning. Every token passes the adapters, so no text is cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from iptkit.engine import layouts
from iptkit.engine.adapter_hooks import find_blocks
from iptkit.engine.engine import Engine
from iptkit.engine.prompt import PromptSource
from iptkit.methods import prompt_tuning
from iptkit.methods.adapters import HyperAdapters, RandomAround
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.methods.subspace import IntrinsicPrompt
from iptkit.storage import step_cache
from iptkit.studies import score_rows
from iptkit.studies.scales import AdapterConfig
from iptkit.studies.score_rows import Row
from iptkit.studies.steps import Made, StudySteps
from iptkit.training import trainer
from iptkit.training.runs import Run

SHARED = "shared adapters"  # the z of the seen tasks, without tuning
METHODS = {  # what IST decodes with -> its method
    "learned": "IST, adapters",
    "around": "random around shared",
    "random": "random adapters",
}


def subspace(study: StudySteps, intrinsic_dim: int) -> tuple[HyperAdapters, step_cache.Step]:
    """Hyper-matrices and one z, trained on all seen tasks with the data of their prompts, first seed.

    Args:
      study: of a scale with adapters.
      intrinsic_dim: d_I.
    Returns: the adapters, and their step with values["rows"] of SHARED on unseen tasks.
    """
    chosen, first = config_of(study), study.seeds[0]

    def make(checkpoint: Path) -> Made:
        engine, source = engine_of(study), drawn(study, intrinsic_dim)
        runs = [Run(task, task.seed) for task in study.seen_tasks(first)]
        label = f"MSF of adapters, d_I = {intrinsic_dim}"
        result = trainer.fit(engine, source, runs, chosen.msf, checkpoint, label)
        with torch.no_grad():
            one = source.decode(source.z)
        everywhere = FixedPrompt(one.expand(len(study.unseen), *one.shape[1:]), source.kind)
        count = len(study.unseen)
        more = score_rows.trained(result)[:1] * count
        rows = _rows(study, engine, everywhere, SHARED, intrinsic_dim, more)
        curves = {"losses": result.losses.float(), "dev": -result.dev[:, :, 1].float()}
        return {**source.state_dict(), **curves}, {"rows": rows, "best_step": int(result.best_step[0])}

    key = study.key("adapters", chosen.rank, chosen.up, chosen.msf, intrinsic_dim, seeds=(first,))
    step = step_cache.step(study.named(f"adapters-{intrinsic_dim}"), key, make)
    source = drawn(study, intrinsic_dim)
    source.load_state_dict({name: step.tensors[name] for name in source.state_dict()})
    return source, step


def codes(study: StudySteps, intrinsic_dim: int, decoder: str = "learned") -> step_cache.Step:
    """IST of unseen tasks in a subspace of adapters, with the data of IST, first seed.

    Args:
      study: of a scale with adapters.
      intrinsic_dim: d_I.
      decoder: "learned" (`subspace`), "around" (random directions around the shared adapters) or "random"
        (hyper-matrices as drawn).
    Returns: a step with tensors["u"] [T, d_I] and values["rows"].
    Raises: ValueError for another decoder.
    """
    if decoder not in METHODS:
        raise ValueError(f"decoder {decoder!r} is unknown; choose one of {', '.join(METHODS)}")
    chosen, first, method = config_of(study), study.seeds[0], METHODS[decoder]

    def make(checkpoint: Path) -> Made:
        unseen = study.unseen_tasks(first)
        hyper = decoder_of(study, intrinsic_dim, decoder)
        engine, source = engine_of(study), IntrinsicPrompt(hyper, len(unseen)).to(study.backbone.device)
        runs = [Run(task, task.seed, "train_new") for task in unseen]
        label = f"{method}, d_I = {intrinsic_dim}, {len(runs)} runs"
        result = trainer.fit(engine, source, runs, chosen.ist, checkpoint, label)
        rows = _rows(study, engine, source, method, intrinsic_dim, score_rows.trained(result))
        return {"u": source.u.detach(), "losses": result.losses.float()}, {"rows": rows}

    msf = None if decoder == "random" else chosen.msf
    key = study.key(
        "adapter codes", decoder, chosen.rank, chosen.up, msf, chosen.ist, intrinsic_dim, seeds=(first,)
    )
    return step_cache.step(study.named(f"adapter-codes-{decoder}-{intrinsic_dim}"), key, make)


def decoder_of(study: StudySteps, intrinsic_dim: int, decoder: str) -> HyperAdapters | RandomAround:
    """The decoder that IST tunes codes for: see `codes`."""
    random = drawn(study, intrinsic_dim)
    if decoder == "random":
        return random
    found = subspace(study, intrinsic_dim)[0]
    return found if decoder == "learned" else RandomAround(found, random)


def config_of(study: StudySteps) -> AdapterConfig:
    """The adapter sizes of a study's scale. Raises: ValueError if it has none."""
    if study.scale.adapters is None:
        raise ValueError(
            f"scale {study.scale.name!r} has no adapters; give their sizes: "
            "adapters=AdapterConfig(msf=FitConfig(...), ist=FitConfig(...))"
        )
    return study.scale.adapters


def engine_of(study: StudySteps) -> Engine:
    """An engine whose rows are the text and then words, without prompt vectors."""
    study.engine.forget_contexts()  # frees their memory
    return Engine(study.backbone, (layouts.PROMPT, layouts.TEXT, prompt_tuning.WORDS))


def drawn(study: StudySteps, intrinsic_dim: int) -> HyperAdapters:
    """Hyper-matrices as drawn, before any training."""
    chosen, backbone = config_of(study), study.backbone
    sizes = len(find_blocks(backbone.model)), backbone.width, chosen.rank
    return HyperAdapters(intrinsic_dim, *sizes, study.generator(), chosen.up).to(backbone.device)


def _rows(
    study: StudySteps, engine: Engine, source: PromptSource, method: str, dim: int, more: Sequence[Row]
) -> list[Row]:
    """Rows of the unseen tasks, first seed; `more`: further fields of each."""
    found = study.outcomes(source, study.unseen_tasks(study.seeds[0]), f"test of {method}", engine)
    return score_rows.of_study(study, found, method, study.seeds[:1], dim, "unseen", more)
