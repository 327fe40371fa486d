import copy
from dataclasses import replace

import pytest
import torch
from stock import backbone, stock_attention
from tokenizers.normalizers import Lowercase
from transformers import BertConfig, BertForMaskedLM

from iptkit.engine.mask_engine import MaskEngine
from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import find_sites
from iptkit.methods import p_tuning_v2
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt
from iptkit.models import tiny
from iptkit.models.backbone import fingerprint, load
from iptkit.prompts.asking import ask
from iptkit.scores import evaluation
from iptkit.tasks import suites
from iptkit.tasks.examples import Example
from iptkit.tasks.wordings import Verbalizer
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run

TEMPLATE = "{text} {mask} ."
MOOD = Verbalizer({"negative": ("sad", "bad"), "positive": ("good",)})
SENTENCE = Example("I had a sad trip", ("positive",), ("positive", "negative"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random masked language model on disk, as from the hub."""
    place = tmp_path_factory.mktemp("masked")
    tokenizer = tiny.word_tokenizer().__class__(
        tokenizer_object=tiny.word_tokenizer()._tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            vocab_size=len(tokenizer),
            initializer_range=0.2,
        )
        BertForMaskedLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def model(folder):
    return load(folder, dtype="float64")


def nothing(rows):
    return FixedPrompt(torch.zeros(rows, 0, 32))(torch.arange(rows))


def test_it_answers_with_options_and_cannot_write(model):
    engine, prompt = MaskEngine(model, TEMPLATE, MOOD), FixedPrompt(torch.zeros(1, 3, 32))
    (answer,) = ask(engine, prompt, [SENTENCE.input], options=["positive", "negative"])
    assert answer.answer in ("positive", "negative")
    with pytest.raises(ValueError, match="cannot write free answers; give options: --options A,B"):
        ask(engine, prompt, [SENTENCE.input])


def test_a_masked_model_keeps_its_head_and_is_an_encoder(model):
    assert model.kind == "encoder" and isinstance(model.model, BertForMaskedLM)


def test_labels_are_scored_by_their_words_at_the_mask(model):
    engine = MaskEngine(model, TEMPLATE, MOOD)
    scores, count = engine.log_likelihoods(nothing(1), [engine.option_row(SENTENCE)])
    ids = model.tokenizer("I had a sad trip [MASK] .").input_ids
    with stock_attention(model.model):
        logs = model.model(input_ids=torch.tensor([ids])).logits[0, 5].log_softmax(-1)
    sad, bad, good = (logs[model.tokenizer(w).input_ids[0]] for w in ("sad", "bad", "good"))
    expected = torch.stack([good, (sad + bad) / 2]).log_softmax(-1)
    torch.testing.assert_close(scores[0], expected)
    assert count.tolist() == [[1, 1]]


@pytest.mark.parametrize("kind", ["shallow", "deep"])
def test_prompts_train_through_the_lm_head(folder, kind):
    model = load(folder, dtype="float32")
    sites = find_sites(model.model)
    generator = torch.Generator().manual_seed(0)
    source = SoftPrompt(torch.randn(1, 2, 32, generator=generator))
    if kind == "deep":
        source = p_tuning_v2.DeepPrompt(1, sites, 2, generator, std=0.5)
    engine = MaskEngine(model, TEMPLATE, MOOD, source.sites if kind == "deep" else ())
    before = fingerprint(model.model)
    task = suites.load_task("tiny-mood", suite="tiny")
    config = FitConfig(steps=12, rows_per_run=4, lr=0.1, evaluations=2, dev_examples=8)
    result = trainer.fit(engine, source, [Run(task)], config)
    assert result.losses[-4:].mean() < result.losses[:4].mean()
    assert 0 <= evaluation.evaluate(engine, source, [task])[0] <= 1
    assert fingerprint(model.model) == before


def test_wrong_wishes_are_refused(model):
    with pytest.raises(ValueError, match=r"has no head that fills a \[MASK\]"):
        MaskEngine(backbone("tiny-encoder", "float32"), TEMPLATE, MOOD)
    with pytest.raises(ValueError, match="must have {text} and {mask}, each once"):
        MaskEngine(model, "{text} .", MOOD)
    with pytest.raises(ValueError, match="'so so' as .* one \\[MASK\\] takes one known token"):
        MaskEngine(model, TEMPLATE, Verbalizer({"negative": ("so so",), "positive": ("good",)}))
    engine = MaskEngine(model, TEMPLATE, MOOD)
    with pytest.raises(ValueError, match="has the options .* use options that are labels"):
        engine.target_row(Example("I had a sad trip", ("fine",), ("fine", "poor")))
    with pytest.raises(ValueError, match=r"more than one \[MASK\]"):
        engine.target_row(Example("I had a [MASK] trip", ("positive",), ("positive", "negative")))
    long = Example("trip " * 600, ("positive",), ("positive", "negative"))
    with pytest.raises(ValueError, match="take 602 positions"):
        engine.log_likelihoods(Prompt(embeds=torch.zeros(1, 0, 32)), [engine.target_row(long)])


def test_words_of_two_labels_are_different_tokens(model):
    uncased = replace(model, tokenizer=copy.deepcopy(model.tokenizer))
    uncased.tokenizer.backend_tokenizer.normalizer = Lowercase()
    MaskEngine(model, TEMPLATE, Verbalizer({"negative": ("sad",), "positive": ("good",)}))
    MaskEngine(uncased, TEMPLATE, Verbalizer({"negative": ("sad", "Sad"), "positive": ("good",)}))
    told = "cannot tell 'sad' of label 'negative' from 'Sad' of label 'positive': they are the same token"
    with pytest.raises(ValueError, match=told):
        MaskEngine(uncased, TEMPLATE, Verbalizer({"negative": ("bad", "sad"), "positive": ("Sad",)}))


def test_lines_may_offer_other_labels_of_the_verbalizer(folder):
    """Labels are known by their words, so no place in a list of options stands for one."""
    engine = MaskEngine(load(folder, dtype="float32"), TEMPLATE, MOOD)
    task = suites.load_task("tiny-mood", suite="tiny")
    rows = (SENTENCE, replace(SENTENCE, options=SENTENCE.options[::-1]))
    task = replace(task, train=rows, dev=rows, test=rows, category="mcqa", labels=())
    source = SoftPrompt(torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0)))
    trainer.fit(engine, source, [Run(task)], FitConfig(steps=1, rows_per_run=2))
    first, second = evaluation.predict(engine, source, [task])[0]
    assert first == second
