"""The codes z that IST found for each task: kept in files, drawn on a plane, and walked between.

A code u is measured in standard deviations of the seen tasks' codes from their mean (see
`subspace.code_statistics`), so that all d_I coordinates count alike in a distance. The papers show no picture
of their subspace.
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
from iptkit.storage import paths, step_cache, tensor_files
from iptkit.studies.steps import StudySteps
from iptkit.tasks import suites

ENDING = ".codes.safetensors"


@dataclass(frozen=True)
class Codes:
    """Codes of several tasks.

    Attributes:
      tasks: T ids.  labels: for each task its "category" and "side" (seen or unseen), and of a
        study's codes its leakage "group".
      u: [S, T, d_I] codes found by IST, for each few-shot sample.
      msf: [T, d_I] codes that the encoder of MSF gives to the tasks' own prompts (first sample), in the same
        units.
      seeds: of the S few-shot samples.
    """

    tasks: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    u: np.ndarray
    msf: np.ndarray
    seeds: tuple[int, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        """[T, d_I] mean over the few-shot samples."""
        return self.u.mean(0)


def save(study: StudySteps, path: str | Path, finished_only: bool = False) -> None:
    """Write the codes of a study at all its d_I to a file; makes what is missing.

    Args:
      study: whose codes are written.
      path: of the file; it ends in ENDING.
      finished_only: leave out every d_I and few-shot sample that is not finished instead of making it; there
        is no file if none is.
    """
    tensors, seeds_of = {}, {}
    for dim in study.scale.dims:
        groups = study.groups()
        if finished_only:
            makers = {group: partial(study.codes_of_group, dim, "learned", group) for group in groups}
            groups = [group for group, make in makers.items() if step_cache.finished(make)]
            if not groups or not step_cache.finished(partial(study.subspace_step, dim)):
                continue
        found = [study.codes_of_group(dim, "learned", seeds).tensors["u"] for seeds in groups]
        tensors[f"u-{dim}"], seeds_of[dim] = torch.cat(found), [seed for seeds in groups for seed in seeds]
        autoencoder, _ = study.found(dim)
        bank = study.first_prompts()[[study.ids.index(task) for task in study.coded]]
        with torch.no_grad():
            mean, std = subspace.code_statistics(autoencoder)
            tensors[f"msf-{dim}"] = ((autoencoder.encode(bank) - mean) / std).cpu()
    card_of = {card.id: card for card in suites.list_cards(study.scale.suite)}
    labels = {"side": ["seen" if task in study.seen else "unseen" for task in study.coded]}
    for name in ("category", "group"):
        labels[name] = [getattr(card_of[task], name) for task in study.coded]
    if tensors:
        tensor_files.write(Path(path), tensors, {"tasks": study.coded, "labels": labels, "seeds": seeds_of})


def load(path: str | Path, dim: int) -> Codes:
    """The codes with one d_I from a file that `save` wrote.

    Raises: FileNotFoundError if there is no file; ValueError if it has no codes with that d_I, or is no file
      of `save`.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no codes at {path}; `iptkit study` writes them next to its rows")
    tensors, about = tensor_files.read(path)
    if f"u-{dim}" not in tensors:
        dims = sorted(int(name[2:]) for name in tensors if re.fullmatch(r"u-[0-9]+", name))
        raise ValueError(f"{path.name} has no codes with d_I = {dim}, only {', '.join(map(str, dims))}")
    try:
        tasks, seeds = tuple(about["tasks"]), tuple(about["seeds"][str(dim)])
        labels = {name: tuple(values) for name, values in about["labels"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not name the tasks, labels and seeds of its codes") from error
    wanted = {f"u-{dim}": (len(seeds), len(tasks), dim), f"msf-{dim}": (len(tasks), dim)}
    found = {name: tuple(tensors[name].shape) for name in wanted if name in tensors}
    counts = [len(values) for values in labels.values()]
    if found != wanted or any(count != len(tasks) for count in counts):
        raise ValueError(
            f"{path} has codes of the shapes {found} and labels for {counts} tasks; its {len(seeds)} seeds "
            f"and {len(tasks)} tasks ask for {wanted}"
        )
    u, msf = (tensors[name].numpy() for name in wanted)
    return Codes(tasks, labels, u, msf, seeds)


def load_stored(name: str = "ipt120", dim: int = 5) -> Codes:
    """The codes of a stored study, such as "ipt120"."""
    return load(paths.data_dir() / "results" / f"{name}{ENDING}", dim)


def plane(codes: Codes) -> tuple[np.ndarray, float]:
    """The mean codes on their first two principal components [T, 2], and the share of variance on these."""
    from sklearn.decomposition import PCA

    fitted = PCA(2).fit(codes.mean)
    return fitted.transform(codes.mean), float(fitted.explained_variance_ratio_.sum())


def line(
    decoder: subspace.PromptDecoder, start: torch.Tensor, end: torch.Tensor, points: int
) -> tuple[list[float], torch.Tensor]:
    """The prompts on the line between two codes.

    Args:
      decoder: of the subspace.
      start: [d_I] in standard deviations of the seen tasks' codes from their mean.
      end: the same.
      points: number of points, both ends included.
    Returns: the position of each point between 0 (start) and 1 (end), and the prompts [points, *prompt].
    """
    way = torch.linspace(0, 1, points).tolist()
    with torch.no_grad():
        mean, std = subspace.code_statistics(decoder)
        u = torch.stack([torch.lerp(start, end, share) for share in way]).to(mean.device)
        return way, decoder.decode(mean + std * u)


def walk(
    study: StudySteps, dim: int, first: str, second: str, points: int = 5
) -> tuple[list[float], dict[str, list[float]]]:
    """Scores of two tasks under prompts on the line between their codes (first few-shot sample).

    Args:
      study: which has codes of both tasks.
      dim: d_I.
      first: id of one task.
      second: id of the other one.
      points: number of points on the line with both ends, >= 2.
    Returns: the position of each point between 0 (first) and 1 (second), and the test scores of each of the
      two tasks there.
    Raises: ValueError for a task that has no code, or fewer than 2 points.
    """
    missing = {first, second} - set(study.coded)
    if missing or points < 2:
        raise ValueError(
            f"tasks without a code: {', '.join(sorted(missing)) or 'none'}; points: {points}. Give two of "
            f"{', '.join(study.coded)} and at least 2 points"
        )
    autoencoder, _ = study.found(dim)
    u = study.first_codes(dim).to(study.backbone.device)
    start, end = (u[study.coded.index(task)] for task in (first, second))
    way, prompts = line(autoencoder, start, end, points)
    both = [study.task(task, study.seeds[0]) for task in (first, second)]
    source = FixedPrompt(torch.cat([prompts] * 2), study.prompt_kind)
    outcomes = study.outcomes(source, [task for task in both for _ in way], "walk between two codes")
    scores = [outcome.score for outcome in outcomes]
    return way, {first: scores[:points], second: scores[points:]}
