import subprocess
import sys

import pytest

import iptkit
from iptkit import paths


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IPTKIT_STEPS", raising=False)
    return tmp_path / "cache"


def test_data_dir_holds_the_cards():
    assert (paths.data_dir() / "cards").is_dir()


def test_missing_data_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "iptkit")
    with pytest.raises(FileNotFoundError, match="data folder is missing.*install iptkit again"):
        paths.data_dir()


def test_data_of_an_installed_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "iptkit")
    (tmp_path / "iptkit" / "data" / "cards").mkdir(parents=True)
    assert paths.data_dir() == tmp_path / "iptkit" / "data"


def test_folders_are_made_in_the_cache(cache):
    functions = (paths.downloads_dir, paths.models_dir, paths.tasks_dir, paths.steps_dir)
    assert [function() for function in functions] == [
        cache / name for name in ("downloads", "models", "tasks", "steps")
    ]
    assert all(function().is_dir() for function in functions)


def test_steps_lie_where_the_variable_says(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "elsewhere"))
    assert paths.steps_dir() == tmp_path / "elsewhere"
    assert paths.downloads_dir() == cache / "downloads"


def test_relative_folders_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPTKIT_CACHE", "here")
    assert paths.cache_dir() == tmp_path / "here"


def test_a_file_in_the_way_gives_a_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("IPTKIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match="cannot write to .*file.*set the environment variable IPTKIT_CACHE"):
        paths.cache_dir()


def test_a_folder_without_write_permission_gives_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path))
    monkeypatch.setattr(paths.os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ValueError, match=r"\(no permission to write\).*IPTKIT_STEPS"):
        paths.steps_dir()


def test_importing_the_package_and_the_command_line_does_not_import_torch():
    program = (
        "import sys, iptkit, iptkit.cli, iptkit.tasks, iptkit.pipeline, iptkit.stamp, iptkit.plots\n"
        "assert 'tasks' in dir(iptkit) and iptkit.progress.track\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_the_course_imports_does_not_import_transformers():
    program = (
        "import sys\n"
        "from iptkit import claims, encoders, engine, experiments, generalisation, subspace_results, train\n"
        "assert 'torch' in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_unknown_submodules_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = iptkit.nonsense
