"""`python -m iptkit` is the command `iptkit`."""

from iptkit.cli import app

app(prog_name="iptkit")
