"""Adapters in a frozen causal model and a subspace of them: the adapter variant of Intrinsic Prompt Tuning.

An adapter stands behind each attention and each feed-forward block, before the residual connection is added
(Houlsby et al. 2019, arXiv 1902.00751, section 2.1):

    h + swish(h D) U          h [L, d], D [d, r] down, U [r, d] up

It has no biases and uses swish, as in the released code of Qin et al. 2021 (arXiv 2110.07867), where this
variant comes from. Hyper-matrices make the weights of all adapters from a code z of d_I entries:

    D = z^T A_l, U = z^T B_l          z [d_I], A_l and B_l [d_I, d, r], one pair for each of N blocks l
    adapters [B, N, 2, d, r]          D and the transpose of U at every place

Finding the subspace trains all A_l and B_l and one z that the seen tasks share, without an auto-encoder;
tuning in it trains z alone. With a single z the gradient of every A_l is an outer product with z, so training
shapes the subspace along z and hardly in other directions.

Differences from the released code: z starts with length 1, A_l with the standard deviation of a linear layer
and B_l with less (there N(0, 0.02^2) for all); z and the matrices have the same learning rate; every batch
has rows of all tasks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iptkit.engine.prompt import Kind, Prompt, PromptSource


class HyperAdapters(PromptSource):
    """Hyper-matrices that make all adapters from z, and z itself: a prompt source that all runs share.

    It is also a decoder for `IntrinsicPrompt` (see `subspace.PromptDecoder`).

    Args:
      intrinsic_dim: d_I >= 1.
      blocks: N >= 1, the number of adapters.
      width: d >= 1.
      rank: r >= 1.
      generator: draws the start: z of length 1, so that D is N(0, 1/d) and U is N(0, up^2/d).
      up: standard deviation of U at the start relative to that of D, > 0; with 0, adapters of untrained
        matrices would change nothing.

    Raises:
      ValueError: a size below 1, or up <= 0.
    """

    per_run = False
    kind: Kind = "adapters"

    def __init__(
        self,
        intrinsic_dim: int,
        blocks: int,
        width: int,
        rank: int,
        generator: torch.Generator,
        up: float = 0.1,
    ):
        super().__init__()
        if min(intrinsic_dim, blocks, width, rank) < 1 or not up > 0:
            given = f"{intrinsic_dim}, {blocks}, {width}, {rank} and up={up}"
            raise ValueError(
                f"HyperAdapters needs intrinsic_dim, blocks, width, rank >= 1 and up > 0, got {given}"
            )
        shape, device = (intrinsic_dim, blocks, 2, width, rank), generator.device
        drawn = torch.randn(shape, generator=generator, device=device) * width**-0.5
        drawn[:, :, 1] *= up
        z = torch.randn(1, intrinsic_dim, generator=generator, device=device)
        self.A = nn.Parameter(drawn)  # all A_l and B_l
        self.z = nn.Parameter(z / z.norm())  # [1, d_I]

    def decode(self, z: Tensor) -> Tensor:
        """z: [B, d_I] -> adapters [B, N, 2, d, r]."""
        return (z @ self.A.flatten(1)).view(-1, *self.A.shape[1:])

    def forward(self, runs: Tensor) -> Prompt:
        """runs: [B] -> the same adapters for each row."""
        return Prompt.of(self.kind, self.decode(self.z).index_select(0, torch.zeros_like(runs)))

    def codes(self) -> Tensor:
        """[2, d_I] two codes around the shared z, |z| / sqrt(d_I) their standard deviation per entry."""
        z = self.z.detach()
        step = z.norm() * (2 * z.shape[1]) ** -0.5
        return torch.cat([z + step, z - step])


class RandomAround(nn.Module):
    """A decoder with random directions around trained adapters.

    Its code `drawn.z` decodes to the adapters that `found` makes from its own z.

    Args:
      found: trained hyper-matrices.
      drawn: untrained hyper-matrices, which give the directions.
    """

    kind: Kind = "adapters"
    start: Tensor  # [1, N, 2, d, r]

    def __init__(self, found: HyperAdapters, drawn: HyperAdapters):
        super().__init__()
        self.register_buffer("start", found.decode(found.z).detach())
        self.drawn = drawn.requires_grad_(False).to(self.start.device)

    def codes(self) -> Tensor:
        """[2, d_I] the codes of the untrained matrices, see HyperAdapters.codes."""
        return self.drawn.codes()

    def decode(self, z: Tensor) -> Tensor:
        """z: [B, d_I] -> adapters [B, N, 2, d, r]."""
        return self.start + self.drawn.decode(z - self.drawn.z)


def num_parameters(intrinsic_dim: int, width: int = 768, rank: int = 16, adapters: int = 24) -> int:
    """The number of parameters of the hyper-matrices (the defaults are the paper's sizes).

    Each adapter has a down and an up projection of width x rank entries, each made by [d_I, width * rank].

    Args:
      intrinsic_dim: d_I.
      width: d.
      rank: r.
      adapters: N.

    Example:
      >>> num_parameters(10), num_parameters(250)
      (5898240, 147456000)
    """
    return 2 * adapters * width * rank * intrinsic_dim
