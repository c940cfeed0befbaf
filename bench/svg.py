"""Plots: horizontal bars with their spread, as SVG that needs no script and no font of its own."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LABEL, BAR, GAP, TOP = 640, 120, 18, 10, 34
OWN, OTHER = "#2563eb", "#94a3b8"


class Bar(NamedTuple):
    """A median with the smallest and the largest round."""

    name: str
    value: float
    low: float
    high: float
    is_own: bool = False


def bars(title: str, rows: Sequence[Bar], digits: int = 0) -> str:
    """Returns a plot whose scale begins at 0."""
    height = TOP + len(rows) * (BAR + GAP) + 6
    scale = (WIDTH - LABEL - 90) / max(row.high for row in rows)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for number, row in enumerate(rows):
        lines += one_bar(row, TOP + number * (BAR + GAP), scale, digits)
    return "\n".join([*lines, "</svg>"]) + "\n"


def one_bar(row: Bar, top: int, scale: float, digits: int) -> list[str]:
    """Returns the elements of one row: name, bar, a line from the smallest to the largest round, figure."""
    middle, color = top + BAR / 2, OWN if row.is_own else OTHER
    low, high = LABEL + row.low * scale, LABEL + row.high * scale
    return [
        f'<text x="{LABEL - 8}" y="{middle + 4:.0f}" text-anchor="end">{escape(row.name)}</text>',
        f'<rect x="{LABEL}" y="{top}" width="{row.value * scale:.1f}" height="{BAR}" fill="{color}"/>',
        f'<path d="M{low:.1f} {middle:.0f}H{high:.1f}" stroke="#0f172a" stroke-width="2"/>',
        f'<text x="{high + 6:.1f}" y="{middle + 4:.0f}">{row.value:,.{digits}f}</text>',
    ]
