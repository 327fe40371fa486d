"""Tables of results in a notebook."""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iptkit.course import output

LEFT = (
    ' align="left" style="text-align: left"'  # JupyterLab needs the style, and the site keeps the other one
)
SENTENCE = '<div style="width: 17em; white-space: normal">{}</div>'  # the site removes min-width


@dataclass(frozen=True, repr=False)
class Table:
    """Rows as a table with a caption: HTML in a notebook, aligned columns elsewhere.

    A cell shows a float with three decimals, an integer with thousands separated, a triple of floats as mean
    and interval, None as nothing, and everything else as text.

    Attributes:
      caption: one sentence that says what the table shows.
      rows: a mapping from heading to cell per row; all rows have the headings of the first.
      signed: headings of columns whose floats have their sign, such as differences.
      wrapped: headings of columns with sentences, which break into lines in a notebook.

    Raises:
      ValueError: there is no row, or a row has other headings than the first.

    Example:
      >>> Table("Test scores.", [{"method": "IST", "score": (0.25, 0.125, 0.375), "runs": 1000}])
      Test scores.
      method  score                 runs
      IST     0.250 [0.125, 0.375]  1,000
    """

    caption: str
    rows: Sequence[Mapping[str, Any]]
    signed: Collection[str] = ()
    wrapped: Collection[str] = ()

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError(f"the table {self.caption!r} has no row")
        for row in self.rows:
            if list(row) != list(self.rows[0]):
                raise ValueError(
                    f"a row of the table {self.caption!r} has the headings {', '.join(row)}, the first row "
                    f"has {', '.join(self.rows[0])}; give all rows the same, with None where a cell is empty"
                )

    def __repr__(self) -> str:
        return f"{self.caption}\n{output.table([list(self.rows[0]), *self._cells()])}"

    def _repr_html_(self) -> str:
        """The same for a notebook; everything in it is escaped."""
        is_number = [
            all(isinstance(r[h], int | float | tuple | None) for r in self.rows) for h in self.rows[0]
        ]
        looks = ["" if number else LEFT for number in is_number]
        forms = [SENTENCE if heading in self.wrapped else "{}" for heading in self.rows[0]]

        def line(cells: Sequence[str], tag: str, scope: str = "") -> str:
            each = zip(cells, looks, forms, strict=True)
            return "".join(
                f"<{tag}{scope}{look}>{form.format(html.escape(cell))}</{tag}>" for cell, look, form in each
            )

        caption = f'<caption style="text-align: left">{html.escape(self.caption)}</caption>'
        head = line(list(self.rows[0]), "th", ' scope="col"')
        body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in self._cells())
        return (
            f'<div style="overflow-x: auto"><table style="white-space: nowrap">{caption}'
            f'<thead align="right"><tr>{head}</tr></thead><tbody align="right">{body}</tbody></table></div>'
        )

    def _cells(self) -> list[list[str]]:
        return [[_text(cell, head in self.signed) for head, cell in row.items()] for row in self.rows]


def _text(cell: Any, is_signed: bool) -> str:
    sign = "+" if is_signed else ""
    match cell:
        case None:
            return ""
        case float():
            return f"{cell:{sign}.3f}"
        case int() if not isinstance(cell, bool):
            return f"{cell:{sign},}"
        case (float() as mean, float() as low, float() as high):
            return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
        case _:
            return str(cell)
