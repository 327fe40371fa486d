import copy
import dataclasses

import pytest
import torch
import transformers
from stock import MIXED_EXAMPLES, backbone, random_prompts, rows_of

from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.engine.rows import Row
from iptkit.methods import prompt_tuning
from iptkit.models.backbone import _cast, fingerprint, load, quiet_transformers
from iptkit.tasks.examples import Example


def bart(scale_embedding=False):
    tiny = load("tiny-seq2seq", dtype="float64")
    if scale_embedding:
        config = type(tiny.model.config)(**{**tiny.model.config.to_dict(), "scale_embedding": True})
        model = type(tiny.model)(config)
        model.load_state_dict(tiny.model.state_dict())
        tiny = dataclasses.replace(tiny, model=model.double().requires_grad_(False).eval())
        assert tiny.model.get_input_embeddings().embed_scale == pytest.approx(32**0.5)
    with torch.no_grad():  # a hub model may come with a bias on its words
        bias = tiny.model.final_logits_bias
        bias += torch.randn(bias.shape, generator=torch.Generator().manual_seed(1), dtype=bias.dtype)
    return tiny


def t5():
    tiny = backbone("tiny-seq2seq", "float64")
    config = transformers.T5Config(
        vocab_size=len(tiny.tokenizer), d_model=32, d_ff=64, d_kv=8, num_layers=2, num_heads=4,
        dropout_rate=0.0, pad_token_id=0, eos_token_id=3, decoder_start_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.T5ForConditionalGeneration(config).double().requires_grad_(False).eval()
    return dataclasses.replace(tiny, model=model)


MODELS = {"bart": bart, "scaled bart": lambda: bart(True), "t5": t5}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


def plain_log_likelihood(model, text, answer):
    """One stock forward over token ids, one answer, no padding."""
    start = [model.model.config.decoder_start_token_id]
    ids, decoder = torch.tensor([text]), torch.tensor([[*start, *answer[:-1]]])
    logs = model.model(input_ids=ids, decoder_input_ids=decoder, use_cache=False).logits[0].log_softmax(-1)
    return sum(logs[i, token] for i, token in enumerate(answer))


def test_words_as_a_prompt_are_the_same_as_words_in_the_text(model):
    """Ragged texts and answers in one batch; a scale on the model's embeddings holds for the prompt too."""
    engine = Engine(model)
    assert engine.layout == "prompt-text-answer"
    rows = rows_of(engine)
    words = tuple(model.tokenizer("a red fox").input_ids)
    prompt = prompt_tuning.from_words(model, 3, "a red fox").expand(len(rows), -1, -1)
    scores, tokens = engine.log_likelihoods(Prompt(prompt), rows)
    for b, row in enumerate(rows):
        expected = [plain_log_likelihood(model, words + row.text, answer) for answer in row.answers]
        torch.testing.assert_close(scores[b, : len(row.answers)], torch.stack(expected), rtol=1e-7, atol=0)
        assert (scores[b, len(row.answers) :] == -torch.inf).all()
        assert tokens[b].tolist() == [*map(len, row.answers), *[0] * (3 - len(row.answers))]
    assert scores[0, 0] != pytest.approx(float(scores[2, 0]), rel=1e-2)


def test_free_answers_end_and_options_do_not():
    model = bart()
    engine = Engine(model)
    free, choice = (engine.target_row(example) for example in MIXED_EXAMPLES[:2])
    assert free.answers[0][-1] == model.eos and choice.answers[0][-1] != model.eos


def test_gradient_of_the_prompt(model):
    """Against the same loss written with stock calls on input embeddings, row by row."""
    engine = Engine(model)
    rows = rows_of(engine)
    start = random_prompts(model, len(rows), 3).requires_grad_()
    scores, _ = engine.log_likelihoods(Prompt(start), rows)
    (found,) = torch.autograd.grad(scores[:, 0].sum(), start)
    scale = getattr(model.model.get_input_embeddings(), "embed_scale", 1.0)
    total = 0.0
    for prompt, row in zip(start, rows, strict=True):
        embeds = torch.cat([prompt, model.embedding[torch.tensor(row.text)]])[None] * scale
        answer = row.answers[0]
        decoder = torch.tensor([[model.model.config.decoder_start_token_id, *answer[:-1]]])
        logs = model.model(inputs_embeds=embeds, decoder_input_ids=decoder).logits[0].log_softmax(-1)
        total = total + sum(logs[i, token] for i, token in enumerate(answer))
    (expected,) = torch.autograd.grad(total, start)
    assert (found - expected).norm() <= 1e-7 * expected.norm() and expected.flatten(1).norm(
        dim=1
    ).min() > 1e-3


def test_padded_equals_unpadded(model):
    engine = Engine(model)
    rows = rows_of(engine)
    start = random_prompts(model, len(rows), 3)
    together, _ = engine.log_likelihoods(Prompt(start), rows)
    for b, row in enumerate(rows):
        alone, _ = engine.log_likelihoods(Prompt(start[b : b + 1]), [row])
        torch.testing.assert_close(together[b, : len(row.answers)], alone[0], rtol=1e-7, atol=0)


def test_greedy_equals_generate_row_by_row(model):
    engine = Engine(model)
    rows = rows_of(engine) * 3
    start = random_prompts(model, len(rows), 3, std=2.0)
    limits = [6, 1, 9, 3] * 3
    answers = engine.greedy(Prompt(start), rows, limits)
    scale = getattr(model.model.get_input_embeddings(), "embed_scale", 1.0)
    for answer, prompt, row, limit in zip(answers, start, rows, limits, strict=True):
        embeds = torch.cat([prompt, model.embedding[torch.tensor(row.text)]])[None] * scale
        with quiet_transformers():
            ids = model.model.generate(inputs_embeds=embeds, do_sample=False, max_new_tokens=limit)
        assert answer == model.tokenizer.decode(ids[0, 1:], skip_special_tokens=True).strip()
        assert len(answer.split()) <= limit
    assert len(set(answers)) > 4


def test_greedy_is_not_steered_by_a_models_own_settings():
    """As bart-base comes: beams, no repeated trigram, a forced first token."""
    model = bart()
    rows = rows_of(Engine(model))
    start = Prompt(random_prompts(model, len(rows), 3, std=2.0))
    free = Engine(model).greedy(start, rows, [12] * 4)
    own = model.model.generation_config
    own.num_beams, own.no_repeat_ngram_size, own.early_stopping, own.min_length = 4, 1, True, 12
    own.forced_bos_token_id = 7
    assert Engine(model).greedy(start, rows, [12] * 4) == free
    assert own.num_beams == 4


def test_trains_and_scores_like_any_other_model():
    from iptkit.methods.prompt_tuning import SoftPrompt
    from iptkit.scores import evaluation
    from iptkit.tasks import suites
    from iptkit.training.runs import FitConfig, Run
    from iptkit.training.trainer import fit

    model = bart()
    engine = Engine(model)
    both = suites.load_suite("tiny", only=["tiny-mood", "tiny-plural"], max_test=4)
    before = fingerprint(model.model)
    source = SoftPrompt(prompt_tuning.from_words(model, 3).expand(2, -1, -1))
    result = fit(engine, source, [Run(task) for task in both], FitConfig(steps=15, rows_per_run=4, lr=0.1))
    assert (result.losses[-3:].mean(0) < result.losses[:3].mean(0)).all()
    assert fingerprint(model.model) == before
    answers = evaluation.predict(engine, source, both)
    assert set(answers[0]) <= {"negative", "positive"} and [len(a) for a in answers] == [4, 4]


def test_mixed_dtype_scores_in_float32():
    model = load("tiny-seq2seq", dtype="mixed")
    engine = Engine(model)
    row = engine.target_row(Example("What is six plus four?", ("ten",)))
    scores, _ = engine.log_likelihoods(
        Prompt(prompt_tuning.from_words(model, 3)[None]), [row, Row((5,), ((6,),))][:1]
    )
    assert scores.dtype == torch.float32 and torch.isfinite(scores).all()


@pytest.mark.parametrize("dtype", ["float32", "mixed", "bfloat16"])
@pytest.mark.parametrize("name", ["Pegasus", "BlenderbotSmall"])
def test_a_model_that_scales_words_outside_of_its_table_is_refused(name, dtype):
    """Its prompt and text would come in unscaled; BART and its kin scale in the table, which is known."""
    tiny = backbone("tiny-seq2seq", "float32")
    given = {**tiny.model.config.to_dict(), "scale_embedding": True}
    config = getattr(transformers, f"{name}Config")(**{k: v for k, v in given.items() if k != "model_type"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    model = _cast(model.requires_grad_(False).eval(), dtype)
    with pytest.raises(ValueError, match="does not support .* T5 or BART model"):
        Engine(dataclasses.replace(tiny, model=model, dtype=dtype))


@pytest.mark.parametrize("dtype", ["float32", "mixed", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_known_models_are_taken_in_every_number_type(name, dtype):
    exact = MODELS[name]()
    model = _cast(copy.deepcopy(exact.model), dtype)
    assert Engine(dataclasses.replace(exact, model=model, dtype=dtype)).backbone.model is model
