"""Rows of a study with folds made by hand, with effects that are known."""

from dataclasses import asdict

import numpy as np

from iptkit.studies import scales
from iptkit.studies.adapters import METHODS as ADAPTERS
from iptkit.studies.adapters import SHARED
from iptkit.studies.score_rows import AROUND, DECODERS
from iptkit.studies.unseen import DID_AROUND, FROM_WORDS, NEAREST, STAGE_TWO

CATEGORIES = ("cls", "qa", "cls", "gen")  # of the groups, in turn
FOLDS = 3
LEVELS = {  # method and folds -> d_I, seeds, sides, score (times the task's own), log-likelihood
    "zero-shot": (0, 1, ("both",), 0.20, -1.0),
    "prompt tuning": (0, 2, ("both",), 0.80, 0.0),
    "DID": (5, 1, ("both",), 0.30, -0.7),
    DID_AROUND: (5, 1, ("unseen",), 0.45, -0.5),
    "mean code": (5, 1, ("seen", "unseen"), 0.40, -0.6),
    "MSF": (5, 1, ("seen", "unseen"), 0.70, -0.1),
    "IST": (5, 2, ("unseen",), 0.56, -0.2),
    "IST seen": (5, 2, ("seen",), 0.72, -0.1),
    "IST 50": (50, 2, ("seen", "unseen"), 0.90, 0.5),
    "IST few": (5, 2, ("unseen",), 0.46, -0.4),
    "mean code few": (5, 1, ("unseen",), 0.36, -0.65),
    "mean code cls": (5, 1, ("unseen",), 0.35, -0.7),
    "mean code non_cls": (5, 1, ("unseen",), 0.35, -0.65),
    "IST cls on cls": (5, 2, ("unseen",), 0.50, -0.3),
    "IST cls on others": (5, 2, ("unseen",), 0.19, -0.7),
    "IST non_cls on cls": (5, 2, ("unseen",), 0.30, -0.6),
    "IST non_cls on others": (5, 2, ("unseen",), 0.50, -0.3),
    **{
        DECODERS[name]: (5, 2 if name == AROUND[0] else 1, ("unseen",), 0.44, -0.5)
        for name in (*AROUND, "random", "reconstruction")
    },
    NEAREST: (0, 1, ("unseen",), 0.50, -0.4),
    ADAPTERS["learned"]: (5, 1, ("unseen",), 0.66, -0.05),
    ADAPTERS["around"]: (5, 1, ("unseen",), 0.50, -0.3),
    SHARED: (5, 1, ("unseen",), 0.40, -0.6),
    STAGE_TWO: (5, 1, ("unseen",), 0.85, 0.2),
    FROM_WORDS: (0, 1, ("unseen",), 0.75, 0.0),
}
RUNS = {STAGE_TWO: 0.01, FROM_WORDS: 0.05}  # standard deviation over runs


def rows(changes=None, groups=20, noise=(0.01, 0.03), seed=0, runs=RUNS):
    """Rows of `groups` leakage groups of one or two tasks, each unseen and seen in one of three folds.

    Args:
      changes: key of LEVELS -> score and log-likelihood to use instead.
      groups: how many.
      noise: standard deviation of score and log-likelihood of each row.
      seed: of the noise.
      runs: method -> standard deviation of its score over runs.
    """
    rng, found = np.random.default_rng(seed), []
    tasks = [(f"t{g}{'ab'[i]}", g) for g in range(groups) for i in range(1 + g % 2)]
    own = {task: (rng.uniform(0.6, 1.0), rng.normal(-2, 0.3)) for task, _ in tasks}  # how easy a task is
    for key, (dim, seeds, sides, *level) in LEVELS.items():
        score, likelihood = (changes or {}).get(key, level)
        method, *about = (key,) if key == "IST, adapters" else key.split(" ") if "IST" in key else (key,)
        if key.startswith("mean code "):
            method, about = "mean code", [key.removeprefix("mean code ")]
        for task, group in tasks:
            category = CATEGORIES[group % len(CATEGORIES)]
            if "on" in about and (about[-1] == "cls") != (category == "cls"):
                continue
            for side in sides:
                place = (group + (side == "seen")) % FOLDS + 1
                for sample in range(seeds):
                    for run in range(4 if key in RUNS else 1):
                        spread = runs[key] * (-1.5 + run) if key in RUNS else 0
                        row = {
                            "task": task, "group": f"g{group}", "category": category, "split": side,
                            "method": method, "d_I": dim, "seed": sample, "chance": 0.1,
                            "score": own[task][0] * score + rng.normal(0, noise[0]) + spread,
                            "log_likelihood": own[task][1] + likelihood + rng.normal(0, noise[1]),
                        }  # fmt: skip
                        row |= {"fold": _fold(about, place)} if side != "both" else {}
                        row |= {"run": run} if key in RUNS else {}
                        row |= {"reconstruction": 0.3 + rng.normal(0, 0.05)} if key == "MSF" else {}
                        found.append(row)
    return found


def _fold(about, place):
    kind = about[0] if about else ""
    return {"few": f"fold{place}_20", "cls": f"cls{place}", "non_cls": f"non_cls{place}"}.get(
        kind, f"fold{place}"
    )


def curves(seed=0, tasks=12):
    """Rows of learning curves: longer training has a lower loss and a higher score, MSF has none."""
    rng, found = np.random.default_rng(seed), []
    own = [(f"c{i}", CATEGORIES[i % len(CATEGORIES)], rng.uniform(0.6, 1.0)) for i in range(tasks)]

    def add(stage, method, budget, lr, gain, msf="", decoder="", dim=0, count=tasks):
        steps, batch = map(int, budget.split("x"))
        for task, category, level in own[:count]:
            loss = 2.0 - gain + rng.normal(0, 0.02)
            row = {
                "task": task, "group": f"g{task}", "category": category, "split": "unseen", "seed": 0,
                "stage": stage, "method": method, "budget": budget, "rows_per_run": batch, "steps": steps,
                "lr": lr, "msf": msf, "decoder": decoder, "d_I": dim, "chance": 0.1,
                "dev_loss": loss, "cpu_seconds": steps * batch / 40, "log_likelihood": -loss,
                "score": level * gain + rng.normal(0, 0.02),
            }  # fmt: skip
            found.append(row | ({"score": None, "log_likelihood": None} if stage == "msf" else {}))

    for budget, gain in (("40x2", 0.6), ("120x2", 0.8), ("360x2", 0.81)):
        add("prompts", "prompt tuning", budget, 0.3, gain)
        add("msf", "MSF", budget, 0.003, gain, dim=5)
        for own_budget, more in (("16x2", 0.35), ("48x2", 0.55), ("120x2", 0.56)):
            add("ist", "IST", own_budget, 0.1, more + gain / 10, budget, "learned", 5)
    for lr in (0.1, 1.0):
        add("prompts", "prompt tuning", "120x2", lr, 0.7)
    for method, dim in (("fine-tuning", 0), ("DID", 5)):
        add("weights", method, "40x2", 1e-4, 0.7, dim=dim, count=6)
        add("weights", method, "120x2", 1e-4, 0.75, dim=dim, count=6)
    for decoder in ("learned", *AROUND):
        for lr, gain in ((0.1, 0.62), (0.3, 0.6)):
            add("rates", DECODERS[decoder], "48x2", lr, gain, "120x2", decoder, 5)
    return found


def about(name="ipt120"):
    """How these rows would have been made: settings of a scale, and the rest of their provenance."""
    made = [{"processor": "a CPU, 2 cores", "steps": []}]
    return {"scale": asdict(scales.load(name)), "dtype": "float32", "seconds": 7200, "made": made}
