import inspect

import pytest

from iptkit.storage import messages
from iptkit.tasks import suites


def test_what_steers_a_terminal_is_shown():
    text = "a\x1b[31m\x9b2J\x07\x00\r\x7f\u202e\u2066\ud800b\n\tc é 好 👩\u200d🚀 \u200c"
    shown = messages.visible(text)
    assert shown == ("a\\x1b[31m\\x9b2J\\x07\\x00\\r\\x7f\\u202e\\u2066\\ud800b\n\tc é 好 👩\u200d🚀 \u200c")
    shown.encode()


def test_a_warning_names_the_line_outside_the_kit(tmp_path):
    file = tmp_path / "mine.csv"
    rows = [f"it is {n},{'good' if n % 2 else 'bad'}" for n in range(24)]
    file.write_text("\n".join(["sentence,label", *rows]))
    with pytest.warns(messages.Note, match="read sentence as the input") as noted:
        line = inspect.currentframe().f_lineno + 1
        suites.load_suite(file)
    assert (noted[0].filename, noted[0].lineno) == (__file__, line)
    with pytest.warns(UserWarning, match="^it is so$") as noted:
        messages.warn("it is so")
    assert noted[0].filename == __file__
