import errno
import json
import os
import random
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from iptkit.storage import digests, files, locks, revision, step_cache, tensor_files


@dataclass(frozen=True)
class Config:
    steps: int = 3
    lr: float = 0.1


@pytest.fixture(autouse=True)
def no_hits(monkeypatch):
    monkeypatch.setattr(step_cache, "HITS", {})


class Maker:
    """Counts how often it was asked."""

    def __init__(self, value=1.0):
        self.calls, self.value = 0, value

    def __call__(self, checkpoint):
        self.calls += 1
        return {"P": torch.full((2,), self.value)}, {"rows": [{"task": "a", "score": 0.5}]}


def test_a_step_is_made_once(tmp_path):
    make = Maker()
    first = step_cache.step("bank", [Config()], make, tmp_path)
    second = step_cache.step("bank", [Config()], make, tmp_path)
    assert make.calls == 1 and (first.was_cached, second.was_cached) == (False, True)
    assert torch.equal(first.tensors["P"], second.tensors["P"]) and first.values == second.values
    assert second.name == "bank" and second.seconds == first.seconds >= 0
    assert step_cache.HITS == {"bank": False}, "this process did not find it in the cache"


def test_hits_tell_what_came_from_the_cache(tmp_path):
    step_cache.step("bank", 1, Maker(), tmp_path)
    step_cache.HITS.clear()
    step_cache.step("bank", 1, Maker(), tmp_path)
    assert step_cache.HITS == {"bank": True}


def test_a_step_is_the_same_whether_it_was_made_or_found(tmp_path):
    """Also in its types: what a notebook does with a fresh result must work with a cached one."""

    def make(checkpoint):
        return {}, {"pair": (1, 2), 3: "three"}

    first, second = (step_cache.step("words", 1, make, tmp_path) for _ in "ab")
    assert (
        (first.tensors, first.values)
        == (second.tensors, second.values)
        == ({}, {"pair": [1, 2], "3": "three"})
    )


def test_any_change_of_the_config_is_another_step(tmp_path):
    configs = [
        ["prompt", Config(), (0, 1)],
        ["prompt", Config(lr=0.2), (0, 1)],
        ["prompt", Config(), (0, 2)],
        ["msf", Config(), (0, 1)],
        ["prompt", Config(), (0, 1), None],
    ]
    makers = [Maker(float(i)) for i in range(len(configs))]
    for config, make in zip(configs, makers, strict=True):
        step_cache.step("s", config, make, tmp_path)
    assert [make.calls for make in makers] == [1] * 5
    for i, config in enumerate(configs):
        assert step_cache.step("s", config, makers[i], tmp_path).tensors["P"][0] == i


def test_a_killed_make_leaves_no_step_but_its_checkpoint(tmp_path):
    def killed(checkpoint):
        tensor_files.write(checkpoint, {"x": torch.ones(1)}, {"step": 5})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step_cache.step("bank", 1, killed, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert not (folder / "step.safetensors").exists() and step_cache.HITS == {}
    seen = []

    def resumed(checkpoint):
        seen.append(tensor_files.read(checkpoint)[1])
        return Maker()(checkpoint)

    assert not step_cache.step("bank", 1, resumed, tmp_path).was_cached
    assert seen == [{"step": 5}] and not (folder / "checkpoint.safetensors").exists()


def test_all_checkpoints_stay_until_the_step_is_stored(tmp_path, monkeypatch):
    """A step of two trainings keeps both checkpoints through a full disk at its end."""
    names = ("checkpoint.safetensors", "IST-checkpoint.safetensors")

    def make(checkpoint):
        for name in names:
            checkpoint.with_name(name).write_text("trained")
        return {}, {}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(files.DiskFullError):
        patch.setattr("safetensors.torch.save_file", full)
        step_cache.step("two", 1, make, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert all((folder / name).exists() for name in names)
    step_cache.step("two", 1, make, tmp_path)
    assert not any((folder / name).exists() for name in names)


def test_a_half_written_step_is_never_seen(tmp_path, monkeypatch):
    def torn(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr("safetensors.torch.save_file", torn)
        step_cache.step("bank", 1, Maker(), tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / ".step.safetensors.k1ll9").write_bytes(b"half")  # what kill -9 leaves behind
    make = Maker()
    assert not step_cache.step("bank", 1, make, tmp_path).was_cached and make.calls == 1
    assert step_cache.step("bank", 1, make, tmp_path).was_cached


def test_seconds_count_the_work_of_killed_processes_but_not_the_night_between(tmp_path):
    def killed(checkpoint):
        tensor_files.write(checkpoint, {"x": torch.ones(1)})
        raise KeyboardInterrupt

    def kill_after(seconds):
        """A process that started `seconds` before its last checkpoint, two hours ago."""
        with pytest.raises(KeyboardInterrupt):
            step_cache.step("bank", 1, killed, tmp_path)
        (folder,) = tmp_path.iterdir()
        begun, checkpoint = folder / "begun", folder / "checkpoint.safetensors"
        earlier = time.time() - begun.stat().st_mtime
        os.utime(checkpoint, (time.time() - 7200,) * 2)
        os.utime(begun, (time.time() - 7200 - seconds - earlier,) * 2)

    kill_after(100)
    kill_after(50)
    assert step_cache.step("bank", 1, Maker(), tmp_path).seconds == pytest.approx(150, abs=5)


MAKER = """
import sys, time
from pathlib import Path
from iptkit.storage import step_cache
def make(checkpoint):
    with open(sys.argv[1] + "/made", "a") as log:
        log.write("x")
    time.sleep(float(sys.argv[2]))
    return {}, {"made": True}
print(step_cache.step("a", 1, make, Path(sys.argv[1])).was_cached)
"""


def maker(place, seconds):
    command = [sys.executable, "-c", MAKER, str(place), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_one_makes_a_step_and_the_other_waits(tmp_path):
    said = [process.communicate()[0].strip() for process in [maker(tmp_path, 3), maker(tmp_path, 3)]]
    assert sorted(said) == ["False", "True"] and (tmp_path / "made").read_text() == "x"


def test_a_folder_that_cannot_be_locked_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    with pytest.raises(ValueError, match=r"a-\w+ cannot be locked .*No locks available.*set IPTKIT_STEPS"):
        step_cache.step("a", 1, Maker(), tmp_path)


def test_nobody_waits_for_a_process_that_was_killed(tmp_path):
    process = maker(tmp_path, 600)
    while not (tmp_path / "made").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert not step_cache.step("a", 1, Maker(), tmp_path).was_cached


def test_a_step_lives_in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / "steps"))
    step_cache.step("bank", 1, Maker())
    (folder,) = (tmp_path / "steps").iterdir()
    assert folder.name == f"bank-{digests.digest([step_cache.STEP_FORMAT, revision.of(Maker()), 1])}"


# ---- what is stored is not believed unseen -----------------------------------------------------------
def stored(tmp_path):
    """A finished step and its file."""
    step = step_cache.step("bank", [Config()], Maker(), tmp_path)
    return step, tmp_path / step.folder / step_cache.DONE


def flip(file, place):
    """Change one bit of a file."""
    data = bytearray(file.read_bytes())
    data[place // 8] ^= 1 << place % 8
    file.write_bytes(data)


def test_one_flipped_bit_anywhere_is_found_and_reported(tmp_path):
    """Of the numbers, of the JSON values, of the names, of the checksum: the rows are those of before."""
    first, file = stored(tmp_path)
    whole = file.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    some = random.Random(0).sample(range(8 * len(whole)), 60)
    about = 8 * whole.index(b"rows"), 8 * whole.index(header["__metadata__"]["sha256"].encode())
    for place in (*some, *about, 8 * len(whole) - 1):
        file.write_bytes(whole)
        flip(file, place)
        make = Maker()
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            again = step_cache.step("bank", [Config()], make, tmp_path)
        assert torch.equal(again.tensors["P"], first.tensors["P"]) and again.values == first.values
        if make.calls:  # spaces that pad the header hold nothing
            assert len(noted) == 1 and "step.safetensors is damaged" in str(noted[0].message)
            assert "set aside as step.safetensors.damaged" in str(noted[0].message)
            assert file.with_name("step.safetensors.damaged").exists()
        else:
            assert not noted and whole[place // 8 : place // 8 + 1] == b" "


def test_a_damaged_step_is_not_finished(tmp_path):
    _, file = stored(tmp_path)
    flip(file, 8 * file.stat().st_size - 3)
    with step_cache.only_finished(), pytest.warns(UserWarning, match="match their checksum"):
        with pytest.raises(step_cache.NotFinishedError):
            step_cache.step("bank", [Config()], Maker(), tmp_path)
    assert file.exists(), "who only looks changes nothing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about | {"config": [{"steps": 4, "lr": 0.1}]}, "was made with other settings"),
        (lambda about: {"config": about["config"]}, "its header lacks fields"),
        (lambda about: {}, "its header lacks fields"),
    ],
)
def test_a_stored_step_is_compared_with_the_one_asked_for(tmp_path, change, message):
    _, file = stored(tmp_path)
    tensors, about = tensor_files.read(file)
    tensor_files.write(file, {"P": tensors["P"] + 1}, change(about))
    make = Maker()
    with pytest.warns(UserWarning, match=f"{message}.*made again"):
        again = step_cache.step("bank", [Config()], make, tmp_path)
    assert make.calls == 1 and not again.was_cached and again.tensors["P"].tolist() == [1.0, 1.0]


def test_a_file_without_a_checksum_is_no_step(tmp_path):
    from safetensors.torch import save_file

    _, file = stored(tmp_path)
    tensors, about = tensor_files.read(file)
    save_file(tensors, file, {"about": json.dumps(about)})
    with pytest.warns(UserWarning, match="damaged"):
        assert not step_cache.step("bank", [Config()], Maker(), tmp_path).was_cached


def test_a_step_is_of_its_code(tmp_path, monkeypatch):
    makers = [Maker(1.0), Maker(2.0)]
    step_cache.step("bank", 1, makers[0], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(revision, "of", lambda make: "another")
        assert step_cache.step("bank", 1, makers[1], tmp_path).tensors["P"][0] == 2
    assert step_cache.step("bank", 1, makers[1], tmp_path).tensors["P"][0] == 1, "the old code finds its own"


def test_what_a_killed_process_left_in_a_steps_folder_is_swept(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", LEFT, str(tmp_path)])
    process.wait()
    (folder,) = tmp_path.iterdir()
    assert [*folder.glob(f"*{files.TEMPORARY}")]
    step_cache.step("a", 1, Maker(), tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["begun", "lock", "step.safetensors"]


def test_checkpoints_of_a_step_that_was_stored_are_swept_and_others_stay(tmp_path):
    """A process may be killed after it stored a step and before it removed its checkpoints."""
    step = step_cache.step("bank", 1, Maker(), tmp_path)
    unfinished = tmp_path / "msf-1"
    unfinished.mkdir()
    names = ("checkpoint.safetensors", "IST-checkpoint.safetensors")
    for folder in (tmp_path / step.folder, unfinished):
        for name in names:
            (folder / name).write_text("trained")
    step_cache.sweep(tmp_path)
    assert not [*(tmp_path / step.folder).glob("*checkpoint*")]
    assert sorted(file.name for file in unfinished.iterdir()) == sorted(names)
    assert step_cache.step("bank", 1, Maker(), tmp_path).was_cached


LEFT = """
import os, signal, sys
from pathlib import Path
from iptkit.storage import files
from iptkit.storage import step_cache
def make(checkpoint):
    with files.atomic(checkpoint):
        os.kill(os.getpid(), signal.SIGKILL)
step_cache.step("a", 1, make, Path(sys.argv[1]))
"""
