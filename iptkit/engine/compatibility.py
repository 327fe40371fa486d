"""Checks that prompts fit an engine: its model, layout, sizes and sites. They run before any forward pass.

`made_for` records what prompts are trained for, in files and in a source's `about`; `check_about` compares
such a record with an engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from iptkit.engine.calls import check_modules
from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import Prompt, PromptSource, Site
from iptkit.models.backbone import Backbone


def prompt_length(source: PromptSource) -> int:
    """The length n of a source's prompts: positions that they take in a row."""
    return _first_of(source).length


def check_source(engine: PromptEngine, source: PromptSource) -> int:
    """The length n of a source's prompts, after a check that they fit the engine.

    Args:
      engine: the engine that will read the prompts.
      source: the source. It and its submodules may say what they were made for: in `about` (see `made_for`),
        or in `sites`, of deep prompts.
    Raises: ValueError that names what differs, or what was given in place of an engine or a source.
    """
    check_modules(engine, source)
    for part in source.modules():
        about, name = getattr(part, "about", {}), type(engine).__name__
        check_about(engine.backbone, engine.layout, about, f"this {type(part).__name__}", name)
        sites = [(site.part, site.layer) for site in getattr(part, "sites", ())]
        if sites and sites != [(site.part, site.layer) for site in engine.sites]:
            raise ValueError(
                f"a deep prompt for {len(sites)} attentions, {sites[0]} to {sites[-1]}, was given, but the "
                f"engine has {len(engine.sites)} other sites; give it those of the prompt's source: "
                "sites=source.sites"
            )
    prompt = _first_of(source)
    check_prompt(prompt, engine.backbone, engine.sites)
    if prompt.head is not None and engine.layout is not None:
        raise ValueError(
            f"the prompt has a head, which an {type(engine).__name__} does not read, because it answers in "
            "words; training a head needs an engine.HeadEngine"
        )
    engine.check_room(prompt.length)
    return prompt.length


def check_runs(source: PromptSource, runs: Iterable[int]) -> None:
    """Raise ValueError for a run that a source does not have.

    Args:
      source: the source; any run will do if it does not know how many it has (`num_runs` is None).
      runs: the runs.
    """
    count = source.num_runs
    if count is None:
        return
    for run in runs:
        if run not in range(count):
            which = "run 0" if count == 1 else f"the runs 0 to {count - 1}"
            raise ValueError(f"run {run!r} does not exist: this {type(source).__name__} has {which} only")


def check_prompt(prompt: Prompt, backbone: Backbone, sites: Sequence[Site] = ()) -> None:
    """Raise ValueError unless prompts have the shape that a model takes.

    Args:
      prompt: the prompts.
      backbone: the model.
      sites: the attentions of a deep prompt.
    Raises: ValueError that names the model, what the prompt has and what the model needs.
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
    wrong = [f"{what} {given}, {needed} needed" for what, given, needed in found if given != needed]
    if wrong:
        raise ValueError(
            f"the prompt does not fit {backbone.name} ({'; '.join(wrong)}): it was made for another model; "
            "load that model, or train a new prompt"
        )


def made_for(engine: PromptEngine, prompt_length: int) -> dict[str, Any]:
    """What prompts that are trained with an engine are made for: model, layout and sizes, as JSON.

    The "fingerprint" identifies the weights, whatever dtype they are loaded in (`Backbone.fingerprint`).

    Args:
      engine: the engine.
      prompt_length: n of the prompts.
    """
    layout = engine.layout
    of_sites = {"sites": [[site.part, site.layer] for site in engine.sites]} if engine.sites else {}
    return {
        "engine": type(engine).__name__,
        "backbone": engine.backbone.name,
        "fingerprint": engine.backbone.fingerprint,
        "width": engine.backbone.width,
        "layout": layout if layout is None or isinstance(layout, str) else list(layout),
        "prompt_length": prompt_length,
        **of_sites,
    }


def check_about(
    backbone: Backbone,
    layout: str | Sequence[int | str] | None,
    about: Mapping[str, Any],
    what: str,
    engine: str | None = None,
) -> None:
    """Raise ValueError if something was trained for another model, layout or kind of engine.

    Args:
      backbone: the model.
      layout: of the engine; None if it has none, or is not known yet.
      about: what it was made for, see `made_for`; missing entries are not compared. Without a "fingerprint"
        (files of earlier versions) the model's name is compared.
      what: its name in the error, such as "this SoftPrompt".
      engine: the class of the engine; None if it is not known yet.
    Raises: ValueError that names what differs.
    """
    if not about.keys() & {"fingerprint", "backbone", "layout"}:
        return
    wrong = []
    if "fingerprint" in about:
        is_other = about["fingerprint"] != backbone.fingerprint
    else:
        is_other = about.get("backbone", backbone.name) != backbone.name
    if is_other:
        weights = " with other weights" if about.get("backbone") == backbone.name else ""
        wrong.append(f"it was made for the model {about.get('backbone')}{weights}, this is {backbone.name}")
    if engine is not None and about.get("engine", engine) != engine:
        wrong.append(f"it was made for a {about['engine']}, this is a {engine}")
    theirs = about.get("layout")
    if layout is not None and theirs is not None and list(layout) != list(theirs):
        wrong.append(f"it was made for the layout {theirs!r}, this engine has {layout!r}")
    if wrong:
        raise ValueError(
            f"{what} does not fit: {'; '.join(wrong)}. Use it with the model and layout it was made for, or "
            "train a new one"
        )


def _first_of(source: PromptSource) -> Prompt:
    """The prompt of run 0."""
    device = next(tensor.device for tensor in [*source.parameters(), *source.buffers()])
    with torch.no_grad():
        return source(torch.zeros(1, dtype=torch.long, device=device))
