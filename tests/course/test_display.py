import io
import json
import time

from iptkit.course.display import Display, describe

NOW = 1000.0


def state(done=120, total=300, started=NOW - 60, time=NOW, initial=0, unit="step", note="loss 1.23"):
    return {"label": "fit 36 tasks", "unit": unit, "note": note, "done": float(done), "total": total,
            "initial": float(initial), "started": started, "time": time}  # fmt: skip


def test_words_for_a_status():
    assert describe(state()) == "fit 36 tasks 120/300, loss 1.23"
    assert describe(state(done=1.2e6, total=92.9e6, unit="B", note="")) == "fit 36 tasks 1.2/92.9 MB"
    assert describe(state(total=None, note="")) == "fit 36 tasks 120"
    assert describe(None) == ""


def test_the_line_tells_notebook_cell_step_and_times(tmp_path, monkeypatch):
    monkeypatch.setattr("iptkit.course.display.time.time", lambda: NOW - 60)
    file = tmp_path / "status.json"
    display = Display(
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
    display = Display(["02"], {}, file, screen)
    display.start("02", "02")
    file.write_text(json.dumps({**state(), "note": "a\x1b[2Jb\r"}), encoding="utf-8")
    assert "a\\x1b[2Jb\\r" in display.line(NOW)
    display.say("c\x1b]0;d\x07")
    assert "c\\x1b]0;d\\x07\n" in screen.getvalue() and "\x1b" not in screen.getvalue()


def test_a_half_written_status_never_breaks_the_line(tmp_path):
    file = tmp_path / "status.json"
    display = Display(["02"], {}, file, io.StringIO())
    display.start("02", "02")
    whole = json.dumps(state())
    for length in range(len(whole) + 1):
        file.write_text(whole[:length], encoding="utf-8")
        assert display.line(NOW).startswith("02")


def test_a_finished_step_of_an_earlier_cell_is_not_shown(tmp_path, monkeypatch):
    file = tmp_path / "status.json"
    display = Display(["02"], {}, file, io.StringIO())
    display.start("02", "02")
    file.write_text(json.dumps(state(done=300, time=NOW)), encoding="utf-8")
    monkeypatch.setattr("iptkit.course.display.time.time", lambda: NOW + 5)
    display.cell(8, 31)
    assert "fit" not in display.line(NOW + 6)


def test_downloads_come_on_top_of_the_whole_run(tmp_path, monkeypatch):
    monkeypatch.setattr("iptkit.course.display.time.time", lambda: NOW)
    file = tmp_path / "status.json"
    display = Display(["02"], {"02": 100}, file, io.StringIO())
    display.start("downloads", "downloads")
    file.write_text(json.dumps(state()), encoding="utf-8")
    assert display.line(NOW).endswith("1:30 left | whole run ~3:10 left")


def test_two_at_once_share_the_line(tmp_path, monkeypatch):
    monkeypatch.setattr("iptkit.course.display.time.time", lambda: NOW - 60)
    expected = {"01": 100, "02": 300, "03": 200}
    display = Display(list(expected), expected, tmp_path / "status.json", io.StringIO(), at_once=2)
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
    monkeypatch.setattr("iptkit.course.display.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("iptkit.course.display.REFRESH_SECONDS", {True: 0.01, False: 0.01})
    screen = Screen(is_terminal)
    with Display(["02"], {}, tmp_path / "status.json", screen) as display:
        display.start("02", "02 prompt tuning")
        while screen.getvalue().count("so far") < 3:
            time.sleep(0.01)
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
    Display([], {}, tmp_path / "status.json", stream).say("failed: \x1b]0;title\x07\nnext line")
    assert stream.getvalue() == "failed: \\x1b]0;title\\x07\nnext line\n"
