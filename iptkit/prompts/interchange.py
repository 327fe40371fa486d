"""Prompts in the files of PEFT, the Hugging Face library: `to_peft` writes them, `from_peft` reads them.

A folder has adapter_config.json and adapter_model.safetensors, and `PeftModel.from_pretrained(model, folder)`
loads it. PEFT itself is not needed here. Compared with PEFT 0.21.2, in both directions:

    peft_type      prompt       Llama    Qwen     GPT-2    T5       BART     BERT
    PROMPT_TUNING  embeds       equal    equal    equal    equal    equal    refused
    P_TUNING       embeds       equal    equal    equal    equal    equal    refused
    PREFIX_TUNING  keys_values  equal    equal    refused  refused  refused  refused

"equal": the same losses and greedy answers. "refused": PEFT computes something else; `why_not` says what.
P_TUNING is for prompts from an encoder, which the file leaves out.

PEFT puts a prompt before the text, so a prompt must be trained with `Engine(backbone, "prompt-text-answer")`.
Deep prompts do not depend on the layout, but on positions: beside PEFT's prefix of n keys a text begins at
position n, here at 0. Keys are therefore turned by n positions on their way out and back on their way in.
PEFT's rows are n positions longer; they too must fit the model's positions and its sliding window.

Load the model first, and give it to `PeftModel.from_pretrained`; a model that is on no hub is
`models.load(name).model`.
The same text must have the same tokens: `tokenizer(text, add_special_tokens=False)`, and an answer begins
with a blank.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from iptkit.engine.calls import check_engine
from iptkit.engine.compatibility import check_runs, check_source
from iptkit.engine.interface import PromptEngine
from iptkit.engine.layouts import LAYOUTS, PROMPT, TEXT, Layout
from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.engine.rotary import cannot_turn, turned
from iptkit.engine.sites import find_sites
from iptkit.models import weights
from iptkit.models.backbone import Backbone
from iptkit.prompts.saved import SavedPrompt
from iptkit.storage import files, messages, paths, reading

CONFIG, WEIGHTS, PICKLED = weights.ADAPTER, "adapter_model.safetensors", "adapter_model.bin"
KEY = "prompt_embeddings"  # the only tensor in a file
METHODS = {"PROMPT_TUNING": "SoftPrompt", "P_TUNING": "EncodedPrompt", "PREFIX_TUNING": "DeepPrompt"}
DEEP = "PREFIX_TUNING"
TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}

ORDER = (
    "PEFT puts the prompt before an encoder's first token, [CLS], which then has position n; here [CLS] "
    "stays first, at position 0"
)
ENCODER = (
    "PEFT's prefix of n keys moves the text of BERT and RoBERTa to position n, where other learned vectors "
    "are added to it; DistilBERT ignores the prefix, and ModernBERT stops with an error"
)
MOVED = "beside PEFT's prefix of n keys the text begins at position n, here at 0"
PARTS = (
    "in an encoder-decoder PEFT's prefix reaches the decoder's self-attention only, where layer i of N gets "
    "that of layer 2i mod N; the encoder and the cross-attention get none"
)


def to_peft(
    source: PromptSource, folder: str | Path, engine: PromptEngine, run: int = 0, overwrite: bool = False
) -> Path:
    """Write the prompt of one run as a PEFT adapter.

    Args:
      source: makes the prompt.
      folder: gets adapter_config.json and adapter_model.safetensors; a new or an empty one.
      engine: the one that the prompt is for: an `Engine`, with the sites of a deep prompt.
      run: index of the run.
      overwrite: the folder may hold an earlier prompt in these two files, and nothing else.
    Returns: the folder.

    Raises: ValueError if the folder is not empty, the prompt does not fit the engine, there is no such run,
      or PEFT would compute something else with it: another layout, an encoder, heads, adapters, some layers
      only (see `why_not`).
    """
    folder = paths.expanded(folder)
    check_source(engine, source)
    check_runs(source, [run])
    _check_new(folder, overwrite)
    backbone, every = engine.backbone, source.finished()
    device = next(iter(every.tensors().values())).device
    prompt = every.rows(torch.tensor([run], device=device))
    is_encoded = source.method == METHODS["P_TUNING"]
    name = DEEP if prompt.keys_values is not None else "P_TUNING" if is_encoded else "PROMPT_TUNING"
    _check_expressible(engine, prompt, name)
    if prompt.keys_values is None:
        assert prompt.embeds is not None
        numbers, width = prompt.embeds[0] * _scale(backbone), backbone.embedding.shape[1]
        config = {"token_dim": width, "num_attention_heads": backbone.model.config.num_attention_heads}
    else:
        length = prompt.keys_values.shape[4] if prompt.lengths is None else int(prompt.lengths[0])
        keys, values = prompt.keys_values[0, :, :, :, :length].unbind(1)  # [S, h, n, k]
        deep = torch.stack([turned(keys, length, backbone), values], 1)
        numbers, heads = deep.permute(3, 0, 1, 2, 4).flatten(1), deep.shape[2]
        config = {
            "token_dim": heads * deep.shape[4],
            "num_attention_heads": heads,
            "prefix_projection": False,
        }
    if not numbers.isfinite().all():
        raise ValueError(f"the prompt of run {run} is not finite; train it with a smaller learning rate")
    config |= {
        "peft_type": name,
        "task_type": TASKS[backbone.kind],
        "base_model_name_or_path": backbone.name,
        "inference_mode": True,
        "num_virtual_tokens": len(numbers),
        "num_layers": backbone.num_layers,
        "num_transformer_submodules": 1,
    }
    return _write(folder, config, numbers)


def from_peft(folder: str | Path, engine: PromptEngine | Backbone) -> SavedPrompt:
    """The prompt of a PEFT adapter, as a source of one run, which can be scored, saved and trained further.

    Args:
      folder: has adapter_config.json and adapter_model.safetensors, as PEFT's save_pretrained writes them.
      engine: the engine that will read the prompt, or its model.
    Returns: a source of vectors or of a deep prompt. Its `about` names model and layout, so that an engine
      with another one is refused; `sites` has the attentions of a deep prompt.

    Raises: FileNotFoundError if a file is missing; ValueError naming a damaged file, an adapter of another
      type (LoRA), a prompt that does not fit the model, one that PEFT computes otherwise (see `why_not`), or
      an engine with another layout.
    """
    check_engine(engine, or_model=True)
    folder = paths.expanded(folder)
    backbone = engine if isinstance(engine, Backbone) else engine.backbone
    layout = None if isinstance(engine, Backbone) else engine.layout
    config, numbers = _read(folder, backbone)
    sites = find_sites(backbone.model) if config["peft_type"] == DEEP else []
    if sites:
        shape = (len(numbers), len(sites), 2, backbone.num_kv_heads, backbone.head_width)
        keys, values = numbers.view(shape).permute(1, 2, 3, 0, 4).unbind(1)
        deep = torch.stack([turned(keys, -len(numbers), backbone), values], 1)
        prompt, layout = Prompt(keys_values=deep[None]), layout or LAYOUTS[0]
    else:
        prompt = Prompt(embeds=numbers[None] / _scale(backbone))
        layout = layout if layout is not None and _is_prompt_first(layout) else LAYOUTS[1]
    about = {
        "engine": "Engine",
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "width": backbone.width,
        "layout": layout if isinstance(layout, str) else list(layout),
        "prompt_length": prompt.length,
        "method": METHODS[config["peft_type"]],
        "peft": {"type": config["peft_type"], "base_model": config.get("base_model_name_or_path")},
        **({"sites": [[site.part, site.layer] for site in sites]} if sites else {}),
    }
    source = SavedPrompt(prompt, about, tuple(sites))
    if not isinstance(engine, Backbone):
        if sites and not engine.sites:
            raise ValueError(
                f"{folder} holds a prefix, but the engine has no sites for it; give from_peft the backbone, "
                "and then the engine sites=source.sites"
            )
        check_source(engine, source)
    return source


def why_not(peft_type: str, backbone: Backbone) -> str:
    """The reason why prompts of a type differ between PEFT and here; "" if they do not.

    Args:
      peft_type: "PROMPT_TUNING", "P_TUNING" or "PREFIX_TUNING".
      backbone: the model.
    """
    if peft_type != DEEP:
        return ORDER if backbone.kind == "encoder" else ""
    if backbone.kind != "causal":
        return PARTS if backbone.kind == "seq2seq" else ENCODER
    reason = cannot_turn(backbone)
    return reason and f"{MOVED}; {reason}"


# ---- what PEFT can express -----------------------------------------------------------------------
def _check_expressible(engine: PromptEngine, prompt: Prompt, peft_type: str) -> None:
    """Raise ValueError unless PEFT computes the same with this prompt."""
    backbone, layout, problem = engine.backbone, engine.layout, ""
    given = [name for name in ("embeds", "keys_values", "adapters") if getattr(prompt, name) is not None]
    if given not in (["embeds"], ["keys_values"]) or not (prompt.length or prompt.reaches_text):
        problem = f"its files hold vectors or keys and values, here are {' and '.join(given) or 'none'}"
    elif reason := why_not(peft_type, backbone):
        problem = f"{peft_type} with {backbone.name}: {reason}"
    elif layout is None or prompt.head is not None:
        problem = "it has no trained heads for a frozen language model; train the prompt with an Engine"
    elif prompt.keys_values is None and not _is_prompt_first(layout):
        problem = (
            f"it puts the prompt before the text, but this engine has the layout {layout!r}; train a prompt "
            f"with Engine(backbone, {LAYOUTS[1]!r}), or iptkit tune --layout {LAYOUTS[1]}"
        )
    elif prompt.keys_values is not None and _indices(engine.sites) != _indices(find_sites(backbone.model)):
        problem = (
            f"its prefix is for all {backbone.num_layers} layers, but this prompt is for "
            f"{len(engine.sites)} of them; train one with sites=engine.find_sites(backbone.model)"
        )
    if problem:
        raise ValueError(f"PEFT cannot express this prompt: {problem}")


def _is_prompt_first(layout: str | tuple[int | str, ...]) -> bool:
    first, *rest = Layout.of(layout).pieces
    return (isinstance(first, int) or first == PROMPT) and rest == [TEXT]


def _indices(sites: Any) -> list[tuple[str, int]]:
    return [(site.part, site.layer) for site in sites]


def _scale(backbone: Backbone) -> float:
    """The factor of some BARTs' embeddings, which the engine applies to prompts too, and PEFT does not."""
    table = backbone.model.get_input_embeddings()
    return float(getattr(table, "embed_scale", 1.0)) if backbone.kind == "seq2seq" else 1.0


# ---- files ---------------------------------------------------------------------------------------
def _check_new(folder: Path, overwrite: bool) -> None:
    """Raise ValueError if the folder holds anything that may not be replaced, such as another adapter."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; name a new one, which gets {CONFIG} and {WEIGHTS}")
    try:
        held = sorted(os.listdir(folder))
    except OSError as error:
        raise ValueError(
            f"the folder {folder} cannot be read ({messages.reason(error)}); name a new one"
        ) from error
    if held == sorted((CONFIG, WEIGHTS)) and overwrite:
        kind = reading.read_json(folder / CONFIG).get("peft_type")
        if kind in METHODS:
            return
        raise ValueError(
            f"the folder {folder} holds an adapter of type {kind!r:.80}, no prompt; name a new one"
        )
    if held:
        way_out = "" if overwrite else ", or replace an earlier prompt with overwrite=True"
        raise ValueError(
            f"the folder {folder} is not empty (it holds {messages.visible(held[0]):.80}); name a new "
            f"one{way_out}"
        )


def _write(folder: Path, config: dict[str, Any], numbers: Tensor) -> Path:
    from safetensors.torch import save_file

    with files.together(folder, CONFIG) as draft:
        files.write_json(draft / CONFIG, config)
        save_file({KEY: numbers.detach().cpu().contiguous()}, draft / WEIGHTS, {"format": "pt"})
    return folder


def _read(folder: Path, backbone: Backbone) -> tuple[dict[str, Any], Tensor]:
    """The config of an adapter, and its numbers [n, ...] after all checks."""
    from safetensors.torch import load_file

    config = reading.read_json(folder / CONFIG, wanted="give the folder that PEFT's save_pretrained wrote")
    name, task, length = (config.get(k) for k in ("peft_type", "task_type", "num_virtual_tokens"))
    problem = ""
    if not isinstance(name, str) or name not in METHODS:
        problem = f"has the peft_type {name!r:.80}, which is no prompt; {', '.join(METHODS)} can be read"
        if name == "LORA":
            problem += ". Merge LoRA into its model with PEFT (merge_and_unload), save that, and load it"
    elif reason := why_not(name, backbone):
        problem = f"({name}) would act otherwise on {backbone.name} here: {reason}"
    elif task != TASKS[backbone.kind]:
        problem = f"has the task_type {task!r:.80}, but {backbone.name} is read as {TASKS[backbone.kind]!r}"
    elif type(length) is not int or length < 1:
        problem = f"has num_virtual_tokens={length!r:.80}; a whole number from 1 on is needed"
    if problem:
        raise ValueError(f"{folder / CONFIG} {problem}")
    path = folder / WEIGHTS
    if not path.is_file() and (folder / PICKLED).is_file():
        raise ValueError(
            f"{folder} holds {PICKLED}, a pickle, which can run code when it is read; load it with PEFT once "
            "and save it again: save_pretrained writes safetensors"
        )
    shapes = weights.shapes(path)
    if others := ", ".join(sorted(shapes.keys() - {KEY})[:3]):
        raise ValueError(f"{path} also holds {messages.visible(others):.200}, which is no part of a prompt")
    if KEY not in shapes:
        raise ValueError(f"{path} has no tensor {KEY!r}; save the adapter again with PEFT's save_pretrained")
    _check_shape(path, shapes[KEY], config, backbone)
    stored = load_file(path)[KEY]
    if not stored.is_floating_point():
        raise ValueError(f"{path} holds {stored.dtype} in place of decimal numbers")
    numbers = stored[:length].to(backbone.device, torch.float64)  # an encoder-decoder's file may have 2n rows
    if not numbers.isfinite().all():
        raise ValueError(f"{path} holds numbers that are not finite")
    return config, numbers if backbone.dtype == "float64" else numbers.float()


def _check_shape(path: Path, shape: tuple[int, ...], config: dict[str, Any], backbone: Backbone) -> None:
    """Raise ValueError unless a prompt has the sizes of its config and of the model."""
    length, width = config["num_virtual_tokens"], backbone.embedding.shape[1]
    lengths = {length, 2 * length} if backbone.kind == "seq2seq" else {length}
    needed = f"width {width}"
    if config["peft_type"] == DEEP:
        layers, heads, head_width = backbone.num_layers, backbone.num_kv_heads, backbone.head_width
        width, lengths = layers * 2 * heads * head_width, {length}
        needed = f"{layers} layers with {heads} key/value heads of width {head_width}"
        given = config.get("num_layers", layers), config.get("num_attention_heads", heads)
        if given != (layers, heads):
            raise ValueError(
                f"{path.with_name(CONFIG)} is for another model than {backbone.name}: it has "
                f"{given[0]!r:.80} layers with {given[1]!r:.80} key/value heads, {needed} are needed"
            )
    if len(shape) != 2 or shape[0] not in lengths or shape[1] != width:
        raise ValueError(
            f"{path} does not fit {backbone.name}: {KEY} has the shape {list(shape)}, [{length}, {width}] is "
            f"needed for {length} virtual tokens and {needed}"
        )
