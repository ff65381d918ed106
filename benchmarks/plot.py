"""Plot of rows that were measured at several sizes: an SVG file that needs nothing else, for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from benchmarks.rows import Row
from dspyq.cli.report.plots import line
from dspyq.cli.report.texts import escape

#: Of a panel, in the plot's own units; between its axes.
_WIDTH, _HEIGHT = 250.0, 240.0
_LEFT, _TOP, _GAP, _RIGHT = 62.0, 40.0, 100.0, 60.0
_LINE_HEIGHT = 21.0
_X_TEXT, _Y_TEXT, _LEGEND = 20.0, 10.0, 48.0
_MARK = 30.0
#: A tick's text beside the axis sits a little lower than the tick.
_HALF_A_LETTER = 4.5
_UNITS = ((1e6, "s"), (1e3, "ms"), (1.0, "µs"))
_MILLION, _THOUSANDS, _HUNDRED = 1_000_000, 100_000, 100
_STYLE = """
svg { color-scheme: light dark; font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; }
.paper { fill: #fbfaf8; } text { fill: #1d1f23; } .quiet { fill: #5b606a; } .grid { stroke: #e4e2dd; }
.end { text-anchor: end; } .middle { text-anchor: middle; } .title { font-weight: 600; font-size: 14px; }
path { fill: none; stroke-width: 2; } .s0 { stroke: #2f62c9; } .s1 { stroke: #c24a32; stroke-dasharray: 7 3; }
.s2 { stroke: #23794a; stroke-dasharray: 2 3; } .s3 { stroke: #7b4bb5; stroke-dasharray: 9 3 2 3; }
@media (prefers-color-scheme: dark) {
.paper { fill: #14161a; } text { fill: #e8e9ec; } .quiet { fill: #a3a9b4; } .grid { stroke: #343942; }
.s0 { stroke: #7aa5f5; } .s1 { stroke: #ee8570; } .s2 { stroke: #62c492; } .s3 { stroke: #bb9bea; }
}"""


def draw(rows: Sequence[Row], title: str = "Processor time by") -> str:
    """Return a panel for each path of rows with points, on logarithmic axes; those in bytes are left out.

    Args:
        rows: The rows; those of a path have one unit.
        title: The beginning of its name for those who do not see it.
    """
    panels: dict[str, list[Row]] = {}
    for row in rows:
        if row.points and row.unit in _TEXTS:
            panels.setdefault(row.path, []).append(row)
    wide = len(panels) * (_LEFT + _WIDTH) + (len(panels) - 1) * (_GAP - _LEFT) + _RIGHT
    high = _TOP + _HEIGHT + _LEGEND + max(map(len, panels.values())) * _LINE_HEIGHT
    shapes = "".join(
        f'<g transform="translate({_LEFT + number * (_WIDTH + _GAP):.0f} {_TOP:.0f})">{_panel(path, found)}</g>'
        for number, (path, found) in enumerate(panels.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide:.0f} {high:.0f}" role="img">'
        f"<title>{title} {escape('; by '.join(panels))}</title><style>{_STYLE}</style>"
        f'<rect class="paper" width="100%" height="100%"/>{shapes}</svg>\n'
    )


def _panel(path: str, rows: Sequence[Row]) -> str:
    sizes, written = [size for size, _ in rows[0].points], _TEXTS[rows[0].unit]
    values = [value for row in rows for _, value in row.points]
    lowest, highest = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    left, right = math.log10(sizes[0]), math.log10(sizes[-1])

    def x(size: float) -> float:
        return (math.log10(size) - left) / (right - left) * _WIDTH

    def y(value: float) -> float:
        return (highest - math.log10(value)) / (highest - lowest) * _HEIGHT

    shapes = [_text(0, -16, path[0].upper() + path[1:], "title")]
    for power in range(lowest, highest + 1):
        at = y(10.0**power)
        shapes += [
            line(0, at, _WIDTH, at, "grid"),
            _text(-_Y_TEXT, at + _HALF_A_LETTER, written(10.0**power), "quiet end"),
        ]
    for size in sizes:
        shapes += [
            line(x(size), 0, x(size), _HEIGHT, "grid"),
            _text(x(size), _HEIGHT + _X_TEXT, _count(size), "quiet middle"),
        ]
    for number, row in enumerate(rows):
        places = " L".join(f"{x(size):.1f} {y(value):.1f}" for size, value in row.points)
        shapes.append(f'<path class="s{number}" d="M{places}"/>')
        at = _HEIGHT + _LEGEND + number * _LINE_HEIGHT
        first, last = row.points[0][1], row.points[-1][1]
        shapes += [
            f'<path class="s{number}" d="M0 {at - _HALF_A_LETTER:.1f} h{_MARK:.0f}"/>',
            _text(_MARK + 8, at, f"{row.measured}: {written(first)} to {written(last)}", ""),
        ]
    return "".join(shapes)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _time(microseconds: float) -> str:
    """Return a time with two digits or three, in the largest unit of which it is one."""
    size, unit = next(((size, unit) for size, unit in _UNITS if microseconds >= size * 0.9995), _UNITS[-1])
    value = microseconds / size
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def _number(value: float) -> str:
    """Return a number with two digits or three."""
    return f"{value:,.0f}" if value >= _HUNDRED else f"{value:.3g}"


def _count(size: int) -> str:
    """Return a size as short as an axis needs it."""
    if size >= _MILLION:
        return f"{size / _MILLION:g} M"
    return f"{size // 1_000} k" if size >= _THOUSANDS else f"{size:,}"


#: How values of a unit are written.
_TEXTS: dict[str, Callable[[float], str]] = {"µs": _time, "cores": _number, "GB": _number, "connections": _number}
