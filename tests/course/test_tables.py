import pytest

from iptkit.course import tables

ROWS = [
    {"method": "IST", "d_I": 5, "score": (0.25, 0.125, 0.375), "gap": 0.5},
    {"method": "prompt tuning <b>", "d_I": None, "score": None, "gap": -0.25},
]


def test_cells_as_text():
    text = repr(tables.Table("Scores.", ROWS, signed={"gap"}))
    assert text.splitlines() == [
        "Scores.",
        "method             d_I  score                 gap",
        "IST                5    0.250 [0.125, 0.375]  +0.500",
        "prompt tuning <b>                             -0.250",
    ]


def test_html_is_escaped_and_has_caption_and_headings():
    shown = tables.Table("A < B", ROWS)._repr_html_()
    assert "A &lt; B</caption>" in shown and "prompt tuning &lt;b&gt;" in shown and "<b>" not in shown
    assert shown.count('scope="col"') == 4 and shown.count("<tr>") == 3
    assert "<td>0.250 [0.125, 0.375]</td>" in shown and '<tbody align="right">' in shown
    assert '<td align="left" style="text-align: left">IST</td>' in shown


def test_sentences_break_into_lines():
    shown = tables.Table("Claims.", [{"claim": "A1", "says": "A sentence."}], wrapped={"says"})._repr_html_()
    assert "white-space: normal" in shown and ">A sentence.</div></td>" in shown
    plain = tables.Table("Claims.", [{"claim": "A1", "says": "A sentence."}])._repr_html_()
    assert "white-space: normal" not in plain


def test_rows_without_the_same_headings_are_refused():
    with pytest.raises(ValueError, match="headings method, the first row has method, d_I, score, gap; give"):
        tables.Table("Scores.", [ROWS[0], {"method": "IST"}])
    with pytest.raises(ValueError, match="'Scores.' has no row"):
        tables.Table("Scores.", [])
