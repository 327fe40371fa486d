"""What is in z: the numbers that IST found for each task, and which tasks lie near each other.

A code u is in standard deviations of the seen tasks' codes around their mean (`subspace.code_statistics`), so
that distances count each of the d_I numbers alike. The papers show no picture of their subspace.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from iptkit.methods import subspace
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.scores import intervals
from iptkit.storage import paths, step_cache, tensor_files
from iptkit.studies.steps import StudySteps
from iptkit.tasks import suites

ENDING = ".codes.safetensors"
SHUFFLES = 2000


@dataclass(frozen=True)
class Codes:
    """Codes of several tasks.

    Attributes:
      tasks: T ids.  labels: for each task its "category", leakage "group" and "side" (seen or unseen).
      u: [S, T, d_I] found by IST, one row per few-shot sample.
      msf: [T, d_I] of the tasks' own prompts (first sample) by the encoder of MSF, in the same units.
      seeds: S, of the few-shot samples.
    """

    tasks: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    u: np.ndarray
    msf: np.ndarray
    seeds: tuple[int, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        """[T, d_I] mean over the samples."""
        return self.u.mean(0)


@dataclass(frozen=True)
class Agreement:
    """How often the nearest other task has the same label.

    Attributes:
      share: (mean, low, high) of `evaluation.interval` over the tasks that could agree, by leakage groups.
      by_chance: mean share where the labels are shuffled between tasks.
      p: how often a shuffle does as well, at least 1 / (SHUFFLES + 1).
      tasks: that could agree: their label is there twice.
    """

    share: tuple[float, float, float]
    by_chance: float
    p: float
    tasks: int


def save(study: StudySteps, path: str | Path, finished_only: bool = False) -> None:
    """Write the codes of a study at all its d_I to `path`, which ends in ENDING; makes what is missing.

    Args:
      finished_only: leave out a d_I, or a sample, that is not finished.
    """
    tensors, seeds_of = {}, {}
    for dim in study.scale.dims:
        groups = study.groups()
        if finished_only:
            groups = [
                g for g in groups if step_cache.finished(partial(study.codes_of_group, dim, "learned", g))
            ]
            if not groups or not step_cache.finished(lambda dim=dim: study.subspace(dim)[1]):
                continue
        found = [study.codes_of_group(dim, "learned", seeds).tensors["u"] for seeds in groups]
        tensors[f"u-{dim}"], seeds_of[dim] = torch.cat(found), [seed for seeds in groups for seed in seeds]
        autoencoder, _ = study.subspace(dim)
        bank = study.first_prompts()[-len(study.coded) :]
        with torch.no_grad():
            center, spread = subspace.code_statistics(autoencoder)
            tensors[f"msf-{dim}"] = ((autoencoder.encode(bank) - center) / spread).cpu()
    card_of = {card.id: card for card in suites.list_cards(study.scale.suite)}
    sides = ["seen" if task in study.seen else "unseen" for task in study.coded]
    labels = {"side": sides}
    for name in ("category", "group"):
        labels[name] = [getattr(card_of[task], name) for task in study.coded]
    tensor_files.write(Path(path), tensors, {"tasks": study.coded, "labels": labels, "seeds": seeds_of})


def load(path: str | Path, dim: int) -> Codes:
    """The codes of a file that `keep` wrote.

    Raises: FileNotFoundError if it is not there; ValueError if it has no codes with that d_I, or is not
      what `keep` writes.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no codes at {path}; `iptkit study` writes them beside its rows")
    tensors, about = tensor_files.read(path)
    if f"u-{dim}" not in tensors:
        dims = sorted(int(name[2:]) for name in tensors if re.fullmatch(r"u-[0-9]+", name))
        raise ValueError(f"{path.name} has no codes with d_I = {dim}, only {', '.join(map(str, dims))}")
    try:
        of, seeds = tuple(about["tasks"]), tuple(about["seeds"][str(dim)])
        labels = {name: tuple(values) for name, values in about["labels"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not say of which tasks, labels and seeds its codes are") from error
    wanted = {f"u-{dim}": (len(seeds), len(of), dim), f"msf-{dim}": (len(of), dim)}
    found = {name: tuple(tensors[name].shape) for name in wanted if name in tensors}
    if found != wanted or any(len(values) != len(of) for values in labels.values()):
        told = (
            f"{path} has codes of the shapes {found} and labels for {[len(v) for v in labels.values()]} tasks"
        )
        raise ValueError(f"{told}; its {len(seeds)} seeds and {len(of)} tasks ask for {wanted}")
    u, msf = (tensors[name].numpy() for name in wanted)
    return Codes(of, labels, u, msf, seeds)


def load_stored(name: str = "ipt120", dim: int = 5) -> Codes:
    """Codes that come with the project, see `read`."""
    return load(paths.data_dir() / "results" / f"{name}{ENDING}", dim)


def distances(points: np.ndarray) -> np.ndarray:
    """[T, d] -> [T, T] Euclidean distances."""
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def nearest(codes: Codes, count: int = 3) -> dict[str, list[str]]:
    """The nearest other tasks of each task, by the mean code."""
    apart = distances(codes.mean)
    np.fill_diagonal(apart, np.inf)
    return {
        task: [codes.tasks[j] for j in row.argsort()[:count]]
        for task, row in zip(codes.tasks, apart, strict=True)
    }


def plane(codes: Codes) -> tuple[np.ndarray, float]:
    """[T, 2] places of the tasks on the main axes of their mean codes, and the share of variance there."""
    from sklearn.decomposition import PCA

    fitted = PCA(2).fit(codes.mean)
    return fitted.transform(codes.mean), float(fitted.explained_variance_ratio_.sum())


def told_apart(codes: Codes) -> tuple[float, float, float]:
    """How often the nearest code from another sample is that of the same task: mean, low, high (by groups).

    By chance it is 1 / T; samples of a small task may share examples. Raises: ValueError for a single sample.
    """
    if len(codes.u) < 2:
        raise ValueError("codes of one few-shot sample; give a study with at least 2 seeds")
    hits: list[list[float]] = [[] for _ in codes.tasks]
    for s, mine in enumerate(codes.u):
        for r in (r for r in range(len(codes.u)) if r != s):
            found = np.linalg.norm(mine[:, None] - codes.u[r][None], axis=-1).argmin(1)
            for task, other in enumerate(found):
                hits[task].append(float(other == task))
    return intervals.interval(hits, groups=codes.labels["group"])


def agreement(codes: Codes, label: str, seed: int = 0) -> Agreement:
    """Does the nearest other task have the same label ("category", "group" or "side")?

    For "category" and "side" a task's relatives (its leakage group) are no neighbours: they would tell of
    themselves. The interval is over leakage groups, which as neighbours are not quite independent either.

    Raises: ValueError for another label, or if no label is there twice.
    """
    if label not in codes.labels:
        raise ValueError(f"codes have no label {label!r}, only {', '.join(codes.labels)}")
    values, groups = np.array(codes.labels[label]), np.array(codes.labels["group"])
    apart = distances(codes.mean)
    np.fill_diagonal(apart, np.inf)
    if label != "group":
        apart[groups[:, None] == groups[None]] = np.inf
    neighbour = apart.argmin(1)
    hits, rng = _hits(values, neighbour), np.random.default_rng(seed)
    if not len(hits):
        raise ValueError(f"no two tasks share a {label}")
    shuffled = [_hits(rng.permutation(values), neighbour).mean() for _ in range(SHUFFLES)]
    as_good = sum(share >= hits.mean() - 1e-12 for share in shuffled)
    p = (as_good + 1) / (SHUFFLES + 1)
    mine = groups[_shared(values)].tolist()
    share = intervals.interval([[hit] for hit in hits], groups=mine)
    return Agreement(share, float(np.mean(shuffled)), p, len(hits))


def walk(
    study: StudySteps, dim: int, first: str, second: str, points: int = 5
) -> tuple[list[float], dict[str, list[float]]]:
    """Scores of two tasks under the prompts on the line from one's code to the other's (first sample).

    Args:
      first, second: ids of tasks of the study.
      points: on the line, ends included, >= 2.
    Returns: the shares of the way, and for each of the two tasks its test scores there.
    Raises: ValueError for a task that has no code, or fewer than 2 points.
    """
    missing = {first, second} - set(study.coded)
    if missing or points < 2:
        told = f"tasks without a code: {', '.join(sorted(missing)) or 'none'}; points: {points}"
        raise ValueError(f"{told}. Give two of {', '.join(study.coded)} and at least 2 points")
    autoencoder, _ = study.subspace(dim)
    u = study.first_codes(dim).to(study.backbone.device)
    ends = [u[study.coded.index(task)] for task in (first, second)]
    way = torch.linspace(0, 1, points).tolist()
    with torch.no_grad():
        center, spread = subspace.code_statistics(autoencoder)
        codes = torch.stack([torch.lerp(*ends, share) for share in way])
        prompts = autoencoder.decode(center + spread * codes)
    both = [study.task(task, study.seeds[0]) for task in (first, second)]
    source = FixedPrompt(torch.cat([prompts] * 2), study.prompt_kind)
    scores = study.score(source, [task for task in both for _ in way], "walk between two codes")
    return way, {first: scores[:points], second: scores[points:]}


def labelled(codes: Codes, label: str) -> dict[str, list[int]]:
    """Label -> places of its tasks, for figures."""
    values = codes.labels[label]
    return {name: [i for i, v in enumerate(values) if v == name] for name in dict.fromkeys(values)}


def _hits(values: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """1.0 or 0.0 for each task whose label another one has."""
    return (values[neighbour] == values)[_shared(values)].astype(float)


def _shared(values: np.ndarray) -> np.ndarray:
    """Which of the labels are there more than once."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return counts[where] > 1
