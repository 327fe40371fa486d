"""P-Tuning v2: deep prompts, trained keys and values at every attention of a frozen model.

Liu et al. 2022, "P-Tuning v2" (arXiv 2110.07602), section 3. Prefix tuning (Li & Liang 2021, arXiv
2101.00190) is the same mechanism in generation. A *site* is one attention of the model: one per layer of an
encoder or a causal model. An encoder-decoder model has three kinds: the encoder's attention, the decoder's
self-attention, and the decoder's cross-attention to the encoder.

    keys, values [R, S, 2, h, n, k]   R runs, S sites, h key/value heads, n virtual tokens, k width of a head
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from iptkit.engine.prompt import Prompt, PromptSource, Site
from iptkit.methods.p_tuning import RunLinear
from iptkit.methods.prompt_tuning import each_once

FORMS = ("embedding", "mlp")
MLP_INNER = 512  # width of the MLP's hidden layer, as in the authors' code
MLP_STD = (
    0.02  # std of the MLP's input vectors; with 1, PyTorch's and the authors' std, dev scores were worse
)


class DeepPrompt(PromptSource):
    """Trained keys and values at S sites, one set per run.

    Args:
      runs: R.
      sites: the attentions that get a prompt; see `engine.find_sites` and `engine.choose`.
      prompt_length: n >= 1, the same at every site; or one length per run, so that several lengths train in
        one batch (n is then the longest, and positions beyond a run's own length are masked).
      generator: draws the start, the same for every run.
      form: "embedding" trains the keys and values themselves; "mlp" makes them from n vectors of width
        `width` by an MLP width -> inner -> all keys and values (the paper's reparameterisation, section 3.3).
      std: standard deviation of the start, N(0, std^2); for "mlp", of the start of the n vectors.
      dropout: probability that a training step sets a key or value to 0, in [0, 1).
      width: width of the MLP's input vectors (in the authors' code the model's d).
      inner: width of the MLP's hidden layer.

    Raises:
      ValueError: prompt_length < 1, no sites, unknown form, dropout outside [0, 1), or "mlp" without width.
    """

    lengths: Tensor | None

    def __init__(
        self,
        runs: int,
        sites: Sequence[Site],
        prompt_length: int | Sequence[int],
        generator: torch.Generator,
        form: str = "embedding",
        std: float = 0.02,
        dropout: float = 0.0,
        width: int = 0,
        inner: int = MLP_INNER,
    ):
        super().__init__()
        lengths = [prompt_length] * runs if isinstance(prompt_length, int) else list(prompt_length)
        if len(lengths) != runs or min(lengths, default=0) < 1 or not sites:
            given = f"prompt_length={prompt_length} with {runs} runs and {len(sites)} sites"
            raise ValueError(
                f"{given}: give one length >= 1 for all runs or one per run, and at least one site"
            )
        if form not in FORMS or not 0 <= dropout < 1 or (form == "mlp" and width < 1):
            given = f"form {form!r}, dropout {dropout}, width {width}"
            raise ValueError(f"{given}: form is one of {FORMS}, dropout in [0, 1), and 'mlp' needs a width")
        self.sites, self.form, self.dropout = list(sites), form, dropout
        self.num_kv_heads, self.head_width = sites[0].num_kv_heads, sites[0].head_width
        size = len(sites) * 2 * self.num_kv_heads * self.head_width
        shape = (max(lengths), size if form == "embedding" else width)
        drawn = torch.randn(shape, generator=generator, device=generator.device) * std
        self.P = nn.Parameter(drawn.expand(runs, -1, -1).clone())
        is_same = len(set(lengths)) == 1
        self.register_buffer("lengths", None if is_same else torch.tensor(lengths), persistent=False)
        if form == "mlp":
            self.inner = RunLinear(runs, width, inner, generator)
            self.outer = RunLinear(runs, inner, size, generator)
        weight = next(sites[0].module.parameters(), drawn)
        self.to(weight.device)

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> Prompt with keys_values [B, S, 2, h, n, k]."""
        used, where = each_once(runs, len(self.P))
        x = self.P.index_select(0, used)  # [U, n, S * 2 * h * k] or [U, n, width]
        if self.form == "mlp":
            x = self.outer(torch.tanh(self.inner(x, used)), used)
        x = x.view(*x.shape[:2], len(self.sites), 2, self.num_kv_heads, self.head_width)
        x = nn.functional.dropout(x, self.dropout, self.training)
        lengths = None if self.lengths is None else self.lengths.index_select(0, runs)
        return Prompt(keys_values=x.permute(0, 2, 3, 4, 1, 5).index_select(0, where), lengths=lengths)


def num_parameters(
    prompt_length: int, num_layers: int, width: int, form: str = "embedding", inner: int = MLP_INNER
) -> int:
    """The number of trainable parameters of one run in a model whose keys are as wide as its hidden states.

    Args:
      prompt_length: n.
      num_layers: layers with a prompt.
      width: d.
      form: "embedding" or "mlp".
      inner: width of the MLP's hidden layer.

    Example:
      >>> num_parameters(20, 24, 1024), num_parameters(20, 24, 1024, "mlp")
      (983040, 25760256)
    """
    size = num_layers * 2 * width
    if form == "embedding":
        return prompt_length * size
    return prompt_length * width + width * inner + inner + inner * size + size
