"""`iptkit doctor`: what this machine has for the course, and what is missing."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from iptkit.course import lessons, pipeline, schedule
from iptkit.course.estimates import clock, expected_seconds
from iptkit.models.devices import matmul_speed
from iptkit.storage import downloads, installation, paths, reading, versions

Findings = tuple[list[tuple[str, str]], list[str]]  # name and value of each; what the user should do
DISK_NEEDED = 2e9  # bytes, for downloads, converted models and steps


def examine() -> Findings:
    """Examine packages, processor, cache and disk.

    Returns: name and value of each finding, and a list of what the user should do.
    """
    from iptkit.models.devices import native_dtype, resolve_device

    device = resolve_device("auto")
    dtype = native_dtype(device)
    speed = matmul_speed(str(device))
    table = [
        *versions.rows(),
        ("device", f"{device}, data type {dtype}, {speed:.2f} TFLOP/s in matrix products"),
    ]
    todo = []
    for findings, duties in (_packages(), _notebooks(), _cache(), _disk(), _times(speed, device.type)):
        table += findings
        todo += duties
    return table, todo


def _packages() -> Findings:
    """Check that every package that iptkit requires is installed, and which extras are complete."""
    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("iptkit") or []]
    except importlib.metadata.PackageNotFoundError:
        advice = installation.command(*installation.of_course())
        return [("installed", "iptkit itself is not installed; it runs from its folder")], [advice]
    extras = importlib.metadata.metadata("iptkit").get_all("Provides-Extra") or []
    absent = {
        extra: [f"{one.name}{found}" for one, found in _absent(wanted, extra)] for extra in ("", *extras)
    }
    needed = [extra for extra in installation.of_course() if absent.get(extra)]
    findings, duties = [], []
    if absent[""] or needed:
        names = ", ".join(absent[""] + [name for extra in needed for name in absent[extra]])
        findings.append(("installed", f"without {names}"))
        duties.append(f"{installation.command(*installation.of_course())}  (missing: {names})")
    else:
        findings.append(("installed", "all packages that the course needs"))
    for extra in extras:
        if absent[extra] and extra not in needed:
            names, how = ", ".join(absent[extra]), installation.command(extra)
            findings.append(("", f"without the optional extra {extra} ({names}); to install it: {how}"))
    return findings, duties


def _absent(wanted: list[Requirement], extra: str) -> Iterator[tuple[Requirement, str]]:
    """Yield the packages of an extra ("": of iptkit itself) that are missing or have another version."""
    for one in wanted:
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        if extra and (one.marker is None or one.marker.evaluate({"extra": ""})):
            continue  # iptkit itself requires it
        try:
            found = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            yield one, ""
            continue
        if found is None or not one.specifier.contains(found, prereleases=True):
            yield one, f" ({one.specifier}; {found} is installed)"


def _notebooks() -> Findings:
    """Check that notebooks can be run and their pages be written."""
    try:
        pipeline.check()
    except (ImportError, AttributeError, ValueError) as error:
        advice = str(error) if isinstance(error, ValueError) else installation.problem(error)
        if advice is None:
            raise
        return [("notebooks", "cannot be run")], [advice]
    return [("notebooks", "can be run")], []


def _cache() -> Findings:
    folders = (paths.downloads_dir(), paths.models_dir(), paths.tasks_dir(), paths.steps_dir())
    sizes = ", ".join(f"{folder.name} {_size(folder) / 1e6:.0f} MB" for folder in folders)
    found = [("cache", str(paths.cache_dir())), ("", sizes)]
    missing = downloads.missing()
    if not missing:
        return found, []
    megabytes = sum(downloads.package(name).bytes for name in missing) / 1e6
    names = ", ".join(missing)
    return found, [f"iptkit fetch  (downloads {names}: {megabytes:.0f} MB; `iptkit run` does this, too)"]


def _disk() -> Findings:
    free = shutil.disk_usage(paths.cache_dir()).free
    duty = f"free {DISK_NEEDED / 1e9:.0f} GB of disk, or set IPTKIT_CACHE elsewhere"
    return [("free disk", f"{free / 1e9:.0f} GB")], [] if free > DISK_NEEDED else [duty]


def _times(speed: float, device: str) -> Findings:
    """Estimate the time of the lessons here: the measured time, scaled by this machine's speed."""
    from iptkit.studies import scales

    try:
        expected, course = expected_seconds("lesson"), lessons.find()
    except FileNotFoundError as error:
        return [("course", "its notebooks are missing")], [str(error)]
    if not expected:
        return [("course", "its time has not been measured yet")], []
    at_once = schedule.fitting(course, expected, scales.load("lesson").context_gib, device)
    seconds = schedule.together(course, expected, at_once)
    entry = reading.read_json(paths.data_dir() / "timings.json")["lesson"]
    where = entry.get("made_with", {}).get("processor", "another machine")
    how = ", two notebooks at a time" if at_once == 2 else ""
    text = f"{clock(seconds)} where it was measured ({where}){how}"
    if entry.get("teraflops"):
        here = clock(seconds * entry["teraflops"] / speed)
        text = f"about {here} here after downloads (less if other programs are running now); {text}"
    return [("course", text)], []


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
