"""Prompts in PEFT's files. Every cell of the table is "equal" or "refused because", compared with PEFT."""

import copy
import json

import families
import peft
import peft_models
import pytest
import stock
import torch
from peft_models import LAYERS, WIDTH, backbone, copied, loaded, new, their_answers, their_losses
from safetensors.torch import load_file, save_file

from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.left_memory import left_memory
from iptkit.engine.prompt import Prompt
from iptkit.engine.sites import choose, find_sites, memory_at
from iptkit.methods.heads import WithHead
from iptkit.methods.p_tuning import EncodedPrompt
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt, from_words
from iptkit.models.backbone import load
from iptkit.prompts import interchange, saved
from iptkit.prompts.interchange import from_peft, to_peft, why_not
from iptkit.tasks import suites
from iptkit.training import trainer
from iptkit.training.runs import FitConfig, Run

PEFT_TYPES = tuple(interchange.METHODS)
COLUMNS = {
    "Llama": ("llama",),
    "Qwen": ("qwen2", "qwen3"),
    "GPT-2": ("gpt2",),
    "T5": ("t5",),
    "BART": ("bart", "scaled-bart"),
    "BERT": ("bert",),
}
FAMILIES = [name for names in COLUMNS.values() for name in names]
PARTS = r"reaches the decoder's self-attention only, where layer i of N gets that of layer 2i mod N"
REFUSED = {
    ("PROMPT_TUNING", "bert"): r"before an encoder's first token, \[CLS\], which then has position n",
    ("P_TUNING", "bert"): r"before an encoder's first token, \[CLS\], which then has position n",
    (
        "PREFIX_TUNING",
        "bert",
    ): "moves the text of BERT and RoBERTa to position n, where other learned vectors",
    ("PREFIX_TUNING", "gpt2"): r"begins at position n, here at 0; its positions are not rotary",
    ("PREFIX_TUNING", "t5"): PARTS,
    ("PREFIX_TUNING", "bart"): PARTS,
    ("PREFIX_TUNING", "scaled-bart"): PARTS,
}
LENGTH = 3


def numbers(folder):
    return load_file(folder / "adapter_model.safetensors")["prompt_embeddings"]


def engine_of(base, sites=()):
    return (
        HeadEngine(base, sites) if base.kind == "encoder" else Engine(base, "prompt-text-answer", sites=sites)
    )


def sites_of(base, peft_type):
    return find_sites(base.model) if peft_type == "PREFIX_TUNING" else ()


def source_of(base, peft_type, runs=1, length=LENGTH):
    generator = torch.Generator().manual_seed(0)
    if peft_type == "PREFIX_TUNING":
        made = DeepPrompt(runs, find_sites(base.model), length, generator, std=1.0)
        with torch.no_grad():
            made.P += torch.randn(made.P.shape, generator=generator)  # runs differ
        return made
    start = torch.randn(runs, LENGTH, WIDTH, generator=generator)
    return EncodedPrompt(start, "lstm", generator) if peft_type == "P_TUNING" else SoftPrompt(start)


def assert_same(engine, source, theirs, run=0, longest=8, losses=20):
    """The same losses of some texts and greedy answers to 20, and other losses than without a prompt."""
    rows = [engine.target_row(example) for example in peft_models.texts()]
    prompt, first = source(torch.full((len(rows),), run)), rows[:losses]
    empty = Prompt(engine.backbone.embedding[:0].expand(losses, 0, -1))
    with torch.no_grad():
        (sums, tokens), (bare, _) = (
            engine.log_likelihoods(p, first) for p in (prompt.rows(torch.arange(losses)), empty)
        )
    ours, without = (-(sums / tokens)[:, 0].double(), -(bare / tokens)[:, 0].double())
    assert (ours - without).abs().median() > 0.05
    torch.testing.assert_close(ours, their_losses(theirs, first), rtol=0, atol=1e-5)
    answers = engine.greedy(prompt, rows, [longest] * len(rows))
    assert answers == their_answers(theirs, rows, engine.backbone.tokenizer, longest)
    assert len(rows) == 20 and len(set(answers)) > 1


# ---- the table -------------------------------------------------------------------------------------
@pytest.mark.parametrize("direction", ["to", "from"])
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("peft_type", PEFT_TYPES)
def test_a_prompt_is_equal_in_peft_or_refused_with_the_reason(peft_type, name, direction, tmp_path):
    base, why = backbone(name), REFUSED.get((peft_type, name))
    engine = engine_of(base, sites_of(base, peft_type))
    model = copied(base)
    if direction == "to":
        source = source_of(base, peft_type)
        if why:
            with pytest.raises(ValueError, match=f"PEFT cannot express this prompt: {peft_type}.*{why}"):
                to_peft(source, tmp_path, engine)
            assert not list(tmp_path.iterdir())
            return
        assert to_peft(source, tmp_path, engine) == tmp_path
        theirs = loaded(model, tmp_path)
    else:
        theirs = new(model, base.kind, peft_type, LENGTH, tmp_path)
        if why:
            with pytest.raises(ValueError, match=f"{peft_type}.*would act otherwise on {name} here: .*{why}"):
                from_peft(tmp_path, engine)
            return
        source = from_peft(tmp_path, engine)
    assert theirs.active_peft_config.peft_type == peft_type
    assert_same(engine, source, theirs)


def test_the_docstring_has_this_table():
    rows = [line.split() for line in interchange.__doc__.splitlines()]
    assert ["peft_type", "prompt", *COLUMNS] in rows
    for peft_type in PEFT_TYPES:
        cells = [{(peft_type, name) in REFUSED for name in names} for names in COLUMNS.values()]
        said = [row[2:] for row in rows if row[:1] == [peft_type] and len(row) == 8]
        assert said == [["refused" if cell == {True} else "equal" for cell in cells]]
        for names in COLUMNS.values():
            assert all(bool(why_not(peft_type, backbone(n))) == ((peft_type, n) in REFUSED) for n in names)


@pytest.mark.model
@pytest.mark.parametrize("peft_type", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_the_real_model_says_the_same_both_ways(peft_type, tmp_path):
    """On the very model that the engine uses, as a reader would do it."""
    base = stock.backbone("smollm2-135m", "float64")
    engine = Engine(base, "prompt-text-answer", sites=sites_of(base, peft_type))
    theirs = new(base.model, "causal", peft_type, LENGTH, tmp_path / "theirs")
    source = from_peft(tmp_path / "theirs", engine)
    assert_same(engine, source, theirs, longest=4, losses=8)
    to_peft(source, tmp_path / "ours", engine)
    torch.testing.assert_close(numbers(tmp_path / "ours"), numbers(tmp_path / "theirs").double())


# ---- what PEFT does where a prompt is refused ------------------------------------------------------
IDS = torch.arange(4, 12)[None]
ALL = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def written(folder, flat, peft_type, task_type, **config):
    """A folder as PEFT would write it."""
    told = {
        "peft_type": peft_type,
        "task_type": task_type,
        "num_virtual_tokens": LENGTH,
        "num_layers": LAYERS,
    }
    sizes = {"num_attention_heads": 4, "token_dim": WIDTH, "num_transformer_submodules": 1}
    (folder / "adapter_config.json").write_text(json.dumps({**told, **sizes, **config}))
    save_file({"prompt_embeddings": flat.contiguous()}, folder / "adapter_model.safetensors")
    return folder


def as_flat(keys_values):
    """[n, S * 2 * h * k] as in PEFT's file, of [S, 2, h, n, k]."""
    return keys_values.permute(3, 0, 1, 2, 4).flatten(1)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_learned_positions_pefts_prefix_moves_the_text_by_n(name, tmp_path):
    base = backbone(name)
    sites = find_sites(base.model)
    prompt = source_of(base, "PREFIX_TUNING")(torch.tensor([0]))
    task = peft_models.TASK_TYPES[base.kind]
    theirs = loaded(copied(base), written(tmp_path, as_flat(prompt.keys_values[0]), "PREFIX_TUNING", task))
    with peft_models.quiet():
        found = theirs(**ALL)[0]
    for first in (0, LENGTH):
        with left_memory(memory_at(sites, prompt)):
            here = base.model(**ALL, position_ids=torch.arange(first, first + 8)[None], use_cache=False)[0]
        assert torch.allclose(here, found, atol=1e-6) == (first == LENGTH)


def test_bert_peft_puts_the_prompt_before_cls(tmp_path):
    base, vectors = backbone("bert"), torch.randn(LENGTH, WIDTH)
    theirs = loaded(copied(base), written(tmp_path, vectors, "PROMPT_TUNING", "FEATURE_EXTRACTION"))
    with peft_models.quiet():
        found = theirs(**ALL)[0]
    words = base.model.get_input_embeddings()(IDS)
    for lead in (0, 1):
        whole = torch.cat([words[:, :lead], vectors.double()[None], words[:, lead:]], 1)
        here = base.model(inputs_embeds=whole)[0]
        assert torch.allclose(here, found, atol=1e-9) == (lead == 0)


def test_other_encoders_ignore_pefts_prefix_or_stop():
    said = {}
    for name in ("distilbert", "modernbert"):
        model = copy.deepcopy(families.model(name))
        config = peft.PrefixTuningConfig(
            task_type="FEATURE_EXTRACTION", num_virtual_tokens=LENGTH, token_dim=16, num_attention_heads=2
        )
        with peft_models.quiet():
            theirs = peft.get_peft_model(model, config).eval()
            plain = families.model(name)(**ALL)[0]
            try:
                said[name] = torch.equal(theirs(**ALL)[0], plain)
            except RuntimeError as error:
                said[name] = "size of tensor" in str(error)
    assert said == {"distilbert": True, "modernbert": True}


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_encoder_decoders_pefts_prefix_reaches_the_decoder_alone_and_layer_i_gets_2i(name, tmp_path):
    base = backbone(name)
    numbers = torch.randn(LAYERS, 2, 4, LENGTH, 8)
    options = {"num_transformer_submodules": 2}
    theirs = loaded(
        copied(base), written(tmp_path, as_flat(numbers), "PREFIX_TUNING", "SEQ_2_SEQ_LM", **options)
    )
    with peft_models.quiet():
        cache = theirs.get_prompt(1)
        out = theirs(**ALL, decoder_input_ids=IDS[:, :3])
    for i, layer in enumerate(cache.self_attention_cache.layers):
        assert torch.equal(layer.keys[0], numbers[2 * i % LAYERS, 0].double())
    assert torch.allclose(out.encoder_last_hidden_state, base.model.get_encoder()(**ALL)[0], atol=1e-9)
    cross = theirs.get_prompt(1).cross_attention_cache
    assert cross.get_seq_length() == 0


# ---- round trips -----------------------------------------------------------------------------------
EXCHANGED = [(t, name) for t in PEFT_TYPES for name in FAMILIES if (t, name) not in REFUSED]


@pytest.mark.parametrize(("peft_type", "name"), EXCHANGED)
def test_a_prompt_comes_back_with_the_same_numbers(peft_type, name, tmp_path):
    base = backbone(name)
    engine = engine_of(base, sites_of(base, peft_type))
    source = source_of(base, peft_type, runs=2)
    to_peft(source, tmp_path, engine, run=1)
    back = from_peft(str(tmp_path), engine)
    kind = "keys_values" if peft_type == "PREFIX_TUNING" else "embeds"
    expected = getattr(source(torch.tensor([1])), kind)
    torch.testing.assert_close(getattr(back.finished(), kind).float(), expected, rtol=1e-6, atol=1e-6)
    to_peft(back, tmp_path / "again", engine)
    assert config(tmp_path) == config(tmp_path / "again"), "of the same type"
    torch.testing.assert_close(numbers(tmp_path / "again").float(), numbers(tmp_path), rtol=1e-6, atol=1e-6)


def config(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def test_a_run_takes_its_own_length_and_no_dropout(tmp_path):
    base = backbone("llama")
    sites = find_sites(base.model)
    both = DeepPrompt(2, sites, (2, 4), torch.Generator().manual_seed(0), std=1.0, dropout=0.5).train()
    engine = engine_of(base, sites)
    for run, length in enumerate((2, 4)):
        to_peft(both.train(), tmp_path / str(run), engine, run)
        assert config(tmp_path / str(run))["num_virtual_tokens"] == length
        back = from_peft(tmp_path / str(run), base)
        torch.testing.assert_close(
            back.finished().keys_values[0].float(),
            both.eval()(torch.tensor([run])).keys_values[0, ..., :length, :],
        )
    assert_same(engine, both.eval(), loaded(copied(base), tmp_path / "0"), run=0)


def test_pefts_projected_prefix_is_read_as_it_was_saved(tmp_path):
    base = backbone("llama")
    options = {"prefix_projection": True, "encoder_hidden_size": 16}
    theirs = new(copied(base), "causal", "PREFIX_TUNING", LENGTH, tmp_path, **options)
    source = from_peft(tmp_path, base)
    assert_same(Engine(base, sites=source.sites), source, theirs)


def test_what_is_read_names_its_model_and_layout(tmp_path):
    base = backbone("llama")
    new(copied(base), "causal", "PROMPT_TUNING", LENGTH, tmp_path)
    source = from_peft(tmp_path, base)
    assert [(name, p.shape) for name, p in source.named_parameters()] == [("embeds", (1, LENGTH, WIDTH))]
    about = {"backbone": "llama", "layout": "prompt-text-answer", "prompt_length": 3, "method": "SoftPrompt"}
    assert about.items() <= source.about.items() and source.about["fingerprint"] == base.fingerprint
    with pytest.raises(ValueError, match="made for the layout 'prompt-text-answer', this engine has 'text-p"):
        from_peft(tmp_path, Engine(base))
    assert from_peft(tmp_path, Engine(base, (LENGTH, "{text}"))).about["layout"] == [LENGTH, "{text}"]
    theirs = new(copied(base), "causal", "PREFIX_TUNING", LENGTH, tmp_path)
    deep = from_peft(tmp_path, base)
    assert deep.about["sites"] == [["decoder", i] for i in range(LAYERS)] and deep.about["prompt_length"] == 0
    assert_same(Engine(base, sites=deep.sites), deep, theirs)  # the layout makes no difference
    with pytest.raises(
        ValueError, match="holds a prefix, but the engine has no sites for it; give from_peft"
    ):
        from_peft(tmp_path, Engine(base))


@pytest.mark.parametrize("peft_type", PEFT_TYPES)
def test_a_prompt_from_peft_is_saved_opened_and_goes_back_as_the_same_type(peft_type, tmp_path):
    base = stock.backbone("tiny-causal", "float64")
    new(copied(base), "causal", peft_type, LENGTH, tmp_path / "theirs")
    file = from_peft(tmp_path / "theirs", base).save(tmp_path / "it.prompt.safetensors")
    engine, source = saved.open_prompt(file, model=base)
    assert source.about["peft"] == {"type": peft_type, "base_model": None}
    to_peft(source, tmp_path / "ours", engine)
    assert config(tmp_path / "ours")["peft_type"] == peft_type
    assert config(tmp_path / "ours")["base_model_name_or_path"] == "tiny-causal"
    theirs = numbers(tmp_path / "theirs").double()
    torch.testing.assert_close(numbers(tmp_path / "ours").double(), theirs, rtol=1e-6, atol=1e-6)


def test_a_prompt_that_fit_trained_goes_to_peft(tmp_path):
    base = stock.backbone("tiny-causal", "float64")
    task = suites.load_task("tiny-mood", suite="tiny")
    engine, source = Engine(base, "prompt-text-answer"), SoftPrompt(from_words(base, 3)[None])
    trainer.fit(engine, source, [Run(task)], FitConfig(steps=2, rows_per_run=2, lr=0.1, evaluations=1))
    to_peft(source, tmp_path, engine)
    torch.testing.assert_close(numbers(tmp_path), source.P[0].detach())
    with pytest.raises(
        ValueError, match="made for the layout 'prompt-text-answer', this engine has 'text-prom"
    ):
        to_peft(source, tmp_path, Engine(base))


# ---- prompts that PEFT cannot express --------------------------------------------------------------
def test_a_prompt_behind_the_text_is_refused_and_the_way_out_works(tmp_path):
    base = backbone("llama")
    source = source_of(base, "PROMPT_TUNING")
    for layout in ("text-prompt-answer", (1, "{text}", 2), (3, "{text}", " is")):
        with pytest.raises(
            ValueError, match=r"puts the prompt before the text, but .* Engine\(backbone, 'prompt-"
        ):
            to_peft(source, tmp_path, Engine(base, layout))
    to_peft(source, tmp_path / "a", Engine(base, (LENGTH, "{text}")))
    to_peft(source, tmp_path / "b", Engine(base, "prompt-text-answer"))
    assert torch.equal(numbers(tmp_path / "a"), numbers(tmp_path / "b"))


def test_other_prompts_are_refused_by_name(tmp_path):
    base = backbone("llama")
    sites, generator = find_sites(base.model), torch.Generator().manual_seed(0)
    engine, head = Engine(base, "prompt-text-answer", sites=sites), HeadEngine(base)
    soft = source_of(base, "PROMPT_TUNING", runs=2)
    upper = choose(sites, [-1])
    some = DeepPrompt(1, upper, LENGTH, generator)
    cases = [
        (SoftPrompt(torch.zeros(1, 8, 2, WIDTH, 2), "adapters"), engine, "here are adapters"),
        (FixedPrompt(torch.zeros(1, 0, WIDTH)), engine, "vectors or keys and values, here are embeds"),
        (WithHead(2, WIDTH, 2, generator, soft), head, "no trained heads for a frozen language model"),
        (soft, head, "train the prompt with an Engine"),
        (some, Engine(base, sites=upper), "for all 4 layers, but this prompt is for 1 of them"),
        (SoftPrompt(torch.full((1, 2, WIDTH), torch.nan)), engine, "run 0 is not finite"),
        (SoftPrompt(torch.zeros(1, 2, 8)), engine, "does not fit llama .width of its vectors 8, 32 needed"),
        (soft, base, r"the model llama was given in place of an engine; give Engine\(model\)"),
        (soft, 3, r"a int was given in place of an engine; give Engine\(models.load\(NAME\)\)"),
    ]
    for source, where, told in cases:
        with pytest.raises(ValueError, match=told):
            to_peft(source, tmp_path, where)
    for run in (2, -1, "0", None):
        with pytest.raises(ValueError, match=f"run {run!r} does not exist: this SoftPrompt has"):
            to_peft(soft, tmp_path, engine, run)
    assert not list(tmp_path.iterdir())
    for wrong, told in (("llama", "the name 'llama'"), (None, "a NoneType"), (base.model, "a LlamaForCaus")):
        with pytest.raises(
            ValueError, match=f"{told}.* was given in place of an engine or a model; give Eng"
        ):
            from_peft(tmp_path, wrong)


def test_another_adapter_is_never_replaced(tmp_path):
    engine = engine_of(backbone("llama"))
    soft, lora = source_of(engine.backbone, "PROMPT_TUNING"), tmp_path / "lora"
    config = peft.LoraConfig(r=1, task_type="CAUSAL_LM", target_modules=["q_proj"])
    with peft_models.quiet():
        peft.get_peft_model(copied(engine.backbone), config).save_pretrained(lora)
    new(copied(engine.backbone), "causal", "PROMPT_TUNING", LENGTH, tmp_path / "prompt")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".git").touch()
    for folder in (lora, tmp_path / "prompt", tmp_path / "hidden"):
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        with pytest.raises(
            ValueError, match=rf"the folder {folder} is not empty .*name a new one, or replace"
        ):
            to_peft(soft, folder, engine)
        with pytest.raises(
            ValueError, match=rf"the folder {folder} (is not empty|holds an adapter of type 'LORA')"
        ):
            to_peft(soft, folder, engine, overwrite=True)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    (tmp_path / "file").touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("file", "gone"):
        with pytest.raises(ValueError, match=f"{name} is no folder; name a new one, which gets adapter_conf"):
            to_peft(soft, tmp_path / name, engine)
    (tmp_path / "empty").mkdir()
    assert to_peft(soft, tmp_path / "empty", engine) == tmp_path / "empty"
    other = source_of(engine.backbone, "PROMPT_TUNING")
    other.P.data += 1
    to_peft(other, tmp_path / "empty", engine, overwrite=True)
    assert torch.allclose(from_peft(tmp_path / "empty", engine).finished().embeds.double(), other.P.double())


# ---- files -----------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path):
    return written(tmp_path, torch.zeros(LENGTH, WIDTH), "PROMPT_TUNING", "CAUSAL_LM")


def rewritten(folder, **changes):
    (folder / "adapter_config.json").write_text(json.dumps({**config(folder), **changes}))


def with_tensors(folder, **tensors):
    save_file(tensors, folder / "adapter_model.safetensors")


CHANGES = {
    "LoRA": (
        lambda f: rewritten(f, peft_type="LORA"),
        "peft_type 'LORA', which is no prompt.*Merge LoRA into",
    ),
    "another type": (
        lambda f: rewritten(f, peft_type="IA3"),
        "peft_type 'IA3', which is no prompt; PROMPT_TUN",
    ),
    "a list of types": (lambda f: rewritten(f, peft_type=["LORA"]), "peft_type .'LORA'., which is no prompt"),
    "no type": (lambda f: (f / "adapter_config.json").write_text("{}"), "peft_type None, which is no prompt"),
    "another task": (
        lambda f: rewritten(f, task_type="SEQ_CLS"),
        "'SEQ_CLS', but llama is read as 'CAUSAL_LM'",
    ),
    "no task": (lambda f: rewritten(f, task_type=None), "task_type None, but llama is read as 'CAUSAL_LM'"),
    "no length": (lambda f: rewritten(f, num_virtual_tokens="3"), "num_virtual_tokens='3'; a whole number"),
    "no JSON": (
        lambda f: (f / "adapter_config.json").write_text("{"),
        r"adapter_config.json:1: not valid JSON",
    ),
    "no object": (lambda f: (f / "adapter_config.json").write_text("[]"), "the file holds a JSON list"),
    "no config": (
        lambda f: (f / "adapter_config.json").unlink(),
        "no file .*give the folder that PEFT's save",
    ),
    "no numbers": (lambda f: (f / "adapter_model.safetensors").unlink(), "there is no file .*adapter_model"),
    "a pickle": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
        "holds adapter_model.bin, a pickle, which can run code.*load it with PEFT once and save it again",
    ),
    "cut short": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(
            (f / "adapter_model.safetensors").read_bytes()[:-9]
        ),
        "is cut short or no safetensors",
    ),
    "no prompt": (
        lambda f: with_tensors(f, other=torch.zeros(2)),
        "also holds other, which is no part of a prompt",
    ),
    "nothing": (lambda f: with_tensors(f), "has no tensor 'prompt_embeddings'; save the adapter again"),
    "a head": (
        lambda f: with_tensors(f, prompt_embeddings=torch.zeros(3, 32), **{"score.weight": torch.zeros(2)}),
        "also holds score.weight, which is no part of a prompt",
    ),
    "another width": (
        lambda f: with_tensors(f, prompt_embeddings=torch.zeros(3, 16)),
        r"does not fit llama: prompt_embeddings has the shape \[3, 16\], \[3, 32\] is needed for 3 virtual",
    ),
    "another length": (
        lambda f: with_tensors(f, prompt_embeddings=torch.zeros(6, 32)),
        r"has the shape \[6, 32\], \[3, 32\] is needed",
    ),
    "whole numbers": (
        lambda f: with_tensors(f, prompt_embeddings=torch.zeros(3, 32, dtype=torch.int64)),
        "holds torch.int64 in place of decimal numbers",
    ),
    "not finite": (
        lambda f: with_tensors(f, prompt_embeddings=torch.full((3, 32), torch.inf)),
        "holds numbers that are not finite",
    ),
    "another model's prefix": (
        lambda f: rewritten(f, peft_type="PREFIX_TUNING", num_layers=6),
        "is for another model than llama: it has 6 layers with 4 key/value heads, 4 layers with 2 key/value",
    ),
    "another model's heads": (
        lambda f: rewritten(f, peft_type="PREFIX_TUNING", num_attention_heads=2),
        r"has the shape \[3, 32\], \[3, 128\] is needed for 3 virtual tokens and 4 layers with 2 key/value",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_bad_folder_gets_one_clear_line(what, folder):
    change, told = CHANGES[what]
    change(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=told) as caught:
        from_peft(folder, backbone("llama"))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("peft_type", PEFT_TYPES)
def test_as_a_model_a_folder_is_refused_with_the_way_to_read_it(peft_type, folder):
    rewritten(folder, peft_type=peft_type, base_model_name_or_path="someone/something")
    told = rf"holds a PEFT prompt \({peft_type}\) for someone/something, .*interchange.from_peft\(folder, eng"
    with pytest.raises(ValueError, match=told):
        load(folder)
