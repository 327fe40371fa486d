import functools
import io
import json

import pytest

from iptkit.course import progress_display

NOW = 1000.0


def state(done=120, total=300, started=NOW - 60, time=NOW, initial=0, unit="step", note="loss 1.23"):
    return {"label": "fit 36 tasks", "unit": unit, "note": note, "done": float(done), "total": total,
            "initial": float(initial), "started": started, "time": time}  # fmt: skip


def test_time_left_follows_the_speed_so_far():
    assert progress_display.step_left(state(), NOW) == pytest.approx(90)  # 120 in 60 s: 180 more take 90 s
    assert progress_display.step_left(state(), NOW + 10) == pytest.approx(
        80
    )  # between two reports it counts down
    assert progress_display.step_left(state(), NOW + 500) == 0


def test_steps_of_an_interrupted_run_do_not_count_as_speed():
    assert progress_display.step_left(state(initial=100), NOW) == pytest.approx(540)  # 20 in 60 s


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
    assert progress_display.step_left(unclear, NOW) is None


def test_whole_run_adds_the_expected_times():
    expected = {"00": 10.0, "02": 100.0, "05": 50.0}
    assert progress_display.run_left(expected, {}, ["00", "02", "05"], {"00": 4.0}) == pytest.approx(156)
    assert progress_display.run_left(expected, {"00": 20.0}, ["02", "05"], {"02": 40.0}) == pytest.approx(
        160 + 100
    )  # half the speed
    assert progress_display.run_left(expected, {"00": 1.0}, ["02", "05"], {"02": 40.0}) == pytest.approx(
        60 + 50
    )  # 00 was cached
    assert progress_display.run_left(expected, {}, ["05"], {"05": 70.0}, {"05": 30.0}) == pytest.approx(
        30
    )  # late: the step knows
    assert progress_display.run_left(expected, {}, ["05"], {"05": 70.0}) == 0
    assert progress_display.run_left({"05": 50.0}, {}, ["05", "06"], {}) is None
    assert progress_display.run_left({}, {}, [], {}) is None


def test_several_at_once_share_the_work_or_wait_for_the_longest_chain():
    expected, needs = {"00": 10.0, "01": 90.0, "02": 60.0, "05": 40.0}, {"02": {"00"}, "05": {"02"}}
    left = functools.partial(progress_display.run_left, expected, {}, at_once=2, needs=needs)
    assert left(list(expected), {}) == pytest.approx(110), "00, 02, 05 one after the other"
    assert left(["01", "02"], {}) == pytest.approx(90) and left(["05"], {"05": 10.0}) == pytest.approx(30)
    assert left(["01", "02"], {"01": 500.0}) == pytest.approx(60), "a late one takes nothing off another"
    assert left(["01", "05"], {}, {"05": 300.0}) == pytest.approx(300)
    assert left(["00", "01"], {}, at_once=1) == pytest.approx(100)


def test_words_for_a_status():
    assert progress_display.describe(state()) == "fit 36 tasks 120/300, loss 1.23"
    assert (
        progress_display.describe(state(done=1.2e6, total=92.9e6, unit="B", note=""))
        == "fit 36 tasks 1.2/92.9 MB"
    )
    assert progress_display.describe(state(total=None, note="")) == "fit 36 tasks 120"
    assert progress_display.describe(None) == ""


def test_the_line_tells_notebook_cell_step_and_times(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_display.time, "time", lambda: NOW - 60)
    file = tmp_path / "status.json"
    display = progress_display.Display(
        ["02_prompt_tuning", "05_msf"], {"02_prompt_tuning": 100, "05_msf": 50}, file, io.StringIO()
    )
    assert display.line(NOW) == ""
    display.start("02_prompt_tuning", "02 prompt tuning")
    display.cell(7, 31)
    file.write_text(json.dumps(state()), encoding="utf-8")
    assert display.line(NOW) == (
        "02 prompt tuning | cell 7/31 | fit 36 tasks 120/300, loss 1.23 | 1:30 left | whole run ~2:20 left"
    )


def test_what_steers_a_terminal_is_shown(tmp_path):
    file, screen = tmp_path / "status.json", io.StringIO()
    display = progress_display.Display(["02"], {}, file, screen)
    display.start("02", "02")
    file.write_text(json.dumps({**state(), "note": "a\x1b[2Jb\r"}), encoding="utf-8")
    assert "a\\x1b[2Jb\\r" in display.line(NOW)
    display.say("c\x1b]0;d\x07")
    assert "c\\x1b]0;d\\x07\n" in screen.getvalue() and "\x1b" not in screen.getvalue()


def test_a_half_written_status_never_breaks_the_line(tmp_path):
    file = tmp_path / "status.json"
    display = progress_display.Display(["02"], {}, file, io.StringIO())
    display.start("02", "02")
    whole = json.dumps(state())
    for length in range(len(whole) + 1):
        file.write_text(whole[:length], encoding="utf-8")
        assert display.line(NOW).startswith("02")


def test_a_finished_step_of_an_earlier_cell_is_not_shown(tmp_path, monkeypatch):
    file = tmp_path / "status.json"
    display = progress_display.Display(["02"], {}, file, io.StringIO())
    display.start("02", "02")
    file.write_text(json.dumps(state(done=300, time=NOW)), encoding="utf-8")
    monkeypatch.setattr(progress_display.time, "time", lambda: NOW + 5)
    display.cell(8, 31)
    assert "fit" not in display.line(NOW + 6)


def test_downloads_come_on_top_of_the_whole_run(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_display.time, "time", lambda: NOW)
    file = tmp_path / "status.json"
    display = progress_display.Display(["02"], {"02": 100}, file, io.StringIO())
    display.start("downloads", "downloads")
    file.write_text(json.dumps(state()), encoding="utf-8")
    assert display.line(NOW).endswith("1:30 left | whole run ~3:10 left")


def test_two_at_once_share_the_line(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_display.time, "time", lambda: NOW - 60)
    expected = {"01": 100, "02": 300, "03": 200}
    display = progress_display.Display(
        list(expected), expected, tmp_path / "status.json", io.StringIO(), at_once=2
    )
    for name in ("01", "02"):
        display.start(name, f"notebook {name}")
    display.cell(3, 9, "01")
    assert display.file_of("01") != display.file_of("02")
    display.file_of("02").write_text(json.dumps(state()), encoding="utf-8")
    assert display.line(NOW) == (
        "notebook 01 | cell 3/9 | notebook 02 | fit 36 tasks 120/300, loss 1.23 | 1:30 left"
        " | whole run ~4:00 left"
    )
    display.finish(80.0, name="01")  # faster than expected: 0.8
    assert display.line(NOW) == (
        "notebook 02 | fit 36 tasks 120/300, loss 1.23 | 1:30 left | whole run ~3:00 left"
    )


class Screen(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


def shown(tmp_path, monkeypatch, is_terminal):
    monkeypatch.setattr(progress_display, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress_display, "REFRESH_SECONDS", {True: 0.01, False: 0.01})
    screen = Screen(is_terminal)
    with progress_display.Display(["02"], {}, tmp_path / "status.json", screen) as display:
        display.start("02", "02 prompt tuning")
        while screen.getvalue().count("so far") < 3:
            progress_display.time.sleep(0.01)
        display.finish(75.2)
    return screen.getvalue()


def test_plain_lines_without_a_terminal(tmp_path, monkeypatch):
    lines = shown(tmp_path, monkeypatch, False).splitlines()
    assert lines[0] == "02 prompt tuning | started"
    assert lines[1] == "02 prompt tuning | 0:00 so far"
    assert lines[-1] == "02 prompt tuning | done in 1:15"
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_one_rewritten_line_at_a_terminal(tmp_path, monkeypatch):
    written = shown(tmp_path, monkeypatch, True)
    assert written.count("\n") == 1
    assert "\r02 prompt tuning | 0:00 so far\x1b[K" in written
    assert "\r\x1b[K02 prompt tuning | done in 1:15\n" in written


def test_what_is_said_cannot_steer_the_terminal(tmp_path):
    stream = io.StringIO()
    progress_display.Display([], {}, tmp_path / "status.json", stream).say(
        "failed: \x1b]0;title\x07\nnext line"
    )
    assert stream.getvalue() == "failed: \\x1b]0;title\\x07\nnext line\n"
