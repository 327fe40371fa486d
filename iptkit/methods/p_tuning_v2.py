"""Deep prompts: trained keys and values at every attention of a frozen model (P-Tuning v2).

Liu et al. 2022, "P-Tuning v2" (arXiv 2110.07602), section 3. Prefix tuning (Li & Liang 2021, arXiv
2101.00190) is the same mechanism in generation. A *site* is one attention of the model: a layer of an
encoder or a causal model; in encoder-decoder models the encoder's, the decoder's own and the decoder's on
the encoder ("cross").

    keys, values [R, S, 2, h, n, k]   R runs, S sites, h key/value heads, n prompt tokens, k numbers per head
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.engine.sites import Site
from iptkit.methods.p_tuning import RunLinear
from iptkit.methods.prompt_tuning import each_once

FORMS = ("embedding", "mlp")
MLP_INNER = 512  # width between the MLP's layers, as in the authors' code
MLP_STD = 0.02  # of the vectors an MLP reads; from 1, torch's and the authors' start, it trained worse on dev


class DeepPrompt(PromptSource):
    """Trained keys and values at S sites, one set per run (P-Tuning v2).

    Args:
      runs: R.
      sites: where; see `find_sites` and `choose`.
      prompt_length: n >= 1, the same at every site; or one for each run, so that several lengths train in one
        batch (n is then the longest, and what a shorter run has beyond its own is never looked at).
      form: "embedding" trains the keys and values themselves; "mlp" makes them from n vectors of width
        `width` by an MLP width -> inner -> all keys and values (the paper's reparameterisation, section 3.3).
      std: spread of the start, N(0, std^2); of the n vectors for "mlp".
      dropout: share of the numbers that a training step leaves out, in [0, 1).
      width, inner: of the MLP (the authors' code: the model's d, and 512).
      generator: draws the start; every run begins with the same.

    Raises:
      ValueError: prompt_length < 1, no sites, unknown form, dropout outside [0, 1), or "mlp" without width.
    """

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
            given = f"prompt_length={prompt_length} for {runs} runs at {len(sites)} sites"
            raise ValueError(f"{given}: give one length >= 1 for all or for each run, and at least one site")
        if form not in FORMS or not 0 <= dropout < 1 or (form == "mlp" and width < 1):
            given = f"form {form!r}, dropout {dropout}, width {width}"
            raise ValueError(f"{given}: form is one of {FORMS}, dropout in [0, 1), and 'mlp' needs a width")
        self.sites, self.form, self.dropout = list(sites), form, dropout
        self.heads, self.head_width = sites[0].num_kv_heads, sites[0].head_width
        size = len(sites) * 2 * self.heads * self.head_width
        shape = (max(lengths), size if form == "embedding" else width)
        drawn = torch.randn(shape, generator=generator, device=generator.device) * std
        self.P = nn.Parameter(drawn.expand(runs, -1, -1).clone())
        is_one = len(set(lengths)) == 1
        self.register_buffer("lengths", None if is_one else torch.tensor(lengths), persistent=False)
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
        x = x.view(*x.shape[:2], len(self.sites), 2, self.heads, self.head_width)
        x = nn.functional.dropout(x, self.dropout, self.training)
        lengths = None if self.lengths is None else self.lengths.index_select(0, runs)
        return Prompt(keys_values=x.permute(0, 2, 3, 4, 1, 5).index_select(0, where), lengths=lengths)

    @torch.no_grad()
    def without_mlp(self) -> DeepPrompt:
        """The same prompts as plain keys and values: all that is needed after training."""
        made = self.eval()(torch.arange(len(self.P), device=self.P.device)).keys_values
        lengths = self.P.shape[1] if self.lengths is None else self.lengths.tolist()
        plain = DeepPrompt(len(self.P), self.sites, lengths, torch.Generator())
        plain.P = nn.Parameter(made.permute(0, 4, 1, 2, 3, 5).flatten(2).contiguous())
        return plain


def num_parameters(
    prompt_length: int, num_layers: int, width: int, form: str = "embedding", inner: int = 512
) -> int:
    """Numbers that one run trains in a model whose keys have the width of its states.

    Example:
      >>> num_parameters(20, 24, 1024), num_parameters(20, 24, 1024, "mlp")
      (983040, 25760256)
    """
    size = num_layers * 2 * width
    if form == "embedding":
        return prompt_length * size
    return prompt_length * width + width * inner + inner + inner * size + size
