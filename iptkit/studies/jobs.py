"""A study as a list of jobs: which are done, and about how long the others will take.

The estimate counts the FLOPs of the linear layers (2 per weight and token forward, as many again backward to
the input; frozen weights get no gradient) for all tokens that a job trains, reads and scores, and divides by
what this machine's matrix products reach. Texts that one job leaves in memory for the next are counted again,
so it is rather too long than too short.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iptkit.methods import fine_tuning, subspace
from iptkit.models.devices import resolve_device
from iptkit.storage import step_cache
from iptkit.studies import adapters
from iptkit.studies.costs import OF_PEAK, Costs
from iptkit.studies.unseen import tuned_weights, weights_name, weights_trained
from iptkit.tasks.examples import Task
from iptkit.training.runs import FitConfig

if TYPE_CHECKING:
    from iptkit.studies.study import Study


@dataclass(frozen=True)
class Job:
    """One step of a study.

    Attributes:
      name: of its folder in the step cache, before the hash.
      make: makes it, or finds it in the step cache.
      flops: what making it takes, about.
      needs: names of all jobs whose steps it reads; with these done, it makes no step but its own.
    """

    name: str
    make: Callable[[], step_cache.Step]
    flops: float = 0.0
    needs: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        """Is it in the step cache? (MSF only together with the prompts that it was built on.)"""
        with step_cache.only_finished():
            try:
                self.make()
            except step_cache.NotFinishedError:
                return False
        return True

    def seconds(self, speed: float) -> float:
        """About how long it takes where large matrix products reach `speed` FLOP/s."""
        return self.flops / (OF_PEAK * speed)


def of(study: Study, costs: Costs | None = None) -> list[Job]:
    """What the table needs, in an order in which each finds what it needs; any such order does.

    Args:
      costs: with it the jobs' FLOPs are estimated, which loads the model's tokenizer and the tasks.
    Raises: ValueError for too few tasks or examples and, with `costs`, for a d_I larger than a prompt.
    """
    scale, first = study.scale, study.seeds[0]
    _check_sides(study)
    if costs:  # the model is loaded then
        subspace.check_dim(max(scale.dims), study.words(1).P.numel())
    for seed in study.seeds:
        study.fresh_tasks(seed)  # a task with too few new examples is told before anything trains

    def fitted(on: Callable[[int], list[Task]], seeds: Sequence[int], how: FitConfig, runs: int = 1) -> float:
        read = [task for seed in seeds for task in on(seed)] if costs else []
        return costs.fit(read, how, runs) + costs.score(read, runs) if costs else 0.0

    def scored(prompts: int) -> float:
        on = study.unseen_tasks if scale.only_unseen else study.tasks
        return costs.score(on(first), prompts) if costs else 0.0

    found: list[Job] = []

    def add(name: str, make: Callable[..., Any], cost: float, *given: Any, needs: Sequence[str] = ()) -> None:
        found.append(Job(name, functools.partial(make, *given), cost, tuple(needs)))

    bank = study.group_name("prompts", study.groups()[0])  # has the prompts of the first seed
    every = study.whole.tasks(first) if costs else []
    add("zero-shot", study.zero_shot, costs.score(every) if costs else 0.0)
    for seeds in study.groups():  # what reads the same texts stands together
        name = study.group_name("prompts", seeds)
        add(name, study.whole.prompts_of_group, fitted(study.whole.tasks, seeds, scale.prompt), seeds)
        if first in seeds:
            if not scale.only_unseen:
                add("mean-prompt", study.mean_prompt, scored(1), needs=[bank])
            for dim in scale.dims:
                cost = scored(2) + (costs.fit(study.seen_tasks(first), scale.msf) if costs else 0.0)
                add(f"subspace-{dim}", lambda dim: study.subspace(dim)[1], cost, dim, needs=[bank])
            for dim in scale.dims if scale.same_data else ():
                cost = fitted(study.seen_tasks, (first,), scale.ist)
                read = [bank, f"subspace-{dim}"]
                add(f"codes-same-{dim}", study.codes_on_same_data, cost, dim, needs=read)
        for dim, decoder in study.decoders():
            name = study.group_name(f"codes-{decoder}-{dim}", seeds)
            tuned = study.unseen_tasks if study.only_on_unseen(decoder) else study.fresh_tasks
            cost = fitted(tuned, seeds, scale.ist)
            read = [bank, *([f"subspace-{dim}"] if decoder == "learned" else [])]
            add(name, study.codes_of_group, cost, dim, decoder, seeds, needs=read)
        if first in seeds and scale.nearest:
            prompts = 1 + len(study.seen) * scale.prompt.dev_examples // scale.test_examples
            cost = costs.score(study.unseen_tasks(first), prompts) if costs else 0.0
            add("nearest-prompt", study.nearest_prompt, cost, needs=[bank])
    if scale.fewer_examples:
        fits = scale.ist, scale.prompt
        cost = sum(fitted(study.unseen_tasks, (first,), fit, len(scale.fewer_examples)) for fit in fits)
        read = [bank, f"subspace-{scale.main_dim}"]
        add(f"fewer-examples-{scale.main_dim}", study.fewer_examples, cost, scale.main_dim, needs=read)
    if scale.stage_two_runs:
        cost = fitted(study.unseen_tasks, (first,), scale.prompt, 2 * scale.stage_two_runs)
        codes = study.group_name(f"codes-learned-{scale.main_dim}", study.groups()[0])
        read = [bank, f"subspace-{scale.main_dim}", codes]
        add(f"stage-two-{scale.main_dim}", study.stage_two, cost, scale.main_dim, needs=read)
    if (scale.weights or scale.adapters) and study.backbone.kind != "causal":
        kind = f"{scale.backbone} is {study.backbone.kind}"
        told = f"weights {scale.weights} and adapters are for causal models, {kind}"
        raise ValueError(f"{told}; leave them out (weights=(), adapters=None)")
    if scale.weights:
        fine_tuning.check_gpu(resolve_device(study.device))  # before hours of other jobs
    if scale.adapters:
        unseen, dim = study.unseen_tasks(first), scale.main_dim
        msf = ist = costs.score(unseen) if costs else 0.0
        if costs:
            msf += costs.fit(study.seen_tasks(first), scale.adapters.msf, is_whole=True)
            ist += costs.fit(unseen, scale.adapters.ist, is_whole=True)
        found_by = f"adapters-{dim}"
        add(found_by, lambda dim: adapters.subspace(study, dim)[1], msf, dim)
        for decoder in adapters.METHODS:
            read = [] if decoder == "random" else [found_by]
            name = f"adapter-codes-{decoder}-{dim}"
            add(name, adapters.codes, ist, study, dim, decoder, needs=read)
    for method, task_id, examples in weights_trained(study):
        task, name = study.task(task_id, first), weights_name(method, task_id, examples)
        cost = costs.weights(task, scale.prompt) + costs.score([task]) if costs else 0.0
        add(name, tuned_weights, cost, study, method, task_id, examples)
    return found


def _check_sides(study: Study) -> None:
    """Raise ValueError for a study with too few tasks for what its scale asks for."""
    scale = study.scale
    asked = ("nearest", "unseen_controls", "stage_two_runs", "fewer_examples", "adapters", "only_unseen")
    wanted = [] if study.unseen else [name for name in asked if getattr(scale, name)]
    if wanted:
        told = f"scale {scale.name!r} asks for {', '.join(wanted)} on unseen tasks, and there are none"
        raise ValueError(f"{told}; give `unseen`, another split, or leave these out")
    if len(study.seen) < 2:
        raise ValueError(
            f"the number of seen tasks is {len(study.seen)}; an auto-encoder needs the prompts of 2 or more"
        )


def seconds_left(
    todo: Sequence[Job], expected: Mapping[str, float], finished: Mapping[str, float], slots: int
) -> float:
    """About how long the rest takes with so many jobs at a time: its sum shared out, or its longest chain.

    Args:
      todo: in an order that works.
      expected: seconds of each.
      finished: seconds that the finished ones took; the others are taken to be as much faster or slower.
      slots: >= 1.
    """
    known = sum(expected[name] for name in finished)
    speed = sum(finished.values()) / known if known else 1.0
    ends: dict[str, float] = {}
    for job in todo:
        if job.name not in finished:
            ends[job.name] = expected[job.name] + max(
                (ends.get(name, 0.0) for name in job.needs), default=0.0
            )
    rest = sum(expected[name] for name in ends) / max(1, slots)
    return speed * max(rest, *ends.values(), 0.0)
