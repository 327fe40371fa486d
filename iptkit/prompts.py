"""Prompt sources: modules that hand the engine one prompt per row and train exactly their parameters.

A *run* is one (task, seed, learning rate, ...). A source with `per_run = True` owns one row of every
trainable tensor per run, so rows of many runs mix in one batch and train as if each had been alone.
Prompt tuning: Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning"
(arXiv 2104.08691), section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from iptkit.backbones import Backbone
    from iptkit.encoders import HeadEngine
    from iptkit.engine import Engine

    AnyEngine = Engine | HeadEngine

SHAPES = (3, 5, 6)  # dimensions of prompts at the input, of adapters, and of deep prompts
WORDS = "Answer with the right choice. Answer:"  # our own init text; also what "zero-shot" is asked with


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


class SoftPrompt(nn.Module):
    """n free vectors per run (prompt tuning), or n keys and values at every site (P-Tuning v2), or adapters.

    Args:
      init: [R, n, d] start values, one prompt per run (see `from_words` and `from_normal`), or deep ones
        [R, S, 2, h, n, k], or adapters [R, N, 2, d, r].
      about: what they were made for, where a file of prompts says so (see `made_for`): a model or layout that
        they do not fit is then refused before anything runs.
    Raises:
      ValueError: `init` has another number of dimensions.
    Example:
      >>> SoftPrompt(torch.zeros(2, 4, 8))(torch.tensor([1, 1, 0])).embeds.shape
      torch.Size([3, 4, 8])
    """

    per_run = True

    def __init__(self, init: Tensor, about: dict[str, Any] | None = None):
        super().__init__()
        check_numbers(init, "init")
        self.about = about or {}
        dtype = torch.float64 if init.dtype == torch.float64 else torch.float32
        self.P = nn.Parameter(init.detach().clone().to(dtype).contiguous())

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] run of each row -> one prompt per row."""
        return as_prompt(self.P.index_select(0, runs))


class FixedPrompt(nn.Module):
    """Given prompts that nothing trains: words, a mean prompt, decoded codes.

    Args:
      numbers: [R, n, d], or deep ones [R, S, 2, h, n, k], or adapters [R, N, 2, d, r].
      about: see `SoftPrompt`.
    """

    per_run = True

    def __init__(self, numbers: Tensor, about: dict[str, Any] | None = None):
        super().__init__()
        check_numbers(numbers, "numbers")
        self.about = about or {}
        self.register_buffer("P", numbers.detach().clone())

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> one prompt per row."""
        return as_prompt(self.P.index_select(0, runs))


def each_once(runs: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """Which runs of a batch to make a prompt for, and where each row then finds its own.

    Args:
      runs: [B] run of each row.
      total: R, runs that the source has.
    Returns: used [U] and where [B], with used[where] equal to runs. On a CPU each run of the batch once, in
      order. How many those are a GPU would have to be waited for: there it is all R in order, or if the batch
      has fewer rows, the run of each row.
    Example:
      >>> each_once(torch.tensor([2, 0, 2]), 4)
      (tensor([0, 2]), tensor([1, 0, 1]))
    """
    if runs.device.type == "cpu":
        return runs.unique(return_inverse=True)
    if len(runs) < total:
        return runs, torch.arange(len(runs), device=runs.device)
    return torch.arange(total, device=runs.device), runs


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


# ---- starts --------------------------------------------------------------------------------------
def from_words(backbone: Backbone, prompt_length: int, words: str = WORDS) -> Tensor:
    """[n, d] embeddings of the last n tokens of `words`; see `word_tokens`."""
    rows = backbone.embedding[word_tokens(backbone, prompt_length, words)]
    return rows.detach().to(torch.float64 if rows.dtype == torch.float64 else torch.float32)


@torch.no_grad()
def deep_from_words(backbone: Backbone, prompt_length: int, words: str = WORDS) -> Tensor:
    """[S, 2, h, n, k] keys and values that a causal model has when it reads the last n tokens of `words`.

    The text beside a deep prompt begins at position 0, so words stand at -n to -1 where positions turn keys
    (Llama): then they act as the same words before the text. Models with a table of positions begin at 0.
    """
    ids = word_tokens(backbone, prompt_length, words)[None]
    turns = any("rotary" in name for name, _ in backbone.model.named_modules())
    positions = torch.arange(prompt_length, device=ids.device)[None] - prompt_length * turns
    read = backbone.model(input_ids=ids, position_ids=positions, use_cache=True)
    layers = read["cache" if "cache" in read else "past_key_values"].layers  # its name from 5.24 on
    made = torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in layers])
    return made.to(torch.float64 if made.dtype == torch.float64 else torch.float32)


def word_tokens(backbone: Backbone, prompt_length: int, words: str = WORDS) -> Tensor:
    """[n] ids of the last n tokens of `words`, repeated to the left until there are n.

    Raises:
      ValueError: prompt_length < 1 or no token in `words`.
    """
    ids = backbone.tokenizer(words, add_special_tokens=False).input_ids
    if prompt_length < 1 or not ids:
        raise ValueError(
            f"prompt_length={prompt_length} with words {words!r} ({len(ids)} tokens): both must be at least 1"
        )
    repeated = ids * -(-prompt_length // len(ids))
    return torch.tensor(repeated[-prompt_length:], device=backbone.device)


def from_normal(backbone: Backbone, prompt_length: int, std: float, generator: torch.Generator) -> Tensor:
    """[n, d] draws from N(0, std^2), the paper's start with std 0.02.

    It is badly conditioned on models whose embeddings are larger.
    """
    drawn = torch.randn(prompt_length, backbone.width, generator=generator, device=generator.device)
    return drawn.to(backbone.device) * std


def nearest_words(backbone: Backbone, embeds: Tensor, count: int = 3) -> list[list[str]]:
    """For each of the n vectors in `embeds` [n, d] the `count` tokens nearest by cosine."""
    table = nn.functional.normalize(backbone.embedding.float(), dim=-1)
    similar = nn.functional.normalize(embeds.float(), dim=-1) @ table.T
    return [
        [backbone.tokenizer.decode([i]) for i in row] for row in similar.topk(count, dim=-1).indices.tolist()
    ]
