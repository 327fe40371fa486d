"""Codes: kept and read again, their plane, walks; against plain computations."""

import numpy as np
import pytest
import torch
from stock import backbone

from iptkit.engine.compatibility import check_source
from iptkit.engine.engine import Engine
from iptkit.methods import subspace
from iptkit.methods.prompt_tuning import SoftPrompt
from iptkit.storage import paths, step_cache, tensor_files
from iptkit.studies import codes, scales, stored_results
from iptkit.studies.study import Study


def test_the_plane_keeps_the_main_axes():
    points = np.c_[np.arange(6.0), np.zeros(6), np.zeros(6)]
    places, share = codes.plane(codes.Codes(tuple("abcdef"), {}, np.stack([points, points]), points))
    assert places.shape == (6, 2) and share == pytest.approx(1.0)
    assert np.abs(places[:, 0]) == pytest.approx(np.abs(points[:, 0] - 2.5))


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.delenv("IPTKIT_SCALE", raising=False)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.setattr(step_cache, "HITS", {})
    made = Study(scales.load("smoke", seeds=(0, 1), dims=(2, 3), main_dim=2))
    made.backbone = backbone("tiny-causal", "float32")
    return made


def test_saved_codes_are_those_of_the_study(study, tmp_path):
    file = tmp_path / f"rows{codes.ENDING}"
    codes.save(study, file)
    for dim in (2, 3):
        found = codes.load(file, dim)
        assert found.tasks == study.ids and found.u.shape == (2, len(study.ids), dim)
        assert found.u == pytest.approx(study.codes(dim).tensors["u"].numpy())
        autoencoder, _ = study.subspace(dim)
        z = autoencoder.encode(study.first_prompts()).detach()
        seen = z[: len(study.seen)]
        assert found.msf == pytest.approx(((z - seen.mean(0)) / seen.std(0)).numpy(), abs=1e-5)
        assert found.labels["side"] == ("seen",) * len(study.seen) + ("unseen",) * len(study.unseen)
    with pytest.raises(ValueError, match="no codes with d_I = 7, only 2, 3"):
        codes.load(file, 7)
    with pytest.raises(FileNotFoundError, match="iptkit study"):
        codes.load(tmp_path / "none", 2)


def test_a_walk_starts_and_ends_at_the_two_solutions(study):
    first, second = study.ids[0], study.ids[-1]
    way, scores = codes.walk(study, 2, first, second, points=3)
    assert way == [0.0, 0.5, 1.0] and {len(s) for s in scores.values()} == {3}
    own = {r["task"]: r["score"] for r in study.codes(2).values["rows"] if r["seed"] == 0}
    assert scores[first][0] == pytest.approx(own[first]) and scores[second][-1] == pytest.approx(own[second])
    with pytest.raises(ValueError, match="tasks without a code: nobody"):
        codes.walk(study, 2, first, "nobody")
    with pytest.raises(ValueError, match="at least 2 points"):
        codes.walk(study, 2, first, second, points=1)


def test_units_of_a_code():
    bank = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0))
    autoencoder = subspace.AutoEncoder(bank, subspace.SubspaceConfig(3, 8), torch.Generator().manual_seed(1))
    center, spread = subspace.code_statistics(autoencoder)
    u = (autoencoder.codes() - center) / spread
    assert u.mean(0).abs().max() < 1e-5 and u.std(0) == pytest.approx(torch.ones(3), abs=1e-5)


# ---- on disk -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t, a: (t, {k: v for k, v in a.items() if k != "labels"}),
            "does not name the tasks, labels",
        ),
        (lambda t, a: (t, a | {"labels": ["x"]}), "does not name the tasks, labels and seeds"),
        (lambda t, a: (t, a | {"seeds": {"5": [0]}}), r"codes of the shapes .*ask for \{'u-5': \(1, 40, 5\)"),
        (lambda t, a: (t, a | {"tasks": a["tasks"][:3]}), "2 seeds and 3 tasks ask for"),
        (lambda t, a: (t, a | {"labels": {"side": ["seen"]}}), r"labels for \[1\] tasks"),
        (lambda t, a: ({"u-5": t["u-5"]}, a), "codes of the shapes .*ask for"),
        (lambda t, a: (t | {"msf-5": t["msf-5"][:, :4]}, a), r"'msf-5': \(40, 4\).*ask for"),
        (lambda t, a: ({"u-x": t["u-5"], "u-7": t["u-5"]}, a), "has no codes with d_I = 5, only 7"),
    ],
)
def test_codes_whose_parts_do_not_fit_are_refused(tmp_path, change, message):
    path = tmp_path / "some.codes.safetensors"
    stored = paths.data_dir() / "results" / f"ipt120{codes.ENDING}"
    tensor_files.write(path, *change(*tensor_files.read(stored)))
    with pytest.raises(ValueError, match=f"some.codes.safetensors .*{message}"):
        codes.load(str(path), 5)


def test_all_stored_codes_prompts_and_subspaces_are_read():
    there = sorted((paths.data_dir() / "results").glob(f"*{codes.ENDING}"))
    assert [path.name.removesuffix(codes.ENDING) for path in there] == ["ipt120", "lesson-deep", "lesson"]
    for path in there:
        for name in (name for name in tensor_files.read(path)[0] if name.startswith("u-")):
            read = codes.load(path, int(name[2:]))
            assert read.u.shape == (len(read.seeds), len(read.tasks), int(name[2:]))
    trained, about = stored_results.load_prompts()
    found = subspace.load_stored()
    assert trained.shape[2:] == found.shape and about["backbone"] == found.about["backbone"]
    kept = codes.load_stored()
    mine = trained[0, [about["tasks"].index(task) for task in kept.tasks]]
    mean, std = subspace.code_statistics(found)
    with torch.no_grad():  # of each task's own prompt
        assert kept.msf == pytest.approx(((found.encode(mine) - mean) / std).numpy(), abs=1e-5)
    source = SoftPrompt(trained[0], about=about)
    with pytest.raises(ValueError, match="SoftPrompt does not fit: it was made for the model smollm2-135m"):
        check_source(Engine(backbone("tiny-causal", "float32")), source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, a: ({"Q": t["P"]}, a), "not prompts P"),
        (lambda t, a: ({"P": t["P"][0]}, a), r"'P': \[120, 4, 576\]\} for \d seeds and 120 tasks"),
        (lambda t, a: (t, a | {"seeds": [0, 1, 2]}), "for 3 seeds and 120 tasks"),
        (lambda t, a: (t, {}), "for 0 seeds and 0 tasks"),
        (lambda t, a: ({"P": t["P"] / 0}, a), "not finite"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(tmp_path, monkeypatch, change, message):
    stored = tensor_files.read(paths.data_dir() / "results" / f"ipt120{stored_results.PROMPTS}")
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    tensor_files.write(tmp_path / "results" / f"mine{stored_results.PROMPTS}", *change(*stored))
    with pytest.raises(ValueError, match=rf"mine.prompts.safetensors.*{message}"):
        stored_results.load_prompts("mine")
