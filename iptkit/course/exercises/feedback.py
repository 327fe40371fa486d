"""What a check of an exercise says to the learner."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from iptkit.storage import messages

STYLE = "border-left: 4px solid {}; padding: 0.3em 0.8em; white-space: pre-wrap"
COLOURS = {True: "#117733", False: "#882255"}


@dataclass(frozen=True, repr=False)
class Feedback:
    """The result of a check.

    Attributes:
      is_passed: whether the answer is right.
      message: why it is right, or a hint that leads to what is wrong.

    Example:
      >>> Feedback(False, "Not written yet.")
      not yet: Not written yet.
    """

    is_passed: bool
    message: str

    def __repr__(self) -> str:
        return f"{self._verdict}: {messages.visible(self.message)}"

    def _repr_html_(self) -> str:
        """The same for a notebook; everything in it is escaped, and words in backticks are code."""
        style = STYLE.format(COLOURS[self.is_passed])
        text = re.sub("`([^`\n]+)`", r"<code>\1</code>", html.escape(messages.visible(self.message)))
        return f'<div style="{style}"><strong>{self._verdict}:</strong> {text}</div>'

    @property
    def _verdict(self) -> str:
        return "passed" if self.is_passed else "not yet"
