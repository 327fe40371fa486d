"""What unseen tasks gain in other ways than by IST with all few-shot examples.

They get the prompt of a seen task; stage two (prompt tuning from the IST solution); IST, prompt tuning and
fine-tuning from fewer examples; and tuning of the model's own weights. Each function returns a step:
`nearest_prompt(study)`, `stage_two(study, d_I)`, `fewer_examples(study, d_I)`, `tuned_weights(study, ...)`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from iptkit.engine.prompt import PromptSource
from iptkit.methods import fine_tuning, subspace
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt
from iptkit.scores.evaluation import Outcome
from iptkit.storage import step_cache
from iptkit.studies import score_rows
from iptkit.studies.steps import Made, StudySteps
from iptkit.tasks.examples import Task
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run
from iptkit.training.trainer import fit

FEWER = {name: f"{name}, fewer examples" for name in ("IST", "prompt tuning", "fine-tuning")}
NEAREST_EXAMPLES = 8  # at most so many dev examples choose the seen task, because all pairs are tried
NEAREST, STAGE_TWO, FROM_WORDS = "nearest task's prompt", "stage two", "prompt tuning, same runs"
DID_AROUND = "DID around the mean code"


def nearest_prompt(study: StudySteps) -> step_cache.Step:
    """Unseen tasks under the prompt of the seen task with the lowest mean token loss on their dev examples.

    Returns: a step with values["rows"], and values["nearest"]: unseen task -> seen task.
    """
    seen, limit = study.seen, min(NEAREST_EXAMPLES, study.scale.prompt.dev_examples)

    def make(_: Path) -> Made:
        bank, unseen = study.first_prompts()[: len(seen)], study.unseen_tasks(study.seeds[0])
        runs = [Run(task, task.seed) for task in unseen for _ in seen]
        pairs = FixedPrompt(torch.cat([bank] * len(unseen)), study.prompt_kind)
        losses = -trainer.dev_scores(study.engine, pairs, runs, limit)[:, 1].view(len(unseen), len(seen))
        best = losses.argmin(1)
        chosen = FixedPrompt(bank[best.to(bank.device)], study.prompt_kind)
        found = study.outcomes(chosen, unseen, f"test of the {NEAREST}")
        names = {task.id: seen[i] for task, i in zip(unseen, best.tolist(), strict=True)}
        rows = score_rows.of_study(study, found, NEAREST, study.seeds[:1], only="unseen")
        return {"losses": losses}, {"rows": rows, "nearest": names}

    key = study.key("nearest", study.scale.prompt, limit, seen, seeds=study.groups()[0])
    return step_cache.step(study.named("nearest-prompt"), key, make)


def stage_two(study: StudySteps, intrinsic_dim: int) -> step_cache.Step:
    """Prompt tuning of unseen tasks from their IST solution and from words, each several times.

    This is the paper's second stage (prompt tuning that starts from the IPT solution) and its stability over
    runs. A run sees the same examples, the data of IST, in another order. All runs train in one `fit`: the
    runs of a task share the keys and values of its texts, which take most of the memory.

    Args:
      study: whose unseen tasks are tuned, first seed.
      intrinsic_dim: d_I.
    Returns: a step whose values["rows"] have a "run" each, of the methods STAGE_TWO (with its d_I) and
      FROM_WORDS.
    """
    scale, first = study.scale, study.seeds[0]

    def make(checkpoint: Path) -> Made:
        count, unseen = scale.stage_two_runs, study.unseen_tasks(first)
        source = subspace.IntrinsicPrompt(study.decoder(intrinsic_dim, "learned"), len(unseen))
        source.u.data = study.first_codes(intrinsic_dim)[-len(unseen) :].to(source.center)
        with torch.no_grad():
            everyone = torch.arange(len(unseen), device=source.center.device)
            found = source.decoder.decode(source.z(everyone))
        words = study.words(len(unseen)).P
        starts = torch.cat([found] * count + [words.to(found)] * count)
        runs = [Run(task, run, "train_new") for _ in range(2) for run in range(count) for task in unseen]
        tuned = SoftPrompt(starts, study.prompt_kind)
        label = f"{STAGE_TWO}, d_I = {intrinsic_dim}, {len(runs)} runs"
        result = fit(study.engine, tuned, runs, scale.prompt, checkpoint, label)
        outcomes = study.outcomes(tuned, [run.task for run in runs], f"test of {STAGE_TWO}")
        half, more, rows = len(outcomes) // 2, score_rows.trained(result), []
        for method, dim, part in (
            (STAGE_TWO, intrinsic_dim, slice(0, half)),
            (FROM_WORDS, 0, slice(half, None)),
        ):
            fields = [row | {"run": i // len(unseen)} for i, row in enumerate(more[part])]
            seeds = [first] * count
            rows += score_rows.of_study(study, outcomes[part], method, seeds, dim, "unseen", fields)
        return {"losses": result.losses.float()}, {"rows": rows}

    key = _key(study, "stage two", intrinsic_dim, scale.stage_two_runs)
    return step_cache.step(study.named(f"stage-two-{intrinsic_dim}"), key, make)


def fewer_examples(study: StudySteps, intrinsic_dim: int) -> step_cache.Step:
    """IST and prompt tuning of unseen tasks from the first k examples of train_new, for each of several k.

    At most k examples of dev choose the best step. A small task may have fewer than k examples. The papers
    do not vary k for IST.

    Args:
      study: whose unseen tasks are tuned, first seed.
      intrinsic_dim: d_I.
    Returns: a step whose values["rows"] have "examples" (k), "n_train" and "n_dev" (how many there were) and
      the first two of the methods FEWER; `tuned_weights` makes the third.
    """
    scale, first = study.scale, study.seeds[0]

    def make(checkpoint: Path) -> Made:
        unseen, counts = study.unseen_tasks(first), scale.fewer_examples
        cut = [_only(k, task) for k in counts for task in unseen]
        runs = [Run(task, first, "train_new") for task in cut]
        decoder = study.decoder(intrinsic_dim, "learned")
        tuned = subspace.IntrinsicPrompt(decoder, len(runs)).to(study.backbone.device)
        methods: tuple[tuple[str, int, PromptSource, FitConfig], ...] = (
            ("IST", intrinsic_dim, tuned, scale.ist),
            ("prompt tuning", 0, SoftPrompt(study.words(len(runs)).P, study.prompt_kind), scale.prompt),
        )
        rows: list[score_rows.Row] = []
        for method, dim, source, config in methods:
            name, place = FEWER[method], checkpoint.with_name(f"{method.split()[0]}-{checkpoint.name}")
            result = fit(study.engine, source, runs, config, place, f"{name}, {len(runs)} runs")
            outcomes = study.outcomes(source, cut, f"test of {name}")
            more = [
                {
                    **fields,
                    "examples": counts[i // len(unseen)],
                    "n_train": len(task.train_new),
                    "n_dev": min(len(task.dev), config.dev_examples),
                }
                for i, (fields, task) in enumerate(zip(score_rows.trained(result), cut, strict=True))
            ]
            seeds = [first] * len(counts)
            rows += score_rows.of_study(study, outcomes, name, seeds, dim, "unseen", more)
        return {}, {"rows": rows}

    key = _key(study, "fewer examples", intrinsic_dim, scale.fewer_examples)
    return step_cache.step(study.named(f"fewer-examples-{intrinsic_dim}"), key, make)


def _only(count: int, task: Task) -> Task:
    """A task cut to the first `count` examples of train_new and of dev."""
    train = task.train_new[:count]
    return replace(task, train=train, train_new=train, dev=task.dev[:count])  # `train` limits answer lengths


def tuned_weights(study: StudySteps, method: str, task_id: str, examples: int = 0) -> step_cache.Step:
    """A task learned by the model's own weights, in float32.

    Examples are those of the task's prompt, steps those of the scale's weights_fit. The weights after the
    last step are scored, because transformers' Trainer does not choose the best step on dev.

    Args:
      study: of a causal model; its first seed is used.
      method: "fine-tuning" (all weights), "DID" (all weights along main_dim random directions; see
        `fine_tuning.fine_tune`) or DID_AROUND: the same with the prompt that IST starts from, the mean code,
        which stays frozen. The study is then one that has not seen the task.
      task_id: one of the study's.
      examples: train on the first so many examples, as in `fewer_examples`; 0: on those of the task's prompt.
    Returns: a step whose values["rows"] has one row, with the fields of `fewer_examples` if `examples`.
    """
    scale, first = study.scale, study.seeds[0]
    is_around, is_did = method == DID_AROUND, method in ("DID", DID_AROUND)
    rate = scale.did_lr if is_did else scale.fine_tuning_lr
    dim = scale.main_dim if is_did else 0

    def make(_: Path) -> Made:
        study.engine.forget_contexts()  # frees their memory
        prompt = subspace.mean_code(study.found(dim)[0], 1).P[0] if is_around else None
        task, how = study.task(task_id, first), scale.weights_fit or scale.prompt
        sizes = (how.steps, how.rows_per_run, rate, first, scale.test_examples)
        cut = _only(examples, task) if examples else task
        kind = "DID" if is_did else method
        found = fine_tuning.fine_tune(study.backbone, cut, kind, *sizes, intrinsic_dim=dim, prompt=prompt)
        outcome = Outcome(found.score, found.log_likelihood)
        times = {"seconds": round(found.seconds, 2), "cpu_seconds": round(found.cpu_seconds, 2)}
        row = score_rows.of_task(
            study, task, name, outcome, dim, steps=how.steps, best_step=how.steps, **times
        )
        row["dtype"] = "float32"
        if examples:
            row |= {"examples": examples, "n_train": len(cut.train), "n_dev": 0}
        return {}, {"rows": [row], "numbers": found.num_parameters}

    name = FEWER[method] if examples else method
    key = study.key(
        name,
        scale.weights_fit or scale.prompt,
        rate,
        dim,
        task_id,
        *([examples] if examples else []),
        *([scale.prompt, scale.msf, replace(scale.subspace, intrinsic_dim=dim)] if is_around else []),
        seeds=study.groups()[0] if is_around else (first,),
    )
    return step_cache.step(study.named(weights_name(method, task_id, examples)), key, make)


def weights_name(method: str, task_id: str, examples: int = 0) -> str:
    """The name of a step of `tuned_weights`, without the fold; the arguments are its own."""
    kind = "did-around" if method == DID_AROUND else method.lower()
    return "-".join([kind, *([str(examples)] if examples else []), task_id])


def weights_trained(study: StudySteps) -> list[tuple[str, str, int]]:
    """(method, task, examples) of all steps of `tuned_weights`.

    Only fine-tuning is run with fewer examples.
    """
    scale = study.scale
    tasks = study.ids if scale.folds else study.unseen
    found = [(method, task, 0) for method in scale.weights for task in tasks]
    counts = scale.fewer_examples if "fine-tuning" in scale.weights else ()
    return found + [("fine-tuning", task, k) for k in counts for task in tasks]


def _key(study: StudySteps, what: str, intrinsic_dim: int, *parts: Any) -> list[Any]:
    """The key of a step that starts from the IST solution or is compared with it, first seed."""
    scale = study.scale
    trained = (scale.prompt, scale.msf, scale.ist, scale.subspace, intrinsic_dim)
    return study.key(what, *trained, *parts, seeds=study.groups()[0])
