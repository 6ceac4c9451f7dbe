"""What each epoch brought, as a table and as a picture, beside the model."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.errors import LearningError
from searchengine.files import replace_bytes
from searchengine.learn.triplets.scores import Scores

if TYPE_CHECKING:
    from PIL import ImageDraw

_FINE = 3  # pixels drawn for each that is kept: lines come out smooth
_WIDTH, _HEIGHT = 960, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 48, 40  # px around each of the two plots
_INK, _FAINT, _PAPER = "#1f2328", "#d5d9de", "#ffffff"
_COLOURS = {"mAP": "#0b5fcc", "P@1": "#b3490a", "triplet accuracy": "#3f7f4f"}
_LINE, _LETTERS = 2, 13  # px


@dataclass(frozen=True, slots=True)
class Epoch:
    """``number`` 0 is the start, before anything was learnt, without a ``loss``; scores are of the validation part."""

    number: int
    loss: float | None
    triplet_accuracy: float
    precision: float
    mean_average_precision: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def best_of(epochs: Sequence[Epoch]) -> Epoch:
    """The one with the best mAP; of equal ones the first."""
    return max(epochs, key=lambda epoch: (epoch.mean_average_precision, -epoch.number))


def csv_file(model: Path) -> Path:
    """Where the table of a model lies."""
    return model.with_name(f"{model.stem}.curves.csv")


def png_file(model: Path) -> Path:
    """Where the picture of a model lies."""
    return model.with_name(f"{model.stem}.curves.png")


def write_curves(model: Path, epochs: Sequence[Epoch], before: Scores) -> None:
    """Write both; LearningError where they cannot be."""
    out = io.StringIO(newline="")
    table = csv.writer(out)
    table.writerow(["epoch", "loss", "triplet_accuracy", "P@1", "mAP", "seconds"])
    for epoch in epochs:
        loss = "" if epoch.loss is None else f"{epoch.loss:.6f}"
        scores = (epoch.triplet_accuracy, epoch.precision, epoch.mean_average_precision)
        table.writerow([epoch.number, loss, *(f"{score:.6f}" for score in scores), f"{epoch.seconds:.3f}"])
    try:
        replace_bytes(csv_file(model), out.getvalue().encode())
        replace_bytes(png_file(model), _picture(epochs, before))
    except OSError as error:
        raise LearningError(
            f"The curves beside {model} cannot be written: {error.strerror or error}. Free some space; the same "
            "command goes on from the last state."
        ) from error


def _picture(epochs: Sequence[Epoch], before: Scores) -> bytes:
    """PNG: the loss on the left, the scores on the right, the backbone's own as broken lines."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_WIDTH * _FINE, _HEIGHT * _FINE), _PAPER)
    draw = ImageDraw.Draw(image)
    half = _WIDTH // 2
    last = max(epochs[-1].number, 1)
    losses = [(epoch.number, epoch.loss) for epoch in epochs if epoch.loss is not None]
    top = max((loss for _, loss in losses), default=1.0) or 1.0
    left = _Plot(draw, 0, half, last, top)
    left.axes("loss on the training part, by epoch", lambda value: f"{value:.3f}")
    left.line(losses, _INK)
    right = _Plot(draw, half, half, last, 1.0)
    right.axes("scores on the validation part", lambda value: f"{value:.1f}")
    rows = {
        "mAP": (before.mean_average_precision, [(e.number, e.mean_average_precision) for e in epochs]),
        "P@1": (before.precision, [(e.number, e.precision) for e in epochs]),
        "triplet accuracy": (before.triplet_accuracy, [(e.number, e.triplet_accuracy) for e in epochs]),
    }
    for name, (start, points) in rows.items():
        right.broken(start, _COLOURS[name])
        right.line(points, _COLOURS[name])
    right.legend([*_COLOURS.items(), ("- - the backbone alone", _INK)])
    right.mark(best_of(epochs).number, best_of(epochs).mean_average_precision, _COLOURS["mAP"])
    out = io.BytesIO()
    image.resize((_WIDTH, _HEIGHT), Image.Resampling.BOX).save(out, "PNG", optimize=True)
    return out.getvalue()


class _Plot:
    """One plot of the picture: x from 0 to ``last``, y from 0 to ``top``."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: int, width: int, last: int, top: float) -> None:
        from PIL import ImageFont

        self._draw, self._last, self._top = draw, last, top
        self._x0, self._x1 = x + _LEFT, x + width - _RIGHT
        self._y0, self._y1 = _HEIGHT - _BOTTOM, _TOP
        self._font = ImageFont.load_default(_LETTERS * _FINE)

    def axes(self, title: str, told: Callable[[float], str]) -> None:
        """The grid, its numbers and what is drawn."""
        for step in range(6):
            value = self._top * step / 5
            self._segment((0.0, value), (float(self._last), value), _FAINT, 1)
            self._text(self._x0 - 6, self._place(0, value)[1], told(value), "rm")
        for number in range(0, self._last + 1, -(-self._last // 6)):
            self._text(self._place(number, 0)[0], self._y0 + 8, str(number), "mt")
        self._text(self._x0, 8, title, "lt")

    def line(self, points: Sequence[tuple[int, float]], colour: str) -> None:
        """A line through the points; a dot where there is one alone."""
        for one, other in itertools.pairwise(points):
            self._segment(one, other, colour, _LINE)
        if len(points) == 1:
            self.mark(*points[0], colour)

    def broken(self, value: float, colour: str) -> None:
        """A broken line from side to side."""
        dashes = 40
        for dash in range(0, dashes, 2):
            begin, end = (self._last * at / dashes for at in (dash, dash + 1))
            self._segment((begin, value), (end, value), colour, 1)

    def mark(self, number: int, value: float, colour: str) -> None:
        """A dot."""
        x, y = self._place(number, value)
        self._draw.ellipse([(x - 4) * _FINE, (y - 4) * _FINE, (x + 4) * _FINE, (y + 4) * _FINE], fill=colour)

    def legend(self, names: Sequence[tuple[str, str]]) -> None:
        """The names of the lines, in their colours, below the title."""
        x = float(self._x0)
        for name, colour in names:
            self._text(x, 28, name, "lt", colour)
            x += self._font.getlength(name) / _FINE + 16

    def _place(self, number: float, value: float) -> tuple[float, float]:
        share = min(max(value / self._top, 0.0), 1.0)
        return self._x0 + number / self._last * (self._x1 - self._x0), self._y0 + share * (self._y1 - self._y0)

    def _segment(self, one: tuple[float, float], other: tuple[float, float], colour: str, width: int) -> None:
        ends = [tuple(_FINE * at for at in self._place(*point)) for point in (one, other)]
        self._draw.line([ends[0][0], ends[0][1], ends[1][0], ends[1][1]], fill=colour, width=width * _FINE)

    def _text(self, x: float, y: float, text: str, anchor: str, colour: str = _INK) -> None:
        self._draw.text((x * _FINE, y * _FINE), text, fill=colour, font=self._font, anchor=anchor)
