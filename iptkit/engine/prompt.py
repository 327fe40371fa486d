"""A prompt as the engine takes it, and whether it fits the engine's model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from iptkit.models.backbone import Backbone


SHAPES = (3, 5, 6)  # dimensions of prompts at the input, of adapters, and of deep prompts


@dataclass(frozen=True)
class Prompt:
    """One prompt per row: what a source hands to the engine.

    Attributes:
      embeds: [B, n, d] vectors in the space of the model's input embeddings, or None.
      keys_values: [B, S, 2, h, n, k] a deep prompt at S attentions (see deep.py), or None.
      head: [B, C, d + 1] weights and, last, biases of a classifier (see heads.py), or None.
      lengths: [B] how many of the n of a deep prompt count, or None for all.
      adapters: [B, N, 2, d, r] behind the blocks of the model (see adapters.py), or None.
    """

    embeds: Tensor | None = None
    keys_values: Tensor | None = None
    head: Tensor | None = None
    lengths: Tensor | None = None
    adapters: Tensor | None = None

    def __post_init__(self) -> None:
        if self.adapters is not None and (self.embeds is not None or self.keys_values is not None):
            raise ValueError("a Prompt has adapters beside vectors or keys and values; give one of them")

    @property
    def length(self) -> int:
        """Positions that the prompt takes in a row; a deep prompt and adapters take none."""
        return 0 if self.embeds is None else self.embeds.shape[1]

    @property
    def reaches_text(self) -> bool:
        """Does every token depend on it, wherever it stands?"""
        return self.keys_values is not None or self.adapters is not None

    @property
    def count(self) -> int:
        """B, how many prompts there are."""
        return next(len(t) for t in self._parts() if t is not None)

    @property
    def are_finite(self) -> Tensor:
        """[B] Are all numbers of each prompt finite?"""
        parts = [t for t in self._parts() if t is not None and t.dim() > 1]
        return torch.stack([t.isfinite().flatten(1).all(1) for t in parts]).all(0)

    def rows(self, index: Tensor) -> Prompt:
        """The prompts of rows `index` [B']."""
        return self._each(lambda t: t.index_select(0, index))

    def detached(self) -> Prompt:
        """The same numbers, cut off from what made them; they collect gradients where that trains."""
        return self._each(lambda t: t.detach().requires_grad_(t.requires_grad))

    def backward(self, leaf: Prompt) -> None:
        """Send the gradients that `leaf` (from `detached`) has collected into what made the prompts."""
        pairs = [(mine, theirs) for mine, theirs in zip(self._parts(), leaf._parts(), strict=True)]
        pairs = [(m, t.grad) for m, t in pairs if t is not None and t.grad is not None]
        torch.autograd.backward([m for m, _ in pairs], [grad for _, grad in pairs])

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.embeds, self.keys_values, self.head, self.lengths, self.adapters

    def _each(self, change: Callable[[Tensor], Tensor]) -> Prompt:
        return Prompt(*(None if t is None else change(t) for t in self._parts()))


def as_prompt(numbers: Tensor) -> Prompt:
    """[B, n, d] as vectors at the input, [B, S, 2, h, n, k] as a deep prompt, [B, N, 2, d, r] as adapters."""
    if numbers.dim() == 3:
        return Prompt(numbers)
    return Prompt(adapters=numbers) if numbers.dim() == 5 else Prompt(keys_values=numbers)


def check_numbers(numbers: Tensor, name: str) -> None:
    """Raise ValueError unless `numbers` are prompts in one of the shapes of `as_prompt`."""
    if numbers.dim() not in SHAPES or (numbers.dim() == 5 and numbers.shape[2] != 2):
        raise ValueError(
            f"{name} has shape {tuple(numbers.shape)}; give [runs, prompt_length, width], e.g. "
            f"{name}.expand(runs, -1, -1), a deep prompt's [runs, sites, 2, heads, prompt_length, "
            "head_width], or adapters' [runs, places, 2, width, rank]"
        )


def prompt_length(source: nn.Module) -> int:
    """n of the prompts that a source makes."""
    return _first_of(source).length


# ---- does it fit? --------------------------------------------------------------------------------
def check_source(engine: AnyEngine, source: nn.Module) -> int:
    """Make sure that the prompts of a source are for the engine's model, before anything runs.

    Args:
      engine: an Engine or HeadEngine.
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


def made_for(engine: AnyEngine, prompt_length: int) -> dict[str, Any]:
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


def check_about(engine: AnyEngine, about: dict[str, Any], what: str) -> None:
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


def _first_of(source: nn.Module) -> Prompt:
    """The prompt of run 0."""
    device = next(tensor.device for tensor in [*source.parameters(), *source.buffers()])
    with torch.no_grad():
        return source(torch.zeros(1, dtype=torch.long, device=device))
