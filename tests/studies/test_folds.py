"""A study with folds: every task is unseen once, the folds share the prompts and differ in the subspace."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from stock import backbone, timeless

from iptkit.methods import subspace
from iptkit.scores import evaluation
from iptkit.storage import paths, step_cache
from iptkit.studies import base, codes, scales, stored_results, study_files, unseen
from iptkit.studies.jobs import unfinished
from iptkit.studies.score_rows import AROUND, DECODERS
from iptkit.studies.study import Study
from iptkit.tasks import suites
from iptkit.training.runs import FitConfig

FOLDS = {
    "folds": ("fold1", "fold2"), "compared": ("fold1_2",), "seeds": (0, 1), "dims": (2, 3), "main_dim": 2,
    "test_examples": 4, "nearest": True, "stage_two_runs": 2, "controls": ("reconstruction", *AROUND),
    "controls_once": ("fastfood_around",), "control_lr": {"random_around": 0.1}, "unseen_controls": True,
    "reconstruction": FitConfig(steps=7, lr=0.01),
}  # fmt: skip


@pytest.fixture(autouse=True)
def steps(tmp_path, monkeypatch):
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(step_cache, "HITS", {})
    return tmp_path / "steps"


def folded(**changes):
    study = Study(scales.load("smoke", **{**FOLDS, **changes}))
    study.backbone = backbone("tiny-causal", "float32")
    return study


def test_every_task_is_unseen_once_and_judged_once_as_a_seen_one():
    study = folded()
    rows, ids = study.table(), [card.id for card in suites.list_cards("tiny")]
    measured = Counter(
        (r["task"], r["method"], r["d_I"], r["seed"], r.get("fold"), r.get("run")) for r in rows
    )
    assert set(measured.values()) == {1}
    for dim in (2, 3):
        for side in ("seen", "unseen"):
            mine = [r for r in rows if r["d_I"] == dim and r["split"] == side and r.get("fold") != "fold1_2"]
            for method, times in (("IST", 2), ("MSF", 1), ("mean code", 1)):
                tasks = Counter(r["task"] for r in mine if r["method"] == method)
                assert tasks == dict.fromkeys(ids, times), (dim, side, method)
    for decoder in FOLDS["controls"]:
        mine = [r for r in rows if r["method"] == DECODERS[decoder]]
        times = 1 if decoder in FOLDS["controls_once"] else 2
        assert Counter(r["task"] for r in mine) == dict.fromkeys(ids, times)
        assert {r["split"] for r in mine} == {"unseen"}
    for method in ("zero-shot", "prompt tuning"):
        mine = [r for r in rows if r["method"] == method]
        assert {r["split"] for r in mine} == {"both"} and not any("fold" in r for r in mine)
        assert {r["task"] for r in mine} == set(ids)
    few = [r for r in rows if r.get("fold") == "fold1_2"]
    assert {r["method"] for r in few} == {"IST", "MSF", "mean code"} and {r["d_I"] for r in few} == {2}
    assert {r["task"] for r in few} == set(suites.split("fold1", "tiny").unseen)
    two = [r for r in rows if r["method"] == unseen.STAGE_TWO]
    assert Counter(r["task"] for r in two) == dict.fromkeys(ids, 2)


def test_rows_say_how_long_and_how_far_and_with_what():
    rows = folded().table()
    assert all(isinstance(r["log_likelihood"], float) and r["log_likelihood"] <= 0 for r in rows)
    assert all(r["processor"] and r["dtype"] == "float32" for r in rows)
    trained = [
        r for r in rows if r["method"] not in ("zero-shot", "mean code", "mean prompt", unseen.NEAREST)
    ]
    assert all(r["steps"] > 0 and 0 < r["best_step"] <= r["steps"] for r in trained)
    assert all(r["seconds"] >= 0 and r["cpu_seconds"] >= 0 for r in trained)
    assert all(r["reconstruction"] > 0 for r in rows if r["method"] == "MSF")


def test_the_folds_share_prompts_and_have_subspaces_of_their_own():
    study = folded(seeds=(0,))
    one, two, few = study.parts
    bank = study.first_prompts()
    for part in (one, two, few):
        mine = part.first_prompts()
        for place, task in enumerate(part.ids):
            assert torch.equal(mine[place], bank[study.ids.index(task)])
    first, second = (part.found(2)[0] for part in (one, two))
    assert not torch.equal(first.decoder.inner.weight, second.decoder.inner.weight)
    start = [part.generator().initial_seed() for part in study.parts]
    assert len({*start}) == 3, "each fold draws other first weights"
    assert one.judged == (*suites.split("fold1", "tiny").scored, *one.unseen)


def test_the_controls_start_where_ist_starts():
    study = folded(seeds=(0,))
    part = study.parts[0]
    learned = subspace.IntrinsicPrompt(part.decoder(2, "learned"), 1)
    start = learned(torch.tensor([0])).embeds
    for decoder in AROUND:
        control = subspace.IntrinsicPrompt(part.decoder(2, decoder), 1)
        assert torch.equal(control(torch.tensor([0])).embeds, start), decoder
    mean = [r for r in part.msf(2).values["rows"] if r["method"] == "mean code" and r["split"] == "unseen"]
    tasks = part.unseen_tasks(0)
    source = subspace.IntrinsicPrompt(part.decoder(2, "random_around"), len(tasks))
    outcomes = evaluation.outcomes(study.engine, source, tasks, limit=4)
    assert [r["score"] for r in mean] == [o.score for o in outcomes]


def test_a_subspace_without_rows_is_made_only_if_a_row_needs_it(steps):
    study = folded(seeds=(0,))
    rows = study.table()
    assert not unfinished(study.jobs())
    for folder in steps.glob("subspace-*"):
        (folder / step_cache.DONE).unlink()
    again = folded(seeds=(0,))
    assert not unfinished(again.jobs()), "its scores are there"
    assert again.table() == rows and not [*steps.glob(f"subspace-*/{step_cache.DONE}")]
    for folder in steps.glob("codes-learned-3-*fold2*"):
        (folder / step_cache.DONE).unlink()
    left = [job.name for job in unfinished(folded(seeds=(0,)).jobs())]
    assert left == ["subspace-3-fold2", "codes-learned-3-fold2"]


def test_a_second_run_of_one_fold_gives_equal_rows(tmp_path, monkeypatch):
    first = folded().table()
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "others"))
    assert timeless(folded().table()) == timeless(first)


def test_what_is_finished_of_a_study_with_folds_is_written(tmp_path, steps, monkeypatch):
    """Rows of finished jobs; prompts of the first sample, subspace and codes of the first fold once there."""
    monkeypatch.setattr(base, "MOST_RUNS", 8)  # one group of jobs per few-shot sample
    study = folded()
    jobs = {job.name: job for job in study.jobs()}
    out = tmp_path / "rows.jsonl"

    def write(*names):
        for name in names:
            jobs[name].make()
        there = sorted(step.name for step in steps.iterdir())
        count = study_files.write(study, out, finished_only=True)
        assert there == sorted(step.name for step in steps.iterdir()), "nothing was measured"
        rows, about = stored_results.load_rows(out)
        assert count == len(rows) and about["files"].keys() == {
            file.name for file in tmp_path.glob("rows.*") if file.name != "rows.about.json"
        }
        left = [job.name for job in unfinished(study.jobs())]
        assert about["not finished"] == left and not {*names} & {*left}
        endings = {file.suffixes[0] for file in tmp_path.glob("rows.*.safetensors")}
        return {(r["method"], r.get("fold", ""), r["seed"]) for r in rows}, endings

    with pytest.raises(ValueError, match="only 0 rows are finished"):
        study_files.write(study, out, finished_only=True)
    bare = {("zero-shot", "", 0)}
    assert write("zero-shot") == (bare, set())
    tuned = {("prompt tuning", "", 1)}
    assert write("prompts-seed1") == (bare | tuned, set()), "not of the first sample"
    tuned |= {("prompt tuning", "", 0)}
    assert write("prompts-seed0") == (bare | tuned, {".prompts"})
    found = {("MSF", "fold2", 0), ("mean code", "fold2", 0)}
    assert write("subspace-2-fold2", "msf-2-fold2") == (bare | tuned | found, {".prompts"})
    assert write("subspace-2-fold1") == (bare | tuned | found, {".prompts", ".subspace"})
    found |= {("IST", "fold1", 0)}
    assert write("codes-learned-2-seed0-fold1") == (bare | tuned | found, {".prompts", ".subspace", ".codes"})
    (tmp_path / "results").mkdir()
    shutil.copy(out.with_suffix(stored_results.PROMPTS), tmp_path / "results")
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    trained, about = stored_results.load_prompts("rows")
    assert torch.equal(trained, study.bank().tensors["P"][:1])
    assert (about["seeds"], about["tasks"]) == ([0], list(study.ids))
    stored = subspace.load(out.with_suffix(subspace.ENDING))
    assert stored.about["tasks"] == list(study.parts[0].seen)
    assert torch.equal(stored.codes(), study.parts[0].found(2)[0].codes())
    kept, first = codes.load(out.with_suffix(codes.ENDING), 2), study.parts[0]
    assert kept.tasks == first.coded and kept.seeds == (0,)
    mine = trained[0, [about["tasks"].index(task) for task in kept.tasks]]
    mean, std = subspace.code_statistics(stored)
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(kept.msf), (stored.encode(mine) - mean) / std)


def test_weights_are_tuned_on_all_tasks(monkeypatch):
    from iptkit.methods import fine_tuning

    seen = []

    def found(backbone, task, method, steps, batch, *_, **__):
        seen.append((task.id, steps, batch))
        return fine_tuning.Reference(0.5, -1.0, 10, 1.0, 2.0)

    monkeypatch.setattr(fine_tuning, "fine_tune", found)
    how = replace(scales.load("smoke").prompt, steps=3, rows_per_run=5)
    study = folded(weights=("fine-tuning",), weights_fit=how, seeds=(0,), compared=(), nearest=False)
    rows = [r for r in study.table() if r["method"] == "fine-tuning"]
    assert [r["task"] for r in rows] == list(study.ids) and {(s, b) for _, s, b in seen} == {(3, 5)}
    assert {(r["split"], r["log_likelihood"], r["cpu_seconds"], r["steps"]) for r in rows} == {
        ("both", -1.0, 2.0, 3)
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seen": ("tiny-mood", "tiny-kind")}, "names tasks and folds"),
        ({"folds": ()}, "compared needs folds"),
        ({"controls_once": ("pca",)}, "controls_once or control_lr name pca"),
        ({"layout": "answer-first"}, "layout is 'answer-first'"),
    ],
)
def test_a_scale_that_contradicts_itself_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        folded(**changes)


def test_weights_of_an_encoder_decoder_are_refused_before_anything_runs():
    study = folded(weights=("fine-tuning",))
    study.backbone = replace(study.backbone, kind="seq2seq")
    with pytest.raises(ValueError, match="are for causal models, but tiny-causal is seq2seq"):
        study.jobs()


def test_reconstruction_alone_has_a_training_of_its_own():
    part = folded(seeds=(0,)).parts[0]
    alone, both = part.found(2, task_weight=0.0)[1], part.found(2)[1]
    assert len(alone.tensors["losses"]) == 7 != len(both.tensors["losses"]) == part.scale.msf.steps
    longer = folded(seeds=(0,), reconstruction=FitConfig(steps=9, lr=0.01)).parts[0]
    assert (
        longer.codes_of_group(2, "reconstruction", (0,)).folder
        != part.codes_of_group(2, "reconstruction", (0,)).folder
    )
    assert longer.found(2)[1].folder == both.folder
