"""The files of a study of subspaces: rows and, beside them, codes, trained prompts and a subspace."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from iptkit.engine.compatibility import made_for
from iptkit.methods import subspace
from iptkit.scores import claims
from iptkit.storage import step_cache, tensor_files
from iptkit.studies import codes, provenance, scales, stored_results, verdicts_ipt
from iptkit.studies.study import Study

ENDINGS = (provenance.ENDING, codes.ENDING, stored_results.PROMPTS, subspace.ENDING)  # besides the rows


def write(study: Study, path: str | Path, finished_only: bool = False) -> int:
    """Measure what is missing of a study, and write its rows, codes, prompts and subspace.

    Next to the rows (`provenance.write`) lie the codes (`codes.save`) and, unless the study is deep or has
    only unseen tasks, the trained prompts of all tasks (`stored_results.load_prompts`) and the subspace at
    the main d_I. A study with folds stores the codes and the subspace of its first fold, and the prompts of
    its first few-shot sample.

    Verdicts on claims are recorded in the results folder (`claims.record`) if the study has folds, which the
    criteria of the claims ask for, and the tasks, d_I and seeds of its scale.

    Args:
      study: to be measured.
      path: of the rows (JSON lines).
      finished_only: measure nothing and judge nothing.
    Returns: the number of rows.
    """
    path = Path(path)

    def extra_files(path: Path) -> None:
        first = study.parts[0] if study.parts else study  # the codes of two subspaces cannot be compared
        codes.save(first, path.with_suffix(codes.ENDING), finished_only)
        if not (study.scale.only_unseen or study.scale.deep):
            _save_prompts_and_subspace(study, path, finished_only)

    count = provenance.write(study, path, finished_only, extra_files)
    is_own = study.scale == scales.load(study.scale.name)
    if not finished_only and is_own and study.scale.folds:
        claims.record_all(verdicts_ipt.verdicts(study.table(), study.scale.main_dim), study.scale.name)
    return count


def _save_prompts_and_subspace(study: Study, path: Path, finished_only: bool) -> None:
    """Write the trained prompts and the subspace, as far as they are finished, next to the rows at `path`."""
    about = {"command": provenance.command(study), **made_for(study.engine, study.scale.prompt_length)}
    found = [
        step_cache.finished(partial(study.bank_of, [seeds])) if finished_only else study.bank_of([seeds])
        for seeds in (study.groups()[:1] if study.scale.folds else study.groups())
    ]
    parts = [step for step in found if step]
    if parts:
        seeds = sorted({row["seed"] for part in parts for row in part.values["rows"]})
        trained = torch.cat([part.tensors["P"] for part in parts])
        if study.scale.folds:
            seeds, trained = seeds[:1], trained[:1]
        tensor_files.write(
            path.with_suffix(stored_results.PROMPTS),
            {"P": trained},
            {**about, "tasks": study.ids, "seeds": seeds},
        )
    of = study.parts[0] if study.parts else study
    if not finished_only or step_cache.finished(partial(of.subspace_step, study.scale.main_dim)):
        autoencoder, _ = of.found(study.scale.main_dim)
        subspace.save(autoencoder, path.with_suffix(subspace.ENDING), {**about, "tasks": of.seen})
