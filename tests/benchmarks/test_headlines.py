"""The page of results has every run's result once, and a finished run is not started again."""

import json

import nbformat
import pytest
import toy_notebooks as toy

from benchmarks import headlines


def ran(folder, text, status="ok"):
    """A run's folder with one lesson whose summary says `text`."""
    cell = toy.code("print(1)", "summary", outputs=[nbformat.v4.new_output("stream", text=f"{text}\n")])
    toy.write(folder / "00_start_here.ipynb", "# 00. What?", toy.code("print(0)"), cell)
    (folder / "timings.json").write_text(json.dumps({"status": {"00_start_here": status}}), encoding="utf-8")
    return folder


def test_runs_with_the_same_result_stand_together(tmp_path):
    texts = {"this CPU, seed 0": "gain 0.3", "this CPU, seed 10": "gain 0.2", "AVX2, seed 0": "gain 0.3"}
    page = headlines.page({name: ran(tmp_path / name, text) for name, text in texts.items()})
    assert "## 00_start_here" in page and page.count("gain 0.3") == 1
    assert "**this CPU, seed 0; AVX2, seed 0**" in page and "**this CPU, seed 10**" in page


def test_every_kind_has_its_variables_and_its_own_steps(tmp_path, monkeypatch):
    started = []

    def run(command, check, env):
        assert check
        started.append((command[-5], env.get("ATEN_CPU_CAPABILITY"), env["IPTKIT_STEPS"]))

    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr(headlines.subprocess, "run", run)
    ran(tmp_path / "kind0-seed0", "x")
    ran(tmp_path / "kind1-seed0", "x", "failed")
    runs = headlines.run_all(tmp_path, "lesson", [0], "00")
    assert list(runs) == ["this CPU, seed 0", "AVX2, seed 0"]
    assert [(kind, steps) for _, kind, steps in started] == [("avx2", str(tmp_path / "steps1"))]


@pytest.mark.parametrize("only", [None, "00,02"])
def test_a_run_without_all_its_lessons_is_not_finished(tmp_path, only):
    assert not headlines.is_finished(ran(tmp_path / "run", "x"), only)
    assert headlines.is_finished(tmp_path / "run", "00") and not headlines.is_finished(
        tmp_path / "none", "00"
    )
