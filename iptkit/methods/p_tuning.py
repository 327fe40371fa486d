"""P-tuning: a small trained encoder makes the prompt's vectors and is dropped after training.

Liu et al. 2021, "GPT Understands, Too" (arXiv 2103.10385), section 3.2, with the shapes of the released code
for knowledge probing: n input vectors of width d, a bidirectional LSTM of two layers with d / 2 units in each
direction, and an MLP d -> d -> d with a ReLU. With d = 768 and n = 9 a run trains 8,278,272 parameters.

    input [n, d] -> BiLSTM -> Linear -> ReLU -> Linear -> prompt [n, d]

The engine's layout says where the vectors stand among text and anchor words (engine/layouts.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from iptkit.engine.prompt import Prompt, PromptSource, as_trained
from iptkit.methods.prompt_tuning import FixedPrompt, each_once

ENCODERS = ("lstm", "mlp", "none")


class EncodedPrompt(PromptSource):
    """A prompt of n vectors per run, made by an encoder of which every run has its own copy.

    Args:
      init: [R, n, d] start values of the input vectors, one prompt per run.
      encoder: "lstm" (BiLSTM and MLP), "mlp" (MLP alone) or "none" (the input is the prompt).
      generator: draws the encoder's start from PyTorch's default ranges, the same for every run.

    Raises:
      ValueError: unknown encoder, `init` is not three-dimensional, or an odd width with "lstm".

    Example:
      >>> source = EncodedPrompt(torch.zeros(2, 3, 8), "mlp", torch.Generator())
      >>> source(torch.tensor([1, 0])).embeds.shape
      torch.Size([2, 3, 8])
    """

    def __init__(self, init: Tensor, encoder: str, generator: torch.Generator):
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"encoder {encoder!r} is unknown; choose one of {', '.join(ENCODERS)}")
        if init.dim() != 3:
            raise ValueError(f"init has shape {tuple(init.shape)}; give [runs, prompt_length, width]")
        runs, _, width = init.shape
        if encoder == "lstm" and width % 2:
            raise ValueError(f"the width is {width}; the encoder 'lstm' needs an even one, or take 'mlp'")
        self.encoder = encoder
        self.input = nn.Parameter(as_trained(init).clone())
        if encoder == "lstm":
            self.lstm = RunLSTM(runs, width, width // 2, generator)
        if encoder != "none":
            self.inner = RunLinear(runs, width, width, generator)
            self.outer = RunLinear(runs, width, width, generator)
        self.to(init.device, self.input.dtype)

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> Prompt with embeds [B, n, d] (each run is encoded once)."""
        return Prompt(self._encoded(runs))

    def _encoded(self, runs: Tensor) -> Tensor:
        used, where = each_once(runs, len(self.input))
        x = _rows(self.input, used)
        if self.encoder == "lstm":
            x = self.lstm(x, used)
        if self.encoder != "none":
            x = self.outer(torch.relu(self.inner(x, used)), used)
        return x.index_select(0, where)

    @torch.no_grad()
    def without_encoder(self) -> FixedPrompt:
        """The finished prompts [R, n, d]: all that is needed after training."""
        made = self._encoded(torch.arange(len(self.input), device=self.input.device))
        return FixedPrompt(made, about=self.about)


def concatenate(sources: Sequence[EncodedPrompt]) -> EncodedPrompt:
    """One source with the runs of all sources in order: the first one, whose parameters are extended.

    Args:
      sources: with the same encoder and shapes; the start values may differ.
    """
    first, others = sources[0], [dict(source.named_parameters()) for source in sources[1:]]
    for name, p in first.named_parameters():
        p.data = torch.cat([p.data, *(other[name].data for other in others)])
    return first


class RunLinear(nn.Module):
    """A linear layer with separate weights for every run.

    Args:
      runs: R.
      inputs: width of x.
      outputs: width of the result.
      generator: draws the start from U(-1, 1) / sqrt(inputs), the same for every run.
    """

    def __init__(self, runs: int, inputs: int, outputs: int, generator: torch.Generator):
        super().__init__()
        bound = inputs**-0.5
        self.weight = _same_for_all(runs, (outputs, inputs), bound, generator)
        self.bias = _same_for_all(runs, (outputs,), bound, generator)

    def forward(self, x: Tensor, used: Tensor) -> Tensor:
        """[U, n, outputs] for x [U, n, inputs] of the runs `used` [U]."""
        weight, bias = _rows(self.weight, used), _rows(self.bias, used)
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


class RunLSTM(nn.Module):
    """A bidirectional LSTM of two layers with separate weights for every run.

    It computes what torch.nn.LSTM does (a test compares them), which has one set of weights for all rows.

    Args:
      runs: R.
      width: d of the input.
      hidden: units in each direction.
      generator: draws the start from U(-1, 1) / sqrt(hidden), the same for every run.
    """

    LAYERS = 2

    def __init__(self, runs: int, width: int, hidden: int, generator: torch.Generator):
        super().__init__()
        bound, self.hidden = hidden**-0.5, hidden
        for layer in range(self.LAYERS):
            inputs = width if layer == 0 else 2 * hidden
            for suffix in ("", "_reverse"):
                shapes: dict[str, tuple[int, ...]] = {
                    "weight_ih": (4 * hidden, inputs),
                    "weight_hh": (4 * hidden, hidden),
                    "bias_ih": (4 * hidden,),
                    "bias_hh": (4 * hidden,),
                }
                for name, shape in shapes.items():
                    drawn = _same_for_all(runs, shape, bound, generator)
                    self.register_parameter(f"{name}_l{layer}{suffix}", drawn)

    def forward(self, x: Tensor, used: Tensor) -> Tensor:
        """[U, n, 2 * hidden] for x [U, n, d] of the runs `used` [U]."""
        for layer in range(self.LAYERS):
            directions = [self._one_direction(x, used, f"l{layer}{suffix}") for suffix in ("", "_reverse")]
            x = torch.cat(directions, -1)
        return x

    def _one_direction(self, x: Tensor, used: Tensor, suffix: str) -> Tensor:
        of = {name: _rows(getattr(self, f"{name}_{suffix}"), used) for name in PARTS}
        from_input = torch.baddbmm(
            (of["bias_ih"] + of["bias_hh"])[:, None], x, of["weight_ih"].transpose(1, 2)
        )  # [U, n, 4 hidden]
        state = x.new_zeros(len(x), 1, self.hidden)
        cell, back = state, of["weight_hh"].transpose(1, 2)
        places = range(x.shape[1])
        out: list[Tensor] = [state] * x.shape[1]
        for place in reversed(places) if suffix.endswith("reverse") else places:
            gates = from_input[:, place, None] + torch.bmm(state, back)
            enter, forget, new, leave = gates.chunk(4, -1)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            state = leave.sigmoid() * cell.tanh()
            out[place] = state
        return torch.cat(out, 1)


PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def num_parameters(prompt_length: int, width: int, encoder: str = "lstm") -> int:
    """The number of trainable parameters of one run.

    Args:
      prompt_length: n.
      width: d.
      encoder: "lstm", "mlp" or "none".

    Example:
      >>> num_parameters(9, 768), num_parameters(9, 1024)
      (8278272, 14707712)
    """
    mlp = 2 * (width * width + width)
    hidden = width // 2
    lstm = RunLSTM.LAYERS * 2 * 4 * hidden * (width + hidden + 2)
    return prompt_length * width + {"none": 0, "mlp": mlp, "lstm": mlp + lstm}[encoder]


def _rows(of_runs: Tensor, used: Tensor) -> Tensor:
    """Rows `used` (see `each_once`) of a tensor [R, ...], without a copy if all rows are used."""
    return of_runs if len(used) == len(of_runs) else of_runs.index_select(0, used)


def _same_for_all(
    runs: int, shape: tuple[int, ...], bound: float, generator: torch.Generator
) -> nn.Parameter:
    """[R, *shape], drawn once from U(-bound, bound): a run's start does not depend on the other runs."""
    drawn = (torch.rand(shape, generator=generator, device=generator.device) * 2 - 1) * bound
    return nn.Parameter(drawn.expand(runs, *shape).clone())
