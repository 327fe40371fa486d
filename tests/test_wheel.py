"""An installed wheel stands alone: its commands run in an empty folder, without a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import iptkit
from iptkit.course import lessons
from iptkit.storage import paths

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,), (built,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    assert archive.name == f"iptkit-{iptkit.__version__}.tar.gz"
    return built


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder that holds the installed wheel and nothing else; other packages come from this environment."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--no-index", "--no-deps", "--quiet", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(wheel)], check=True)
    return folder


@pytest.fixture(scope="module")
def installed(site, tmp_path_factory):
    """Run Python in a folder of its own, where `iptkit` is the wheel's; return what it prints."""
    cache = tmp_path_factory.mktemp("cache")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("IPTKIT_")}
    variables |= {"PYTHONPATH": str(site), "IPTKIT_CACHE": str(cache), "OMP_NUM_THREADS": "1"}

    def run(folder, *words):
        command = [sys.executable, "-P", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=folder, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(ROOT) not in done.stdout + done.stderr
        return done.stdout

    return run


def test_the_wheel_holds_notebooks_and_data_and_no_tests(wheel):
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if not name.endswith("/")}
    own = {name for name in held if ".dist-info/" not in name}
    data = {
        f"iptkit/data/{file.relative_to(paths.data_dir()).as_posix()}"
        for file in paths.data_dir().rglob("*.*")
    }
    course = {f"iptkit/notebooks/{lesson.path.name}" for lesson in lessons.find(lessons.own_folder())}
    assert data < own and {name for name in own if name.startswith("iptkit/notebooks/")} == course
    assert all(name.startswith("iptkit/") and "test" not in name for name in own)
    assert f"iptkit-{iptkit.__version__}.dist-info/licenses/LICENSE" in held


def test_it_is_the_wheel_that_is_tested(installed, site, tmp_path):
    program = (
        "import iptkit, importlib.metadata as about; from iptkit.course import lessons; "
        "from iptkit.storage import paths; print(about.version('iptkit'), iptkit.__file__, paths.data_dir(), "
        "lessons.folder(), sep='\\n')"
    )
    version, *places = installed(tmp_path, "-c", program).splitlines()
    package = site / "iptkit"
    assert version == iptkit.__version__
    assert places == [str(package / "__init__.py"), str(package / "data"), str(package / "notebooks")]


def test_a_learner_begins_with_the_wheel_alone(installed, tmp_path):
    said = installed(tmp_path, "-m", "iptkit", "init", "course")
    assert "files written to course" in said
    folder = tmp_path / "course"
    assert "accuracy" in installed(folder, "-m", "iptkit", "tasks", "list", "--suite", "tiny")
    assert "fine" in installed(folder, "-m", "iptkit", "tasks", "check", "example_task.jsonl")
    said = installed(folder, "-m", "iptkit", "run", "--scale", "smoke", "--only", "00", "--device", "cpu")
    assert "1 notebooks in" in said and (folder / "runs" / "smoke" / "index.html").is_file()
    ran = (folder / "runs" / "smoke" / "00_start_here.ipynb").read_text(encoding="utf-8")
    assert f"iptkit        {iptkit.__version__} (no git commit)" in ran, "its kernel used the checkout"


def test_a_prompt_is_trained_used_and_exported_with_the_wheel_alone(installed, tmp_path):
    installed(tmp_path, "-m", "iptkit", "init", "course")
    folder, prompt, task = tmp_path / "course", "my.prompt.safetensors", "example_task.jsonl"
    options = ["--model", "tiny-causal", "--steps", "2", "--layout", "prompt-text-answer", "--device", "cpu"]
    installed(folder, "-m", "iptkit", "tune", task, "--out", prompt, *options)
    assert "example_task" in installed(folder, "-m", "iptkit", "score", prompt, task)
    said = installed(folder, "-m", "iptkit", "ask", prompt, "I had a kind soup.")
    assert "positive" in said or "negative" in said
    installed(folder, "-m", "iptkit", "export", prompt, "--peft", "adapter")
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()


def test_without_a_folder_the_wheels_own_notebooks_run(installed, site, tmp_path):
    before = {file: file.stat().st_mtime_ns for file in site.rglob("*") if "__pycache__" not in file.parts}
    installed(tmp_path, "-m", "iptkit", "run", "--scale", "smoke", "--only", "00", "--device", "cpu")
    assert (tmp_path / "runs" / "smoke" / "00_start_here.html").is_file()
    after = {file: file.stat().st_mtime_ns for file in site.rglob("*") if "__pycache__" not in file.parts}
    assert {k: v for k, v in after.items() if k.is_file()} == {k: v for k, v in before.items() if k.is_file()}


def test_doctor_names_no_file_of_a_checkout(installed, tmp_path):
    said = installed(tmp_path, "-m", "iptkit", "doctor")
    assert "all packages that the course needs" in said and "(no git commit)" in said
    assert "iptkit fetch" in said and "constraints.txt" not in said and " here after downloads" in said
