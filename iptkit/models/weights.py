"""Checks that a model's files hold the complete model, before it is built and after it is loaded.

transformers gives random values to weights that a file lacks and says so in a log only; prompts train in such
a model without any sign of it. Here it is an error, and so is a weight that is not finite.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from iptkit.storage import messages, reading

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
PEFT_PROMPTS = ("PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING")  # its types that interchange.from_peft reads
POOLER = "pooler."  # of an encoder: never used here, and missing in many files
IN_LAYER = re.compile(r"(.+?)\.(\d+)\.")


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file by name, read from its header.

    Raises: FileNotFoundError if there is no such file; ValueError for a file that is truncated, a Git LFS
      pointer, no safetensors file or not readable.
    """
    from safetensors import SafetensorError, safe_open

    reading.check_begin(path)
    try:
        with safe_open(path, framework="pt") as file:  # compares the file's size with its header
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({messages.reason(error)})") from error
    except SafetensorError as error:
        raise ValueError(
            f"{path} is cut short or no safetensors ({messages.visible(str(error))}); download it again"
        ) from error


def _all_shapes(parts: Collection[Path]) -> dict[str, tuple[int, ...]]:
    return {key: shape for part in parts for key, shape in shapes(part).items()}


def check_folder(folder: str | Path) -> None:
    """Check a folder before it is loaded as a model.

    Raises: ValueError if it holds an adapter or a damaged config.json, FileNotFoundError without config.json.
    """
    folder = Path(folder)
    if (folder / ADAPTER).is_file():
        raise ValueError(adapter_advice(folder))
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no model: it has no config.json; give a folder that save_pretrained wrote"
        )
    reading.read_json(folder / "config.json")


def adapter_advice(folder: str | Path) -> str:
    """What to do with the folder of a PEFT adapter in place of a model or prompt file, as an error says it.

    Args:
      folder: holds adapter_config.json.
    """
    config: dict[str, Any] = {}
    with contextlib.suppress(ValueError):  # the message is clear without its names
        config = reading.read_json(Path(folder, ADAPTER))
    base = messages.visible(str(config.get("base_model_name_or_path") or "another model"))[:200]
    kind = config.get("peft_type")
    if kind in PEFT_PROMPTS:
        return (
            f"{folder} holds a PEFT prompt ({kind}) for {base}, not a model. Load that model, and read the "
            "prompt with prompts.interchange.from_peft(folder, engine)"
        )
    return (
        f"{folder} holds a PEFT adapter ({ADAPTER}) for {base}, not a model. Merge it into that model with "
        "PEFT (merge_and_unload, then save_pretrained) and give the folder of the result, or give the model "
        "without the adapter"
    )


@contextlib.contextmanager
def named(name: str, part: str) -> Iterator[None]:
    """A context that turns errors of transformers into a ValueError naming the model and the part.

    Args:
      name: of the model.
      part: what transformers reads within the context, for the error.
    Raises: ValueError for any error but an OSError (no such file, no network), which passes unchanged.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # transformers and its dependencies raise errors of many types
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{part} of {name} cannot be used ({type(error).__name__}: {said})") from error


def files_of(source: str, config: Any, options: dict[str, Any]) -> list[Path]:
    """The safetensors files of a folder, or of a hub model (downloaded first); [] if a hub model has none.

    Args:
      source: a folder or a hub id.
      config: of the model.
      options: the arguments for transformers' from_pretrained.
    Raises: FileNotFoundError for a folder without safetensors or without a file that its index names;
      ValueError for a damaged index.
    """
    from transformers.utils import cached_file

    def find(name: str) -> Path | None:
        if Path(source).is_dir():
            return Path(source, name) if Path(source, name).is_file() else None
        local = {"local_files_only": options["local_files_only"]} if "local_files_only" in options else {}
        found = cached_file(source, name, _raise_exceptions_for_missing_entries=False, **local)
        return None if found is None else Path(found)

    named_by_config = getattr(config, "transformers_weights", None)
    names = [named_by_config] if named_by_config else [SINGLE, INDEX]
    first = next((path for path in map(find, names) if path is not None), None)
    if first is None and Path(source).is_dir():
        others = sorted(path.name for path in Path(source).glob("*.bin"))
        there = f" (only {', '.join(others)}, which is not safetensors)" if others else ""
        raise FileNotFoundError(
            f"{source} holds no weights: {' or '.join(names)} is missing{there}; save the model with "
            "save_pretrained, which writes safetensors"
        )
    if first is None or not first.name.endswith(".json"):
        return [] if first is None else [first]
    try:
        found = {part: find(part) for part in sorted(set(reading.read_json(first)["weight_map"].values()))}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{first} is no index of safetensors files ({error!r}); download it again"
        ) from error
    missing = [part for part, path in found.items() if path is None]
    if missing:
        raise FileNotFoundError(f"{first} names {_some(missing)}, which is missing; download the model again")
    return [path for path in found.values() if path is not None]


def check_size(name: str, config: Any, build: Callable[[], PreTrainedModel], parts: Collection[Path]) -> None:
    """Check by the headers of a model's files that they hold as many weights as its config describes.

    Args:
      name: of the model.
      config: of the model.
      build: makes the model; called on the meta device, where tensors take no memory.
      parts: the model's files.
    Raises: ValueError for a damaged file, or a config of a larger model than the files hold.
    """
    there = _all_shapes(parts)
    held, layers = sum(map(_count, there.values())), getattr(config, "num_hidden_layers", 0)
    if isinstance(layers, int) and layers > len(there):  # it would take long even on the meta device
        raise ValueError(_too_large(name, f"{layers:,} layers", f"{len(there):,} tensors"))
    with named(name, "config.json"), torch.device("meta"):
        model = build()
    computed = "|".join([re.escape(POOLER), *(getattr(model, "_keys_to_ignore_on_load_missing", None) or ())])
    wanted = sum(
        p.numel() for key, p in model.named_parameters() if not re.search(computed, key)
    )  # tied once
    if wanted > held:
        prefix = model.base_model_prefix + "."
        bare = {key.removeprefix(prefix) for key in there}
        missing = [key for key, _ in model.named_parameters() if key.removeprefix(prefix) not in bare]
        lack = f": none for {_some(missing)}" if missing else ""
        raise ValueError(_too_large(name, f"{wanted:,} weights", f"{held:,}{lack}"))


def _too_large(name: str, described: str, held: str) -> str:
    return (
        f"the files of {name} do not fit together: its config.json describes a model of {described}, its "
        f"safetensors hold {held} (some are missing, or packed by quantisation). Download both again from "
        "the same place"
    )


def check_loaded(name: str, model: PreTrainedModel, found: dict[str, Any], parts: Collection[Path]) -> None:
    """Check that every weight of a loaded model comes from its files and is finite.

    An encoder's pooler, which is never used here, is removed if the files have none.

    Args:
      name: of the model.
      model: the loaded model.
      found: the report of from_pretrained with output_loading_info.
      parts: the model's files.
    Raises: ValueError naming weights that are missing, of another shape, for layers that the model does not
      have, or not finite.
    """
    if getattr(model, "_hf_peft_config_loaded", False):  # transformers adds it for hub models
        raise ValueError(f"{name} comes with a PEFT adapter; merge it into its model and give the result")
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(POOLER))
    if len(missing) < len(found["missing_keys"]):
        model.pooler = None
    there = _all_shapes(parts)
    homeless = [key for key in sorted(found["unexpected_keys"]) if _belongs_in(model, key, there)]
    others = [f"{key} {list(has)} for {list(wanted)}" for key, has, wanted in found["mismatched_keys"]]
    wrong = {
        "no weights (they would be random) for": missing,
        "weights of another shape:": sorted(others),
        "weights that its config.json has no place for:": homeless,
        "weights that are not finite:": [] if missing or others else not_finite(model),
    }
    problems = [f"{what} {_some(keys)}" for what, keys in wrong.items() if keys]
    if problems:
        raise ValueError(
            f"the files of {name} are not a whole {type(model).__name__}: {'; '.join(problems)}. Download "
            "the model again, or give the folder that these weights belong to"
        )


def check_tokenizer(name: str, tokenizer: Any, rows: int) -> None:
    """Check that every token of a tokenizer has a row in its model's embedding table.

    Args:
      name: of the model.
      tokenizer: its tokenizer.
      rows: of the embedding table.
    Raises: ValueError naming the first tokens without a row.
    """
    homeless = sorted((place, token) for token, place in tokenizer.get_vocab().items() if place >= rows)
    if homeless:
        raise ValueError(
            f"the tokenizer of {name} has tokens that its model has no embedding for ({rows} rows): "
            f"{_some([f'{token!r} ({place})' for place, token in homeless])}. Give the tokenizer that "
            "belongs to the model, or save the model after resize_token_embeddings"
        )


def not_finite(model: nn.Module) -> list[str]:
    """The names of the parameters with NaN or infinite values."""
    with torch.no_grad():  # minimum and maximum: one pass, no copy, and NaN is both
        return [
            key
            for key, p in model.named_parameters()
            if p.numel() and not torch.stack(torch.aminmax(p)).isfinite().all()
        ]


def _belongs_in(model: PreTrainedModel, key: str, shapes: dict[str, tuple[int, ...]]) -> bool:
    """True for a weight in one of the model's stacks of layers; other heads and old masks may be left out."""
    if len(shapes.get(key, (1,))) in (0, 4) or key.endswith("inv_freq"):  # GPT-2's masks, Llama's old angles
        return False
    stacks = {name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    prefix = model.base_model_prefix + "."
    starts = [key[: match.end(1)] for match in IN_LAYER.finditer(key)]
    return any({s, prefix + s, s.removeprefix(prefix)} & stacks for s in starts)


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _some(keys: list[str], most: int = 3) -> str:
    more = f" and {len(keys) - most:,} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
