"""What a step of training costs, by each weighting."""

import csv
import io
import json
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from taskdisc.benches import export, score
from taskdisc.benches.export import ExportBenchSettings
from taskdisc.benches.mtl import N_STEPS, BenchSettings, Cost, Table, _compared, as_csv, bench
from taskdisc.cli import app
from taskdisc.config import read_settings
from taskdisc.discovery.formats import FORMATS
from taskdisc.errors import SettingError
from taskdisc.mtl import turns
from taskdisc.mtl.architectures import make_network
from taskdisc.mtl.backbones import make_backbone
from taskdisc.mtl.gradients import SharedGradients
from taskdisc.mtl.memory import LiveTensors
from taskdisc.mtl.module import MultiTaskModule
from taskdisc.progress import Progress

LENET = 61156
"""Shared parameters of the LeNet."""

TINY = ["tasks=[2,3]", "weightings=[equal,imtl-g,moco,krum]", "backbone=lenet"]


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    settings = read_settings(BenchSettings, None, TINY, batch=4, rounds=1)
    return list(bench(settings, "cpu", Progress()))


def by_name(table: Table) -> dict[str, Cost]:
    return {cost.weighting: cost for cost in table.costs}


def test_there_is_a_table_for_each_number_of_tasks_and_one_of_routes(tables: list[Table]) -> None:
    assert [[cost.n_tasks for cost in table.costs] for table in tables] == [
        [2] * 4,
        [3] * 4,
        [2, 2, 3, 3],
    ]
    assert [cost.gradients for cost in tables[2].costs] == ["jacobian", "gramian"] * 2
    for cost in [cost for table in tables for cost in table.costs if not cost.refused]:
        assert cost.measured is not None
        assert cost.measured.seconds > 0
        assert 0 < cost.measured.lowest <= cost.measured.ratio <= cost.measured.highest


def test_plain_training_holds_just_what_plain_training_does(tables: list[Table]) -> None:
    for table in tables[:2]:
        measured = by_name(table)["equal"].measured
        assert measured is not None and measured.extra_bytes == 0


def test_gradients_of_all_tasks_are_held_and_what_is_tracked_of_them_too(
    tables: list[Table],
) -> None:
    for n_tasks, table in zip((2, 3), tables[:2], strict=True):
        costs = by_name(table)
        gradients, tracked = costs["imtl-g"].measured, costs["moco"].measured
        assert gradients is not None and tracked is not None
        jacobian = n_tasks * LENET * 4
        assert gradients.extra_bytes >= jacobian
        assert tracked.extra_bytes >= 2 * jacobian


def test_what_refuses_is_a_row_with_the_reason(tables: list[Table]) -> None:
    refused = by_name(tables[0])["krum"]
    assert refused.measured is None and "at least 3" in refused.refused
    assert refused.as_row()["ms per step"] is None
    assert not by_name(tables[1])["krum"].refused


def test_the_csv_has_a_line_per_cost(tables: list[Table]) -> None:
    costs = [cost for table in tables for cost in table.costs]
    lines = list(csv.DictReader(io.StringIO(as_csv(costs))))
    assert [line["weighting"] for line in lines] == [cost.weighting for cost in costs]
    for line, cost in zip(lines, costs, strict=True):
        seconds = "" if cost.measured is None else str(cost.measured.seconds)
        assert line["seconds"] == seconds
        assert line["refused"] == cost.refused


# ---- time ------------------------------------------------------------------------------------


def test_the_step_is_that_of_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    step = MultiTaskModule.training_step

    def spy(self: MultiTaskModule, positions: torch.Tensor, number: int) -> None:
        called.append((self.weighting.name, len(positions)))
        step(self, positions, number)

    monkeypatch.setattr(MultiTaskModule, "training_step", spy)
    changes = ["tasks=[2]", "weightings=[random]", "backbone=lenet"]
    settings = read_settings(BenchSettings, None, changes, batch=5, rounds=2)
    next(bench(settings, "cpu", Progress()))
    assert {n for _, n in called} == {5}
    # Two timed turns, and one for the memory.
    assert [name for name, _ in called].count("random") == 3 * N_STEPS


def test_a_drift_of_the_machine_meets_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def epoch(module: Any, device: str, watch: Any) -> None:
        n_before = order.count(module.name)
        order.append(module.name)
        # Each round is slower than the one before; first steps take whatever they take.
        watch.seconds += [99.0, module.cost * 2.0**n_before]

    monkeypatch.setattr(turns, "_epoch", epoch)
    sides: Any = [SimpleNamespace(name="a", cost=1.0), SimpleNamespace(name="b", cost=3.0)]
    first, second = turns.take_turns(sides, 3, "cpu")
    assert order == ["a", "b"] * 3
    assert first == [1, 2, 4]
    measured = _compared(second, first, 0)
    assert (measured.ratio, measured.lowest, measured.highest) == (3, 3, 3)
    assert measured.seconds == 6
    assert _compared(first, first, 0).ratio == 1


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    measured = _compared([2.0, 9.0, 4.0], [1.0, 3.0, 4.0], 7)
    assert (measured.ratio, measured.lowest, measured.highest) == (2, 1, 3)
    assert measured.extra_bytes == 7


# ---- memory ----------------------------------------------------------------------------------


def test_the_gradients_of_all_tasks_are_as_many_bytes_as_they_should_be() -> None:
    n_tasks = 5
    network = make_network("hard-sharing", lambda: make_backbone("lenet", (3, 32, 32)), [2] * 5)
    names = [name for name, _ in network.named_parameters() if name.startswith("shared")]
    shared = SharedGradients(network, names, "jacobian", n_tasks)
    losses = torch.stack([output.square().mean() for output in network(torch.rand(2, 3, 32, 32))])
    with LiveTensors() as meter:
        jacobian = shared.jacobian(losses)
        at_most = meter.peak
        meter.restart()
    assert jacobian.shape == (n_tasks, LENET)
    assert meter.peak == n_tasks * LENET * 4
    assert at_most >= 2 * meter.peak  # one gradient per parameter, then all as one


def test_views_count_once_and_what_is_freed_no_more() -> None:
    before = torch.zeros(50)
    with LiveTensors([before]) as meter:
        assert meter.peak == 200
        a = torch.zeros(100)
        view = a.view(10, 10)[1:]
        a.add_(1)
        before.mul_(2)
        assert meter.peak == 600
        b = a + 1
        assert meter.peak == 1000
        del b
        meter.restart()
        assert meter.peak == 600
        del a
        meter.restart()
        assert meter.peak == 600  # the view holds it
        del view
        meter.restart()
        assert meter.peak == 200


# ---- the command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("weightings=[upgrade]", r"`weightings` must be known ones, got 'upgrade'; did you mean"),
        ("weightings=[]", "weightings"),
        ("backbone=resnext", "the backbone must be a known one"),
        ("backbone={name: resnet, depth: 9}", "must be 6n"),
        ("tasks=[1]", "tasks"),
        ("tasks=[2, 127]", "tasks"),
        ("tasks=[]", "tasks"),
        ("tasks=[two]", "tasks"),
        ("batch=1", "batch"),
        ("batch=1000", "batch"),
        ("rounds=0", "rounds"),
    ],
)
def test_bad_settings_are_refused(change: str, match: str) -> None:
    with pytest.raises(SettingError, match=match):
        read_settings(BenchSettings, None, ["backbone=lenet", change])


def test_a_backbone_must_be_given() -> None:
    with pytest.raises(SettingError, match="backbone"):
        read_settings(BenchSettings)


@pytest.mark.parametrize("arguments", [["bench"], ["bench", "score"]])
def test_bench_alone_is_that_of_scores(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    given = []
    monkeypatch.setattr(score, "bench_score", lambda *values: given.append(values))
    for options in ([], ["--rounds", "3", "--jobs", "1"]):
        assert CliRunner().invoke(app, [*arguments, *options]).exit_code == 0
    assert given == [(5, 0), (3, 1)]


def test_the_way_of_tasks_is_measured_stage_by_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    # In this process, for another one takes seconds to import what it needs.
    monkeypatch.setattr(export, "in_own_process", lambda work, *given: work(*given))
    few = ["bench", "export", "--images=200", "--tasks=3", "--batch=8", "--json"]
    done = CliRunner().invoke(app, few)
    assert done.exit_code == 0, done.output
    stages = {row["stage"]: row for row in json.loads(done.stdout)["stages"]}
    formats = [name for name in FORMATS if name != "parquet" or find_spec("pyarrow")]
    assert list(stages) == [
        *(f"export {name}" for name in formats),
        *(f"load_tasks {name}" for name in formats),
        *("TaskDataset", "training"),
    ]
    for stage, row in stages.items():
        assert row["seconds"] > 0 and row["peak_bytes"] >= 0
        assert row["image_bytes"] == (0 if "export" in stage else 200 * 32 * 32 * 3)


@pytest.mark.parametrize("change", ["images=99", "images=101", "tasks=0", "batch=0"])
def test_bad_settings_of_that_are_refused(change: str) -> None:
    with pytest.raises(SettingError, match=f"`{change.split('=')[0]}` must be"):
        read_settings(ExportBenchSettings, None, [change])


def test_the_command_prints_tables_or_json_and_writes_a_file(tmp_path: Any) -> None:
    small = ["bench", "mtl", "--tasks=2", "--weightings=equal,krum", "--backbone=lenet"]
    small += ["--batch=3", "--rounds=1", "--device=cpu"]
    shown = CliRunner().invoke(app, small)
    assert shown.exit_code == 0, shown.output
    assert "krum: `n_tasks` must be at least 3" in shown.stdout
    assert "peak MiB above equal" in shown.stdout and torch.__version__ in shown.stdout
    file = tmp_path / "costs.csv"
    done = CliRunner().invoke(app, [*small, "--json", f"--out={file}"])
    result = json.loads(done.stdout)
    assert [cost["weighting"] for cost in result["costs"]] == ["equal", "krum", "imtl-g", "imtl-g"]
    assert result["settings"]["batch"] == 3
    assert len(file.read_text().splitlines()) == 1 + len(result["costs"])
