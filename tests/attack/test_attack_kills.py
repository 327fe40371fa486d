"""A short attack by kill -9; the long one: `python tests/attack --files 20000 --kills 100`."""

import random

import killer
import pytest


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return killer.undisturbed(tmp_path_factory.mktemp("other"))


def test_a_killed_study_ends_with_the_rows_of_an_undisturbed_one(tmp_path, other):
    place, seconds = other
    kills, found = killer.kill(tmp_path, place, seconds, 3, random.Random(0))
    assert kills > 0 and found == []


def test_a_difference_would_be_seen(other):
    place, _ = other
    assert killer.differences(place, place) == []
    (left := place.folder / "tmp" / "left").touch()
    assert killer.differences(place, place) == ["left over: tmp/left"]
    left.unlink()
