"""What a training carries from step to step: Adam for many runs at once, and the best state so far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCK = 1 << 18  # so many numbers stay in a processor's cache while Adam goes over them several times


class DivergedError(ValueError):
    """A training's loss or its prompt is not finite any more."""


class RunAdam:
    """Adam with one learning rate and one clipped gradient norm per run.

    Kingma & Ba 2015 with betas 0.9 and 0.999 and eps 1e-8; torch's own knows one learning rate per
    tensor. For a source that all runs share, all tensors form one group.

    Args:
      parameters: by name; [R, ...] each if `per_run`.
      lr: peak learning rates [R], or [] for a shared source.
      clip: largest gradient norm of a run (or of the shared source).
    Raises: ValueError for a parameter that is not contiguous in memory.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], lr: Tensor, clip: float, per_run: bool):
        scattered = [name for name, p in parameters.items() if not p.is_contiguous()]
        if scattered:
            raise ValueError(
                f"{', '.join(scattered)}: not contiguous in memory; train p.contiguous() instead"
            )
        place = next(iter(parameters.values()), lr).device  # once: to send them at each step is to wait
        self.parameters, self.lr, self.clip = parameters, lr.to(place), clip
        self.per_run, self.count = per_run, 0
        self.first = {k: torch.zeros_like(p) for k, p in parameters.items()}
        self.second = {k: torch.zeros_like(p) for k, p in parameters.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Clip, update, clear the gradients; `rate`: share of the peak learning rate.

        Raises: ValueError naming parameters that the loss does not depend on.
        """
        unused = [name for name, p in self.parameters.items() if p.grad is None]
        if unused:
            raise ValueError(
                f"{', '.join(unused)}: the loss does not depend on it, so it cannot be trained; a head needs "
                "encoders.HeadEngine, and what is to stay as it is needs requires_grad_(False)"
            )
        self.count += 1
        gradients = {name: self._rows(p.grad.contiguous()) for name, p in self.parameters.items()}
        norms = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in gradients.values()])
        scale = (self.clip / (torch.linalg.vector_norm(norms, dim=0) + 1e-12)).clamp(max=1.0)
        for name, p in self.parameters.items():
            lr = rate * self.lr.to(p).view(-1, 1)
            kept = (self._rows(t) for t in (p.detach(), self.first[name], self.second[name]))
            width = max(1, BLOCK // len(scale)) if p.device.type == "cpu" else gradients[name].shape[1]
            blocks = (t.split(width, 1) for t in (gradients[name], *kept))
            for gradient, *state in zip(*blocks, strict=True):
                self._update(gradient, *state, scale.view(-1, 1), lr)
            p.grad = None

    def _update(
        self, gradient: Tensor, p: Tensor, first: Tensor, second: Tensor, scale: Tensor, lr: Tensor
    ) -> None:
        """All of Adam for one block [R, w] of each; the gradient is written over."""
        gradient.mul_(scale)
        first.lerp_(gradient, 0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        spread = (second / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
        change = torch.div(first, 1 - 0.9**self.count, out=gradient)
        p.sub_(change.mul_(lr).div_(spread))

    def _rows(self, tensor: Tensor) -> Tensor:
        """[R, numbers of a run], or [1, all numbers] of a shared source."""
        return tensor.view(len(tensor) if self.per_run else 1, -1)
