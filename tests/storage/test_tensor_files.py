import json
import os

import pytest
import safetensors.torch
import torch

from iptkit.models import weights
from iptkit.storage import tensor_files


def test_tensors_of_every_kind_come_back_as_they_were(tmp_path):
    whole = torch.arange(12.0).view(3, 4).requires_grad_()
    given = {
        "double": torch.tensor([1 / 3], dtype=torch.float64),
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 2),
        "turned": whole.T,
        "shared": whole,
    }
    tensor_files.write(tmp_path / "a.safetensors", given, {"step": 3, "word": "é"})
    found, about = tensor_files.read(tmp_path / "a.safetensors")
    assert about == {"step": 3, "word": "é"} and found.keys() == given.keys()
    for name, value in given.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
    tensor_files.write(tmp_path / "b.safetensors", {"x": torch.ones(1)})
    assert tensor_files.read(tmp_path / "b.safetensors")[1] == {}


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    tensor_files.write(path, {"x": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"a\.safetensors is damaged .*delete it"):
        tensor_files.read(path)


def test_what_is_no_safetensors_or_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_text("words")
    with pytest.raises(tensor_files.DamagedError, match=r"a\.safetensors is damaged"):
        tensor_files.read(tmp_path / "a.safetensors")
    for about in ("[1]", "{", "[" * 100_000):
        safetensors.torch.save_file({}, tmp_path / "b.safetensors", {"about": about})
        with pytest.raises(tensor_files.DamagedError, match=r"b\.safetensors is damaged"):
            tensor_files.read(tmp_path / "b.safetensors")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("folder", "folder is a folder, a file is needed"),
        ("pipe", "pipe is no regular file"),
    ):
        with pytest.raises(ValueError, match=message):
            tensor_files.read(tmp_path / name)


def test_what_a_library_quotes_of_a_file_cannot_steer_a_terminal(tmp_path):
    header = json.dumps({"x": {"dtype": "\x1b[2J\b", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    for read in (tensor_files.read, weights.shapes):
        with pytest.raises(ValueError, match="x.safetensors") as error:
            read(path)
        assert str(error.value).isprintable()
