"""Archives of finished steps, with which a study continues on another machine.

An archive is a tar file, gzip-compressed if its name ends in .gz. It holds nothing but regular files
FOLDER/step.safetensors, where FOLDER is the name of a step's folder in the step cache (see `step_cache`).
Equal steps give equal bytes: members are sorted and have no times and owners.

`unpack` trusts nothing in an archive. It checks everything before the first step takes its place, so an
archive that is refused adds no step. Checksums show damage, but no forgery: whoever makes an archive can put
any result into it.

The headers are read one by one with `tarfile.TarInfo.frombuf`, because `tarfile.open` follows extended
headers, which may have any size, and takes an archive that is cut short between two members for a whole one.
"""

from __future__ import annotations

import contextlib
import fnmatch
import gzip
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from iptkit.storage import files, messages, outputs, paths, progress, reading, tensor_files
from iptkit.storage.step_cache import DONE

ENDINGS = (".tar", ".tar.gz")
MOST_STEPS = 100_000  # in one archive
MOST_BYTES = 64 * 2**30  # of all steps in one archive
MOST_BYTES_OF_STEP = 8**11 - 1  # 8 GiB: more does not fit into a tar header
LONGEST_NAME = 155  # bytes of a folder's name that fit into a tar header
FIELDS: dict[str, Any] = {"values": dict, "seconds": (int, float), "config": object, "made_with": dict}
CHUNK = 2**20
IN_ARCHIVE = f"an archive of `iptkit steps pack` holds regular files FOLDER/{DONE} only"


@dataclass(frozen=True)
class Packed:
    """What `pack` did.

    Attributes:
      path: the archive.
      steps: folders of the steps in it, sorted.
      bytes: size of these steps.
      left_out: folder -> reason, for all others in the step cache.
    """

    path: Path
    steps: tuple[str, ...]
    bytes: int
    left_out: dict[str, str]


@dataclass(frozen=True)
class Unpacked:
    """What `unpack` did.

    Attributes:
      folder: the step cache.
      added: folders of the steps that it lacked, in the archive's order.
      bytes: size of these steps.
      kept: folders of the steps that it had already.
    """

    folder: Path
    added: tuple[str, ...]
    bytes: int
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """A finished step in the step cache.

    Attributes:
      name: its folder: name and hash.
      bytes: size of its file.
      seconds: how long it took to make; None if its header is damaged.
      date: when its file was written here, in local time (ISO 8601).
    """

    name: str
    bytes: int
    seconds: float | None
    date: str


def stored() -> list[Stored]:
    """The finished steps of the step cache, sorted by name. Their checksums are not checked."""
    found = []
    for folder in _folders(paths.steps_dir()):
        if (file := folder / DONE).is_file():
            about = file.stat()
            date = datetime.fromtimestamp(about.st_mtime).astimezone().isoformat(timespec="seconds")
            found.append(Stored(folder.name, about.st_size, _seconds(file), date))
    return found


def pack(path: str | Path, largest: float | None = None, names: Sequence[str] = ()) -> Packed:
    """Write the finished steps of the step cache into an archive, without checkpoints and drafts.

    Args:
      path: the archive, NAME.tar or NAME.tar.gz; an existing file is replaced.
      largest: leave out steps above this many megabytes (10^6 bytes).
      names: leave out steps that match none of these patterns, such as "prompts-*"; a pattern is compared
        with the name of the folder and with the name without its hash. Empty: all steps.
    Returns: what is in the archive and what is not. Damaged steps are left out with a warning.
    Raises: ValueError if a pattern matches no finished step, if no step is left, if the steps exceed 64 GiB,
      or if nothing can be written there; DiskFullError.
    """
    patterns = [names] if isinstance(names, str) else list(names)
    path = paths.expanded(path)
    if not path.name.endswith(ENDINGS):
        raise ValueError(f"{path} is no name of an archive; write NAME.tar or NAME.tar.gz")
    if largest is not None and not largest > 0:
        raise ValueError(f"the largest size is {largest:g} MB; give a positive number of megabytes")
    root = paths.steps_dir()
    chosen, left_out = _choose(root, largest, patterns)
    with outputs.without_empty_folders(path.parent):
        path = outputs.writable_file(path, "FILE")
        with progress.track("check steps", total=len(chosen)) as bar:
            for folder in chosen[:]:
                try:
                    _check(folder / DONE, "it is left out, and a study that needs it makes it again")
                except ValueError as error:
                    messages.warn(str(error))
                    left_out[folder.name] = "damaged"
                    chosen.remove(folder)
                bar.update()
        total = sum((folder / DONE).stat().st_size for folder in chosen)
        if not chosen:
            raise ValueError(f"no step of {root} can be packed ({told(left_out)}); nothing was written")
        if total > MOST_BYTES or len(chosen) > MOST_STEPS:
            raise ValueError(
                f"{len(chosen)} steps with {total / 1e6:.0f} MB are too many for one archive, which holds up "
                f"to {MOST_STEPS} with {MOST_BYTES / 1e6:.0f} MB; choose fewer with --largest or --names"
            )
        _write(path, chosen)
    return Packed(path, tuple(folder.name for folder in chosen), total, left_out)


def told(left_out: dict[str, str]) -> str:
    """The reasons of `Packed.left_out` with their counts.

    >>> told({"a-00000000": "unfinished", "b-00000000": "damaged", "c-00000000": "unfinished"})
    '1 damaged, 2 unfinished'
    """
    reasons = list(left_out.values())
    return ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted({*reasons}))


def unpack(path: str | Path) -> Unpacked:
    """Add the steps of an archive that the step cache lacks; a finished step that it has is left alone.

    Everything is checked first, the checksums of the steps too, so nothing is added from an archive with a
    problem. If the process is stopped while the steps take their places, those that did are complete, and the
    same call adds the others.

    Args:
      path: an archive that `pack` wrote.
    Raises: ValueError naming a damaged or unsafe member, or if the file is cut short or no such archive;
      FileNotFoundError; DiskFullError.
    """
    path, root = paths.expanded(path), paths.steps_dir()
    reading.check_begin(path)
    files.sweep([root])
    added: list[str] = []
    kept: list[str] = []
    problems: list[str] = []
    size = 0
    with files.room_for(root / "unpacked"), files.scratch(root, ".unpacked") as place:
        with _opened(path) as stream, progress.track("check steps") as bar:
            for member in _members(stream, path, place):
                name = member.name.partition("/")[0]
                if os.path.lexists(root / name) and not (root / name).is_dir():
                    problems.append(f"{name}: {root / name} is in the way; move it away")
                    _copy(stream, member, None)
                elif os.path.lexists(root / name / DONE):
                    kept.append(name)
                    _copy(stream, member, None)
                else:
                    added.append(name)
                    (place / name).mkdir()
                    with open(place / name / DONE, "xb") as draft:
                        _copy(stream, member, draft)
                    problems += _problem(place / name / DONE, name)
                bar.update()
        messages.refuse(path, problems)
        for name in added[:]:
            if _place(place / name / DONE, root / name / DONE):
                size += (root / name / DONE).stat().st_size
            else:  # another process made it in the meantime
                added.remove(name)
                kept.append(name)
    return Unpacked(root, tuple(added), size, tuple(kept))


# ---- the step cache ------------------------------------------------------------------------------
def _folders(root: Path) -> list[Path]:
    """The folders of steps, finished or not, sorted by name."""
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and _is_hashed(folder.name))


def _is_hashed(name: str) -> bool:
    return re.fullmatch(r"[^.].*-[0-9a-f]{8}", name) is not None


def _is_portable(name: str) -> bool:
    """Whether a folder of this name can travel: all systems and the terminal take it, and a tar header."""
    is_plain = not re.search(r'[/\\:*?"<>|\n\t]', name) and messages.visible(name) == name
    return _is_hashed(name) and is_plain and len(name.encode(errors="replace")) <= LONGEST_NAME


def _choose(root: Path, largest: float | None, patterns: list[str]) -> tuple[list[Path], dict[str, str]]:
    """Folders of the steps to pack, and why each of the others is left out."""
    chosen, left_out, matched = [], {}, set()
    for folder in _folders(root):
        name, file = folder.name, folder / DONE
        fitting = {
            one for one in patterns if fnmatch.fnmatchcase(name, one) or fnmatch.fnmatchcase(name[:-9], one)
        }
        if not file.is_file():
            left_out[name] = "unfinished"
            continue
        matched |= fitting
        size = file.stat().st_size
        if patterns and not fitting:
            left_out[name] = "of other names"
        elif largest is not None and size > largest * 1e6:
            left_out[name] = f"above {largest:g} MB"
        elif size > MOST_BYTES_OF_STEP:
            left_out[name] = "above 8 GiB"
        elif not _is_portable(name):
            left_out[name] = "with names that other systems refuse"
        else:
            chosen.append(folder)
    if set(left_out.values()) <= {"unfinished"} and not chosen:
        raise ValueError(
            f"there is no finished step in {root}; set IPTKIT_STEPS to the folder of the steps, or let a "
            "study finish one first"
        )
    if missing := [one for one in patterns if one not in matched]:
        raise ValueError(f"no finished step matches {missing[0]!r}; `iptkit steps list` shows their names")
    return chosen, left_out


def _check(file: Path, way_out: str) -> None:
    """Raise ValueError if a file is no step that matches its checksum."""
    _, about = tensor_files.read(file, True, way_out)
    if not all(name in about and isinstance(about[name], kind) for name, kind in FIELDS.items()):
        raise tensor_files.DamagedError(f"{file} is no step (its header lacks fields); {way_out}")


def _problem(file: Path, name: str) -> list[str]:
    """What is wrong with a step that was unpacked, as one sentence; nothing if it is right."""
    try:
        _check(file, "copy the archive again, or pack it again")
    except ValueError as error:
        return [str(error).replace(str(file), f"{name}/{DONE}")]
    return []


def _seconds(file: Path) -> float | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as opened:
            return float(json.loads((opened.metadata() or {})["about"])["seconds"])
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError):
        return None


def _place(draft: Path, target: Path) -> bool:
    """Give a checked step its place; False if there is a finished step already."""
    target.parent.mkdir(exist_ok=True)
    try:
        os.link(draft, target)  # unlike a renaming, it never replaces a file
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if target.exists():
            return False
        os.replace(draft, target)
    return True


# ---- the archive ---------------------------------------------------------------------------------
def _write(path: Path, folders: Sequence[Path]) -> None:
    with contextlib.ExitStack() as stack:
        draft = stack.enter_context(files.atomic(path))
        stream: Any = stack.enter_context(open(draft, "wb"))
        if path.suffix == ".gz":  # an empty name and no time, for equal bytes
            stream = stack.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0))
        tar = stack.enter_context(
            tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8")
        )
        bar = stack.enter_context(progress.track("pack steps", total=len(folders)))
        for folder in folders:
            member = tarfile.TarInfo(f"{folder.name}/{DONE}")  # mode 644, owner 0, time 0
            with open(folder / DONE, "rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                tar.addfile(member, file)
            bar.update()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a tar file, decompressed. Errors that show that it is broken become ValueErrors."""
    try:
        with open(path, "rb") as raw:
            is_compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if is_compressed:
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield raw
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _refusal(path, f"is cut short, damaged or no tar file ({error})") from error


def _members(stream: BinaryIO, path: Path, place: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the checked headers of an archive, each with the stream at its content, which `_copy` reads."""
    seen: set[str] = set()
    total = 0
    while (block := stream.read(tarfile.BLOCKSIZE)) != bytes(tarfile.BLOCKSIZE):
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        _check_member(member, path, place)
        total += member.size
        if member.name in seen:
            raise _refusal(path, f"holds {member.name} twice")
        if total > MOST_BYTES or len(seen) == MOST_STEPS:
            raise _refusal(
                path, f"has more than {MOST_STEPS} steps, or more than {MOST_BYTES / 1e6:.0f} MB of them"
            )
        seen.add(member.name)
        yield member
    rest = stream.read(tarfile.RECORDSIZE + 1)  # the end of a compressed file, so that its checksum is read
    if len(rest) > tarfile.RECORDSIZE or any(rest):
        raise _refusal(path, "goes on behind the end of its archive")
    if not seen:
        raise _refusal(path, "holds no step")


def _check_member(member: tarfile.TarInfo, path: Path, place: Path) -> None:
    """Raise ValueError for everything that `pack` never writes."""
    folder, _, name = member.name.partition("/")
    kinds = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.DIRTYPE: "a folder"}
    if member.type != tarfile.REGTYPE:
        kind = kinds.get(member.type, "no regular file")
        raise _refusal(path, f"is unsafe: its member {member.name!r} is {kind}")
    if name != DONE or not _is_portable(folder):
        raise _refusal(path, f"is unsafe: its member {member.name!r} has another name than a step")
    if not 0 <= member.size <= MOST_BYTES_OF_STEP:
        raise _refusal(path, f"is unsafe: its member {member.name!r} has {member.size} bytes")
    if hasattr(tarfile, "data_filter"):  # since Python 3.11.4
        tarfile.data_filter(member, str(place))


def _copy(stream: BinaryIO, member: tarfile.TarInfo, target: BinaryIO | None) -> None:
    """Read a member's content and padding, and write the content to a file that is then flushed."""
    left = member.size
    while left:
        data = stream.read(min(CHUNK, left))
        if not data:
            raise EOFError(f"{member.name} has {member.size} bytes, {left} are missing")
        left -= len(data)
        if target is not None:
            target.write(data)
    padding = -member.size % tarfile.BLOCKSIZE
    if len(stream.read(padding)) < padding:
        raise EOFError(f"it ends behind {member.name}")
    if target is not None:
        target.flush()
        os.fsync(target.fileno())


def _refusal(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} {why}; {IN_ARCHIVE}. Nothing was added: copy the file again, or pack it again")
