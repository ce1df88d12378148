"""The figures as one SVG: reliability of predictions, and error against attempts seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import numpy as np

from stream.domain.irt import FloatArray
from stream.evaluate.measures import Bins

__all__ = ["chart"]

_WIDTH, _HEIGHT, _MARGIN = 360, 320, 52
_COLOURS = ("#0b6e99", "#d1702a", "#6b7280", "#7a3e9d")


def chart(
    reliability: Mapping[str, Mapping[str, Bins]], errors: Mapping[str, Mapping[str, FloatArray]]
) -> str:
    """Draw all panels in rows of three.

    Parameters
    ----------
    reliability
        title -> method -> bins.
    errors
        title -> method -> RMSE after each attempt, logits.

    Returns
    -------
    str
        A whole SVG document, readable on light and dark ground.
    """
    panels = [_reliability(title, methods) for title, methods in reliability.items()]
    panels += [_error(title, methods) for title, methods in errors.items()]
    columns = min(3, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    placed = [
        f'<g transform="translate({(i % columns) * _WIDTH},{(i // columns) * _HEIGHT})">{panel}</g>'
        for i, panel in enumerate(panels)
    ]
    width, height = columns * _WIDTH, max(1, rows) * _HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(placed)}</svg>\n'
    )


def _reliability(title: str, methods: Mapping[str, Bins]) -> str:
    ideal = [(0.0, 0.0), (1.0, 1.0)]
    body = _line(ideal, (0.0, 1.0), (0.0, 1.0), "#9ca3af", dashed=True)
    for colour, bins in zip(_COLOURS, methods.values(), strict=False):
        points = list(zip(bins.predicted.tolist(), bins.observed.tolist(), strict=True))
        body += _line(points, (0.0, 1.0), (0.0, 1.0), colour, dots=True)
    return _frame(title, "predicted", "observed share correct", (0, 1), (0, 1), methods, body)


def _error(title: str, methods: Mapping[str, FloatArray]) -> str:
    longest = max(len(values) for values in methods.values())
    top = float(np.ceil(max(float(v.max()) for v in methods.values()) * 10.0) / 10.0)
    body = ""
    for colour, values in zip(_COLOURS, methods.values(), strict=False):
        points = list(enumerate(values.tolist(), start=1))
        body += _line(points, (0.0, float(longest)), (0.0, top), colour)
    axes = (0.0, float(longest)), (0.0, top)
    return _frame(title, "attempts seen", "RMSE of theta (logits)", *axes, methods, body)


def _place(x: float, y: float, xs: Sequence[float], ys: Sequence[float]) -> str:
    inner_w, inner_h = _WIDTH - _MARGIN - 16, _HEIGHT - _MARGIN - 40
    px = _MARGIN + inner_w * (x - xs[0]) / (xs[1] - xs[0])
    py = 40 + inner_h * (1.0 - (y - ys[0]) / (ys[1] - ys[0]))
    return f"{px:.1f},{py:.1f}"


def _line(
    points: Sequence[tuple[float, float]],
    xs: Sequence[float],
    ys: Sequence[float],
    colour: str,
    *,
    dots: bool = False,
    dashed: bool = False,
) -> str:
    at = [_place(x, y, xs, ys) for x, y in points]
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    path = f'<polyline points="{" ".join(at)}" fill="none" stroke="{colour}"{dash}/>'
    if dots:
        for point in at:
            x, y = point.split(",")
            path += f'<circle cx="{x}" cy="{y}" r="2.4" fill="{colour}"/>'
    return path


def _frame(
    title: str,
    x_label: str,
    y_label: str,
    xs: Sequence[float],
    ys: Sequence[float],
    methods: Mapping[str, object],
    body: str,
) -> str:
    parts = [f'<text x="{_MARGIN}" y="18" font-weight="bold">{escape(title)}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = xs[0] + share * (xs[1] - xs[0]), ys[0] + share * (ys[1] - ys[0])
        x_at, bottom = _place(x, ys[0], xs, ys).split(",")
        left, y_at = _place(xs[0], y, xs, ys).split(",")
        right = _place(xs[1], y, xs, ys).split(",")[0]
        parts.append(
            f'<line x1="{left}" y1="{y_at}" x2="{right}" y2="{y_at}" stroke="#e5e7eb"/>'
            f'<text x="{x_at}" y="{float(bottom) + 14:.1f}" text-anchor="middle">{x:g}</text>'
            f'<text x="{float(left) - 6:.1f}" y="{float(y_at) + 4:.1f}" '
            f'text-anchor="end">{y:.2g}</text>'
        )
    middle = (_WIDTH + _MARGIN) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{x_label}</text>')
    parts.append(f'<text transform="translate(12 {_HEIGHT / 2 + 40}) rotate(-90)">{y_label}</text>')
    for i, (colour, name) in enumerate(zip(_COLOURS, methods, strict=False)):
        parts.append(f'<text x="{_MARGIN + 100 * i}" y="32" fill="{colour}">{escape(name)}</text>')
    return "".join(parts) + body
