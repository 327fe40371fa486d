"""The measurements of lessons 01, 03 and 04 at smoke scale."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from iptkit.engine.engine import Engine
from iptkit.engine.layouts import LAYOUTS
from iptkit.methods import p_tuning, prompt_tuning
from iptkit.scores import claims, evaluation
from iptkit.storage import result_files, step_cache
from iptkit.studies import lesson01, lesson03, lesson04, lesson04_methods, scales
from iptkit.studies.scales import DiscreteConfig, EncoderConfig, PTuningConfig
from iptkit.studies.study import Study
from iptkit.tasks import suites, wordings
from iptkit.training import trainer


@pytest.fixture(autouse=True)
def steps(tmp_path, monkeypatch):
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(step_cache, "HITS", {})


@pytest.fixture
def study():
    return Study(scales.load("smoke", seeds=(0, 1)))


def name_their_group(rows):
    group = {card.id: card.group for suite in ("tiny", "tiny3") for card in suites.list_cards(suite)}
    return bool(rows) and all(row["group"] == group[row["task"]] for row in rows)


# ---- 01 ------------------------------------------------------------------------------------------
def test_every_task_is_asked_in_every_wording(study):
    rows = lesson01.wordings_of(study).values["rows"]
    counts = Counter(row["task"] for row in rows)
    assert counts == {name: len(wordings.of_task(name)) for name in study.scale.discrete.tasks}
    first = next(row for row in rows if row["task"] == "tiny-mood" and row["wording"] == 0)
    again = lesson01.accuracy_of(study, wordings.of_task("tiny-mood")[0], "tiny-mood")
    assert first["accuracy"] == again and first["chance"] == 0.5
    assert name_their_group(rows) and first["group"] == "mood"
    assert all(0 <= row[name] <= 1 for row in rows for name in ("dev", "dev_calibrated"))


def test_a_wording_is_chosen_on_dev(study):
    """The dev accuracy of a wording is that on the few-shot sample's dev set."""
    wording = wordings.of_task("tiny-kind")[1]
    ((task, card),) = suites.with_cards("tiny", ["tiny-kind"], 0)
    (scored,) = lesson01.accuracies(Engine(study.backbone, LAYOUTS[1]), [wording], card, task.dev)
    rows = lesson01.wordings_of(study).values["rows"]
    row = next(row for row in rows if row["task"] == "tiny-kind" and row["wording"] == 1)
    assert (row["dev"], row["dev_calibrated"]) == (scored["accuracy"], scored["calibrated"])


def test_the_plain_question_is_the_zero_shot_prompt(study):
    rows = lesson01.plainly(study).values["rows"]
    names, n = study.scale.discrete.tasks, study.scale.prompt_length
    whole = len(study.backbone.tokenizer(prompt_tuning.WORDS, add_special_tokens=False).input_ids)
    assert [(r["tokens"], r["task"]) for r in rows] == [(k, name) for k in (n, whole) for name in names]
    assert whole > n and rows[-1]["words"].endswith(rows[0]["words"]) and name_their_group(rows)
    ((task, _),) = suites.with_cards("tiny", ["tiny-mood"], 0, study.scale.discrete.test_examples)
    assert rows[0]["accuracy"] == evaluation.evaluate(study.engine, study.words(1), [task])[0]


def test_without_examples_there_is_one_row_and_with_them_one_per_seed(study):
    rows = lesson01.in_context(study).values["rows"]
    counts = Counter((row["task"], row["shots"]) for row in rows)
    shots = study.scale.discrete.shots
    assert counts == {(name, k): c for name in study.scale.discrete.tasks for k, c in ((0, 1), (shots, 2))}
    assert name_their_group(rows)


def test_a_search_is_compared_with_its_start(study):
    step = lesson01.token_search(study)
    asked = [(name, study.seeds[0]) for name in study.scale.discrete.tasks]
    assert [(row["task"], row["seed"]) for row in step.values["rows"]] == asked
    assert name_their_group(step.values["rows"])
    steps, count = study.scale.discrete.search.steps, len(asked)
    assert step.tensors["tokens"].shape == (count, 4) and step.tensors["losses"].shape == (steps, count)


def test_facts_are_asked_in_every_template(study):
    rows = lesson01.facts(study).values["rows"]
    assert len(rows) == len(wordings.of_relation("tiny-plural"))
    assert all(0 <= row["P@1"] <= row["P@10"] <= 1 and row["facts"] == 12 for row in rows)
    assert name_their_group(rows)


# ---- 02 ------------------------------------------------------------------------------------------
def test_both_starts_are_trained_at_every_rate(study):
    rows, scale = study.start_and_rate().values["rows"], study.scale
    assert len(rows) == 2 * 3 * len(scale.grid) and name_their_group(rows)
    assert {row["start"] for row in rows} == {"words", "N(0, 0.02²)"}
    assert sorted({row["lr"] for row in rows}) == pytest.approx([scale.prompt.lr * x for x in (0.2, 1, 5)])


# ---- 03 ------------------------------------------------------------------------------------------
def test_every_encoder_meets_the_best_words_on_every_task_and_seed(study):
    rows, config = lesson03.compared(study), study.scale.ptuning
    methods = (lesson03.WORDS, *p_tuning.ENCODERS)
    tasks = [*config.tasks, *config.relations]
    expected = {(name, seed, method): 1 for name in tasks for seed in config.seeds for method in methods}
    assert Counter((row["task"], row["seed"], row["method"]) for row in rows) == expected
    assert {row["numbers"] for row in rows if row["method"] == "none"} == {4 * 32}
    assert name_their_group(rows) and {row["kind"] for row in rows} == set(lesson03.KINDS)


def test_the_best_words_are_chosen_on_dev(study, monkeypatch):
    asked = []

    def scored(engine, known, task, card, kind, part):
        if part == "dev":
            assert len(task.dev) == study.scale.ptuning.fit.dev_examples and len(known) == 3
            return [0.1, 0.9, 0.5] if task.seed == 0 else [0.1, 0.2, 0.5]
        asked.append((task.id, *known))
        return [0.2 if known[0] == wordings.of_task(task.id)[1] else 0.3]

    monkeypatch.setattr(lesson03, "_scores", scored)
    rows = lesson03.best_words(study, "tasks").values["rows"]
    config = study.scale.ptuning
    assert [(row["seed"], row["score"]) for row in rows] == [
        (seed, 0.2 if seed == 0 else 0.3) for seed in config.seeds for _ in config.tasks
    ]
    assert asked == [(name, wordings.of_task(name)[k]) for k in (1, 2) for name in config.tasks]


def test_seeds_that_train_together_give_what_they_give_alone(study):
    config = study.scale.ptuning.fit
    both = lesson03.train(study, "mlp", "relations", (0, 1), (0.01,), config)
    for i, seed in enumerate((0, 1)):
        alone = lesson03.train(study, "mlp", "relations", (seed,), (0.01,), config)
        count = len(alone.runs)
        assert [run.seed for run in both.runs[i * count : (i + 1) * count]] == [seed] * count
        for p, q in zip(both.source.parameters(), alone.source.parameters(), strict=True):
            torch.testing.assert_close(p[i * count : (i + 1) * count], q, rtol=1e-3, atol=1e-5)


# ---- 04 ------------------------------------------------------------------------------------------
def test_every_method_is_run_on_its_tasks(study):
    rows, config = lesson04.rows(study, "compared"), study.scale.encoders
    of = {"MPT-2": config.shared, "fine-tuning": config.tuned}
    methods = (*lesson04_methods.METHODS, lesson04_methods.COMMONEST)
    expected = {(m, name): 2 for m in methods for name in of.get(m, config.tasks)}
    assert Counter((row["method"], row["task"]) for row in rows) == expected
    numbers = {(row["method"], row["task"]): row["numbers"] for row in rows}
    head = {"tiny-colours": 2 * 33, "tiny-parts": 5 * 33}
    for name, count in head.items():
        assert numbers["linear probe", name] == count
        assert numbers["prompt tuning", name] == count + 2 * 32
        assert numbers["P-Tuning v2", name] == count + 2 * 2 * 2 * 32
    assert numbers["MPT-2", "tiny-parts"] == numbers["P-Tuning v2", "tiny-parts"]
    assert all(0 <= row["share"] < 1 and row["data"] == "few-shot" for row in rows)
    measured = {
        method: {row["log_likelihood"] for row in rows if row["method"] == method} for method in methods
    }
    assert measured.pop(lesson04_methods.COMMONEST) == {None}
    assert all(value < 0 for values in measured.values() for value in values)
    assert name_their_group(rows)


def test_a_scale_leaves_methods_out(study):
    fewer = replace(study.scale.encoders, shared=(), tuned=())
    rows = lesson04.rows(Study(replace(study.scale, encoders=fewer, seeds=(0,))), "compared")
    assert {row["method"] for row in rows} == {*lesson04_methods.METHODS[:3], lesson04_methods.COMMONEST}
    assert {row["seed"] for row in rows} == {0}


def test_the_second_stage_of_mpt2_continues_from_the_shared_prompt_with_other_examples(study, monkeypatch):
    fits, real = [], trainer.fit

    def watched(engine, source, runs, config, *args):
        before = {name: p.detach().clone() for name, p in source.named_parameters()}
        result = real(engine, source, runs, config, *args)
        after = {name: p.detach().clone() for name, p in source.named_parameters()}
        fits.append((before, after, [run.skip for run in runs], config.steps))
        return result

    monkeypatch.setattr(lesson04_methods, "fit", watched)
    lesson04_methods.multi_task(study)
    (_, first, skipped, steps), (_, second, _, _), (start, _, skip, rest) = fits
    config = study.scale.encoders.fits["few-shot"]
    assert steps + rest == config.steps and set(skipped) == {0} and set(skip) == {steps * config.rows_per_run}
    for seed, shared in enumerate((first, second)):
        for r in range(2):
            row = 2 * seed + r
            assert torch.equal(start["prompt.P"][row], shared["prompt.P"][0])
            assert torch.equal(start["head"][row, : len(shared["inner.head"][r])], shared["inner.head"][r])


def test_the_commonest_answer_is_that_of_the_training_examples(study):
    rows = lesson04_methods.commonest(study).values["rows"]
    scores = {row["task"]: row["score"] for row in rows}
    assert {row["numbers"] for row in rows} == {0} and 0 < scores["tiny-colours"] < 1
    assert all(0 <= score < 1 for score in scores.values())


def test_all_examples_are_another_measurement_than_a_few(study):
    config = study.scale.encoders
    both = replace(config, fits={"few-shot": config.fits["few-shot"], "full": config.fits["few-shot"]})
    wider = Study(replace(study.scale, encoders=both, seeds=(0,)))
    steps = [lesson04_methods.trained(wider, "linear probe", data=data) for data in both.fits]
    assert [{row["data"] for row in step.values["rows"]} for step in steps] == [{"few-shot"}, {"full"}]
    assert both.data == "full" and not any(step.was_cached for step in steps)
    assert lesson04_methods.trained(wider, "linear probe").was_cached, "ablations use the last of the fits"


def test_ablations_vary_one_thing(study):
    depth = lesson04.rows(study, "depths")
    assert {(row["layers"], row["order"]) for row in depth} == {
        (k, order) for k in (1, 2) for order in ("first", "last")
    }
    assert {row["length"] for row in lesson04.rows(study, "lengths")} == {1, 2}
    assert {row["form"] for row in lesson04.rows(study, "forms")} == {"embedding", "mlp"}
    both = [row["score"] for row in depth if row["layers"] == 2]
    assert both[: len(both) // 2] == both[len(both) // 2 :], "all layers are all layers"


def test_a_causal_model_answers_in_words_and_through_a_head(study):
    rows = lesson04.rows(study, "heads")
    assert Counter(row["head"] for row in rows) == dict.fromkeys(lesson04.HEADS, 2)
    size = 2 * 2 * 2 * 2 * 8  # n, layers, keys and values, heads of eight numbers
    assert [row["numbers"] for row in rows] == [size + 2 * 33] * 2 + [size] * 2
    without = replace(study.scale, encoders=replace(study.scale.encoders, heads=None))
    assert lesson04.rows(Study(without), "heads") == []


def test_all_parts_are_written_with_their_provenance_and_verdicts(study, tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path / "results"))
    few = Study(replace(study.scale, seeds=(0,)))
    count = lesson04.write(few, tmp_path / "deep.jsonl")
    rows = result_files.read(tmp_path / "deep.jsonl")
    assert len(rows) == count and {row["part"] for row in rows} == set(lesson04.PARTS)
    about = json.loads((tmp_path / "deep.about.json").read_text(encoding="utf-8"))
    assert about["scale"]["name"] == "smoke"
    made = sum(len(made["steps"]) for made in about["made"])
    assert made == 6 + 2 + 1 + 1 + 2, "a step that several figures use counts once"
    judged = claims.found(tmp_path / "results", "smoke")
    assert [row["claim"] for row in judged] == ["B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10"]


# ---- sizes ---------------------------------------------------------------------------------------
def test_wrong_sizes_are_refused(study):
    scale = study.scale
    for name in ("test_examples", "shots", "shot_test_examples"):
        with pytest.raises(ValueError, match=f"DiscreteConfig.{name} is 0; it must be at least 1"):
            replace(scale.discrete, **{name: 0})
    with pytest.raises(ValueError, match="give one for each of"):
        replace(scale.ptuning, rates={"lstm": 0.1})
    with pytest.raises(ValueError, match="at least 2 seeds"):
        replace(scale.ptuning, seeds=(0,))
    with pytest.raises(ValueError, match="EncoderConfig.tuned names tiny-mood, .* not among its tasks"):
        replace(scale.encoders, tuned=("tiny-mood",))
    with pytest.raises(ValueError, match="must be at least 1"):
        replace(scale.encoders, depths=(0,))
    with pytest.raises(ValueError, match=r"fits is for \['some'\]; give one for each of some of"):
        replace(scale.encoders, fits={"some": scale.prompt})
    with pytest.raises(ValueError, match="HeadsConfig needs prompt_length >= 1"):
        replace(scale.encoders.heads, prompt_length=0)
    assert isinstance(scale.discrete, DiscreteConfig) and isinstance(scale.ptuning, PTuningConfig)
    assert isinstance(scale.encoders, EncoderConfig)
