"""Intrinsic Prompt Tuning: one small subspace for the prompts of many tasks, then d_I numbers in it.

Qin et al. 2021, "Exploring Universal Intrinsic Task Subspace via Prompt Tuning" (arXiv 2110.07867).
With p = vec(P) in R^D, D = n*d:

    encoder  z  = W1 p + b1                      linear
    decoder  p* = W3 tanh(W2 z + b2) + b3        d_I -> hidden -> D
    MSF      L  = task_weight * mean of L_LM(p*) over tasks + recon_weight * mean((p* - p)^2)
    IST      L  = L_LM(p*), with a frozen decoder: z trains, d_I numbers per run

What differs from the released code, on purpose: prompts are standardised over the bank (mean and one
standard deviation), tasks are balanced in every batch, losses are means, and a missing prompt is an
error (there it silently became noise).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iptkit.engine.compatibility import made_for, prompt_length
from iptkit.engine.engine import Engine
from iptkit.engine.prompt import SHAPES, Prompt, PromptSource, as_prompt
from iptkit.methods.prompt_tuning import FixedPrompt, each_once
from iptkit.storage import paths, tensor_files
from iptkit.training.runs import Fit, FitConfig, Run
from iptkit.training.trainer import fit

ENDING = ".subspace.safetensors"


@dataclass(frozen=True)
class SubspaceConfig:
    """Shape of the subspace and weights of its two losses.

    Attributes:
      intrinsic_dim: d_I >= 1.
      hidden: width of the decoder >= 1 (the paper: 768 for BART-base).
      recon_weight, task_weight: >= 0, not both 0.
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
            told = "SubspaceConfig.recon_weight and task_weight must be >= 0 and not both 0"
            raise ValueError(f"{told}, got {given}")


class Decoder(nn.Module):
    """z [B, d_I] -> standardised prompt [B, D]: W3 tanh(W2 z + b2) + b3."""

    def __init__(self, intrinsic_dim: int, hidden: int, size: int, generator: torch.Generator):
        super().__init__()
        self.inner, self.outer = nn.Linear(intrinsic_dim, hidden), nn.Linear(hidden, size)
        for layer in (self.inner, self.outer):
            _default_init(layer, generator)

    def forward(self, z: Tensor) -> Tensor:
        """z: [B, d_I] -> [B, D]."""
        return self.outer(torch.tanh(self.inner(z)))


def check_dim(intrinsic_dim: int, numbers: int) -> None:
    """Raise ValueError for a d_I above the count of numbers in one prompt, which is no subspace of it."""
    if intrinsic_dim > numbers:
        raise ValueError(
            f"d_I = {intrinsic_dim} is more than the {numbers} numbers of one prompt; give --dims, or "
            f"intrinsic_dim, of at most {numbers}"
        )


class AutoEncoder(PromptSource):
    """The auto-encoder of MSF over a bank of trained prompts, a prompt source that all runs share.

    Args:
      bank: [T, n, d], one trained prompt per task (row t belongs to run t), or deep prompts
        [T, S, 2, h, n, k].
      config: shape and weights of the losses.
      generator: draws the first weights.

    Raises:
      ValueError: a prompt of the bank is missing (not finite), the bank has the wrong shape, or d_I is larger
        than a prompt.

    Example:
      >>> generator = torch.Generator().manual_seed(0)
      >>> bank = torch.randn(6, 4, 8, generator=generator)
      >>> AutoEncoder(bank, SubspaceConfig(2, 16), generator)(torch.arange(6)).embeds.shape
      torch.Size([6, 4, 8])
    """

    per_run = False

    def __init__(self, bank: Tensor, config: SubspaceConfig, generator: torch.Generator):
        super().__init__()
        check_bank(bank)
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
        """prompts: [B, n, d], or deep ones -> z [B, d_I].

        Raises: ValueError for prompts of another length or width than the bank's.
        """
        if prompts.shape[1:] != self.shape:
            raise ValueError(
                f"prompts of shape {tuple(prompts.shape)} were given to a subspace of prompts "
                f"{tuple(self.shape)}; give prompts of that length and width"
            )
        return self.encoder((prompts.float().flatten(1) - self.mean) / self.std)

    def decode(self, z: Tensor) -> Tensor:
        """z: [B, d_I] -> prompts [B, n, d], or deep ones."""
        return (self.mean + self.std * self.decoder(z)).view(-1, *self.shape)

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> the reconstructed prompts of their tasks (each is decoded once)."""
        used, where = each_once(runs, len(self.flat))
        return as_prompt(self.decode(self.encoder(self.flat[used])).index_select(0, where))

    def codes(self) -> Tensor:
        """[T, d_I] codes of the bank, without gradient."""
        with torch.no_grad():
            return self.encoder(self.flat)

    def reconstruction(self) -> Tensor:
        """Mean squared error over the standardised bank (1.0 = no better than the mean prompt)."""
        return (self.decoder(self.encoder(self.flat)) - self.flat).square().mean()

    def penalty(self) -> Tensor:
        """The reconstruction part of the MSF objective."""
        return self.config.recon_weight * self.reconstruction()


class IntrinsicPrompt(PromptSource):
    """d_I free numbers per run, mapped to a prompt by a frozen decoder (IST).

    z = center + scale * u, and u [R, d_I] is all that trains. With center = mean code and scale = spread
    of the codes, u = 0 is "the mean code without tuning" and u = 1 one standard deviation away.

    Args:
      autoencoder: a trained (or, as a control, an untrained) AutoEncoder; it is frozen here.
      runs: R.
    """

    def __init__(self, autoencoder: AutoEncoder | nn.Module, runs: int):
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False)
        center, scale = unit(autoencoder)
        self.register_buffer("center", center)
        self.register_buffer("scale", scale)
        self.u = nn.Parameter(torch.zeros(runs, len(center), device=center.device))

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> one prompt per row (each run is decoded once)."""
        used, where = each_once(runs, len(self.u))
        return as_prompt(self.autoencoder.decode(self.z(used)).index_select(0, where))

    def z(self, runs: Tensor) -> Tensor:
        """[B, d_I] intrinsic vectors."""
        return self.center + self.scale * self.u.index_select(0, runs)


def unit(autoencoder: AutoEncoder | nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and spread of the codes of an auto-encoder's bank, each [d_I]: u = (z - mean) / spread."""
    codes = autoencoder.codes()
    return codes.mean(0), codes.std(0).clamp_min(1e-3)


def find(
    engine: Engine,
    bank: Tensor,
    runs: Sequence[Run],
    config: SubspaceConfig,
    fit_config: FitConfig,
    generator: torch.Generator,
    checkpoint: str | Path | None = None,
    label: str = "MSF",
) -> tuple[AutoEncoder, Fit]:
    """Multi-task subspace finding: train the auto-encoder on a bank [T, n, d] and T runs in its order.

    The auto-encoder says in `about` what model and layout it was made for, see `prompts.made_for`.

    Raises: ValueError if the bank and the runs differ in number, a prompt is missing, or the prompts do not
      fit the model.
    """
    if len(bank) != len(runs):
        told = f"the bank holds {len(bank)} prompts, but {len(runs)} tasks were given"
        raise ValueError(f"{told}; train the missing prompts first")
    autoencoder = AutoEncoder(bank, config, generator).to(engine.backbone.device)
    result = fit(engine, autoencoder, runs, fit_config, checkpoint, label)
    autoencoder.about = made_for(engine, prompt_length(autoencoder))
    return autoencoder, result


def tune(
    engine: Engine,
    autoencoder: AutoEncoder,
    runs: Sequence[Run],
    fit_config: FitConfig,
    checkpoint: str | Path | None = None,
    label: str = "IST",
) -> tuple[IntrinsicPrompt, Fit]:
    """Intrinsic subspace tuning: train d_I numbers per run through the frozen decoder.

    Raises: ValueError if the auto-encoder was made for another model, layout or width.
    """
    source = IntrinsicPrompt(autoencoder, len(runs)).to(engine.backbone.device)
    return source, fit(engine, source, runs, fit_config, checkpoint, label)


# ---- on disk -------------------------------------------------------------------------------------
def save(autoencoder: AutoEncoder, path: str | Path, about: dict[str, Any] | None = None) -> None:
    """Write an auto-encoder and the bank it was found on (safetensors).

    Args:
      about: JSON that is kept with it, beside its shape and its own `about`.
    """
    shape = {"config": asdict(autoencoder.config), "shape": list(autoencoder.shape)}
    tensor_files.write(Path(path), autoencoder.state_dict(), {**autoencoder.about, **(about or {}), **shape})


def load(path: str | Path) -> AutoEncoder:
    """The auto-encoder of a file that `save` wrote, frozen; its `about` is what was said of it.

    Raises: FileNotFoundError if it is not there; ValueError if it holds something else, or tensors that do
      not fit one another or are not finite. Nothing larger than the file is made before that is known.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no subspace at {path}; subspace.save and `iptkit study` write one")
    tensors, about = tensor_files.read(path)
    if "flat" not in tensors or not {"config", "shape"} <= about.keys():
        raise ValueError(f"{path} holds {', '.join(sorted(tensors)) or 'nothing'}, no subspace.save did that")
    config, shape = _described(path, about.pop("config"), about.pop("shape"))
    _check_tensors(path, tensors, config, math.prod(shape))
    autoencoder = AutoEncoder(torch.zeros(len(tensors["flat"]), *shape), config, torch.Generator())
    autoencoder.load_state_dict(tensors)
    autoencoder.about = about
    return autoencoder.requires_grad_(False)


def _described(path: Path, config: Any, shape: Any) -> tuple[SubspaceConfig, list[int]]:
    """Configuration and prompt's shape in a subspace's header. Raises: ValueError if they are none."""
    whole = [config.get("intrinsic_dim"), config.get("hidden")] if isinstance(config, dict) else []
    sizes = [*whole, *shape] if isinstance(shape, list) and len(shape) + 1 in SHAPES else []
    if not whole or not sizes or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(f"{path}: config {config!r} with prompts of shape {shape!r} is no subspace's")
    try:
        return SubspaceConfig(**config), shape
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: config {config!r} is no subspace's ({error})") from error


def _check_tensors(path: Path, tensors: dict[str, Tensor], config: SubspaceConfig, size: int) -> None:
    """Raise ValueError unless these are the finite tensors of an auto-encoder for prompts of D = size."""
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


def stored(name: str = "ipt120") -> AutoEncoder:
    """The subspace of a study that comes with the project (data/results/), see `load`.

    `about` names the seen tasks ("tasks"), the model ("backbone") and the command that makes it again.
    """
    return load(paths.data_dir() / "results" / f"{name}{ENDING}")


# ---- controls ------------------------------------------------------------------------------------
def mean_code(autoencoder: AutoEncoder, runs: int) -> FixedPrompt:
    """The prompt at the mean of all codes, without any tuning, for every run."""
    with torch.no_grad():
        middle = autoencoder.decode(autoencoder.codes().mean(0, keepdim=True))
        return FixedPrompt(middle.expand(runs, *middle.shape[1:]), autoencoder.about)


def mean_prompt(bank: Tensor, runs: int) -> FixedPrompt:
    """The mean of the trained prompts [T, n, d], for every run."""
    check_bank(bank)
    return FixedPrompt(bank.mean(0, keepdim=True).expand(runs, *bank.shape[1:]))


def random_autoencoder(bank: Tensor, config: SubspaceConfig, generator: torch.Generator) -> AutoEncoder:
    """The same auto-encoder untrained, centred and scaled by the bank: only learned directions miss.

    This is a stronger control than the paper's, whose random decoder knows nothing of the trained
    prompts. The decoder's rows are rescaled so that codes of unit size move the prompt as far as the
    trained prompts lie from their mean.
    """
    autoencoder = AutoEncoder(bank, config, generator)
    with torch.no_grad():
        spread = autoencoder.decoder(autoencoder.codes()).std(0).square().mean().sqrt()
        autoencoder.decoder.outer.weight /= spread
        middle = autoencoder.decoder(autoencoder.codes().mean(0, keepdim=True))[0]
        autoencoder.decoder.outer.bias -= middle  # the mean code gives the mean prompt
    return autoencoder


def check_bank(bank: Tensor) -> None:
    """Raise ValueError unless `bank` is [T, n, d], deep prompts [T, S, 2, h, n, k] or adapters; finite."""
    if bank.dim() not in SHAPES or len(bank) < 2:
        told = f"the prompt bank has shape {tuple(bank.shape)}"
        given = "[tasks, prompt_length, width] (more dimensions: deep prompts, adapters)"
        raise ValueError(f"{told}; give {given} with at least 2 tasks")
    missing = (~torch.isfinite(bank)).flatten(1).any(1).nonzero().flatten().tolist()
    if missing:
        told = f"the prompts of tasks {missing} are missing (not finite)"
        raise ValueError(f"{told}; train them with prompt tuning first")


def num_parameters(intrinsic_dim: int, prompt_size: int, hidden: int = 768) -> dict[str, int]:
    """Numbers in the auto-encoder, as in the paper's released shapes (prompt_size D = 76,800, hidden 768).

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
