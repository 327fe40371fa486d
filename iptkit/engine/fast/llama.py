"""A frozen Llama over flat tokens: no padding in its matrix products, gradients for its input only.

The tokens of all rows lie in one list, so rows of different length waste nothing; they meet their row again
only inside attention (attention.py). Nothing is kept for gradients of weights, residual sums happen inside
the matrix products, every element-wise chain is as short as it can be written, and behind its attention the
last layer is computed only where it is read. Exact: the same sums as the stock forward of transformers (tests
compare them in float64).

One layer, x [T, d]:

    x -> norm -> q, k, v -> rotate -> attention over [memory | new tokens] -> + x -> norm -> SwiGLU MLP -> + x
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from iptkit.engine.fast.attention import FREED, Heads, Part, joined
from iptkit.engine.fast.elementwise import (
    Rotation,
    norm,
    norm_backward,
    rotate_,
    rotation,
    rotation_back,
    swiglu,
    swiglu_backward,
)
from iptkit.engine.fast.packed_weights import Frozen, frozen, packs
from iptkit.models.backbone import MixedLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STEADY_ROPE = ("default", "linear", "llama3", "yarn")  # the same angles whatever else is in the batch


@dataclass(frozen=True)
class Layout:
    """Where T flat tokens stand.

    Attributes:
      positions: [T] position ids.
      parts: the rows that meet in attention; together all T tokens, in order.
    """

    positions: Tensor
    parts: tuple[Part, ...]

    @property
    def versions(self) -> list[int]:
        """Change when a part's memory is written to."""
        return [part.memory._version for part in self.parts]


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

    def __init__(self, model: PreTrainedModel):
        config = model.config
        self.base, self.eps = model.base_model, config.rms_norm_eps
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.heads = Heads(heads, kv_heads, getattr(config, "head_dim", None) or config.hidden_size // heads)
        self.is_packed = packs(m.weight for m in model.modules() if isinstance(m, nn.Linear))
        self.layers = [_merge(layer, self.is_packed) for layer in self.base.layers]
        self.dtype = self.layers[0].qkv.weight.dtype

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
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

    def __call__(self, x: Tensor, layout: Layout, at: Tensor) -> Tensor:
        """Hidden states [M, d] of the tokens `at` before the last norm.

        Args:
          x: [T, d] input embeddings; gradients flow into them.
          layout: keys and values of the new tokens are filled into its parts' memories, so do not use those
            again before the backward pass.
          at: [M] of the T tokens; behind its attention the last layer is computed for these only.
        """
        return _Forward.apply(x, self, layout, at)

    def read(self, x: Tensor, layout: Layout) -> None:
        """Fill the memories with the new tokens' keys and values; the rest of the last layer is left."""
        with torch.no_grad():
            turn, last = self._turn(x, layout), len(self.layers) - 1
            for i in range(last):
                x, _ = self._forward(i, x, turn, layout)
            qkv, _ = self._qkv(self.layers[last], x, turn)
            for part in layout.parts:
                self.heads.remember(qkv[part.tokens], part, last)

    # ---- one layer ---------------------------------------------------------------------------------
    def _forward(
        self, i: int, x: Tensor, turn: Rotation, layout: Layout, at: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Returns the output of layer i, of all tokens or those `at`, and what its backward pass needs."""
        layer = self.layers[i]
        qkv, rate_in = self._qkv(layer, x, turn)
        taken, seen = zip(*(self.heads.attend(qkv[p.tokens], p, i) for p in layout.parts), strict=True)
        mixed = joined(taken)
        go_on = (x, mixed) if at is None else (x.index_select(0, at), mixed.index_select(0, at))
        middle = self._add_product(*go_on, layer.out)
        normed, rate_mid = norm(middle, layer.norm_mid, self.eps)
        gate_up = layer.gate_up.times(normed.to(self.dtype))
        output = self._add_product(middle, swiglu(gate_up, x.dtype), layer.down)
        return output, (x, rate_in, seen, middle, rate_mid, gate_up)

    def _backward(
        self,
        i: int,
        grad: Tensor,
        kept: tuple[Any, ...],
        back: Rotation,
        layout: Layout,
        at: Tensor | None = None,
    ) -> Tensor:
        """Turns the gradient of the output of layer i into that of its input, in place where it can.

        Args:
          back: `rotation_back` of what the forward pass turned with.
        """
        layer = self.layers[i]
        x, rate_in, seen, middle, rate_mid, gate_up = kept
        inner = swiglu_backward(layer.down.back(grad.to(self.dtype)), gate_up, x.dtype)
        norm_backward(grad, self._back(inner, layer.gate_up, x.dtype), middle, rate_mid, layer.norm_mid)

        outer = self._back(grad, layer.out, x.dtype)
        if at is not None:  # the other tokens' are zero
            grad, outer = (t.new_zeros(len(x), t.shape[1]).index_add_(0, at, t) for t in (grad, outer))
        parts = zip(layout.parts, seen, strict=True)
        d_qkv = joined([self.heads.back(outer[p.tokens], of, p, i)[0] for p, of in parts])
        rotate_(d_qkv, self._rotated, back)
        norm_backward(grad, self._back(d_qkv, layer.qkv, x.dtype), x, rate_in, layer.norm_in)
        return grad

    def _qkv(self, layer: _Layer, x: Tensor, turn: Rotation) -> tuple[Tensor, Tensor]:
        """Rotated queries and keys, and values [T, (H + 2h) k]."""
        normed, rate = norm(x, layer.norm_in, self.eps)
        qkv = layer.qkv.times(normed.to(self.dtype)).to(x.dtype)
        rotate_(qkv, self._rotated, turn)
        return qkv, rate

    # ---- small parts -------------------------------------------------------------------------------
    @property
    def _rotated(self) -> int:
        return self.heads.count + self.heads.kv_count

    def _turn(self, x: Tensor, layout: Layout) -> Rotation:
        """What `rotate_` takes for the positions."""
        cos, sin = self.base.rotary_emb(x, layout.positions[None])
        return rotation(cos[0], sin[0])

    def _back(self, grad: Tensor, weight: Frozen, dtype: torch.dtype) -> Tensor:
        return weight.back(grad.to(self.dtype)).to(dtype)

    def _add_product(self, x: Tensor, y: Tensor, weight: Frozen) -> Tensor:
        """X + y weight^T, in one product where the dtypes agree."""
        return weight.plus(x, y) if x.dtype == self.dtype else x + weight.times(y.to(self.dtype))


class _Forward(torch.autograd.Function):
    """All layers as one step of autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, llama: FlatLlama, layout: Layout, at: Tensor) -> Tensor:
        ctx.llama, ctx.layout, ctx.at, ctx.kept = llama, layout, at, []
        ctx.turn, keep, last = llama._turn(x, layout), ctx.needs_input_grad[0], len(llama.layers) - 1
        for i in range(last + 1):
            x, kept = llama._forward(i, x, ctx.turn, layout, at if i == last else None)
            if keep:
                ctx.kept.append(kept)
        ctx.versions = layout.versions
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if not ctx.kept:
            raise RuntimeError(FREED)
        if ctx.layout.versions != ctx.versions:
            raise RuntimeError("the memory was written to after this forward; give each forward its own")
        grad, last, back = grad.clone(), len(ctx.llama.layers) - 1, rotation_back(ctx.turn)
        for i in reversed(range(last + 1)):
            at = ctx.at if i == last else None
            grad = ctx.llama._backward(i, grad, ctx.kept.pop(), back, ctx.layout, at)
        ctx.layout = ctx.turn = ctx.at = None
        return grad, None, None, None


def _merge(layer: Any, is_packed: bool) -> _Layer:
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
