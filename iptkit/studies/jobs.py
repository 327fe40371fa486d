"""A study as a list of jobs: all its steps, which of them are done, and how long the rest will take."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iptkit.methods import fine_tuning, subspace
from iptkit.models.devices import resolve_device
from iptkit.storage import step_cache
from iptkit.studies import adapters, unseen
from iptkit.studies.costs import OF_PEAK, Costs
from iptkit.studies.steps import StudySteps
from iptkit.tasks.examples import Task
from iptkit.training.runs import FitConfig


@dataclass(frozen=True)
class Job:
    """One step of a study.

    Attributes:
      name: of its folder in the step cache, before the hash.
      make: makes it, or finds it in the step cache.
      flops: what making it takes, about.
      needs: names of all jobs whose steps it reads; with these done, it makes no step but its own.
      place: where its rows stand in the study's table (see `in_order_of_table`).
      view: what the table shows of the step, where that is not all (a split shows its own tasks of the
        prompts that all splits share); None for the step itself.
    """

    name: str
    make: Callable[[], step_cache.Step]
    flops: float = 0.0
    needs: tuple[str, ...] = ()
    place: tuple[int, ...] = ()
    view: Callable[[], step_cache.Step] | None = None

    def read(self) -> step_cache.Step:
        """The step as the table shows it; makes it where it is missing."""
        return (self.view or self.make)()

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


def in_order_of_table(jobs: Sequence[Job]) -> list[Job]:
    """The jobs in the order of the table: by kind, whatever order they are made in."""
    return sorted(jobs, key=lambda job: job.place)


def jobs_of(study: StudySteps, costs: Costs | None = None) -> list[Job]:
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

    def add(
        place: tuple[int, ...],
        name: str,
        make: Callable[..., Any],
        cost: float,
        *given: Any,
        needs: Sequence[str] = (),
        view: Callable[[], step_cache.Step] | None = None,
    ) -> None:
        found.append(Job(name, functools.partial(make, *given), cost, tuple(needs), place, view))

    bank = study.group_name("prompts", study.groups()[0])  # has the prompts of the first seed
    cost = costs.score(study.whole.tasks(first)) if costs else 0.0
    add((0,), "zero-shot", study.zero_shot, cost)
    for seeds in study.groups():  # what reads the same texts stands together
        name = study.group_name("prompts", seeds)
        cost = fitted(study.whole.tasks, seeds, scale.prompt)
        own = functools.partial(study.bank_of, [seeds])
        add((1,), name, study.whole.prompts_of_group, cost, seeds, view=own)
        if first in seeds:
            if not scale.only_unseen:
                add((2,), "mean-prompt", study.mean_prompt, scored(1), needs=[bank])
            for dim in scale.dims:
                cost = scored(2) + (costs.fit(study.seen_tasks(first), scale.msf) if costs else 0.0)
                add((3,), f"subspace-{dim}", lambda dim: study.subspace(dim)[1], cost, dim, needs=[bank])
            for dim in scale.dims if scale.same_data else ():
                cost = fitted(study.seen_tasks, (first,), scale.ist)
                read = [bank, f"subspace-{dim}"]
                add((4,), f"codes-same-{dim}", study.codes_on_same_data, cost, dim, needs=read)
        for number, (dim, decoder) in enumerate(study.decoders()):
            name = study.group_name(f"codes-{decoder}-{dim}", seeds)
            tuned = study.unseen_tasks if study.only_on_unseen(decoder) else study.fresh_tasks
            cost = fitted(tuned, seeds, scale.ist)
            read = [bank, *([f"subspace-{dim}"] if decoder == "learned" else [])]
            add((5, number), name, study.codes_of_group, cost, dim, decoder, seeds, needs=read)
        if first in seeds and scale.nearest:
            prompts = 1 + len(study.seen) * scale.prompt.dev_examples // scale.test_examples
            cost = costs.score(study.unseen_tasks(first), prompts) if costs else 0.0
            add((6,), "nearest-prompt", unseen.nearest_prompt, cost, study, needs=[bank])
    if scale.fewer_examples:
        fits = scale.ist, scale.prompt
        cost = sum(fitted(study.unseen_tasks, (first,), fit, len(scale.fewer_examples)) for fit in fits)
        read = [bank, f"subspace-{scale.main_dim}"]
        add(
            (7,),
            f"fewer-examples-{scale.main_dim}",
            unseen.fewer_examples,
            cost,
            study,
            scale.main_dim,
            needs=read,
        )
    if scale.stage_two_runs:
        cost = fitted(study.unseen_tasks, (first,), scale.prompt, 2 * scale.stage_two_runs)
        codes = study.group_name(f"codes-learned-{scale.main_dim}", study.groups()[0])
        read = [bank, f"subspace-{scale.main_dim}", codes]
        add((7,), f"stage-two-{scale.main_dim}", unseen.stage_two, cost, study, scale.main_dim, needs=read)
    if (scale.weights or scale.adapters) and study.backbone.kind != "causal":
        kind = f"{scale.backbone} is {study.backbone.kind}"
        told = f"weights {scale.weights} and adapters are for causal models, {kind}"
        raise ValueError(f"{told}; leave them out (weights=(), adapters=None)")
    if scale.weights:
        fine_tuning.check_gpu(resolve_device(study.device))  # before hours of other jobs
    if scale.adapters:
        tuned, dim = study.unseen_tasks(first), scale.main_dim
        msf = ist = costs.score(tuned) if costs else 0.0
        if costs:
            msf += costs.fit(study.seen_tasks(first), scale.adapters.msf, is_whole=True)
            ist += costs.fit(tuned, scale.adapters.ist, is_whole=True)
        found_by = f"adapters-{dim}"
        add((7,), found_by, lambda dim: adapters.subspace(study, dim)[1], msf, dim)
        for decoder in adapters.METHODS:
            read = [] if decoder == "random" else [found_by]
            name = f"adapter-codes-{decoder}-{dim}"
            add((7,), name, adapters.codes, ist, study, dim, decoder, needs=read)
    for method, task_id, examples in unseen.weights_trained(study):
        task, name = study.task(task_id, first), unseen.weights_name(method, task_id, examples)
        cost = costs.weights(task, scale.prompt) + costs.score([task]) if costs else 0.0
        add((7,), name, unseen.tuned_weights, cost, study, method, task_id, examples)
    return found


def _check_sides(study: StudySteps) -> None:
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
