import xml.etree.ElementTree as ET

import numpy as np
import pytest

from taskdisc.report import plots


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-0.13, 0.31, [-0.1, 0, 0.1, 0.2, 0.3]),
        (0, 60, [0, 10, 20, 30, 40, 50, 60]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0.001, 0.0042, [0.001, 0.002, 0.003, 0.004]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert plots.ticks(low, high, most=7 if high == 60 else 6) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.250"), (-0.25, "−0.250"), (-0.0001, "0.000"), (12.3456, "12.346")]
)
def test_number(value: float, text: str) -> None:
    assert plots.number(value) == text


@pytest.mark.parametrize(
    "svg",
    [
        plots.best_so_far([0.3], [0.3], [(0, 1)]),
        plots.best_so_far([-0.5, 0.0, 0.9], [-0.5, 0.0, 0.9], [(2, 1), (0, 2)]),
        plots.curves([0.7, 0.1], [0.7, 9.0], 0.5, 0.5),
        plots.curves([0.7, 0.1], [0.7, 0.2], 0.5, 0.8),
        plots.against_random([0.0] * 20, 0.0, [(1, 0.0, 0.0, 0.0, False)]),
        plots.against_random([0.0, 0.1], 0.1, [(1, 0.9, 0.1, 0.8, True), (2, -1, 0.1, 1, False)]),
    ],
    ids=["one trial", "three trials", "overfits", "worse than blind", "all equal", "both kinds"],
)
def test_plots_are_drawn_within_their_frame(svg: str) -> None:
    root = ET.fromstring(svg)
    assert root.get("aria-label")
    width, height = map(float, str(root.get("viewBox")).split()[2:])
    for text in root.iter("text"):
        assert 0 <= float(text.get("x", 0)) <= width
        assert 0 <= float(text.get("y", 0)) <= height
    for dot in root.iter("circle"):
        assert 0 <= float(dot.get("cx", -1)) <= width
        assert 0 <= float(dot.get("cy", -1)) <= height
    assert "nan" not in svg


def test_of_very_many_trials_one_dot_is_drawn_for_those_on_one_place() -> None:
    def dots(n: int) -> set[tuple[float, ...]]:
        seen = np.random.default_rng(0).random(n).tolist()
        svg = plots.best_so_far(seen, np.maximum.accumulate(seen).tolist(), [])
        (path, _) = ET.fromstring(svg).findall("path[@class='dots']")  # and that of the legend
        parts = path.get("d", "").replace("h0", "").split("M")[1:]
        found = [tuple(map(float, part.split())) for part in parts]
        assert len(found) == len(set(found)) or n <= plots.MOST_DOTS
        return set(found)

    few, many = dots(plots.MOST_DOTS), dots(plots.MOST_DOTS + 60_000)
    assert all(x == round(x) and y == round(y) for x, y in many)
    # The same cloud: of its squares of 10 by 10 none is empty that was not.
    assert {(x // 10, y // 10) for x, y in few} == {(x // 10, y // 10) for x, y in many}


def test_dots_are_where_the_scores_are() -> None:
    low, high = (
        float(part.split()[1])
        for part in ET.fromstring(plots.best_so_far([0.0, 1.0], [0.0, 1.0], []))
        .findall("path[@class='dots']")[0]
        .get("d", "")
        .replace("h0", "")
        .split("M")[1:]
    )
    assert high < low  # a higher score is drawn further up
