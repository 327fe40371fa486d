"""A frozen Llama over flat tokens: no padding in its matrix products, gradients for its input only.

The tokens of all rows form one list, so rows of different lengths waste nothing; they are arranged in rows
only for attention (attention.py). Nothing is stored for gradients of weights, residual sums are part of the
matrix products, element-wise steps are fused, and after its attention the last layer is computed only for the
tokens that are read. It computes the same sums as transformers' own forward pass (tests compare the two in
float64).

One layer, x [T, d]:

    x -> norm -> q, k, v -> rotate -> attention over [memory | new tokens] -> + x -> norm -> SwiGLU MLP -> + x
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from iptkit.engine.fast.attention import FREED, GroupedAttention, Part, concatenated
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
from iptkit.engine.fast.packed_weights import FrozenWeight, frozen_weight, packs
from iptkit.models.backbone import MixedLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STEADY_ROPE = (
    "default",
    "linear",
    "llama3",
    "yarn",
)  # kinds of positions whose angles do not depend on the batch


@dataclass(frozen=True)
class FlatBatch:
    """T flat tokens of a batch.

    Attributes:
      positions: [T] position ids.
      parts: the rows in attention; together they hold all T tokens, in order.
    """

    positions: Tensor
    parts: tuple[Part, ...]

    @property
    def versions(self) -> list[int]:
        """Counters of writes to the parts' memories: they differ after any write."""
        return [part.memory._version for part in self.parts]


@dataclass(frozen=True)
class _Layer:
    norm_in: Tensor  # [d]
    qkv: FrozenWeight  # [(H + 2h) k, d]
    out: FrozenWeight  # [d, H k]
    norm_mid: Tensor  # [d]
    gate_up: FrozenWeight  # [2 m, d]
    down: FrozenWeight  # [d, m]


class FlatLlama:
    """The layers of a frozen Llama (all but embedding, last norm and head).

    Args:
      model: a `LlamaForCausalLM`. The q, k and v weights of a layer become views of one tensor, its gate and
        up weights of another; their values do not change. Weights multiply in their own dtype; the residual
        stream has the dtype of the input ("mixed": bfloat16 weights, float32 stream).
    """

    def __init__(self, model: PreTrainedModel):
        config = model.config
        self.base, self.eps = model.base_model, config.rms_norm_eps
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.attention = GroupedAttention(heads, kv_heads, width)
        self.is_packed = packs(m.weight for m in model.modules() if isinstance(m, nn.Linear))
        self.layers = [_merge(layer, self.is_packed) for layer in self.base.layers]
        self.dtype = self.layers[0].qkv.weight.dtype

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """True for a plain Llama: no biases, adapters, hooks or other kinds of weights in its layers."""
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

    def __call__(self, x: Tensor, batch: FlatBatch, at: Tensor) -> Tensor:
        """Hidden states [M, d] of the tokens `at`, before the last norm.

        Args:
          x: [T, d] input embeddings; gradients flow into them.
          batch: the tokens' rows. Keys and values of the new tokens are written into the memories of its
            parts, so do not use those memories again before the backward pass.
          at: [M] indices of tokens; after its attention the last layer is computed for these only.
        """
        return _Forward.apply(x, self, batch, at)

    def read(self, x: Tensor, batch: FlatBatch) -> None:
        """Write the new tokens' keys and values into the memories; the last layer stops at its keys.

        Args:
          x: [T, d] input embeddings.
          batch: the tokens' rows.
        """
        with torch.no_grad():
            turn, last = self._turn(x, batch), len(self.layers) - 1
            for i in range(last):
                x, _ = self._forward(i, x, turn, batch)
            qkv, _ = self._qkv(self.layers[last], x, turn)
            for part in batch.parts:
                self.attention.remember(qkv[part.tokens], part, last)

    # ---- one layer ---------------------------------------------------------------------------------
    def _forward(
        self, i: int, x: Tensor, turn: Rotation, batch: FlatBatch, at: Tensor | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """The output of layer i for all tokens or those `at`, and what its backward pass needs."""
        layer = self.layers[i]
        qkv, rate_in = self._qkv(layer, x, turn)
        attended = [self.attention.attend(qkv[part.tokens], part, i) for part in batch.parts]
        mixed, residual = concatenated([output for output, _ in attended]), x
        if at is not None:
            residual, mixed = x.index_select(0, at), mixed.index_select(0, at)
        middle = self._add_product(residual, mixed, layer.out)
        normed, rate_mid = norm(middle, layer.norm_mid, self.eps)
        gate_up = layer.gate_up.times(normed.to(self.dtype))
        output = self._add_product(middle, swiglu(gate_up, x.dtype), layer.down)
        return output, (x, rate_in, [saved for _, saved in attended], middle, rate_mid, gate_up)

    def _backward(
        self,
        i: int,
        grad: Tensor,
        saved: tuple[Any, ...],
        back: Rotation,
        batch: FlatBatch,
        at: Tensor | None = None,
    ) -> Tensor:
        """The gradient of the input of layer i, from that of its output, which it may overwrite.

        Args:
          i: index of the layer.
          grad: gradient of the output.
          saved: second output of `_forward`.
          back: `rotation_back` of the forward pass's rotation.
          batch: as given to `_forward`.
          at: as given to `_forward`.
        """
        layer = self.layers[i]
        x, rate_in, of_parts, middle, rate_mid, gate_up = saved
        inner = swiglu_backward(layer.down.back(grad.to(self.dtype)), gate_up, x.dtype)
        norm_backward(grad, self._back(inner, layer.gate_up, x.dtype), middle, rate_mid, layer.norm_mid)

        outer = self._back(grad, layer.out, x.dtype)
        if at is not None:  # zero for all other tokens
            grad, outer = (t.new_zeros(len(x), t.shape[1]).index_add_(0, at, t) for t in (grad, outer))
        d_qkv = concatenated(
            [
                cast(Tensor, self.attention.back(outer[part.tokens], of_part, part, i)[0])
                for part, of_part in zip(batch.parts, of_parts, strict=True)
            ]
        )
        rotate_(d_qkv, self._rotated, back)
        norm_backward(grad, self._back(d_qkv, layer.qkv, x.dtype), x, rate_in, layer.norm_in)
        return grad

    def _qkv(self, layer: _Layer, x: Tensor, turn: Rotation) -> tuple[Tensor, Tensor]:
        """Queries and keys after rotation, and values [T, (H + 2h) k]; 1 / RMS of the norm [T, 1]."""
        normed, rate = norm(x, layer.norm_in, self.eps)
        qkv = layer.qkv.times(normed.to(self.dtype)).to(x.dtype)
        rotate_(qkv, self._rotated, turn)
        return qkv, rate

    # ---- small parts -------------------------------------------------------------------------------
    @property
    def _rotated(self) -> int:
        return self.attention.num_heads + self.attention.num_kv_heads

    def _turn(self, x: Tensor, batch: FlatBatch) -> Rotation:
        """The rotation of the tokens' positions."""
        cos, sin = self.base.rotary_emb(x, batch.positions[None])
        return rotation(cos[0], sin[0])

    def _back(self, grad: Tensor, weight: FrozenWeight, dtype: torch.dtype) -> Tensor:
        return weight.back(grad.to(self.dtype)).to(dtype)

    def _add_product(self, x: Tensor, y: Tensor, weight: FrozenWeight) -> Tensor:
        """X + y W^T, in one product if the dtypes agree."""
        return weight.plus(x, y) if x.dtype == self.dtype else x + weight.times(y.to(self.dtype))


class _Forward(torch.autograd.Function):
    """All layers as one node of the autograd graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, llama: FlatLlama, batch: FlatBatch, at: Tensor) -> Tensor:
        ctx.llama, ctx.batch, ctx.at, ctx.saved = llama, batch, at, []
        ctx.turn, last = llama._turn(x, batch), len(llama.layers) - 1
        for i in range(last + 1):
            x, saved = llama._forward(i, x, ctx.turn, batch, at if i == last else None)
            if ctx.needs_input_grad[0]:
                ctx.saved.append(saved)
        ctx.versions = batch.versions
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        if not ctx.saved:
            raise RuntimeError(FREED)
        if ctx.batch.versions != ctx.versions:
            raise RuntimeError(
                "the memory was written to after this forward pass; give each forward pass a memory of its "
                "own"
            )
        grad, last, back = grad.clone(), len(ctx.llama.layers) - 1, rotation_back(ctx.turn)
        for i in reversed(range(last + 1)):
            at = ctx.at if i == last else None
            grad = ctx.llama._backward(i, grad, ctx.saved.pop(), back, ctx.batch, at)
        ctx.batch = ctx.turn = ctx.at = None
        return grad, None, None, None


def _merge(layer: Any, is_packed: bool) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        norm_in=layer.input_layernorm.weight,
        qkv=frozen_weight(join(attention.q_proj, attention.k_proj, attention.v_proj), is_packed),
        out=frozen_weight(attention.o_proj.weight, is_packed),
        norm_mid=layer.post_attention_layernorm.weight,
        gate_up=frozen_weight(join(mlp.gate_proj, mlp.up_proj), is_packed),
        down=frozen_weight(mlp.down_proj.weight, is_packed),
    )


def join(*linears: nn.Linear, name: str = "weight") -> Tensor:
    """The weights (or biases) of several linear layers as one tensor, of which theirs become views.

    Args:
      linears: the layers; if their weights already are such views, nothing is copied.
      name: "weight" or "bias".
    """
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
