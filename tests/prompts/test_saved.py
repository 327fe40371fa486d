"""Every prompt source is saved and comes back; what does not fit is refused by name before anything runs."""

import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors import safe_open

from iptkit.engine import layouts
from iptkit.engine.compatibility import made_for
from iptkit.engine.engine import Engine
from iptkit.engine.head_engine import HeadEngine
from iptkit.engine.prompt import Prompt, PromptSource
from iptkit.engine.sites import choose, find_sites
from iptkit.methods import prompt_tuning, subspace
from iptkit.methods.adapters import HyperAdapters
from iptkit.methods.heads import SharedPrompt, WithHead
from iptkit.methods.p_tuning import EncodedPrompt
from iptkit.methods.p_tuning_v2 import DeepPrompt
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt
from iptkit.methods.subspace import AutoEncoder, IntrinsicPrompt, SubspaceConfig
from iptkit.models.backbone import load
from iptkit.prompts.saved import from_hub, load_prompt, open_prompt, push_to_hub, read_about
from iptkit.scores import evaluation
from iptkit.storage import paths, tensor_files
from iptkit.tasks import suites
from iptkit.training.runs import FitConfig, Run
from iptkit.training.trainer import fit

CONFIG = FitConfig(steps=2, rows_per_run=2, lr=0.1, evaluations=1)
CAUSAL, ENCODER, SEQ2SEQ = load("tiny-causal"), load("tiny-encoder"), load("tiny-seq2seq")
TASKS = [task for task in suites.load_suite("tiny", max_test=6) if task.labels][:2]
N = 3


def start(runs=2, model=CAUSAL):
    words = prompt_tuning.from_words(model, N)
    return words + torch.randn(runs, *words.shape, generator=torch.Generator().manual_seed(0))


def generator():
    return torch.Generator().manual_seed(1)


def autoencoder():
    return AutoEncoder(start(), SubspaceConfig(2, 4), generator())


SITES = find_sites(CAUSAL.model)
SOURCES = {
    "SoftPrompt": lambda: (Engine(CAUSAL), SoftPrompt(start())),
    "EncodedPrompt": lambda: (Engine(CAUSAL), EncodedPrompt(start(), "mlp", generator())),
    "pieces": lambda: (Engine(CAUSAL, (1, layouts.TEXT, 2)), SoftPrompt(start())),
    "DeepPrompt": lambda: (Engine(CAUSAL, sites=SITES), DeepPrompt(2, SITES, N, generator(), dropout=0.5)),
    "two lengths": lambda: (Engine(CAUSAL, sites=SITES), DeepPrompt(2, SITES, [1, N], generator())),
    "last layer": lambda: (Engine(CAUSAL, sites=SITES[-1:]), DeepPrompt(2, SITES[-1:], N, generator())),
    "IntrinsicPrompt": lambda: (Engine(CAUSAL), IntrinsicPrompt(autoencoder(), 2)),
    "AutoEncoder": lambda: (Engine(CAUSAL), autoencoder()),
    "HyperAdapters": lambda: (
        Engine(CAUSAL),
        HyperAdapters(2, 2 * CAUSAL.num_layers, CAUSAL.width, 2, generator()),
    ),
    "seq2seq": lambda: (Engine(SEQ2SEQ), SoftPrompt(start(model=SEQ2SEQ))),
    "WithHead": lambda: (
        HeadEngine(ENCODER),
        WithHead(2, ENCODER.width, 3, generator(), SoftPrompt(start(model=ENCODER))),
    ),
    "linear probe": lambda: (HeadEngine(ENCODER), WithHead(2, ENCODER.width, 3, generator())),
    "SharedPrompt": lambda: (
        HeadEngine(ENCODER, find_sites(ENCODER.model)),
        SharedPrompt(
            DeepPrompt(1, find_sites(ENCODER.model), N, generator()), 2, ENCODER.width, 3, generator()
        ),
    ),
}


@pytest.fixture(params=SOURCES)
def trained(request):
    engine, source = SOURCES[request.param]()
    fit(engine, source, [Run(task) for task in TASKS], CONFIG)
    return engine, source


def same(a, b):
    x, y = a.tensors(), b.tensors()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def test_every_source_comes_back_as_it_was_trained(trained, tmp_path):
    engine, source = trained
    scores = evaluation.evaluate(engine, source, TASKS)
    file = source.save(str(tmp_path / "new" / "mine.prompt.safetensors"), scores)
    loaded = load_prompt(str(file), engine)
    assert same(loaded.finished(), source.finished()) and loaded.method == source.method
    assert evaluation.evaluate(engine, loaded, TASKS) == scores
    opened, again = open_prompt(file)
    assert type(opened) is type(engine) and same(again.finished(), source.finished())
    assert evaluation.evaluate(opened, again, TASKS) == scores
    on_model = load_prompt(file, engine.backbone)
    assert same(on_model.finished(), source.finished())


def test_a_loaded_prompt_trains_on_and_is_saved_again_under_its_method(trained, tmp_path):
    engine, source = trained
    loaded = load_prompt(source.save(tmp_path / "a.safetensors"), engine)
    before = loaded.finished()
    fit(engine, loaded, [Run(task, seed=1) for task in TASKS], replace(CONFIG, steps=4))
    again = load_prompt(loaded.save(tmp_path / "b.safetensors"), engine)
    assert again.method == source.method and not same(again.finished(), before)


def test_the_header_says_what_the_prompt_is_for(tmp_path):
    engine, source = SOURCES["DeepPrompt"]()
    fit(engine, source, [Run(task) for task in TASKS], CONFIG)
    scores = evaluation.measure(engine, source, TASKS)
    file = source.save(tmp_path / "a.prompt.safetensors", scores, remark="for the test")
    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["about"])
    assert header == read_about(file)
    assert header["method"] == "DeepPrompt" and header["backbone"] == "tiny-causal"
    assert header["fingerprint"] == CAUSAL.fingerprint and header["width"] == CAUSAL.width
    assert header["layout"] == engine.layout and header["sites"] == [["decoder", 0], ["decoder", 1]]
    assert header["tasks"] == [task.id for task in TASKS] and header["remark"] == "for the test"
    assert header["training"]["steps"] == 2 and header["data"][0]["licence"] == TASKS[0].licence
    assert header["scores"][1]["score"] == scores[1].score and header["versions"].keys() >= {
        "iptkit",
        "torch",
    }


def test_a_source_of_ones_own_needs_no_code_for_files(tmp_path):
    class OneVector(PromptSource):
        def __init__(self):
            super().__init__()
            self.v = torch.nn.Parameter(torch.ones(2, 1, CAUSAL.width))

        def forward(self, runs):
            return Prompt(embeds=self.v.index_select(0, runs))

    engine, source = Engine(CAUSAL), OneVector()
    with pytest.raises(ValueError, match=r"this OneVector does not say which model it is for; train it with"):
        source.save(tmp_path / "a.safetensors")
    source.about = made_for(engine, 1)
    assert load_prompt(source.save(tmp_path / "a.safetensors"), engine).method == "OneVector"


def saved(folder, name="SoftPrompt"):
    engine, source = SOURCES[name]()
    fit(engine, source, [Run(task) for task in TASKS], CONFIG)
    return engine, source, source.save(folder / "a.prompt.safetensors")


OTHER = replace(load("tiny-causal"), name="tiny-other")
with torch.no_grad():
    OTHER.embedding[5] += 1


@pytest.mark.parametrize(
    ("name", "engine", "told"),
    [
        ("SoftPrompt", lambda: Engine(OTHER), "made for the model tiny-causal, this is tiny-other"),
        ("SoftPrompt", lambda: OTHER, "made for the model tiny-causal, this is tiny-other"),
        ("SoftPrompt", lambda: Engine(SEQ2SEQ), "made for the model tiny-causal, this is tiny-seq2seq"),
        (
            "SoftPrompt",
            lambda: Engine(CAUSAL, "prompt-text-answer"),
            "layout 'text-prompt-answer', this engine has",
        ),
        ("SoftPrompt", lambda: Engine(CAUSAL, (2, layouts.TEXT)), "it was made for the layout"),
        (
            "DeepPrompt",
            lambda: Engine(CAUSAL),
            "a deep prompt for 2 attentions.*the engine has 0 other sites",
        ),
        ("DeepPrompt", lambda: Engine(CAUSAL, sites=choose(SITES, [-1])), "the engine has 1 other sites"),
        ("last layer", lambda: Engine(CAUSAL, sites=choose(SITES, [0])), "the engine has 1 other sites"),
        (
            "SoftPrompt",
            lambda: "tiny-causal",
            "the name 'tiny-causal' was given in place of an engine or a model",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, name, engine, told):
    _, _, file = saved(tmp_path, name)
    with pytest.raises(ValueError, match=told):
        load_prompt(file, engine())


def changed(file, change):
    tensors, about = tensor_files.read(file)
    change(tensors, about)
    tensor_files.write(file, tensors, about)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "SoftPrompt",
            lambda t, a: t.update(embeds=t["embeds"][:, :, :-1]),
            "width of its vectors 31, 32 needed",
        ),
        (
            "SoftPrompt",
            lambda t, a: t.update(embeds=t["embeds"][:, :2]),
            "have the length 3, but they have 2 vectors",
        ),
        ("SoftPrompt", lambda t, a: t.update(embeds=t["embeds"][:, 0]), "has shape"),
        (
            "SoftPrompt",
            lambda t, a: t.update(embeds=t["embeds"] * torch.nan),
            "embeds has values that are not finite",
        ),
        ("SoftPrompt", lambda t, a: t.update(more=t["embeds"]), "it holds more"),
        ("SoftPrompt", lambda t, a: t.clear(), "it holds nothing"),
        ("SoftPrompt", lambda t, a: a.update(tasks=["one"]), r"names the tasks \['one'\] for 2 runs"),
        ("SoftPrompt", lambda t, a: a.pop("format"), "is no prompt file .it holds embeds"),
        ("SoftPrompt", lambda t, a: a.update(format="iptkit prompt 9"), "it says 'iptkit prompt 9'"),
        (
            "DeepPrompt",
            lambda t, a: t.update(keys_values=t["keys_values"][:, :1]),
            "values for 1 attentions, but.* 2",
        ),
        ("DeepPrompt", lambda t, a: t.update(keys_values=t["keys_values"][..., :-1]), "width of its keys"),
        ("DeepPrompt", lambda t, a: a.update(sites=[["decoder", 0], ["decoder", 7]]), "has 2 others"),
        ("WithHead", lambda t, a: t.update(head=t["head"][..., :-1]), "width of its head"),
        ("WithHead", lambda t, a: t.update(head=t["head"][:1]), "different numbers of runs"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path, name, change, told):
    engine, _, file = saved(tmp_path, name)
    changed(file, change)
    for read in (lambda: load_prompt(file, engine), lambda: open_prompt(file)):
        with pytest.raises(ValueError, match=told):
            read()


def test_other_files_and_folders_are_refused(tmp_path):
    engine, _, file = saved(tmp_path)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(tensor_files.DamagedError, match=r"a.prompt.safetensors is damaged"):
        load_prompt(file, engine)
    with pytest.raises(FileNotFoundError, match=r"there is no prompt file .*none.safetensors; source.save"):
        load_prompt(tmp_path / "none.safetensors", engine)
    with pytest.raises(FileNotFoundError, match=r"has no prompt.safetensors .found: a.prompt.safetensors"):
        load_prompt(tmp_path, engine)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"holds a PEFT adapter; read it with prompts.interchange"):
        load_prompt(tmp_path, engine)
    found = tmp_path / "a.subspace.safetensors"
    subspace.save(autoencoder(), found)
    with pytest.raises(ValueError, match=r"is no prompt file .it holds decoder.inner.bias"):
        load_prompt(found, engine)


def test_a_prompt_that_cannot_be_used_is_not_saved(tmp_path):
    engine, source = SOURCES["SoftPrompt"]()
    fit(engine, source, [Run(task) for task in TASKS], CONFIG)
    with pytest.raises(ValueError, match=r"1 scores were given for 2 run"):
        source.save(tmp_path / "a.safetensors", [0.5])
    with pytest.raises(ValueError, match=r"1 tasks were given for 2 run"):
        source.save(tmp_path / "a.safetensors", tasks=["one"])
    with torch.no_grad():
        source.P[1] = torch.nan
    with pytest.raises(ValueError, match=r"the prompt of run 1 is not finite"):
        source.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_engine_that_a_file_cannot_describe_is_made_by_hand(tmp_path):
    class MyEngine(Engine):
        pass

    engine, source = MyEngine(CAUSAL), FixedPrompt(start(1), about=made_for(MyEngine(CAUSAL), N))
    file = source.save(tmp_path / "a.safetensors")
    assert load_prompt(file, engine).finished().length == N
    with pytest.raises(ValueError, match=r"were made with a MyEngine.*load_prompt"):
        open_prompt(file)


def test_a_finished_p_tuning_prompt_keeps_its_model(tmp_path):
    engine, source = SOURCES["EncodedPrompt"]()
    fit(engine, source, [Run(task) for task in TASKS], CONFIG)
    made = source.without_encoder()
    assert same(load_prompt(made.save(tmp_path / "a.safetensors"), engine).finished(), source.finished())
    with pytest.raises(ValueError, match="does not fit"):
        evaluation.evaluate(Engine(CAUSAL, "prompt-text-answer"), made, TASKS)


def test_a_subspace_of_another_model_is_refused_when_it_is_read(tmp_path):
    engine, _ = SOURCES["SoftPrompt"]()
    found, _ = subspace.find(
        engine, start(), [Run(t) for t in TASKS], SubspaceConfig(2, 4), CONFIG, generator()
    )
    file = tmp_path / "a.subspace.safetensors"
    subspace.save(found, str(file))
    assert subspace.load(str(file), engine).about["tasks"] == [task.id for task in TASKS]
    with pytest.raises(
        ValueError, match=r"this AutoEncoder does not fit: it was made for the model tiny-causal"
    ):
        subspace.load(file, Engine(OTHER))
    with pytest.raises(ValueError, match=r"it was made for the layout"):
        subspace.load(file, Engine(CAUSAL, "prompt-text-answer"))
    with pytest.raises(ValueError, match="made for the model smollm2-135m with other weights"):
        subspace.load_stored("ipt120", Engine(replace(CAUSAL, name="smollm2-135m")))


def test_a_folder_has_a_card_and_goes_through_a_hub(tmp_path, monkeypatch):
    engine, source = SOURCES["SoftPrompt"]()
    fit(engine, source, [Run(task) for task in TASKS], CONFIG)
    scores = evaluation.measure(engine, source, TASKS)
    file = source.save(tmp_path / "mine", scores)
    assert file == tmp_path / "mine" / "prompt.safetensors"
    assert same(load_prompt(tmp_path / "mine", engine).finished(), source.finished())
    card = (tmp_path / "mine" / "README.md").read_text()
    data = huggingface_hub.ModelCard(card).data
    assert data.library_name == "iptkit" and data.base_model == "tiny-causal"
    one = scores[0]
    expected = f"| {one.task} | {one.metric} | {one.score:.3f} [{one.low:.3f}, {one.high:.3f}], 6 examples | "
    assert expected in card and TASKS[0].licence in card

    hub = tmp_path / "hub"

    def upload_folder(api, repo_id, folder_path, commit_message):
        for part in Path(folder_path).iterdir():
            (hub / repo_id).mkdir(parents=True, exist_ok=True)
            (hub / repo_id / part.name).write_bytes(part.read_bytes())
        return f"hub/{repo_id}"

    made = []
    monkeypatch.setattr(
        huggingface_hub.HfApi, "create_repo", lambda api, *given, **more: made.append((given, more))
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda repo, name, revision=None, token=None: hub / repo / name
    )
    (tmp_path / "mine" / "README.md").write_text(card + "\nMy own words.\n")
    assert push_to_hub(tmp_path / "mine", "me/mine", private=True) == "hub/me/mine"
    assert made == [(("me/mine",), {"private": True, "exist_ok": True})]
    assert "My own words." in (hub / "me/mine" / "README.md").read_text()
    assert same(from_hub("me/mine", engine).finished(), source.finished())
    with pytest.raises(ValueError, match="tiny-other"):
        from_hub("me/mine", Engine(OTHER))
    push_to_hub(source.save(tmp_path / "b.prompt.safetensors"), "me/bare")
    assert "not measured" in (hub / "me/bare" / "README.md").read_text()


def test_fit_says_what_prompts_are_for_and_refuses_another_layout():
    engine, source = SOURCES["SoftPrompt"]()
    assert source.about == {}
    fit(engine, source, [Run(task) for task in TASKS], CONFIG)
    assert source.about["fingerprint"] == CAUSAL.fingerprint
    with pytest.raises(ValueError, match=r"this SoftPrompt does not fit: it was made for the layout"):
        fit(Engine(CAUSAL, "prompt-text-answer"), source, [Run(task) for task in TASKS], CONFIG)


def test_nothing_that_is_shared_tells_folders_of_this_machine(tmp_path, monkeypatch):
    mine = tmp_path / "mine.jsonl"
    mine.write_text((paths.data_dir() / "tiny" / "tiny-plural.jsonl").read_text(encoding="utf-8"))
    engine, source, of = Engine(CAUSAL), SoftPrompt(start(1)), suites.load_suite(mine)
    fit(engine, source, [Run(of[0])], CONFIG)
    source.save(tmp_path / "made")
    card = (tmp_path / "made" / "README.md").read_text()
    assert "mine.jsonl" in card and str(tmp_path) not in card
    sent = []
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda api, *given, **more: None)
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "upload_folder",
        lambda api, repo_id, folder_path, commit_message: sent.extend(
            file.read_bytes() for file in Path(folder_path).iterdir()
        ),
    )
    push_to_hub(tmp_path / "made", "me/mine")
    assert len(sent) == 2 and all(str(tmp_path).encode() not in one for one in sent)


# ---- what a review found ----------------------------------------------------------------------------
def test_attentions_keep_the_order_of_the_file(tmp_path):
    sites = SITES[::-1]
    engine = Engine(CAUSAL, sites=sites)
    source = DeepPrompt(1, sites, N, generator(), std=2.0)
    source.about = made_for(engine, 0)
    opened, loaded = open_prompt(source.save(tmp_path / "a.safetensors"))
    assert [site.layer for site in opened.sites] == [1, 0]
    texts = ["I had a sad trip", "one and two"]
    assert opened.generate(loaded, texts) == engine.generate(source, texts)


@pytest.mark.parametrize(
    ("name", "engine", "told"),
    [
        ("WithHead", lambda: Engine(CAUSAL), "made for the model"),
        ("SoftPrompt", lambda: HeadEngine(CAUSAL), "made for a Engine, this is a HeadEngine"),
    ],
)
def test_a_prompt_of_another_kind_of_engine_is_refused(tmp_path, name, engine, told):
    _, _, file = saved(tmp_path, name)
    with pytest.raises(ValueError, match=told):
        load_prompt(file, engine())


def test_a_head_is_not_left_out_silently():
    source = WithHead(1, CAUSAL.width, 2, generator(), SoftPrompt(start(1)))
    with pytest.raises(ValueError, match=r"the prompt has a head, which an Engine does not read"):
        evaluation.evaluate(Engine(CAUSAL), source, TASKS[:1])


def test_a_checkpoint_with_another_subspace_is_refused(tmp_path):
    file, config = tmp_path / "a.checkpoint", replace(CONFIG, steps=4)

    def tuned(seed, checkpoint):
        decoder = AutoEncoder(start(), SubspaceConfig(2, 4), torch.Generator().manual_seed(seed))
        source = IntrinsicPrompt(decoder, 2)
        fit(Engine(CAUSAL), source, [Run(task) for task in TASKS], config, checkpoint, checkpoint_seconds=0.0)
        return source

    first = tuned(1, file)
    assert torch.equal(tuned(1, file).u, first.u)
    with pytest.raises(ValueError, match=r"what stays frozen is another .center, decoder"):
        tuned(2, file)


def test_scores_belong_to_their_runs(tmp_path):
    engine, source, _ = saved(tmp_path)
    scores = evaluation.measure(engine, source, TASKS)
    with pytest.raises(ValueError, match=rf"score of {TASKS[1].id} was given for the run of {TASKS[0].id}"):
        source.save(tmp_path / "b.safetensors", scores[::-1])


def test_a_readme_of_ones_own_stays(tmp_path):
    _, source, _ = saved(tmp_path)
    (tmp_path / "mine").mkdir()
    readme = tmp_path / "mine" / "README.md"
    readme.write_text("My notes.\n")
    with pytest.warns(UserWarning, match=r"README.md was there before and stays"):
        source.save(tmp_path / "mine")
    assert readme.read_text() == "My notes.\n"
    with pytest.warns(UserWarning, match="stays"):
        source.save(tmp_path / "mine", [0.5, 0.25])
    readme.unlink()
    source.save(tmp_path / "mine", [0.5, 0.25])
    source.save(tmp_path / "mine", [0.125, 0.25])  # a card that nobody changed is written anew
    assert "0.125" in readme.read_text()


def test_other_files_are_not_replaced(tmp_path):
    _, source, _ = saved(tmp_path)
    weights = tmp_path / "model.safetensors"
    tensor_files.write(weights, {"w": torch.ones(3)})
    before = weights.read_bytes()
    with pytest.raises(ValueError, match=r"model.safetensors exists and is no prompt file, so it stays"):
        source.save(weights)
    assert weights.read_bytes() == before
    (tmp_path / "afile").write_text("mine")
    for name in ("afile", "afile/b.safetensors"):
        with pytest.raises(ValueError, match=r"afile is a file, and a folder is needed there"):
            source.save(tmp_path / name)


def test_a_card_needs_no_training(tmp_path):
    source = FixedPrompt(start(1), about=made_for(Engine(CAUSAL), N))
    source.save(tmp_path / "mine", [0.5])
    assert "| not known | not known | 0.500 |" in (tmp_path / "mine" / "README.md").read_text()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scores": 0.5}, "0.5 as scores were given for 2 run"),
        ({"note": object()}, "the header takes texts, numbers, lists and mappings only"),
        ({"sites": []}, "sites: `save` fills these fields itself"),
        ({"tasks": "xy"}, "'xy' as tasks were given for 2 run"),
    ],
)
def test_a_header_takes_what_can_be_read_again(tmp_path, given, told):
    _, source, file = saved(tmp_path)
    with pytest.raises(ValueError, match=told):
        source.save(tmp_path / "b.safetensors", **given)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, None) for name in ("method", "backbone", "fingerprint")),
        *(
            (name, 5)
            for name in ("backbone", "layout", "sites", "tasks", "data", "scores", "training", "versions")
        ),
        ("backbone", ""),
        ("sites", ["decoder"]),
        ("sites", [["decoder", "0"]]),
        ("layout", [1.5]),
        ("tasks", [1, 2]),
        ("data", ["a", "b"]),
        ("data", [{"labels": 5}, {}]),
        ("data", [{"labels": [1]}, {}]),
        ("scores", ["a", "b"]),
        ("scores", [{"score": "a"}, {}]),
        ("width", "32"),
    ],
)
def test_a_header_with_other_types_is_refused(tmp_path, field, value):
    engine, _, file = saved(tmp_path)
    changed(file, lambda tensors, about: about.update({field: value}))
    with pytest.raises(
        ValueError,
        match=rf"safetensors: its header cannot be used: (its|it names|the labels in its) .*{field[:4]}",
    ):
        load_prompt(file, engine)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (
            "SoftPrompt",
            lambda t: t.update(embeds=t["embeds"].long()),
            "embeds has the number type torch.int64",
        ),
        ("SoftPrompt", lambda t: t.update(lengths=torch.tensor([1, 1])), "its lengths are not those"),
        ("two lengths", lambda t: t.update(lengths=torch.tensor([1, 99])), "its lengths are not those"),
        ("two lengths", lambda t: t.update(lengths=torch.tensor([1.0, 2.0])), "lengths has the number type"),
        ("two lengths", lambda t: t.pop("keys_values"), "it holds nothing"),
        ("WithHead", lambda t: t.update(head=t["head"][:, :1]), "it names 2 labels, and its head has 1"),
    ],
)
def test_tensors_that_cannot_be_prompts_are_refused(tmp_path, name, change, told):
    engine, _, file = saved(tmp_path, name)
    changed(file, lambda tensors, about: change(tensors))
    with pytest.raises(ValueError, match=told):
        load_prompt(file, engine)


def test_a_layout_that_cannot_be_used_names_its_file(tmp_path):
    _, _, file = saved(tmp_path)
    changed(file, lambda tensors, about: about.update(layout=[]))
    with pytest.raises(ValueError, match=r"the prompt of .*a.prompt.safetensors: layout"):
        open_prompt(file)
