"""Costs against size."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from typer.testing import CliRunner

from taskdisc.benches import scaling
from taskdisc.benches.scaling import MEASUREMENTS, Cost, Measurement, cost, costs, growth, table
from taskdisc.cli import app


def burn(size: int) -> Callable[[], object]:
    """Takes `size` ms of CPU time and as many MiB."""

    def run() -> None:
        held = np.ones(size * 2**20, dtype=np.uint8)
        start = time.process_time()
        while time.process_time() - start < size / 1000:
            held[0] = 1

    return run


def test_time_and_memory_are_those_of_the_size() -> None:
    small, large = costs(Measurement("burning", "ms", (20, 200), burn), 2)
    assert (small.size, large.size) == (20, 200)
    assert len(small.seconds) == len(large.seconds) == 2
    assert all(0.02 <= s < 0.2 for s in small.seconds) and all(s >= 0.2 for s in large.seconds)
    # Each in a process of its own: the peak of one is not that of another.
    assert 150 < large.peak_mib - small.peak_mib < 210


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_growth_is_the_power_of_the_size(power: float) -> None:
    before, after = (Cost(n, (9e9, 3.0 * n**power, 0.0), 1.0) for n in (10, 40))
    assert growth(before, after) == pytest.approx(power)


def test_a_table_has_a_line_per_size() -> None:
    found = [Cost(1000, (1.0, 2.0, 4.0), 300.4), Cost(4000, (8.0, 8.0, 9.0), 500.0)]
    lines = table(Measurement("", "trials", (1000, 4000), burn), found).splitlines()
    assert lines[0].startswith("| trials |")
    assert lines[2:] == ["| 1,000 | 2 (1–4) | – | 300 |", "| 4,000 | 8 (8–9) | 1.00 | 500 |"]


@pytest.mark.parametrize("measurement", MEASUREMENTS, ids=lambda m: m.size)
def test_every_measurement_runs_at_a_small_size(measurement: Measurement) -> None:
    assert measurement.sizes == tuple(sorted(set(measurement.sizes)))
    assert cost(measurement.prepare, 5, 1).seconds[0] > 0


def test_the_command_prints_every_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Measurement(f"burning {i}", "ms", (1, 2), burn) for i in (1, 2)]
    monkeypatch.setattr(scaling, "MEASUREMENTS", rows)
    monkeypatch.setattr(
        scaling, "costs", lambda m, rounds: (cost(burn, n, rounds) for n in m.sizes)
    )
    shown = CliRunner().invoke(app, ["bench", "scaling", "--rounds=2"])
    assert shown.exit_code == 0, shown.output
    assert [line for line in shown.stdout.splitlines() if "burning" in line] == [
        "burning 1, 2 rounds:",
        "burning 2, 2 rounds:",
    ]
