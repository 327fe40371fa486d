import pytest

from iptkit.scores.summary import relative


def test_relative_performance():
    assert relative(0.6, 0.8) == pytest.approx(0.75)
    assert relative(0.6, 0.8, floor=0.5) == pytest.approx(1 / 3)
    assert relative(0.9, 0.8) == pytest.approx(1.125), "a method may be better than prompt tuning"
    assert relative(0.4, 0.8, floor=0.5) == pytest.approx(-1 / 3), "or worse than guessing"


@pytest.mark.parametrize(
    ("reference", "floor"), [(0.0, 0.0), (-0.3, 0.0), (0.04, 0.0), (0.5, 0.5), (0.4, 0.5), (0.54, 0.5)]
)
def test_relative_performance_needs_a_reference_above_its_floor(reference, floor):
    assert relative(0.6, reference, floor) is None


def test_least_is_the_smallest_denominator_allowed():
    assert relative(0.5, 0.05) == pytest.approx(10.0)
    assert relative(0.5, 0.3, least=0.4) is None
