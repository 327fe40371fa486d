"""Tiny random models of the architectures that exchange prompts with PEFT, and PEFT's models made of them."""

import copy
import dataclasses
import functools
import warnings

import peft
import torch
import transformers as t
from stock import backbone as shared

from iptkit.models import tiny
from iptkit.models.backbone import _cast, quiet_transformers
from iptkit.tasks import suites

IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
SIZE = {"vocab_size": len(tiny.word_tokenizer()), "max_position_embeddings": 64}
LAYERS, HEADS, WIDTH = 4, 4, 32
ROTARY = {
    **{**SIZE, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS, **IDS},
    **{"num_attention_heads": HEADS, "num_key_value_heads": 2, "initializer_range": 0.2},
}
BART = {
    **{**SIZE, "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS, "init_std": 0.2, **IDS},
    **{"encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "forced_eos_token_id": None},
    **{"encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 3},
}
T5 = {
    **{"vocab_size": SIZE["vocab_size"], "d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": LAYERS},
    **{"num_decoder_layers": LAYERS, "num_heads": HEADS, "initializer_factor": 3.0},
    **{"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 3},
}
GPT2 = {"vocab_size": SIZE["vocab_size"], "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, **IDS}
BERT = {name: value for name, value in ROTARY.items() if name not in (*IDS, "num_key_value_heads")}
MAKERS = {
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**ROTARY)),
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**ROTARY)),
    "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**ROTARY, head_dim=16)),
    "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(**GPT2, n_positions=64, initializer_range=0.2)),
    "t5": lambda: t.T5ForConditionalGeneration(t.T5Config(**T5)),
    "bart": lambda: t.BartForConditionalGeneration(t.BartConfig(**BART)),
    "scaled-bart": lambda: t.BartForConditionalGeneration(t.BartConfig(**BART, scale_embedding=True)),
    "bert": lambda: t.BertModel(t.BertConfig(**BERT, pad_token_id=0)),
}
TASK_TYPES = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "encoder": "FEATURE_EXTRACTION"}


@functools.cache
def backbone(name):
    """The model in float64, with the words of the tiny tasks as its tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = MAKERS[name]()
    return as_backbone(made, name)


def as_backbone(model, name, dtype="float64"):
    """A transformers model as the kit's own `load` would return it."""
    model.config.architectures = [type(model).__name__]
    config, has_head = model.config, any(word in type(model).__name__ for word in ("CausalLM", "LMHead"))
    model = _cast(model.requires_grad_(False).eval(), dtype)
    return dataclasses.replace(
        shared("tiny-causal", "float64"),
        name=name,
        kind="seq2seq" if config.is_encoder_decoder else "causal" if has_head else "encoder",
        model=model,
        width=WIDTH,
        num_layers=config.num_hidden_layers,
        num_kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_width=getattr(config, "head_dim", None) or WIDTH // config.num_attention_heads,
        max_positions=SIZE["max_position_embeddings"],
        dtype=dtype,
    )


def copied(a_backbone):
    """Its model for PEFT to change, with transformers' own attention."""
    model = copy.deepcopy(a_backbone.model)
    model.set_attn_implementation("sdpa")
    return model


def loaded(model, folder):
    """What PEFT makes of a folder."""
    with quiet():
        return peft.PeftModel.from_pretrained(model, folder).eval()


def new(model, kind, peft_type, length, folder, **options):
    """PEFT's model with a random prompt, which it also saves to the folder."""
    makers = {
        "PROMPT_TUNING": lambda **of: peft.PromptTuningConfig(**of),
        "P_TUNING": lambda **of: peft.PromptEncoderConfig(**of, encoder_hidden_size=24),
        "PREFIX_TUNING": lambda **of: peft.PrefixTuningConfig(**of),
    }
    config = makers[peft_type](task_type=TASK_TYPES[kind], num_virtual_tokens=length, **options)
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made = peft.get_peft_model(model, config).eval()
        made.save_pretrained(folder)
    return made


class quiet(warnings.catch_warnings):  # noqa: N801
    """A context without PEFT's warnings about transformers."""

    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("ignore")


def texts(count=20):
    """Examples with free answers and with options."""
    names = ("tiny-mood", "tiny-sum", "tiny-past", "tiny-colour")
    every = [example for name in names for example in suites.load_task(name, suite="tiny").test[:8]]
    return every[:: len(every) // count][:count]


@torch.no_grad()
def their_losses(theirs, rows):
    """The mean loss of each row's answer by PEFT's forward pass, one row at a time.

    It is computed from the logits, as transformers' own loss of a causal model has float32's precision.
    """
    found = []
    for row in rows:
        (answer,) = row.answers
        is_causal = not theirs.config.is_encoder_decoder
        ids = torch.tensor([[*row.text, *answer[:-1]] if is_causal else row.text])
        more = (
            {}
            if is_causal
            else {"decoder_input_ids": torch.tensor([[theirs.config.decoder_start_token_id, *answer[:-1]]])}
        )
        with quiet():
            logits = theirs(input_ids=ids, attention_mask=torch.ones_like(ids), **more).logits[0]
        logs = logits[-len(answer) :].double().log_softmax(-1)
        found.append(-logs.gather(1, torch.tensor(answer)[:, None]).mean())
    return torch.stack(found)


@torch.no_grad()
def their_answers(theirs, rows, tokenizer, longest):
    """The first line of what PEFT's `generate` says to each row, texts of one length at a time."""
    said = {}
    for length in {len(row.text) for row in rows}:
        index = [i for i, row in enumerate(rows) if len(row.text) == length]
        ids = torch.tensor([rows[i].text for i in index])
        with quiet(), quiet_transformers():
            out = theirs.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=longest,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id or 0,
            )
        answers = out if theirs.config.is_encoder_decoder else out[:, length:]
        for i, answer in zip(index, answers.tolist(), strict=True):
            text = tokenizer.decode(answer, skip_special_tokens=True)
            said[i] = text.split("\n")[0].strip()  # a line break ends the kit's answers
    return [said[i] for i in range(len(rows))]
