"""How many workers of a cluster are worth having, worked out."""

import math

import pytest
from typer.testing import CliRunner

from taskdisc.benches.cluster import N_WORKERS, Costs, seconds_of, simulate
from taskdisc.cli import app

pytest.importorskip("distributed")


@pytest.mark.parametrize("n_items", [1, 2, 7, 30, 100])
@pytest.mark.parametrize("n_workers", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize(("work", "item"), [(1.0, 0.01), (1.0, 0.3), (0.0, 1.0), (1.0, 0.0)])
def test_neither_workers_nor_the_scheduler_are_beaten(
    n_items: int, n_workers: int, work: float, item: float
) -> None:
    seconds = seconds_of(n_items, work, item, n_workers)
    bound = max(n_items * item + work, math.ceil(n_items / n_workers) * (item + work))
    # What is handed out one by one may end later by what handing out a round takes.
    assert bound - 1e-9 <= seconds <= bound + min(n_items, n_workers) * item + 1e-9
    assert n_workers > 1 or seconds == pytest.approx(bound)


def test_where_it_stops_to_scale_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    simulate(Costs(training=0.1, item=0.01, trip=0.0, bytes_sent=1))
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:24].strip(): [float(x) for x in line[24:].split()] for line in lines[3:-1]}
    assert all(row[0] == 1 and row == sorted(row) for row in rows.values())
    # 30 items of 1 s, the last of which is handed out after 0.3 s, where one worker takes 30.3 s.
    assert rows["search, batches of 30"][N_WORKERS.index(1000)] == pytest.approx(23.3, abs=0.06)
    assert "101 workers busy" in lines[-1]


def test_the_command_measures_and_simulates(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def measured(rounds: int, labelings: int) -> Costs:
        given.append((rounds, labelings))
        return Costs(0.1, 0.01, 0.0, 1)

    monkeypatch.setattr("taskdisc.benches.cluster.bench_cluster", measured)
    arguments = ["bench", "cluster", "--rounds", "2", "--labelings", "5", "--simulate"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0 and given == [(2, 5)]
    assert "times as fast as one worker" in printed.output
