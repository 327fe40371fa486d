"""Does a prompt fit an engine: its model, layout, sizes and sites? Asked before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.models.backbone import Backbone


def prompt_length(source: PromptSource) -> int:
    """N of the prompts that a source makes."""
    return _first_of(source).length


# ---- does it fit? --------------------------------------------------------------------------------
def check_source(engine: PromptEngine, source: PromptSource) -> int:
    """Make sure that the prompts of a source are for the engine's model, before anything runs.

    Args:
      engine: what will read its prompts.
      source: parts of it may say what they were made for: `about` (see `made_for`) of a subspace, `sites` of
        deep prompts.
    Returns: n of its prompts.
    Raises: ValueError naming what differs.
    """
    for part in source.modules():
        check_about(engine, getattr(part, "about", {}), f"this {type(part).__name__}")
        sites = [(site.part, site.layer) for site in getattr(part, "sites", ())]
        if sites and sites != [(site.part, site.layer) for site in engine.sites]:
            raise ValueError(
                f"a deep prompt for {len(sites)} attentions, {sites[0]} to {sites[-1]}, was given, but the "
                "engine has other sites; give the engine those of its source: sites=source.sites"
            )
    prompt = _first_of(source)
    check_prompt(prompt, engine.backbone, engine.sites)
    engine.check_room(prompt.length)
    return prompt.length


def check_prompt(prompt: Prompt, backbone: Backbone, sites: Sequence[Any] = ()) -> None:
    """Make sure that prompts have the shape that a model takes.

    Raises: ValueError naming the model and what its width, heads or numbers for a head would be.
    """
    found: list[tuple[str, int, int]] = []
    if prompt.embeds is not None:
        found.append(("width of its vectors", prompt.embeds.shape[-1], backbone.embedding.shape[1]))
    if prompt.adapters is not None:
        found.append(("width of its adapters", prompt.adapters.shape[-2], backbone.width))
    if prompt.head is not None:
        found.append(("width of its head, with the bias", prompt.head.shape[-1], backbone.width + 1))
    if prompt.keys_values is not None and sites:
        heads, width = prompt.keys_values.shape[3], prompt.keys_values.shape[5]
        found.append(("number of key/value heads", heads, sites[0].num_kv_heads))
        found.append(("width of its keys", width, sites[0].head_width))
    wrong = [f"{what} {is_there}, {needed} needed" for what, is_there, needed in found if is_there != needed]
    if wrong:
        raise ValueError(
            f"the prompt does not fit {backbone.name} ({'; '.join(wrong)}): it was made for another model; "
            "load that one, or train the prompt anew"
        )


def made_for(engine: PromptEngine, prompt_length: int) -> dict[str, Any]:
    """What prompts trained with an engine are for, as JSON: model, layout and sizes.

    Its "fingerprint" names the weights in whatever dtype they are loaded (`Backbone.fingerprint`).
    """
    layout = getattr(engine, "layout", None)
    return {
        "backbone": engine.backbone.name,
        "fingerprint": engine.backbone.fingerprint,
        "width": engine.backbone.width,
        "layout": layout if layout is None or isinstance(layout, str) else list(layout),
        "prompt_length": prompt_length,
    }


def check_about(engine: PromptEngine, about: dict[str, Any], what: str) -> None:
    """Make sure that something that was trained for one model is not used with another one.

    Args:
      about: what is known of it, see `made_for`; what is not there is not compared. Without "fingerprint"
        (files of earlier versions) the model's name counts.
      what: it is, for the error.
    Raises: ValueError naming what differs.
    """
    if not about.keys() & {"fingerprint", "backbone", "layout"}:
        return
    backbone, wrong = engine.backbone, []
    if "fingerprint" in about:
        is_other = about["fingerprint"] != backbone.fingerprint
    else:
        is_other = about.get("backbone", backbone.name) != backbone.name
    if is_other:
        weights = " with other weights" if about.get("backbone") == backbone.name else ""
        wrong.append(f"it was made for the model {about.get('backbone')}{weights}, this is {backbone.name}")
    layout = getattr(engine, "layout", None)
    theirs = about.get("layout")
    if layout is not None and theirs is not None and list(layout) != list(theirs):
        wrong.append(f"it was made for the layout {theirs!r}, this engine has {layout!r}")
    if wrong:
        raise ValueError(
            f"{what} does not fit: {'; '.join(wrong)}. Use it with what it was made for, or train one anew"
        )


def _first_of(source: PromptSource) -> Prompt:
    """The prompt of run 0."""
    device = next(tensor.device for tensor in [*source.parameters(), *source.buffers()])
    with torch.no_grad():
        return source(torch.zeros(1, dtype=torch.long, device=device))
