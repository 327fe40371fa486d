"""Examples as token ids for an engine that scores and generates words."""

from __future__ import annotations

from iptkit.engine.layouts import Ids, Layout, tokens_behind
from iptkit.engine.rows import Row
from iptkit.models.backbone import Backbone
from iptkit.tasks.examples import Example


class WordRows:
    """Makes the rows of examples, and remembers the tokens of texts and options.

    Args:
      backbone: the model that reads them.
      layout: the order of prompt vectors, text and fixed words.

    Attributes:
      ends: token ids that end a generated answer: the end token, and a line break if it is a token.
    """

    def __init__(self, backbone: Backbone, layout: Layout):
        self.backbone, self.layout = backbone, layout
        self._ids: dict[tuple[str, str], Ids] = {}
        self._choices: dict[tuple[str, ...], tuple[Ids, ...]] = {}  # options -> tokens
        line_break = self.tokens("\n")[:1]
        self.ends = {backbone.eos, *(i for i in line_break if backbone.tokenizer.decode([i]) == "\n")}

    def target_row(self, example: Example, target: int) -> Row:
        """The example with one accepted answer.

        Args:
          example: the example.
          target: index of the answer in its targets.
        """
        return Row(self.tokens(example.input), (self._answer(example, example.targets[target]),))

    def option_row(self, example: Example) -> Row:
        """The example with all its options.

        Raises: ValueError if two options have the same tokens, so that the model cannot tell them apart.
        """
        options = tuple(example.options)
        if options not in self._choices:
            self._choices[options] = self._distinct(example)
        return Row(self.tokens(example.input), self._choices[options])

    def positions(self, example: Example, prompt_length: int, generated: int) -> int:
        """The number of positions that the example takes; see Engine.positions.

        Args:
          example: the example.
          prompt_length: n, positions of the prompt.
          generated: number of tokens that may be generated before an end token, 0 for none.
        """
        row = self.option_row(example) if example.options else self.target_row(example, 0)
        longest = max(1 + generated if generated else 0, *map(len, row.answers))
        before = self.fixed(prompt_length) + len(row.text)
        if not before:
            raise ValueError(
                f"the text {example.input[:60]!r} has no token, and there is no prompt; leave it out"
            )
        return before + longest

    def line(self, text: Ids, prompt_length: int) -> tuple[Ids, Ids]:
        """Everything left of the prompt, and the rest before the answer; see Layout.line.

        Args:
          text: token ids.
          prompt_length: n.
        """
        return self.layout.line(text, prompt_length, self._behind)

    def split(self, row: Row, prompt_length: int) -> tuple[Ids, Ids]:
        """The part of a row whose keys and values are cached, and the part that runs through the model.

        Args:
          row: the row.
          prompt_length: n.
        """
        left, line = self.line(row.text, prompt_length)
        return (line[: row.shared], line[row.shared :]) if row.shared else (left, line)

    def fixed(self, prompt_length: int) -> int:
        """The number of positions that the prompt and the fixed words take."""
        return sum(len(part) for part in self.line((), prompt_length))

    def tokens(self, text: str, before: str = "") -> Ids:
        """The tokens of a text, which may continue another one (see layouts.tokens_behind).

        Args:
          text: the text.
          before: the text to continue.
        """
        if (before, text) not in self._ids:
            self._ids[before, text] = tokens_behind(self.backbone.tokenizer, before, text)
        return self._ids[before, text]

    def _behind(self, text: str) -> Ids:
        """The tokens of an answer or of fixed words, which follow a text."""
        return self.tokens(text, "x" if text.startswith(" ") else "")

    def _answer(self, example: Example, answer: str) -> Ids:
        """The tokens of an answer; a free answer ends with an end token, options do not need one."""
        ids = self._behind(" " + answer)
        if not ids:
            raise ValueError(f"{self.backbone.name} has no token for the answer {answer!r}; leave it out")
        if not example.options and "\n" in answer.strip():
            raise ValueError(
                f"the answer {answer[:40]!r} has a line break, but a free answer ends with its first line; "
                "write it in one line, or give options"
            )
        return ids if example.options else (*ids, self.backbone.eos)

    def _distinct(self, example: Example) -> tuple[Ids, ...]:
        """The tokens of the options; raises ValueError if two are the same."""
        answers = tuple(self._answer(example, option) for option in example.options)
        if len(set(answers)) < len(answers):
            same = answers[[answers.count(answer) > 1 for answer in answers].index(True)]
            alike = [o for o, answer in zip(example.options, answers, strict=True) if answer == same]
            pieces = self.backbone.tokenizer.convert_ids_to_tokens(same)
            raise ValueError(
                f"{self.backbone.name} reads the options {' and '.join(map(repr, alike))} as the same tokens "
                f"{pieces} and cannot tell them apart; write them in words of its vocabulary, or use another "
                "model"
            )
        return answers
