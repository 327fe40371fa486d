"""Writes the rows of a study, and next to them what made them: command, settings, versions and machine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from iptkit.models.backbone import Backbone
from iptkit.models.devices import resolve_device
from iptkit.storage import digests, files, paths, reading, result_files, step_cache
from iptkit.studies import compact_rows, jobs
from iptkit.studies.study import Study

ENDING = ".about.json"  # of the file with the provenance


class Described(Protocol):
    """What the provenance says of a study: `StudyInputs`, or `encoder_study.EncoderStudy`."""

    @property
    def scale(self) -> Any:
        """Return its settings, a dataclass with a name."""

    @property
    def seed(self) -> int:
        """Return its first seed."""

    @property
    def device(self) -> str:
        """Return the device that was asked for."""

    @property
    def backbone(self) -> Backbone:
        """Return its model."""


def write(
    study: Study,
    path: str | Path,
    finished_only: bool = False,
    extra_files: Callable[[Path], None] | None = None,
) -> int:
    """Measure what is missing of a study, and write all its rows and their provenance.

    Args:
      study: to be measured.
      path: of the rows (JSON lines).
      finished_only: measure nothing; the provenance then names the jobs that are not finished.
      extra_files: see `write_rows`.
    Returns: the number of rows.
    Raises: ValueError if nothing is finished, or if the file already has more rows of this study.
    """
    path = Path(path)
    steps = study.steps(finished_only)
    if finished_only:
        check_fewer(study, path, sum(len(step.values["rows"]) for step in steps))
    left = [job.name for job in jobs.unfinished(study.jobs())] if finished_only else []
    rows = [row for step in steps for row in step.values["rows"]]
    return write_rows(study, path, rows, steps, left=left, extra_files=extra_files)


def write_rows(
    study: Described,
    path: str | Path,
    rows: Sequence[dict[str, Any]],
    steps: Sequence[step_cache.Step],
    part: str = "subspace",
    left: Sequence[str] = (),
    extra_files: Callable[[Path], None] | None = None,
) -> int:
    """Write rows and their provenance: the command, the settings, and what made each step.

    All files are written as drafts before the first one takes its place. The provenance takes its place first
    and has the checksums of the others, so that `check_files` notices if the process is killed in between.
    Files of the previous study, such as its prompts, are removed if this one does not write them. The rows
    are whole; `make_compact` makes their file smaller.

    Args:
      study: whose rows they are.
      path: of the rows (JSON lines).
      rows: to be written.
      steps: that the rows come from.
      part: of `iptkit study`: "subspace", "deep", "curves" or "encoders".
      left: names of the jobs whose rows are missing.
      extra_files: writes other files next to the rows; called with the path of their draft.
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
        if extra_files is not None:
            extra_files(draft)
        about["files"] = {file.name: digests.sha256(file) for file in sorted(place.iterdir())}
        files.write_json(place / name, about)
    return len(rows)


def make_compact(path: str | Path) -> None:
    """Rewrite a file of rows so that what many of them have in common is in the provenance, and there once.

    `read_rows` returns the same rows as before; the other files beside the rows are left alone.

    Args:
      path: of the rows that `write_rows` wrote.
    Raises: see `read_rows`.
    """
    path = Path(path)
    rows, about = read_rows(path)
    rows, shared = compact_rows.pack(rows)
    name = path.with_suffix(ENDING).name
    with files.together(path.parent, name) as place:
        lines = [json.dumps(row, sort_keys=True, separators=(",", ":")) for row in rows]
        (place / path.name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        if "files" in about:
            about["files"] = {**about["files"], path.name: digests.sha256(place / path.name)}
        files.write_json(place / name, {**about, **shared})


def read_rows(path: str | Path, fields: Sequence[str] = ()) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows that `write_rows` wrote, whole also after `make_compact`, and their provenance.

    Args:
      path: of the rows.
      fields: that the rows have in any case, see `result_files.read`; of compact rows the fields that stay.
    Returns: the rows; and what made them, without the fields that the rows share.
    Raises: FileNotFoundError; ValueError for a file that is broken, or is not the one that its provenance was
      written with.
    """
    path = Path(path)
    rows = result_files.read(path, fields)
    about = reading.read_json(path.with_suffix(ENDING))
    check_files(path, about)
    shared = {name: about.pop(name) for name in compact_rows.SHARED if name in about}
    return compact_rows.unpack(rows, shared, path.with_suffix(ENDING)), about


def _written(path: Path) -> list[str]:
    """Names of the files that were written with the rows at `path`, by their provenance."""
    try:
        known = reading.read_json(path.with_suffix(ENDING)).get("files")
    except (FileNotFoundError, ValueError):  # there is none, or it is not ours
        return []
    names = known if isinstance(known, dict) else ()  # older ones do not list them
    return [name for name in names if Path(name).name == name and name.startswith(f"{path.stem}.")]


def check_files(path: str | Path, about: dict[str, Any]) -> None:
    """Raise ValueError unless a file has the checksum in its provenance; older ones have no checksums."""
    path, known = Path(path), about.get("files")
    if known is not None and (not isinstance(known, dict) or known.get(path.name) != digests.sha256(path)):
        raise ValueError(
            f"{path} is not the file that its provenance was written with: it was changed, or a study was "
            "killed while it replaced the rows of another. Run the command of the study again"
        )


def check_fewer(study: Described, path: str | Path, count: int, part: str = "subspace") -> None:
    """Raise ValueError if `count` rows would replace more rows of the same study, or if there are none."""
    path = Path(path)
    there = len(result_files.read(path)) if path.exists() and not differences(study, path, part) else 0
    if not count or count < there:
        raise ValueError(
            f"only {count} rows are finished in {paths.steps_dir()}, and {path} has {there}. Nothing was "
            "changed: name another file with --out, or another step cache with IPTKIT_STEPS"
        )


def check_target(study: Described, path: str | Path, part: str = "subspace") -> None:
    """Check that writing the rows of a study replaces no rows of another study.

    Args:
      study: whose rows are to be written.
      path: of the rows.
      part: of `iptkit study`.
    Raises: ValueError that says what differs if the file has rows of other settings.
    """
    path = Path(path)
    differs = differences(study, path, part) if path.exists() else []
    if differs:
        raise ValueError(
            f"{path} holds rows of another study ({'; '.join(differs)}). Nothing was changed: name another "
            "file with --out, move that one away, or replace it with --overwrite"
        )


def differences(study: Described, path: str | Path, part: str = "subspace") -> list[str]:
    """How the study that made the rows at `path` differs from this one, by its provenance."""
    path = Path(path)
    about, older = path.with_suffix(ENDING), {}
    with contextlib.suppress(FileNotFoundError):
        older = reading.read_json(about)
        if not isinstance(older.get("scale", {}), dict) or not isinstance(older.get("command", ""), str):
            raise ValueError(
                f"{about} does not say what made the rows next to it; move it away and try again"
            )
    mine = json.loads(json.dumps({**asdict(study.scale), "seed": study.seed}))
    mine = {name: value for name, value in mine.items() if name != "context_gib"}  # it changes no result
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
    return differs if older else [f"{about.name} is not there, so nothing says what made them"]


def command(study: Described, part: str = "subspace") -> str:
    """The command that makes the rows of a study."""
    scale = study.scale
    parts = [f"iptkit study --scale {scale.name} --part {part}"]
    if part == "subspace":
        is_given = not scale.seen and not scale.folds
        parts += [f"--suite {scale.suite} --split {scale.split}"] if is_given else []
        parts += [f"--dims {','.join(map(str, scale.dims))}"]
        count = len(scale.seeds)  # --seeds says 0, 1, ...; other seeds are the scale's own
        parts += [f"--seeds {count}"] if scale.seeds == tuple(range(count)) else []
        parts += ["--only-unseen"] if scale.only_unseen else []
    return " ".join(parts)


def describe(study: Described, steps: Sequence[step_cache.Step] = ()) -> dict[str, Any]:
    """The settings of a study, and for its steps the versions, commit and machine that made them."""
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
