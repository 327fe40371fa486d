"""Rows of a study on disk, beside them what made them: command, settings, versions, commit and machine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from iptkit.models.devices import resolve_device
from iptkit.storage import digests, files, paths, reading, result_files, step_cache
from iptkit.studies.base import StudyInputs

ENDING = ".about.json"  # of a provenance


def write(
    study: StudyInputs,
    path: str | Path,
    finished_only: bool = False,
    beside: Callable[[Path], None] | None = None,
) -> int:
    """Measure what is missing and write all rows to `path` (JSON lines), their provenance beside it.

    Args:
      finished_only: measure nothing; the jobs that are not finished are named in the provenance.
      beside: see `write_rows`.
    Returns: the number of rows.
    Raises: ValueError if nothing is finished, or more rows of this study lie there than are finished.
    """
    path = Path(path)
    steps = study.steps(finished_only)
    if finished_only:
        _check_fewer(study, path, sum(len(step.values["rows"]) for step in steps))
    left = [job.name for job in study.jobs() if not job.is_done] if finished_only else []
    rows = [row for step in steps for row in step.values["rows"]]
    return write_rows(study, path, rows, steps, left=left, beside=beside)


def write_rows(
    study: StudyInputs,
    path: str | Path,
    rows: Sequence[dict[str, Any]],
    steps: Sequence[step_cache.Step],
    part: str = "subspace",
    left: Sequence[str] = (),
    beside: Callable[[Path], None] | None = None,
) -> int:
    """Write rows to `path` (JSON lines), and beside it command, settings and what made their steps.

    All files are written before the first takes its place. The provenance does so first and has the checksums
    of the others, so that `check_files` finds files of two studies if the process is killed right then. Files
    of the study that was there before go, such as its prompts, if this one writes none.

    Args:
      part: that of `iptkit study`.
      left: jobs whose rows are missing.
      beside: writes other files beside the rows; called with the path of their draft.
    Returns: the number of rows.
    """
    path = Path(path)
    about = {"command": command(study, part), **describe(study, steps)}
    if left:
        about["not finished"] = list(left)
    name = path.with_suffix(ENDING).name
    with files.together(path.parent, name, _written(path)) as place:
        draft = place / path.name
        result_files.write(draft, rows)
        if beside is not None:
            beside(draft)
        about["files"] = {file.name: digests.sha256(file) for file in sorted(place.iterdir())}
        files.write_json(place / name, about)
    return len(rows)


def _written(path: Path) -> list[str]:
    """Names of the files that the provenance beside rows says were written with it."""
    try:
        known = reading.read_json(path.with_suffix(ENDING)).get("files")
    except (FileNotFoundError, ValueError):  # none, or not ours
        return []
    names = known if isinstance(known, dict) else ()  # older provenances do not say
    return [name for name in names if Path(name).name == name and name.startswith(f"{path.stem}.")]


def check_files(path: str | Path, about: dict[str, Any]) -> None:
    """Make sure that a file is the one that its provenance is of; older provenances do not say.

    Raises: ValueError if it is not.
    """
    path, known = Path(path), about.get("files")
    if known is not None and (not isinstance(known, dict) or known.get(path.name) != digests.sha256(path)):
        raise ValueError(
            f"{path} is not the file that its provenance was written with: it was changed, or a study was "
            "killed while it replaced another's rows. Run the command of the study again"
        )


def _check_fewer(study: StudyInputs, path: Path, count: int) -> None:
    there = len(result_files.read(path)) if path.exists() and not differences(study, path) else 0
    if not count or count < there:
        raise ValueError(
            f"only {count} rows are finished in {paths.steps_dir()}, and {path} has {there}. Nothing was "
            "changed: name another file with --out, or another step cache with IPTKIT_STEPS"
        )


def check_target(study: StudyInputs, path: str | Path, part: str = "subspace") -> None:
    """Make sure that writing a study's rows to `path` replaces no rows of another study.

    Args:
      part: that of `iptkit study`.
    Raises: ValueError naming what differs, if rows of other settings lie there.
    """
    path = Path(path)
    differs = differences(study, path, part) if path.exists() else []
    if differs:
        raise ValueError(
            f"{path} holds rows of another study ({'; '.join(differs)}). Nothing was changed: name another "
            "file with --out, move that one away, or replace it with --overwrite"
        )


def differences(study: StudyInputs, path: str | Path, part: str = "subspace") -> list[str]:
    """In what the study that made the rows at `path` differs from this one, by its provenance."""
    path = Path(path)
    about, older = path.with_suffix(ENDING), {}
    with contextlib.suppress(FileNotFoundError):
        older = reading.read_json(about)
        if not isinstance(older.get("scale", {}), dict) or not isinstance(older.get("command", ""), str):
            raise ValueError(f"{about} does not say what made the rows beside it; move it away and try again")
    mine = json.loads(json.dumps({**asdict(study.scale), "seed": study.seed}))
    mine = {name: value for name, value in mine.items() if name != "context_gib"}  # changes no result
    if "device" in older:
        mine["device"] = str(resolve_device(study.device))
    theirs = {**older.get("scale", {}), **{name: older.get(name) for name in ("seed", "device")}}
    differs = [
        f"{name} {theirs[name]!r} there, {value!r} here"
        for name, value in mine.items()
        if name in theirs and theirs[name] != value
    ]
    if f"--part {part}" not in older.get("command", f"--part {part}"):
        differs.append(f"made by {older['command']!r}, this is part {part}")
    return differs if older else [f"{about.name} is not there, so nothing says what they are"]


def command(study: StudyInputs, part: str = "subspace") -> str:
    """What makes a study's rows again."""
    scale = study.scale
    parts = [f"iptkit study --scale {scale.name} --part {part}"]
    if part == "subspace":
        parts += [f"--suite {scale.suite} --split {scale.split}"] if not scale.seen else []
        parts += [f"--dims {','.join(map(str, scale.dims))} --seeds {len(scale.seeds)}"]
        parts += ["--only-unseen"] if scale.only_unseen else []
    return " ".join(parts)


def describe(study: StudyInputs, steps: Sequence[step_cache.Step] = ()) -> dict[str, Any]:
    """Settings of a study, and what made each distinct group of its steps (versions, commit, machine)."""
    made: dict[str, list[str]] = {}
    for part in [part for step in steps for part in step.parts or (step,)]:
        made.setdefault(json.dumps(part.made_with), []).append(part.name)
    return {
        "scale": asdict(study.scale),
        "dtype": study.backbone.dtype,
        "device": str(study.backbone.device),
        "seed": study.seed,
        "seconds": round(sum(step.seconds for step in steps)),
        "made": [{"steps": names, **json.loads(about)} for about, names in made.items()],
    }
