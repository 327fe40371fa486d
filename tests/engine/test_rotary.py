"""Keys moved to other positions, compared with the keys that a model itself makes there."""

import pytest
import torch
import transformers as t
from peft_models import GPT2, ROTARY, as_backbone, backbone

from iptkit.engine.left_memory import observe
from iptkit.engine.rotary import cannot_turn, turned
from iptkit.engine.sites import find_sites

SCALED = {"rope_theta": 100.0, "factor": 4.0}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
TURNED = {
    "default": lambda: t.LlamaForCausalLM(t.LlamaConfig(**ROTARY)),
    "linear": lambda: t.LlamaForCausalLM(
        t.LlamaConfig(**ROTARY, rope_parameters={"rope_type": "linear", **SCALED})
    ),
    "llama3": lambda: t.LlamaForCausalLM(
        t.LlamaConfig(**ROTARY, rope_parameters={"rope_type": "llama3", **SCALED, **LLAMA3})
    ),
    "yarn": lambda: t.Qwen2ForCausalLM(
        t.Qwen2Config(
            **ROTARY,
            rope_parameters={"rope_type": "yarn", **SCALED, "original_max_position_embeddings": 16},
        )
    ),
    "part of each key": lambda: t.PhiForCausalLM(t.PhiConfig(**ROTARY, partial_rotary_factor=0.5)),
    "normalised keys": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**ROTARY, head_dim=16)),
}


def made(maker, dtype="float64"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return as_backbone(maker(), "made", dtype)


def keys(base, first):
    """[S, h, L, k] the model's own keys of six tokens that begin at a position."""
    found = []
    ids = torch.arange(4, 10)[None]
    with observe(lambda module, query, key: found.append(key[0])), torch.no_grad():
        base.model(input_ids=ids, position_ids=torch.arange(first, first + 6)[None], use_cache=False)
    return torch.stack(found)


@pytest.mark.parametrize("what", TURNED)
def test_turned_keys_are_the_models_own_at_other_positions(what):
    base = made(TURNED[what])
    find_sites(base.model)
    assert cannot_turn(base) == ""
    here, there = keys(base, 0), keys(base, 9)
    torch.testing.assert_close(turned(here, 9, base), there, rtol=0, atol=2e-5)  # its angles are float32
    torch.testing.assert_close(turned(there, -9, base), here, rtol=0, atol=2e-5)
    torch.testing.assert_close(turned(turned(here, 9, base), -9, base), here, rtol=0, atol=1e-12)
    assert (here - there).abs().max() > 0.1 and turned(here.float(), 9, base).dtype == torch.float32


@pytest.mark.parametrize("dtype", ["float32", "mixed", "bfloat16"])
def test_the_number_type_of_a_model_does_not_matter(dtype):
    assert cannot_turn(made(TURNED["default"], dtype)) == ""


DYNAMIC = {"rope_type": "dynamic", **SCALED, "original_max_position_embeddings": 16}
NOT = {
    "not rotary (GPT-2 and BERT add learned vectors": lambda: t.GPT2LMHeadModel(t.GPT2Config(**GPT2)),
    "rope_type 'dynamic' depend on the length": lambda: t.LlamaForCausalLM(
        t.LlamaConfig(**ROTARY, rope_parameters=DYNAMIC)
    ),
    "another way than Llama's, or not at all": lambda: t.GlmForCausalLM(t.GlmConfig(**ROTARY, head_dim=8)),
    "or not at all": lambda: t.SmolLM3ForCausalLM(t.SmolLM3Config(**ROTARY)),  # some of its layers have none
}


@pytest.mark.parametrize("told", NOT)
def test_a_model_whose_keys_cannot_be_turned_is_told_why(told):
    assert told in cannot_turn(made(NOT[told]))


def test_the_wrong_sign_would_be_seen():
    base = backbone("llama")
    find_sites(base.model)
    assert not torch.allclose(turned(keys(base, 0), -9, base), keys(base, 9), atol=0.1)
