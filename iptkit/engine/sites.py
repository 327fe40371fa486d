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
        attention (ALBERT), so that they could not be told apart.
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
        told = "share one attention" if modules else "do not use transformers' attention interface"
        raise ValueError(
            f"the layers of {type(model).__name__} {told}, so they cannot get prompts of their own; use a "
            "BERT, RoBERTa, DistilBERT, ModernBERT, GPT-2, Llama, T5 or BART model"
        )
    counts: dict[str, int] = {}
    sites = []
    for module, query, key in calls:
        part = _part(model, query.shape[2], key.shape[2])
        sites.append(Site(part, counts.get(part, 0), module, key.shape[1], key.shape[3]))
        counts[part] = counts.get(part, 0) + 1
    if len({(site.num_kv_heads, site.head_width) for site in sites}) > 1:
        raise ValueError(f"the attentions of {type(model).__name__} differ in their sizes; none of ours do")
    return sites


def check_sites(backbone: Backbone, sites: Sequence[Site]) -> None:
    """Make sure that the sites are attentions of this very model.

    Raises: ValueError if they are not: prompts for those of another would be ignored.
    """
    mine = set(backbone.model.modules()) if sites else set()
    if any(site.module not in mine for site in sites):
        raise ValueError(
            f"the sites are attentions of another model than this {backbone.name}, so prompts for them would "
            "have no effect; find them in it: sites=deep.find_sites(backbone.model)"
        )


def choose(
    sites: Sequence[Site], layers: Sequence[int] | None = None, parts: Sequence[str] = PARTS
) -> list[Site]:
    """Some of the sites: those of given layers and parts.

    Args:
      layers: numbers within each part, negative ones counted from its end; None for all.
    Raises: ValueError for a layer or part that does not exist, or if nothing is left.
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"part {part!r} is unknown; choose from {', '.join(PARTS)}")
    kept = [site for site in sites if site.part in parts]
    if not kept:
        there = ", ".join(dict.fromkeys(site.part for site in sites))
        raise ValueError(f"the model has no attention of the parts {', '.join(parts)}; it has: {there}")
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
        raise ValueError("no layer was named; give at least one, or None for all")
    return [site for site in kept if (site.part, site.layer) in wanted]


def memory_at(sites: Sequence[Site], prompt: Prompt) -> DeepMemory | None:
    """What `injection.left_memory` takes, of a prompt with keys and values at S sites; None without any.

    Raises: ValueError if their numbers differ, or for adapters, which have other places.
    """
    if prompt.adapters is not None:
        raise ValueError("only Engine with a causal model knows adapters; give vectors or deep prompts")
    if prompt.keys_values is None:
        return None
    count = prompt.keys_values.shape[1]
    if count != len(sites):
        raise ValueError(
            f"a deep prompt for {count} attentions was given, but {len(sites)} sites; give the engine those "
            "of its source: sites=source.sites"
        )
    pairs = zip(sites, prompt.keys_values.unbind(1), strict=True)
    return DeepMemory({site.module: both.unbind(1) for site, both in pairs}, prompt.lengths)


def _part(model: PreTrainedModel, queries: int, keys: int) -> str:
    """Which attention a call of the probe was: it has 5 tokens for an encoder and 3 for a decoder."""
    if model.config.is_encoder_decoder:
        return "cross" if queries < keys else "encoder" if queries == 5 else "decoder"
    return "decoder" if getattr(model.config, "is_decoder", False) or _is_causal(model) else "encoder"


def _is_causal(model: PreTrainedModel) -> bool:
    return any("CausalLM" in name or "LMHead" in name for name in model.config.architectures or ())
