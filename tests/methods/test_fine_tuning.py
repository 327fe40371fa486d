"""References of others' making, on the tiny model."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForTokenClassification, ModernBertConfig, ModernBertForTokenClassification

from iptkit.engine.engine import Engine
from iptkit.methods import fine_tuning, prompt_tuning
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.models import backbone
from iptkit.tasks import suites
from iptkit.tasks.examples import SpanExample
from iptkit.training.runs import Run
from iptkit.training.trainer import dev_scores


@pytest.mark.parametrize("method", fine_tuning.METHODS)
def test_a_reference_trains_a_copy_and_is_seeded(method):
    model, task = backbone.load("tiny-causal"), suites.load_task("tiny-mood", suite="tiny")
    before = backbone.fingerprint(model.model)
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)  # earlier draws of the process must not matter
        more = {"intrinsic_dim": 3} if method == "DID" else {}
        runs.append(fine_tuning.fine_tune(model, task, method, 3, 2, 1e-2, 0, 8, **more))
    assert runs[0].score == runs[1].score and 0 <= runs[0].score <= 1
    assert runs[0].log_likelihood == runs[1].log_likelihood < 0 and runs[0].dev_loss is None
    assert runs[0].seconds > 0 and runs[0].cpu_seconds > 0
    total = sum(p.numel() for p in model.model.parameters())
    assert runs[0].num_parameters == total if method == "fine-tuning" else 0 < runs[0].num_parameters < total
    assert backbone.fingerprint(model.model) == before


@pytest.mark.parametrize("name", ["tiny-mood", "tiny-plural"])
def test_the_log_likelihood_is_minus_the_loss_on_the_scored_set(name, monkeypatch):
    """Of options and of free answers, with the trained weights."""
    model, task = backbone.load("tiny-causal"), suites.load_task(name, suite="tiny")
    engines, known = [], Engine
    monkeypatch.setattr(fine_tuning, "Engine", lambda of: engines.append(known(of)) or engines[-1])
    found = fine_tuning.fine_tune(model, task, "fine-tuning", 3, 2, 1e-2, 0, 8, split="dev")
    words = model.tokenizer(prompt_tuning.WORDS, add_special_tokens=False).input_ids
    prompts = [FixedPrompt(prompt_tuning.from_words(e.backbone, len(words))[None]) for e in engines]
    before, after = (
        float(dev_scores(engine, prompt, [Run(task)], 8)[0, 1])
        for engine, prompt in zip(engines, prompts, strict=True)
    )
    assert found.log_likelihood == -found.dev_loss == pytest.approx(after, rel=1e-6)
    assert after > before + 0.01


def test_one_training_is_scored_on_test_and_dev():
    model, task = backbone.load("tiny-causal"), suites.load_task("tiny-kind", suite="tiny")
    how = (model, task, "fine-tuning", 3, 2, 1e-2, 0)
    both = fine_tuning.fine_tune(*how, 4, dev_examples=8)
    test, dev = (fine_tuning.fine_tune(*how, n, split=split) for n, split in ((4, "test"), (8, "dev")))
    assert (both.score, both.log_likelihood) == (test.score, test.log_likelihood)
    assert both.dev_loss == pytest.approx(dev.dev_loss, rel=1e-6) and test.dev_loss is None


def test_logits_of_answers_alone_give_the_loss_of_all():
    model, task = backbone.load("tiny-causal", dtype="float64"), suites.load_task("tiny-mood", suite="tiny")
    words = [5, 6]
    rows = [fine_tuning._record(model, example, words) for example in task.train[:4]]
    assert len({len(row["input_ids"]) for row in rows}) > 1, "rows of several lengths"
    found, gradients = [], []
    for collate in (fine_tuning._padded, fine_tuning._padded_with_answers):
        weights = model.model.requires_grad_(True)
        out = weights(**collate(rows))
        found.append(out.loss.detach())
        gradients.append(torch.autograd.grad(out.loss, [p for p in weights.parameters()]))
        size = out.logits.shape[1]
    assert size < max(len(row["input_ids"]) for row in rows)
    torch.testing.assert_close(found[0], found[1])
    for whole, part in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, part, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("method", ["LoRA", "fine-tuning"])
def test_training_in_bfloat16_keeps_weights_and_scores_in_float32(method, monkeypatch):
    model, task = backbone.load("tiny-causal"), suites.load_task("tiny-mood", suite="tiny")
    trained, known = [], Engine

    def engine(backbone):  # fails for a model whose forward still rounds to bfloat16
        trained.append(dict(backbone.model.named_parameters()))
        return known(backbone)

    monkeypatch.setattr(fine_tuning, "Engine", engine)
    for is_mixed in (False, True):
        found = fine_tuning.fine_tune(model, task, method, 3, 2, 1e-2, 0, 8, is_mixed=is_mixed)
        assert 0 <= found.score <= 1
    plainly, mixed = trained[1::2]  # the first of two engines checks the task before the training
    start = dict(model.model.named_parameters())
    assert {p.dtype for p in mixed.values()} == {torch.float32}
    apart, moved = (
        torch.cat([(mixed[name] - other[name]).flatten() for name in start if name in mixed]).norm()
        for other in (plainly, start)
    )
    assert 0 < apart < 0.5 * moved, "bfloat16 rounds, and goes the same way"


def test_a_prompt_of_vectors_takes_the_place_of_the_words():
    """LoRA leaves the embeddings alone, so the words' own embeddings as vectors change nothing."""
    model, task = backbone.load("tiny-causal"), suites.load_task("tiny-mood", suite="tiny")
    count = len(model.tokenizer(prompt_tuning.WORDS, add_special_tokens=False).input_ids)
    vectors = prompt_tuning.from_words(model, count)
    how = (model, task, "LoRA", 3, 2, 1e-2, 0, 8)
    words, same = fine_tuning.fine_tune(*how), fine_tuning.fine_tune(*how, prompt=vectors)
    other = fine_tuning.fine_tune(*how, prompt=vectors[:2] + 1)
    assert (words.score, words.num_parameters) == (same.score, same.num_parameters)
    assert same.log_likelihood == pytest.approx(words.log_likelihood, rel=1e-6)
    assert other.log_likelihood != pytest.approx(words.log_likelihood, rel=1e-3)
    assert not model.model.get_input_embeddings()._forward_hooks


def test_vectors_are_read_in_training_as_they_are():
    model = backbone.load("tiny-causal")
    vectors = torch.randn(2, model.width)
    records = [{"input_ids": [0, 2, 3]}, {"input_ids": [3, 5]}]
    tokens = fine_tuning._unused(records, 2)
    assert tokens == [1, 4]
    with fine_tuning._embedded(model.model, tokens, vectors):
        found = model.model.get_input_embeddings()(torch.tensor([[0, 1, 4]]))
    torch.testing.assert_close(found[0], torch.stack([model.embedding[0].float(), *vectors]))


def test_an_unknown_reference():
    with pytest.raises(ValueError, match="method 'adapter' is unknown; choose one of"):
        fine_tuning.fine_tune(None, None, "adapter", 1, 1, 0.1, 0, 1)
    with pytest.raises(ValueError, match="intrinsic_dim is 0; DID needs at least 1"):
        fine_tuning.fine_tune(None, None, "DID", 1, 1, 0.1, 0, 1)
    with pytest.raises(ValueError, match="would round DID.s directions to bfloat16"):
        fine_tuning.fine_tune(None, None, "DID", 1, 1, 0.1, 0, 1, intrinsic_dim=2, is_mixed=True)


def test_prompt_tuning_equals_peft():
    model, task = backbone.load("tiny-causal", dtype="float64"), suites.load_task("tiny-mood", suite="tiny")
    ours, theirs = fine_tuning.compare_with_peft(model, task.train[:3], 3)
    for name in ("loss", "gradient"):  # transformers computes the loss of float32 logits
        size = float(theirs[name].abs().max())
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5 * size)


def test_an_encoder_is_fine_tuned_with_its_head():
    encoder = backbone.load("tiny-encoder")
    before = backbone.fingerprint(encoder.model)
    task = suites.load_task("tiny-mood", suite="tiny")
    found = fine_tuning.fine_tune_encoder(encoder, task, 3, 4, 1e-3, seed=0, test_examples=8)
    weights = sum(p.numel() for n, p in encoder.model.named_parameters() if "pooler" not in n)
    assert found.num_parameters == weights + 2 * 33 and 0 <= found.score <= 1
    assert found.log_likelihood < 0 and found.seconds > 0 and found.cpu_seconds > 0
    assert backbone.fingerprint(encoder.model) == before


def test_fine_tuning_begins_with_the_encoders_weights():
    encoder, task = backbone.load("tiny-encoder"), suites.load_task("tiny-mood", suite="tiny")
    fresh = AutoModelForTokenClassification.from_config(encoder.model.config)
    fine_tuning._take_weights(fresh, encoder.model)
    wanted = encoder.model.state_dict()
    for name, value in fresh.base_model.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    modern = ModernBertForTokenClassification(ModernBertConfig(**small, vocab_size=50, pad_token_id=0))
    with pytest.raises(ValueError, match="has weights that its pre-trained encoder lacks: head"):
        fine_tuning._take_weights(modern, modern.base_model)
    span = SpanExample("", ("duck",), (), "What is it?", "a duck", 2)
    with pytest.raises(ValueError, match="takes classes and tags only"):
        fine_tuning.fine_tune_encoder(encoder, replace(task, train=(span,)), 1, 1, 1e-3, 0, 4)


@pytest.mark.parametrize("kind", ["loss", "weights"])
def test_fine_tuning_that_diverges_is_told_and_not_scored(monkeypatch, kind):
    """The Trainer itself skips losses that are not finite and ends without an error."""
    task = suites.load_task("tiny-mood", suite="tiny")
    model, trained = backbone.load("tiny-causal"), []

    def step(self, *args, **kwargs):
        trained.append(self)
        made = original(self, *args, **kwargs)
        if len(trained) == (2 if kind == "loss" else 3):
            with torch.no_grad():
                next(p for p in self.param_groups[0]["params"]).fill_(torch.nan)
        return made

    original = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    told = (
        r"fine-tuning on task tiny-mood \(seed 0, lr 0.01\) diverged within its 3 steps.*lower the learning"
    )
    with pytest.raises(ValueError, match=told):
        fine_tuning.fine_tune(model, task, "fine-tuning", 3, 2, 1e-2, 0, 8)
