import os
import subprocess
import sys

import pytest

import iptkit
from iptkit.storage import paths


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


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        (
            "course.cli tasks.suites course.pipeline course.stamp course.plots",
            "torch matplotlib transformers",
        ),
        (
            "scores.claims engine.head_engine studies.study studies.study_files training.trainer",
            "transformers",
        ),
    ],
    ids=["command line", "course"],
)
def test_what_is_imported_leaves_out(imported, absent):
    program = (
        "import sys, importlib, iptkit.course.stamp\n"
        f"for name in {imported.split()}:\n"
        "    importlib.import_module(f'iptkit.{name}')\n"
        "print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "iptkit.course.stamp" in found.stdout.split()
    assert not set(absent.split()) & set(found.stdout.split())


def test_variables_are_afterwards_as_they_were(monkeypatch):
    monkeypatch.setenv("IPTKIT_A", "before")
    with pytest.raises(KeyError), paths.variables(IPTKIT_A="inside", IPTKIT_B="new"):
        assert (os.environ["IPTKIT_A"], os.environ["IPTKIT_B"]) == ("inside", "new")
        raise KeyError
    assert os.environ["IPTKIT_A"] == "before" and "IPTKIT_B" not in os.environ
    with paths.variables(IPTKIT_B="new"):
        del os.environ["IPTKIT_B"]
    assert "IPTKIT_B" not in os.environ


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = iptkit.nonsense


def test_a_home_that_is_not_known_stays_in_the_path():
    assert str(paths.expanded("~nobody-of-this-name/a")) == "~nobody-of-this-name/a"
    assert paths.expanded("~/a").is_absolute()
