"""The study of encoders at smoke scale, and its settings."""

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from iptkit.engine.head_engine import HeadEngine
from iptkit.methods.tuned_encoder import TunedEncoder
from iptkit.models import backbone
from iptkit.scores import claims
from iptkit.storage import paths, result_files, step_cache
from iptkit.studies import encoder_study, verdicts_encoders
from iptkit.studies.encoder_study import DATA, DEEP, MLP, PROBE, SHALLOW, SHARED, TUNED
from iptkit.studies.lesson04_methods import COMMONEST
from iptkit.tasks import suites
from iptkit.tasks.examples import Example


@pytest.fixture(autouse=True)
def steps(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(step_cache, "HITS", {})


@pytest.fixture
def study():
    return encoder_study.EncoderStudy(encoder_study.load("smoke"))


def test_every_method_meets_every_task_and_a_second_run_reads_the_same_rows(study, tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path))
    count = encoder_study.write(study, tmp_path / "encoders.jsonl")
    rows = result_files.read(tmp_path / "encoders.jsonl")
    assert len(rows) == count and all(step_cache.HITS[name] is False for name in step_cache.HITS)
    compared = [row for row in rows if row["part"] == "compared"]
    of = Counter((row["data"], row["backbone"], row["method"]) for row in compared)
    cut = "tiny-encoder, first 1 layers"
    for data, model, methods in (
        ("few-shot", "tiny-encoder", (PROBE, SHALLOW, DEEP, TUNED)),
        ("full", "tiny-encoder", (PROBE, SHALLOW, DEEP, TUNED)),
        ("full", cut, (PROBE, DEEP, TUNED)),
    ):
        assert all(of[data, model, method] == 3 for method in methods)
    assert of["full", "tiny-encoder", SHARED] == 2
    assert sum(of.values()) == 3 * (4 + 4 + 3) + 2 + 2 * 3 and of["few-shot", "tiny-encoder", COMMONEST] == 3
    rated = Counter((row["data"], row["method"]) for row in rows if row["part"] == "rates")
    assert rated == {(data, m): 4 for data in DATA for m in (PROBE, SHALLOW, DEEP)} | {("full", MLP): 2}, (
        "ablations train on all examples"
    )
    parts = Counter((row["part"], row.get("length"), row.get("layers"), row.get("order")) for row in rows)
    assert parts["lengths", 1, None, None] == parts["lengths", 2, None, None] == 2
    assert parts["depths", None, 1, "first"] == parts["depths", None, 1, "last"] == 2
    forms = Counter((row["form"], row["seed"]) for row in rows if row["part"] == "forms")
    assert forms == {(form, seed): 2 for form in ("embedding", "mlp") for seed in (0, 1)}
    heads = Counter((row["head"], row["backbone"], row["task"]) for row in rows if row["part"] == "heads")
    assert heads == {(head, "tiny-causal", "tiny-colours"): 1 for head in ("linear", "LM head")}
    for row in rows:
        assert row["group"] and row["processor"] and row["fold"] == "" and row["log_likelihood"] < 0
        assert (row["method"] == COMMONEST) == ("cpu_seconds" not in row)
        assert 0 < row.get("best_step", 1) <= row.get("steps", 4) == 4
    about = json.loads((tmp_path / "encoders.about.json").read_text("utf-8"))
    assert about["command"] == "iptkit study --scale smoke --part encoders" and about["scale"]["lengths"] == [
        1,
        2,
    ]
    judged = verdicts_encoders.verdicts(rows)
    names = {v["name"] for v in judged} - {"B3"}  # fine-tuning of tiny tasks may stay untrained
    assert names == {"B4", "B5", "B7", "B8", "B10"}, "no first 3 layers, no 64 vectors"
    recorded = [
        (row["claim"], row["here"], row["verdict"]) for row in claims.found(tmp_path, "smoke-encoders")
    ]
    assert recorded == [(v["name"], v["here"], v["verdict"]) for v in judged]
    again = encoder_study.EncoderStudy(encoder_study.load("smoke"))
    assert encoder_study.rows(again) == rows, "from the step cache"
    other = encoder_study.EncoderStudy(replace(again.scale, lengths=(1,)))
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path / "others"))
    encoder_study.write(other, tmp_path / "other.jsonl")
    assert claims.found(tmp_path / "others", "smoke") == [], "its settings are not those of the scale"


def test_fine_tuning_tries_its_rates_until_it_beats_the_probe_on_dev(study, monkeypatch):
    dev, asked = {0.001: (0.4, -2.0), 0.01: (0.5, -3.0)}, []

    def tuned(model, task, head, config, seed):
        asked.append((config.lr, len(head)))
        found = torch.tensor(dev[config.lr], dtype=torch.float64)
        source = encoder_study.WithHead(1, model.width, len(head), torch.Generator())
        return TunedEncoder(model, source, found, 2, 10, 1.0, 0.5)

    monkeypatch.setattr(encoder_study, "tune_encoder", tuned)
    lab, (task,) = study.lab(0), study.read(0, "full", ["tiny-colours"])
    plan = study.scale.tuning["full"]
    for of_probe, lr, tries, is_trained in (
        ((0.4, -2.1), 0.001, 1, True),
        ((0.5, -3.1), 0.01, 2, True),
        ((0.5, -2.0), 0.01, 2, False),
    ):
        asked.clear()
        row = encoder_study._fine_tuned(lab, task, torch.zeros(2, lab.width + 1), of_probe, "full", plan)
        assert (row["lr"], row["tries"], row["is_trained"], row["seconds"]) == (lr, tries, is_trained, tries)
        assert asked == [(rate, 2) for rate in plan.rates[:tries]] and row["numbers"] == 10


def test_fine_tuning_starts_at_the_head_of_its_own_task(study, monkeypatch):
    given = {}

    def tuned(model, task, head, config, seed):
        given[task.id] = head
        raise StopIteration

    monkeypatch.setattr(encoder_study, "tune_encoder", tuned)
    probe = encoder_study.trained(study, PROBE, 0, "few-shot")
    for r, name in enumerate(study.ids):
        with pytest.raises(StopIteration):
            encoder_study.fine_tuned(study, name, 0, "few-shot")
        (task,) = study.read(0, "few-shot", [name])
        assert torch.equal(given[name], probe.tensors["head"][r, : len(task.labels)])


def test_the_first_layers_of_a_model_are_its_own_and_the_whole_is_untouched():
    whole = backbone.load("tiny-encoder", dtype="float32")
    before = backbone.fingerprint(whole.model)
    cut, ids = encoder_study.first_layers(whole, 1), torch.arange(4, 12)[None]
    assert cut.name == "tiny-encoder, first 1 layers" and cut.num_layers == 1 < whole.num_layers
    states = whole.model.base_model(input_ids=ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(cut.model.base_model(input_ids=ids).last_hidden_state, states[1])
    assert len(encoder_study.Lab(encoder_study.load("smoke"), 0, cut).sites) == 1 and HeadEngine(cut)
    assert backbone.fingerprint(whole.model) == before and whole.num_layers == len(states) - 1
    for count in (0, whole.num_layers + 1):
        with pytest.raises(ValueError, match=f"its first {count} cannot be taken"):
            encoder_study.first_layers(whole, count)
    with pytest.raises(ValueError, match="no list encoder.layer; use a BERT"):
        encoder_study.first_layers(backbone.load("tiny-causal"), 1)


def test_samples_are_scored_on_different_examples_and_dev_takes_from_train(study):
    tasks = [study.read(seed, "full", ["tiny-colours"])[0] for seed in (0, 1)]
    assert not {e.input for e in tasks[0].test} & {e.input for e in tasks[1].test}
    assert len(tasks[0].test) == len(tasks[1].test) == study.scale.test_examples
    (whole,) = suites.load_suite("tiny3", only=["tiny-colours"], full=True)
    moved = encoder_study.with_more_dev(whole, len(whole.dev) + 2)
    assert moved.dev == (*whole.dev, *whole.train[:2]) and moved.train == whole.train[2:]
    assert encoder_study.with_more_dev(whole, 1) == whole
    most = encoder_study.with_more_dev(whole, 1000)
    assert len(most.dev) - len(whole.dev) == len(whole.train) // 8
    with pytest.raises(ValueError, match="tiny-colours has .* too few for 1000 parts"):
        encoder_study.part_of_test(whole, 0, 1000, 4)


def test_the_commonest_answer_by_hand(study):
    (task,) = study.read(0, "few-shot", ["tiny-colours"])
    a, b = task.labels
    train = tuple(Example(f"x{i}", (a if i < 3 else b,), task.labels) for i in range(4))
    test = tuple(Example(f"y{i}", (b if i else a,), task.labels) for i in range(4))
    found = encoder_study._of_frequencies(replace(task, train=train, test=test), 4)
    assert found.score == 0.25
    assert found.log_likelihood == pytest.approx((math.log(4 / 6) + 3 * math.log(2 / 6)) / 4)


def test_the_best_rate_has_the_highest_likelihood_on_dev_whatever_state_was_chosen():
    def row(method, lr, *curve):
        return {"data": "full", "method": method, "lr": lr, "dev_curve": list(curve)}

    rows = [row(DEEP, 0.1, -1.0, -9.0), row(DEEP, 0.1, -2.0), row(DEEP, 0.3, -1.2), row(DEEP, 0.3, -1.9)]
    assert encoder_study.best_rates([*rows, row(PROBE, 0.01, -9.0)]) == {
        "full": {DEEP: 0.1, SHARED: 0.1, PROBE: 0.01}
    }


def test_all_parts_train_at_the_rates_that_dev_has_chosen(study, monkeypatch):
    chosen = {"few-shot": {PROBE: 0.5, SHALLOW: 0.4, DEEP: 0.3, MLP: 0.2, SHARED: 0.1}}
    monkeypatch.setattr(encoder_study, "best_rates", lambda found: chosen)
    for method in (PROBE, SHALLOW, DEEP):
        rows = encoder_study.trained(study, method, 0, "few-shot").values["rows"]
        assert {row["lr"] for row in rows} == {chosen["few-shot"][method]}
    mlp = encoder_study.trained(study, DEEP, 0, "few-shot", ("tiny-parts",), (0,), {"form": "mlp"})
    assert mlp.values["rows"][0]["lr"] == 0.2
    assert encoder_study.multi_task(study, "tags", 0, "few-shot").values["rows"][0]["lr"] == 0.1


def test_the_settings_name_tasks_of_the_suite_in_enough_groups():
    for scale in json.loads((paths.data_dir() / encoder_study.FILE).read_text("utf-8")):
        config = encoder_study.load(scale)
        cards = {card.id: card for card in suites.list_cards(config.suite)}
        named = {*config.tasks, *config.rated, *config.ablated, *config.heads.tasks}
        assert named.union(*config.shared.values()) <= set(cards)
        assert set(config.rate_grid) == {PROBE, SHALLOW, DEEP, MLP} and not set(config.fits) - set(DATA)
        if scale == "full":
            for some in (cards, config.ablated):
                of_kind = {
                    kind: [cards[t] for t in some if cards[t].category == kind] for kind in ("cls", "tag")
                }
                assert all(len({card.group for card in of}) >= 6 for of in of_kind.values())
            assert len({cards[task].group for task in config.heads.tasks}) >= 6
            assert len({cards[task].group for tasks in config.shared.values() for task in tasks}) >= 6
            assert len(cards) == 55 and {c.category for c in cards.values()} == {"cls", "tag"}


def test_wrong_settings_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="no scale 'lesson'; choose one of smoke, full"):
        encoder_study.load("lesson")
    config = encoder_study.load("smoke")
    with pytest.raises(ValueError, match=r"fits and layers are for \['few-shot', 'full'\] and \['full'\]"):
        replace(config, layers={"full": (0,)})
    with pytest.raises(ValueError, match=r"form_seeds are \(1, 0\); give the seeds \(0,\) first"):
        replace(config, form_seeds=(1, 0))
    with pytest.raises(ValueError, match="must be at least 1, not 0"):
        replace(config, lengths=(0,))
    with pytest.raises(ValueError, match="device 'gpu' is unknown"):
        encoder_study.EncoderStudy(config, "gpu")
    known = json.loads((paths.data_dir() / encoder_study.FILE).read_text("utf-8"))
    known["smoke"]["lenghts"] = known["smoke"].pop("lengths")
    monkeypatch.setattr(encoder_study.reading, "read_json", lambda path: known)
    with pytest.raises(ValueError, match="missing or unknown fields: lenghts, lengths"):
        encoder_study.load("smoke")
