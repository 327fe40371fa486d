"""Diagrams of the methods: what is trained, what is frozen, and which way the gradient goes.

All pictures use the same signs, and each has a legend:

    trained      filled with TRAINED, and the word
    frozen       hatched grey with a lock, and the word
    computed     thick outline and hollow bars, and the word: a trained or frozen part makes these numbers
    thrown away  dashed outline, and the words
    forward      thin dark arrows            gradient    thick dashed arrows of TRAINED

A row is read from left to right in the kit's default order: text, prompt, answer. The model stands above it.
Shapes have the symbols of the modules in `methods`.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH = 600  # of the viewBox; a phone shows it at little more than half this size
MARGIN, TEXT, SMALL, TITLE = 20, 17, 15, 21
INK, WHITE, TRAINED, OUTLINE = "#1b1b1b", "#ffffff", "#a63603", "#595959"
HATCHED, HATCH = "#ececec", "#c9c9c9"
FONTS = "Arial, Helvetica, 'Liberation Sans', 'DejaVu Sans', sans-serif"
STATUSES = ("trained", "frozen", "computed", "thrown away", "given")
Point = tuple[float, float]
Count = int | None


@dataclass(frozen=True)
class Diagram:
    """One of the diagrams.

    Attributes:
      title: heading inside the picture.
      alt: what the picture says, in two sentences.
      draw: draws everything between heading and legend on a `Canvas`; its keyword arguments are the numbers
        that the picture can show.
    """

    title: str
    alt: str
    draw: Callable[..., None]


_DIAGRAMS: dict[str, Diagram] = {}


def names() -> tuple[str, ...]:
    """The names of all diagrams."""
    return tuple(_DIAGRAMS)


def alt(name: str) -> str:
    """What a diagram says, in two sentences.

    Raises: ValueError for an unknown name.
    """
    return _of(name).alt


def svg(name: str, **numbers: Any) -> str:
    """The text of a diagram as an SVG file; the same arguments give the same bytes.

    Args:
      name: one of `names()`.
      numbers: what the picture shows beside its symbols. Methods that train have `trained`, the number of
        trained parameters. "p_tuning" also has `kept`, the parameters that remain after training, and "msf"
        has `tasks`, the number of seen tasks. "course_map" has `here`, a lesson such as "05"; "cross_fitting"
        has `tasks` and `folds`; "jobs" has `dims`, three d_I.
    Raises: ValueError for an unknown name or number.

    Example:
      >>> "2,304" in svg("prompt_tuning", trained=2304)
      True
    """
    diagram = _of(name)
    allowed = list(inspect.signature(diagram.draw).parameters)[1:]
    if unknown := sorted(numbers.keys() - set(allowed)):
        shown = ", ".join(allowed) or "no other numbers"
        raise ValueError(f"diagram {name!r} does not show {', '.join(unknown)}; it shows {shown}")
    canvas = Canvas()
    canvas.text(MARGIN, 34, diagram.title, size=TITLE, anchor="start", is_bold=True)
    diagram.draw(canvas, **numbers)
    return canvas.svg(name, diagram)


def show(name: str, **numbers: Any) -> None:
    """Display a diagram in a notebook, with its description in words.

    The output is an HTML picture with the SVG inside: Jupyter does not show the SVG output of a notebook that
    is not trusted, and an SVG output has no place for a description.

    Args:
      name: one of `names()`.
      numbers: see `svg`.
    Raises: ValueError for an unknown name or number.
    """
    from IPython.display import display

    picture = base64.b64encode(svg(name, **numbers).encode()).decode()
    source = f"data:image/svg+xml;base64,{picture}"
    html = f'<img src="{source}" alt="{escape(alt(name))}" width="720" style="max-width: 100%"/>'
    display({"text/html": html, "text/plain": alt(name)}, raw=True)


def _of(name: str) -> Diagram:
    if name not in _DIAGRAMS:
        raise ValueError(f"diagram {name!r} is unknown; choose one of {', '.join(_DIAGRAMS)}")
    return _DIAGRAMS[name]


# ---- drawing -------------------------------------------------------------------------------------
class Canvas:
    """The elements of a picture, drawn in order; it notes which signs the legend has to explain."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.signs: list[str] = []
        self.bottom = 0.0

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: int = TEXT,
        anchor: str = "middle",
        is_bold: bool = False,
        fill: str = INK,
    ) -> None:
        """Write a line of words whose baseline is at y."""
        weight = ' font-weight="bold"' if is_bold else ""
        where = f'x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"'
        self.items.append(f'<text {where}{weight} fill="{fill}">{escape(words)}</text>')
        self.bottom = max(self.bottom, y + 0.3 * size)

    def rect(self, x: float, y: float, w: float, h: float, fill: str, more: str = "", r: float = 5) -> None:
        """Draw a rectangle; `more` are further attributes."""
        self.items.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="{r:g}" fill="{fill}"{more}/>'
        )
        self.bottom = max(self.bottom, y + h)

    def part(
        self,
        name: str,
        status: str,
        x: float,
        y: float,
        w: float,
        h: float,
        lines: Sequence[str] | None = None,
        bars: int = 0,
        left: bool = False,
    ) -> None:
        """Draw a part of the method with its words and, unless it is given, its status as the last of them.

        Args:
          name: what it is, without its status.
          status: one of STATUSES.
          x: left edge.
          y: upper edge.
          w: width.
          h: height.
          lines: words inside it (default: the name).
          bars: number of vectors or tokens drawn at its upper edge.
          left: words at the left instead of the middle.
        """
        note = "" if status == "given" else f": {status}"
        self.items.append(f"<g><title>{escape(name)}{note}</title>")
        self._box(status, x, y, w, h)
        words = [name] if lines is None else list(lines)
        if status != "given":
            words.append(status)
        ink, bar_height = WHITE if status == "trained" else INK, 16 if bars else 0
        for i in range(bars):
            pitch = (w - 16) / bars
            fill = WHITE if status in ("trained", "computed") else OUTLINE
            line = f' stroke="{INK}" stroke-width="2"' if status == "computed" else ""
            self.rect(x + 8 + pitch * i + 2, y + 8, pitch - 4, bar_height, fill, line, r=2)
        step = 20
        block = step * (len(words) - 1) + 12
        top = y + bar_height + (8 if bars else 0)
        first = top + (h - (top - y) - block) / 2 + 12
        at, anchor = (x + 16, "start") if left else (x + w / 2, "middle")
        if status == "frozen":
            widest = max(width(line, TEXT, i == len(words) - 1) for i, line in enumerate(words))
            widest = max(widest, width(status, TEXT, True) + 20) + 14
            plate = x + 9 if left else at - widest / 2
            self.rect(plate, first - 18, widest, block + 12, WHITE)
        for i, line in enumerate(words):
            is_status, place, side = status != "given" and i == len(words) - 1, at, anchor
            if is_status and status == "frozen":
                lock = at if left else at - (width(status, TEXT, True) + 20) / 2
                self._lock(lock, first + step * i - 13)
                place, side = lock + 20, "start"
            self.text(place, first + step * i, line, TEXT, side, is_status, ink)
        self.items.append("</g>")

    def _box(self, status: str, x: float, y: float, w: float, h: float) -> None:
        if status not in STATUSES:
            raise ValueError(f"status {status!r} is unknown; choose one of {STATUSES}")
        self.sign(status)
        fill = {"trained": TRAINED, "frozen": HATCHED}.get(status, WHITE)
        line = {"trained": TRAINED, "computed": INK}.get(status, OUTLINE)
        thick = 3 if status == "computed" else 2
        dashes = ' stroke-dasharray="7 5"' if status == "thrown away" else ""
        self.rect(x, y, w, h, fill)
        if status == "frozen":
            self.rect(x, y, w, h, "url(#hatch)")
        self.rect(x, y, w, h, "none", f' stroke="{line}" stroke-width="{thick}"{dashes}')

    def _lock(self, x: float, y: float) -> None:
        arc = f"M{x + 3:g} {y + 6:g}v-2a4 4 0 0 1 8 0v2"
        self.items.append(f'<path d="{arc}" fill="none" stroke="{INK}" stroke-width="2"/>')
        self.rect(x, y + 6, 14, 8, INK, r=1)

    def sign(self, name: str) -> None:
        """Note a sign for the legend."""
        if name not in (*self.signs, "given"):
            self.signs.append(name)

    def forward(self, *points: Point) -> None:
        """Draw an arrow along the points, from what is computed first to what follows."""
        self.sign("forward")
        self._arrow(points, INK, 1.8, 5)

    def gradient(self, *points: Point) -> None:
        """Draw the way of the gradient along the points, back from the loss."""
        self.sign("gradient")
        self._arrow(points, TRAINED, 3.2, 8, ' stroke-dasharray="9 5"')

    def _arrow(self, points: Sequence[Point], ink: str, thick: float, head: float, more: str = "") -> None:
        (x0, y0), (x, y) = points[-2:]
        length = ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
        dx, dy = (x - x0) / length, (y - y0) / length
        neck = (x - 1.6 * head * dx, y - 1.6 * head * dy)
        path = "M" + "L".join(f"{a:g} {b:g}" for a, b in (*points[:-1], neck))
        halo = f'<path d="{path}" fill="none" stroke="{WHITE}" stroke-width="{thick + 4:g}"/>'
        line = f'<path d="{path}" fill="none" stroke="{ink}" stroke-width="{thick:g}"{more}/>'
        tip = f"M{x:g} {y:g}" + "".join(
            f"L{neck[0] + side * head * dy:g} {neck[1] - side * head * dx:g}" for side in (1, -1)
        )
        self.items += [halo, line, f'<path d="{tip}Z" fill="{ink}"/>']

    def count(self, when: str, number: Count, symbols: str = "") -> None:
        """Write below the heading what is trained: a number of parameters, or symbols without one."""
        value = symbols if number is None else f"{number:,} parameters"
        ink = INK if number == 0 else TRAINED
        self.text(MARGIN, 60, f"Trained {when}: {value}", anchor="start", is_bold=True, fill=ink)

    def legend(self) -> None:
        """Explain the signs of the picture, at its lower edge."""
        if not self.signs:
            return
        x, y = float(MARGIN), self.bottom + 20
        edge = f"M{MARGIN} {y:g}H{WIDTH - MARGIN}"
        self.items.append(f'<path d="{edge}" stroke="{OUTLINE}" stroke-width="1"/>')
        y += 12
        order = [*STATUSES, "forward", "gradient"]
        for name in sorted(self.signs, key=order.index):
            size = 42 + width(name, SMALL) + 16
            if x + size > WIDTH:
                x, y = float(MARGIN), y + 28
            if name == "forward":
                self._arrow([(x, y + 10), (x + 34, y + 10)], INK, 1.8, 5)
            elif name == "gradient":
                self._arrow([(x, y + 10), (x + 34, y + 10)], TRAINED, 3.2, 8, ' stroke-dasharray="9 5"')
            else:
                self._box(name, x + 1, y + 1, 32, 18)
            self.text(x + 42, y + 15, name, SMALL, "start")
            x += size

    def svg(self, name: str, diagram: Diagram) -> str:
        """The whole file, with a legend."""
        self.legend()
        height = round(self.bottom + 16)
        ids = f"{name}-title {name}-desc"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
                f'width="{WIDTH * 1.2:g}" height="{height * 1.2:g}" role="img" aria-labelledby="{ids}" '
                f'font-family="{FONTS}">',
                f'<title id="{name}-title">{escape(diagram.title)}</title>',
                f'<desc id="{name}-desc">{escape(diagram.alt)}</desc>',
                '<defs><pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" '
                f'patternTransform="rotate(45)"><path d="M0 0V8" stroke="{HATCH}" stroke-width="3"/>'
                "</pattern></defs>",
                f'<rect width="{WIDTH}" height="{height}" fill="{WHITE}"/>',
                *self.items,
                "</svg>",
                "",
            ]
        )


def width(words: str, size: int, is_bold: bool = False) -> float:
    """About how wide a line of words is, in units of the viewBox."""
    narrow = sum(letter in "ijl.,:;|!'()[]tfr " for letter in words)
    return size * (0.6 * (len(words) - narrow) + 0.33 * narrow) * (1.08 if is_bold else 1)


def _diagram(title: str, alt: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(draw: Callable[..., None]) -> Callable[..., None]:
        _DIAGRAMS[draw.__name__.lstrip("_")] = Diagram(title, " ".join(alt.split()), draw)
        return draw

    return add


# ---- pieces that several pictures share ----------------------------------------------------------
LEFT, RIGHT = MARGIN, WIDTH - MARGIN
LOSS_Y, MODEL_Y, ROW_Y = 82, 150, 258  # upper edges
LOSS_H, MODEL_H, CELL_H = 36, 74, 104
PROMPT_X, PROMPT_W, ANSWER_X, ANSWER_W = 270, 150, 440, 140
LAYER_X, LAYER_H, LAYER_GAP, DEEP_W = 206, 74, 12, 146
TASK = "per task"


def _loss(c: Canvas, words: str = "loss: answer") -> None:
    c.part("loss", "given", ANSWER_X, LOSS_Y, ANSWER_W, LOSS_H, [words])
    c.forward((ANSWER_X + 100, MODEL_Y), (ANSWER_X + 100, LOSS_Y + LOSS_H))


def _model(c: Canvas, status: str = "frozen", loss: str = "loss: answer") -> None:
    c.part("language model", status, LEFT, MODEL_Y, RIGHT - LEFT, MODEL_H, left=True)
    _loss(c, loss)


def _cell(
    c: Canvas,
    x: float,
    w: float,
    name: str,
    bars: int,
    status: str = "given",
    lines: Sequence[str] | None = None,
) -> None:
    """A cell of the row, with an arrow into the model."""
    c.part(name, status, x, ROW_Y, w, CELL_H, lines, bars)
    c.forward((x + w / 2, ROW_Y), (x + w / 2, MODEL_Y + MODEL_H))


def _row(c: Canvas, prompt: str, status: str, lines: Sequence[str] | None = None) -> None:
    """The row text, prompt, answer below the model."""
    _cell(c, LEFT, 230, "text", 7)
    _cell(c, PROMPT_X, PROMPT_W, prompt, 4, status, lines)
    _cell(c, ANSWER_X, ANSWER_W, "answer", 3)


def _back(c: Canvas, x: float, y: float) -> None:
    """The way of the gradient from the loss, down at x, to y."""
    c.gradient((ANSWER_X, LOSS_Y + 18), (x, LOSS_Y + 18), (x, y))
    c.text(x - 10, LOSS_Y + 24, "gradient", SMALL, "end", True, TRAINED)


def _chain(c: Canvas, y: float, encoder: str, code: str, decoder: str) -> None:
    """Encoder, code and decoder below the prompt p*, with the arrows that lead through decoder and model."""
    c.part("encoder", encoder, LEFT, y, 124, 84)
    c.part("code z", code, 172, y, 100, 84, ["code z", "[d_I]"])
    c.part("decoder", decoder, 300, y, 100, 84)
    c.forward((272, y + 24), (300, y + 24))
    c.forward((325, y), (325, ROW_Y + CELL_H))
    _back(c, 375, ROW_Y)
    c.gradient((375, ROW_Y + CELL_H), (375, y))
    c.gradient((300, y + 60), (272, y + 60))


def _to_layers(c: Canvas, y: float) -> None:
    """Arrows between a deep prompt and the layer whose upper edge is y."""
    c.forward((LEFT + DEEP_W, y + 22), (LAYER_X, y + 22))
    c.gradient((LAYER_X, y + 52), (LEFT + DEEP_W, y + 52))


def _layers(c: Canvas) -> list[float]:
    """Three layers of the model; returns their upper edges."""
    edges = [float(MODEL_Y + i * (LAYER_H + LAYER_GAP)) for i in range(3)]
    for y, words in zip(edges, ("layer L", "...", "layer 1"), strict=True):
        name = "layers between" if words == "..." else words
        c.part(f"model, {name}", "frozen", LAYER_X, y, RIGHT - LAYER_X, LAYER_H, [words], left=True)
    return edges


# ---- the methods ---------------------------------------------------------------------------------
@_diagram(
    "Zero-shot: the prompt is words",
    """Words stand before and after the text, and a frozen language model gives the answer a score. Nothing
    is trained, so there is no gradient.""",
)
def _zero_shot(c: Canvas) -> None:
    c.count(TASK, 0)
    _model(c, loss="score: answer")
    _cell(c, LEFT, 90, "words", 2)
    _cell(c, 120, 180, "text", 6)
    _cell(c, 310, 120, "words", 3)
    _cell(c, ANSWER_X, ANSWER_W, "answer", 3)
    c.text(WIDTH / 2, ROW_Y + CELL_H + 26, "People choose the words. Nothing is trained.")


@_diagram(
    "Prompt tuning: train n vectors",
    """The row is text, prompt P [n, d] and answer; P is trained, and the language model is frozen. The
    gradient of the answer's loss passes through the model and changes P only.""",
)
def _prompt_tuning(c: Canvas, trained: Count = None) -> None:
    c.count(TASK, trained, "n · d parameters")
    _model(c)
    _row(c, "prompt P", "trained", ["prompt P", "[n, d]"])
    _back(c, PROMPT_X + PROMPT_W / 2 + 30, ROW_Y)


@_diagram(
    "P-tuning: an encoder makes the vectors",
    """Trained input vectors X [n, d] and a trained encoder (LSTM and MLP) make the prompt vectors P, which
    stand before and after the text, among words; the language model is frozen. After training, X and the
    encoder are thrown away, and P [n, d] is kept.""",
)
def _p_tuning(c: Canvas, trained: Count = None, kept: Count = None) -> None:
    c.count(TASK, trained, "X and encoder")
    _model(c)
    _cell(c, LEFT, 118, "prompt P, first part", 3, "computed", ["P"])
    _cell(c, 146, 104, "text", 4)
    _cell(c, 258, 118, "prompt P, second part", 3, "computed", ["P"])
    _cell(c, 384, 70, "words", 2)
    _cell(c, 462, 118, "answer", 3)
    y = ROW_Y + CELL_H + 44
    c.sign("thrown away")
    c.rect(LEFT, y, 420, 126, WHITE, f' stroke="{OUTLINE}" stroke-width="2" stroke-dasharray="7 5"')
    c.part("vectors X", "trained", LEFT + 14, y + 14, 130, 76, ["X [n, d]"], 6)
    c.part("encoder", "trained", 232, y + 14, 194, 76, ["encoder", "LSTM + MLP"])
    c.text(LEFT + 210, y + 113, "thrown away after training", is_bold=True)
    c.text(RIGHT, y + 40, "kept:", anchor="end", is_bold=True)
    for i, line in enumerate(("prompt P", "[n, d]", *([f"= {kept:,}"] if kept is not None else []))):
        c.text(RIGHT, y + 62 + 22 * i, line, anchor="end")
    c.forward((LEFT + 144, y + 36), (232, y + 36))
    c.forward((256, y + 14), (256, y - 20), (79, y - 20), (79, ROW_Y + CELL_H))
    c.forward((290, y + 14), (290, ROW_Y + CELL_H))
    _back(c, 340, ROW_Y)
    c.gradient((340, ROW_Y + CELL_H), (340, y + 14))
    c.gradient((232, y + 68), (LEFT + 144, y + 68))


@_diagram(
    "P-Tuning v2: prompts at every layer",
    """Every layer of a frozen encoder gets its own trained keys and values, which stand to the left of the
    text's own. A linear head is trained on top, and the gradient of its loss reaches the keys and values of
    all layers.""",
)
def _p_tuning_v2(c: Canvas, trained: Count = None) -> None:
    c.count(TASK, trained, "keys, values, head")
    edges = _layers(c)
    for y, name in zip(edges, ("layer L", "layers between", "layer 1"), strict=True):
        c.part(f"prompt, {name}", "trained", LEFT, y, DEEP_W, LAYER_H, ["keys, values", "[2, h, n, k]"])
        _to_layers(c, y)
    top, h = LOSS_Y - 8, 50
    c.part("head", "trained", LAYER_X, top, 180, h, ["head [C, d + 1]"])
    c.part("loss", "given", 470, top, 110, h, ["loss: label"])
    c.forward((386, top + 14), (470, top + 14))
    c.gradient((470, top + 36), (386, top + 36))
    c.forward((232, MODEL_Y), (232, top + h))
    c.gradient((356, top + h), (356, MODEL_Y))
    end = edges[-1] + LAYER_H
    c.part("text", "given", LAYER_X, end + 28, RIGHT - LAYER_X, 58, ["[CLS] text"], 9)
    c.forward((393, end + 28), (393, end))


@_diagram(
    "MSF: find the shared subspace",
    """An encoder maps the trained prompts p of many seen tasks to codes z [d_I], and a decoder maps each
    code back to a prompt p*; both are trained, and the language model is frozen. There are two losses: p*
    must lead to the right answer, and it must be near p.""",
)
def _msf(c: Canvas, trained: Count = None, tasks: Count = None) -> None:
    c.count("for all tasks at once", trained, "encoder, decoder")
    _model(c)
    _row(c, "prompt p*", "computed", ["prompt p*", "[n, d]"])
    y = ROW_Y + CELL_H + 44
    _chain(c, y, "trained", "computed", "trained")
    c.forward((144, y + 24), (172, y + 24))
    c.gradient((172, y + 60), (144, y + 60))
    c.part("loss 2", "given", ANSWER_X + 30, y, ANSWER_W - 30, 84, ["loss 2:", "p* near p"])
    c.forward((408, ROW_Y + CELL_H), (408, y - 22), (525, y - 22), (525, y))
    c.gradient((ANSWER_X + 30, y + 60), (400, y + 60))
    words = ["prompts p", f"of {tasks or 'T'} seen tasks"]
    c.part("bank of prompts", "given", LEFT, y + 112, 252, 58, words)
    c.forward((82, y + 112), (82, y + 84))
    c.forward((272, y + 141), (525, y + 141), (525, y + 84))


@_diagram(
    "IST: tune a code in the subspace",
    """Only the code z [d_I] is trained for a task: the decoder of MSF is frozen and turns it into the
    prompt p*, and the language model is frozen, too. The encoder is thrown away, and the gradient passes
    through model and decoder to z.""",
)
def _ist(c: Canvas, trained: Count = None) -> None:
    c.count(TASK, trained, "d_I parameters")
    _model(c)
    _row(c, "prompt p*", "computed", ["prompt p*", "[n, d]"])
    y = ROW_Y + CELL_H + 44
    _chain(c, y, "thrown away", "trained", "frozen")
    c.text(RIGHT, y + 38, "decoder of MSF,", anchor="end")
    c.text(RIGHT, y + 60, "the same for", anchor="end")
    c.text(RIGHT, y + 82, "all tasks", anchor="end")


@_diagram(
    "IST on deep prompts",
    """Only the code z [d_I] is trained for a task: a frozen decoder turns it into the keys and values of
    all layers of the frozen language model. The encoder of MSF is thrown away, and the gradient passes
    through the layers, the deep prompt and the decoder to z.""",
)
def _deep_subspace(c: Canvas, trained: Count = None) -> None:
    c.count(TASK, trained, "d_I parameters")
    edges = _layers(c)
    _loss(c)
    c.gradient((ANSWER_X + 40, LOSS_Y + LOSS_H), (ANSWER_X + 40, MODEL_Y))
    c.text(ANSWER_X + 28, MODEL_Y - 12, "gradient", SMALL, "end", True, TRAINED)
    end = edges[-1] + LAYER_H
    lines = ["deep prompt", "keys, values", "[L, 2, h, n, k]"]
    c.part("deep prompt", "computed", LEFT, MODEL_Y, DEEP_W, end - MODEL_Y, lines)
    for y in edges:
        _to_layers(c, y)
    c.part("text", "given", LAYER_X, end + 26, ANSWER_X - 14 - LAYER_X, 58, ["text"], 6)
    c.part("answer", "given", ANSWER_X, end + 26, ANSWER_W, 58, ["answer"], 3)
    for x in ((LAYER_X + ANSWER_X - 14) / 2, ANSWER_X + ANSWER_W / 2):
        c.forward((x, end + 26), (x, end))
    y = end + 112
    c.part("decoder", "frozen", LEFT, y, DEEP_W, 84)
    c.part("code z", "trained", LAYER_X + 6, y, 130, 84, ["code z", "[d_I]"])
    c.part("encoder", "thrown away", ANSWER_X - 34, y, ANSWER_W + 34, 84)
    c.forward((55, y), (55, end))
    c.gradient((125, end), (125, y))
    c.forward((LAYER_X + 6, y + 24), (LEFT + DEEP_W, y + 24))
    c.gradient((LEFT + DEEP_W, y + 60), (LAYER_X + 6, y + 60))


@_diagram(
    "Fine-tuning: train all weights",
    """All weights of the language model are trained, and nothing is frozen. The row is text, words and
    answer; the gradient of the answer's loss changes the model itself.""",
)
def _fine_tuning(c: Canvas, trained: Count = None) -> None:
    c.count(TASK, trained, "all weights")
    _model(c, "trained")
    _row(c, "words", "given")
    _back(c, 330, MODEL_Y)


@_diagram(
    "Adapters: small layers between frozen ones",
    """A small trained adapter stands behind every attention and every feed-forward block of the frozen
    language model. It adds swish(h D) U to the output h of its block, and the gradient passes through the
    frozen blocks to the adapters of all layers.""",
)
def _adapters(c: Canvas, trained: Count = None) -> None:
    c.count(TASK, trained, "2 · d · r per adapter")
    _loss(c)
    x, w, h, y, edges = 76, 220, 54, 162.0, []
    c.rect(LEFT, y - 12, RIGHT - LEFT, 392, WHITE, f' stroke="{OUTLINE}" stroke-width="2"')
    c.forward((ANSWER_X + 100, MODEL_Y), (ANSWER_X + 100, LOSS_Y + LOSS_H))
    for block in ("feed-forward", "attention"):
        plus, adapter, frozen = y + 14, y + 42, y + 42 + h + 24
        bottom = frozen + h
        c.part(f"adapter behind {block}", "trained", x, adapter, w, h, ["adapter"], left=True)
        c.part(block, "frozen", x, frozen, w, h, left=True)
        c.forward((200, bottom + 10), (46, bottom + 10), (46, plus), (190, plus))
        for lower, upper in ((bottom + 22, bottom), (frozen, adapter + h), (adapter, plus + 10)):
            c.forward((200, lower), (200, upper))
        sign = f"M194 {plus:g}h12M200 {plus - 6:g}v12"
        for shape in (f'circle cx="200" cy="{plus:g}" r="10"', f'path d="{sign}"'):
            c.items.append(f'<{shape} fill="{WHITE}" stroke="{INK}" stroke-width="2"/>')
        edges.append(adapter)
        y = bottom + 16
    c.forward((200, 166), (200, MODEL_Y))
    _back(c, 268, edges[0])
    c.gradient((268, edges[0] + h), (268, edges[1]))
    c.text(330, 222, "One of L layers", anchor="start", is_bold=True)
    added = ("Each adapter adds", "swish(h D) U", "to the output h [d]", "of its block.")
    for top, lines in ((262, added), (374, ("D [d, r] narrows,", "U [r, d] widens."))):
        for i, line in enumerate(lines):
            c.text(330, top + 24 * i, line, anchor="start")
    c.part("row", "given", LEFT, y + 18, RIGHT - LEFT, 58, ["text, words, answer"], 14)
    c.forward((200, y + 18), (200, y - 16))


# ---- the course ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Stop:
    """A lesson on the map.

    Attributes:
      title: its subject in one or two words.
      question: its question in three words.
      needs: the lessons that it builds on.
      place: column and line on the map.
    """

    title: str
    question: str
    needs: tuple[str, ...]
    place: tuple[int, int]


STOPS = {
    "00": Stop("frozen model", "What is trained?", (), (1, 0)),
    "01": Stop("words", "Do words matter?", ("00",), (0, 1)),
    "02": Stop("prompt tuning", "Do vectors suffice?", ("00",), (1, 1)),
    "03": Stop("P-tuning", "Do encoders help?", ("01", "02"), (0, 2)),
    "04": Stop("P-Tuning v2", "Is deeper better?", ("02",), (2, 2)),
    "05": Stop("MSF", "One shared subspace?", ("02",), (1, 2)),
    "06": Stop("IST", "Are five enough?", ("05",), (1, 3)),
    "07": Stop("120 tasks", "Unseen tasks, too?", ("05", "06"), (1, 4)),
    "08": Stop("deep subspace", "Deep prompts, too?", ("04", "05", "06"), (2, 4)),
    "09": Stop("scale", "At what cost?", ("06",), (0, 4)),
}
LAST = Stop("scoreboard", "Which claims hold?", tuple(list(STOPS)[1:-1]), (1, 5))
STOP_W, STOP_H, STOP_GAP = 180, 62, 34


@_diagram(
    "Map of the course",
    """Arrows lead from each lesson to those that build on it: from 00 to 01 and 02, from these to 03, from
    02 to 04 and 05, from 05 to 06, from 06 to 07, 08 and 09, and from 04 to 08. Lesson 90 collects the
    results of 01 to 08.""",
)
def _course_map(c: Canvas, here: str = "") -> None:
    if here and here not in (*STOPS, "90"):
        raise ValueError(f"here={here!r} is no lesson; choose one of {', '.join((*STOPS, '90'))}")

    def corner(stop: Stop) -> Point:
        column, line = stop.place
        return LEFT + column * (STOP_W + 10), 60.0 + line * (STOP_H + STOP_GAP)

    for stop in STOPS.values():
        x, y = corner(stop)
        for need in stop.needs:
            if any(need in STOPS[other].needs for other in stop.needs):
                continue  # there is a longer way on the map
            a, b = corner(STOPS[need])
            shift = 30 * ((x > a) - (x < a))
            start, bend = (a + STOP_W / 2 + shift, b + STOP_H), b + STOP_H + STOP_GAP / 2
            end = (x + STOP_W / 2 - shift, y)
            bends = [(start[0], bend), (end[0], bend)] if shift else []
            c.forward(start, *bends, end)
    for number, stop in STOPS.items():
        _stop(c, number, stop, *corner(stop), STOP_W, number == here)
    y = corner(LAST)[1]
    for column in (1, 2):
        x = LEFT + column * (STOP_W + 10) + STOP_W / 2
        c.forward((x, y - STOP_GAP), (x, y))
    _stop(c, "90", LAST, LEFT, y, RIGHT - LEFT, here == "90", " of 01 to 08")
    c.signs.clear()
    c.text(LEFT, y + STOP_H + 30, "Arrow: the next lesson builds on this one.", SMALL, "start")


def _stop(
    c: Canvas, number: str, stop: Stop, x: float, y: float, w: float, is_here: bool, more: str = ""
) -> None:
    ink = WHITE if is_here else INK
    said = f"{number}: {stop.title}{', you are here' if is_here else ''}"
    c.items.append(f"<g><title>{escape(said)}</title>")
    c.rect(x, y, w, STOP_H, INK if is_here else WHITE, f' stroke="{OUTLINE}" stroke-width="2"')
    c.text(x + w / 2, y + 25, f"{number} {stop.title}{more}", TEXT, is_bold=True, fill=ink)
    c.text(x + w / 2, y + 48, "you are here" if is_here else stop.question, SMALL, fill=ink)
    c.items.append("</g>")


@_diagram(
    "Cross-fitting: each task unseen once",
    """The tasks are divided into as many parts as there are folds, and in each fold another part is unseen
    while MSF finds the subspace on the others. So every task is scored once as an unseen task, and
    once, in the fold before, as a seen one.""",
)
def _cross_fitting(c: Canvas, tasks: int = 120, folds: int = 6) -> None:
    if not 2 <= folds <= 6 or tasks < folds:
        raise ValueError(f"tasks={tasks}, folds={folds}: the picture shows 2 to 6 folds, each with a task")
    size = f"{tasks // folds}" if tasks % folds == 0 else f"about {round(tasks / folds)}"
    c.text(LEFT, 60, f"{tasks} tasks in {folds} parts of {size}", anchor="start", is_bold=True)
    x0, y0, w, h = LEFT + 70, 104.0, (RIGHT - LEFT - 70) / folds, 46
    for part in range(folds):
        c.text(x0 + w * (part + 0.5), y0 - 12, f"part {part + 1}", SMALL)
    for fold in range(folds):
        y = y0 + fold * (h + 8)
        c.text(LEFT, y + 29, f"fold {fold + 1}", SMALL, "start")
        for part in range(folds):
            words: tuple[str, ...] = ("seen",)
            fill, ink = WHITE, INK
            if part == fold:
                words, fill, ink = ("unseen",), INK, WHITE
            elif part == (fold + 1) % folds:
                words = ("seen,", "scored")
            x = x0 + w * part + 3
            c.items.append("<g>")
            c.rect(x, y, w - 6, h, fill, f' stroke="{OUTLINE}" stroke-width="2"')
            for i, line in enumerate(words):
                c.text(x + w / 2 - 3, y + 29 - 9 * (len(words) - 1) + 18 * i, line, SMALL, fill=ink)
            c.items.append("</g>")
    y = c.bottom + 32
    lines = (
        "seen: MSF finds the subspace on these tasks",
        "unseen: MSF never sees these tasks; IST is scored on them",
        "seen, scored: IST is scored on these seen tasks, too",
        "Related tasks are always in the same part.",
    )
    for i, line in enumerate(lines):
        c.text(LEFT, y + 24 * i, line, SMALL, "start")


@_diagram(
    "Jobs of a study, and what they need",
    """Zero-shot scores and prompts need no other job; the mean prompt, the codes of a random decoder and a
    subspace for each d_I need the prompts, and the codes of each d_I need its subspace. The longest chain is
    prompts, subspace, codes.""",
)
def _jobs(c: Canvas, dims: Sequence[int] = (2, 5, 20)) -> None:
    if len(dims) != 3:
        raise ValueError(f"dims={tuple(dims)}: the picture shows three d_I")
    w, h, gap, down = 132, 62, 10, 34
    x = [LEFT + i * (w + gap) for i in range(4)]
    y = [60.0 + i * (h + down) for i in range(3)]

    def job(column: int, line: int, lines: Sequence[str], is_long: bool = False, wide: float = w) -> None:
        c.items.append(f"<g><title>{escape(' '.join(lines))}</title>")
        look = f' stroke="{OUTLINE}" stroke-width="2"'
        c.rect(x[column], y[line], wide, h, INK if is_long else WHITE, look)
        for i, words in enumerate(lines):
            at = y[line] + h / 2 + 6 + 23 * (i - (len(lines) - 1) / 2)
            size, ink = (TEXT, SMALL)[i], WHITE if is_long else INK
            c.text(x[column] + wide / 2, at, words, size, is_bold=i == 0, fill=ink)
        c.items.append("</g>")

    below = y[0] + h
    c.forward((x[1] + 6, below), (x[1] + 6, below + 14), (x[0] + w / 2, below + 14), (x[0] + w / 2, y[1]))
    side = x[1] - gap / 2
    c.forward((x[1] + 24, below), (x[1] + 24, below + 22), (side, below + 22), (side, y[2] - 16),
              (x[0] + w / 2, y[2] - 16), (x[0] + w / 2, y[2]))  # fmt: skip
    for column in (1, 2, 3):
        for line in (1, 2):
            at = x[column] + w / 2
            c.forward((at, y[line - 1] + h), (at, y[line]))
    job(0, 0, ["zero-shot"])
    job(0, 1, ["mean prompt"])
    job(0, 2, ["codes", "random decoder"])
    job(1, 0, ["prompts", "of all tasks"], True, 3 * w + 2 * gap)
    for column, dim in enumerate(dims, 1):
        job(column, 1, ["subspace", f"d_I = {dim}"], column == 3)
        job(column, 2, ["codes", f"d_I = {dim}"], column == 3)
    c.signs.clear()
    lines = (
        "Arrow: a job needs the result of another one.",
        "Side by side: these jobs can run on different machines.",
        "Dark: a longest chain. No number of machines shortens it.",
    )
    for i, words in enumerate(lines):
        c.text(LEFT, y[2] + h + 30 + 24 * i, words, SMALL, "start")
