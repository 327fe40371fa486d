import io
import json
import sys

import nbclient
import nbformat
import pytest

from iptkit.storage import files, progress


@pytest.fixture
def status(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_STATUS", str(tmp_path / "status.json"))
    return tmp_path / "status.json"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def at_a_terminal(monkeypatch):
    """Put a terminal on stderr and take away what hides the bar (in the test itself: pytest sets stderr)."""
    monkeypatch.delenv("IPTKIT_STATUS", raising=False)
    monkeypatch.delenv("IPTKIT_QUIET", raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def test_state_goes_to_the_status_file(status):
    with progress.track("fit", total=300, initial=100) as bar:
        bar.update(20, note="loss 1.23")
    state = json.loads(status.read_text(encoding="utf-8"))
    assert {key: state[key] for key in ("label", "done", "total", "unit", "note", "initial")} == {
        "label": "fit", "done": 120, "total": 300, "unit": "step", "note": "loss 1.23", "initial": 100,
    }  # fmt: skip
    assert state["started"] <= state["time"]
    assert [file.name for file in status.parent.iterdir()] == ["status.json"]  # no draft is left


def test_status_is_written_at_most_once_a_second(status, monkeypatch):
    clock = iter(range(0, 1000))
    writes = []
    monkeypatch.setattr(progress.time, "time", lambda: next(clock) / 10)
    monkeypatch.setattr(files.os, "replace", lambda *_: writes.append(1))
    with progress.track("fit", total=60) as bar:
        for _ in range(60):
            bar.update()
    assert 4 <= len(writes) <= 12  # about 6 to 10 seconds of this clock, with the first and the last state


def test_the_last_state_is_written_when_the_work_fails(status):
    with pytest.raises(KeyError), progress.track("fit", total=3) as bar:
        bar.update(2)
        raise KeyError
    assert json.loads(status.read_text(encoding="utf-8"))["done"] == 2


def test_a_folder_that_vanished_does_not_stop_the_work(tmp_path, monkeypatch):
    monkeypatch.setenv("IPTKIT_STATUS", str(tmp_path / "gone" / "status.json"))
    with progress.track("fit", total=2) as bar:
        bar.update(2)
    assert bar.done == 2 and not (tmp_path / "gone").exists()


def test_a_terminal_gets_a_bar_that_is_removed_at_the_end(monkeypatch):
    screen = at_a_terminal(monkeypatch)
    with progress.track("prompt tuning", total=2, unit="step") as bar:
        bar.update(1, note="loss 1.23")
        bar._bar.refresh()
        assert "prompt tuning:  50%" in screen.getvalue() and "loss 1.23" in screen.getvalue()
    assert screen.getvalue().endswith("\r")


@pytest.mark.parametrize("variable", ["IPTKIT_QUIET", "IPTKIT_STATUS"])
def test_no_bar_where_it_is_not_wanted(monkeypatch, tmp_path, variable):
    screen = at_a_terminal(monkeypatch)
    monkeypatch.setenv(variable, str(tmp_path / "status.json"))
    with progress.track("fit", total=2) as bar:
        bar.update(2)
    assert screen.getvalue() == ""


def test_no_bar_without_a_terminal(monkeypatch, capsys):
    for variable in ("IPTKIT_QUIET", "IPTKIT_STATUS"):
        monkeypatch.delenv(variable, raising=False)
    with progress.track("fit", total=2) as bar:
        bar.update(2)
    assert capsys.readouterr() == ("", "")


def test_read_status_survives_every_broken_file(status):
    with progress.track("fit", total=10) as bar:
        bar.update(5, note="loss 1")
    whole = status.read_text(encoding="utf-8")
    assert progress.read_status(status)["done"] == 5
    for length in range(len(whole)):
        status.write_text(whole[:length], encoding="utf-8")
        assert progress.read_status(status) is None
    for broken in ("null", "[]", "3", '{"label": 1}', whole.replace("5", "NaN"), whole.replace("10", '"x"')):
        status.write_text(broken, encoding="utf-8")
        assert progress.read_status(status) is None
    status.write_bytes(b"\xff\xfe\x00")
    assert progress.read_status(status) is None
    status.unlink()
    assert progress.read_status(status) is None
    assert progress.read_status(status.parent) is None  # a folder


def test_unknown_totals_are_allowed(status):
    with progress.track("read", total=None, unit="B") as bar:
        bar.update(7)
    assert progress.read_status(status)["total"] is None


def test_in_a_notebook_the_bars_of_a_cell_share_a_line_and_leave_it_empty(monkeypatch):
    for variable in ("IPTKIT_QUIET", "IPTKIT_STATUS"):
        monkeypatch.delenv(variable, raising=False)
    lines = ["from iptkit.storage import progress", "for total in (2, 3):"]
    lines += ["    with progress.track('fit', total=total) as bar:"]
    lines += ["        bar.update(1, note='loss 1.23')", "        bar._bar.refresh()"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(lines))])
    seen = []

    class Client(nbclient.NotebookClient):
        def process_message(self, msg, cell, cell_index):
            if msg["msg_type"] in ("display_data", "update_display_data"):
                seen.append(msg["content"]["data"]["text/plain"])
            return super().process_message(msg, cell, cell_index)

    Client(book, timeout=120, kernel_name="python3").execute()
    assert [output.get("data") for output in book.cells[0].outputs] == [{"text/plain": ""}]
    assert any("fit:  33%" in line and "loss 1.23" in line for line in seen)
