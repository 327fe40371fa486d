"""Intrinsic Prompt Tuning: one small subspace for the prompts of many tasks, then d_I parameters per task.

Qin et al. 2021, "Exploring Universal Intrinsic Task Subspace via Prompt Tuning" (arXiv 2110.07867),
section 3. Multi-task subspace finding (MSF) trains an auto-encoder on the prompts of many tasks; intrinsic
subspace tuning (IST) then trains a task's code z through the frozen decoder. With p = vec(P) in R^D, D = n*d:

    encoder  z  = W1 p + b1                      linear
    decoder  p* = W3 tanh(W2 z + b2) + b3        d_I -> hidden -> D
    MSF      L  = task_weight * mean of L_LM(p*) over tasks + recon_weight * mean((p* - p)^2)
    IST      L  = L_LM(p*), with a frozen decoder: z trains, d_I parameters per run

Differences from the released code: prompts are standardised over the bank (mean and one standard deviation),
every batch has rows of all tasks, losses are means, and a missing prompt is an error (in the released code it
becomes noise).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self, get_args

import torch
from torch import Tensor, nn

from iptkit.engine.calls import check_engine, check_list
from iptkit.engine.compatibility import check_source
from iptkit.engine.interface import PromptEngine
from iptkit.engine.prompt import SHAPES, Kind, Prompt, PromptSource, check_numbers
from iptkit.methods.prompt_tuning import FixedPrompt, each_once
from iptkit.storage import paths, tensor_files
from iptkit.training.runs import Fit, FitConfig, Run, evaluation_steps
from iptkit.training.state import State
from iptkit.training.trainer import fit, trained_on

ENDING = ".subspace.safetensors"


@dataclass(frozen=True)
class SubspaceConfig:
    """Shape of the subspace and weights of its two losses.

    Attributes:
      intrinsic_dim: d_I >= 1.
      hidden: width of the decoder's hidden layer, >= 1 (the paper: 768 for BART-base).
      recon_weight: weight of the reconstruction, >= 0.
      task_weight: weight of the task loss, >= 0; one of the two weights is > 0.
    """

    intrinsic_dim: int = 5
    hidden: int = 256
    recon_weight: float = 1.0
    task_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.intrinsic_dim < 1 or self.hidden < 1:
            given = f"{self.intrinsic_dim} and {self.hidden}"
            raise ValueError(f"SubspaceConfig needs intrinsic_dim >= 1 and hidden >= 1, got {given}")
        if self.recon_weight < 0 or self.task_weight < 0 or self.recon_weight + self.task_weight == 0:
            given = f"{self.recon_weight} and {self.task_weight}"
            needed = "SubspaceConfig.recon_weight and task_weight must be >= 0 and not both 0"
            raise ValueError(f"{needed}, got {given}")


class PromptDecoder(Protocol):
    """What IST decodes with: a module that maps codes to prompts.

    AutoEncoder, baselines.PrincipalComponents, baselines.FastfoodPrompt, baselines.Around,
    adapters.HyperAdapters and adapters.RandomAround are such modules.
    """

    @property
    def kind(self) -> Kind:
        """The kind of prompts that it makes."""
        ...

    def codes(self) -> Tensor:
        """[T, d_I] codes whose mean is where z starts and whose standard deviation is the unit of z."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """z: [B, d_I] -> prompts [B, ...] of its kind."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze or unfreeze its parameters (every torch module has this method)."""
        ...


class Decoder(nn.Module):
    """The decoder of MSF, from codes to standardised prompts: W3 tanh(W2 z + b2) + b3.

    Args:
      intrinsic_dim: d_I.
      hidden: width of the hidden layer.
      size: D, the size of a prompt.
      generator: draws the first weights.
    """

    def __init__(self, intrinsic_dim: int, hidden: int, size: int, generator: torch.Generator):
        super().__init__()
        self.inner, self.outer = nn.Linear(intrinsic_dim, hidden), nn.Linear(hidden, size)
        for layer in (self.inner, self.outer):
            _default_init(layer, generator)

    def forward(self, z: Tensor) -> Tensor:
        """z: [B, d_I] -> [B, D]."""
        return self.outer(torch.tanh(self.inner(z)))


def check_dim(intrinsic_dim: int, size: int) -> None:
    """Raise ValueError for a d_I above D, the size of one prompt."""
    if intrinsic_dim > size:
        raise ValueError(
            f"d_I = {intrinsic_dim} is more than the {size} numbers of one prompt; give --dims, or "
            f"intrinsic_dim, of at most {size}"
        )


class AutoEncoder(PromptSource):
    """The auto-encoder of MSF over a bank of trained prompts: a prompt source that all runs share.

    Args:
      bank: [T, n, d], one trained prompt per task (row t belongs to run t); for another kind
        [T, S, 2, h, n, k] or [T, N, 2, d, r].
      config: shape of the subspace and weights of the losses.
      generator: draws the first weights.
      kind: of the prompts, see `SoftPrompt`.

    Raises:
      ValueError: a prompt of the bank is missing (not finite), the bank has the wrong shape for its kind or
        fewer than 2 prompts, or d_I is larger than D.

    Example:
      >>> generator = torch.Generator().manual_seed(0)
      >>> bank = torch.randn(6, 4, 8, generator=generator)
      >>> AutoEncoder(bank, SubspaceConfig(2, 16), generator)(torch.arange(6)).embeds.shape
      torch.Size([6, 4, 8])
    """

    per_run = False
    mean: Tensor  # [D]
    std: Tensor  # []
    flat: Tensor  # [T, D] the standardised bank

    def __init__(
        self, bank: Tensor, config: SubspaceConfig, generator: torch.Generator, kind: Kind = "embeds"
    ):
        super().__init__()
        check_bank(bank, kind)
        self.kind = kind
        self.config, self.task_weight = config, config.task_weight
        self.shape = bank.shape[1:]
        flat = bank.detach().float().flatten(1)
        self.register_buffer("mean", flat.mean(0))
        self.register_buffer("std", (flat - flat.mean(0)).square().mean().sqrt().clamp_min(1e-6))
        self.register_buffer("flat", (flat - self.mean) / self.std)
        size = flat.shape[1]
        check_dim(config.intrinsic_dim, size)
        self.encoder = nn.Linear(size, config.intrinsic_dim)
        _default_init(self.encoder, generator)
        self.decoder = Decoder(config.intrinsic_dim, config.hidden, size, generator)
        self.to(bank.device)

    def encode(self, prompts: Tensor) -> Tensor:
        """prompts: [B, n, d], in the shape of the bank's prompts -> z [B, d_I].

        Raises: ValueError for prompts of another length or width than the bank's.
        """
        if prompts.shape[1:] != self.shape:
            raise ValueError(
                f"prompts of shape {tuple(prompts.shape)} were given to a subspace of prompts "
                f"{tuple(self.shape)}; give prompts of that length and width"
            )
        return self.encoder((prompts.float().flatten(1) - self.mean) / self.std)

    def decode(self, z: Tensor) -> Tensor:
        """z: [B, d_I] -> prompts [B, n, d], in the shape of the bank's prompts."""
        return (self.mean + self.std * self.decoder(z)).view(-1, *self.shape)

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> the reconstructed prompts of their tasks (each task is decoded once)."""
        used, where = each_once(runs, len(self.flat))
        made = self.decode(self.encoder(self.flat[used]))
        return Prompt.of(self.kind, made.index_select(0, where))

    @property
    def num_runs(self) -> int:
        """T, the number of prompts in the bank."""
        return len(self.flat)

    def codes(self) -> Tensor:
        """[T, d_I] the codes of the bank, without gradient."""
        with torch.no_grad():
            return self.encoder(self.flat)

    def reconstruction(self) -> Tensor:
        """Mean squared error over the standardised bank (1.0 = no better than the mean prompt)."""
        return (self.decoder(self.encoder(self.flat)) - self.flat).square().mean()

    def penalty(self) -> Tensor:
        """The reconstruction part of the MSF objective."""
        return self.config.recon_weight * self.reconstruction()


class IntrinsicPrompt(PromptSource):
    """A code of d_I trained parameters per run, which a frozen decoder maps to a prompt (IST).

    z = center + scale * u, and u [R, d_I] is all that trains. `center` is the mean of the decoder's codes and
    `scale` their standard deviation: u = 0 is the mean code, and u = 1 lies one standard deviation from it.

    Args:
      decoder: a trained AutoEncoder, or another PromptDecoder as a control; it is frozen here.
      runs: R.
    """

    decoder: PromptDecoder
    center: Tensor
    scale: Tensor

    def __init__(self, decoder: PromptDecoder, runs: int):
        super().__init__()
        self.decoder = decoder.requires_grad_(False)
        center, scale = code_statistics(decoder)
        self.register_buffer("center", center)
        self.register_buffer("scale", scale)
        self.u = nn.Parameter(torch.zeros(runs, len(center), device=center.device))

    @property
    def kind(self) -> Kind:
        """The kind of its decoder's prompts."""
        return self.decoder.kind

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> one prompt per row (each run is decoded once)."""
        used, where = each_once(runs, len(self.u))
        return Prompt.of(self.kind, self.decoder.decode(self.z(used)).index_select(0, where))

    def z(self, runs: Tensor) -> Tensor:
        """[B, d_I] the codes of `runs` [B]."""
        return self.center + self.scale * self.u.index_select(0, runs)


def code_statistics(decoder: PromptDecoder) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a decoder's codes, each [d_I]: u = (z - mean) / std."""
    codes = decoder.codes()
    return codes.mean(0), codes.std(0).clamp_min(1e-3)


@torch.no_grad()
def reconstruction_of(autoencoder: AutoEncoder, prompts: Tensor) -> Tensor:
    """[B] the mean squared error with which an auto-encoder gives back each prompt.

    It is on the standardised scale of the bank: the mean prompt in place of each prompt of the bank has 1.0
    on average. An unseen prompt may lie further from the mean prompt; `shares.rebuilt` allows for that.

    Args:
      autoencoder: a trained one.
      prompts: [B, n, d] seen or unseen ones, in the shape of the bank's prompts.

    Raises: ValueError for prompts of another length or width than the bank's.
    """
    made = autoencoder.decoder(autoencoder.encode(prompts))
    given = (prompts.float().flatten(1) - autoencoder.mean) / autoencoder.std
    return (made - given).square().mean(1)


def find(
    engine: PromptEngine,
    bank: Tensor,
    runs: Sequence[Run],
    config: SubspaceConfig,
    fit_config: FitConfig,
    generator: torch.Generator,
    checkpoint: str | Path | None = None,
    label: str = "MSF",
    kind: Kind = "embeds",
) -> tuple[AutoEncoder, Fit]:
    """The auto-encoder that multi-task subspace finding trains, and its training curves.

    With `config.task_weight` 0, reconstruction alone, no prompt passes through the model: the curves have NaN
    for losses and dev scores, and there is no checkpoint.

    Args:
      engine: scores the reconstructed prompts.
      bank: [T, n, d] trained prompts.
      runs: T runs, of the tasks of the bank in the same order.
      config: shape of the subspace and weights of the losses.
      fit_config: how to train.
      generator: draws the auto-encoder's first weights.
      checkpoint: a file to resume from, see `training.fit`.
      label: words on the progress bar.
      kind: of the prompts, see `SoftPrompt`.

    Raises: ValueError if the bank and the runs differ in number, a prompt is missing, or the prompts do not
      fit the model.
    """
    check_engine(engine)
    check_list(runs, Run, "find", "runs")
    if len(bank) != len(runs):
        counts = f"the bank holds {len(bank)} prompts, but {len(runs)} tasks were given"
        raise ValueError(f"{counts}; train the missing prompts first")
    autoencoder = AutoEncoder(bank, config, generator, kind).to(engine.backbone.device)
    if config.task_weight == 0:
        return autoencoder, _reconstruct(engine, autoencoder, runs, fit_config)
    return autoencoder, fit(engine, autoencoder, runs, fit_config, checkpoint, label)


def _reconstruct(
    engine: PromptEngine, autoencoder: AutoEncoder, runs: Sequence[Run], config: FitConfig
) -> Fit:
    """What `training.fit` does with a task weight of 0, without the losses that it only reports."""
    state = State(engine, autoencoder, runs, config)
    marks = evaluation_steps(config.steps, config.evaluations)
    unread = torch.zeros(len(runs), 2, dtype=torch.float64)  # the penalty, not dev, chooses the best step
    for step in range(config.steps):
        penalty = autoencoder.penalty()
        penalty.backward()
        state.record(unread[:, 0].to(penalty.device), penalty.detach())
        state.optimizer.step(config.rate(step))
        state.step = step + 1
        if state.step in marks:
            state.flush()
            state.select(unread)
    state.restore_best()
    autoencoder.about = {**state.made, "method": autoencoder.method, **trained_on(runs, config)}
    losses, dev = (torch.full_like(x, torch.nan) for x in (state.losses, torch.stack([unread, *state.dev])))
    return Fit(losses, state.penalty, dev[1:], state.best_step, **state.clock.read(), resumed_at=0)


def tune(
    engine: PromptEngine,
    decoder: PromptDecoder,
    runs: Sequence[Run],
    fit_config: FitConfig,
    checkpoint: str | Path | None = None,
    label: str = "IST",
) -> tuple[IntrinsicPrompt, Fit]:
    """The codes that intrinsic subspace tuning finds, as a prompt source, and its training curves.

    Args:
      engine: scores the decoded prompts.
      decoder: a trained AutoEncoder or a control; it stays frozen.
      runs: R runs; each trains d_I parameters.
      fit_config: how to train.
      checkpoint: a file to resume from, see `training.fit`.
      label: words on the progress bar.

    Raises: ValueError if the decoder was made for another model, layout or width.
    """
    check_engine(engine)
    check_list(runs, Run, "tune", "runs")
    source = IntrinsicPrompt(decoder, len(runs)).to(engine.backbone.device)
    return source, fit(engine, source, runs, fit_config, checkpoint, label)


# ---- on disk -------------------------------------------------------------------------------------
def save(autoencoder: AutoEncoder, path: str | Path, about: dict[str, Any] | None = None) -> None:
    """Write an auto-encoder and its bank to a safetensors file.

    Args:
      autoencoder: a trained one.
      path: of the file.
      about: further JSON for the file's header, beside the auto-encoder's shape, kind and `about`.
    """
    header = {
        "config": asdict(autoencoder.config),
        "shape": list(autoencoder.shape),
        "kind": autoencoder.kind,
    }
    path = paths.expanded(path)
    tensor_files.write(path, autoencoder.state_dict(), {**autoencoder.about, **(about or {}), **header})


def load(path: str | Path, engine: PromptEngine | None = None) -> AutoEncoder:
    """The frozen auto-encoder in a file that `save` wrote; its `about` is the rest of the file's header.

    Everything is checked before any tensor larger than the file is made.

    Args:
      path: of the file.
      engine: one that the subspace must fit, and whose device it goes to; None checks that later, in `tune`.
    Raises: FileNotFoundError if there is no such file; ValueError if it holds something else, tensors that
      do not fit together or are not finite, or a subspace for another model, layout or width.
    """
    path = paths.expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"no subspace at {path}; subspace.save and `iptkit study` write such files")
    tensors, about = tensor_files.read(path)
    if "flat" not in tensors or not {"config", "shape"} <= about.keys():
        held = ", ".join(sorted(tensors)) or "nothing"
        raise ValueError(f"{path} was not written by subspace.save: it holds {held}")
    config, shape, kind = _described(path, about.pop("config"), about.pop("shape"), about.pop("kind", None))
    _check_tensors(path, tensors, config, math.prod(shape))
    autoencoder = AutoEncoder(torch.zeros(len(tensors["flat"]), *shape), config, torch.Generator(), kind)
    autoencoder.load_state_dict(tensors)
    autoencoder.about = about
    if engine is not None:
        autoencoder.to(engine.backbone.device)
        check_source(engine, autoencoder)
    return autoencoder.requires_grad_(False)


def _described(path: Path, config: Any, shape: Any, kind: Any) -> tuple[SubspaceConfig, list[int], Kind]:
    """Configuration, prompt's shape and kind from a file's header. Raises: ValueError if they are invalid."""
    whole = [config.get("intrinsic_dim"), config.get("hidden")] if isinstance(config, dict) else []
    sizes = [*whole, *shape] if isinstance(shape, list) else []
    if kind is None and isinstance(shape, list):
        # Files of earlier versions do not name the kind. Their subspaces are of prompts at the input [n, d],
        # or of deep prompts [S, 2, h, n, k].
        kind = "keys_values" if len(shape) == 5 else "embeds"
    if (
        kind not in get_args(Kind)
        or not whole
        or len(shape) + 1 != len(SHAPES[kind])
        or any(type(size) is not int or size < 1 for size in sizes)
    ):
        raise ValueError(
            f"{path} does not describe a subspace: config {config!r}, prompts of shape {shape!r} and kind "
            f"{kind!r}. Write it again with subspace.save"
        )
    try:
        return SubspaceConfig(**config), shape, kind
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a subspace: config {config!r} ({error})") from error


def _check_tensors(path: Path, tensors: dict[str, Tensor], config: SubspaceConfig, size: int) -> None:
    """Raise ValueError unless these are the finite tensors of an auto-encoder for prompts of size D."""
    dim, hidden, tasks = config.intrinsic_dim, config.hidden, tensors["flat"].shape[:1] or (2,)
    wanted = {
        "flat": (*tasks, size),
        "mean": (size,),
        "std": (),
        "encoder.weight": (dim, size),
        "encoder.bias": (dim,),
        "decoder.inner.weight": (hidden, dim),
        "decoder.inner.bias": (hidden,),
        "decoder.outer.weight": (size, hidden),
        "decoder.outer.bias": (size,),
    }
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [
        f"{name} {list(found[name]) if name in found else 'missing'}, {list(wanted.get(name, []))} needed"
        for name in (wanted | found)
        if found.get(name) != wanted.get(name)
    ]
    wrong += [f"{name} not finite" for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if wrong or tasks[0] < 2:
        raise ValueError(
            f"{path} does not hold the subspace that its header describes (d_I {dim}, hidden {hidden}, "
            f"D {size}): {'; '.join(wrong) or 'a bank of fewer than 2 prompts'}. Write it again with "
            "subspace.save"
        )


def load_stored(name: str = "ipt120", engine: PromptEngine | None = None) -> AutoEncoder:
    """The subspace of a study that comes with the project (data/results/), see `load`.

    Its `about` has the seen tasks ("tasks"), the model ("backbone") and the command that makes the file.
    """
    return load(paths.data_dir() / "results" / f"{name}{ENDING}", engine)


# ---- controls ------------------------------------------------------------------------------------
def mean_code(autoencoder: AutoEncoder, runs: int) -> FixedPrompt:
    """The decoded mean of all codes, for every run; nothing is tuned."""
    with torch.no_grad():
        middle = autoencoder.decode(autoencoder.codes().mean(0, keepdim=True))
        repeated = middle.expand(runs, *middle.shape[1:])
        made = {name: value for name, value in autoencoder.about.items() if name not in ("tasks", "data")}
        return FixedPrompt(repeated, autoencoder.kind, about=made)


def mean_prompt(bank: Tensor, runs: int, kind: Kind = "embeds") -> FixedPrompt:
    """The mean of the trained prompts [T, n, d], for every run."""
    check_bank(bank, kind)
    return FixedPrompt(bank.mean(0, keepdim=True).expand(runs, *bank.shape[1:]), kind)


def random_autoencoder(
    bank: Tensor, config: SubspaceConfig, generator: torch.Generator, kind: Kind = "embeds"
) -> AutoEncoder:
    """An untrained auto-encoder, centred and scaled by the bank; only its directions are random.

    This is a stronger control than the paper's, whose random decoder has no information from the trained
    prompts. The decoder's weights are rescaled so that codes of unit size move the prompt as far as the
    trained prompts lie from their mean, and the mean code gives the mean prompt.

    Args:
      bank: [T, n, d] trained prompts.
      config: shape of the subspace.
      generator: draws the weights.
      kind: of the prompts, see `SoftPrompt`.
    """
    autoencoder = AutoEncoder(bank, config, generator, kind)
    outer = autoencoder.decoder.outer
    with torch.no_grad():
        std = autoencoder.decoder(autoencoder.codes()).std(0).square().mean().sqrt()
        outer.weight.div_(std)
        middle = autoencoder.decoder(autoencoder.codes().mean(0, keepdim=True))[0]
        outer.bias.sub_(middle)
    return autoencoder


def check_bank(bank: Tensor, kind: Kind | None = None) -> None:
    """Raise ValueError unless `bank` [T, ...] holds at least 2 prompts, all finite.

    Args:
      bank: trained prompts.
      kind: their kind; None where any shape will do.
    """
    if kind is not None:
        check_numbers(bank, "bank", kind)
    if bank.dim() < 2 or len(bank) < 2:
        raise ValueError(f"bank has shape {tuple(bank.shape)}; give the prompts of at least 2 tasks")
    missing = (~torch.isfinite(bank)).flatten(1).any(1).nonzero().flatten().tolist()
    if missing:
        raise ValueError(
            f"the prompts of tasks {missing} are missing (not finite); train them with prompt tuning first"
        )


def num_parameters(intrinsic_dim: int, prompt_size: int, hidden: int = 768) -> dict[str, int]:
    """The numbers of parameters of the auto-encoder: "encoder", "decoder" and "total".

    Args:
      intrinsic_dim: d_I.
      prompt_size: D; in the paper's released code 100 * 768 = 76,800.
      hidden: width of the decoder's hidden layer.

    Example:
      >>> num_parameters(5, 76800)["total"]
      59447813
    """
    encoder = intrinsic_dim * prompt_size + intrinsic_dim
    decoder = intrinsic_dim * hidden + hidden + hidden * prompt_size + prompt_size
    return {"encoder": encoder, "decoder": decoder, "total": encoder + decoder}


def _default_init(layer: nn.Linear, generator: torch.Generator) -> None:
    """PyTorch's own default for linear layers, U(-1, 1) / sqrt(fan_in), from an explicit generator."""
    bound = layer.in_features**-0.5
    with torch.no_grad():
        for p in (layer.weight, layer.bias):
            p.copy_((torch.rand(p.shape, generator=generator, device=generator.device) * 2 - 1) * bound)
