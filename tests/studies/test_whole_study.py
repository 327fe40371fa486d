"""What a study of a whole suite has beyond a lesson's: groups of seeds, settings, controls, jobs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stock import backbone, timeless

from iptkit.course import pipeline
from iptkit.methods import fine_tuning, prompt_tuning, subspace
from iptkit.methods.prompt_tuning import FixedPrompt
from iptkit.models.backbone import fingerprint
from iptkit.scores import claims, evaluation, summary
from iptkit.storage import files, locks, paths, reading, result_files, step_cache
from iptkit.studies import base, codes, provenance, scales, stored_results, study_files, unseen
from iptkit.studies.costs import OF_PEAK, Costs
from iptkit.studies.score_rows import DECODERS
from iptkit.studies.study import Study
from iptkit.tasks import fewshot, suites
from iptkit.training import trainer
from iptkit.training.runs import Fit, FitConfig, Run

WHOLE = {
    "seeds": (0, 1), "dims": (2, 3), "main_dim": 2, "test_examples": 4, "same_data": True, "nearest": True,
    "stage_two_runs": 2, "controls": ("random", "pca", "fastfood"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def steps(tmp_path, monkeypatch):
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(step_cache, "HITS", {})
    return tmp_path / "steps"


def small(**changes):
    study = Study(scales.load("smoke", **{**WHOLE, **changes}))
    study.backbone = backbone("tiny-causal", "float32")
    return study


def test_a_whole_study_has_every_setting_and_control_once():
    study = small()
    rows = study.table()
    measured = Counter((r["task"], r["method"], r["d_I"], r["seed"], r.get("run")) for r in rows)
    assert set(measured.values()) == {1}
    found = Counter((r["setting"], r["d_I"]) for r in rows)
    for dim in (2, 3):
        assert found["MSF, seen tasks", dim] == found["IST, seen tasks, same data", dim] == 6
        assert found["MSF, unseen tasks", dim] == 2
        assert found["IST, seen tasks, new data", dim] == 2 * 6
        assert found["IST, unseen tasks", dim] == 2 * 2
    for control in ("random decoder", "PCA of the prompts", "Fastfood over the prompt"):
        assert (
            found[f"{control}, seen tasks, new data", 2] == 12 and found[f"{control}, unseen tasks", 2] == 4
        )
    assert found["nearest task's prompt, unseen tasks", 0] == 2
    assert found["stage two, unseen tasks", 2] == 2 * 2 == found["prompt tuning, same runs, unseen tasks", 0]
    assert {(r["seed"], r["run"]) for r in rows if r["method"] == unseen.STAGE_TWO} == {(0, 0), (0, 1)}
    both = unseen.STAGE_TWO, unseen.FROM_WORDS
    two, words = ([r["score"] for r in rows if r["method"] == method] for method in both)
    gap = summary.difference(rows, (unseen.STAGE_TWO, 2), (unseen.FROM_WORDS, 0))
    assert gap[0] == pytest.approx(sum(two) / 4 - sum(words) / 4), "runs of a task are averaged"


def test_seeds_in_groups_give_what_they_give_together(steps, monkeypatch):
    """Memory decides how many runs train in one fit; a run does not feel the others (up to the last bits)."""
    together, rows = small(), small().table()
    bank, codes = together.bank().tensors["P"], together.codes(2).tensors["u"]
    monkeypatch.setenv("IPTKIT_STEPS", str(steps.with_name("apart")))
    monkeypatch.setattr(base, "MOST_RUNS", 8)
    apart = small()
    other = apart.table()
    assert [step.split("-seed")[0] for step in sorted(step_cache.HITS) if step.startswith("prompts")] == [
        "prompts"
    ] * 3
    assert torch.allclose(apart.bank().tensors["P"], bank, atol=1e-4)
    assert torch.allclose(apart.codes(2).tensors["u"], codes, atol=1e-3)
    assert apart.bank().tensors["losses"].shape == together.bank().tensors["losses"].shape
    names = ("task", "method", "d_I", "seed", "split", "setting")
    assert [[r[n] for n in names] for r in other] == [[r[n] for n in names] for r in rows]


def test_splits_share_the_prompts_of_their_suite(steps):
    """Another split trains no prompt again and takes each task's own."""
    study = small()
    bank = study.bank()
    kept = suites.split("random", "tiny")
    sides = {"seen": kept.seen[::-1][:4], "unseen": kept.unseen}
    other = small()
    other.seen, other.unseen = sides["seen"], sides["unseen"]
    other.ids = (*other.seen, *other.unseen)
    step_cache.HITS.clear()
    mine = other.bank()
    assert step_cache.HITS == {"prompts": True}
    for task in other.ids:
        place, whole = other.ids.index(task), study.ids.index(task)
        assert torch.equal(mine.tensors["P"][:, place], bank.tensors["P"][:, whole])
        row, first = (step.values["rows"][i] for step, i in ((mine, place), (bank, whole)))
        assert row["task"] == first["task"] == task and row["score"] == first["score"]
        assert row["split"] == ("seen" if task in other.seen else "unseen")
    count = len(other.ids)
    assert mine.tensors["losses"].shape[1] == 2 * count == len(mine.values["best_step"])
    losses = bank.tensors["losses"][:, len(study.ids) + study.ids.index(other.ids[1])]
    assert torch.equal(mine.tensors["losses"][:, count + 1], losses)


def test_same_data_is_the_data_of_the_prompts(monkeypatch):
    study, runs = small(), []
    tune = subspace.tune
    monkeypatch.setattr(subspace, "tune", lambda *args: runs.append(args[2]) or tune(*args))
    study.codes_on_same_data(2)
    study.codes(2)
    assert [(r.task.id, r.data, r.seed) for r in runs[0]] == [(i, "train", 0) for i in study.seen]
    assert [r.task.train for r in runs[0]] == [t.train for t in study.seen_tasks(0)]
    assert {r.data for r in runs[1]} == {"train_new"} and len(runs[1]) == 16


def test_the_nearest_prompt_is_the_seen_one_with_the_lowest_dev_loss():
    study = small()
    step, seen = unseen.nearest_prompt(study), study.seen_tasks(0)
    losses = []
    for task in study.unseen_tasks(0):
        of = [Run(task) for _ in seen]
        scores = trainer.dev_scores(study.engine, FixedPrompt(study.first_prompts()[: len(seen)]), of, 32)
        losses.append((-scores[:, 1]).tolist())
    for task, mine, row in zip(study.unseen_tasks(0), losses, step.values["rows"], strict=True):
        best = mine.index(min(mine))
        assert step.values["nearest"][task.id] == seen[best].id and row["task"] == task.id
        prompt = FixedPrompt(study.first_prompts()[best : best + 1])
        assert row["score"] == evaluation.evaluate(study.engine, prompt, [task], limit=4)[0]


def test_stage_two_starts_from_the_solution_of_ist(monkeypatch):
    study, starts = small(), []
    monkeypatch.setattr(
        unseen, "fit", lambda engine, source, runs, *_: starts.append((source, runs)) or done()
    )

    def done():
        return Fit(torch.zeros(1, 8), torch.zeros(1), torch.zeros(1, 8, 2), torch.zeros(8))

    step = unseen.stage_two(study, 2)
    ((source, runs),) = starts
    found = subspace.IntrinsicPrompt(study.subspace(2)[0], 2)
    found.u.data = study.codes(2).tensors["u"][0, 6:]
    prompts = found(torch.arange(2)).embeds.detach()
    assert torch.allclose(source.P[:4], prompts.repeat(2, 1, 1), atol=1e-6)
    assert torch.allclose(source.P[4:], study.words(1).P.expand(4, -1, -1).float())
    assert [(r.task.id, r.seed) for r in runs] == [
        (i, s) for _ in range(2) for s in (0, 1) for i in study.unseen
    ]
    assert {r.data for r in runs} == {"train_new"}
    ist = [
        r["score"]
        for r in study.table()
        if (r["setting"], r["d_I"], r["seed"]) == ("IST, unseen tasks", 2, 0)
    ]
    assert [r["score"] for r in step.values["rows"][:2]] == ist, "untrained, it is IST's own prompt"


# ---- jobs ----------------------------------------------------------------------------------------
def test_jobs_are_all_steps_of_the_table_in_an_order_that_works(steps):
    study = small()
    order = [job.name for job in study.jobs()]
    assert not any(job.is_done for job in study.jobs()) and not [*steps.glob("*/step.safetensors")]
    for job in study.jobs():
        assert job.make().name == job.name
    assert order == list(step_cache.HITS), "each made itself only: what it builds on was there"
    assert all(job.is_done for job in study.jobs())
    step_cache.HITS.clear()
    rows = study.table()
    assert all(step_cache.HITS.values()) and len(rows) == len({id(r) for r in rows})


def test_a_lost_step_is_a_job_again_and_so_is_what_reads_it(steps):
    study = small()
    study.table()
    for folder in steps.glob("prompts-*"):
        (folder / "step.safetensors").unlink()
    left = {job.name for job in small().jobs() if not job.is_done}
    assert {"prompts", "subspace-2", "subspace-3"} <= left and "zero-shot" not in left


def test_costs_count_what_runs():
    """FLOPs of scoring and training, against the formula on a task of known lengths."""
    study = small()
    costs, task = Costs(study), study.tasks(0)[0]
    text, answer, options, count, free = costs._lengths(task)
    n, layers, head = study.scale.prompt_length, costs.layers, costs.head
    assert head == study.backbone.embedding.numel() and layers > 0 and free == 0 and count > 1
    tokens = [len(costs.tokenizer(e.input, add_special_tokens=False).input_ids) for e in task.train[:16]]
    assert text == pytest.approx(sum(tokens) / len(tokens)) and options >= answer > 0
    seen = 4 * 2 * 32  # FLOPs of a query and a token that it sees: two layers of 32 numbers
    new = n + options - count  # nothing is read after the last token of an answer
    one = 2 * layers * new + 2 * head * options + seen * new * (text + new)
    read = 2 * layers * text + seen * text**2
    assert costs.score([task]) == pytest.approx(4 * (read + one))
    assert costs.score([task], 3) - costs.score([task]) == pytest.approx(4 * 2 * one)
    config = FitConfig(steps=5, rows_per_run=2, evaluations=3, dev_examples=4)
    new = n + answer - 1
    steps = 10 * (2 * (2 * layers * new + 2 * head * answer) + 3 * seen * new * (text + new))
    assert costs.fit([task], config) == pytest.approx(steps + 14 * read + 12 * one)
    every = study.jobs(costs)
    assert all(job.flops > 0 and job.seconds(1e12) == job.flops / (OF_PEAK * 1e12) for job in every)


def test_every_decoder_has_its_own_name():
    assert len(set(DECODERS.values())) == len(DECODERS) == 8


def test_the_models_own_weights_on_unseen_tasks():
    scale = scales.load("smoke", seeds=(0,), dims=(2,), main_dim=2, test_examples=4, controls=())
    of = Study(replace(scale, weights=("fine-tuning", "DID")))
    names = [job.name for job in of.jobs(Costs(of))]
    added = [f"{method}-{task}" for method in ("fine-tuning", "did") for task in of.unseen]
    assert names[-len(added) :] == added
    costs, task = Costs(of), of.unseen_tasks(0)[0]
    words = len(costs.tokenizer(prompt_tuning.WORDS, add_special_tokens=False).input_ids)
    text, answer = costs._lengths(task)[:2]
    config = FitConfig(steps=5, rows_per_run=2)
    tokens = 10 * (text + words + answer)
    assert costs.weights(task, config) == pytest.approx(6 * (costs.layers + costs.head) * tokens)
    whole, costs.slower = costs.weights(task, config), 2.0
    assert costs.weights(task, config) == 2 * whole, "float32 where the rest is mixed"
    before = fingerprint(of.backbone.model)
    rows = of.table()
    assert fingerprint(of.backbone.model) == before
    assert {r["dtype"] for r in rows if r["method"] in of.scale.weights} == {"float32"}
    found = {(r["method"], r["d_I"], r["task"], r["split"]) for r in rows if r["method"] in of.scale.weights}
    wanted = {("fine-tuning", 0, t, "unseen") for t in of.unseen}
    assert found == wanted | {("DID", 2, t, "unseen") for t in of.unseen}
    assert summary.summary(rows, [("fine-tuning", 0), ("DID", 2)])[0]["tasks"] == len(of.unseen)
    numbers = unseen.tuned_weights(of, "DID", of.unseen[0]).values["numbers"]
    assert numbers == 2 and unseen.tuned_weights(of, "DID", of.unseen[0]).was_cached
    with pytest.raises(ValueError, match="weights are .*'adapters'.*known are fine-tuning and DID"):
        replace(scale, weights=("adapters",))
    other = Study(replace(scale, weights=("DID",), backbone="tiny-seq2seq"))
    with pytest.raises(
        ValueError, match="are for causal models, but tiny-seq2seq is seq2seq; leave them out"
    ):
        other.jobs()


def test_did_from_the_mean_code_starts_where_ist_starts():
    more = {"seeds": (0,), "dims": (2,), "main_dim": 2, "test_examples": 4, "controls": ()}
    scale = scales.load("smoke", **more, folds=("fold1", "fold2"), did_around=True)
    scores = {}
    for rate in (0.0, 0.1):
        of = Study(replace(scale, did_lr=rate))
        jobs = {job.name: job for job in of.jobs(Costs(of))}
        mine = [name for name in jobs if name.startswith("did-around-")]
        assert sorted(mine) == sorted(f"did-around-{t}-{p.scale.fold}" for p in of.parts for t in p.unseen)
        assert {jobs[name].needs for name in mine} == {("prompts", f"subspace-2-fold{k}") for k in (1, 2)}
        assert all(jobs[name].flops > 0 for name in mine)
        rows = [r for r in of.table() if r["split"] == "unseen"]
        for method in (unseen.DID_AROUND, "mean code"):
            scores[method, rate] = {
                (r["fold"], r["task"]): r["log_likelihood"] for r in rows if r["method"] == method
            }
    start = scores["mean code", 0.0]
    assert scores[unseen.DID_AROUND, 0.0] == pytest.approx(start, abs=1e-4) and start
    assert scores[unseen.DID_AROUND, 0.1].keys() == start.keys()
    assert scores[unseen.DID_AROUND, 0.1] != pytest.approx(start, abs=1e-3), "the weights are trained"
    with pytest.raises(ValueError, match="did_around with deep prompts"):
        Study(replace(scales.load("smoke", **more), deep=True, did_around=True)).jobs()


def test_fine_tuning_from_fewer_examples(monkeypatch):
    scale = scales.load("smoke", seeds=(0,), dims=(2,), main_dim=2, test_examples=4, controls=())
    of = Study(replace(scale, weights=("fine-tuning", "DID"), fewer_examples=(1, 3)))
    of.backbone = backbone("tiny-causal", "float32")
    names = [job.name for job in of.jobs(Costs(of))][-4:]
    assert names == [f"fine-tuning-{k}-{task}" for k in (1, 3) for task in of.unseen]
    read, known = [], fine_tuning.fine_tune

    def fine_tune(backbone, task, *rest, **named):
        read.append((task.id, task.train))
        return known(backbone, task, *rest, **named)

    monkeypatch.setattr(fine_tuning, "fine_tune", fine_tune)
    for job in of.jobs()[-4:]:
        job.make()
    whole = {task.id: task for task in of.unseen_tasks(0)}
    assert read == [(task, whole[task].train_new[:k]) for k in (1, 3) for task in of.unseen]
    rows = [r for r in of.table() if r["method"] == unseen.FEWER["fine-tuning"]]
    found = [(r["task"], r["examples"], r["n_train"], r["d_I"], r["split"]) for r in rows]
    assert found == [(task, k, k, 0, "unseen") for k in (1, 3) for task in of.unseen]


def test_only_unseen_tunes_unseen_tasks_only(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path))
    scale = scales.variant("smoke", split="random", dims=(2,), only_unseen=True)
    assert scale.only_unseen and not (scale.same_data or scale.nearest or scale.stage_two_runs)
    study = Study(scale)
    study.backbone = backbone("tiny-causal", "float32")
    table = study.table()
    found = [r for r in table if r["d_I"]]
    assert {r["task"] for r in found} == set(study.unseen) and {r["split"] for r in found} == {"unseen"}
    assert Counter(r["method"] for r in found) == {"IST": 3 * 2, "MSF": 2, "mean code": 2}
    assert {r["method"] for r in table} - {r["method"] for r in found} == {"zero-shot", "prompt tuning"}
    whole = Study(scales.variant("smoke", split="random", dims=(2,)), models=study)
    scores = {(r["task"], r["method"], r["seed"]): r["score"] for r in whole.table() if r["d_I"] == 2}
    assert all(scores[r["task"], r["method"], r["seed"]] == pytest.approx(r["score"]) for r in found)
    assert study.first_codes(2).shape == (2, 2)
    assert study_files.write(study, tmp_path / "rows.jsonl") == len(study.table())
    assert claims.found(tmp_path, "smoke") == [], "another study than the scale's own has no verdicts"


def test_controls_on_unseen_tasks_only():
    study = small(unseen_controls=True)
    table = study.table()
    methods = ("IST", *(DECODERS[name] for name in WHOLE["controls"]))
    sides = {name: {r["split"] for r in table if r["method"] == name} for name in methods}
    assert sides.pop("IST") == {"seen", "unseen"} and set(map(tuple, sides.values())) == {("unseen",)}
    (line,) = summary.summary(table, [("random decoder", 2)])
    assert line["split"] == "unseen"


def test_fewer_examples_are_all_that_is_read(monkeypatch):
    study = small(fewer_examples=(1, 3))
    read = []
    known = trainer.fit

    def fit(engine, source, runs, *rest):
        read.append([(len(r.examples), len(r.task.dev)) for r in runs])
        return known(engine, source, runs, *rest)

    monkeypatch.setattr(unseen, "fit", fit)
    scored, score = [], study.outcomes
    monkeypatch.setattr(
        study, "outcomes", lambda *of: (scored.append([len(t.train) for t in of[1]]), score(*of))[1]
    )
    step = unseen.fewer_examples(study, 2)
    assert {(r["examples"], r["n_train"], r["n_dev"]) for r in step.values["rows"]} == {(1, 1, 1), (3, 3, 3)}
    assert read == [[(1, 1), (1, 1), (3, 3), (3, 3)]] * 2, "two unseen tasks, IST and prompt tuning"
    assert scored == [[1, 1, 3, 3]] * 2, "the longest answer is looked for among these too"
    rows = step.values["rows"]
    found = Counter((r["method"], r["d_I"], r["examples"], r["task"]) for r in rows)
    assert set(found.values()) == {1} and len(found) == 2 * 2 * 2
    assert {(r["method"], r["d_I"]) for r in rows} == {
        (unseen.FEWER["IST"], 2),
        (unseen.FEWER["prompt tuning"], 0),
    }
    assert {r["task"] for r in rows} == set(study.unseen) and {r["split"] for r in rows} == {"unseen"}
    assert "fewer-examples-2" in [job.name for job in study.jobs()]
    with pytest.raises(ValueError, match="fewer_examples are \\(0,\\); give numbers >= 1"):
        small(fewer_examples=(0,))


def test_as_many_examples_as_there_are_give_what_ist_gives():
    study = small(fewer_examples=(32,))
    fewer = {r["task"]: r["score"] for r in unseen.fewer_examples(study, 2).values["rows"] if r["d_I"] == 2}
    whole = {r["task"]: r["score"] for r in study.codes(2).values["rows"] if r["seed"] == 0}
    assert fewer == {task: pytest.approx(whole[task]) for task in study.unseen}


def test_finished_jobs_can_be_written_alone(tmp_path, steps, monkeypatch):
    study = small(seeds=(0, 1))
    made = study.steps(finished_only=True)
    assert made == []
    jobs_by_name = {job.name: job for job in study.jobs()}
    for name in ("zero-shot", "prompts", "subspace-2", "msf-2", "codes-learned-2"):
        jobs_by_name[name].make()
    out = tmp_path / "rows.jsonl"
    count = study_files.write(study, out, finished_only=True)
    rows = result_files.read(out)
    assert count == len(rows) and {(r["method"], r["d_I"]) for r in rows} == {
        ("zero-shot", 0), ("prompt tuning", 0), ("MSF", 2), ("mean code", 2), ("IST", 2),
    }  # fmt: skip
    about = json.loads(out.with_suffix(".about.json").read_text(encoding="utf-8"))
    assert set(about["not finished"]) == set(jobs_by_name) - {
        "zero-shot", "prompts", "subspace-2", "msf-2", "codes-learned-2",
    }  # fmt: skip
    assert codes.load(out.with_suffix(codes.ENDING), 2).u.shape == (2, 8, 2)
    with pytest.raises(ValueError, match="no codes with d_I = 3, only 2"):
        codes.load(out.with_suffix(codes.ENDING), 3)
    found = subspace.load(out.with_suffix(subspace.ENDING))
    assert torch.equal(found.codes(), study.subspace(2)[0].codes())
    assert found.about["tasks"] == list(study.seen)
    expected = study.bank().tensors["P"]
    (tmp_path / "results").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(paths, "data_dir", lambda: tmp_path)
        with pytest.raises(FileNotFoundError, match="no prompts at .*rows.prompts.safetensors"):
            stored_results.load_prompts("rows")
        shutil.copy(out.with_suffix(stored_results.PROMPTS), tmp_path / "results")
        trained, of = stored_results.load_prompts("rows")
    assert torch.equal(trained, expected)
    assert (of["tasks"], of["seeds"]) == (list(study.ids), [0, 1])
    assert not jobs_by_name["subspace-3"].is_done
    before = out.read_bytes()
    (codes_step,) = steps.glob("codes-learned-2-*")
    shutil.rmtree(codes_step)
    with pytest.raises(ValueError, match=rf"only {count - 16} rows are finished in .* has {count}.*--out"):
        study_files.write(study, out, finished_only=True)
    (msf_step,) = steps.glob("msf-2-*")
    shutil.rmtree(msf_step)
    other = tmp_path / "other.jsonl"
    assert study_files.write(study, other, finished_only=True) == count - 16 - 16
    assert out.read_bytes() == before and not [*steps.glob("msf-2-*")], "nothing was scored"
    shutil.rmtree(steps)
    with pytest.raises(ValueError, match="only 0 rows are finished"):
        study_files.write(study, tmp_path / "none.jsonl", finished_only=True)
    with pytest.raises(ValueError, match="leave out --cluster"):
        pipeline.study("smoke", out, finished_only=True, address="local")


def test_rows_of_another_study_may_be_replaced_by_fewer(tmp_path):
    out = tmp_path / "rows.jsonl"
    study_files.write(small(), out)
    other = small(test_examples=3)
    other.zero_shot()
    with pytest.raises(ValueError, match="test_examples 4 there, 3 here"):
        provenance.check_target(other, out)  # what --overwrite leaves out
    assert study_files.write(other, out, finished_only=True) == 8
    assert {row["method"] for row in result_files.read(out)} == {"zero-shot"}


def test_the_scale_asked_for_wins_over_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_SCALE", "smoke")
    with pytest.raises(ValueError, match="scale 'core63' is unknown"):
        pipeline.study("core63", tmp_path / "rows.jsonl")


def test_too_few_new_examples_are_reported_before_anything_trains(monkeypatch, steps):
    study = small(seeds=(0, 1))

    def too_few(task, *_):
        raise ValueError(f"{task.id} has too few new examples")

    monkeypatch.setattr(fewshot, "leave_out", too_few)
    with pytest.raises(ValueError, match="has too few new examples"):
        study.table()
    assert not steps.exists() or not list(steps.iterdir())


def test_what_is_finished_of_some_seeds_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "MOST_RUNS", 8)
    study = small(seeds=(0, 1))
    for job in study.jobs():
        if "seed1" not in job.name:
            job.make()
    out = tmp_path / "rows.jsonl"
    study_files.write(study, out, finished_only=True)
    rows = result_files.read(out)
    assert {r["seed"] for r in rows} == {0} and "IST" in {r["method"] for r in rows}
    assert codes.load(out.with_suffix(codes.ENDING), 2).u.shape == (1, 8, 2)
    about = json.loads(out.with_suffix(".about.json").read_text(encoding="utf-8"))
    assert about["not finished"] and all("seed1" in name for name in about["not finished"])


def test_cost_of_runs_on_the_same_texts_counts_the_texts_once():
    study = small()
    costs, on = Costs(study), study.unseen_tasks(0)
    one, two, three = (costs.fit(on, study.scale.prompt, runs) for runs in (1, 2, 3))
    assert three - two == pytest.approx(two - one) and two < 2 * one


def test_with_one_seed_at_a_time_more_seeds_add_steps(monkeypatch):
    monkeypatch.setattr(base, "MOST_RUNS", 8)
    first = {job.make().folder for job in small(seeds=(0,)).jobs()}
    more = {job.make().folder for job in small(seeds=(0, 1)).jobs()}
    assert first < more and len(more - first) == 1 + 2 + 3, "prompts, two d_I and three controls of seed 1"


def test_rows_of_another_study_are_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path))
    out = tmp_path / "rows.jsonl"
    wanted = {"suite": "tiny", "split": "random", "dims": (2,), "num_seeds": 1}
    pipeline.study("smoke", out, "cpu", **wanted)
    first = out.read_bytes()
    pipeline.study("smoke", out, "cpu", **wanted)
    assert out.read_bytes() == first, "the same study again"
    other = wanted | {"dims": (3,)}
    with pytest.raises(ValueError, match=r"dims \[2\] there, \[3\] here.*main_dim.*--out.*--overwrite"):
        pipeline.study("smoke", out, "cpu", **other)
    with pytest.raises(ValueError, match="seed 0 there, 1 here"):
        provenance.check_target(Study(scales.variant("smoke", "tiny", "random", (2,), 1), seed=1), out)
    with pytest.raises(ValueError, match="made by .*--part subspace.*, this is part deep"):
        provenance.check_target(Study(scales.variant("smoke", "tiny", "random", (2,), 1)), out, "deep")
    assert out.read_bytes() == first
    pipeline.study("smoke", out, "cpu", overwrite=True, **other)
    assert out.read_bytes() != first
    for wrong in (tmp_path / "rows.txt", tmp_path / "rows", tmp_path):
        with pytest.raises(ValueError, match=r"--out .* is no file name that ends in .jsonl"):
            pipeline.study("smoke", wrong, "cpu", **wanted)
    with pytest.raises(ValueError, match="cannot write to the folder .*rows.jsonl .*--out"):
        pipeline.study("smoke", out / "more.jsonl", "cpu", **wanted)
    for name, message in (("address", "cluster"), ("suite", "suite")):
        with pytest.raises(ValueError, match=rf"{message}: an empty text"):
            pipeline.study("smoke", out, "cpu", **(wanted | {name: ""}))
    another, about = tmp_path / "other.jsonl", tmp_path / "other.about.json"
    for size, name in (({}, "as_lines"), ({"overwrite": True, "dims": (3,)}, "as_lines")):
        before = [file.read_bytes() if file.exists() else b"" for file in (another, about)]
        with monkeypatch.context() as patch, pytest.raises(files.DiskFullError):
            patch.setattr(result_files, name, full)
            pipeline.study("smoke", another, "cpu", **(wanted | size))
        assert [file.read_bytes() if file.exists() else b"" for file in (another, about)] == before
        pipeline.study("smoke", another, "cpu", **wanted)
        assert another.read_bytes() == first, "the same command goes on after a full disk"
    out.with_suffix(".about.json").unlink()
    with pytest.raises(ValueError, match="rows.about.json is not there"):
        pipeline.study("smoke", out, "cpu", **other)


def full(*_):
    raise files.DiskFullError("no space left for x")


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


FEW = {"seeds": (0,), "dims": (2,), "same_data": False, "nearest": False, "stage_two_runs": 0, "controls": ()}


def test_rows_codes_and_provenance_change_together_or_not_at_all(tmp_path, monkeypatch):
    """A full disk at any of them: before, rows were new then and codes old."""
    folder = tmp_path / "out"
    study_files.write(small(**FEW), folder / "rows.jsonl")
    before = contents(folder)
    assert sorted(before) == ["rows.about.json", "rows.codes.safetensors", "rows.jsonl"] + [
        f"rows{ending}" for ending in (stored_results.PROMPTS, subspace.ENDING)
    ]
    other = small(**FEW, test_examples=3)
    other.steps()
    for module, name in (
        (codes, "save"),
        (study_files, "_save_prompts_and_subspace"),
        (files, "write_json"),
    ):
        with monkeypatch.context() as patch, pytest.raises(files.DiskFullError):
            patch.setattr(module, name, full)
            study_files.write(other, folder / "rows.jsonl")
        assert contents(folder) == before and {f.name for f in folder.iterdir()} == {*before}
    study_files.write(other, folder / "rows.jsonl")
    after = contents(folder)
    assert after.keys() == before.keys() and after["rows.jsonl"] != before["rows.jsonl"]
    about = json.loads(after["rows.about.json"])
    assert about["files"].keys() == after.keys() - {"rows.about.json"}
    for name in about["files"]:
        provenance.check_files(folder / name, about)
    (folder / "rows.jsonl").write_bytes(before["rows.jsonl"])  # as if killed between two renames
    with pytest.raises(ValueError, match=r"rows.jsonl is not the file that its provenance.*Run the command"):
        provenance.check_files(folder / "rows.jsonl", about)
    (tmp_path / "results").mkdir()
    for name in ("rows.jsonl", "rows.about.json"):
        shutil.copy(folder / name, tmp_path / "results")
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    with pytest.raises(ValueError, match="is not the file that its provenance was written with"):
        stored_results.load_rows("rows")


def test_the_provenance_takes_its_place_first(tmp_path, monkeypatch):
    """If the process is killed right then, the same command finds its own provenance and continues."""
    study, out = small(**FEW), tmp_path / "out" / "rows.jsonl"
    study.steps()
    renamed = []

    def killed(old, new, replace=os.replace):
        if Path(new).parent == out.parent:
            renamed.append(Path(new).name)
            if len(renamed) == 2:
                raise KeyboardInterrupt
        replace(old, new)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        study_files.write(study, out)
    assert renamed[0] == "rows.about.json" and not out.exists()
    provenance.check_target(study, out)
    study_files.write(study, out)
    provenance.check_files(out, reading.read_json(out.with_suffix(".about.json")))


def test_two_studies_into_one_file_do_not_replace_each_other(tmp_path, monkeypatch):
    """The second one is refused while the first runs, whatever it measures; a killed one does not count."""
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path))
    out = tmp_path / "rows.jsonl"
    wanted = {"suite": "tiny", "split": "random", "dims": (2,), "num_seeds": 1, "only_unseen": True}
    with locks.one_writer(out, "wait"):
        for more in ({}, {"overwrite": True}, {"finished_only": True}):
            with pytest.raises(ValueError, match="another process is writing .*rows.jsonl.*--out"):
                pipeline.study("smoke", out, "cpu", **wanted, **more)
    assert not [*tmp_path.glob(".*")] and not out.exists()
    lock = locks.FileLock.acquire
    with monkeypatch.context() as patch:  # a file system without locks: the other one was faster

        def no_locks(self, *given, **named):
            if Path(self.lock_file).name.startswith(".rows"):
                raise OSError(37, "No locks available")
            return lock(self, *given, **named)

        patch.setattr(locks.FileLock, "acquire", no_locks)
        measure = pipeline._measure

        def beside(*given):
            study_files.write(small(seeds=(0,), dims=(3,), main_dim=3), out)
            return measure(*given)

        patch.setattr(pipeline, "_measure", beside)
        with pytest.raises(ValueError, match="holds rows of another study.*Nothing was changed"):
            pipeline.study("smoke", out, "cpu", **wanted)
    assert {row["d_I"] for row in result_files.read(out)} == {0, 3}, "the first one's rows are there"


@pytest.mark.parametrize("dims", [(10**12,), (2, 10**30)])
def test_a_dimension_beyond_a_prompt_is_refused_before_anything_trains(tmp_path, monkeypatch, dims, steps):
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path))
    with pytest.raises(
        ValueError, match=rf"d_I = {dims[-1]} is more than the \d+ numbers of one prompt.*--dims"
    ):
        pipeline.study("smoke", tmp_path / "rows.jsonl", "cpu", suite="tiny", split="random", dims=dims)
    assert not [*steps.glob("*/step.safetensors")]
    with pytest.raises(ValueError, match=r"num_seeds \(--seeds\) is 1000000000; give 1 to 1000"):
        scales.variant("smoke", num_seeds=10**9)


def test_files_of_killed_studies_are_removed_at_the_start(tmp_path, monkeypatch):
    """In the step cache, next to the rows, in the other caches, in the system's temporary folder."""
    monkeypatch.setenv("IPTKIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    places = [paths.steps_dir() / "prompts-1", tmp_path / "out", tmp_path / "temporary", paths.cache_dir()]
    places += [paths.models_dir(), paths.downloads_dir(), paths.tasks_dir(), paths.results_dir()]
    for place in places:
        place.mkdir(exist_ok=True)
        (place / f".checkpoint.safetensors.x{files.TEMPORARY}").write_text("half")
        (place / f".model-x{files.TEMPORARY}").mkdir()
        (place / f".model-x{files.TEMPORARY}" / "weights").write_text("half")
    with pytest.raises(ValueError, match="only 0 rows are finished"):
        pipeline.study("smoke", tmp_path / "out" / "rows.jsonl", "cpu", finished_only=True)
    assert not [*tmp_path.rglob(f"*{files.TEMPORARY}")]


# ---- the command ---------------------------------------------------------------------------------
def study_command(folder, steps):
    env = os.environ | {"IPTKIT_STEPS": str(steps), "IPTKIT_RESULTS": str(folder), "IPTKIT_SCALE": "smoke"}
    out = folder / "rows.jsonl"
    parts = [sys.executable, "-m", "iptkit", "study", "--suite", "tiny", "--split", "random", "--dims", "2,3"]
    return [*parts, "--device", "cpu", "--out", str(out)], env, out


def test_a_killed_study_resumes_and_gives_the_same_rows(tmp_path, steps):
    command, env, out = study_command(tmp_path, steps)
    killed = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not [*steps.glob("subspace-2-*/step.safetensors")] and time.monotonic() < until:
        time.sleep(0.01)
    killed.kill()  # SIGKILL
    killed.wait()
    finished = {folder.parent.name for folder in steps.glob("*/step.safetensors")}
    assert 3 <= len(finished) < 10 and not out.exists()
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert f"{len(finished)} of 10 jobs are done; the others take about " in said
    assert said.count(" | done in ") == 10 - len(finished)
    resumed = timeless(result_files.read(out))
    apart = steps.with_name("apart")
    subprocess.run(command, env=env | {"IPTKIT_STEPS": str(apart)}, capture_output=True, check=True)
    assert timeless(result_files.read(out)) == resumed, "the same as in one go"
    about = json.loads(out.with_suffix(".about.json").read_text(encoding="utf-8"))
    assert about["command"] == (
        "iptkit study --scale smoke --part subspace --suite tiny --split random --dims 2,3 --seeds 3"
    )
    assert {"scale", "dtype", "device", "seed", "seconds", "made"} <= about.keys()


def test_parts_of_a_step_keep_what_made_each(steps, monkeypatch):
    monkeypatch.setattr(base, "MOST_RUNS", 8)
    study = small()
    bank = study.bank()
    assert [part.name for part in bank.parts] == ["prompts-seed0", "prompts-seed1"]
    bank.parts[0].made_with["iptkit"] = "another"
    made = provenance.describe(study, [bank])["made"]
    assert [m["steps"] for m in made] == [["prompts-seed0"], ["prompts-seed1"]]


def test_too_many_dimensions_for_the_controls_are_reported_before_anything_runs():
    with pytest.raises(ValueError, match="d_I = 50 is too much for the principal components of 20"):
        scales.variant("ipt120", split="random20", dims=(50,))
    assert scales.variant("ipt120", split="random20", dims=(5, 50)).main_dim == 5


def test_a_scale_like_an_unknown_one(tmp_path, monkeypatch):
    (tmp_path / "scales.json").write_text('{"a": {"like": "b"}}', encoding="utf-8")
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    with pytest.raises(ValueError, match="'a' is like 'b', which is not there"):
        scales.load("a")
