"""The measurements of lesson 01: wordings, the plain question, in-context examples, word search and facts.

Each is a step of a `Study` and returns its rows as values["rows"].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iptkit.engine.engine import Engine
from iptkit.engine.layouts import LAYOUTS
from iptkit.methods import prompt_tuning, word_search
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.methods.words import CONTENT_FREE, calibrate, content_free, label_scores, recall
from iptkit.scores import evaluation
from iptkit.storage import step_cache
from iptkit.studies.score_rows import about
from iptkit.studies.steps import Made, StudySteps
from iptkit.tasks import suites, wordings
from iptkit.tasks.examples import Card, Example, Task
from iptkit.tasks.wordings import Wording
from iptkit.training.runs import Run
from iptkit.training.trainer import credit

MOST_FACTS = 40


def wordings_of(study: StudySteps) -> step_cache.Step:
    """Every task asked in every wording, without training.

    Returns: a step whose values["rows"] have task, group, wording (0, 1, ...), words (its template), chance,
      accuracy and calibrated (test accuracy as scored, and after contextual calibration), credits (what each
      test example adds to accuracy: 1 if the answer is right, 1 / n in a tie of n labels), dev and
      dev_calibrated (the accuracies on dev, to choose a wording by).
    """
    config = study.scale.discrete
    read = _load(study, config.tasks, study.seeds[0])
    known = {task.id: wordings.of_task(task.id) for task, _ in read}

    def make(_: Path) -> Made:
        engine, rows = Engine(study.backbone, LAYOUTS[1]), []
        for task, card in read:
            asked = known[task.id]
            found = zip(
                asked,
                accuracies(engine, asked, card, task.test),
                accuracies(engine, asked, card, task.dev),
                strict=True,
            )
            for i, (wording, test, dev) in enumerate(found):
                chosen_by = {"dev": dev["accuracy"], "dev_calibrated": dev["calibrated"]}
                words = {"wording": i, "words": wording.template.words, "chance": 1 / len(task.labels)}
                rows.append({**about(task), **words, **test, **chosen_by})
        return {}, {"rows": rows}

    return step_cache.step("wordings", study.key_of(read, known, CONTENT_FREE), make)


def plainly(study: StudySteps) -> step_cache.Step:
    """Every task asked with the words that prompt tuning starts from, without a wording of its own.

    Returns: a step whose values["rows"] have task, group, tokens, words, accuracy and chance: first for the
      last n tokens of these words, the zero-shot prompt of the other lessons, then for all of them.
    """
    read, words = _load(study, study.scale.discrete.tasks, study.seeds[0]), prompt_tuning.WORDS
    tasks = [replace(task, metric="accuracy") for task, _ in read]

    def make(_: Path) -> Made:
        tokenizer, rows = study.backbone.tokenizer, []
        whole = len(tokenizer(words, add_special_tokens=False).input_ids)
        for n in (study.scale.prompt_length, whole):
            prompt = prompt_tuning.from_words(study.backbone, n)  # [n, d]
            source = FixedPrompt(prompt.expand(len(tasks), -1, -1))
            scores = evaluation.evaluate(study.engine, source, tasks, label="asking plainly")
            said = {"tokens": n, "words": tokenizer.decode(prompt_tuning.word_tokens(study.backbone, n))}
            for task, score in zip(tasks, scores, strict=True):
                rows.append({**about(task), **said, "accuracy": score, "chance": 1 / len(task.labels)})
        return {}, {"rows": rows}

    return step_cache.step("plainly", study.key_of(read, words, study.scale.prompt_length), make)


def in_context(study: StudySteps) -> step_cache.Step:
    """Every task in its first wording, without and with solved examples before the question, all seeds.

    Returns: a step whose values["rows"] have task, group, shots, seed, accuracy and calibrated. Without
      examples nothing depends on the seed, so there is one row.
    """
    config = study.scale.discrete
    read = {seed: _load(study, config.tasks, seed) for seed in study.seeds}
    known = {task: wordings.of_task(task)[0] for task in config.tasks}

    def make(_: Path) -> Made:
        engine, rows = Engine(study.backbone, LAYOUTS[1]), []
        for seed, entries in read.items():
            for task, card in entries:
                solved = [(wordings.slots_of(card, e), e.targets[0]) for e in task.train[: config.shots]]
                asked = task.test[: config.shot_test_examples]
                for shots in [[], solved] if seed == study.seeds[0] else [solved]:
                    (scored,) = accuracies(engine, [known[task.id]], card, asked, shots)
                    del scored["credits"]
                    rows.append({**about(task), "shots": len(shots), "seed": seed, **scored})
        return {}, {"rows": rows}

    every = [entry for entries in read.values() for entry in entries]
    key = study.key_of(every, known, config.shots, config.shot_test_examples, CONTENT_FREE)
    return step_cache.step("in-context", key, make)


def token_search(study: StudySteps) -> step_cache.Step:
    """Prompt words found with gradients for every task, first seed, compared with the first ones.

    Returns: a step with tensors["tokens"] [T, n] and tensors["losses"] [steps, T]; values["rows"] have task,
      group, seed, start (score of the words that the search started from), found (score of the words that it
      found), words (these as text) and swaps.
    """
    config, n = study.scale.discrete, study.scale.prompt_length
    read = _load(study, config.tasks, study.seeds[0])

    def make(_: Path) -> Made:
        runs = [Run(task, task.seed) for task, _ in read]
        table = study.backbone.embedding
        start = prompt_tuning.word_tokens(study.backbone, n).expand(len(runs), -1)
        found = word_search.search(study.engine, start, runs, config.search, f"search, {len(runs)} runs")
        both = FixedPrompt(torch.cat([table[start], table[found.tokens.to(table.device)]]))
        scores = evaluation.evaluate(
            study.engine, both, [run.task for run in runs] * 2, label="test of search"
        )
        rows = [
            {
                **about(run.task),
                "seed": run.seed,
                "start": scores[i],
                "found": scores[len(runs) + i],
                "words": study.backbone.tokenizer.decode(found.tokens[i]),
                "swaps": int(found.swaps[i]),
            }
            for i, run in enumerate(runs)
        ]
        return {"tokens": found.tokens, "losses": found.losses.float()}, {"rows": rows}

    return step_cache.step("token-search", study.key_of(read, prompt_tuning.WORDS, n, config.search), make)


def facts(study: StudySteps) -> step_cache.Step:
    """Facts of every relation in every template, ranked among the objects of all facts that are asked.

    Asked are at most MOST_FACTS test examples of a relation: the work grows with their square.

    Returns: a step whose values["rows"] have task, group, words (the template), P@1, P@10, and the numbers of
      objects and facts.
    """
    config = study.scale.discrete
    read = _load(study, config.relations, study.seeds[0])
    known = {task.id: wordings.of_relation(task.id) for task, _ in read}

    def make(_: Path) -> Made:
        engine, rows = Engine(study.backbone, LAYOUTS[1]), []
        for task, card in read:
            facts = task.test[:MOST_FACTS]
            asked = [(wordings.slots_of(card, e), e.targets) for e in facts]
            objects = tuple(dict.fromkeys(e.targets[0] for e in facts))
            for template in known[task.id]:
                found = {f"P@{k}": share for k, share in recall(engine, template, asked, objects).items()}
                counts = {"objects": len(objects), "facts": len(asked)}
                rows.append({**about(task), "words": template.words, **counts, **found})
        return {}, {"rows": rows}

    return step_cache.step("facts", study.key_of(read, known), make)


def accuracy_of(study: StudySteps, wording: Wording, task_id: str) -> float:
    """The test accuracy of one wording on a task, without calibration."""
    ((task, card),) = _load(study, [task_id], study.seeds[0])
    return accuracies(Engine(study.backbone, LAYOUTS[1]), [wording], card, task.test)[0]["accuracy"]


# ---- parts ---------------------------------------------------------------------------------------
def _load(study: StudySteps, ids: Sequence[str], seed: int) -> list[tuple[Task, Card]]:
    """The tasks with the few-shot sets of `seed`, each with its card."""
    return suites.with_cards(study.scale.suite, ids, seed, study.scale.discrete.test_examples)


def accuracies(
    engine: Engine, asked: Sequence[Wording], card: Card, examples: Sequence[Example], shots: Sequence = ()
) -> list[dict[str, Any]]:
    """The accuracy of each wording on examples, without and with contextual calibration, and its credits.

    Args:
      engine: scores the questions.
      asked: the wordings.
      card: of the task.
      examples: to be answered.
      shots: solved examples that stand before each question.
    """
    slots = [wordings.slots_of(card, e) for e in examples]
    found = label_scores(engine, [(w, s) for w in asked for s in slots], shots, card.id)
    by_wording = [torch.stack(found[i : i + len(slots)]) for i in range(0, len(found), len(slots))]
    out = []
    for wording, scores, nothing in zip(asked, by_wording, content_free(engine, asked, shots), strict=True):
        both = {"accuracy": scores, "calibrated": calibrate(scores, nothing)}
        made = {name: accuracy(wording, lines, examples) for name, lines in both.items()}
        out.append({**made, "credits": credits_of(wording, scores, examples).tolist()})
    return out


def accuracy(wording: Wording, scores: Tensor, examples: Sequence[Example]) -> float:
    """The share of examples whose right label has the highest of the scores [B, labels]; ties count 1 / n."""
    return float(credits_of(wording, scores, examples).mean())


def credits_of(wording: Wording, scores: Tensor, examples: Sequence[Example]) -> Tensor:
    """What each example adds to the accuracy [B]: 1, 0, or 1 / n in a tie of n labels."""
    right = torch.tensor([wording.verbalizer.labels.index(e.targets[0]) for e in examples])
    return credit(scores, right)
