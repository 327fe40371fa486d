"""Adapters in a frozen causal model, and a subspace of them: the other variant of Intrinsic Prompt Tuning.

An adapter stands behind each attention and each feed-forward block, before what goes around the block is
added (Houlsby et al. 2019, arXiv 1902.00751, section 2.1):

    h + swish(h D) U          h [S, d], D [d, r] down, U [r, d] up

Without biases and with swish as in the released code of Qin et al. 2021 (arXiv 2110.07867), from which this
variant is known. There the weights of all adapters are made from d_I numbers by hyper-matrices: D = z^T A_l,
U = z^T B_l. Finding the subspace trains all A_l, B_l and one z that the seen tasks share, without an
auto-encoder; tuning in it trains z alone. With one z the gradient of every A_l is z times something, so
training shapes the subspace along z and hardly elsewhere.

What differs from that code: z starts with length 1 and A_l, B_l as wide as a linear layer's (B_l less), in
place of N(0, 0.02^2) for all; one rate for z and matrices; tasks are balanced in every batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iptkit.engine.prompt import Prompt, PromptSource, as_prompt


class HyperAdapters(PromptSource):
    """Hyper-matrices that make all adapters from z, and z itself: what finding the subspace trains.

    A source for `fit` that all runs share. As a decoder it takes the place of MSF's in `IntrinsicPrompt`.

    Args:
      intrinsic_dim: d_I >= 1.
      places, width, rank: N, d, r; each >= 1.
      generator: draws the start: z of length 1; D is then N(0, 1/d), U N(0, up^2/d).
      up: how small U is at the start beside D, > 0; at 0 untrained matrices could not change anything.
    """

    per_run = False

    def __init__(
        self,
        intrinsic_dim: int,
        places: int,
        width: int,
        rank: int,
        generator: torch.Generator,
        up: float = 0.1,
    ):
        super().__init__()
        if min(intrinsic_dim, places, width, rank) < 1 or not up > 0:
            given = f"{intrinsic_dim}, {places}, {width}, {rank} and up={up}"
            raise ValueError(
                f"HyperAdapters needs intrinsic_dim, places, width, rank >= 1 and up > 0, got {given}"
            )
        shape, device = (intrinsic_dim, places, 2, width, rank), generator.device
        drawn = torch.randn(shape, generator=generator, device=device) * width**-0.5
        drawn[:, :, 1] *= up
        z = torch.randn(1, intrinsic_dim, generator=generator, device=device)
        self.A = nn.Parameter(drawn)  # all A_l and B_l
        self.z = nn.Parameter(z / z.norm())  # [1, d_I]

    def decode(self, z: Tensor) -> Tensor:
        """Z [B, d_I] -> adapters [B, N, 2, d, r]."""
        return (z @ self.A.flatten(1)).view(-1, *self.A.shape[1:])

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> the same adapters for each row."""
        return as_prompt(self.decode(self.z).index_select(0, torch.zeros_like(runs)))

    def codes(self) -> Tensor:
        """[2, d_I] two points around the shared z, of spread |z| / sqrt(d_I) in each direction."""
        z = self.z.detach()
        step = z.norm() * (2 * z.shape[1]) ** -0.5
        return torch.cat([z + step, z - step])


class RandomAround(nn.Module):
    """The adapters that hyper-matrices make of their z, and random directions from there, to decode with.

    Args:
      found: trained hyper-matrices.
      drawn: untrained ones; at their own z stand the adapters of `found`.
    """

    def __init__(self, found: HyperAdapters, drawn: HyperAdapters):
        super().__init__()
        self.register_buffer("start", found.decode(found.z).detach())
        self.drawn = drawn.requires_grad_(False).to(self.start.device)

    def codes(self) -> Tensor:
        """[2, d_I]: see HyperAdapters.codes."""
        return self.drawn.codes()

    def decode(self, z: Tensor) -> Tensor:
        """Z [B, d_I] -> adapters [B, N, 2, d, r]."""
        return self.start + self.drawn.decode(z - self.drawn.z)


def adapter_numbers(intrinsic_dim: int, width: int = 768, rank: int = 16, adapters: int = 24) -> int:
    """Numbers of the hyper-matrices that make all adapters from z (the paper's adapter variant).

    Each adapter has a down and an up projection of width x rank numbers, each z^T A, A [d_I, width * rank].

    >>> adapter_numbers(10), adapter_numbers(250)
    (5898240, 147456000)
    """
    return 2 * adapters * width * rank * intrinsic_dim
