"""Does torch.compile pay for the element-wise chains of the flat layers?

python -m benchmarks.compiled [--tokens 512] [--rounds 30] [--json FILE]

Compares each chain as iptkit writes it (in place where possible) with torch.compile of a plain version.
Shapes are dynamic, because the number of tokens changes from batch to batch. Sizes are those of
SmolLM2-135M, in float32 on the CPU. The results of both versions are compared first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from benchmarks.machine import keep
from iptkit.engine.fast.elementwise import norm, norm_backward, rotate_, rotation, swiglu, swiglu_backward

D, INNER, HEADS, WIDTH, EPS = 576, 1536, 12, 64, 1e-5  # HEADS: of queries and keys, which are rotated
ROWS, NEW, LEFT, SHARED = 40, 13, 47, 3  # attention: rows, new tokens, text tokens, queries per key head
Chain = Callable[..., Any]


def swiglu_plain(gate_up: Tensor) -> Tensor:
    """SwiGLU of [tokens, 2 * INNER]."""
    gate, up = gate_up.chunk(2, -1)
    return silu(gate) * up


def swiglu_backward_plain(inner: Tensor, gate_up: Tensor) -> Tensor:
    """The gradient of SwiGLU's input, from that of its output."""
    gate, up = gate_up.chunk(2, -1)
    s = gate.sigmoid()
    return torch.cat([inner * up * s * (1 + gate * (1 - s)), inner * gate * s], -1)


def masked_softmax(scores: Tensor, wall: Tensor) -> Tensor:
    """Softmax after an additive mask."""
    return (scores + wall).softmax(-1)


def norm_plain(x: Tensor, weight: Tensor) -> Tensor:
    """RMS norm."""
    return x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * weight


def norm_gradient(grad: Tensor, d_normed: Tensor, x: Tensor, rate: Tensor, weight: Tensor) -> Tensor:
    """`grad` plus the gradient of RMS norm's input, in place, as iptkit computes it."""
    norm_backward(grad, d_normed, x, rate, weight)
    return grad


def norm_gradient_plain(grad: Tensor, d_normed: Tensor, x: Tensor, rate: Tensor, weight: Tensor) -> Tensor:
    """The same, out of place."""
    d = d_normed * weight
    return grad + d * rate - x * ((d * x).sum(-1, keepdim=True) * rate.pow(3) / D)


def turned(flat: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of queries and keys, in place, as iptkit computes it."""
    rotate_(flat, HEADS, rotation(cos, sin))
    return flat


def turned_plain(flat: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The same, out of place."""
    heads = flat[:, : HEADS * WIDTH].view(len(flat), HEADS, WIDTH)
    first, second = heads.chunk(2, -1)
    found = heads * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]
    return torch.cat([found.flatten(1), flat[:, HEADS * WIDTH :]], -1)


def chains(tokens: int) -> dict[str, tuple[Chain, Chain, list[Tensor]]]:
    """Return iptkit's chain, the plain chain and the inputs of both, by name."""
    torch.manual_seed(0)
    x, weight, gate_up = torch.randn(tokens, D), torch.rand(D), torch.randn(tokens, 2 * INNER)
    grad, d_normed, inner = torch.randn(tokens, D), torch.randn(tokens, D), torch.randn(tokens, INNER)
    scores = torch.randn(ROWS, 3, SHARED * NEW, LEFT + NEW)
    blind = torch.rand(ROWS, 1, SHARED * NEW, LEFT + NEW) < 0.3
    wall = torch.zeros(blind.shape).masked_fill_(blind, torch.finfo(scores.dtype).min)
    flat, rate = torch.randn(tokens, HEADS * WIDTH + 3 * WIDTH), torch.rand(tokens, 1)
    cos, sin = torch.randn(tokens, WIDTH), torch.randn(tokens, WIDTH)
    return {
        "SwiGLU": (lambda g: swiglu(g, g.dtype), swiglu_plain, [gate_up]),
        "its gradient": (
            lambda i, g: swiglu_backward(i, g, g.dtype),
            swiglu_backward_plain,
            [inner, gate_up],
        ),
        "masked softmax": (masked_softmax, masked_softmax, [scores, wall]),
        "RMS norm": (lambda x, w: norm(x, w, EPS)[0], norm_plain, [x, weight]),
        "its gradient, added": (norm_gradient, norm_gradient_plain, [grad, d_normed, x, rate, weight]),
        "rotation": (turned, turned_plain, [flat, cos, sin]),
    }


def microseconds(chain: Chain, given: list[Tensor], rounds: int) -> float:
    """Return the median time of a call, after two calls that are not counted."""
    mine, taken = [t.clone() for t in given], []  # chains may overwrite their inputs
    for _ in range(rounds + 2):
        begun = time.perf_counter()
        chain(*mine)
        taken.append(time.perf_counter() - begun)
    return median(taken[2:]) * 1e6


@torch.no_grad()
def main() -> None:
    """Measure every chain, print a table and store it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=__doc__)
    parser.add_argument("--tokens", type=int, default=512, help="tokens of a batch (default 512)")
    parser.add_argument("--rounds", type=int, default=30, help="counted calls (default 30)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given, rows = parser.parse_args(), []
    print("| chain | iptkit, µs | compiled, µs | compilation, s |\n|---|---|---|---|", flush=True)
    for name, (ours, plain, tensors) in chains(given.tokens).items():
        compiled, begun = torch.compile(plain, dynamic=True), time.perf_counter()
        found = compiled(*(t.clone() for t in tensors))
        seconds = time.perf_counter() - begun
        torch.testing.assert_close(found, ours(*(t.clone() for t in tensors)), rtol=1e-4, atol=1e-4)
        both = [microseconds(chain, tensors, given.rounds) for chain in (ours, compiled)]
        rows.append({"chain": name, "ours": both[0], "compiled": both[1], "compilation_seconds": seconds})
        print(f"| {name} | {both[0]:.0f} | {both[1]:.0f} | {seconds:.1f} |", flush=True)
    keep(given.json, {"tokens": given.tokens, "rounds": given.rounds}, rows=rows)


if __name__ == "__main__":
    main()
