"""Prompt sources: modules that hand the engine one prompt per row and train exactly their parameters.

A *run* is one (task, seed, learning rate, ...). A source with `per_run = True` owns one row of every
trainable tensor per run, so rows of many runs mix in one batch and train as if each had been alone.
Prompt tuning: Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning"
(arXiv 2104.08691), section 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from iptkit.engine.prompt import Prompt, PromptSource, as_prompt, check_numbers
from iptkit.models.backbone import Backbone

WORDS = "Answer with the right choice. Answer:"  # our own init text; also what "zero-shot" is asked with


class SoftPrompt(PromptSource):
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

    def __init__(self, init: Tensor, about: dict[str, Any] | None = None):
        super().__init__()
        check_numbers(init, "init")
        self.about = about or {}
        dtype = torch.float64 if init.dtype == torch.float64 else torch.float32
        self.P = nn.Parameter(init.detach().clone().to(dtype).contiguous())

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] run of each row -> one prompt per row."""
        return as_prompt(self.P.index_select(0, runs))


class FixedPrompt(PromptSource):
    """Given prompts that nothing trains: words, a mean prompt, decoded codes.

    Args:
      numbers: [R, n, d], or deep ones [R, S, 2, h, n, k], or adapters [R, N, 2, d, r].
      about: see `SoftPrompt`.
    """

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
