"""A study as a list of jobs: all its steps, which of them are done, and how long the rest will take."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from iptkit.methods import fine_tuning, subspace
from iptkit.models.devices import resolve_device
from iptkit.storage import step_cache
from iptkit.studies import adapters, unseen
from iptkit.studies.costs import OF_PEAK, Costs
from iptkit.studies.durations import seconds_of_rest
from iptkit.studies.score_rows import AROUND
from iptkit.studies.steps import StudySteps
from iptkit.tasks.examples import Task
from iptkit.training.runs import FitConfig

# The kinds of rows in the order of the table. Jobs run in another order: see `jobs_of`.
ZERO_SHOT, PROMPTS, MEAN_PROMPT, SUBSPACE, SAME_DATA, CODES, NEAREST, OTHERS = range(8)


@dataclass(frozen=True)
class Job:
    """One step of a study.

    Attributes:
      name: of the step's folder in the step cache, before the hash.
      make: makes the step, or finds it in the step cache.
      flops: an estimate of what making it takes; 0 where none was asked for.
      needs: names of all jobs whose steps it reads. Once these are done, it makes no step but its own; only
        codes with "reconstruction" first train an auto-encoder that is no job.
      place: sorts the jobs into the order of the study's table (see `in_order_of_table`).
      view: reads the part of the step that the table shows: a split shows only its own tasks of the prompts
        that all splits share. None: the whole step.
      has_rows: whether its step has rows for the table. One without is made only if another job needs it.
    """

    name: str
    make: Callable[[], step_cache.Step]
    flops: float = 0.0
    needs: tuple[str, ...] = ()
    place: tuple[int, ...] = ()
    view: Callable[[], step_cache.Step] | None = None
    has_rows: bool = True

    def read(self) -> step_cache.Step:
        """The step as the table shows it, made first if it is missing."""
        return (self.view or self.make)()

    @property
    def is_done(self) -> bool:
        """Whether the step is in the step cache; a subspace counts only with the prompts it was built on."""
        return step_cache.finished(self.make) is not None

    def seconds(self, speed: float) -> float:
        """About how long it takes where large matrix products reach `speed` FLOP/s."""
        return self.flops / (OF_PEAK * speed)


def in_order_of_table(jobs: Sequence[Job]) -> list[Job]:
    """The jobs in the order of the table: by kind, then in the order given."""
    return sorted(jobs, key=lambda job: job.place)


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that are left to do: those whose rows are missing, and what these need.

    Args:
      jobs: of one study, each after those that it needs.
    """
    left: list[Job] = []
    needed: set[str] = set()
    for job in reversed(jobs):
        if (job.has_rows or job.name in needed) and not job.is_done:
            left.append(job)
            needed.update(job.needs)
    return left[::-1]


def jobs_of(study: StudySteps, costs: Costs | None = None) -> list[Job]:
    """All jobs of a study, each after those that it needs.

    A job can run once all that it needs are done, so other orders work as well. This one puts jobs next to
    each other that read the same texts, whose keys and values are then still in memory.

    Args:
      study: whose steps are listed.
      costs: if given, the jobs' FLOPs are estimated, which loads the model. The tasks are always loaded.
    Raises: ValueError for too few tasks or examples, for a model that cannot do what the scale asks for and,
      with `costs`, for a d_I larger than a prompt.
    """
    _check(study)
    if costs:  # the model is loaded then
        subspace.check_dim(max(study.scale.dims), study.words(1).P.numel())
    lister = _Lister(study, costs)
    jobs = [lister.zero_shot()]
    for seeds in study.groups():
        jobs += [lister.prompts(seeds), *lister.in_subspace(seeds)]
    return [*jobs, *lister.from_subspace(), *lister.around(), *lister.adapters(), *lister.weights()]


def jobs_of_folds(study: StudySteps, parts: Sequence[StudySteps], costs: Costs | None = None) -> list[Job]:
    """All jobs of a study with folds: what they share, then fold by fold, then the model's own weights.

    Args:
      study: the whole.
      parts: one study for each of its folds and of the splits that it compares.
      costs: see `jobs_of`.
    Raises: see `jobs_of`.
    """
    _check_weights(study)
    for part in parts:
        _check(part)
    if costs:
        subspace.check_dim(max(study.scale.dims), study.words(1).P.numel())
    whole = _Lister(study, costs)
    jobs = [whole.zero_shot(), *map(whole.prompts, study.groups())]
    for place, part in enumerate(parts):
        lister = _Lister(part, costs)
        mine: list[Job] = []
        for seeds in part.groups():
            mine += lister.in_subspace(seeds)
        mine += [*lister.from_subspace(), *lister.around(), *lister.adapters()]
        jobs += [replace(job, place=(*job.place[:1], place, *job.place[1:])) for job in mine]
    return [*jobs, *whole.weights()]


class _Lister:
    """Makes the jobs of one study, by kind."""

    def __init__(self, study: StudySteps, costs: Costs | None):
        self.study, self.scale, self.costs = study, study.scale, costs
        self.first = study.seeds[0]
        self.bank = study.whole.group_name("prompts", study.groups()[0])  # has the prompts of the first seed

    def zero_shot(self) -> Job:
        """Scores of all tasks of the suite, without training."""
        flops = self._scoring(self.study.whole.tasks)
        return Job("zero-shot", self.study.zero_shot, flops, place=(ZERO_SHOT,))

    def prompts(self, seeds: tuple[int, ...]) -> Job:
        """Prompt tuning with seeds that train together, of all tasks of the suite."""
        study = self.study
        return Job(
            study.whole.group_name("prompts", seeds),
            functools.partial(study.whole.prompts_of_group, seeds),
            self._training(study.whole.tasks, self.scale.prompt, seeds),
            place=(PROMPTS,),
            view=functools.partial(study.bank_of, [seeds]),
        )

    def in_subspace(self, seeds: tuple[int, ...]) -> Iterator[Job]:
        """What a group of seeds gives in a subspace; the first one also finds it."""
        is_first = self.first in seeds
        if is_first:
            yield from self.subspaces()
        yield from self.codes(seeds)
        if is_first:
            yield from self.nearest()

    def subspaces(self) -> Iterator[Job]:
        """What the prompts of the first seed give: their mean, MSF, and IST on the same data."""
        study, scale, named = self.study, self.scale, self.study.named
        scored = study.unseen_tasks if scale.only_unseen else study.judged_tasks
        if not scale.only_unseen:
            flops = self._scoring(scored)
            yield Job(named("mean-prompt"), study.mean_prompt, flops, (self.bank,), (MEAN_PROMPT,))
        for dim in scale.dims:
            flops = self.costs.fit(study.seen_tasks(self.first), scale.msf) if self.costs else 0.0
            make = functools.partial(study.subspace_step, dim)
            yield Job(named(f"subspace-{dim}"), make, flops, (self.bank,), (SUBSPACE,), has_rows=False)
            make, flops = functools.partial(study.msf, dim), self._scoring(scored, prompts=2)
            yield Job(named(f"msf-{dim}"), make, flops, self._found(dim), (SUBSPACE,))
        for dim in scale.dims if scale.same_data else ():
            flops = self._training(functools.partial(study.judged_tasks, only="seen"), scale.ist)
            make, needs = functools.partial(study.codes_on_same_data, dim), self._found(dim)
            yield Job(named(f"codes-same-{dim}"), make, flops, needs, (SAME_DATA,))

    def codes(self, group: tuple[int, ...]) -> Iterator[Job]:
        """IST with every decoder, for a group of seeds."""
        study = self.study
        for number, (dim, decoder) in enumerate(study.decoders()):
            seeds = study.seeds_run(decoder, group)
            if not seeds:
                continue
            tuned = study.unseen_tasks if study.only_on_unseen(decoder) else study.fresh_tasks
            yield Job(
                study.group_name(f"codes-{decoder}-{dim}", seeds),
                functools.partial(study.codes_of_group, dim, decoder, seeds),
                self._training(tuned, self.scale.ist, seeds),
                self._found(dim) if decoder in ("learned", *AROUND) else (self.bank,),
                (CODES, number),
            )

    def nearest(self) -> Iterator[Job]:
        """Unseen tasks under the prompt of a seen one, if the scale asks for it."""
        study, scale = self.study, self.scale
        if scale.nearest:
            read = min(unseen.NEAREST_EXAMPLES, scale.prompt.dev_examples)
            prompts = 1 + len(study.seen) * read // scale.test_examples
            flops = self._scoring(study.unseen_tasks, prompts)
            make = functools.partial(unseen.nearest_prompt, study)
            yield Job(study.named("nearest-prompt"), make, flops, (self.bank,), (NEAREST,))

    def from_subspace(self) -> Iterator[Job]:
        """Unseen tasks from fewer examples, and stage two."""
        study, scale, dim = self.study, self.scale, self.scale.main_dim
        tasks = study.unseen_tasks
        if scale.fewer_examples:
            runs = len(scale.fewer_examples)
            flops = sum(self._training(tasks, fit, runs=runs) for fit in (scale.ist, scale.prompt))
            make = functools.partial(unseen.fewer_examples, study, dim)
            yield Job(study.named(f"fewer-examples-{dim}"), make, flops, self._found(dim), (OTHERS,))
        if scale.stage_two_runs:
            flops = self._training(tasks, scale.prompt, runs=2 * scale.stage_two_runs)
            make = functools.partial(unseen.stage_two, study, dim)
            needs = (*self._found(dim), study.group_name(f"codes-learned-{dim}", study.groups()[0]))
            yield Job(study.named(f"stage-two-{dim}"), make, flops, needs, (OTHERS,))

    def adapters(self) -> Iterator[Job]:
        """MSF and IST in a subspace of adapters."""
        study, chosen, dim = self.study, self.scale.adapters, self.scale.main_dim
        if chosen is None:
            return
        msf = ist = self._scoring(study.unseen_tasks)
        if self.costs:
            msf += self.costs.fit(study.seen_tasks(self.first), chosen.msf, is_whole=True)
            ist += self.costs.fit(study.unseen_tasks(self.first), chosen.ist, is_whole=True)
        found = study.named(f"adapters-{dim}")
        yield Job(found, lambda: adapters.subspace(study, dim)[1], msf, place=(OTHERS,))
        for decoder in adapters.METHODS:
            make = functools.partial(adapters.codes, study, dim, decoder)
            needs = () if decoder == "random" else (found,)
            yield Job(study.named(f"adapter-codes-{decoder}-{dim}"), make, ist, needs, (OTHERS,))

    def around(self) -> Iterator[Job]:
        """Unseen tasks learned by the model's own weights, with the prompt that IST starts from."""
        for task in self.study.unseen if self.scale.did_around else ():
            yield self._weights((unseen.DID_AROUND, task, 0), self._found(self.scale.main_dim))

    def weights(self) -> Iterator[Job]:
        """Tasks learned by the model's own weights."""
        for given in unseen.weights_trained(self.study):
            yield self._weights(given)

    def _weights(self, given: tuple[str, str, int], needs: tuple[str, ...] = ()) -> Job:
        """The job of one step of `unseen.tuned_weights`."""
        make, flops = functools.partial(unseen.tuned_weights, self.study, *given), 0.0
        if self.costs:
            task, how = self.study.task(given[1], self.first), self.scale.weights_fit or self.scale.prompt
            flops = self.costs.weights(task, how) + self.costs.score([task])
        return Job(self.study.named(unseen.weights_name(*given)), make, flops, needs, (OTHERS,))

    def _found(self, dim: int) -> tuple[str, str]:
        """The jobs that find the learned decoder."""
        return self.bank, self.study.named(f"subspace-{dim}")

    def _scoring(self, tasks: Callable[[int], list[Task]], prompts: int = 1) -> float:
        """FLOPs of scoring the tasks of the first seed under so many prompts each."""
        return self.costs.score(tasks(self.first), prompts) if self.costs else 0.0

    def _training(
        self,
        tasks: Callable[[int], list[Task]],
        config: FitConfig,
        seeds: Sequence[int] = (),
        runs: int = 1,
    ) -> float:
        """FLOPs of training and scoring so many runs of each task and seed (default: the first seed)."""
        if self.costs is None:
            return 0.0
        every = [task for seed in seeds or (self.first,) for task in tasks(seed)]
        return self.costs.fit(every, config, runs) + self.costs.score(every, runs)


def _check(study: StudySteps) -> None:
    """Raise ValueError if the tasks or the model are not enough for what the scale asks for."""
    scale = study.scale
    asked = (
        "nearest", "unseen_controls", "stage_two_runs", "fewer_examples", "did_around", "adapters",
        "only_unseen",
    )  # fmt: skip
    wanted = [] if study.unseen else [name for name in asked if getattr(scale, name)]
    if wanted:
        raise ValueError(
            f"scale {scale.name!r} asks for {', '.join(wanted)} on unseen tasks, but there are none; "
            "give `unseen` or another split, or leave these out"
        )
    if len(study.seen) < 2:
        raise ValueError(
            f"the number of seen tasks is {len(study.seen)}; an auto-encoder needs the prompts of 2 or more"
        )
    for seed in study.seeds:
        study.fresh_tasks(seed)  # raises for a task with too few new examples, before anything trains
    _check_weights(study)


def _check_weights(study: StudySteps) -> None:
    """Raise ValueError if the model's own weights or adapters are to be trained, and cannot be."""
    scale = study.scale
    if (scale.weights or scale.did_around or scale.adapters) and study.backbone.kind != "causal":
        raise ValueError(
            f"weights {scale.weights} and adapters are for causal models, but {scale.backbone} is "
            f"{study.backbone.kind}; leave them out (weights=(), did_around=False, adapters=None)"
        )
    if scale.did_around and scale.deep:
        raise ValueError(
            f"scale {scale.name!r} asks for did_around with deep prompts; it is for prompts at the input, so "
            "set did_around=False"
        )
    if scale.weights or scale.did_around:
        fine_tuning.check_gpu(resolve_device(study.device))  # before hours of other jobs


def seconds_left(
    todo: Sequence[Job], expected: Mapping[str, float], finished: Mapping[str, float], at_once: int
) -> float:
    """About how many seconds the unfinished jobs take, so many at once.

    Args:
      todo: the jobs, each after those that it needs.
      expected: seconds of each, by name.
      finished: seconds that the finished ones took, by name; the others are taken to be faster or slower than
        expected by the same factor.
      at_once: jobs that run at once, >= 1.
    """
    known = sum(expected[name] for name in finished)
    speed = sum(finished.values()) / known if known else 1.0
    left = {job.name: expected[job.name] for job in todo if job.name not in finished}
    return speed * seconds_of_rest(left, {job.name: job.needs for job in todo}, at_once)
