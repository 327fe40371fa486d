"""Adam for many runs at once, with a learning rate and a clipped gradient norm per run.

Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1, with betas 0.9 and 0.999 and eps 1e-8. torch.optim.Adam has
one learning rate per tensor, but here every row of a tensor is another run with its own:

    parameters [R, ...], lr [R]        R runs
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCK = 1 << 18  # elements per update: they stay in a CPU's cache while Adam reads them several times


class DivergedError(ValueError):
    """The loss or the parameters of a training are no longer finite."""


class RunAdam:
    """Adam with one learning rate and one clipped gradient norm per run.

    If all runs share the parameters, these form a single group.

    Args:
      parameters: by name; [R, ...] each if `per_run`.
      lr: peak learning rates [R], or [] for shared parameters.
      clip: largest gradient norm of a run, or of the shared parameters.
      per_run: True if row r of every parameter belongs to run r.
    Raises: ValueError for a parameter that is not contiguous in memory.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], lr: Tensor, clip: float, per_run: bool):
        scattered = [name for name, p in parameters.items() if not p.is_contiguous()]
        if scattered:
            raise ValueError(
                f"{', '.join(scattered)}: not contiguous in memory; train p.contiguous() instead"
            )
        place = next(iter(parameters.values()), lr).device  # here once: at each step it would wait for a GPU
        self.parameters, self.lr, self.clip = parameters, lr.to(place), clip
        self.per_run, self.count = per_run, 0
        self.first = {k: torch.zeros_like(p) for k, p in parameters.items()}
        self.second = {k: torch.zeros_like(p) for k, p in parameters.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Clip the gradients, update the parameters and clear the gradients.

        Args:
          rate: share of the peak learning rate, in [0, 1].
        Raises: ValueError naming the parameters on which the loss does not depend.
        """
        grads = {name: p.grad for name, p in self.parameters.items()}
        gradients = {name: self._rows(g.contiguous()) for name, g in grads.items() if g is not None}
        if unused := [name for name in grads if name not in gradients]:
            raise ValueError(
                f"the loss does not depend on {', '.join(unused)}, so it cannot be trained; a head needs an "
                "engine.HeadEngine, and a parameter that shall not train needs requires_grad_(False)"
            )
        self.count += 1
        norms = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in gradients.values()])
        scale = (self.clip / (torch.linalg.vector_norm(norms, dim=0) + 1e-12)).clamp(max=1.0)
        for name, p in self.parameters.items():
            lr = rate * self.lr.to(p).view(-1, 1)
            width = max(1, BLOCK // len(scale)) if p.device.type == "cpu" else gradients[name].shape[1]
            blocks = zip(
                gradients[name].split(width, 1),
                self._rows(p.detach()).split(width, 1),
                self._rows(self.first[name]).split(width, 1),
                self._rows(self.second[name]).split(width, 1),
                strict=True,
            )
            for gradient, values, first, second in blocks:
                self._update(gradient, values, first, second, scale.view(-1, 1), lr)
            p.grad = None

    def _update(
        self, gradient: Tensor, p: Tensor, first: Tensor, second: Tensor, scale: Tensor, lr: Tensor
    ) -> None:
        """One Adam update of a block [R, w] of parameters p; the gradient is overwritten."""
        gradient.mul_(scale)
        first.lerp_(gradient, 0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        root = (second / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
        change = torch.div(first, 1 - 0.9**self.count, out=gradient)
        p.sub_(change.mul_(lr).div_(root))

    def _rows(self, tensor: Tensor) -> Tensor:
        """[R, elements of a run], or [1, all elements] of shared parameters."""
        return tensor.view(len(tensor) if self.per_run else 1, -1)
