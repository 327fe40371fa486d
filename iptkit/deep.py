"""Deep prompts: trained keys and values at every attention of a frozen model (P-Tuning v2).

Liu et al. 2022, "P-Tuning v2" (arXiv 2110.07602), section 3. Prefix tuning (Li & Liang 2021, arXiv
2101.00190) is the same mechanism in generation. A *site* is one attention of the model: a layer of an
encoder or a causal model; in encoder-decoder models the encoder's, the decoder's own and the decoder's on
the encoder ("cross").

    keys, values [R, S, 2, h, n, k]   R runs, S sites, h key/value heads, n prompt tokens, k numbers per head
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iptkit import injection
from iptkit.backbones import Backbone
from iptkit.injection import DeepMemory
from iptkit.prompts import Prompt, each_once
from iptkit.ptuning import RunLinear

PARTS = ("encoder", "decoder", "cross")
FORMS = ("embedding", "mlp")
MLP_INNER = 512  # width between the MLP's layers, as in the authors' code
MLP_STD = 0.02  # of the vectors an MLP reads; from 1, torch's and the authors' start, it trained worse on dev


@dataclass(frozen=True)
class Site:
    """One attention of a model.

    Attributes:
      part: "encoder" (tokens see each other), "decoder" (each sees those before it) or "cross".
      layer: its number within the part, from 0.
      module: what transformers' attention interface is called with.
      num_kv_heads, head_width: h and k.
    """

    part: str
    layer: int
    module: nn.Module
    num_kv_heads: int
    head_width: int


def find_sites(model: nn.Module) -> list[Site]:
    """The attentions of a model, found by running a few tokens through it.

    Raises:
      ValueError: the model bypasses transformers' attention interface, or several of its layers share one
        attention (ALBERT), so that they could not be told apart.
    """
    injection.prepare(model)
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []
    seen = injection.observe(lambda module, query, key: calls.append((module, query, key)))
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


def choose(sites: Sequence[Site], layers: Sequence[int] | None = None, parts: Sequence[str] = PARTS):
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


class DeepPrompt(nn.Module):
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

    per_run = True

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


def _part(model: nn.Module, queries: int, keys: int) -> str:
    """Which attention a call of the probe was: it has 5 tokens for an encoder and 3 for a decoder."""
    if model.config.is_encoder_decoder:
        return "cross" if queries < keys else "encoder" if queries == 5 else "decoder"
    return "decoder" if getattr(model.config, "is_decoder", False) or _is_causal(model) else "encoder"


def _is_causal(model: nn.Module) -> bool:
    return any("CausalLM" in name or "LMHead" in name for name in model.config.architectures or ())
