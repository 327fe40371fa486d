import functools

import pytest

from iptkit.course import estimates
from iptkit.storage import paths

NOW = 1000.0


def state(done=120, total=300, started=NOW - 60, time=NOW, initial=0, unit="step", note="loss 1.23"):
    return {"label": "fit 36 tasks", "unit": unit, "note": note, "done": float(done), "total": total,
            "initial": float(initial), "started": started, "time": time}  # fmt: skip


def test_time_left_follows_the_speed_so_far():
    assert estimates.step_left(state(), NOW) == pytest.approx(90)  # 120 in 60 s: 180 more take 90 s
    assert estimates.step_left(state(), NOW + 10) == pytest.approx(80)  # between two reports it counts down
    assert estimates.step_left(state(), NOW + 500) == 0


def test_steps_of_an_interrupted_run_do_not_count_as_speed():
    assert estimates.step_left(state(initial=100), NOW) == pytest.approx(540)  # 20 in 60 s


UNCLEAR = [
    None,
    state(total=None),
    state(total=0),
    state(done=300),
    state(done=400),
    state(done=0),
    state(started=NOW - 1),
    state(started=NOW + 50),
    state(initial=120),
]


@pytest.mark.parametrize("unclear", UNCLEAR)
def test_nothing_is_said_where_nothing_is_known(unclear):
    assert estimates.step_left(unclear, NOW) is None


def test_whole_run_adds_the_expected_times():
    expected = {"00": 10.0, "02": 100.0, "05": 50.0}
    assert estimates.run_left(expected, {}, ["00", "02", "05"], {"00": 4.0}) == pytest.approx(156)
    assert estimates.run_left(expected, {"00": 20.0}, ["02", "05"], {"02": 40.0}) == pytest.approx(
        160 + 100
    )  # half the speed
    assert estimates.run_left(expected, {"00": 1.0}, ["02", "05"], {"02": 40.0}) == pytest.approx(
        60 + 50
    )  # 00 was cached
    assert estimates.run_left(expected, {}, ["05"], {"05": 70.0}, {"05": 30.0}) == pytest.approx(
        30
    )  # late: the step knows
    assert estimates.run_left(expected, {}, ["05"], {"05": 70.0}) == 0
    assert estimates.run_left({"05": 50.0}, {}, ["05", "06"], {}) is None
    assert estimates.run_left({}, {}, [], {}) is None


def test_several_at_once_share_the_work_or_wait_for_the_longest_chain():
    expected, needs = {"00": 10.0, "01": 90.0, "02": 60.0, "05": 40.0}, {"02": {"00"}, "05": {"02"}}
    left = functools.partial(estimates.run_left, expected, {}, at_once=2, needs=needs)
    assert left(list(expected), {}) == pytest.approx(110), "00, 02, 05 one after the other"
    assert left(["01", "02"], {}) == pytest.approx(90) and left(["05"], {"05": 10.0}) == pytest.approx(30)
    assert left(["01", "02"], {"01": 500.0}) == pytest.approx(60), "a late one takes nothing off another"
    assert left(["01", "05"], {}, {"05": 300.0}) == pytest.approx(300)
    assert left(["00", "01"], {}, at_once=1) == pytest.approx(100)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"lesson": 3}', '{"lesson": {"seconds": {"00": "x"}}}'])
def test_broken_timings_mean_no_estimate(tmp_path, monkeypatch, text):
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path)
    assert estimates.expected_seconds("lesson") == {}
    (tmp_path / "timings.json").write_text(text, encoding="utf-8")
    assert estimates.expected_seconds("lesson") == {}
    (tmp_path / "timings.json").write_text('{"lesson": {"seconds": {"00": 2}}}', encoding="utf-8")
    assert estimates.expected_seconds("lesson") == {"00": 2.0}
