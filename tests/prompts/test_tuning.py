"""`tune` is one of four methods with the settings of the studies, and checks what it gets first."""

from dataclasses import replace

import pytest
import torch

from iptkit.engine.engine import Engine
from iptkit.methods.prompt_tuning import FixedPrompt, SoftPrompt, from_words
from iptkit.methods.subspace import AutoEncoder, SubspaceConfig
from iptkit.models.backbone import load
from iptkit.prompts import tuning
from iptkit.prompts.tuning import TuneConfig, tune
from iptkit.scores.evaluation import measure
from iptkit.storage import paths, reading
from iptkit.tasks import suites
from iptkit.training.runs import FitConfig, Run
from iptkit.training.trainer import fit

CAUSAL, ENCODER, SEQ2SEQ = load("tiny-causal"), load("tiny-encoder"), load("tiny-seq2seq")
TASKS = suites.load_suite("tiny", only=["tiny-mood", "tiny-kind"], max_test=6)
FREE = suites.load_suite("tiny", only=["tiny-plural"], max_test=6)


def test_tune_does_what_fit_and_measure_do():
    tuned = tune(CAUSAL, TASKS, TuneConfig(steps=3, rows=2, lr=0.05, prompt_length=3, seed=1))
    engine = Engine(CAUSAL)
    words = from_words(CAUSAL, 3).expand(2, -1, -1)
    source = SoftPrompt(words)
    before = measure(engine, FixedPrompt(words), TASKS)
    fit(engine, source, [Run(task, 1) for task in TASKS], FitConfig(steps=3, rows_per_run=2, lr=0.05))
    assert torch.equal(tuned.source.finished().embeds, source.finished().embeds)
    assert tuned.scores == measure(engine, source, TASKS) and tuned.before == before
    assert tuned.source.about["tuned"] == "prompt-tuning" and tuned.source.about["method"] == "SoftPrompt"


def test_a_checkpoint_of_another_training_is_refused_before_anything_is_scored(tmp_path, monkeypatch):
    saved = tmp_path / "checkpoint.safetensors"
    config = TuneConfig(steps=3, rows=2)
    tune(CAUSAL, TASKS, config, checkpoint=saved, checkpoint_seconds=0)
    monkeypatch.setattr(tuning, "measure", lambda *args, **kwargs: pytest.fail("scored first"))
    with pytest.raises(ValueError, match="lr"):
        tune(CAUSAL, TASKS, replace(config, lr=0.5), checkpoint=saved)


@pytest.mark.parametrize(
    ("model", "method"),
    [
        *((CAUSAL, method) for method in ("prompt-tuning", "p-tuning", "deep")),
        *((SEQ2SEQ, method) for method in ("prompt-tuning", "p-tuning", "deep")),
        *((ENCODER, method) for method in ("prompt-tuning", "deep")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_tuned_prompt_has_learned_and_can_be_saved(tmp_path, model, method):
    tuned = tune(model, TASKS, TuneConfig(method, steps=12, prompt_length=2))
    assert tuned.fit.losses[-1].mean() < tuned.fit.losses[0].mean()
    assert len(tuned.scores) == 2 and (tuned.before is None) == (model is ENCODER)
    assert tuned.source.save(tmp_path / "a.safetensors", tuned.scores).is_file()


def test_ist_starts_at_the_mean_code_and_trains_d_i_numbers_per_task():
    generator = torch.Generator().manual_seed(0)
    bank = from_words(CAUSAL, 4) + torch.randn(5, 4, CAUSAL.width, generator=generator)
    subspace = AutoEncoder(bank, SubspaceConfig(2, 8), generator)
    tuned = tune(CAUSAL, TASKS, TuneConfig("ist", steps=2, layout="prompt-text-answer"), subspace)
    trained = [p for p in tuned.source.parameters() if p.requires_grad]
    assert (
        tune(CAUSAL, TASKS, TuneConfig(layout=(1, "{text}", 1), steps=1)).source.about["prompt_length"] == 2
    )
    assert [p.shape for p in trained] == [(2, 2)] and tuned.engine.layout == "prompt-text-answer"
    assert tuned.source.about["prompt_length"] == 4


def test_defaults_are_those_of_the_studies():
    scale = reading.read_json(paths.data_dir() / "scales.json")
    full, encoders = scale["full"], scale["full"]["encoders"]
    rates = {
        "prompt-tuning": full["prompt"]["lr"],
        "p-tuning": full["ptuning"]["rates"]["lstm"],
        "deep": scale["lesson-deep"]["prompt"]["lr"],
        "ist": full["ist"]["lr"],
    }
    assert {method: of.lr for method, of in tuning.LANGUAGE_MODEL.items()} == rates
    assert tuning.LANGUAGE_MODEL["ist"].steps == full["ist"]["steps"]
    for method in ("prompt-tuning", "p-tuning", "deep"):
        of = tuning.LANGUAGE_MODEL[method]
        assert (of.prompt_length, of.steps) == (full["prompt_length"], full["prompt"]["steps"])
        assert of.rows == full["prompt"]["rows_per_run"]
    assert tuning.ENCODER["prompt-tuning"].lr == encoders["rates"]["prompt tuning"]
    assert tuning.ENCODER["deep"].lr == encoders["rates"]["P-Tuning v2"]
    assert {of.prompt_length for of in tuning.ENCODER.values()} == {encoders["prompt_length"]}


@pytest.mark.parametrize(
    ("model", "tasks", "given", "message"),
    [
        (
            CAUSAL,
            TASKS,
            {"method": "lora"},
            "method 'lora' is unknown; choose one of prompt-tuning,",
        ),
        (CAUSAL, TASKS, {"rows": 0}, "rows is 0; give a whole number of at least 1"),
        (CAUSAL, TASKS, {"steps": 2.5}, "steps is 2.5; give a whole number of at least 1"),
        (CAUSAL, TASKS, {"lr": -1}, "the learning rate lr is -1; give a finite number > 0"),
        (CAUSAL, TASKS, {"lr": float("inf")}, "the learning rate lr is inf; give a finite number > 0"),
        (CAUSAL, TASKS, {"seed": 10**23}, "the seed is 100000000000000000000000; give a whole number from 0"),
        (CAUSAL, TASKS, {"seed": -1}, "the seed is -1; give a whole number from 0"),
        (CAUSAL, TASKS, {"layout": ()}, "layout (): it has 0 pieces '{text}'; give one"),
        (
            CAUSAL,
            TASKS,
            {"layout": (2, "{text}", 2), "method": "deep"},
            "places for 4 vectors, but a deep prompt has keys and values in their place; choose one of",
        ),
        ("tiny-causal", TASKS, {}, "tune needs a backbone, but got the name 'tiny-causal'; load the model"),
        (CAUSAL, TASKS[0], {}, "tune got a single Task for tasks; give a list, also of one: .task."),
        (CAUSAL, TASKS, {"method": "ist", "prompt_length": 3}, "leave prompt_length out"),
        (CAUSAL, TASKS, {"method": "ist"}, "made for the model smollm2-135m, this is tiny-causal"),
        (CAUSAL, TASKS, {"layout": (3, "{text}"), "prompt_length": 4}, "4 vectors, but the layout (3, '"),
        (ENCODER, TASKS, {"method": "p-tuning"}, "the methods are prompt-tuning and deep; 'p-tuning' needs"),
        (ENCODER, TASKS, {"layout": "prompt-text-answer"}, "an encoder, which has no layout"),
        (
            SEQ2SEQ,
            TASKS,
            {"layout": "text-prompt-answer"},
            "an encoder that reads the prompt before",
        ),
        (ENCODER, FREE, {}, "task tiny-plural is of category 'gen', but tiny-encoder is an encoder"),
        (CAUSAL, [], {}, "there are no tasks"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_training(monkeypatch, model, tasks, given, message):
    monkeypatch.setattr(tuning, "fit", None)
    with pytest.raises(ValueError, match="(?s)" + message.replace("(", r"\(").replace(")", r"\)")):
        tune(model, tasks, TuneConfig(**given))


def test_a_method_in_place_of_the_settings():
    with pytest.raises(ValueError, match="tune got 'p-tuning' for config; give TuneConfig"):
        tune(CAUSAL, TASKS, "p-tuning")


def test_tags_need_an_encoder():
    tasks = suites.load_suite("tiny3", only=["tiny-parts"], max_test=4)
    with pytest.raises(ValueError, match="tiny-parts has a tag for every word, which needs a head; use an"):
        tune(CAUSAL, tasks)
    assert tune(ENCODER, tasks, TuneConfig(steps=1)).scores[0].metric == "span_f1"


def test_a_subspace_is_found_by_name_or_file(tmp_path):
    assert tuning.stored_subspaces() == ["ipt120"]
    assert tuning.find_subspace("ipt120").config.intrinsic_dim == 5
    with pytest.raises(FileNotFoundError, match="no subspace 'ipt121'.*a stored one: ipt120"):
        tuning.find_subspace("ipt121")
    with pytest.raises(FileNotFoundError, match="no subspace"):
        tuning.find_subspace(tmp_path)
    assert replace(TuneConfig(), lr=0.5).fit_config(CAUSAL).lr == 0.5
