import peft
import pytest
import torch
from stock import MIXED_EXAMPLES, backbone, random_prompts, stock_attention

from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.methods import prompt_tuning
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt


def test_soft_prompt_gives_each_row_the_prompt_of_its_run():
    init = torch.arange(24.0).view(2, 3, 4)
    source = SoftPrompt(init)
    found = source(torch.tensor([1, 0, 0]))
    assert found.length == 3 and torch.equal(found.embeds, init[[1, 0, 0]])
    assert [(name, p.shape) for name, p in source.named_parameters()] == [("P", (2, 3, 4))]
    found.embeds[0].sum().backward()
    assert source.P.grad[1].eq(1).all() and source.P.grad[0].eq(0).all()
    init += 1
    assert source.P[0, 0, 0] == 0, "the start values are copied"


@pytest.mark.parametrize(
    ("given", "kept"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_prompts_train_in_float32_at_least(given, kept):
    assert SoftPrompt(torch.zeros(1, 2, 3, dtype=given)).P.dtype == kept


def test_fixed_prompt_trains_nothing():
    source = FixedPrompt(torch.arange(12.0).view(2, 2, 3).requires_grad_())
    assert list(source.parameters()) == [] and not source(torch.tensor([0])).embeds.requires_grad
    assert torch.equal(source(torch.tensor([1])).embeds, torch.arange(6.0, 12.0).view(1, 2, 3))


SHAPES = {"embeds": (2, 4, 8), "keys_values": (2, 3, 2, 2, 4, 8), "adapters": (2, 6, 2, 8, 3)}


@pytest.mark.parametrize("kind", SHAPES)
def test_each_kind_enters_the_model_at_its_own_place(kind):
    numbers = torch.randn(SHAPES[kind], generator=torch.Generator().manual_seed(0))
    for source in (SoftPrompt(numbers, kind), FixedPrompt(numbers, kind)):
        prompt = source(torch.tensor([1]))
        assert torch.equal(getattr(prompt, kind), numbers[1:])
        assert all(getattr(prompt, other) is None for other in SHAPES if other != kind)
        assert prompt.length == (4 if kind == "embeds" else 0)


@pytest.mark.parametrize(("source", "field"), [(SoftPrompt, "init"), (FixedPrompt, "numbers")])
def test_wrong_shape(source, field):
    with pytest.raises(ValueError, match=rf"{field} has shape \(2, 3\); give \[runs, prompt_length, width\]"):
        source(torch.zeros(2, 3))
    for kind, shape in SHAPES.items():
        for other in SHAPES.keys() - {kind}:
            with pytest.raises(ValueError, match=f"{field} has shape .* for kind='{other}', or say that"):
                source(torch.zeros(shape), other)
    with pytest.raises(
        ValueError, match="kind 'deep' is unknown; choose one of embeds, keys_values, adapters"
    ):
        source(torch.zeros(2, 4, 8), "deep")


def test_from_words_takes_the_last_tokens_and_repeats_to_the_left():
    model = backbone("tiny-causal", "float32")
    a, red, fox = (model.embedding[model.tokenizer.get_vocab()[word]] for word in ("a", "red", "fox"))
    assert torch.equal(prompt_tuning.from_words(model, 2, "a red fox"), torch.stack([red, fox]))
    assert torch.equal(prompt_tuning.from_words(model, 5, "a red fox"), torch.stack([red, fox, a, red, fox]))
    assert prompt_tuning.from_words(backbone("tiny-causal", "float64"), 2).dtype == torch.float64
    for length, words in ((0, "a red fox"), (3, "")):
        with pytest.raises(ValueError, match=f"prompt_length={length} with words '{words}'.*at least 1"):
            prompt_tuning.from_words(model, length, words)


def test_from_normal_has_the_asked_spread_and_follows_its_generator():
    model = backbone("tiny-causal", "float32")
    draws = [prompt_tuning.from_normal(model, 500, 0.02, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert draws[0].shape == (500, 32) and draws[0].std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_nearest_words_of_a_word_is_that_word():
    model = backbone("tiny-causal", "float32")
    found = prompt_tuning.nearest_words(model, 3 * prompt_tuning.from_words(model, 3, "a red fox"), count=2)
    assert [words[0] for words in found] == ["a", "red", "fox"] and {len(words) for words in found} == {2}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("name", ["tiny-causal", pytest.param("smollm2-135m", marks=pytest.mark.model)])
def test_equals_peft(name):
    """Loss and gradient of PEFT's prompt tuning on the same weights; it puts the prompt first."""
    model = backbone(name, "float64")
    engine = Engine(model, "prompt-text-answer")
    rows = [engine.target_row(example) for example in MIXED_EXAMPLES[2:]]
    start = random_prompts(model, 1, 4, std=float(model.embedding.std()))[0]

    source = SoftPrompt(start[None])
    scores, tokens = engine.log_likelihoods(source(torch.zeros(2, dtype=torch.long)), rows)
    loss = -scores.sum() / tokens.sum()
    loss.backward()

    theirs, their_loss, reported = peft_loss(model, start, rows)
    torch.testing.assert_close(loss, their_loss, rtol=1e-9, atol=0)
    torch.testing.assert_close(loss, reported.double(), rtol=1e-5, atol=0)  # PEFT's own figure is float32
    assert (source.P.grad[0] - theirs.grad).norm() <= 1e-9 * theirs.grad.norm() and theirs.grad.norm() > 1e-3


def peft_loss(model, start, rows):
    """PEFT's prompt weight [n, d] with its gradient, the float64 mean token loss, the loss PEFT reports."""
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(start))
    longest = max(len(row.text) + len(row.answers[0]) for row in rows)
    ids, labels, mask = (torch.full((len(rows), longest), fill) for fill in (0, -100, 0))
    for i, row in enumerate(rows):
        line = [*row.text, *row.answers[0]]
        ids[i, : len(line)], mask[i, : len(line)] = torch.tensor(line), 1
        labels[i, len(row.text) : len(line)] = torch.tensor(row.answers[0])
    with stock_attention(model.model):
        tuned = peft.get_peft_model(model.model, config)
        weight = tuned.prompt_encoder.default.embedding.weight = torch.nn.Parameter(start.clone())
        out = tuned(input_ids=ids, attention_mask=mask, labels=labels)
        logits = out.logits[:, len(start) :][:, :-1].log_softmax(-1)
        at = labels[:, 1:] != -100
        loss = -logits[at].gather(1, labels[:, 1:][at][:, None]).mean()
        loss.backward()
    return weight, loss.detach(), out.loss.detach()


def test_prompt_is_only_its_vectors():
    assert Prompt(torch.zeros(3, 7, 2)).length == 7
