"""Estimated FLOPs against those that torch counts, in models of both kinds."""

import pytest
import torch
import transformers as t
from torch.utils.flop_counter import FlopCounterMode

from iptkit.engine.engine import Engine
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.models import tiny
from iptkit.models.backbone import load
from iptkit.scores import evaluation
from iptkit.studies import scales
from iptkit.studies.costs import Costs, Sizes
from iptkit.studies.study import Study
from iptkit.tasks.examples import Example, Task
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run

LENGTH, TEXT, COUNT = 12, 30, 8
NEAR = {"llama": 0.1, "bart": 0.02, "t5": 0.02}  # largest error of an estimate
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}


def llama(size):
    """As many layers as make the last one, which runs for few tokens only, a small part."""
    return t.LlamaForCausalLM(
        t.LlamaConfig(
            hidden_size=32,
            intermediate_size=96,
            num_hidden_layers=12,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.2,
            **size,
            **IDS,
        )  # fmt: skip
    )


def bart(size):
    return t.BartForConditionalGeneration(
        t.BartConfig(
            d_model=32,
            encoder_layers=4,
            decoder_layers=4,
            encoder_attention_heads=4,
            init_std=0.2,
            decoder_attention_heads=4,
            encoder_ffn_dim=128,
            decoder_ffn_dim=128,
            decoder_start_token_id=3,
            forced_eos_token_id=None,
            attn_implementation="eager",
            **size,
            **IDS,
        )  # fmt: skip
    )


def t5(size):
    return t.T5ForConditionalGeneration(
        t.T5Config(
            vocab_size=size["vocab_size"],
            d_model=32,
            d_kv=8,
            d_ff=96,
            num_layers=4,
            num_decoder_layers=4,
            num_heads=4,
            decoder_start_token_id=0,
            attn_implementation="eager",
            **IDS,
        )  # fmt: skip
    )


MODELS = {"llama": llama, "bart": bart, "t5": t5}


@pytest.fixture(params=MODELS)
def study(request, monkeypatch):
    """In float64, which torch counts whole: the packed products of float32 are unknown to its counter."""
    monkeypatch.setitem(tiny.MODELS, "tiny-causal", MODELS[request.param])
    scale = scales.load("smoke", prompt_length=LENGTH, test_examples=COUNT, dtype="float64")
    made = Study(scale)
    made.backbone, made.near = load("tiny-causal", dtype="float64"), NEAR[request.param]
    return made


def task_of(answer, options=()):
    """All examples have the same lengths, so no token is padding."""
    answers = (answer,), options
    words = sorted(w for w in tiny.word_tokenizer().get_vocab() if w.isalpha() and w.islower())

    def some(part):
        return tuple(
            Example(" ".join(words[(31 * part + 7 * i + j) % len(words)] for j in range(TEXT)), *answers)
            for i in range(COUNT)
        )

    sets = {name: some(part) for part, name in enumerate(("train", "train_new", "dev", "test"))}
    about = {"id": "x", "title": "x", "category": "qa", "metric": "exact_match", "group": "x", "chance": 0.0}
    return Task(**about, majority=0.0, source="", licence="", labels=(), **sets, seed=0)


TASKS = {
    "free": task_of("the duck sees food and a fox"),
    "choices": task_of("the big animal", ("the big animal", "one more tool", "a red fox")),
}
CONFIG = FitConfig(steps=3, rows_per_run=4, evaluations=1, dev_examples=COUNT)


def counted(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", TASKS)
def test_training_costs_what_torch_counts(study, kind):
    task, runs = TASKS[kind], 2
    engine = Engine(study.backbone)
    source = SoftPrompt(study.words(runs).P)
    found = counted(lambda: trainer.fit(engine, source, [Run(task, i) for i in range(runs)], CONFIG))
    expected = Costs(study).fit([task], CONFIG, runs)
    assert expected == pytest.approx(found, rel=study.near)


@pytest.mark.parametrize("kind", TASKS)
def test_scoring_costs_what_torch_counts(study, kind, monkeypatch):
    task, engine = TASKS[kind], Engine(study.backbone)
    monkeypatch.setattr(engine.words, "ends", set())  # a random model would end at any token
    tokens = len(study.backbone.tokenizer(task.train[0].targets[0]).input_ids)
    monkeypatch.setattr(evaluation.limits, "answer_cap", lambda *_: tokens + 1)
    source = SoftPrompt(study.words(1).P)
    found = counted(lambda: evaluation.outcomes(engine, source, [task]))
    assert Costs(study).score([task]) == pytest.approx(found, rel=study.near)


def test_the_weights_of_bart_base_are_counted_by_their_use():
    """Recalled: 139 million numbers, of which 51,201 x 768 are embeddings and positions."""
    sizes = dict(d_model=768, encoder_layers=6, decoder_layers=6, encoder_ffn_dim=3072, decoder_ffn_dim=3072)
    heads = dict(encoder_attention_heads=12, decoder_attention_heads=12)
    with torch.device("meta"):
        model = t.BartForConditionalGeneration(t.BartConfig(vocab_size=50265, **sizes, **heads))
    found = Sizes.of(model)
    d = 768
    assert found.layers == 6 * (4 * d**2 + 8 * d**2) and found.crossing == 6 * 2 * d**2
    assert found.decoder == 6 * (4 * d**2 + 2 * d**2 + 8 * d**2) and found.head == 50265 * d
    assert found.attention == found.decoder_attention == 6 * d
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(139.4e6, rel=0.001)
