import os

import pytest

from iptkit.storage import outputs


def test_a_folder_is_tried_before_it_is_needed(tmp_path):
    assert outputs.writable_folder(tmp_path / "new", "--out") == tmp_path / "new"
    assert (tmp_path / "new").is_dir() and not os.listdir(tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to the folder .*file.*--out"):
        outputs.writable_folder(tmp_path / "file", "--out")


def test_folders_that_stay_empty_are_removed_again(tmp_path):
    (tmp_path / "old").mkdir()
    with (
        pytest.raises(ValueError, match="refused"),
        outputs.without_empty_folders(tmp_path / "old", tmp_path / "a" / "b" / "file", tmp_path / "c"),
    ):
        outputs.writable_file(tmp_path / "a" / "b" / "file", "--out")
        outputs.writable_folder(tmp_path / "c", "--out")
        raise ValueError("refused")
    assert sorted(os.listdir(tmp_path)) == ["old"]
    with outputs.without_empty_folders(tmp_path / "a" / "file"):
        outputs.writable_file(tmp_path / "a" / "file", "--out").write_text("")
    assert os.listdir(tmp_path / "a") == ["file"]
