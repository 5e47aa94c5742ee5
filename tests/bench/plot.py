"""Small charts as SVG text, with nothing but the standard library: lines over a linear or logarithmic axis, several panels in a row."""

import math
from html import escape

COLOURS = ("#c0392b", "#7f8c8d", "#2874a6", "#1e8449", "#9b59b6", "#d68910")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, GAP = 300, 210, 52, 38, 26, 18
STYLE = "font:11px sans-serif;fill:#222"


def ticks(low, high, log):
    """Round values between low and high."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return [10.0**e for e in range(first, last + 1)]
    span = high - low or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step = next(step * m for m in (1, 2, 5, 10) if span / (step * m) <= 5)
    first = math.floor(low / step)
    return [step * i for i in range(first, math.ceil(high / step) + 1)]


def number(value):
    return f"{value:g}" if value == 0 or 0.001 <= abs(value) < 1e5 else f"{value:.0e}"


class Axis:
    """Values to pixels. Logarithmic axes show nothing below `floor`: zero has no logarithm."""

    def __init__(self, values, pixels, log=False, floor=1e-3, zero=False):
        self.log, self.floor, self.pixels = log, floor, pixels
        values = [self.clip(v) for v in values] or [1.0]
        low, high = min(values), max(values)
        if zero and not log:
            low = min(low, 0.0)
        self.ticks = ticks(low, high if high > low else low + 1, log)
        self.low, self.high = self.ticks[0], self.ticks[-1]

    def clip(self, value):
        return max(value, self.floor) if self.log else value

    def at(self, value):
        low, high, value = ((math.log10(v) for v in (self.low, self.high, self.clip(value))) if self.log
                            else (self.low, self.high, value))
        share = (value - low) / ((high - low) or 1.0)
        return self.pixels[0] + share * (self.pixels[1] - self.pixels[0])


class Panel:
    """One chart: `lines` is {name: [(x, y), ...]}."""

    def __init__(self, title, x, y, lines, log_x=False, log_y=False, zero=True, bar=None, points=True):
        self.title, self.x, self.y, self.lines, self.bar, self.points = title, x, y, lines, bar, points
        self.log_x, self.log_y, self.zero = log_x, log_y, zero

    def draw(self, left, names):
        xs = [x for points in self.lines.values() for x, _ in points]
        ys = [y for points in self.lines.values() for _, y in points] + ([self.bar] if self.bar is not None else [])
        ax = Axis(xs, (left + LEFT, left + WIDTH), self.log_x)
        ay = Axis(ys, (TOP + HEIGHT - BOTTOM, TOP), self.log_y, zero=self.zero)
        out = [f'<text x="{left + LEFT}" y="{TOP - 10}" style="{STYLE};font-weight:bold">{escape(self.title)}</text>']
        for v in ay.ticks:
            y = ay.at(v)
            out.append(f'<path d="M{left + LEFT} {y:.1f}H{left + WIDTH}" stroke="#ddd"/>'
                       f'<text x="{left + LEFT - 5}" y="{y + 4:.1f}" text-anchor="end" style="{STYLE}">{number(v)}</text>')
        for v in ax.ticks if not self.log_x else sorted(set(xs)):
            x = ax.at(v)
            out.append(f'<text x="{x:.1f}" y="{TOP + HEIGHT - BOTTOM + 14}" text-anchor="middle" style="{STYLE}">{number(v)}</text>')
        out.append(f'<text x="{left + (LEFT + WIDTH) / 2}" y="{TOP + HEIGHT - BOTTOM + 29}" text-anchor="middle" '
                   f'style="{STYLE}">{escape(self.x)}</text>')
        out.append(f'<text transform="translate({left + 11},{TOP + (HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle" '
                   f'style="{STYLE}">{escape(self.y)}</text>')
        if self.bar is not None:
            out.append(f'<path d="M{left + LEFT} {ay.at(self.bar):.1f}H{left + WIDTH}" stroke="#222" stroke-dasharray="4 3"/>')
        for name, points in self.lines.items():
            colour = COLOURS[names.index(name) % len(COLOURS)]
            path = "L".join(f"{ax.at(x):.1f} {ay.at(y):.1f}" for x, y in points)
            out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{1.8 if self.points else 1}"/>')
            if self.points:
                out += [f'<circle cx="{ax.at(x):.1f}" cy="{ay.at(y):.1f}" r="2.4" fill="{colour}"/>' for x, y in points]
        return out


def chart(panels, note=""):
    """Panels side by side with one legend, as an SVG document."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    width, height = len(panels) * (WIDTH + GAP) + GAP, TOP + HEIGHT + 24
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for i, panel in enumerate(panels):
        out += panel.draw(i * (WIDTH + GAP), names)
    x = LEFT
    for i, name in enumerate(names):
        out.append(f'<rect x="{x}" y="{height - 18}" width="12" height="4" fill="{COLOURS[i % len(COLOURS)]}"/>'
                   f'<text x="{x + 17}" y="{height - 12}" style="{STYLE}">{escape(name)}</text>')
        x += 32 + 7 * len(name)
    out.append(f'<text x="{x + 10}" y="{height - 12}" style="{STYLE};fill:#777">{escape(note)}</text>')
    return "\n".join(out + ["</svg>\n"])
