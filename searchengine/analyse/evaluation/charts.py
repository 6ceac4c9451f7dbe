"""Plots as SVG inside the page, whose colours (light or dark) and font they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 400, 256
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 8, 8, 36
_CELL = 15  # px at least, and at most twice that where there are few classes
_HEAT = 600
_LETTERS = 17  # of a label
_LETTER = 6.6  # px
_MIN_SHARE = 0.01  # a smaller share leaves its cell empty


def curves(named: Sequence[tuple[str, Sequence[float]]]) -> Markup:
    """Precision by recall, a line for each index; the first in the accent colour, the others dashed too."""
    parts = []
    for tick in range(0, 11, 2):
        x, y = _x(tick / 10), _y(tick / 10)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick / 10:.1f}</text>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{tick / 10:.1f}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">recall</text>')
    for number, (name, values) in enumerate(named):
        steps = len(values) - 1
        points = " ".join(f"{_x(i / steps):.1f},{_y(value):.1f}" for i, value in enumerate(values))
        line = f'<polyline class="line l{number % 4}" points="{points}"><title>{escape(name)}</title></polyline>'
        parts.append(line)
    summary = "; ".join(f"{name}: from {values[0]:.2f} to {values[-1]:.2f}" for name, values in named)
    return _svg(_WIDTH, _HEIGHT, "curve", f"Precision by recall. {summary}", parts)


def heat(labels: Sequence[str], right: Mapping[str, float], wrong: Mapping[tuple[str, str], float]) -> Markup:
    """For queries of each class (rows), the share of the first ten places that each class (columns) takes."""
    cell = max(_CELL, min(2 * _CELL, _HEAT // max(len(labels), 1)))
    edge = round(12 + _LETTER * min(_LETTERS, max(map(len, labels), default=0)))  # where the cells begin
    side = cell * len(labels)
    parts = []
    for row, label in enumerate(labels):
        y = edge + row * cell
        line = y + cell // 2 + 4  # of the letters
        short = escape(_short(label))
        parts.append(f'<text x="{edge - 6}" y="{line}" text-anchor="end">{short}</text>')
        parts.append(f'<text transform="translate({line} {edge - 6}) rotate(-90)">{short}</text>')
        parts.append(f'<rect class="row" x="{edge}" y="{y}" width="{side}" height="{cell - 1}"/>')
        for column, other in enumerate(labels):
            share = right.get(label, 0.0) if label == other else wrong.get((label, other), 0.0)
            if share < _MIN_SHARE:
                continue
            kind, answer = ("right", "right") if label == other else ("wrong", escape(other))
            parts.append(
                f'<rect class="{kind}" x="{edge + column * cell}" y="{y}" width="{cell - 1}" height="{cell - 1}" '
                f'fill-opacity="{min(1.0, share) ** 0.75:.2f}">'
                f"<title>{escape(label)}: {share:.0%} {answer}</title></rect>"
            )
    summary = f"Of {len(labels)} classes, what stands in the first ten places; the tables say the same in numbers."
    return _svg(edge + side, edge + side, "heat", summary, parts, fixed=True)


def _svg(width: int, height: int, kind: str, label: str, parts: Sequence[str], *, fixed: bool = False) -> Markup:
    size = f' width="{width}" height="{height}"' if fixed else ""
    # The text in the parts is escaped already.
    return Markup(  # noqa: S704
        f'<svg class="{kind}" viewBox="0 0 {width} {height}"{size} role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _TOP + (1.0 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _short(label: str) -> str:
    return label if len(label) <= _LETTERS else label[: _LETTERS - 1] + "…"
