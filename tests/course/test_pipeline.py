import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import sites
import toy_notebooks as toy

from iptkit.course import pipeline, processes, schedule
from iptkit.course.lessons import Lesson
from iptkit.storage import locks

FIGURE = """import matplotlib.pyplot as plt
from iptkit.course import plots
fig, ax = plt.subplots(figsize=(2, 1))
plots.show(fig, alt='a "white" square <1>')"""
WORK = """import os, sys
from iptkit.storage import progress
with progress.track("fit", total=2) as bar:
    bar.update(2)
print("warning", file=sys.stderr)
print(scale, device, os.environ["IPTKIT_SCALE"], os.getcwd(), os.path.isabs(os.environ["IPTKIT_STEPS"]))
assert os.path.exists(os.environ["IPTKIT_STATUS"]) and os.environ["IPTKIT_QUIET"] == "1\""""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of notebooks, and caches that no other test sees."""
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPTKIT_SCALE", "lesson")  # of the user's shell; the run's own scale wins
    monkeypatch.delenv("IPTKIT_STEPS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "notebooks"


def first(place, *cells):
    return toy.write(place / "00_start_here.ipynb", "# 00. What is <a> prompt?", *cells)


def test_a_whole_run(place, tmp_path, capsys):
    first(place, toy.code(WORK), toy.code(FIGURE))
    toy.write(place / "05_msf.ipynb", "# 05. Is there a subspace?", toy.code("print('E', 0.5)", "summary"))
    report = pipeline.run("smoke", device="cpu", notebooks=place, at_once=1)
    assert report.error == "" and report.out == tmp_path / "runs" / "smoke"
    assert report.status == {"00_start_here": "ok", "05_msf": "ok"}
    printed = nbformat.read(report.out / "00_start_here.ipynb", as_version=4).cells[3].outputs
    assert f"smoke cpu smoke {place} True\n" in [output.get("text") for output in printed]
    assert "IPTKIT_STATUS" not in os.environ and os.environ["IPTKIT_SCALE"] == "lesson"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "00 start here | started" and lines[-1].startswith("2 notebooks in 0:")
    check_pages(report.out)
    timings = json.loads((report.out / "timings.json").read_text(encoding="utf-8"))
    assert (
        timings["scale"] == "smoke"
        and timings["seconds"].keys() == timings["status"].keys() == report.seconds.keys()
    )


def check_pages(out):
    index, page = sites.article(out / "index.html"), sites.article(out / "00_start_here.html")
    links = [a["href"] for a in index.named("a") if a["href"].endswith(".html")]
    assert links == ["00_start_here.html", "05_msf.html", "00_start_here.html", "05_msf.html"]
    assert "What is &lt;a&gt; prompt?" in index.html and "E 0.5" in index.said and "processor" in index.said
    for shown in (index, page):
        assert [picture["alt"] for picture in shown.named("img")] == ['a "white" square <1>']
    assert sites.dead_links(out) == []


def test_a_failing_notebook_stops_the_run_and_says_how_to_go_on(place, tmp_path, capsys):
    first(
        place,
        toy.code("flag = 1"),
        toy.code("raise ValueError('no such prompt')"),
        toy.code("print('never')"),
    )
    toy.write(place / "05_msf.ipynb", "# 05. Is there a subspace?")
    report = pipeline.run("smoke", device="cpu", out=tmp_path / "out", notebooks=place, at_once=1)
    assert report.status == {"00_start_here": "failed"}
    assert report.error.startswith("00_start_here.ipynb failed in code cell [4]: ValueError: no such prompt")
    printed = capsys.readouterr().out
    assert "run the same command again: finished steps are kept" in printed and "index.html" in printed
    assert "no such prompt" in (tmp_path / "out" / "00_start_here.html").read_text(encoding="utf-8")
    assert 'class="failed">failed' in (report.out / "index.html").read_text(encoding="utf-8")
    assert "not run" in (report.out / "index.html").read_text(encoding="utf-8")


def test_braces_in_the_names_of_folders_stay_what_they_are(tmp_path, place):
    """Papermill fills them in, or fails."""
    place = tmp_path / "notebooks {0} {"
    first(place)
    out = tmp_path / "exp_{scale} {tag} }"
    report = pipeline.run("smoke", device="cpu", out=out, notebooks=place, at_once=1)
    assert report.error == "" and report.out == out and (out / "00_start_here.ipynb").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"cache", place.name, out.name}


def test_a_kernel_that_is_not_there_is_reported_before_anything_runs(place, tmp_path, monkeypatch):
    from jupyter_client import kernelspec

    def absent(*_):
        raise kernelspec.NoSuchKernel("python3")

    first(place)
    gone = kernelspec.KernelSpec(argv=[str(tmp_path / "gone" / "python")])
    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", lambda *_: gone)
    assert re.search(r"runs .*gone.python, which does not exist .*ipykernel", wrong(place, tmp_path))
    monkeypatch.setattr(kernelspec.KernelSpecManager, "get_kernel_spec", absent)
    assert re.search(r"no kernel 'python3'.*ipykernel.*pip install", wrong(place, tmp_path))


MEET = """import pathlib, time
mine, other = pathlib.Path({0!r}), pathlib.Path({1!r})
mine.touch()
while not other.exists():
    time.sleep(0.05)"""


def meeting(tmp_path, mine, other, *more):
    """A cell that ends when both notebooks are in it."""
    return toy.code("\n".join([MEET.format(str(tmp_path / mine), str(tmp_path / other)), *more]))


def test_two_notebooks_run_at_once_and_the_last_waits_for_all(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(schedule, "fitting", lambda *_: 2)  # nobody asks for it
    made, parents = str(tmp_path / "c"), tmp_path / "parents"
    pids_cell = toy.code(f"import os\nprint(os.getppid(), file=open({str(parents)!r}, 'a'))")
    first(place, pids_cell, meeting(tmp_path, "a", "b"))
    toy.write(place / "01_words.ipynb", "# 01. b?", pids_cell, meeting(tmp_path, "b", "a"))
    toy.write(place / "02_tuning.ipynb", "# 02. c?", pids_cell, toy.code(f"open({made!r}, 'w').close()"))
    toy.write(place / "90_end.ipynb", "# 90. d?", pids_cell, toy.code(f"print(open({made!r}).read())"))
    report = pipeline.run("smoke", None, tmp_path / "out", "cpu", 300, place)
    assert report.error == "" and set(report.status.values()) == {"ok"} and len(report.status) == 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3] == "90 end | started" and lines[-2].startswith("90 end | done in")
    took = re.fullmatch(r"4 notebooks in (0:\d\d); open .*", lines[-1])[1]
    (shown,) = re.findall(r"this run, 2 at a time (\d+:\d\d)", sites.article(report.out / "index.html").said)
    assert took == shown
    assert json.loads((report.out / "timings.json").read_text(encoding="utf-8"))["at_once"] == 2
    pids = list(map(int, parents.read_text().split()))
    assert len(pids) == 4 and len(set(pids)) == 2, "two processes run the four"
    assert not any(map(psutil.pid_exists, pids)), "and end with the run"


def test_two_run_at_once_unasked_where_that_ends_sooner_and_fits(monkeypatch):
    course = [Lesson(Path(f"{number}_x.ipynb")) for number in ("00", "01", "02", "05", "06", "90")]
    seconds = {"00_x": 10, "01_x": 500, "02_x": 200, "05_x": 100, "06_x": 100, "90_x": 5}
    monkeypatch.setattr(schedule, "_threads", lambda: 2)
    monkeypatch.setattr(schedule, "machine_memory", lambda: 24 * 2**30)
    monkeypatch.setattr(schedule, "free_memory", lambda: 14 * 2**30)
    assert schedule.fitting(course, seconds, 2.5, "cpu") == 2
    assert schedule.fitting(course, {}, 2.5, "cpu") == 1, (
        "no times are known: 6 equal ones, 5 of them a chain"
    )
    assert schedule.fitting(course, seconds, 8, "cpu") == 1, "24 GiB of texts and models are too many"
    assert schedule.fitting(course, seconds, 2.5, "cuda") == 1
    assert schedule.fitting(course[3:5], seconds, 2.5, "cpu") == 1, "06 waits for 05"
    assert schedule.fitting(course[1:2], seconds, 2.5, "cpu") == 1
    monkeypatch.setattr(schedule, "machine_memory", lambda: 16 * 2**30)
    assert schedule.fitting(course, seconds, 2.5, "cpu") == 1
    monkeypatch.setattr(schedule, "machine_memory", lambda: 24 * 2**30)
    monkeypatch.setattr(schedule, "free_memory", lambda: 12 * 2**30)
    assert schedule.fitting(course, seconds, 2.5, "cpu") == 1, "others use the memory"
    monkeypatch.setattr(schedule, "free_memory", lambda: 14 * 2**30)
    monkeypatch.setattr(schedule, "_threads", lambda: 1)
    assert schedule.fitting(course, seconds, 2.5, "cpu") == 1


def test_how_long_notebooks_take_together():
    course = [Lesson(Path(f"{number}_x.ipynb")) for number in ("00", "01", "02", "90")]
    seconds = {"00_x": 10, "01_x": 70, "02_x": 40, "90_x": 5}
    assert schedule.together(course, seconds, 1) == 125
    assert schedule.together(course, seconds, 2) == 1.5 * 75, "01, then 90; 00 and 02 beside 01"
    assert schedule.together(course, {}, 2) == 1.5 * 3, "two, then one, then 90, which waits for all"
    assert schedule.together([], {}, 2) == 0


def test_a_failing_notebook_stops_those_that_run_with_it(place, tmp_path, capsys):
    pid = tmp_path / "pid"
    pid_cell = toy.code(f"open({str(pid)!r}, 'w').write(str(__import__('os').getpid()))")
    first(place, meeting(tmp_path, "a", "b", "raise ValueError('no such prompt')"))
    toy.write(place / "01_words.ipynb", "# 01. b?", pid_cell, meeting(tmp_path, "b", "a", "time.sleep(6000)"))
    toy.write(place / "02_tuning.ipynb", "# 02. c?")
    (tmp_path / "out").mkdir()
    earlier = dict.fromkeys(("01_words", "02_tuning"), "ok")
    timings = {"scale": "smoke", "seconds": dict.fromkeys(earlier, 1.0), "status": earlier}
    (tmp_path / "out" / "timings.json").write_text(json.dumps(timings), encoding="utf-8")
    begun = time.time()
    report = pipeline.run("smoke", None, tmp_path / "out", "cpu", None, place, at_once=2)
    assert "ValueError: no such prompt" in report.error and time.time() - begun < 3000, "not after its sleep"
    assert report.status == {"00_start_here": "failed", "01_words": "stopped"}, (
        "older results of these notebooks are gone"
    )
    assert "01 words | stopped in" in capsys.readouterr().out
    until = time.time() + 600
    while psutil.pid_exists(int(pid.read_text())):
        assert time.time() < until, "its kernel ends too"
        time.sleep(0.1)


def test_a_killed_run_leaves_no_notebook_behind(place, tmp_path):
    write_pid = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid()))"
    first(place, toy.code(f"{write_pid}\nimport time\ntime.sleep(600)"))
    code = "import sys; from pathlib import Path; from iptkit.course import pipeline; " + (
        "pipeline.run('smoke', None, Path(sys.argv[1]), 'cpu', None, Path(sys.argv[2]), 2)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out"), str(place)])
    pid, until = tmp_path / "pid", time.time() + 120
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None and time.time() < until
        time.sleep(0.05)
    kernel = psutil.Process(int(pid.read_text()))
    process.kill()
    process.wait()
    kernel.wait(60)


def test_a_process_that_died_between_two_notebooks_is_replaced(place, tmp_path):
    """So is one whose notebook leaves a line unfinished: what it says next is understood."""
    unfinished = toy.code("import os\nos.system(f'printf half > /proc/{os.getppid()}/fd/1')")
    course = [Lesson(first(place, unfinished)), Lesson(first(place / "more"))]
    parameters, running = {"scale": "smoke", "device": "cpu"}, processes.Children()

    def work(lesson):
        return running.run(lesson, tmp_path / "out.ipynb", parameters, 60, lambda *_: None, {})

    assert work(course[0]) == ""
    (idle,) = running._idle
    idle.kill()
    idle.wait()
    assert work(course[1]) == "" and running._idle != [idle] and idle.stdin.closed
    running.close()
    assert not running._idle


def test_a_process_that_dies_is_reported(place, tmp_path, monkeypatch):
    first(place)
    gone = tmp_path / "gone.py"
    gone.write_text("raise SystemExit(3)", encoding="utf-8")
    known = subprocess.Popen
    monkeypatch.setattr(
        processes.subprocess, "Popen", lambda words, **how: known([sys.executable, str(gone)], **how)
    )
    report = pipeline.run("smoke", None, tmp_path / "out", "cpu", None, place, at_once=2)
    assert report.error == "00_start_here.ipynb: the process that ran it ended with exit status 3"


def test_the_longest_chain_of_notebooks_goes_first():
    course = [Lesson(Path(f"{number}_x.ipynb")) for number in ("00", "01", "02", "05", "06", "90")]
    seconds = {"00_x": 1, "01_x": 25, "02_x": 10, "05_x": 10, "06_x": 10, "90_x": 1}
    begun = []

    def work(lesson):
        begun.append(lesson)
        return 1.0, ""

    done = [lesson.number for lesson, _, _ in schedule._each(course, seconds, 1, work, lambda: None)]
    assert done == ["02", "01", "05", "06", "00", "90"]
    assert [lesson.number for lesson in begun] == done
    assert schedule.needs(course)["90_x"] == {f"{n}_x" for n in ("00", "01", "02", "05", "06")}
    assert schedule.needs(course[2:4]) == {"02_x": set(), "05_x": {"02_x"}}, (
        "what is not asked for is not waited for"
    )


def test_a_second_run_of_one_notebook_keeps_the_others_in_the_report(place, tmp_path):
    first(place)
    toy.write(place / "05_msf.ipynb", "# 05. Is there a subspace?")
    earlier = {
        "scale": "smoke",
        "seconds": {"05_msf": 7.5, "99_gone": 1},
        "status": {"05_msf": "ok", "99_gone": "ok"},
    }
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "timings.json").write_text(json.dumps(earlier), encoding="utf-8")
    (tmp_path / "out" / "05_msf.ipynb").write_text('{"cells": [', encoding="utf-8")  # a run was killed here
    report = pipeline.run("smoke", ["00"], tmp_path / "out", "cpu", notebooks=place)
    assert report.status == {"05_msf": "ok", "00_start_here": "ok"} and report.seconds["05_msf"] == 7.5


def test_a_cell_that_takes_too_long_is_stopped(place, tmp_path):
    first(place, toy.code("import time\ntime.sleep(60)"))
    report = pipeline.run("smoke", None, tmp_path / "out", "cpu", timeout_s=1, notebooks=place)
    assert "longer than 1 s; allow more with --cell-timeout" in report.error


def test_a_dead_kernel_is_reported(place, tmp_path):
    first(place, toy.code("import os\nos._exit(1)"))
    report = pipeline.run("smoke", None, tmp_path / "out", "cpu", notebooks=place)
    assert "its Python process died" in report.error and report.status == {"00_start_here": "failed"}


def wrong(place, tmp_path, **wishes):
    """Return the error of a run that must be refused before anything is executed."""
    wishes = {"scale": "smoke", "device": "cpu", "out": tmp_path / "out", "notebooks": place, **wishes}
    with pytest.raises(ValueError) as error:
        pipeline.run(**wishes)
    assert not list((tmp_path / "out").glob("*.ipynb"))
    return str(error.value)


def test_wrong_arguments_are_refused_before_anything_runs(place, tmp_path):
    first(place, toy.code("raise SystemExit"))
    assert "huge" in wrong(place, tmp_path, scale="huge")
    assert "at_once is 0; give 1 or more" in wrong(place, tmp_path, at_once=0)
    assert "no notebook '07'; there are: 00_start_here" in wrong(place, tmp_path, only=["07"])
    assert "device 'tpu' is unknown; choose auto, cpu, cuda" in wrong(place, tmp_path, device="tpu")
    assert "deep prompts of scale 'lesson-deep'; `iptkit study` does" in wrong(
        place, tmp_path, scale="lesson-deep"
    )
    assert "choose cpu or auto" in wrong(place, tmp_path, device="cuda:99")
    assert "is the folder of the notebooks themselves" in wrong(place, tmp_path, out=place)
    (tmp_path / "taken" / "00_start_here.html").mkdir(parents=True)
    message = wrong(place, tmp_path, out=tmp_path / "taken")
    assert re.search(
        "00_start_here.html is a folder, but the run writes a file of this name; .*--out", message
    )
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert re.search(
        "cannot write to the folder .*file.*--out", wrong(place, tmp_path, out=tmp_path / "file")
    )


def test_two_runs_into_one_folder_are_refused(place, tmp_path):
    first(place, toy.code("print(1)"))
    out = tmp_path / "out"
    out.mkdir()
    with locks.one_writer(out / "index.html", "wait"):
        with pytest.raises(ValueError, match=r"another process is writing .*out/index.html.*--out"):
            pipeline.run("smoke", None, out, "cpu", notebooks=place)
    assert not [*out.iterdir()]
    assert not pipeline.run("smoke", None, out, "cpu", notebooks=place).error
    assert not (out / ".index.html.lock").exists()


def test_a_run_takes_other_few_shot_samples(place, tmp_path):
    first(place, toy.code("print('seed', seed)"))
    for seed in (0, 3):
        out = tmp_path / str(seed)
        assert not pipeline.run("smoke", None, out, "cpu", notebooks=place, seed=seed).error
        assert f"seed {seed}" in (out / "00_start_here.ipynb").read_text(encoding="utf-8")


def test_a_notebook_without_the_parameters_is_refused(place, tmp_path):
    toy.write(place / "00_start_here.ipynb", "# 00. Which?", parameters="seed: int = 0")
    assert "00_start_here.ipynb has no parameter scale, device" in wrong(place, tmp_path)


def test_missing_downloads_come_first_and_their_error_is_reported(place, tmp_path, monkeypatch):
    from iptkit.storage import downloads

    def no_network():
        raise FileNotFoundError("could not download x")

    first(place, toy.code("raise SystemExit"))
    monkeypatch.setattr(downloads, "fetch_all", no_network)
    with pytest.raises(FileNotFoundError, match="could not download"):
        pipeline.run("lesson", None, tmp_path / "out", "cpu", notebooks=place)
    assert "IPTKIT_STATUS" not in os.environ


def test_fetch_tells_its_stages(place, monkeypatch, capsys):
    from iptkit.models import backbone, bundled
    from iptkit.storage import downloads
    from iptkit.tasks import suites

    monkeypatch.setattr(downloads, "fetch_all", lambda: None)
    monkeypatch.setattr(suites, "load_suite", lambda name: None)
    monkeypatch.setattr(backbone, "load", lambda name: None)
    pipeline.fetch()
    lines = capsys.readouterr().out.splitlines()
    models = [
        line for name in bundled.WHEEL_MODELS for line in (f"model {name} | started", f"model {name} | done")
    ]
    expected = ["downloads | started", "downloads | done", "tasks | started", "tasks | done", *models]
    assert [line.partition(" in ")[0] for line in lines] == expected
