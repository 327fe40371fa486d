"""Files that are whole or absent: written beside their place, flushed, then renamed.

The readers here take any file, also one that no program of ours wrote. What is wrong with it is an error that
names the file, and the line where there is one.

What is unfinished has a name that ends in TEMPORARY and is locked by its process, so that `sweep` removes
what a killed process left and nothing that a living one writes. The lock is the system's (flock), which works
across the nodes that share a folder; where there is none, nothing is swept.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from iptkit.storage import progress

try:
    import fcntl
except ModuleNotFoundError:  # not a POSIX system
    fcntl = None

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
TEMPORARY = ".iptkit-tmp"
DAMAGED = ".damaged"
MAX_DEPTH = 100  # of lists and objects in one another; Python's own limit depends on who calls
NUM_SHOWN = 20  # problems in one error
LFS = b"version https://git-lfs"  # how Git LFS pointers begin
BOM = b"\xef\xbb\xbf"  # some editors begin UTF-8 files with it
NO_TEXT = {  # first bytes of files that are often taken for text
    b"\xff\xfe": "UTF-16, not UTF-8; save it as UTF-8",
    b"\xfe\xff": "UTF-16, not UTF-8; save it as UTF-8",
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"PK\x03\x04": "compressed (zip); unpack it first",
    b"BZh": "compressed (bzip2); unpack it first",
    b"\xfd7zXZ": "compressed (xz); unpack it first",
    b"PAR1": "a Parquet file; write it as text",
}


class DiskFullError(OSError):
    """There is no room for a file; what is finished is kept."""


class DamagedError(ValueError):
    """A file does not hold what was written into it."""


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` on success; on an error nothing changes.

    Raises: DiskFullError where there is no room for the file.
    """
    path = Path(path)
    with room_for(path), _beside(path) as temporary:
        yield temporary


@contextlib.contextmanager
def room_for(path: str | Path) -> Iterator[None]:
    """Name `path` where what writes it inside finds no room. Raises: DiskFullError then."""
    path = Path(path)
    try:
        yield
    except Exception as error:  # safetensors has an error of its own, with the system's in its text
        of_rust = type(error).__name__ == "SafetensorError"  # not a traceback of it, as papermill's error has
        told = of_rust and any(f"(os error {number})" in str(error) for number in NO_SPACE)
        if getattr(error, "errno", None) not in NO_SPACE and not told:
            raise
        raise DiskFullError(
            f"no space left for {path.name} in {path.parent}. What is finished is kept and nothing is half "
            "written: free space there, or set IPTKIT_STEPS (finished steps), IPTKIT_CACHE (downloads, "
            "models, tasks) or --out (results) to a folder with room, and run the same command again"
        ) from error


@contextlib.contextmanager
def alone(folder: str | Path, what: str) -> Iterator[None]:
    """Inside, no other process that asks for the same folder's lock goes on; it waits, and says so.

    The lock is the system's: a process that is killed leaves none.

    Args:
      folder: holds the file `lock`.
      what: is made there, for whoever waits.
    Raises: ValueError where the folder's file system knows no locks.
    """
    folder = Path(folder)
    lock = FileLock(folder / "lock", fallback_to_soft=False)
    try:
        with room_for(folder / "lock"):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                with progress.track(f"waiting for another process that makes {what}"):
                    lock.acquire()
    except DiskFullError:
        raise
    except (OSError, NotImplementedError) as error:
        raise ValueError(
            f"{folder} cannot be locked ({error}), so two processes might make {what} at once; set "
            "IPTKIT_STEPS and IPTKIT_CACHE to folders on a file system with locks, such as a local disk"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def one_writer(path: str | Path, way_out: str) -> Iterator[None]:
    """Inside, no other process is inside for the same path.

    A killed process does not count. Where the file system knows no locks, nobody is kept out.

    Args:
      way_out: for whoever is kept out.
    Raises: ValueError if another process is inside.
    """
    path = Path(path)
    lock = FileLock(path.with_name(f".{path.name}.lock"), fallback_to_soft=False)
    is_held = False
    try:
        lock.acquire(timeout=0)
        is_held = True
    except Timeout:
        raise ValueError(f"another process is writing {path}. Nothing was changed: {way_out}") from None
    except (OSError, NotImplementedError):
        pass
    try:
        yield
    finally:
        if is_held:
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path) as (handle, temporary):
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        os.fsync(handle)
        os.replace(temporary, path)


def _temporary(path: Path) -> contextlib.AbstractContextManager[tuple[int, Path]]:
    """A new file beside a path, and its handle."""
    prefix = f".{path.name[:100]}."
    return _held(lambda: tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=TEMPORARY))


@contextlib.contextmanager
def scratch(folder: str | Path | None = None, name: str = "iptkit") -> Iterator[Path]:
    """Yield an empty folder that is removed with all in it, by `sweep` where its process was killed.

    Args:
      folder: that it is made in (default: the system's for temporary files).
      name: the first part of its name.
    """
    folder = None if folder is None else Path(folder)

    def make() -> tuple[int, str]:
        made = tempfile.mkdtemp(dir=folder, prefix=f"{name}-", suffix=TEMPORARY)
        return os.open(made, os.O_RDONLY) if fcntl else -1, made

    with _held(make) as (_, place):
        yield place


@contextlib.contextmanager
def together(folder: str | Path, first: str, older: Iterable[str] = ()) -> Iterator[Path]:
    """Yield an empty folder whose files take their places in `folder` once all of them are written.

    Args:
      first: name of the file that takes its place first. It should say what the others must be.
      older: names of files in `folder` that are removed then if none of the new ones takes their place.
    On an error nothing changes. Raises: DiskFullError where there is no room for one of them.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with room_for(folder / first), scratch(folder, ".unfinished") as place:
        yield place
        made = sorted(place.iterdir(), key=lambda file: (file.name != first, file.name))
        for file in made:
            with open(file, "rb+") as stream:
                os.fsync(stream.fileno())
        for name in {*older} - {file.name for file in made}:
            (folder / name).unlink(missing_ok=True)
        for file in made:
            os.replace(file, folder / file.name)


@contextlib.contextmanager
def _held(make: Callable[[], tuple[int, str]]) -> Iterator[tuple[int, Path]]:
    """A temporary file or folder, locked while it is there, so that `sweep` of another process leaves it.

    Args:
      make: makes it; returns an open handle (-1: none) and its path.
    """
    while True:
        handle, name = make()
        if fcntl:
            with contextlib.suppress(OSError):  # a file system without locks, on which nothing is swept
                fcntl.flock(handle, fcntl.LOCK_EX)
        temporary = Path(name)
        if temporary.exists():
            break
        os.close(handle)  # swept before it was locked
    try:
        yield handle, temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        if handle >= 0:
            os.close(handle)


def sweep(folders: Iterable[str | Path]) -> None:
    """Remove what killed processes of this user left unfinished in the folders (not in folders in them)."""
    for folder in map(Path, folders if fcntl else ()):
        for left in folder.glob(f"*{TEMPORARY}"):
            is_folder = left.is_dir()
            try:
                handle = os.open(
                    left, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW | os.O_NONBLOCK
                )
            except OSError:  # gone meanwhile, or another user's
                continue
            with contextlib.suppress(OSError):  # it is locked: its process lives
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(handle).st_uid == os.getuid():
                    shutil.rmtree(left, ignore_errors=True) if is_folder else left.unlink(missing_ok=True)
            os.close(handle)


def set_aside(path: str | Path) -> Path:
    """Rename a damaged file, so that another can take its place; returns where it is now."""
    path = Path(path)
    aside = path.with_name(path.name + DAMAGED)
    with contextlib.suppress(FileNotFoundError):  # another process did
        os.replace(path, aside)
    return aside


# ---- reading -------------------------------------------------------------------------------------
@contextlib.contextmanager
def opened(path: str | Path, wanted: str = "") -> Iterator[BinaryIO]:
    """Open a file to read its bytes; arguments and errors are those of `read_bytes`."""
    hint = f"; {wanted}" if wanted else ""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            with open(path, "rb") as file:
                yield file
            return
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"there is no file {path}{hint}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({reason(error)})") from error
    except ValueError as error:
        if "embedded null" not in str(error):  # in the path
            raise
        raise ValueError(f"{path} cannot be read ({error})") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a folder, a file is needed{hint}")
    raise ValueError(f"{path} is no regular file (a pipe or a device); copy its text into a file")


def read_bytes(path: str | Path, wanted: str = "") -> bytes:
    """What a file holds.

    Args:
      wanted: what to give in its place, for whoever gave a file that is not there.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is a folder, no regular file (reading a pipe might never end), or cannot be read.
    """
    with opened(path, wanted) as file:
        return file.read()


def read_text(path: str | Path, wanted: str = "") -> str:
    """The text of a UTF-8 file, without the byte order mark that it may begin with.

    Raises: what `read_bytes` raises; ValueError naming the line that is not UTF-8.
    """
    data = read_bytes(path, wanted)
    if what := _no_text(data):
        raise ValueError(f"{path}: the file is {what}")
    try:
        return data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        offset = len(data) - len(error.object) + error.start
        line = data.count(b"\n", 0, offset) + 1
        raise ValueError(f"{path}:{line}: {_broken(offset)}") from error


def read_json(path: str | Path, kind: type | None = dict, wanted: str = "") -> Any:
    """The value of a JSON file.

    Args:
      kind: dict or list, None for any.
    Raises: what `read_text` raises; ValueError naming file and line: no JSON, another kind of value, a name
      that stands twice in an object, NaN or infinity, half a character, values too deep in one another.
    """
    try:
        value = _parsed(read_text(path, wanted))
    except _NotJSONError as error:
        raise ValueError(f"{path}:{error.line}: {error}") from error
    if kind is not None and not isinstance(value, kind):
        raise ValueError(f"{path}: the file holds a JSON {json_type(value)}, {_a(kind)} is needed")
    return value


@dataclass(frozen=True)
class Line:
    """One line of a JSON lines file that is not blank: its object, or what is wrong with it.

    number: from 1 on.
    problem: what is wrong and the way out, "" if nothing is; `value` is empty then.
    """

    number: int
    value: dict[str, Any]
    problem: str = ""


def json_lines(path: str | Path, wanted: str = "", nan: bool = False) -> Iterator[Line]:
    """Yield the lines of a file with one JSON object a line; blank lines and byte order marks are left out.

    A line ends at a line feed only, so texts may hold every other mark.

    Args:
      nan: NaN and infinity are allowed, which are no JSON but written by Python.
    Raises: what `read_bytes` raises, before the first line.
    """
    data, offset = read_bytes(path, wanted), 0
    if what := _no_text(data) or _one_value(data):
        yield Line(1, {}, f"the file is {what}")
        return
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            text = raw.removeprefix(BOM).decode("utf-8").strip()
            if text:
                value = _parsed(text, nan)
                if isinstance(value, dict):
                    yield Line(number, value)
                else:
                    told = f"a JSON {json_type(value)} is given, an object in braces is needed"
                    yield Line(number, {}, told)
        except UnicodeDecodeError as error:
            yield Line(number, {}, _broken(offset + len(raw) - len(error.object) + error.start))
        except _NotJSONError as error:
            yield Line(number, {}, f"{error}; each line needs one whole JSON object")
        offset += len(raw) + 1


def read_json_lines(path: str | Path, wanted: str = "", nan: bool = False) -> list[tuple[int, dict]]:
    """The objects of a JSON lines file, each with the number of its line.

    Raises: what `json_lines` raises; ValueError with the first 20 broken lines, and how many there are.
    """
    lines = list(json_lines(path, wanted, nan))
    refuse(path, [f"{path}:{line.number}: {line.problem}" for line in lines if line.problem])
    return [(line.number, line.value) for line in lines]


def refuse(path: str | Path, problems: Sequence[str]) -> None:
    """Raise ValueError with the first 20 problems of a file and how many there are, if there is any."""
    if problems:
        shown = "\n".join(first(problems))
        raise ValueError(f"{path} has {len(problems)} problem(s); nothing was changed:\n{shown}")


def first(problems: Sequence[str]) -> list[str]:
    """The first 20 problems, and how many more there are."""
    more = len(problems) - NUM_SHOWN
    return [*problems[:NUM_SHOWN], *([f"... and {more} more"] if more > 0 else [])]


def listed(folder: str | Path, ending: str) -> list[Path]:
    """What a folder holds with this ending, in order; capitals do not matter, and dot files are left out.

    Editors and file managers put dot files beside others (`.a.jsonl.swp`, `._a.jsonl`).
    Raises: ValueError where the folder cannot be read; FileNotFoundError where it is not there.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"there is no folder {folder}") from error
    except OSError as error:
        raise ValueError(f"the folder {folder} cannot be read ({reason(error)})") from error
    return sorted(
        Path(folder) / name for name in names if name.lower().endswith(ending) and not name.startswith(".")
    )


def expanded(path: str | Path) -> Path:
    """The path with the home folder in place of a `~` at its beginning, where that is known."""
    return Path(os.path.expanduser(path))


def json_type(value: object) -> str:
    """The JSON name of a value's type.

    >>> json_type(None), json_type([1]), json_type(True)
    ('null', 'list', 'true/false')
    """
    names = {str: "string", bool: "true/false", list: "list", dict: "object", type(None): "null"}
    return names.get(type(value), "number")


def reason(error: OSError) -> str:
    """What the system says."""
    return error.strerror or str(error) or type(error).__name__


def visible(text: str) -> str:
    r"""A text to print: characters that would steer a terminal stand as their escapes.

    They are control characters other than line feed and tab, marks that turn the direction of writing, and
    half characters, which cannot be printed.

    >>> print(visible("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return STEERING.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class _NotJSONError(ValueError):
    """A text is no JSON; `line` is where."""

    def __init__(self, message: str, line: int = 1):
        super().__init__(message)
        self.line = line


def _parsed(text: str, nan: bool = False) -> Any:
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=float if nan else _constant,
            parse_float=float if nan else _number,
        )
    except RecursionError:
        raise _NotJSONError(f"lists or objects stand over {MAX_DEPTH} deep in one another") from None
    except json.JSONDecodeError as error:
        raise _NotJSONError(f"not valid JSON ({error.msg}, column {error.colno})", error.lineno) from None
    except _NotJSONError:
        raise
    except ValueError as error:  # an integer of more digits than Python reads
        raise _NotJSONError(f"not valid JSON ({error})") from None
    if text.count("[") + text.count("{") > MAX_DEPTH or re.search(r"\\u[dD]", text):
        _check(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _NotJSONError(f"{twice[:80]!r} stands twice in one object; keep one of them")
    return found


def _constant(name: str) -> float:
    raise _NotJSONError(f"{name} is no JSON; write a number, null or a string")


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _NotJSONError(f"the number {text[:80]} is too large")
    return value


def _check(value: Any) -> None:
    """Refuse values too deep in one another, and strings with half a character."""
    waiting = [("", value, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise _NotJSONError(f"lists or objects stand over {MAX_DEPTH} deep in one another")
        if isinstance(value, dict):
            waiting += [(f"a name in {name or 'the object'}", key, depth) for key in value]
            waiting += [(f"{name}.{key}".strip("."), of, depth + 1) for key, of in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{name}[{i}]", of, depth + 1) for i, of in enumerate(value)]
        elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise _NotJSONError(
                f"{name[:80] or 'the string'} holds half a character (an unpaired \\u escape); write the "
                "character itself"
            )


def _one_value(data: bytes) -> str:
    """What a file is that holds one list, or one object over several lines, in place of JSON lines."""
    data = data.removeprefix(BOM).strip()
    try:
        if data.startswith(b"["):
            _parsed(data.decode("utf-8"), nan=True)
            return "a JSON array; write its objects one a line, no brackets, no commas"
        if data.split(b"\n", 1)[0].strip() == b"{":
            _parsed(data.decode("utf-8"), nan=True)
            return "one JSON object over several lines; write every object on a line of its own"
    except ValueError:
        pass  # its lines are looked at one by one
    return ""


def _no_text(data: bytes) -> str:
    """What a file is that is no UTF-8 text, as far as its beginning shows."""
    for beginning, what in NO_TEXT.items():
        if data.startswith(beginning):
            return what
    return "no text, or not UTF-8 (it holds NUL bytes); save it as UTF-8" if b"\0" in data else ""


def _broken(offset: int) -> str:
    return f"broken UTF-8 at byte {offset} of the file; save the file as UTF-8"


def _a(kind: type) -> str:
    return {dict: "an object in braces", list: "a list in brackets"}[kind]


# ---- writing -------------------------------------------------------------------------------------
def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")


def write_tensors(path: str | Path, tensors: dict[str, Any], about: dict[str, Any] | None = None) -> None:
    """Write tensors as safetensors, atomically; `about` (JSON) and a checksum of all go into the header."""
    from safetensors.torch import save_file

    written = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    text = json.dumps(about or {})
    with atomic(path) as temporary:
        save_file(written, temporary, {"about": text, "sha256": _checksum(written, text)})


def read_tensors(path: str | Path, must_be_checked: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a file made by `write_tensors`.

    Args:
      must_be_checked: a file without a checksum counts as damaged.
    Returns: its tensors by name, and what was said about them.
    Raises: DamagedError naming a file that is cut short, changed since it was written, or no safetensors;
      FileNotFoundError; ValueError naming a Git LFS pointer, or what cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    way_out = "move it away or delete it and run the same command again"
    check_begin(path)
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        about = json.loads(said.get("about", "{}"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror or error})") from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged ({visible(str(error))}); {way_out}") from error
    if "sha256" in said or must_be_checked:
        if said.get("sha256") != _checksum(tensors, said.get("about", "{}")):
            raise DamagedError(f"{path} is damaged (its contents do not fit their checksum); {way_out}")
    if not isinstance(about, dict):
        raise DamagedError(f"{path} is damaged (`about` in its header is no JSON object); {way_out}")
    return tensors, about


def check_begin(path: str | Path) -> None:
    """Make sure that a file is there, can be read and is not a Git LFS pointer, which only names a file.

    Raises: what `read_bytes` raises; ValueError for a pointer.
    """
    with opened(path) as file:
        is_pointer = file.read(len(LFS)) == LFS
    if is_pointer:
        raise ValueError(
            f"{path} is a Git LFS pointer, not the file that it stands for; run `git lfs pull` there, or "
            "download the file itself"
        )


def _checksum(tensors: dict[str, Any], about: str) -> str:
    """Of names, types, shapes and bytes of tensors in main memory, and of what is said about them."""
    from torch import uint8

    found = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(uint8).numpy())
    return found.hexdigest()


def sha256(path: str | Path) -> str:
    """The checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writable_folder(folder: str | Path, option: str) -> Path:
    """The folder's absolute path; it is made if it is not there.

    Args:
      option: of the command line, that names it.
    Raises: ValueError if nothing can be written there.
    """
    folder = expanded(folder).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        is_file = isinstance(error, FileExistsError)
        said = "there is a file of this name" if is_file else reason(error)
        raise ValueError(
            f"cannot write to the folder {folder} ({said}); choose another one with {option}"
        ) from error
    return folder


def writable_file(path: str | Path, option: str, endings: Sequence[str] = ()) -> Path:
    """The file's absolute path; its folder is made if it is not there, and a file that is there stays.

    Args:
      option: of the command line, that names it.
      endings: of files that will stand beside it, in place of its own.
    Raises: ValueError if it, or one beside it, cannot be written there.
    """
    path = Path(path)
    path = writable_folder(path.parent, option) / path.name
    for place in (path, *(path.with_suffix(ending) for ending in endings)):
        try:
            if place.is_dir():  # an error where its name is too long
                raise IsADirectoryError(errno.EISDIR, "there is a folder of this name")
            with _temporary(place):
                pass
        except OSError as error:
            told = f"{place.name[:60]}..." if len(place.name) > 100 else place.name
            raise ValueError(
                f"cannot write the file {told} in {place.parent} ({reason(error)}); "
                f"choose another one with {option}"
            ) from error
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def canonical(config: Any) -> str:
    """The JSON text of a configuration: dataclasses, dicts, lists, numbers, strings; keys sorted."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

    return json.dumps(config, sort_keys=True, default=plain)


def digest(config: Any) -> str:
    """8 hex digits that name a configuration."""
    return hashlib.sha256(canonical(config).encode()).hexdigest()[:8]
