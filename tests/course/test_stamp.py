import sys
from types import SimpleNamespace

import torch

import iptkit
from iptkit.course import stamp
from iptkit.models.devices import matmul_speed
from iptkit.storage import paths
from iptkit.storage.versions import rows


def test_stamp_tells_versions_model_seed_and_steps(capsys, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "iptkit.storage.step_cache", SimpleNamespace(HITS={"a": True, "b": False, "c": True})
    )
    backbone = SimpleNamespace(name="tiny-causal", device=torch.device("cpu"), dtype="float32")
    stamp.stamp(backbone, seed=7)
    table = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert table["model"] == "tiny-causal, cpu, float32"
    assert table["seed"] == "7"
    assert table["steps"] == "2 from the step cache, 1 computed"
    assert torch.__version__ in table["packages"] and table["threads"] == str(torch.get_num_threads())
    assert table["wall"].startswith("time") and table["iptkit"].startswith(iptkit.__version__)


def test_rows_need_no_git(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "iptkit")
    assert "no git commit" in dict(rows())["iptkit"]
    (tmp_path / ".git").mkdir()  # not a repository at all
    assert "no git commit" in dict(rows())["iptkit"]


def test_matmul_speed_is_a_speed():
    assert 1e-4 < matmul_speed(seconds=0.05) < 1e4
