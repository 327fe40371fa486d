import inspect

import families
import pytest
import torch
from families import CAUSAL, ENCODERS, MAKERS, SEQ2SEQ, SITES, batch, model, output
from stock import MIXED_EXAMPLES, backbone
from transformers import AlbertConfig, AlbertModel, DynamicCache, MPNetConfig, MPNetModel

from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.left_memory import left_memory
from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import PARTS, choose, find_sites, memory_at
from iptkit.methods import p_tuning_v2
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.models.backbone import load
from iptkit.scores import evaluation
from iptkit.tasks import suites
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run

ALL = list(MAKERS)


def prompt(name, runs=2, length=3, std=1.0, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    made = DeepPrompt(runs, find_sites(model(name)), length, generator, std=std, **options).double()
    with torch.no_grad():
        made.P += torch.randn(made.P.shape, generator=generator, dtype=torch.float64) * std  # runs differ
    return made


def said(name, source, inputs, runs=(0, 1)):
    with left_memory(memory_at(source.sites, source(torch.tensor(runs)))):
        return output(name, inputs)


def number(out):
    return (out * torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum()


# ---- sites -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ALL)
def test_every_attention_is_found(name):
    sites = find_sites(model(name))
    assert len(sites) == SITES[name] and len({site.module for site in sites}) == SITES[name]
    kinds = {"decoder"} if name in CAUSAL else {"encoder"} if name in ENCODERS else set(PARTS)
    assert {site.part for site in sites} == kinds
    for part in kinds:
        layers = [site.layer for site in sites if site.part == part]
        assert layers == list(range(len(layers)))
    assert sites[0].num_kv_heads == (1 if name == "llama" else 2) and sites[0].head_width == 8


def test_models_whose_layers_cannot_have_prompts_are_refused():
    small = {**families.SMALL, "intermediate_size": 24}
    with pytest.raises(ValueError, match="share one attention"):
        find_sites(AlbertModel(AlbertConfig(**small, embedding_size=8)).eval())
    with pytest.raises(ValueError, match="does not use transformers' attention interface"):
        find_sites(MPNetModel(MPNetConfig(**small)).eval())


def test_sites_are_chosen_by_layer_and_part():
    sites = find_sites(model("bart"))
    assert [(s.part, s.layer) for s in choose(sites, [-1], ("encoder", "cross"))] == [
        ("encoder", 1),
        ("cross", 2),
    ]
    assert choose(sites) == sites and len(choose(sites, [0])) == 3
    with pytest.raises(ValueError, match="layer 2 does not exist: the encoder has 2, from 0 to 1"):
        choose(sites, [2])
    with pytest.raises(ValueError, match="part 'middle' is unknown"):
        choose(sites, None, ("middle",))
    with pytest.raises(ValueError, match="layers is empty; give at least one"):
        choose(sites, [])
    with pytest.raises(ValueError, match="no attention of the parts cross; it has: encoder"):
        choose(find_sites(model("bert")), None, ("cross",))


# ---- what a prompt does ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ALL)
def test_every_entry_trains_and_the_output_changes(name):
    source, inputs = prompt(name), batch(name)
    out = said(name, source, inputs)
    assert not torch.allclose(out, output(name, inputs))
    number(out).backward()
    by_entry = source.P.grad.view(2, 3, SITES[name], 2, -1)
    assert (by_entry != 0).all(), "PEFT's prefix for T5 and BART leaves half of its entries without gradient"
    assert all(p.grad is None for p in model(name).parameters())


@pytest.mark.parametrize("name", ALL)
def test_each_row_has_its_own_prompt(name):
    source, inputs = prompt(name), batch(name)
    together = said(name, source, inputs)
    alone = []
    for row in range(2):
        one = {key: value[row : row + 1] for key, value in inputs.items()}
        alone.append(said(name, source, one, runs=(row,)))
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("name", ALL)
def test_padding_changes_nothing(name):
    source, inputs = prompt(name), batch(name)
    short = {key: value[1:] for key, value in inputs.items()}
    for key in ("input_ids", "attention_mask"):
        short[key] = short[key][:, :4]
    found = said(name, source, inputs)
    assert torch.allclose(found[-len(said(name, source, short, (1,))) :], said(name, source, short, (1,)))


def name_of_the_cache(some_model):
    """The name of the argument; transformers 5.24 changed it."""
    return "cache" if "cache" in inspect.signature(some_model.forward).parameters else "past_key_values"


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
def test_it_equals_a_cache_that_holds_the_prompt(name):
    """Models that take keys and values as a cache while the text's positions begin at 0."""
    source, inputs = prompt(name), batch(name)
    keys_values = source(torch.tensor([0, 1])).keys_values
    cache = DynamicCache([(both[:, 0], both[:, 1]) for both in keys_values.unbind(1)])
    size = inputs["input_ids"].shape[1]
    start = 2 if name == "roberta" else 0
    by_cache = dict(inputs) | {
        name_of_the_cache(model(name)): cache,
        "attention_mask": torch.cat([torch.ones(2, 3, dtype=torch.long), inputs["attention_mask"]], 1),
        "position_ids": torch.arange(start, start + size).expand(2, -1),
    }
    out = model(name)(**by_cache)
    states = out.logits if name in CAUSAL else out.last_hidden_state
    inputs["position_ids"] = by_cache["position_ids"]
    expected = states[inputs["attention_mask"].bool()]
    torch.testing.assert_close(said(name, source, inputs), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*CAUSAL, *SEQ2SEQ])
@pytest.mark.parametrize("beams", [1, 2])
def test_generation_is_the_same_with_and_without_a_cache(name, beams):
    source, inputs = prompt(name), batch(name, (5, 5))
    inputs.pop("decoder_input_ids", None)
    options = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False, "pad_token_id": 0}
    said_so = []
    for use_cache in (True, False):
        made = memory_at(source.sites, source(torch.tensor([0, 1])))
        with left_memory(made), torch.no_grad():
            said_so.append(model(name).generate(**inputs, **options, use_cache=use_cache))
    assert torch.equal(*said_so)
    with torch.no_grad():
        plain = model(name).generate(**inputs, **options)
    assert plain.shape != said_so[0].shape or not torch.equal(plain, said_so[0])


def test_layers_left_out_are_as_if_they_had_no_prompt():
    source, inputs = prompt("bert"), batch("bert")
    made = source(torch.tensor([0, 1])).keys_values
    sites = find_sites(model("bert"))
    with left_memory(memory_at(choose(sites, [1]), Prompt(keys_values=made[:, 1:]))):
        upper = output("bert", inputs)
        inside = model("bert")(**inputs, output_hidden_states=True).hidden_states
    plain = model("bert")(**inputs, output_hidden_states=True).hidden_states
    real = inputs["attention_mask"].bool()
    assert torch.equal(inside[1][real], plain[1][real]) and not torch.allclose(
        inside[2][real], plain[2][real]
    )
    with left_memory(memory_at(sites, Prompt(keys_values=made))):
        both = output("bert", inputs)
    assert not torch.allclose(upper, both) and not torch.allclose(upper, output("bert", inputs))


@pytest.mark.parametrize("name", ALL)
def test_runs_of_several_lengths_share_a_batch(name):
    both, inputs = prompt(name, length=(1, 3)), batch(name)
    out = said(name, both, inputs)
    number(out).backward()
    assert (both.P.grad[0, 0] != 0).all() and (both.P.grad[0, 1:] == 0).all() and (both.P.grad[1] != 0).all()
    for run, length in enumerate((1, 3)):
        alone = prompt(name, runs=1, length=length)
        with torch.no_grad():
            alone.P[0] = both.P[run, :length]
        mine = {key: value[[run]] for key, value in inputs.items()}
        found = said(name, alone, mine, (0,))
        start = 0 if run == 0 else len(out) - len(found)
        torch.testing.assert_close(out[start : start + len(found)], found)


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_lengths_reach_the_engine_and_what_is_kept(name):
    tiny = backbone(name, "float64")
    sites = find_sites(tiny.model)
    source = DeepPrompt(2, sites, (1, 3), torch.Generator().manual_seed(0), std=0.5).double()
    engine = Engine(tiny, sites=sites)
    row = engine.target_row(MIXED_EXAMPLES[0])
    scores, _ = engine.log_likelihoods(source(torch.tensor([0, 1])), [row, row])
    one = DeepPrompt(1, sites, 1, torch.Generator(), std=0.5).double()
    with torch.no_grad():
        one.P[0] = source.P[0, :1]
    alone, _ = engine.log_likelihoods(one(torch.tensor([0])), [row])
    torch.testing.assert_close(scores[:1], alone)
    assert scores[0] != scores[1]


def test_a_wrong_number_of_prompts_is_refused():
    source, inputs = prompt("bert", runs=3), batch("bert")
    with pytest.raises(ValueError, match="3 prompts were given for 2 rows"):
        said("bert", source, inputs, (0, 1, 2))


# ---- the source ------------------------------------------------------------------------------------
def test_numbers_of_the_papers_code():
    assert p_tuning_v2.num_parameters(20, 24, 1024) == 983_040
    assert p_tuning_v2.num_parameters(128, 24, 1024) == 6_291_456
    assert p_tuning_v2.num_parameters(20, 24, 1024, "mlp") == 25_760_256


@pytest.mark.parametrize("form", p_tuning_v2.FORMS)
def test_a_built_prompt_has_that_many_numbers(form):
    source = prompt("bert", runs=1, form=form, width=16, inner=7)
    count = sum(p.numel() for p in source.parameters())
    assert count == p_tuning_v2.num_parameters(3, 2, 16, form, inner=7)


def test_dropout_acts_in_training_only():
    source = prompt("bert", dropout=0.5)
    one = torch.tensor([0])
    assert 0.2 < float((source.train()(one).keys_values == 0).double().mean()) < 0.8
    assert (source.eval()(one).keys_values != 0).all()


def test_dropout_is_off_where_prompts_are_scored_and_the_same_after_a_resume():
    tiny = backbone("tiny-causal", "float32")
    sites = find_sites(tiny.model)
    task = suites.load_task("tiny-mood", suite="tiny")
    engine, config = (
        Engine(tiny, sites=sites),
        FitConfig(steps=4, rows_per_run=2, lr=0.05, evaluations=2),
    )
    losses = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        source = DeepPrompt(1, sites, 2, torch.Generator().manual_seed(0), std=0.5, dropout=0.5)
        losses.append(trainer.fit(engine, source, [Run(task)], config).losses)
        scores = [trainer.dev_scores(engine, source.train(), [Run(task)], 8) for _ in range(3)]
        assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])
        found = [evaluation.evaluate(engine, source.train(), [task], limit=8) for _ in range(2)]
        assert found[0] == found[1]
    assert torch.equal(*losses), "what is left out depends on the step alone"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"length": 0}, "give one length >= 1 for all runs or one per run"),
        ({"length": (2, 3, 1)}, "give one length >= 1 for all runs or one per run"),
        ({"form": "lstm"}, "form is one of"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
        ({"form": "mlp"}, "'mlp' needs a width"),
    ],
)
def test_wrong_wishes_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        prompt("bert", **options)


# ---- through the engine ----------------------------------------------------------------------------
def deep_source(backbone, layers=None, parts=PARTS):
    sites = choose(find_sites(backbone.model), layers, parts)
    source = DeepPrompt(2, sites, 3, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        source.P += torch.randn(source.P.shape, generator=torch.Generator().manual_seed(1)).double()
    return source, sites


@pytest.mark.parametrize("layers", [None, [-1]])
@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_the_engine_scores_as_the_model_beside_the_prompt(name, layers):
    tiny = backbone(name, "float64")
    source, sites = deep_source(tiny, layers)
    engine = Engine(tiny, sites=sites)
    rows = [engine.option_row(e) for e in MIXED_EXAMPLES if e.options]
    scores, tokens = engine.log_likelihoods(source(torch.tensor([0, 1])), rows)
    for b, row in enumerate(rows):
        for k, answer in enumerate(row.answers):
            memory = memory_at(sites, source(torch.tensor([b])))
            with left_memory(memory):
                logs = answer_logits(tiny, row.text, answer).log_softmax(-1)
            expected = sum(logs[i, token] for i, token in enumerate(answer))
            torch.testing.assert_close(scores[b, k], expected)
            assert tokens[b, k] == len(answer)
    scores[scores.isfinite()].sum().backward()
    assert (source.P.grad != 0).all()


def answer_logits(tiny, text, answer):
    """[T, V] logits that predict the answer's tokens, by one forward."""
    if tiny.kind == "causal":
        ids = torch.tensor([[*text, *answer]])
        return tiny.model(input_ids=ids, use_cache=False).logits[0, len(text) - 1 : -1]
    start = tiny.model.config.decoder_start_token_id
    decoder = torch.tensor([[start, *answer[:-1]]])
    return tiny.model(input_ids=torch.tensor([text]), decoder_input_ids=decoder, use_cache=False).logits[0]


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_greedy_answers_beside_a_prompt_are_the_models_own(name):
    tiny = backbone(name, "float64")
    source, sites = deep_source(tiny)
    engine = Engine(tiny, sites=sites)
    rows = [engine.target_row(e) for e in MIXED_EXAMPLES[:2]]
    found = engine.greedy(source(torch.tensor([0, 1])), rows, [5, 3])
    for b, row in enumerate(rows):
        said, limit = [], (5, 3)[b]
        while len(said) < limit and not (said and said[-1] == tiny.eos):
            with left_memory(memory_at(sites, source(torch.tensor([b])))), torch.no_grad():
                said.append(int(answer_logits(tiny, row.text, (*said, 0))[-1].argmax()))
        assert found[b] == tiny.tokenizer.decode(said, skip_special_tokens=True).strip()


def test_deep_prompts_train_together_as_alone():
    tiny = backbone("tiny-causal", "float32")
    sites = find_sites(tiny.model)
    runs = [Run(suites.load_task(name, suite="tiny")) for name in ("tiny-mood", "tiny-sum")]
    config = FitConfig(steps=3, rows_per_run=2, lr=0.05, evaluations=1, dev_examples=4)
    engine = Engine(tiny, sites=sites)
    both = DeepPrompt(2, sites, 2, torch.Generator().manual_seed(0))
    trainer.fit(engine, both, runs, config)
    for r, run in enumerate(runs):
        alone = DeepPrompt(1, sites, 2, torch.Generator().manual_seed(0))
        before = alone.P.detach().clone()
        trainer.fit(engine, alone, [run], config)
        assert not torch.equal(alone.P, before)
        torch.testing.assert_close(both.P[r], alone.P[0], rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # PEFT warns about transformers
@pytest.mark.parametrize("name", SEQ2SEQ)
def test_pefts_prefix_leaves_numbers_untrained_where_ours_does_not(name):
    """For comparison: PEFT 0.21.2 gives decoder layers i and i + N/2 one prefix and drops the rest.

    It happens where their number is even, so BART is built with two decoder layers in place of three.
    """
    import peft

    made = families.MAKERS[name]() if name == "t5" else families.bart(layers=2)
    config = peft.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3)
    theirs = peft.get_peft_model(made.eval(), config)
    inputs = batch(name)
    theirs(**inputs).logits.float().square().sum().backward()
    grad = theirs.prompt_encoder["default"].embedding.weight.grad
    assert float((grad != 0).double().mean()) == 0.5


@pytest.mark.parametrize("kind", [Engine, HeadEngine])
def test_sites_of_another_model_are_refused(kind):
    """Prompts for them would train without any effect."""
    mine, other = backbone("tiny-causal", "float64"), load("tiny-causal", dtype="float64")
    with pytest.raises(ValueError, match="attentions of another model than this tiny-causal.*find_sites"):
        kind(mine, sites=find_sites(other.model))
    assert kind(mine, sites=find_sites(mine.model)).sites


def test_a_prompt_for_other_layers_or_other_sizes_is_refused_before_anything_runs():
    tiny = backbone("tiny-causal", "float64")
    first, second = find_sites(tiny.model)
    engine = Engine(tiny, sites=[second])
    run = [Run(suites.load_task("tiny-mood", suite="tiny"))]
    source = DeepPrompt(1, [first], 2, torch.Generator())
    with pytest.raises(ValueError, match=r"\('decoder', 0\) to .*other sites; give it those of"):
        trainer.fit(engine, source, run, FitConfig(steps=1))
    wide = torch.zeros(1, 1, 2, 4, 2, 16)
    told = (
        r"does not fit tiny-causal \(number of key/value heads 4, 2 needed; width of its keys 16, 8 needed\)"
    )
    with pytest.raises(ValueError, match=told):
        trainer.fit(engine, SoftPrompt(wide, "keys_values"), run, FitConfig(steps=1))


def test_an_engine_without_the_sites_of_a_prompt_says_so():
    tiny = backbone("tiny-causal", "float64")
    source, _ = deep_source(tiny)
    engine = Engine(tiny)
    with pytest.raises(ValueError, match="for 2 attentions was given, but the engine has 0 sites"):
        engine.log_likelihoods(source(torch.tensor([0])), [engine.target_row(MIXED_EXAMPLES[0])])
