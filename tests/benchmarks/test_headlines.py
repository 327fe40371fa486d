"""A run's answers are kept once, a run that the file has is not repeated, and the page counts them."""

import doctest
import json
import re
from dataclasses import dataclass, replace
from types import SimpleNamespace

import nbformat
import pytest
import toy_notebooks as toy

from benchmarks import headlines, page
from iptkit.studies import scales

LINE = "gain over zero-shot {}\n"
ONE = (headlines.Answer("02", "gain over zero-shot", ("gain, score",)),)


def ran(folder, text):
    """A run's folder with lesson 02, whose output is `text`."""
    cells = [toy.code("print(1)", outputs=[nbformat.v4.new_output("stream", text=text)])]
    toy.write(folder / "02_prompt_tuning.ipynb", "# 02. What?", *cells)
    return folder


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The runs that were started: kind and steps folder; each writes lesson 02 with a number of its own."""
    found = []

    def run(command, check, env):
        assert check
        out = command[command.index("--out") + 1]
        found.append((env.get("ATEN_CPU_CAPABILITY"), env["IPTKIT_STEPS"]))
        value = f"+0.2{len(found)}0 [+0.1{len(found)}0, +0.300]"
        ran(tmp_path / out, "model smollm2-135m, cpu, mixed\n" + LINE.format(value))

    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    monkeypatch.setattr(headlines, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(headlines, "processor", lambda: "a CPU")
    monkeypatch.setattr(headlines, "measured", lambda notebook: notebook.name)
    return found


def test_every_kind_has_its_variables_and_its_own_steps_and_no_run_is_repeated(tmp_path, started):
    file = tmp_path / "headlines.json"
    given = [str(tmp_path), "--json", str(file), "--only", "02"]
    headlines.main([*given, "--seeds", "0"])
    assert started == [(None, str(tmp_path / "steps-native")), ("avx2", str(tmp_path / "steps-AVX2"))]
    headlines.main([*given, "--seeds", "0,10", "--kinds", "native"])
    assert len(started) == 3
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"]
    assert set(runs) == {"a CPU, seed 0", "a CPU, as AVX2, seed 0", "a CPU, seed 10"}
    last = runs["a CPU, seed 10"]
    assert last["lessons"] == {"02": {"gain over zero-shot": "gain over zero-shot +0.230 [+0.130, +0.300]"}}
    assert last["about"]["model"] == "smollm2-135m, cpu, mixed"


def test_a_lesson_without_its_line_is_an_error_and_the_file_stays(tmp_path):
    with pytest.raises(
        ValueError, match="02_prompt_tuning.ipynb prints too few numbers .* 'gain over zero-shot'"
    ):
        headlines.add(tmp_path / "headlines.json", "run", ran(tmp_path / "run", LINE.format("none")))
    assert not (tmp_path / "headlines.json").exists()


def test_a_result_file_without_digests_takes_new_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(headlines, "ANSWERS", ONE)
    file, out = tmp_path / "headlines.json", ran(tmp_path / "run", LINE.format("+0.210 [+0.110, +0.310]"))
    file.write_text(json.dumps({"runs": {"run": {"lessons": {"05": {"seen": "seen 1.0 [0.5, 1.5]"}}}}}))
    headlines.add(file, "run", out)
    run = json.loads(file.read_text(encoding="utf-8"))["runs"]["run"]
    assert set(run["lessons"]) == {"02", "05"} and set(run["measured"]) == {"02"}
    assert headlines.current(run, out / "02_prompt_tuning.ipynb")


def test_a_run_as_this_cpu_is_ignores_what_the_shell_says(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert "ATEN_CPU_CAPABILITY" not in headlines.env_of("native")
    assert headlines.env_of("AVX2")["ATEN_CPU_CAPABILITY"] == "avx2"


def test_an_unknown_kind_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        headlines.main([str(tmp_path), "--kinds", "AVX3"])
    assert "--kinds AVX3: the kinds are native, AVX2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        (["+0.200 [+0.100, +0.300]", "+0.400 [-0.100, +0.900]"], ["+0.200 to +0.400", "1 of 2", "1 of 2"]),
        (["-0.200 [-0.300, -0.100]", "+0.250 [+0.240, +0.260]"], ["-0.200 to +0.250", "2 of 2", "1 of 2"]),
        ([], ["", "0 of 0", "0 of 0"]),
    ],
)
def test_the_page_counts_what_the_runs_say(tmp_path, monkeypatch, values, counted):
    monkeypatch.setattr(headlines, "ANSWERS", ONE)
    stored = ran(tmp_path / "stored", LINE.format("+0.210 [+0.110, +0.310]"))
    lines = [{"02": {"gain over zero-shot": LINE.format(value).strip()}} for value in values]
    now = {"02": headlines.measured(stored / "02_prompt_tuning.ipynb")}
    runs = {f"run {number}": {"lessons": found, "measured": now} for number, found in enumerate(lines)}
    runs["of an earlier lesson"] = {
        "lessons": {"02": {"gain over zero-shot": "gain over zero-shot 9.0 [8.0, 10.0]"}}
    }
    (row,) = headlines.answer_cells(runs, stored)
    assert row == ["02", "gain, score", "+0.210 [+0.110, +0.310]", *counted]


def test_a_lesson_that_measures_something_else_is_run_again(tmp_path, started, monkeypatch):
    given = [str(tmp_path), "--json", str(tmp_path / "headlines.json"), "--only", "02", "--seeds", "0"]
    headlines.main([*given, "--kinds", "native"])
    monkeypatch.setattr(headlines, "measured", lambda lesson: "another")
    headlines.main([*given, "--kinds", "native"])
    headlines.main([*given, "--kinds", "native"])
    assert len(started) == 2


def test_code_and_settings_of_a_lesson_count_and_its_exercises_and_texts_do_not(tmp_path, monkeypatch):
    def digest(*cells, name="02_prompt_tuning.ipynb"):
        toy.write(tmp_path / name, *cells)
        return headlines.measured(tmp_path / name)

    exercise, injected = toy.code("answer = 1"), toy.code('scale = "lesson"')
    exercise.metadata["tags"], injected.metadata["tags"] = ["solution"], ["injected-parameters"]
    first = digest("# 02. What?", toy.code("print(1)"))
    assert digest("# 02. Another title", injected, toy.code("print(1)"), exercise) == first
    assert digest("# 02. What?", toy.code("print(2)")) != first
    alone = digest("# 05. What?", toy.code("print(1)"), name="05_subspace_finding.ipynb")
    real = scales.load("lesson")
    monkeypatch.setattr(scales, "load", lambda name: replace(real, discrete=None, ptuning=None))
    assert digest("# 02. What?", toy.code("print(1)")) != first  # 02 reads `ptuning`
    assert digest("# 05. What?", toy.code("print(1)"), name="05_subspace_finding.ipynb") == alone


def test_a_new_setting_with_its_default_changes_nothing(monkeypatch):
    @dataclass(frozen=True)
    class Newer(scales.Scale):
        more: int = 0

    lesson, known = page.NOTEBOOKS / "02_prompt_tuning.ipynb", scales.load
    before, more = headlines.measured(lesson), {}
    monkeypatch.setattr(scales, "load", lambda name: Newer(**vars(known(name)), **more))
    assert headlines.measured(lesson) == before
    more["more"] = 1
    assert headlines.measured(lesson) != before


def test_every_stored_lesson_prints_its_answers():
    found = {path.name[:2]: headlines.answers(path) for path in headlines.notebooks(page.NOTEBOOKS)}
    for answer in headlines.ANSWERS:
        line = found[answer.lesson][answer.line]
        assert len(headlines.numbers(line)) >= len(answer.values) and re.search(r"\d", line)


def test_the_examples_of_the_docstrings():
    assert doctest.testmod(headlines).failed == 0
