"""Plots as inline SVG, drawn with style classes: crisp, small, and at home in dark mode and print.

Every plot is a function of numbers; the page's style sheet gives the classes their colours.
"""

from collections.abc import Iterable, Sequence
from math import ceil, floor, isnan, log10
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

WIDTH = 420
"""Width of a plot [user units]; it is shown at about this many pixels, whatever the window."""

MOST_DOTS = 20_000
"""Trials that are drawn to a tenth of a unit; of more, one in each square unit."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 26, 40
_LANE = 22  # height of a labeling's row below the histogram
_LETTER = 5.8  # typical width of a character of a label


def number(value: float, decimals: int = 3) -> str:
    """A number with a true minus sign; no negative zero."""
    text = f"{value:.{decimals}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("-")
    return text.replace("-", "−")


def cell_text(value: Any) -> str:
    """A value of the table; a dash where there is none."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return "–"
    if isinstance(value, float):
        if abs(value) >= 1e12:
            return f"{value:.2e}"
        return number(value) if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Up to `most` round values (1, 2 or 5 times a power of ten apart) in [low, high]."""
    span = high - low
    power = 10.0 ** floor(log10(span / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
        if last - first < most:
            break
    return [round(i * step, 12) for i in range(first, last + 1)]


def best_so_far(
    seen: Sequence[float], best: Sequence[float], marked: Iterable[tuple[int, int]]
) -> str:
    """Seen taskness by trial: all trials as dots, the best so far as a line.

    Args:
        seen: Of every trial.
        best: The highest up to every trial.
        marked: Trial and number of labelings to ring.
    """
    low, high = _padded(min(*seen, 0.0), max(*seen, 0.1))  # 0 is always in sight
    plot = _Plot(
        f"Seen taskness of {len(seen)} trials; the best rises from {number(best[0])} "
        f"to {number(best[-1])}.",
        (-0.02 * len(seen) - 0.5, 1.02 * len(seen) - 0.5),
        (low, high),
    )
    plot.axes("trial", "seen taskness", whole_x=True)
    dots = [(plot.x(i), plot.y(value)) for i, value in enumerate(seen)]
    if len(seen) > MOST_DOTS:  # of those that would be drawn over each other, one
        dots = list(dict.fromkeys((float(round(x)), float(round(y))) for x, y in dots))
    plot.path([f"M{x} {y}h0" for x, y in dots], "dots")
    steps = [f"M{plot.x(0)} {plot.y(best[0])}"]
    steps += [
        f"H{plot.x(i)}V{plot.y(best[i])}" for i in range(1, len(best)) if best[i] > best[i - 1]
    ]
    plot.path([*steps, f"H{plot.x(len(best) - 1)}"], "line strong")
    rings = [(label, plot.x(trial), plot.y(seen[trial])) for trial, label in marked]
    for label, x, y in rings:
        plot.add("circle", "ring", cx=x, cy=y, r=4.5)
        taken = any(0 < other - x < 20 and abs(height - y) < 16 for _, other, height in rings)
        on_left = taken or x > WIDTH - _RIGHT - 20
        plot.text(
            str(label), x + (-8 if on_left else 8), y - 5, "halo", "end" if on_left else "start"
        )
    plot.legend([("best so far", "line strong"), ("one trial", "dots"), ("put forward", "ring")])
    return plot.svg()


def curves(
    training: Sequence[float], validation: Sequence[float], baseline: float, g: float
) -> str:
    """Mean cross-entropies by training step, with b and g as horizontal lines."""
    start = max(training[0], validation[0], baseline)
    # A network that overfits may go far up; what matters is near b.
    top = min(max(*training, *validation, baseline), 1.5 * start)
    plot = _Plot(
        f"Mean cross-entropy by training step. Baseline b is {number(baseline)} nats, "
        f"g is {number(g)} nats; validation ends at {number(validation[-1])}, "
        f"training at {number(training[-1])}.",
        (0, len(training) - 1),
        (0, 1.06 * max(top, g)),
        right=50,
    )
    plot.axes("training step", "cross-entropy [nats]", whole_x=True)
    # At the right the two values stand apart, however near their lines are.
    y_b, y_g = plot.y(baseline), plot.y(g)
    lower = 1 if y_g >= y_b else -1
    apart = max(0.0, 13 - abs(y_g - y_b)) / 2
    for name, value, y, shift, style in (
        ("b", baseline, y_b, -lower * apart, "line base"),
        ("g", g, y_g, lower * apart, "line reached"),
    ):
        plot.path([f"M{plot.x(0)} {y}H{plot.x(len(training) - 1)}"], style)
        plot.text(f"{name} {number(value, 2)}", WIDTH - 46, y + shift + 4, "value", "start")
    plot.curve(training, "line faint")
    plot.curve(validation, "line strong")
    plot.legend(
        [
            ("validation", "line strong"),
            ("training", "line faint"),
            ("b", "line base"),
            ("g", "line reached"),
        ]
    )
    return plot.svg()


def against_random(
    random: Sequence[float],
    threshold: float,
    labelings: Sequence[tuple[int, float, float, float, bool]],
) -> str:
    """Taskness of random labelings as a histogram, and below it a row for each labeling.

    Args:
        random: Taskness of the random labelings.
        threshold: T_task.
        labelings: Number, confirmed taskness, its standard error, seen taskness, is it a task.
    """
    ends = [end for _, mean, sem, seen, _ in labelings for end in (mean - sem, mean + sem, seen)]
    low, high = _padded(min(*random, *ends, threshold), max(*random, *ends, threshold))
    n_bins = 24
    counts, edges = np.histogram(random, bins=n_bins, range=(low, high))
    lanes = _LANE * len(labelings) + 6
    plot = _Plot(
        f"Histogram of {len(random)} random labelings from {number(min(random))} to "
        f"{number(max(random))}, T_task at {number(threshold)}; confirmed: "
        + ", ".join(f"labeling {n}: {number(mean)}" for n, mean, *_ in labelings)
        + ".",
        (low, high),
        (0, 1.08 * int(counts.max())),
        height=210 + lanes,
        below=lanes,
    )
    plot.axes("taskness", "random labelings", whole_y=True)
    bars = [
        f"M{plot.x(left)} {plot.y(0)}V{plot.y(n)}H{plot.x(right) - 1:.1f}V{plot.y(0)}z"
        for n, left, right in zip(counts.tolist(), edges, edges[1:], strict=False)
        if n
    ]
    plot.path(bars, "bars")
    floor_y = plot.y(0)
    plot.path([f"M{plot.x(threshold)} {_TOP}V{floor_y + lanes}"], "line base")
    for row, (label, mean, sem, seen, is_task) in enumerate(labelings):
        y = floor_y + _LANE * (row + 0.5) + 5
        style = "task" if is_task else "failed"
        plot.text(str(label), _LEFT - 7, y + 4, "value", "end")
        plot.path([f"M{_LEFT} {y}H{WIDTH - _RIGHT}"], "lane")
        plot.path([f"M{plot.x(mean - sem)} {y}H{plot.x(mean + sem)}"], f"error {style}")
        plot.add("circle", f"dot {style}", cx=plot.x(mean), cy=y, r=4)
        plot.path([f"M{plot.x(seen)} {y - 5}v10"], "seen")
    plot.legend(
        [
            ("T_task", "line base"),
            *([("task", "dot task")] if any(row[4] for row in labelings) else []),
            *([("not a task", "dot failed")] if not all(row[4] for row in labelings) else []),
            ("seen", "seen"),
        ]
    )
    return plot.svg()


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low) or 0.05
    return low - margin, high + margin


class _Plot:
    """An SVG under construction, with two linear scales."""

    def __init__(
        self,
        description: str,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        *,
        height: int = 250,
        right: int = _RIGHT,
        below: int = 0,
    ) -> None:
        self._svg = Element(
            "svg", {"viewBox": f"0 0 {WIDTH} {height}", "role": "img", "aria-label": description}
        )
        self._x_range, self._y_range = x_range, y_range
        self._right, self._height, self._below = WIDTH - right, height, below
        self._bottom = height - _BOTTOM - below

    def x(self, value: float) -> float:
        low, high = self._x_range
        return round(_LEFT + (value - low) / (high - low) * (self._right - _LEFT), 1)

    def y(self, value: float) -> float:
        low, high = self._y_range
        return round(self._bottom - (value - low) / (high - low) * (self._bottom - _TOP), 1)

    def add(self, tag: str, style: str, /, **attributes: float | str) -> Element:
        texts = {name.replace("_", "-"): str(value) for name, value in attributes.items()}
        return SubElement(self._svg, tag, {"class": style, **texts})

    def text(self, text: str, x: float, y: float, style: str, anchor: str = "middle") -> None:
        element = self.add("text", style, x=round(x, 1), y=round(y, 1), text_anchor=anchor)
        name, _, index = text.partition("_")
        element.text = name
        if index:
            lowered = SubElement(element, "tspan", {"dy": "3", "font-size": "9"})
            lowered.text = index

    def path(self, parts: Sequence[str], style: str) -> None:
        self.add("path", style, d="".join(parts))

    def curve(self, values: Sequence[float], style: str) -> None:
        """A line through values at x = 0, 1, …; what leaves the frame at the top is cut off."""
        frame = SubElement(
            self._svg,
            "svg",
            {
                "x": str(_LEFT),
                "y": str(_TOP),
                "width": str(self._right - _LEFT),
                "height": str(self._bottom - _TOP),
                "viewBox": f"{_LEFT} {_TOP} {self._right - _LEFT} {self._bottom - _TOP}",
            },
        )
        points = " ".join(f"{self.x(i)},{self.y(value)}" for i, value in enumerate(values))
        SubElement(frame, "polyline", {"class": style, "points": points})

    def axes(
        self, x_label: str, y_label: str, *, whole_x: bool = False, whole_y: bool = False
    ) -> None:
        ground = self._bottom + self._below
        for values, whole, across in (
            (ticks(*self._x_range), whole_x, False),
            (ticks(*self._y_range), whole_y, True),
        ):
            shown = [value for value in values if not whole or value == int(value)]
            decimals = _decimals(shown)
            for value in shown:
                if across:
                    y = self.y(value)
                    self.path([f"M{_LEFT} {y}H{self._right}"], "zero" if value == 0 else "grid")
                    self.text(number(value, decimals), _LEFT - 7, y + 4, "tick", "end")
                else:
                    x = self.x(value)
                    self.path([f"M{x} {ground}v4"], "axis")
                    self.text(number(value, decimals), x, ground + 16, "tick")
        self.path([f"M{_LEFT} {ground}H{self._right}"], "axis")
        self.text(x_label, (_LEFT + self._right) / 2, ground + 34, "label")
        middle = (_TOP + self._bottom) / 2
        self.text(y_label, 0, 0, "label")
        self._svg[-1].set("transform", f"translate(11 {middle}) rotate(-90)")

    def legend(self, entries: Sequence[tuple[str, str]]) -> None:
        """Names beside samples of their style, in one row above the frame."""
        x = float(_LEFT)
        for name, style in entries:
            if style.startswith(("dot ", "ring")):
                self.add("circle", style, cx=x + 8, cy=10, r=4)
            elif style == "dots":
                self.path([f"M{x + 8} 10h0"], style)
            elif style == "seen":
                self.path([f"M{x + 8} 5v10"], style)
            else:
                self.path([f"M{x} 10h18"], style)
            self.text(name, x + 23, 14, "tick", "start")
            x = round(x + 23 + _LETTER * len(name) + 14, 1)

    def svg(self) -> str:
        return tostring(self._svg, encoding="unicode")


def _decimals(values: Sequence[float]) -> int:
    """Decimals that tell round values apart."""
    return max((len(f"{value:.6f}".rstrip("0").partition(".")[2]) for value in values), default=0)
