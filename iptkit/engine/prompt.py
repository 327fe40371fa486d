"""Prompts as the engine takes them, and the base class of everything that makes them.

A prompt is one of three kinds, by the place where it enters the model:

    embeds       vectors among the embeddings of the text        [B, n, d]
    keys_values  a deep prompt, at every attention               [B, S, 2, h, n, k]
    adapters     after every attention and feed-forward block    [B, N, 2, d, r]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from iptkit.engine import prompt_files

Kind = Literal["embeds", "keys_values", "adapters"]
SHAPES: dict[Kind, tuple[str, ...]] = {
    "embeds": ("runs", "prompt_length", "width"),
    "keys_values": ("runs", "sites", "2", "heads", "prompt_length", "head_width"),
    "adapters": ("runs", "blocks", "2", "width", "rank"),
}
RESERVED = {
    *("method", "engine", "backbone", "fingerprint", "width", "layout", "prompt_length", "sites"),
    *("scores", "versions", "format"),
}  # fields of a prompt file's header that `PromptSource.save` fills


@dataclass(frozen=True)
class Site:
    """One attention of a model, where a deep prompt enters.

    Attributes:
      part: "encoder" (every token sees all others), "decoder" (every token sees those before it) or "cross".
      layer: index of the layer within the part, from 0.
      module: the module that calls transformers' attention interface.
      num_kv_heads: h, key/value heads.
      head_width: k, width of a head.
    """

    part: str
    layer: int
    module: nn.Module
    num_kv_heads: int
    head_width: int


@dataclass(frozen=True)
class Prompt:
    """One prompt per row: what a source gives to the engine.

    Attributes:
      embeds: [B, n, d] vectors in the space of the model's input embeddings, or None.
      keys_values: [B, S, 2, h, n, k] keys and values at S attentions (see p_tuning_v2), or None.
      head: [B, C, d + 1] weights of a linear classifier, its biases last (see methods/heads.py), or None.
      lengths: [B] how many of the n positions of each deep prompt are used; None for all.
      adapters: [B, N, 2, d, r] down- and up-projections after N blocks (see methods/adapters.py), or None.
    """

    embeds: Tensor | None = None
    keys_values: Tensor | None = None
    head: Tensor | None = None
    lengths: Tensor | None = None
    adapters: Tensor | None = None

    def __post_init__(self) -> None:
        if self.adapters is not None and (self.embeds is not None or self.keys_values is not None):
            raise ValueError("a Prompt with adapters has no embeds or keys_values; give one of the three")

    @classmethod
    def of(cls, kind: Kind, numbers: Tensor) -> Prompt:
        """The prompts that are stored as one tensor.

        Args:
          kind: "embeds", "keys_values" or "adapters".
          numbers: [B, ...] in the shape of that kind (see the module's docstring).
        Raises: ValueError for an unknown kind, or another shape.

        Example:
          >>> Prompt.of("embeds", torch.zeros(2, 4, 8)).length
          4
        """
        check_numbers(numbers, "numbers", kind)
        if kind == "embeds":
            return cls(embeds=numbers)
        return cls(keys_values=numbers) if kind == "keys_values" else cls(adapters=numbers)

    @property
    def length(self) -> int:
        """Positions that the prompt takes in a row; deep prompts and adapters take none."""
        return 0 if self.embeds is None else self.embeds.shape[1]

    @property
    def reaches_text(self) -> bool:
        """True if every token of the text depends on the prompt, wherever it stands in the layout."""
        return self.keys_values is not None or self.adapters is not None

    @property
    def count(self) -> int:
        """B, the number of prompts; 0 for an empty Prompt, which serves any number of rows."""
        return next((len(t) for t in self._parts() if t is not None), 0)

    @property
    def are_finite(self) -> Tensor:
        """[B] bool, True for each prompt without NaN or infinity."""
        parts = [t for t in self._parts() if t is not None and t.dim() > 1]
        return torch.stack([t.isfinite().flatten(1).all(1) for t in parts]).all(0)

    def rows(self, index: Tensor) -> Prompt:
        """The prompts of rows `index` [B']."""
        return self._each(lambda t: t.index_select(0, index))

    def detached(self) -> Prompt:
        """The same values as leaves of a new graph, which collect gradients if the originals require them."""
        return self._each(lambda t: t.detach().requires_grad_(t.requires_grad))

    def backward(self, leaf: Prompt) -> None:
        """Backpropagate the gradients that `leaf` (from `detached`) has collected into the source."""
        pairs = [
            (mine, theirs.grad)
            for mine, theirs in zip(self._parts(), leaf._parts(), strict=True)
            if mine is not None and theirs is not None and theirs.grad is not None
        ]
        torch.autograd.backward([mine for mine, _ in pairs], [grad for _, grad in pairs])

    def tensors(self) -> dict[str, Tensor]:
        """The parts that are there, by name."""
        return {name: part for name, part in vars(self).items() if part is not None}

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.embeds, self.keys_values, self.head, self.lengths, self.adapters

    def _each(self, change: Callable[[Tensor], Tensor]) -> Prompt:
        return Prompt(*(None if t is None else change(t) for t in self._parts()))


def check_numbers(numbers: Tensor, name: str, kind: Kind) -> None:
    """Raise ValueError unless `numbers` has the shape of prompts of this kind.

    Args:
      numbers: [R, ...], one prompt per run.
      name: of the argument, for the error.
      kind: "embeds", "keys_values" or "adapters".
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind {kind!r} is unknown; choose one of {', '.join(get_args(Kind))}")
    shape = SHAPES[kind]
    if numbers.dim() != len(shape) or (kind != "embeds" and numbers.shape[2] != 2):
        example = f", e.g. {name}.expand(runs, -1, -1)," if kind == "embeds" else ""
        others = ", ".join(f"[{', '.join(SHAPES[k])}] for kind={k!r}" for k in SHAPES if k != kind)
        raise ValueError(
            f"{name} has shape {tuple(numbers.shape)}; give [{', '.join(shape)}]{example} for kind={kind!r}, "
            f"or say that the prompts are of another kind: {others}"
        )


def as_trained(numbers: Tensor) -> Tensor:
    """The same numbers in the dtype that prompts train in: float64 for float64, float32 for all others."""
    return numbers.detach().to(torch.float64 if numbers.dtype == torch.float64 else torch.float32)


class PromptSource(nn.Module):
    """Base class of all prompt methods: a module that makes one prompt per row from its parameters.

    A *run* is one training: a task, a seed, a learning rate. A subclass defines `forward`; `fit`,
    `evaluate` and the engines need nothing else. What trains is a parameter (see `as_trained`); what stays
    fixed is a buffer, of any shape. After `fit` a source is in its best state on dev, not in its last.

    Attributes:
      per_run: True if every trainable tensor is [R, ...], one row per run. Rows of many runs then mix in
        one batch, each run trains as if it were alone, and each run keeps its own best state. False if all
        runs share the parameters (the auto-encoder of MSF).
      task_weight: weight of the mean task loss in the objective of a source that all runs share; with 0,
        `penalty` alone trains it.
      about: what the prompts were made for, as JSON: model, layout and sizes (compatibility.made_for), and
        after `fit` also tasks and settings. An engine with another model or layout is refused before anything
        runs; `dict(source.about)` is a copy to change, and `source.about = {}` lifts the check.
      sites: the attentions that its deep prompts enter, () for other prompts.

    Example:
      >>> class OneVector(PromptSource):
      ...     def __init__(self, runs, width):
      ...         super().__init__()
      ...         self.v = nn.Parameter(torch.zeros(runs, 1, width))
      ...
      ...     def forward(self, runs):
      ...         return Prompt(self.v.index_select(0, runs))
      >>> OneVector(2, 8)(torch.tensor([1, 1, 0])).embeds.shape
      torch.Size([3, 1, 8])
    """

    per_run: ClassVar[bool] = True
    task_weight: float = 1.0
    about: Mapping[str, Any] = MappingProxyType({})
    sites: Sequence[Site] = ()

    def forward(self, runs: Tensor) -> Prompt:
        """Make one prompt per row.

        Args:
          runs: [B] the run of each row, 0 to R - 1.
        Returns: a Prompt of B rows.
        """
        raise NotImplementedError(f"{type(self).__name__} needs forward(runs) -> Prompt")

    def penalty(self) -> Tensor | None:
        """The term that a source shared by all runs adds to the objective, or None."""
        return None

    @property
    def method(self) -> str:
        """The name of the method, in files."""
        return type(self).__name__

    @property
    def num_runs(self) -> int | None:
        """R, the number of runs; None for a source that gives the same prompt to any number of runs."""
        if not self.per_run:
            return None
        trained = (p for p in self.parameters() if p.requires_grad)
        every = itertools.chain(trained, self.parameters(), self.buffers())
        return next((len(t) for t in every if t.dim()), None)

    @property
    def _num_saved(self) -> int:
        """The number of prompts in a file: one per run, or per task where all runs have the same prompt."""
        return self.num_runs or len(self.about.get("tasks") or "1")

    def save(self, path: str | Path, scores: Sequence[Any] | None = None, **about: Any) -> Path:
        """Write the prompts of all runs to a safetensors file; `prompts.load_prompt` reads it.

        The file holds what the model reads, not what made it: an encoder or a decoder is left out.

        Args:
          path: a file that ends in .safetensors, by custom NAME.prompt.safetensors; any other name is a
            folder, which gets prompt.safetensors and a card for a model hub.
          scores: of the runs: numbers, or what `scores.measure` returns.
          about: further JSON for the file's header.
        Returns: the path of the file.

        Raises: ValueError if the source does not say what it was made for, a prompt is not finite, or there
          are more or fewer scores or tasks than runs, or scores of other tasks; see also prompt_files.write.
        """
        if taken := sorted(about.keys() & RESERVED):
            raise ValueError(f"{', '.join(taken)}: `save` fills these fields itself; choose another name")
        told = {**self.about, **about}
        if not told.get("fingerprint"):
            raise ValueError(
                f"this {self.method} does not say which model it is for; train it with `fit`, or set "
                "source.about = iptkit.engine.made_for(engine, prompt_length)"
            )
        for name, given in (("scores", scores), ("tasks", told.get("tasks"))):
            if given is not None and (not isinstance(given, (list, tuple)) or len(given) != self._num_saved):
                count = len(given) if isinstance(given, (list, tuple)) else f"{given!r:.40} as"
                raise ValueError(
                    f"{count} {name} were given for {self._num_saved} run(s); give one per run: "
                    f"save(path, {name}=[...])"
                )
        for score, task in zip(scores or (), told.get("tasks") or (), strict=False):
            if getattr(score, "task", task) != task:
                raise ValueError(
                    f"the score of {score.task} was given for the run of {task}; give the scores in the "
                    "order of the runs"
                )
        prompt = self.finished()
        if False in (finite := prompt.are_finite.tolist()):
            raise ValueError(
                f"the prompt of run {finite.index(False)} is not finite; train with a smaller learning rate"
            )
        measured = None if scores is None else [_plain(score) for score in scores]
        return prompt_files.write(path, prompt.tensors(), {"method": self.method, **told, "scores": measured})

    @torch.no_grad()
    def finished(self) -> Prompt:
        """The prompts of all R runs, without dropout and without a graph."""
        was_training, first = self.training, next(itertools.chain(self.parameters(), self.buffers()))
        made = self.eval()(torch.arange(self._num_saved, device=first.device)).detached()
        self.train(was_training)
        return made


def _plain(score: Any) -> Any:
    """A score as JSON: a number, or the fields of a dataclass."""
    is_object = is_dataclass(score) and not isinstance(score, type)
    return asdict(score) if is_object else float(score)
