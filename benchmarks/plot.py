"""A plot as a small SVG file: both axes logarithmic; light or dark as the reader's system is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_WIDTH, _HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 44, 48
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #555 } .title { font-size: 14px; fill: #222 } .value { fill: #222 }
.grid { stroke: #ddd } .l0 { stroke: #2a6fdb } .l1 { stroke: #c2571a; stroke-dasharray: 6 4 }
.d0 { fill: #2a6fdb } .d1 { fill: #c2571a } polyline { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #aaa } .title, .value { fill: #eee } .grid { stroke: #444 }
  .l0 { stroke: #7db0ff } .l1 { stroke: #ff9d5c } .d0 { fill: #7db0ff } .d1 { fill: #ff9d5c }
}
"""


@dataclass(frozen=True)
class Line:
    """One line and its name; all numbers above 0."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def write_plot(file: Path, title: str, below: str, lines: Sequence[Line]) -> None:
    """One or two lines, a mark and a number at each point."""
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y]
    left, right = min(xs) / 1.4, max(xs) * 1.4
    low, high = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys) * 1.01))

    def at(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / left) / math.log(right / left)
        up = math.log(y / low) / math.log(high / low)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>']
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        y = at(left, 10**power)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**power:,g}</text>')
    parts += [
        f'<text x="{at(x, low)[0]:.1f}" y="{_HEIGHT - 28}" text-anchor="middle">{x:,.0f}</text>'
        for x in sorted(set(xs))
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(below)}</text>')
    for number, line in enumerate(lines):
        points = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        parts.append(f'<polyline class="l{number}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>')
        for (x, y), value in zip(points, line.y, strict=True):
            above = 20 if number == 0 and len(lines) > 1 else -10  # of two, the first is the lower one
            parts.append(f'<circle class="d{number}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
            parts.append(
                f'<text class="value" x="{x:.1f}" y="{y + above:.1f}" text-anchor="middle">{_short(value)}</text>'
            )
        if len(lines) > 1:
            x = _LEFT + 8 + 160 * number
            parts.append(f'<line class="l{number}" x1="{x}" x2="{x + 24}" y1="36" y2="36" stroke-width="2"/>')
            parts.append(f'<text x="{x + 30}" y="40">{escape(line.name)}</text>')
    file.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
