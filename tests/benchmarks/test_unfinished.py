"""Finished steps of a study that is not finished yet: another code would not find them again.

The test goes with the folder.
"""

from pathlib import Path

from iptkit.storage import revision
from iptkit.studies.steps import StudySteps

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "unfinished"


def test_the_code_that_makes_the_steps_is_as_it_was():
    assert revision.of(StudySteps.codes_of_group) == (FOLDER / "code.txt").read_text().strip()
