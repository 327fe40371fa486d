"""Tiny random models of three kinds, built in code, for tests and the `smoke` scale.

The weights of the two models that answer have a standard deviation of 0.2. With transformers' default of 0.02
a random model of this size gives the same answer to every text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from iptkit.storage import paths, reading

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STD = 0.2  # standard deviation of the weights of models that answer
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4}
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}


def build(name: str) -> tuple[PreTrainedModel, Any]:
    """The model `name` (one of MODELS) and its tokenizer, the same at every call."""
    tokenizer = word_tokenizer()
    size = {"vocab_size": len(tokenizer), "max_position_embeddings": 256}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name](size)
    model.config.architectures = [type(model).__name__]
    return model, tokenizer


def _causal(size: dict[str, int]) -> PreTrainedModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32,
            intermediate_size=64,
            **LAYERS,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            initializer_range=STD,
            **size,
            **IDS,
        )
    )


def _encoder(size: dict[str, int]) -> PreTrainedModel:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(hidden_size=32, intermediate_size=64, **LAYERS, **size, pad_token_id=0))


def _seq2seq(size: dict[str, int]) -> PreTrainedModel:
    from transformers import BartConfig, BartForConditionalGeneration

    return BartForConditionalGeneration(
        BartConfig(
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            decoder_start_token_id=3,
            forced_eos_token_id=None,
            dropout=0.0,
            init_std=STD,
            **size,
            **IDS,
        )
    )


MODELS: dict[str, Callable[[dict[str, int]], PreTrainedModel]] = {
    "tiny-causal": _causal,
    "tiny-encoder": _encoder,
    "tiny-seq2seq": _seq2seq,
}


@functools.cache
def word_tokenizer() -> Any:
    """A tokenizer whose vocabulary is the words of the tasks in data/tiny; other words are [UNK]."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    splitter = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    words = {
        word
        for file in reading.listed(paths.data_dir() / "tiny", ".jsonl")
        for _, record in reading.read_json_lines(file)
        for text in _strings(record)
        for word, _ in splitter.pre_tokenize_str(text)
    }
    words |= set("Answer with the right choice . :".split())
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[BOS]", "[EOS]", *sorted(words)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]"
    )


def _strings(record: dict) -> list[str]:
    return [
        s
        for value in record.values()
        for s in (value if isinstance(value, list) else [value])
        if isinstance(s, str)
    ]
