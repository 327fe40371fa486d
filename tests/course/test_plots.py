import itertools

import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from iptkit.course import plots
from iptkit.studies import unseen
from iptkit.studies.score_rows import DECODERS  # noqa: E402


@pytest.fixture
def ax():
    with matplotlib.rc_context():
        plots.use()
        figure, axes = plt.subplots()
        yield axes
        plt.close(figure)


def test_every_method_of_the_course_has_a_style():
    ladder = {"prompt tuning", "MSF", "IST", "LoRA", "fine-tuning"}
    controls = {"zero-shot", "chance", "paper", "mean code", "mean prompt", *DECODERS.values()}
    assert ladder | controls | {unseen.NEAREST, unseen.STAGE_TWO, "IST, same data"} <= set(plots.METHODS)


def test_no_two_methods_look_alike():
    for one, other in itertools.combinations(plots.METHODS.values(), 2):
        assert one["marker"] != other["marker"]
        assert one["color"] != other["color"] or one["linestyle"] != other["linestyle"]


@pytest.mark.parametrize("method", plots.METHODS)
def test_lines_have_contrast_on_white(method):
    """At least 3:1, WCAG 2.1, success criterion 1.4.11."""
    shares = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in matplotlib.colors.to_rgb(plots.style(method)["color"])
    ]
    luminance = 0.2126 * shares[0] + 0.7152 * shares[1] + 0.0722 * shares[2]
    assert 1.05 / (luminance + 0.05) >= 3


def test_style_is_a_copy_and_knows_its_methods():
    plots.style("IST")["color"] = "red"
    assert plots.style("IST")["color"] != "red"
    with pytest.raises(
        ValueError, match="no style for the method 'ist'; there are: zero-shot, prompt tuning"
    ):
        plots.style("ist")


def test_faces_are_white_in_dark_themes_too(ax):
    assert matplotlib.colors.to_hex(ax.figure.get_facecolor()) == "#ffffff"
    assert (
        matplotlib.rcParams["savefig.facecolor"] == "white" and not matplotlib.rcParams["savefig.transparent"]
    )


def test_curve_and_level(ax):
    line = plots.curve(ax, [2, 5, 20], [0.1, 0.2, 0.3], [0.0, 0.1, 0.2], [0.2, 0.3, 0.4], "IST")
    plots.curve(ax, [2, 5, 20], [0.1, 0.2, 0.3], method="MSF", label="")
    plots.level(ax, 0.87, "paper")
    assert line.get_color() == plots.METHODS["IST"]["color"] and line.get_marker() == "D"
    assert len(ax.collections) == 1  # one band
    assert ax.get_legend_handles_labels()[1] == ["IST", "paper"]


def test_bars_with_intervals(ax):
    values = {"zero-shot": [0.2, 0.3], "IST": [0.4, 0.5]}
    plots.bars(ax, ["cls", "qa"], values, {"IST": [0.35, 0.4]}, {"IST": [0.5, 0.55]})
    assert [round(bar.get_height(), 3) for bar in ax.patches] == [0.2, 0.3, 0.4, 0.5]
    segments = ax.collections[0].get_segments()
    assert segments[0][:, 1].tolist() == pytest.approx([0.35, 0.5])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["cls", "qa"]


def test_show_gives_the_picture_its_words_and_closes_it(ax, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *args, **options: shown.append((args, options)))
    plots.show(ax.figure, alt=" a rising line ")
    assert shown == [((ax.figure,), {"metadata": {"image/png": {"alt": "a rising line"}}})]
    assert not plt.fignum_exists(ax.figure.number)


def test_show_asks_for_words(ax):
    with pytest.raises(ValueError, match="needs a description"):
        plots.show(ax.figure, alt=" ")
