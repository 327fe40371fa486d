"""Studies that are killed or whose stored steps are damaged end with the same rows as an undisturbed one."""

import os

import killer
import pytest

KILLS, FLIPS = 16, 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_study_that_was_killed_or_damaged_anywhere_ends_with_the_same_rows(tmp_path):
    first, *others = killer.attack_apart(tmp_path, KILLS, FLIPS, 0)
    assert first["problem"] == "" and first["moments"] > 100
    assert [what["kind"] for what in others] == ["kill"] * KILLS + ["flip"] * FLIPS
    assert [what for what in others if what["problem"]] == []
    assert not [*tmp_path.glob("*.iptkit-tmp")], "files in the system's temporary folder are removed, too"


def test_moments_are_counted_and_the_last_one_kills(tmp_path):
    def work(moments):
        for name in "abc":
            (tmp_path / name).write_text(name)

    folders = (str(tmp_path),)
    assert killer.in_child(work, folders).moments == 3
    ended = killer.in_child(work, folders, at=3)
    assert ended.signal == 9 and sorted(os.listdir(tmp_path)) == ["a", "b", "c"]
    (tmp_path / "b").unlink()
    assert killer.in_child(work, folders, at=2).signal == 9 and not (tmp_path / "b").exists()
    assert "ZeroDivisionError" in killer.in_child(lambda _: 1 / 0, folders).error
