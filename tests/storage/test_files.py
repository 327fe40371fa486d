import errno
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import zipfile

import pytest
import safetensors.torch
import torch

import iptkit
from iptkit.course import lessons
from iptkit.models import weights
from iptkit.scores import claims
from iptkit.storage import (
    archives,
    digests,
    files,
    locks,
    outputs,
    progress,
    reading,
    result_files,
    step_cache,
    tensor_files,
)
from iptkit.studies import provenance, scales
from iptkit.studies.study import Study


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new folder" / "a.txt"
    with files.atomic(path) as temporary:
        temporary.write_text("half")
        assert not path.exists() and temporary.parent == path.parent
        temporary.write_text("whole")
    assert path.read_text() == "whole" and os.listdir(path.parent) == ["a.txt"]


def test_an_error_changes_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(KeyError), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]


FULL = "No space left on device"
OF_RUST = safetensors.SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28)")


QUOTA = safetensors.SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, FULL), OSError(errno.EDQUOT, "quota"), OF_RUST, QUOTA]
)
def test_a_full_disk_is_reported_with_the_way_out(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(files.DiskFullError, match=r"a.txt in .*IPTKIT_STEPS") as caught, files.atomic(path):
        raise error
    assert caught.value.__cause__ is error
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]


def test_an_error_that_only_speaks_of_a_full_disk_stays_what_it_is(tmp_path):
    """A notebook's traceback names the file itself."""
    with pytest.raises(RuntimeError, match="os error 28"), files.room_for(tmp_path / "a.ipynb"):
        raise RuntimeError("Traceback: SafetensorError: I/O error (os error 28)")


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), files.atomic(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
def test_the_system_says_no_space_left_as_expected():
    with pytest.raises(OSError) as caught, open("/dev/full", "w") as device:
        device.write("x")
        device.flush()
    assert caught.value.errno in files.NO_SPACE


def test_a_file_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync") or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: calls.append("replace") or replace(a, b))
    files.write_json(tmp_path / "a.json", {"b": 1})
    assert calls == ["fsync", "replace"]


def test_json(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": [1, 2.5], "a": "é"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"b": [1, 2.5], "a": "é"} and text.index('"a"') < text.index('"b"')


# ---- what a killed process leaves --------------------------------------------------------------------
BUSY = """
import sys, time
from pathlib import Path
from iptkit.storage import files
place = Path(sys.argv[1])
with files.scratch(place, "model") as folder, files.atomic(place / "a.txt") as draft:
    (folder / "weights").write_text("half")
    draft.write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not files.HAS_LOCKS, reason="this system has no flock")
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    (tmp_path / "mine.txt").write_text("stays")
    files.sweep([tmp_path])
    assert len(os.listdir(tmp_path)) == 3, "its process lives"
    process.kill()
    process.communicate()
    files.sweep([tmp_path, tmp_path / "not there"])
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_a_sweep_follows_no_links(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("stays")
    (tmp_path / f"x{files.TEMPORARY}").symlink_to(tmp_path / "mine")
    files.sweep([tmp_path])
    assert (tmp_path / "mine" / "a.txt").exists()


def test_files_take_their_places_together(tmp_path):
    (tmp_path / "rows").write_text("before")
    with pytest.raises(KeyError), files.together(tmp_path, "about") as place:
        (place / "rows").write_text("after")
        raise KeyError
    assert (tmp_path / "rows").read_text() == "before" and os.listdir(tmp_path) == ["rows"]
    with files.together(tmp_path, "about") as place:
        for name in ("rows", "codes", "about"):
            (place / name).write_text("after")
        assert (tmp_path / "rows").read_text() == "before"
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == dict.fromkeys(
        ("rows", "codes", "about"), "after"
    )


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not list open files")
def test_no_file_is_open_that_windows_would_have_to_rename_or_remove(tmp_path, monkeypatch):
    """Windows refuses that. This system does not, so the test looks for open files itself."""
    monkeypatch.setattr(files, "HAS_LOCKS", False)
    monkeypatch.setattr(os, "replace", closed(os.replace))
    monkeypatch.setattr(os, "unlink", closed(os.unlink))
    with files.atomic(tmp_path / "a.txt") as draft:
        draft.write_text("whole")
    with pytest.raises(KeyError), files.atomic(tmp_path / "a.txt") as draft:
        raise KeyError
    with files.scratch(tmp_path) as folder, files.together(tmp_path, "b.txt") as place:
        (folder / "c.txt").write_text("c")
        (place / "b.txt").write_text("b")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"] and (tmp_path / "a.txt").read_text() == "whole"


def closed(change):
    """The function `change` of a path, which first makes sure that this process holds no such file open."""

    def checked(path, *more, **options):
        held = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
        assert os.path.realpath(path) not in held or "dir_fd" in options
        change(path, *more, **options)

    return checked


def test_the_name_of_a_temporary_file_is_never_too_long(tmp_path):
    path = tmp_path / ("x" * 255)
    with files.atomic(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"


# ---- strings are paths ---------------------------------------------------------------------------
INSIDE = (
    "iptkit.course.display",
    "iptkit.course.execution",
    "iptkit.course.processes",
    "iptkit.course.reference",
    "iptkit.course.schedule",
    "iptkit.course.site",
    "iptkit.storage.indexes",
    "iptkit.storage.revision",
)  # the kit calls them itself


def public_functions():
    for name in (m.name for m in pkgutil.walk_packages(iptkit.__path__, "iptkit.")):
        if name.endswith("__main__") or name in INSIDE:
            continue
        module = importlib.import_module(name)
        for key, thing in vars(module).items():
            if inspect.isfunction(thing) and thing.__module__ == name and not key.startswith("_"):
                yield f"{name}.{key}", inspect.signature(thing)


def test_no_public_function_insists_on_a_path_object():
    wanted = {
        f"{name}({argument.name})"
        for name, signature in public_functions()
        for argument in signature.parameters.values()
        if re.sub(r"<class '|'>|pathlib\.(_local\.)?", "", str(argument.annotation))
        in ("Path", "Path | None")
    }
    assert wanted == set()


def test_a_string_is_as_good_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write_json("a.json", {"x": 1})
    assert reading.read_json("a.json") == {"x": 1} and len(digests.sha256("a.json")) == 64
    tensor_files.write("a.safetensors", {"x": torch.ones(2)})
    assert tensor_files.read("a.safetensors")[0]["x"].tolist() == [1.0, 1.0]
    assert weights.shapes("a.safetensors") == {"x": (2,)}
    result_files.write("rows.jsonl", [{"task": "t"}])
    assert result_files.read("rows.jsonl") == [{"task": "t"}]
    made = step_cache.step("some", {}, lambda _: ({"x": torch.zeros(1)}, {"rows": []}), root="steps")
    assert step_cache.step("some", {}, None, root="steps").folder == made.folder
    with locks.alone(".", "something"), files.scratch(".") as folder:
        assert folder.is_dir()
    assert outputs.writable_folder("new", "--out") == tmp_path / "new"
    assert files.set_aside("a.json").name == "a.json.damaged"
    (tmp_path / "00_one.ipynb").touch()
    assert [lesson.path.name for lesson in lessons.find(".")] == ["00_one.ipynb"]
    with zipfile.ZipFile("some-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some/words.txt", "words")
    assert archives.read_archive("some-1.0-py3-none-any.whl", "some/words.txt") == {
        "some/words.txt": b"words"
    }
    assert progress.read_status("nothing.json") is None and claims.found("nowhere", "smoke") == []
    study = Study(scales.load("smoke"))
    assert provenance.differences(study, "rows.jsonl") == [
        "rows.about.json is not there, so nothing says what made them"
    ]
