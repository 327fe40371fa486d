"""A map of a study's tasks in the subspace, with walks between pairs of them, for a page that needs no model.

The place of a task is the code that the encoder of MSF gives to the task's own prompt. For a few tasks, with
an example of ours each (data/map.json), the prompts on the line between the codes of every pair are tried on
both tasks: test score, log-likelihood, and the answer to the example.

    python -m iptkit.studies.task_map NAME    reads data/results/NAME.*, writes data/results/NAME.map.json
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from iptkit.engine.interface import PromptEngine
from iptkit.methods import subspace
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.scores import evaluation
from iptkit.storage import files, paths, reading
from iptkit.studies import codes, provenance, stored_results
from iptkit.tasks import suites
from iptkit.tasks.examples import Example, Task

ENDING = ".map.json"
POINTS = 5  # on the line between two codes, both ends included


def own_examples() -> dict[str, Example]:
    """For each task that can be walked to, an example of ours in the form of the task's examples."""
    found = {}
    for task, one in reading.read_json(paths.data_dir() / "map.json").items():
        options = one["input"].partition("\nChoices: ")[2]
        found[task] = Example(one["input"], (one["target"],), tuple(options.split(", ")) if options else ())
    return found


def points(found: codes.Codes) -> tuple[list[dict[str, Any]], float]:
    """The tasks with their places on the plane of `codes.plane` ("x", "y"), and its share of variance."""
    places, share = codes.plane(found)
    labels = zip(found.tasks, found.labels["category"], found.labels["side"], places.tolist(), strict=True)
    made = [
        {"task": task, "category": category, "side": side, "x": round(x, 3), "y": round(y, 3)}
        for task, category, side, (x, y) in labels
    ]
    return made, share


def walks(
    engine: PromptEngine,
    decoder: subspace.PromptDecoder,
    code_of: Mapping[str, Tensor],
    tasks: Mapping[str, Task],
    own: Mapping[str, Example],
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """What the prompts on the line between the codes of two tasks do on both tasks, for every pair.

    Args:
      engine: with the model that the subspace was found for.
      decoder: of the subspace.
      code_of: [d_I] by task, in standard deviations of the seen tasks' codes from their mean.
      tasks: by id, those of `code_of`.
      own: an example with its right answer for each of these tasks.
      limit: number of test examples per task; None for all.
    Returns: for each pair "first", "second", and for each of POINTS points from the first to the second code
      "score", "log_likelihood" and "answer", of which each has one value for either task.
    """
    pairs = list(itertools.combinations(code_of, 2))
    prompts = torch.cat([codes.line(decoder, code_of[a], code_of[b], POINTS)[1] for a, b in pairs])
    source = FixedPrompt(prompts.repeat_interleave(2, 0), decoder.kind)
    on = [tasks[name] for pair in pairs for _ in range(POINTS) for name in pair]
    outcomes = evaluation.outcomes(engine, source, on, limit=limit, label="walk between two codes")
    asked = [replace(task, test=(own[task.id],), labels=()) for task in on]
    answers = [one for (one,) in evaluation.predict(engine, source, asked, "test", None, "answers")]
    found = []
    for i, (first, second) in enumerate(pairs):
        steps = []
        for j in range(i * POINTS * 2, (i + 1) * POINTS * 2, 2):
            both = outcomes[j : j + 2]
            steps.append(
                {
                    "score": [round(outcome.score, 3) for outcome in both],
                    "log_likelihood": [round(outcome.log_likelihood, 3) for outcome in both],
                    "answer": answers[j : j + 2],
                }
            )
        found.append({"first": first, "second": second, "steps": steps})
    return found


def encoded(name: str, engine: PromptEngine | None = None) -> tuple[codes.Codes, subspace.AutoEncoder]:
    """The codes that the encoder of a stored subspace gives to the stored prompts of all tasks, and it.

    Args:
      name: of the study, such as "ipt120", with rows, prompts and a subspace in data/results/.
      engine: see `subspace.load`.
    Returns: the codes of the encoder, which stand in for IST's, too; and the auto-encoder.
    """
    suite = provenance.read_rows(paths.data_dir() / "results" / f"{name}.jsonl")[1]["scale"]["suite"]
    prompts, about = stored_results.load_prompts(name)
    autoencoder = subspace.load_stored(name, engine)
    with torch.no_grad():
        mean, std = subspace.code_statistics(autoencoder)
        u = ((autoencoder.encode(prompts[0].to(mean.device)) - mean) / std).cpu().numpy()
    categories = {card.id: card.category for card in suites.list_cards(suite)}
    labels = {
        "category": tuple(categories[task] for task in about["tasks"]),
        "side": tuple("seen" if task in autoencoder.about["tasks"] else "unseen" for task in about["tasks"]),
    }
    return codes.Codes(tuple(about["tasks"]), labels, u[None], u, tuple(about["seeds"][:1])), autoencoder


def make(name: str) -> dict[str, Any]:
    """The map of a stored study: "points", "share" of variance on their plane, "walks", "examples".

    Args:
      name: of the study, see `encoded`.
    """
    from iptkit.studies import scales
    from iptkit.studies.study import Study

    own, about = own_examples(), provenance.read_rows(paths.data_dir() / "results" / f"{name}.jsonl")[1]
    study = Study(scales.load(about["scale"]["name"]), "cpu")
    found, autoencoder = encoded(name, study.engine)
    code_of = {task: torch.from_numpy(found.u[0][found.tasks.index(task)]) for task in own}
    on = {task: study.task(task, found.seeds[0]) for task in own}
    limit = study.scale.test_examples
    placed, share = points(found)
    return {
        "points": placed,
        "share": round(share, 3),
        "test examples": limit,
        "walks": walks(study.engine, autoencoder, code_of, on, own, limit),
        "examples": {task: {"input": one.input, "target": one.targets[0]} for task, one in own.items()},
    }


if __name__ == "__main__":
    for study_name in sys.argv[1:]:
        files.write_json(paths.data_dir() / "results" / f"{study_name}{ENDING}", make(study_name))
