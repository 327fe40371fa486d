"""A short attack: every damaged file is read correctly or refused by an error that names it.

The long attack is `python tests/attack --files 20000 --kills 100`.
"""

import pytest
from attempts import FAULTS, attack
from doors import DOORS


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_damaged_files_are_refused_by_name_or_read_as_they_are(door):
    found = attack(door, 15)
    assert not any(found.counts[fault] for fault in FAULTS), "\n\n".join(found.faults)
    assert found.counts["refused"] > 0
