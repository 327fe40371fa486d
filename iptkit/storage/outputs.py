"""Checks, before any work begins, that results can be written where the user wants them."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from iptkit.storage import files, messages, paths


def writable_folder(folder: str | Path, option: str) -> Path:
    """The folder's absolute path; the folder is created if it does not exist.

    Args:
      folder: where results will be written; a leading `~` is the home folder.
      option: the command-line option that sets the folder, for the error message.
    Raises: ValueError if nothing can be written there.
    """
    folder = paths.expanded(folder).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        is_file = isinstance(error, FileExistsError)
        why = "there is a file of this name" if is_file else messages.reason(error)
        raise ValueError(
            f"cannot write to the folder {folder} ({why}); choose another one with {option}"
        ) from error
    return folder


@contextlib.contextmanager
def without_empty_folders(*places: str | Path) -> Iterator[None]:
    """A context that leaves no empty folder behind: none is there at its end that was missing before.

    Args:
      places: files or folders that may be written inside, with the folders above them.
    """
    paths_of = [paths.expanded(place).absolute() for place in places]
    missing = {path for of in paths_of for path in (of, *of.parents) if not os.path.lexists(path)}
    try:
        yield
    finally:
        for path in sorted(missing, key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):  # it is a file, has one, or was not made
                path.rmdir()


def writable_file(path: str | Path, option: str, endings: Sequence[str] = ()) -> Path:
    """The file's absolute path; its folder is created if it does not exist, an existing file is left alone.

    Args:
      path: where results will be written.
      option: the command-line option that sets the path, for the error message.
      endings: suffixes of further files that will be written next to it, each in place of its own suffix.
    Raises: ValueError if the file, or one of the others, cannot be written there.
    """
    path = Path(path)
    path = writable_folder(path.parent, option) / path.name
    for place in (path, *(path.with_suffix(ending) for ending in endings)):
        try:
            if place.is_dir():  # raises OSError if the name is too long
                raise IsADirectoryError(errno.EISDIR, "there is a folder of this name")
            with files.temporary_file(place):
                pass
        except OSError as error:
            name = f"{place.name[:60]}..." if len(place.name) > 100 else place.name
            raise ValueError(
                f"cannot write the file {name} in {place.parent} ({messages.reason(error)}); "
                f"choose another one with {option}"
            ) from error
    return path
