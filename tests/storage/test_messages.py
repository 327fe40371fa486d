from iptkit.storage import messages


def test_what_steers_a_terminal_is_shown():
    text = "a\x1b[31m\x9b2J\x07\x00\r\x7f\u202e\u2066\ud800b\n\tc é 好 👩\u200d🚀 \u200c"
    shown = messages.visible(text)
    assert shown == ("a\\x1b[31m\\x9b2J\\x07\\x00\\r\\x7f\\u202e\\u2066\\ud800b\n\tc é 好 👩\u200d🚀 \u200c")
    shown.encode()
