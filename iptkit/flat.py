"""A frozen Llama over flat tokens: no padding in its matrix products, gradients for its input only.

The tokens of all rows lie in one list, so rows of different length waste nothing; they meet their row again
only inside attention. Nothing is kept for gradients of weights, residual sums happen inside the matrix
products, and every element-wise chain is as short as it can be written. Exact: the same sums as the stock
forward of transformers (tests compare them in float64).

One layer, x [T, d]:

    x -> norm -> q, k, v -> rotate -> attention over [memory | new tokens] -> + x -> norm -> SwiGLU MLP -> + x
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from iptkit.backbones import MixedLinear
from iptkit.elementwise import norm, norm_backward, rotate_
from iptkit.frozen import Frozen, frozen, packs

STEADY_ROPE = ("default", "linear", "llama3", "yarn")  # the same angles whatever else is in the batch


@dataclass(frozen=True)
class Layout:
    """Where T flat tokens stand in B rows of up to S new tokens.

    Attributes:
      slots: [T] flat slot b * S + s of each token; None when every slot is taken in order (T = B * S).
      positions: [T] position ids.
      blind: [B, 1, S, L + S] True where a token must not look, over memory and new tokens.
    """

    slots: Tensor | None
    positions: Tensor
    blind: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """B, S."""
        return self.blind.shape[0], self.blind.shape[2]


@dataclass(frozen=True)
class _Layer:
    norm_in: Tensor  # [d]
    qkv: Frozen  # [(H + 2h) k, d]
    out: Frozen  # [d, H k]
    norm_mid: Tensor  # [d]
    gate_up: Frozen  # [2 m, d]
    down: Frozen  # [d, m]


class FlatLlama:
    """The layers of a frozen Llama (all but embedding, last norm and head).

    Args:
      model: a `LlamaForCausalLM`. Its q, k, v and its gate, up weights become views of one merged tensor
        each; their values do not change. Weights multiply in their own dtype; the residual stream keeps the
        dtype of its input ("mixed": bfloat16 weights, float32 stream).
    """

    def __init__(self, model: nn.Module):
        config = model.config
        self.base, self.eps = model.base_model, config.rms_norm_eps
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.is_packed = packs(m.weight for m in model.modules() if isinstance(m, nn.Linear))
        self.layers = [_merge(layer, self.is_packed) for layer in self.base.layers]
        self.dtype = self.layers[0].qkv.weight.dtype

    @staticmethod
    def fits(model: nn.Module) -> bool:
        """Is `model` a plain Llama: no biases, adapters, hooks or weights of other kinds in its layers?"""
        if type(model).__name__ != "LlamaForCausalLM":
            return False
        config = model.config
        linears = [
            linear
            for layer in model.base_model.layers
            for part in (layer.self_attn, layer.mlp)
            for name, linear in part.named_children()
            if name.endswith("_proj")
        ]
        linears.append(model.lm_head)
        return (
            not (config.attention_bias or config.mlp_bias)
            and config.hidden_act == "silu"
            and config.rope_parameters["rope_type"] in STEADY_ROPE
            and all(type(m) in (nn.Linear, MixedLinear) for m in linears)
            and all(type(m.weight) is nn.Parameter and type(m.weight.data) is Tensor for m in linears)
            and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        )

    def __call__(self, x: Tensor, layout: Layout, memory: Tensor) -> Tensor:
        """Hidden states [T, d] before the last norm.

        Args:
          x: [T, d] input embeddings; gradients flow into them.
          memory: [N, 2, B, h, L + S, k] keys and values of the memory in the first L places; those of the new
            tokens are filled in here, so do not use the tensor again before the backward pass.
        """
        return _Forward.apply(x, self, layout, memory)

    def read(self, x: Tensor, layout: Layout, memory: Tensor) -> None:
        """Fill `memory` with the new tokens' keys and values; the rest of the last layer is not computed."""
        with torch.no_grad():
            turn = self._turn(x, layout)
            for i, layer in enumerate(self.layers):
                if i + 1 == len(self.layers):
                    self._remember(self._qkv(layer, x, turn)[0], layout, memory[i])
                else:
                    x, _ = self._forward(layer, x, turn, layout, memory[i])

    # ---- one layer ---------------------------------------------------------------------------------
    def _forward(
        self, layer: _Layer, x: Tensor, turn: tuple[Tensor, Tensor], layout: Layout, memory: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the layer's output and what its backward pass needs."""
        qkv, rate_in = self._qkv(layer, x, turn)
        query = self._remember(qkv, layout, memory)
        keys, values = memory
        scores = query @ keys.transpose(-1, -2)  # [B, h, g S, L + S]
        batch, new = layout.shape
        scores.view(batch, self.kv_heads, -1, new, scores.shape[-1]).masked_fill_(
            layout.blind[:, :, None], torch.finfo(scores.dtype).min
        )
        weights = scores.softmax(-1)
        mixed = self._to_flat((weights @ values).view(batch, -1, new, self.width), layout)
        middle = self._add_product(x, mixed, layer.out)
        normed, rate_mid = norm(middle, layer.norm_mid, self.eps)
        gate_up = self._product(normed, layer.gate_up)
        gate, up = gate_up.chunk(2, -1)
        output = self._add_product(middle, silu(gate).mul_(up), layer.down)
        return output, (x, rate_in, query, weights, middle, rate_mid, gate_up)

    def _backward(
        self,
        layer: _Layer,
        grad: Tensor,
        kept: tuple[Tensor, ...],
        turn: tuple[Tensor, Tensor],
        layout: Layout,
        memory: Tensor,
    ) -> Tensor:
        """Turns the gradient of the layer's output into that of its input, in place."""
        x, rate_in, query, weights, middle, rate_mid, gate_up = kept
        batch, new = layout.shape
        gate, up = gate_up.chunk(2, -1)
        inner = self._back(grad, layer.down)
        both = torch.empty_like(gate_up)
        torch.mul(inner, silu(gate), out=both[:, gate.shape[1] :])
        torch.ops.aten.silu_backward.grad_input(inner.mul_(up), gate, grad_input=both[:, : gate.shape[1]])
        norm_backward(grad, self._back(both, layer.gate_up), middle, rate_mid, layer.norm_mid)

        keys, values = memory
        outer = self._grouped(self._padded(self._back(grad, layer.out), layout), layout)
        d_weights = outer @ values.transpose(-1, -2)
        d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        d_query = (d_scores @ keys).mul_(self.width**-0.5).view(batch, -1, new, self.width)
        left = keys.shape[2] - new
        d_key = d_scores[..., left:].transpose(-1, -2) @ query
        d_value = weights[..., left:].transpose(-1, -2) @ outer
        d_qkv = self._to_flat(torch.cat([d_query, d_key, d_value], 1), layout)
        rotate_(d_qkv, self._rotated, turn[0], -turn[1].roll(self.width // 2, -1))
        norm_backward(grad, self._back(d_qkv, layer.qkv), x, rate_in, layer.norm_in)
        return grad

    def _qkv(self, layer: _Layer, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Rotated queries and keys, and values [T, (H + 2h) k]."""
        normed, rate = norm(x, layer.norm_in, self.eps)
        qkv = self._product(normed, layer.qkv)
        rotate_(qkv, self._rotated, *turn)
        return qkv, rate

    def _remember(self, qkv: Tensor, layout: Layout, memory: Tensor) -> Tensor:
        """Write keys and values into memory [2, B, h, L + S, k]; returns scaled queries [B, h, g S, k]."""
        batch, new = layout.shape
        rows = self._padded(qkv, layout).view(batch, new, -1, self.width).transpose(1, 2)
        query, key, value = rows.split([self.heads, self.kv_heads, self.kv_heads], 1)
        memory[0, :, :, -new:].copy_(key)
        memory[1, :, :, -new:].copy_(value)
        return (query * self.width**-0.5).reshape(batch, self.kv_heads, -1, self.width)

    # ---- small parts -------------------------------------------------------------------------------
    @property
    def _rotated(self) -> int:
        return self.heads + self.kv_heads

    def _turn(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """cos and sin [T, 1, k] of the positions (rotary position embedding)."""
        cos, sin = self.base.rotary_emb(x, layout.positions[None])
        return cos[0][:, None], sin[0][:, None]

    def _product(self, x: Tensor, weight: Frozen) -> Tensor:
        return weight.times(x.to(self.dtype)).to(x.dtype)

    def _back(self, grad: Tensor, weight: Frozen) -> Tensor:
        return weight.back(grad.to(self.dtype)).to(grad.dtype)

    def _add_product(self, x: Tensor, y: Tensor, weight: Frozen) -> Tensor:
        """x + y weight^T, in one product where the dtypes agree."""
        return weight.plus(x, y) if x.dtype == self.dtype else x + self._product(y, weight)

    def _padded(self, flat: Tensor, layout: Layout) -> Tensor:
        """[T, c] -> [B * S, c], zeros where no token stands."""
        if layout.slots is None:
            return flat
        batch, new = layout.shape
        return flat.new_zeros(batch * new, flat.shape[1]).index_copy_(0, layout.slots, flat)

    def _grouped(self, padded: Tensor, layout: Layout) -> Tensor:
        """[B * S, H k] -> [B, h, g S, k]: the g query heads that share a key head stand below each other."""
        batch, new = layout.shape
        rows = padded.view(batch, new, -1, self.width).transpose(1, 2)
        return rows.reshape(batch, self.kv_heads, -1, self.width)

    def _to_flat(self, rows: Tensor, layout: Layout) -> Tensor:
        """[B, heads, S, k] -> [T, heads k]."""
        padded = rows.transpose(1, 2).reshape(-1, rows.shape[1] * self.width)
        return padded if layout.slots is None else padded.index_select(0, layout.slots)


class _Forward(torch.autograd.Function):
    """All layers as one step of autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, llama: FlatLlama, layout: Layout, memory: Tensor) -> Tensor:
        ctx.llama, ctx.layout, ctx.memory, ctx.kept = llama, layout, memory, []
        ctx.turn, keep = llama._turn(x, layout), ctx.needs_input_grad[0]
        for layer, part in zip(llama.layers, memory, strict=True):
            x, kept = llama._forward(layer, x, ctx.turn, layout, part)
            if keep:
                ctx.kept.append(kept)
        ctx.version = memory._version
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if not ctx.kept:
            raise RuntimeError(
                "a second backward pass through the same forward, but what it needs was freed; run the "
                "forward again"
            )
        if ctx.memory._version != ctx.version:
            raise RuntimeError("the memory was written to after this forward; give each forward its own")
        grad = grad.clone()
        for layer, part in zip(reversed(ctx.llama.layers), reversed(ctx.memory.unbind(0)), strict=True):
            grad = ctx.llama._backward(layer, grad, ctx.kept.pop(), ctx.turn, ctx.layout, part)
        return grad, None, None, None


def _merge(layer: nn.Module, is_packed: bool) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        norm_in=layer.input_layernorm.weight,
        qkv=frozen(join(attention.q_proj, attention.k_proj, attention.v_proj), is_packed),
        out=frozen(attention.o_proj.weight, is_packed),
        norm_mid=layer.post_attention_layernorm.weight,
        gate_up=frozen(join(mlp.gate_proj, mlp.up_proj), is_packed),
        down=frozen(mlp.down_proj.weight, is_packed),
    )


def join(*linears: nn.Linear, name: str = "weight") -> Tensor:
    """One tensor for the weights (or biases) of several layers; the layers become views of it (once)."""
    parts = [getattr(linear, name).detach() for linear in linears]
    starts, stride = [part.storage_offset() for part in parts], parts[0].stride()
    ends = [start + part.numel() for start, part in zip(starts, parts, strict=True)]
    shared = len({part.untyped_storage().data_ptr() for part in parts}) == 1
    if shared and starts[1:] == ends[:-1] and all(part.is_contiguous() for part in parts):
        return parts[0].as_strided((sum(map(len, parts)), *parts[0].shape[1:]), stride, starts[0])
    whole = torch.cat(parts)
    for linear, view in zip(linears, whole.split([len(part) for part in parts]), strict=True):
        setattr(linear, name, nn.Parameter(view, requires_grad=False))
    return whole
