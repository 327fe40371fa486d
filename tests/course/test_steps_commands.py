"""`iptkit steps`: list, pack and unpack, in words and in JSON."""

import json

import pytest
import torch
from typer.testing import CliRunner

from iptkit.course import cli
from iptkit.storage import step_cache


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that runs a command with the step cache of a machine; returns exit code, stdout, stderr."""
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)  # this process goes on
    monkeypatch.setattr(step_cache, "HITS", {})
    monkeypatch.delenv("IPTKIT_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(name, *words):
        monkeypatch.setenv("IPTKIT_STEPS", str(tmp_path / name))
        result = CliRunner().invoke(cli.app, ["steps", *words])
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def steps(tmp_path):
    """Two finished steps of the machine "there", and one that is not finished."""
    (tmp_path / "there" / "msf-0123abcd").mkdir(parents=True)
    sizes = (("bank", 100_000), ("codes", 2))
    made = [
        step_cache.step(name, 1, lambda _, size=size: ({"P": torch.ones(size)}, {}), tmp_path / "there")
        for name, size in sizes
    ]
    return [one.folder for one in made]


def test_steps_travel(machine, steps, tmp_path):
    code, said, _ = machine("there", "pack", "steps.tar.gz", "--largest", "0.3")
    file = tmp_path / "steps.tar.gz"
    assert code == 0 and said == f"1 step, 0.00 MB, in {file}\nleft out: 1 above 0.3 MB, 1 unfinished\n"
    assert machine("there", "pack", "steps.tar.gz")[0] == 2, "it exists"
    code, said, _ = machine(
        "there", "pack", "steps.tar.gz", "--overwrite", "--names", "b*", "--names", "codes"
    )
    assert code == 0 and said == f"2 steps, 0.40 MB, in {file}\nleft out: 1 unfinished\n"
    assert machine("here", "list")[1] == f"no finished steps in {tmp_path / 'here'}\n"
    assert machine("here", "unpack", "steps.tar.gz")[:2] == (
        0,
        f"2 steps, 0.40 MB, added to {tmp_path / 'here'}\n",
    )
    again = f"0 steps, 0.00 MB, added to {tmp_path / 'here'}\nalready there: 2\n"
    assert machine("here", "unpack", "steps.tar.gz")[1] == again
    heading, *rows, total = machine("here", "list")[1].splitlines()
    assert heading.split() == ["step", "MB", "seconds", "date"]
    assert [row.split()[:2] for row in rows] == [[steps[0], "0.40"], [steps[1], "0.00"]]
    assert total == f"2 steps, 0.40 MB, in {tmp_path / 'here'}"


def test_json_and_quiet(machine, steps, tmp_path):
    value = json.loads(machine("there", "pack", "steps.tar", "--json")[1])
    assert value["steps"] == steps and value["path"] == str(tmp_path / "steps.tar")
    assert value["left_out"] == {"msf-0123abcd": "unfinished"} and value["bytes"] > 400_000
    assert machine("there", "pack", "steps.tar", "--overwrite", "--quiet") == (0, "", "")
    done = json.loads(machine("here", "unpack", "steps.tar", "--json")[1])
    assert done == {"folder": str(tmp_path / "here"), "added": steps, "bytes": value["bytes"], "kept": []}
    listed = json.loads(machine("here", "list", "--json")[1])
    assert listed["folder"] == str(tmp_path / "here")
    assert [one["name"] for one in listed["steps"]] == steps
    assert listed["steps"][0].keys() == {"name", "bytes", "seconds", "date"}


def test_errors_are_sentences(machine, steps, tmp_path):
    (tmp_path / "steps.tar").write_text("mine")
    code, said, told = machine("there", "pack", "steps.tar")
    assert (code, said) == (2, "") and told == (
        "iptkit: steps.tar exists; choose another name, or replace it with --overwrite\n"
    )
    assert (tmp_path / "steps.tar").read_text() == "mine"
    code, _, told = machine("here", "unpack", "steps.tar")
    assert code == 2 and told.startswith("iptkit: steps.tar is cut short, damaged or no tar file")
    assert machine("empty", "pack", "new.tar")[2].startswith("iptkit: there is no finished step in ")
    assert machine("here", "unpack", "none.tar")[2] == "iptkit: there is no file none.tar\n"


@pytest.mark.filterwarnings("always")
def test_a_damaged_step_is_shown_and_left_out(machine, steps, tmp_path):
    file = tmp_path / "there" / steps[1] / step_cache.DONE
    file.write_bytes(file.read_bytes()[:40])
    assert f"{steps[1]}  0.00  damaged" in machine("there", "list")[1]
    code, said, told = machine("there", "pack", "steps.tar")
    assert code == 0 and "left out: 1 damaged, 1 unfinished" in said
    assert told.startswith("iptkit: warning: ") and f"{steps[1]}/step.safetensors is damaged" in told
