import json
import os
import re
import signal
import subprocess
import sys
import warnings

import pytest
import toy_notebooks as toy
from typer.testing import CliRunner

import iptkit
from iptkit.course import cli, pipeline
from iptkit.storage import downloads, paths, result_files
from iptkit.storage.files import DiskFullError
from iptkit.studies import learning_curves, stored_results


@pytest.fixture
def iptkit_command(tmp_path, monkeypatch):
    """Run a command in this process, with an empty cache; return exit code and output."""
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    for variable in ("IPTKIT_STEPS", "IPTKIT_SCALE", "IPTKIT_DEBUG"):
        monkeypatch.delenv(variable, raising=False)

    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)  # this process goes on

    def run(*words):
        result = CliRunner().invoke(cli.app, list(words), prog_name="iptkit")
        return result.exit_code, result.output

    return run


def test_version_and_help(iptkit_command):
    assert iptkit_command("--version") == (0, f"iptkit {iptkit.__version__}\n")
    code, text = iptkit_command("--help")
    assert code == 0 and all(name in text for name in ("run", "study", "tasks", "fetch", "doctor"))
    assert "--only" in iptkit_command("run", "--help")[1]


def test_python_m_iptkit():
    done = subprocess.run(
        [sys.executable, "-m", "iptkit", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"iptkit {iptkit.__version__}\n"


def test_tasks_list(iptkit_command):
    code, text = iptkit_command("tasks", "list", "--suite", "tiny")
    assert code == 0 and text.splitlines()[-1] == "8 tasks"
    assert "accuracy" in text and "tiny-" in text


def test_tasks_show(iptkit_command):
    code, text = iptkit_command("tasks", "show", "tiny-plural", "--suite", "tiny", "--examples", "2")
    assert code == 0 and "train 32" in text.replace("train 8", "train 32")
    assert text.count("->") == 2 and "licence" in text and "leakage group" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks", "show", "nothing", "--suite", "tiny"], "nothing"),
        (["tasks", "list", "--suite", "huge"], "huge"),
        (["tasks", "check", "nowhere.jsonl"], "nowhere.jsonl"),
        (
            ["tasks", "show", __file__],
            f"your own file is a suite: --suite {__file__} with the task test_cli;",
        ),
        (["run", "--scale", "huge"], "huge"),
        (["run", "--scale", "smoke", "--only", "77"], "no notebook"),
    ],
)
def test_wrong_arguments_give_one_message_and_no_traceback(
    iptkit_command, tmp_path, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    code, text = iptkit_command(*words)
    assert code == 2 and text.startswith("iptkit: ") and message in text and "Traceback" not in text


def test_tasks_check_warns_of_a_training_set_with_one_label(iptkit_command, tmp_path):
    file = tmp_path / "mine.jsonl"
    lines = [{"input": f"q{i}", "target": "no", "options": ["yes", "no"]} for i in range(20)]
    file.write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "mine.card.json").write_text('{"category": "mcqa"}')
    code, text = iptkit_command("tasks", "check", str(file))
    assert code == 0 and "mine: fine" in text
    assert "warning: task mine, seed 0: train has 5 example(s), all with the label 'no', so" in text
    lines[::2] = [line | {"target": "yes"} for line in lines[::2]]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert "warning" not in iptkit_command("tasks", "check", str(file))[1]


def test_tasks_check_tells_every_problem(iptkit_command, tmp_path):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    sums = [f'{{"input": "1 + {i} =", "target": "{1 + i}"}}\n' for i in range(6)]
    good.write_text("".join(sums), encoding="utf-8")
    bad.write_text('{"input": "", "target": "2"}\n{"inputs": "x"}\n', encoding="utf-8")
    code, text = iptkit_command("tasks", "check", str(good))
    assert code == 0 and "few-shot sets: train 1, train_new 1, dev 1, test 3;" in text
    assert "iptkit tune: train 2, dev 1, test 3" in text
    good.write_text("".join(sums[:2]), encoding="utf-8")
    code, text = iptkit_command("tasks", "check", str(good))
    assert code == 1 and "task 'good' has 2 examples, but needs at least 4" in text
    assert "1 problem(s) in 1 of 1 task(s)" in text
    good.write_text("".join(sums), encoding="utf-8")
    code, text = iptkit_command("tasks", "check", str(tmp_path))
    assert code == 1 and "bad.jsonl:1" in text and "bad.jsonl:2" in text and "nothing was changed" in text
    (tmp_path / "empty").mkdir()
    code, text = iptkit_command("tasks", "check", str(tmp_path / "empty"))
    assert code == 2 and "has no task (found: nothing)" in text


def test_tasks_check_says_the_first_twenty_problems_of_a_file_and_their_count(iptkit_command, tmp_path):
    (tmp_path / "a.JSONL").write_text('{"input": "q"}\n' * 100_000)
    (tmp_path / "b.jsonl").write_text("[" * 100_000)
    os.mkfifo(tmp_path / "0.jsonl")
    (tmp_path / "z.jsonl").symlink_to("z.jsonl")
    (tmp_path / "._b.jsonl").write_bytes(b"\0\5\x16\7")
    code, text = iptkit_command("tasks", "check", str(tmp_path))
    assert code == 1 and text.count("a.JSONL:") == 20 and text.count("b.jsonl:1: ") == 1
    assert (
        "... and 99980 more" in text and "100003 problem(s) in 4 of 4 task(s)" in text and len(text) < 10_000
    )
    assert "0.jsonl is no regular file" in text and "z.jsonl cannot be read (Too many levels of" in text


def test_tasks_check_notes_near_duplicates(iptkit_command, tmp_path):
    file = tmp_path / "mine.jsonl"
    words = ("polish", "Polish", "nail", "wood", "shoe", "door")
    file.write_text("".join(f'{{"input": "{word}", "target": "a"}}\n' for word in words))
    code, text = iptkit_command("tasks", "check", str(file))
    assert code == 0 and f"note: {file}:2: the input differs from line 1 only in case" in text
    assert '"near_duplicates": "drop"' in text and "mine: fine" in text


def test_a_warning_is_one_line(iptkit_command, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(f'{{"input": "{word}", "target": "a"}}\n' for word in ("a", "A", "b", "c", "d")))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, text = iptkit_command("tasks", "show", "mine", "--suite", str(file))
    assert code == 0 and text.startswith(f"iptkit: warning: {file}: 1 input(s) differ") and ".py:" not in text


def test_how_a_file_was_read_is_a_note_for_people_and_no_warning(iptkit_command, tmp_path, monkeypatch):
    monkeypatch.delenv("IPTKIT_QUIET", raising=False)
    file = tmp_path / "mine.csv"
    rows = [f"it is {n},{'good' if n % 2 else 'bad'}" for n in range(24)]
    file.write_text("\n".join(["sentence,label", *rows]))
    words = ("tasks", "show", "mine", "--suite", str(file))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code, text = iptkit_command(*words)
        assert code == 0 and text.startswith(f"note: {file}: read sentence as the input, label as the target")
        assert iptkit_command(*words, "--quiet") == (0, "")
        code, text = iptkit_command("tasks", "check", str(file))
    assert code == 0 and f"\nnote: {file}: read sentence as" in text and "warning" not in text


def test_what_steers_a_terminal_is_shown_and_not_obeyed(iptkit_command, tmp_path):
    file, steers = tmp_path / "mine.jsonl", "\x1b[2J\x1b]0;title\x07\r\x9b1m\u202e"
    line = json.dumps({"input": f"q{steers} {{}}", "target": f"a{steers}"})
    file.write_text("".join(line.replace("{}", str(i)) + "\n" for i in range(8)))
    (tmp_path / "mine.card.json").write_text(
        json.dumps({"title": steers, "about": steers, "licence": steers})
    )
    outputs = [
        iptkit_command("tasks", "show", "mine", "--suite", str(file)),
        iptkit_command("tasks", "check", str(file)),
        iptkit_command("tasks", "list", "--suite", str(file)),
        iptkit_command("tasks", "show", steers, "--suite", str(file)),
        iptkit_command("tasks", "check", str(tmp_path / f"{steers}.jsonl")),
    ]
    (tmp_path / "mine.jsonl").write_text(json.dumps({steers: 1, "input": "q"}))
    outputs.append(iptkit_command("tasks", "check", str(file)))
    assert [code for code, _ in outputs] == [0, 0, 0, 2, 2, 1]
    for _, text in outputs:
        assert not set(steers) - set("[2J]0;title1m") & set(text)
    assert "q\\x1b[2J" in outputs[0][1] and "\\u202e" in outputs[2][1]


def test_a_terminal_without_a_letter_gets_its_escape(tmp_path):
    (tmp_path / "mine.jsonl").write_text("".join(f'{{"input": "é {i}", "target": "好"}}\n' for i in range(8)))
    done = subprocess.run(
        [sys.executable, "-m", "iptkit", "tasks", "show", "mine", "--suite", str(tmp_path / "mine.jsonl")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "IPTKIT_CACHE": str(tmp_path)},
        check=True,
    )
    assert rb"| \xe9 " in done.stdout and rb"-> \u597d" in done.stdout


def test_run_passes_its_arguments_on(iptkit_command, tmp_path, monkeypatch):
    seen = []

    def run(*wishes):
        seen.append(wishes)
        return pipeline.Report("smoke", tmp_path, {}, {}, error="it failed" if len(seen) > 1 else "")

    monkeypatch.setattr(pipeline, "run", run)
    words = ["run", "--scale", "smoke", "--only", "05,06", "--out", str(tmp_path), "--device", "cpu"]
    assert iptkit_command(*words) == (0, "")
    assert seen == [("smoke", ["05", "06"], tmp_path, "cpu", 1800, None, None, 0)]
    assert iptkit_command(*words)[0] == 1
    monkeypatch.setenv("IPTKIT_SCALE", "paper")
    assert iptkit_command("run", "--seed", "3")[0] == 1
    assert seen[-1] == ("paper", None, None, "auto", 1800, None, None, 3)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "stopped; the same command resumes"),
        (
            ModuleNotFoundError("No module named 'papermill'", name="papermill"),
            2,
            "papermill is not installed",
        ),
        (
            ModuleNotFoundError("No module named 'myst_nb.sphinx_'", name="myst_nb.sphinx_"),
            2,
            "myst-nb is installed but broken, or has another version "
            "(No module named 'myst_nb.sphinx_'); "
            "install it again with: python -m pip install -c constraints.txt --force-reinstall",
        ),
        (
            ImportError("cannot import name 'x' from 'sklearn'", name="sklearn"),
            2,
            "the package scikit-learn is",
        ),
        (AttributeError("module 'json' has no attribute 'x'", name="x", obj=json), 2, "the package json is"),
        (PermissionError(13, "Permission denied", "/a/b"), 2, "iptkit: /a/b: Permission denied; use another"),
        (OSError("a model's own words"), 2, "iptkit: a model's own words"),
        (FileNotFoundError("could not download x"), 2, "iptkit: could not download x"),
        (DiskFullError("no space left for x"), 2, "iptkit: no space left for x"),
    ],
)
def test_what_ends_a_run_is_reported_cleanly(iptkit_command, monkeypatch, error, code, message):
    def run(*_):
        raise error

    monkeypatch.setattr(pipeline, "run", run)
    assert iptkit_command("run")[0] == code
    assert message in iptkit_command("run")[1]


@pytest.mark.skipif(os.name != "posix", reason="sends the signal of Ctrl-C, which only POSIX has")
def test_a_second_ctrl_c_ends_what_still_ends_without_a_traceback(tmp_path):
    code = """
import signal, sys, threading
from iptkit import __main__
from iptkit.course import pipeline
signal.signal(signal.SIGINT, signal.default_int_handler)  # `make test &` hands down that it is ignored
def run(*_):
    threading.Thread(target=threading.Event().wait).start()  # ends as late as a notebook's process may
    raise KeyboardInterrupt
pipeline.run = run
sys.argv = ["iptkit", "run"]
__main__.main()"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        said = ""
        while "stopped; the same command resumes" not in said:
            said += (line := process.stderr.readline())
            assert line
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode == 130 and "Traceback" not in said and "Exception" not in said


def test_a_fault_of_ours_is_not_taken_for_the_installation(monkeypatch):
    def run(*_):
        return None.x

    monkeypatch.setattr(pipeline, "run", run)
    assert isinstance(CliRunner().invoke(cli.app, ["run"]).exception, AttributeError)


BROKEN = {  # what a module of that name is instead
    "typer.py": (
        "raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')",
        "typer is not installed",
    ),
    "lazy_loader.py": (
        "raise ModuleNotFoundError(\"No module named 'lazy_loader'\", name='lazy_loader')",
        "lazy_loader is not installed",
    ),
    "filelock.py": ("", "the package filelock is installed but broken"),
    "papermill/__init__.py": ("", "the package papermill is installed but broken"),
    "sphinx/__init__.py": ("", "the package Sphinx is installed but broken"),
    "bleach/__init__.py": ("", "the package bleach is installed but broken"),
    "torch/__init__.py": ("from torch._C import x", "the package torch is installed but broken"),
}


@pytest.mark.parametrize("module", BROKEN)
def test_a_broken_environment_gives_a_sentence(tmp_path, module):
    source, message = BROKEN[module]
    (tmp_path / "site" / module).parent.mkdir(parents=True)
    (tmp_path / "site" / module).write_text(source, encoding="utf-8")
    places = [str(tmp_path / "site"), str(paths.PACKAGE.parent)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(places),
        "IPTKIT_CACHE": str(tmp_path / "cache"),
    }
    command = [sys.executable, "-m", "iptkit", "run", "--scale", "smoke", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr.startswith("iptkit: ") and message in done.stderr, done.stderr
    assert done.returncode and "pip install" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*")), "nothing ran"


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (f"{'x' * 300}.jsonl", f"cannot write the file {'x' * 60}... in "),
        (f"{'x' * 240}.jsonl", "File name too long"),  # those beside it have longer names
        (f"{'x' * 300}/rows.jsonl", "File name too long"),
        ("taken.jsonl", "there is a folder of this name"),
        ("taken.about.json/../fine.jsonl", "cannot write the file fine.about.json"),
        ("file/rows.jsonl", "(there is a file of this name); choose another one with --out"),
        ("/dev/null/mine/rows.jsonl", "cannot write to the folder /dev/null/mine (Not a directory)"),
    ],
)
def test_a_place_where_no_rows_can_be_written_is_reported_before_anything_runs(
    iptkit_command, tmp_path, monkeypatch, out, message
):
    monkeypatch.chdir(tmp_path)
    for folder in ("taken.jsonl", "taken.about.json", "fine.about.json"):
        (tmp_path / folder).mkdir()
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    code, text = iptkit_command("study", "--scale", "smoke", "--device", "cpu", "--out", out)
    assert code == 2 and text.startswith("iptkit: ") and message in text and "--out" in text
    assert (tmp_path / "file").read_text() == "mine" and not (tmp_path / "cache" / "steps").exists()


@pytest.mark.parametrize("out", ["x" * 300, "file", "/dev/null/x"])
def test_a_place_where_no_report_can_be_written_is_reported(iptkit_command, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    code, text = iptkit_command("run", "--scale", "smoke", "--device", "cpu", "--out", out)
    assert code == 2 and text.startswith("iptkit: cannot write to the folder") and "--out" in text
    assert (tmp_path / "file").read_text() == "mine"


def test_doctor_tells_what_is_missing_and_the_way_out(iptkit_command, tmp_path):
    code, text = iptkit_command("doctor")
    assert code == 0 and "TFLOP/s" in text and str(tmp_path / "cache") in text and "free disk" in text
    assert re.search(r"course +about (\d+:)?\d+:\d\d here", text)  # hours, too, on a slow machine
    assert "iptkit fetch  (downloads " in text and downloads.missing()[0] in text


def test_study_writes_rows_and_where_they_come_from(iptkit_command, tmp_path, monkeypatch):

    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    target = tmp_path / "rows.jsonl"
    code, text = iptkit_command("study", "--scale", "smoke", "--out", str(target), "--device", "cpu")
    assert code == 0 and str(target) in text
    rows = result_files.read(target)
    assert {"zero-shot", "prompt tuning", "IST", "random decoder"} <= {row["method"] for row in rows}
    about = json.loads(target.with_suffix(".about.json").read_text(encoding="utf-8"))
    assert about["scale"]["name"] == "smoke" and about["seed"] == 0
    small = tmp_path / "small.jsonl"
    for given in (["--out", str(small), "--compact"], ["--out", str(small), "--compact", "--finished-only"]):
        code, _ = iptkit_command("study", "--scale", "smoke", "--device", "cpu", *given)
        assert code == 0 and 2 * small.stat().st_size < target.stat().st_size
        assert stored_results.load_rows(small)[0] == rows == stored_results.load_rows(target)[0]


def test_a_study_of_another_suite_and_split(iptkit_command, tmp_path, monkeypatch):

    from iptkit.tasks import suites

    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.chdir(tmp_path)
    wanted = ["--suite", "tiny", "--split", "random", "--dims", "2", "--seeds", "2"]
    code, text = iptkit_command("study", "--scale", "smoke", "--device", "cpu", *wanted)
    assert code == 0 and "runs/smoke-tiny-random.jsonl" in text
    rows = result_files.read(tmp_path / "runs" / "smoke-tiny-random.jsonl")
    sides = suites.split("random", "tiny")
    assert {row["task"] for row in rows if row["split"] == "unseen"} == set(sides.unseen)
    assert {row["seed"] for row in rows} == {0, 1} and {row["d_I"] for row in rows} == {0, 2}
    about = json.loads((tmp_path / "runs" / "smoke-tiny-random.about.json").read_text(encoding="utf-8"))
    assert about["scale"]["split"] == "random" and about["scale"]["seen"] == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--split", "rows"], "suite tiny has no split 'rows'; choose one of random"),
        (["--suite", "tiny3"], "the suite 'tiny3' has no splits"),
        (["--dims", "5,x"], "--dims is '5,x'; give whole numbers separated by commas"),
        (["--dims", "5,5"], "dims are 5, 5; give numbers from 1 on, each once"),
        (["--part", "deep", "--dims", "5"], "dims: only the study 'subspace' takes these, not 'deep'"),
        (["--part", "deep", "--finished-only"], "finished_only: only the study 'subspace' takes these"),
        (["--part", "curves", "--dims", "5", "--finished-only"], "iptkit: dims: only the study 'subspace'"),
        (["--part", "encoders", "--finished-only"], "finished_only: only the study 'subspace' takes these"),
        (["--part", "encoders", "--scale", "lesson"], "the study of encoders has no scale 'lesson'"),
        (["--seeds", "0"], "Invalid value for '--seeds'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_for_a_study_are_reported_before_anything_runs(iptkit_command, given, message):
    code, text = iptkit_command("study", "--scale", "smoke", *given)
    assert code == 2 and message in " ".join(text.split())


def test_the_deep_study_has_a_file_of_its_own_and_an_unknown_one_is_refused(
    iptkit_command, tmp_path, monkeypatch
):

    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.chdir(tmp_path)
    code, text = iptkit_command("study", "--scale", "smoke", "--part", "deep", "--device", "cpu")
    assert code == 0 and "runs/smoke-deep.jsonl" in text
    assert {row["part"] for row in result_files.read(tmp_path / "runs" / "smoke-deep.jsonl")} >= {"heads"}
    code, text = iptkit_command("study", "--scale", "smoke", "--part", "deeper")
    assert (
        code == 2 and "the study 'deeper' is unknown; choose one of subspace, deep, curves, encoders" in text
    )


def test_the_study_of_encoders_has_settings_and_a_file_of_its_own(iptkit_command, tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.chdir(tmp_path)
    command = ("study", "--scale", "smoke", "--part", "encoders", "--device", "cpu")
    code, text = iptkit_command(*command)
    assert code == 0 and "rows in runs/smoke-encoders.jsonl" in text
    rows = result_files.read(tmp_path / "runs" / "smoke-encoders.jsonl")
    assert {row["part"] for row in rows} == {"rates", "compared", "lengths", "depths", "forms", "heads"}
    code, text = iptkit_command(
        "study", "--scale", "smoke", "--part", "deep", "--out", "runs/smoke-encoders.jsonl"
    )
    assert code == 2 and "holds rows of another study" in text


def test_learning_curves_are_written_and_shown(iptkit_command, tmp_path, monkeypatch):
    config = learning_curves.CurveConfig(
        prompts=((4, 2), (9, 1)), weights=(), msf=((12, 4),), ist=((3, 2),), rates=(0.1, 0.3)
    )
    monkeypatch.setattr(learning_curves, "CONFIG", config)
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    monkeypatch.chdir(tmp_path)
    given = ("study", "--scale", "smoke", "--part", "curves", "--device", "cpu")
    code, text = iptkit_command(*given)
    assert code == 0 and "runs/smoke-curves.jsonl" in text
    for shown in ("prompt tuning\n", "IST, MSF 12x4\n", "rates, random decoder\n", "that IST keeps"):
        assert shown in text
    rows = result_files.read(tmp_path / "runs" / "smoke-curves.jsonl")
    lines = learning_curves.choose(rows)["lines"]
    marked = [line.split()[1:3] for line in text.splitlines() if line.startswith("* ")]
    assert marked == [[line["budget"], f"{line['lr']:g}"] for line in lines if line["is_chosen"]]
    monkeypatch.setenv("HOME", str(tmp_path))
    code, text = iptkit_command(*given, "--finished-only", "--out=~/mine/curves.jsonl")
    assert code == 0 and f"{len(rows)} rows" in text
    assert result_files.read(tmp_path / "mine" / "curves.jsonl") == rows


def test_check_of_words_with_tags(iptkit_command, tmp_path):
    """Problems are listed with file and line; each good file gets one line."""
    file, card = tmp_path / "names.jsonl", tmp_path / "names.card.json"
    card.write_text('{"category": "tag"}')
    lines = [{"input": f"Ada Lee saw bird {i} today", "target": "I-name I-name O O O O"} for i in range(12)]
    file.write_text("\n".join(map(json.dumps, lines)))
    code, text = iptkit_command("tasks", "check", str(file))
    assert code == 0 and "names: fine (tag, scored by span_f1, labels: B-name, I-name, O)" in text
    assert text.count("IOB1 was converted to IOB2: 12 of 12 spans began with I-") == 1
    lines[3]["target"], lines[5]["target"] = "I-name O O", "O name O O O O"
    file.write_text("\n".join(map(json.dumps, lines)))
    code, text = iptkit_command("tasks", "check", str(file))
    assert code == 1 and f"{file}:4: 6 words with 3 tags" in text
    assert f"{file}:6: word 2: tag 'name' is not an IOB1 tag; write B-x, I-x or O" in text


# ---- --json and --quiet ------------------------------------------------------------------------------
@pytest.fixture
def printed(iptkit_command):
    """Exit status, stdout and stderr of a command."""

    def run(*words):
        result = CliRunner().invoke(cli.app, list(words), prog_name="iptkit")
        return result.exit_code, result.stdout, result.stderr

    return run


def test_json_of_the_commands_for_tasks(printed, tmp_path):
    code, said, _ = printed("tasks", "list", "--suite", "tiny", "--json")
    assert code == 0 and [card["id"] for card in json.loads(said)][:2] == ["tiny-mood", "tiny-kind"]
    code, said, _ = printed("tasks", "show", "tiny-plural", "--suite", "tiny", "--examples", "1", "--json")
    task = json.loads(said)
    assert code == 0 and task["metric"] == "exact_match" and task["sets"]["test"] == 46
    assert task["examples"][0].keys() == {"input", "targets", "options"}
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(f'{{"input": "{i} + 1 =", "target": "{i + 1}"}}\n' for i in range(8)))
    code, said, _ = printed("tasks", "check", str(file), "--json")
    checked = json.loads(said)
    assert code == 0 and not checked["problems"] and checked["tasks"][0]["sets"]["test"] == 2
    assert printed("tasks", "check", str(file), "--quiet") == (0, "", "")
    file.write_text('{"input": "q"}\n')
    code, said, _ = printed("tasks", "check", str(file), "--json")
    assert code == 1 and len(json.loads(said)["problems"][str(file)]) == 1
    code, said, wrong = printed("tasks", "check", str(file), "--quiet")
    assert code == 1 and not said and "1 problem(s) in 1 of 1" in wrong


def test_json_of_doctor_init_study_and_fetch(printed, tmp_path, monkeypatch):
    found = json.loads(printed("doctor", "--json")[1])
    assert {"findings", "to do"} == found.keys() and found["findings"][0][0] == "iptkit"
    made = json.loads(printed("init", str(tmp_path / "new"), "--json")[1])
    assert str(tmp_path / "new" / "README.md") in made["written"]
    assert printed("init", str(tmp_path / "new"), "--quiet") == (0, "", "")

    def study(*_, **__):
        print("jobs are done")
        return 7

    monkeypatch.setattr(pipeline, "study", study)
    code, said, noted = printed("study", "--scale", "smoke", "--out", "rows.jsonl", "--json")
    assert code == 0 and noted == "jobs are done\n"
    assert json.loads(said) == {"rows": 7, "file": "rows.jsonl", "about": "rows.about.json"}
    assert printed("study", "--scale", "smoke", "--quiet") == (0, "", "")
    monkeypatch.setattr(pipeline, "fetch", lambda: print("downloads"))
    code, said, noted = printed("fetch", "--json")
    assert json.loads(said)["cache"] == str(paths.cache_dir()) and noted == "downloads\n"


# ---- Ctrl-C --------------------------------------------------------------------------------------------
SLOW_END = """
import signal, sys, time
from iptkit.course import cli
from iptkit.course import pipeline
signal.signal(signal.SIGINT, signal.default_int_handler)  # `make test &` hands down that it is ignored
def study(*given, **named):
    try:
        print("working", flush=True)
        time.sleep(600)
    finally:
        print("ending", flush=True)
        time.sleep(600 if sys.argv[1] == "slowly" else 0)
pipeline.study = study
cli.app(["study"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX systems")
@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ("quickly", "stopped; the same command resumes from the last checkpoint"),
        ("slowly", "stopped immediately"),
    ],
)
def test_ctrl_c_once_or_twice_ends_without_a_traceback(ends, message):
    command = [sys.executable, "-c", SLOW_END, ends]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ending\n"
    if ends == "slowly":
        process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130 and "Traceback" not in said
    assert said.strip().startswith("iptkit: stopped") and message in said


def test_init_fills_a_folder_once_and_overwrites_nothing(iptkit_command, tmp_path):
    code, text = iptkit_command("init", str(tmp_path / "course"))
    assert code == 0 and f"files written to {tmp_path / 'course'}" in text and "README.md" in text
    code, text = iptkit_command("init", str(tmp_path / "course"))
    assert code == 0 and "has all files already" in text
    (tmp_path / "course" / "README.md").write_text("mine")
    code, text = iptkit_command("init", str(tmp_path / "course"))
    assert code == 2 and "README.md" in text and "nothing was changed" in text


def test_run_takes_notebooks_from_the_folder_that_is_named(iptkit_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy.write(tmp_path / "mine" / "notebooks" / "00_own.ipynb", "# 00. Mine?")
    assert iptkit_command("run", "--scale", "smoke", "--device", "cpu", "--notebooks", "mine")[0] == 0
    assert (tmp_path / "runs" / "smoke" / "00_own.html").is_file()
    code, text = iptkit_command("run", "--scale", "smoke", "--notebooks", "elsewhere")
    assert code == 2 and "no notebooks in elsewhere" in text and "iptkit init" in text


def test_a_shell_completes_commands():
    asked = {"_IPTKIT_COMPLETE": "complete_bash", "COMP_WORDS": "iptkit ta", "COMP_CWORD": "1"}
    environment = os.environ | asked
    command = [sys.executable, "-m", "iptkit"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["tasks"]
