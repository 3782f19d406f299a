"""Every architecture trains with every weighting, and every schedule with each kind of them."""

import pytest
from training import SPLIT, finite, fit, module, moved, row

from taskdisc.mtl.architectures import ARCHITECTURES
from taskdisc.mtl.config import RowSettings
from taskdisc.mtl.data import Split
from taskdisc.mtl.schedules import SCHEDULES
from taskdisc.mtl.weightings import WEIGHTINGS, Needs

FEW = Split(SPLIT.train[:32], SPLIT.validation[:16], SPLIT.test)
"""For two small batches."""

OF_EACH_NEED = {row.needs: name for name, row in reversed(WEIGHTINGS.items())}
"""The first weighting of each kind."""

GROWING = {"name": "adaptive-sharing", "grow_every": 1, "branch_cost": 0.0}
"""Splits a stage after every epoch."""

DROPPING = {"name": "random-drop", "p": 0.5, "keep_main": False}

STILL = {("cross-stitch", "trimmed-mean"): "did not move: units.3"}
"""Each entry of the last unit is of one task, so without the extremes nothing is left of it."""


def fault_of(settings: RowSettings) -> str:
    """What is wrong with a training of the three tasks; empty for nothing."""
    made = module(settings, split=FEW)
    changed = moved(made, lambda: fit(made))
    if not all(finite(record) for record in made.history):
        return f"not finite: {made.history}"
    still = [name for name, tasks in made.reached.items() if tasks and not changed[name]]
    return f"did not move: {', '.join(still)}" if still else ""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_weighting_moves_all_that_tasks_reach(architecture: str) -> None:
    faults, expected = {}, {}
    for weighting in WEIGHTINGS:
        training = {"batch": 16, "probes": 0}
        faults[weighting] = fault_of(row(training, architecture=architecture, weighting=weighting))
        expected[weighting] = STILL.get((architecture, weighting), "")
    assert faults == expected


@pytest.mark.parametrize("weighting", OF_EACH_NEED.values())
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_trains_with_each_kind_of_weighting(schedule: str, weighting: str) -> None:
    training = {"batch": 16, "epochs": 4}
    made = fit(module(row(training, schedule=schedule, weighting=weighting), split=FEW))
    assert len(made.history) == 4
    for record in made.history:
        known = [value is not None for value in record["losses"]]
        assert known == [task in record["active"] for task in range(3)]
        assert all(found["loss"] is not None for found in record["validation"])


# The masks of mtan have batch statistics, of which the Gramian alone is refused.
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "mtan"])
def test_the_gramian_alone_bears_dropped_tasks(architecture: str) -> None:
    training = {"batch": 16, "epochs": 5, "gradients": "gramian"}
    method = GROWING if architecture == "adaptive-sharing" else architecture
    for weighting in ("equal", "pcgrad"):
        settings = row(training, architecture=method, weighting=weighting, schedule=DROPPING)
        made = fit(module(settings, split=FEW))
        assert {len(record["active"]) for record in made.history} >= {1, 2}


@pytest.mark.parametrize("needs", Needs)
def test_the_gramian_is_had_alone_whatever_else_is_needed(needs: Needs) -> None:
    # Three batches of which one is probed, twice: forward passes without a Gramian between.
    training = {"batch": 11, "epochs": 2, "probes": 1, "gradients": "gramian"}
    assert not fault_of(row(training, weighting=OF_EACH_NEED[needs]))


@pytest.mark.parametrize(
    "weighting",
    ["moco", "db-mtl", "projection", "excess-mtl", "gradvac", "metabalance", "cr-mogm", "pcd"],
)
def test_what_tasks_share_may_change_while_gradients_are_remembered(weighting: str) -> None:
    made = module(row({"batch": 16, "epochs": 4}, architecture=GROWING, weighting=weighting))
    n_shared = {len(made.shared.parameters), len(fit(made).shared.parameters)}
    assert len(n_shared) == 2
    assert all(finite(record) for record in made.history)
