"""Tiny random models of every architecture that deep prompts serve."""

import functools

import torch
import transformers as t

SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT = {**SMALL, "intermediate_size": 24, "max_position_embeddings": 40, "initializer_range": 0.3}
DECODER = {"pad_token_id": 0, "decoder_start_token_id": 2, "eos_token_id": 3}


def bart(layers=3):
    return t.BartForConditionalGeneration(
        t.BartConfig(
            vocab_size=50,
            d_model=16,
            encoder_layers=2,
            decoder_layers=layers,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            max_position_embeddings=40,
            init_std=0.3,
            forced_eos_token_id=None,
            **DECODER,
        )
    )


MAKERS = {
    "bert": lambda: t.BertModel(t.BertConfig(**BERT)),
    "roberta": lambda: t.RobertaModel(t.RobertaConfig(**BERT, pad_token_id=1)),
    "distilbert": lambda: t.DistilBertModel(
        t.DistilBertConfig(
            vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=40
        )
    ),
    "modernbert": lambda: t.ModernBertModel(
        t.ModernBertConfig(
            **{**SMALL, "num_hidden_layers": 3},
            intermediate_size=24,
            max_position_embeddings=40,
            local_attention=8,
            pad_token_id=0,
        )
    ),
    "gpt2": lambda: t.GPT2LMHeadModel(
        t.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=40, initializer_range=0.3)
    ),
    "llama": lambda: t.LlamaForCausalLM(
        t.LlamaConfig(**BERT, num_key_value_heads=1, eos_token_id=3, bos_token_id=2, pad_token_id=0)
    ),
    "t5": lambda: t.T5ForConditionalGeneration(
        t.T5Config(
            vocab_size=50,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_decoder_layers=2,
            num_heads=2,
            **DECODER,
        )
    ),
    "bart": bart,
}
ENCODERS = ("bert", "roberta", "distilbert", "modernbert")
CAUSAL = ("gpt2", "llama")
SEQ2SEQ = ("t5", "bart")
SITES = {"bert": 2, "roberta": 2, "distilbert": 2, "modernbert": 3, "gpt2": 2, "llama": 2, "t5": 6, "bart": 8}


@functools.cache
def model(name):
    """The model in float64, frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = MAKERS[name]()
    made.config.architectures = [type(made).__name__]
    return made.double().requires_grad_(False).eval()


def batch(name, lengths=(6, 4)):
    """Inputs of two rows, the second padded on its right."""
    size = max(lengths)
    ids = torch.arange(len(lengths) * size).view(len(lengths), size) % 40 + 5
    mask = (torch.arange(size) < torch.tensor(lengths)[:, None]).long()
    inputs = {"input_ids": ids * mask + (1 - mask), "attention_mask": mask}
    if name in SEQ2SEQ:
        inputs["decoder_input_ids"] = torch.tensor([[2, 7, 9], [2, 8, 11]])[: len(lengths)]
    return inputs


def output(name, inputs):
    """What a model says, only of real tokens: [tokens, numbers]."""
    made = model(name)
    out = made(**inputs)
    states = out.logits if name in (*CAUSAL, *SEQ2SEQ) else out.last_hidden_state
    return states.flatten(0, 1) if name in SEQ2SEQ else states[inputs["attention_mask"].bool()]
