"""The attentions of a model, where deep prompts enter (P-Tuning v2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from iptkit.engine import left_memory
from iptkit.engine.left_memory import DeepMemory
from iptkit.engine.prompt import Prompt, Site
from iptkit.models.backbone import Backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARTS = ("encoder", "decoder", "cross")


def find_sites(model: PreTrainedModel) -> list[Site]:
    """The attentions of a model, found by running a few tokens through it.

    Raises:
      ValueError: the model bypasses transformers' attention interface, or several of its layers share one
        attention (ALBERT), so that they could not have different prompts.
    """
    left_memory.prepare(model)
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []
    seen = left_memory.observe(lambda module, query, key: calls.append((module, query, key)))
    ids = torch.arange(5, device=next(model.parameters()).device)[None] + 4
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :3]
    with seen, torch.no_grad():
        model(**inputs)
    modules = [module for module, _, _ in calls]
    if len(set(modules)) < len(modules) or not modules:
        problem = "share one attention" if modules else "do not use transformers' attention interface"
        raise ValueError(
            f"the layers of {type(model).__name__} {problem}, so they cannot get prompts of their own; use a "
            "BERT, RoBERTa, DistilBERT, ModernBERT, GPT-2, Llama, T5 or BART model"
        )
    counts: dict[str, int] = {}
    sites = []
    for module, query, key in calls:
        part = _part(model, query.shape[2], key.shape[2])
        sites.append(Site(part, counts.get(part, 0), module, key.shape[1], key.shape[3]))
        counts[part] = counts.get(part, 0) + 1
    if len({(site.num_kv_heads, site.head_width) for site in sites}) > 1:
        raise ValueError(
            f"the attentions of {type(model).__name__} differ in the number or width of their heads, and one "
            "deep prompt has one size for all; choose a BERT, RoBERTa, GPT-2, Llama, T5 or BART model"
        )
    return sites


def check_sites(backbone: Backbone, sites: Sequence[Site]) -> None:
    """Raise ValueError unless the sites are attentions of this very model.

    Prompts for the attentions of another model would have no effect.

    Args:
      backbone: the model.
      sites: see `find_sites`.
    """
    mine = set(backbone.model.modules()) if sites else set()
    if any(site.module not in mine for site in sites):
        raise ValueError(
            f"the sites are attentions of another model than this {backbone.name}, so prompts for them would "
            "have no effect; find those of this model: sites=engine.find_sites(backbone.model)"
        )


def choose(
    sites: Sequence[Site], layers: Sequence[int] | None = None, parts: Sequence[str] = PARTS
) -> list[Site]:
    """The sites of some layers and parts.

    Args:
      sites: see `find_sites`.
      layers: indices within each part, negative ones from its end; None for all.
      parts: some of "encoder", "decoder" and "cross".
    Raises: ValueError for a layer or part that does not exist, or if no site is left.
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"part {part!r} is unknown; choose from {', '.join(PARTS)}")
    kept = [site for site in sites if site.part in parts]
    if not kept:
        existing = ", ".join(dict.fromkeys(site.part for site in sites))
        raise ValueError(f"the model has no attention of the parts {', '.join(parts)}; it has: {existing}")
    if layers is None:
        return kept
    depth = {part: sum(site.part == part for site in kept) for part in parts}
    wanted = set()
    for part, size in depth.items():
        for layer in layers if size else ():
            if not -size <= layer < size:
                raise ValueError(f"layer {layer} does not exist: the {part} has {size}, from 0 to {size - 1}")
            wanted.add((part, layer % size))
    if not wanted:
        raise ValueError("layers is empty; give at least one layer, or None for all")
    return [site for site in kept if (site.part, site.layer) in wanted]


def memory_at(sites: Sequence[Site], prompt: Prompt) -> DeepMemory | None:
    """The keys and values of a deep prompt as the model's attentions read them; None for other prompts.

    Args:
      sites: S attentions.
      prompt: one per row, with keys and values at S attentions or at none.
    Raises: ValueError if the prompt is for another number of sites, or has adapters.
    """
    if prompt.adapters is not None:
        raise ValueError("adapters need an Engine with a causal model; give vectors or deep prompts here")
    if prompt.keys_values is None:
        return None
    count = prompt.keys_values.shape[1]
    if count != len(sites):
        raise ValueError(
            f"a deep prompt for {count} attentions was given, but the engine has {len(sites)} sites; give it "
            "those of the prompt's source: sites=source.sites"
        )
    at = {}
    for site, keys_values in zip(sites, prompt.keys_values.unbind(1), strict=True):
        keys, values = keys_values.unbind(1)
        at[site.module] = (keys, values)
    return DeepMemory(at, prompt.lengths)


def _part(model: PreTrainedModel, queries: int, keys: int) -> str:
    """The part of an attention, by the sizes of its call: the encoder got 5 tokens, the decoder 3."""
    if model.config.is_encoder_decoder:
        return "cross" if queries < keys else "encoder" if queries == 5 else "decoder"
    return "decoder" if getattr(model.config, "is_decoder", False) or _is_causal(model) else "encoder"


def _is_causal(model: PreTrainedModel) -> bool:
    return any("CausalLM" in name or "LMHead" in name for name in model.config.architectures or ())
