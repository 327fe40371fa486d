"""A study that is killed again and again ends with the rows, and leaves the files, of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from iptkit import files

COMMAND = (
    sys.executable,
    "-m",
    "iptkit",
    "study",
    "--scale",
    "smoke",
    "--device",
    "cpu",
    "--dims",
    "2",
    "--out",
)


@dataclass(frozen=True)
class Place:
    """The folders of one study: its rows, its step cache, and where its temporary files go."""

    folder: Path

    @property
    def rows(self) -> Path:
        return self.folder / "out" / "rows.jsonl"

    def start(self) -> subprocess.Popen:
        """The study's command, in a process group of its own."""
        for name in ("out", "steps", "tmp", "cache"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        places = {f"IPTKIT_{name.upper()}": str(self.folder / name) for name in ("steps", "cache")}
        places |= {"TMPDIR": str(self.folder / "tmp"), "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "cache")}
        variables = {**os.environ, **places, "IPTKIT_QUIET": "1"}
        variables.pop("IPTKIT_SCALE", None)
        where = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "env": variables}
        return subprocess.Popen([*COMMAND, str(self.rows)], start_new_session=True, **where)

    def finish(self) -> str:
        """Run it to its end; returns what it wrote to standard error. Raises RuntimeError if it fails."""
        process = self.start()
        told = process.communicate()[1].decode(errors="replace")
        if process.returncode:
            raise RuntimeError(f"exit status {process.returncode}: {told[-2000:]}")
        return told

    def kill_after(self, seconds: float) -> bool:
        """Start it and kill it, all its processes at once; False if it was done before."""
        process = self.start()
        try:
            told = process.communicate(timeout=seconds)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        if process.returncode:
            raise RuntimeError(f"exit status {process.returncode}: {told[-2000:]}")
        return False

    def steps(self) -> dict[str, tuple[dict[str, torch.Tensor], object]]:
        """Tensors and values of every finished step."""
        found = {}
        for file in sorted((self.folder / "steps").glob("*/step.safetensors")):
            tensors, about = files.read_tensors(file)
            found[file.parent.name] = tensors, about["values"]
        return found

    def left_over(self) -> list[str]:
        """Files and folders that no finished study has: checkpoints and what was written half."""
        everything = [path.relative_to(self.folder) for path in self.folder.rglob("*")]
        temporary = [path for path in everything if path.parts[0] == "tmp" and len(path.parts) > 1]
        half = [path for path in everything if path.name.startswith(".") or "checkpoint" in path.name]
        return sorted({str(path) for path in temporary + half})


def differences(killed: Place, other: Place) -> list[str]:
    """In what a finished study differs from another one: rows byte for byte, steps, what is left over."""
    found = []
    if killed.rows.read_bytes() != other.rows.read_bytes():
        found.append("its rows are others")
    mine, theirs = killed.steps(), other.steps()
    if mine.keys() != theirs.keys():
        found.append(f"steps {sorted(mine.keys() ^ theirs.keys())} are in one of the two")
    for name in mine.keys() & theirs.keys():
        (tensors, values), (others, other_values) = mine[name], theirs[name]
        same = tensors.keys() == others.keys() and all(torch.equal(tensors[k], others[k]) for k in tensors)
        if not same or values != other_values:
            found.append(f"the step {name} holds something else")
    return [*found, *(f"left over: {name}" for name in killed.left_over())]


def undisturbed(folder: Path) -> tuple[Place, float]:
    """A study that nobody kills, and its seconds."""
    place, begun = Place(folder), time.monotonic()
    place.finish()
    return place, time.monotonic() - begun


def kill(folder: Path, other: Place, seconds: float, most: int, rng: random.Random) -> tuple[int, list[str]]:
    """Kill a new study at random moments until it gets done, or `most` times; then let it end.

    Args:
      seconds: that an undisturbed one takes.
    Returns: the number of kills, and in what it differs from `other`.
    """
    place, kills = Place(folder), 0
    while kills < most and place.kill_after(rng.uniform(0.2, 1.0) * seconds):
        kills += 1
    place.finish()
    return kills, differences(place, other)
