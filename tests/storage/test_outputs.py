import os

import pytest

from iptkit.storage import outputs


def test_a_folder_is_tried_before_it_is_needed(tmp_path):
    assert outputs.writable_folder(tmp_path / "new", "--out") == tmp_path / "new"
    assert (tmp_path / "new").is_dir() and not os.listdir(tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to the folder .*file.*--out"):
        outputs.writable_folder(tmp_path / "file", "--out")
