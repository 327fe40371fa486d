"""Rows of the study of encoders made by hand, with effects that are known."""

import numpy as np

WHOLE, CUT, CAUSAL = "minilm-l6", "minilm-l6, first 3 layers", "smollm2-135m"
LEVELS = {  # what is measured -> the score of classifications and of tags, beside the task's own
    "commonest answer": (0.30, 0.10),
    "linear probe": (0.50, 0.40),
    "prompt tuning": (0.60, 0.50),
    "P-Tuning v2": (0.70, 0.70),
    "MPT-2": (0.75, 0.75),
    "fine-tuning": (0.71, 0.71),
    "P-Tuning v2, 3": (0.60, 0.60),
    "fine-tuning, 3": (0.60, 0.60),
    "length 4": (0.65, 0.60),
    "length 16": (0.70, 0.70),
    "length 64": (0.70, 0.76),
    "first 1": (0.60, 0.60),
    "first 3": (0.64, 0.64),
    "last 1": (0.64, 0.64),
    "last 3": (0.68, 0.68),
    "embedding": (0.70, 0.70),
    "mlp": (0.70, 0.70),
    "linear": (0.60, None),
    "LM head": (0.60, None),
}
SHARES = {"prompt tuning": 0.0004, "P-Tuning v2": 0.0034, "P-Tuning v2, 3": 0.0034}
SPREAD = 0.03  # the MLP helps every other task by so much and hurts the others by as much


def rows(changes=None, groups=24, noise=0.01, seed=0, untrained=(), spread=SPREAD, shares=SHARES):
    """Rows of `groups` leakage groups of one or two tasks, classifications and tag sets in turn.

    Args:
      changes: key of LEVELS -> its two scores.
      groups: how many.
      noise: standard deviation of each score.
      seed: of the noise.
      untrained: tasks whose fine-tuning is below the probe.
      spread: what the MLP gains on some tasks and loses on others.
      shares: key of LEVELS -> share of the parameters that it trains.
    """
    rng, found = np.random.default_rng(seed), []
    tasks = [(f"t{g}{'ab'[i]}", g) for g in range(groups) for i in range(1 + (g % 4 > 1))]
    own = {task: rng.uniform(-0.2, 0.2) for task, _ in tasks}
    for key, levels in (LEVELS | (changes or {})).items():
        for place, (task, group) in enumerate(tasks):
            level = levels[group % 2]
            if level is None:
                continue
            for about in _places(key):
                gain = (1 if place // 2 % 2 else -1) * spread if key == "mlp" else 0
                row = {
                    "task": task, "group": f"g{group}", "category": ("cls", "tag")[group % 2], "fold": "",
                    "seed": 0, "data": "full", "part": "compared", "backbone": WHOLE, "method": "P-Tuning v2",
                    "score": own[task] + level + gain + rng.normal(0, noise), "log_likelihood": -1.0,
                    "share": shares.get(key, 0.001),
                } | about  # fmt: skip
                if row["method"] == "fine-tuning":
                    row["is_trained"] = task not in untrained
                found.append(row)
    wrong = {"data": "few-shot", "score": 9.0}
    return found + [row | wrong for row in found if row["part"] == "compared"]


def _places(key):
    """The fields of a key's rows, one dictionary for each row of a task."""
    what, _, value = key.rpartition(" ")
    if what == "length":
        return [{"part": "lengths", "length": int(value)}]
    if what in ("first", "last"):
        return [{"part": "depths", "order": what, "layers": int(value)}]
    if key in ("embedding", "mlp"):
        return [{"part": "forms", "form": key, "seed": seed} for seed in (0, 1)]
    if key in ("linear", "LM head"):
        return [{"part": "heads", "head": key, "data": "few-shot", "backbone": CAUSAL}]
    method, _, layers = key.partition(", ")
    return [{"method": method, "backbone": CUT if layers else WHOLE}]
