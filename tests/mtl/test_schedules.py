"""Schedules: worked values of DST, what all schedules keep, and what is refused."""

import io
import subprocess
import sys
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch

from taskdisc.errors import SettingError
from taskdisc.mtl.schedules import SCHEDULES, make_schedule
from taskdisc.mtl.schedules.base import Schedule
from taskdisc.mtl.schedules.dropped_scheduled import DroppedScheduled
from taskdisc.mtl.schedules.make import checked
from taskdisc.mtl.schedules.table import METRICS

each_schedule = pytest.mark.parametrize("name", list(SCHEDULES))

NAN = float("nan")

FACTS: dict[str, Any] = {"head_depths": [1, 2, 4], "n_labelled": [50, 100, 25]}

EPOCHS = [[2.0, 4.0, 1.0], [1.0, 3.0, 0.75], [0.5, NAN, 0.75], [0.5, 3.5, 0.1]]
"""Losses of four epochs; the second task was dropped in the third."""


def dst(losses: list[list[float]] | None = None, **given: Any) -> DroppedScheduled:
    """DST of three tasks that has heard of these epochs."""
    schedule = make_schedule("dst", 3, **{**FACTS, **given})
    assert isinstance(schedule, DroppedScheduled)
    told(schedule, losses or [])
    return schedule


def told(schedule: Schedule, losses: list[list[float]]) -> Schedule:
    for number, heard in enumerate(losses, start=1):
        schedule.after_epoch(number, heard)
    return schedule


def only(metric: str, share: float = 1.0) -> dict[str, float]:
    """All shares, with one metric and the regulariser for the rest."""
    shares = dict.fromkeys(METRICS, 0.0)
    shares["regulariser"] = 1 - share
    shares[metric] += share
    return shares


@each_schedule
def test_a_row_is_complete(name: str) -> None:
    row = SCHEDULES[name]
    assert row.summary and row.summary[-1] != "."
    assert row.paper is None or row.paper.url.startswith("https://")
    for setting in row.settings.values():
        assert setting.keeps(setting.default, 3)
    assert set(row.shares) <= set(row.settings)
    assert checked(name, 3, {}) is row
    assert isinstance(make_schedule(name, 3), Schedule)


def test_making_schedules_imports_no_torch() -> None:
    code = (
        "from taskdisc.mtl.schedules import SCHEDULES, make_schedule; import sys\n"
        "for name in SCHEDULES: make_schedule(name, 3)\n"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


# By hand. d = 1, 2, 4 and c = 50, 100, 25.
DEPTH = [0.25, 0.5, 1.0]
SAMPLES = [0.5, 1.0, 0.25]
ONES = [1.0, 1.0, 1.0]


def test_dst_before_and_after_the_first_epoch() -> None:
    for losses in ([], EPOCHS[:1]):
        expected = [DEPTH, SAMPLES, ONES, ONES, ONES]
        np.testing.assert_allclose(dst(losses).metrics(), expected, rtol=1e-12)
    np.testing.assert_allclose(dst().probabilities(1), [0.75, 0.9, 0.85], rtol=1e-12)


def test_dst_after_two_epochs() -> None:
    # I = 1/2, 3/4, 3/4 with mean 2/3.
    incompleteness = [3 / 4, 1.0, 1.0]
    # |R| = (1 / 2) / (3/4), 1 / 4, (1/4) / 1 = 2/3, 1/4, 1/4 with mean 7/18.
    stagnancy = [7 / 12, 1.0, 1.0]
    found = dst(EPOCHS[:2])
    expected = [DEPTH, SAMPLES, incompleteness, stagnancy, ONES]
    np.testing.assert_allclose(found.metrics(), expected, rtol=1e-12)
    total = (0.25 + 0.5 + 3 / 4 + 7 / 12 + 1) / 5
    np.testing.assert_allclose(found.probabilities(3), [total, 0.9, 0.85], rtol=1e-12)


def test_dst_keeps_the_last_loss_of_a_dropped_task() -> None:
    # I = 1/4, 3/4, 3/4 with mean 7/12; the first task alone moved: |R| = (1/2) / (3/7) = 7/6.
    found = dst(EPOCHS[:3])
    expected = [DEPTH, SAMPLES, [3 / 7, 1.0, 1.0], [1 / 3, 1.0, 1.0], ONES]
    np.testing.assert_allclose(found.metrics(), expected, rtol=1e-12)
    # Back at 3.5, it is compared with 3: I = 1/4, 7/8, 1/10 with mean 49/120.
    # |R| = 0, (1/2) / 3, (0.65 / 0.75) / (12/49) with mean (1/6 + 637/180) / 3.
    found.after_epoch(4, EPOCHS[3])
    unfinished = [30 / 49, 1.0, 12 / 49]
    stagnancy = [1.0, 1.0, (1 / 6 + 637 / 180) / 3 / (637 / 180)]
    np.testing.assert_allclose(found.metrics()[2:4], [unfinished, stagnancy], rtol=1e-12)


def test_dst_with_a_task_that_was_never_active() -> None:
    # I = 1/2, 3/4 and, of no loss, 1 with mean 3/4; R of it is 0.
    found = dst([[2.0, 4.0, NAN], [1.0, 3.0, NAN]])
    # |R| = (1/2) / (2/3), 1/4, 0 with mean 1/3.
    expected = [[2 / 3, 1.0, 1.0], [4 / 9, 1.0, 1.0]]
    np.testing.assert_allclose(found.metrics()[2:4], expected, rtol=1e-12)
    # Its first loss is what it begins with.
    found.after_epoch(3, [1.0, 3.0, 5.0])
    np.testing.assert_allclose(found.metrics()[2:4], [[2 / 3, 1.0, 1.0], ONES], rtol=1e-12)


@pytest.mark.parametrize(
    ("losses", "unfinished", "stagnancy"),
    [
        # V(1) = 0 of the first: I = 1, 1/2, 1/2; its loss rises from nothing.
        ([[0.0, 2, 2], [1.0, 1, 1]], [1.0, 3 / 4, 3 / 4], [1 / 3, 1.0, 1.0]),
        # it stays at 0, and the others do not move: R = 0
        ([[0.0, 2, 2], [0.0, 2, 2]], ONES, ONES),
        # all finished at once
        ([[1.0, 2, 3], [0.0, 0, 0]], ONES, ONES),
        # one finished: I = 0, 1, 1
        ([[1.0, 2, 3], [0.0, 2, 3]], [0.0, 1.0, 1.0], [1 / 3, 1.0, 1.0]),
        # finished before, and now it moves again: I = 1/2, 1, 1
        ([[1.0, 2, 3], [0.0, 2, 3], [0.5, 2, 3]], [3 / 5, 1.0, 1.0], [1 / 3, 1.0, 1.0]),
        # no losses at all
        ([[NAN] * 3, [NAN] * 3], ONES, ONES),
        # one diverged: as if it had not been heard
        ([[1.0, 2, 3], [1.0, 2, float("inf")]], ONES, ONES),
    ],
)
def test_dst_where_it_would_divide_by_nothing(
    losses: list[list[float]], unfinished: list[float], stagnancy: list[float]
) -> None:
    found = dst(losses).metrics()[2:4]
    # a divisor of nothing is one of 1e-8
    np.testing.assert_allclose(found, [unfinished, stagnancy], rtol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_each_share_mixes_its_metric(metric: str) -> None:
    found = dst(EPOCHS, **only(metric, 0.25))
    expected = 0.25 * found.metrics()[METRICS.index(metric)] + 0.75
    np.testing.assert_allclose(found.probabilities(5), expected, rtol=1e-12)


def test_dst_with_the_regulariser_alone_trains_all() -> None:
    found = dst(**only("regulariser"))
    for number, losses in enumerate([*EPOCHS, [0.0, 0.0, 0.0], [1e15, 1e-15, 1.0]], start=1):
        assert found.probabilities(number).tolist() == ONES
        assert found.active(number).all()
        found.after_epoch(number, losses)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.7])
def test_probabilities_stay_between_the_regulariser_and_one(share: float) -> None:
    draw = np.random.default_rng(0)
    rest = draw.dirichlet(np.ones(4)) * (1 - share)
    found = dst(**dict(zip(METRICS, [*rest.tolist(), share], strict=True)))
    for epoch in range(1, 200):
        losses = 10.0 ** draw.integers(-20, 20, 3) * draw.random(3)
        losses[draw.random(3) < 0.2] = NAN
        losses[draw.random(3) < 0.1] = 0.0
        found.after_epoch(epoch, losses)
        rates = found.probabilities(epoch + 1)
        assert (rates >= share).all() and (rates >= 0).all() and (rates <= 1).all(), losses


@pytest.mark.parametrize(
    ("name", "settings"), [("all", {}), ("random-drop", {"p": 0.3}), ("dst", {})]
)
def test_as_many_are_active_as_expected(name: str, settings: dict[str, float]) -> None:
    n = 4000
    schedule = told(make_schedule(name, 3, seed=1, **FACTS, **settings), EPOCHS)
    rates = schedule.probabilities(1)
    drawn = np.stack([schedule.draw(epoch) for epoch in range(1, n + 1)])
    error = np.sqrt((rates * (1 - rates)).sum() / n)
    assert abs(drawn.sum(axis=1).mean() - rates.sum()) <= 4 * error
    # each task by itself, and without regard to the others
    assert np.abs(drawn.mean(axis=0) - rates).max() <= 4 * 0.5 / np.sqrt(n)
    if name != "all":
        assert np.abs(np.corrcoef(drawn.T)[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(n)


def test_all_is_all_and_random_drop_is_constant() -> None:
    for name, settings, rate in (("all", {}, 1.0), ("random-drop", {"p": 0.25}, 0.25)):
        found = told(make_schedule(name, 3, **settings), EPOCHS)
        assert found.probabilities(5).tolist() == [rate] * 3
    assert make_schedule("all", 3).draw(1).all()
    assert make_schedule("random-drop", 3).probabilities(1).tolist() == [0.5] * 3


def test_an_epoch_trains_something() -> None:
    found = make_schedule("random-drop", 3, p=0.01)
    empty = [epoch for epoch in range(1, 101) if not found.draw(epoch).any()]
    assert len(empty) > 90
    for epoch in empty:
        assert found.active(epoch).tolist() == [True, False, False]  # of equals the first
    for epoch in set(range(1, 101)) - set(empty):
        assert found.active(epoch).tolist() == found.draw(epoch).tolist()


def test_where_all_were_dropped_the_likeliest_task_is_active(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = dst()
    monkeypatch.setattr(found, "draw", lambda epoch: np.zeros(3, dtype=bool))
    assert found.active(1).tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["random-drop", "dst"])
def test_the_main_task_is_kept_unless_told_otherwise(name: str) -> None:
    settings = {"random-drop": {"p": 0.1}, "dst": only("depth")}[name]
    facts: dict[str, Any] = {"head_depths": [10, 1, 1], **settings}
    kept = make_schedule(name, 3, main=1, **facts)
    assert kept.probabilities(1)[1] == 1.0
    assert all(kept.active(epoch)[1] for epoch in range(1, 101))
    for other in (
        make_schedule(name, 3, main=1, keep_main=False, **facts),
        make_schedule(name, 3, **facts),
    ):
        assert other.probabilities(1)[1] == pytest.approx(0.1)
        assert not all(other.active(epoch)[1] for epoch in range(1, 101))
        others = [0, 2]
        assert (other.probabilities(1)[others] == kept.probabilities(1)[others]).all()


def test_order_of_tasks_does_not_matter() -> None:
    expected = dst(EPOCHS).probabilities(5)
    for order in permutations(range(3)):
        facts = {name: [values[i] for i in order] for name, values in FACTS.items()}
        found = dst([[losses[i] for i in order] for losses in EPOCHS], **facts)
        np.testing.assert_allclose(found.probabilities(5), expected[list(order)], rtol=1e-12)


@each_schedule
def test_draws_follow_from_seed_and_epoch(name: str) -> None:
    depths = [1, 2, 3, 4, 5, 6, 7, 8]
    first = make_schedule(name, 8, seed=3, head_depths=depths)
    second = make_schedule(name, 8, seed=3, head_depths=depths)
    drawn = {epoch: first.draw(epoch).tolist() for epoch in range(1, 30)}
    for epoch in reversed(range(1, 30)):
        assert second.draw(epoch).tolist() == drawn[epoch]
    if name != "all":
        other = make_schedule(name, 8, seed=4, head_depths=depths)
        assert any(other.draw(epoch).tolist() != drawn[epoch] for epoch in drawn)
        assert len({tuple(active) for active in drawn.values()}) > 1


def test_draws_leave_global_randomness_alone() -> None:
    before = np.random.get_state()[1].tolist()
    dst(EPOCHS).active(1)
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize("n_before", [0, 1, 2, 3])
@each_schedule
def test_restored_schedules_go_on_as_if_never_stopped(name: str, n_before: int) -> None:
    first = told(make_schedule(name, 3, seed=2, **FACTS), EPOCHS[:n_before])
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    second = make_schedule(name, 3, seed=2, **FACTS)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    for epoch in range(n_before + 1, 6):
        assert (first.probabilities(epoch) == second.probabilities(epoch)).all()
        assert (first.active(epoch) == second.active(epoch)).all()
        for schedule in (first, second):
            schedule.after_epoch(epoch, EPOCHS[epoch % 4])


def test_a_saved_state_stays_as_it_was() -> None:
    schedule = dst(EPOCHS[:2])
    state = schedule.state_dict()
    before = str(state)
    told(schedule, EPOCHS)
    assert str(state) == before


def test_a_state_of_other_tasks_is_refused() -> None:
    with pytest.raises(SettingError, match="`n_tasks` must be 3, as in the saved state, got 4"):
        make_schedule("dst", 4).load_state_dict(dst().state_dict())


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("DST2", {}, "the schedule must be a known one, got 'DST2'; did you mean 'dst'"),
    ("all", {"n_tasks": 0}, "`n_tasks` must be at least 1, got 0"),
    ("all", {"seed": -1}, "`seed` must be at least 0, got -1"),
    ("all", {"main": 3}, "`main` must be the number of a task, 0 to 2, got 3"),
    ("all", {"p": 0.5}, "`p` is not a setting of schedule 'all'; it has no settings"),
    ("random-drop", {"P": 0.5}, "`P` is not a setting of schedule 'random-drop'; did you mean 'p'"),
    ("random-drop", {"p": 0}, r"`p` of schedule 'random-drop' must be a number in \(0, 1\], got 0"),
    ("random-drop", {"p": 1.5}, "got 1.5"),
    ("random-drop", {"keep_main": 1}, "`keep_main` .* true or false, got 1"),
    ("dst", {"depth": -0.1}, r"`depth` of schedule 'dst' must be a number in \[0, 1\], got -0.1"),
    (
        "dst",
        {"regulariser": 1},
        "the shares of schedule 'dst' must add up to 1, got `depth` 0.2, .* 1.8; give all of them",
    ),
    ("dst", dict.fromkeys(METRICS, 0.1), "add up to 1, .*: 0.5; "),
    ("dst", dict.fromkeys(METRICS, 0.0), "add up to 1, .*: 0; "),
    ("dst", {"head_depths": [1, 2]}, "`head_depths` of schedule 'dst' must be a list of 3 numbers"),
    ("dst", {"head_depths": [1, 2, -1]}, "numbers of at least 0, one for each task"),
    ("dst", {"n_labelled": [0, 0, 0]}, "`n_labelled` .* not all of them 0"),
    ("dst", {"n_labelled": [1, NAN, 1]}, "`n_labelled`"),
]


@pytest.mark.parametrize(("name", "given", "match"), BAD)
def test_bad_input_is_refused(name: str, given: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingError, match=match):
        make_schedule(name, **{"n_tasks": 3, **given})


def test_shares_may_be_rounded_decimals() -> None:
    shares = dict(zip(METRICS, [0.1, 0.2, 0.3, 0.15, 0.25], strict=True))
    assert dst(**shares).probabilities(1).max() <= 1
    thirds = {**dict.fromkeys(METRICS, 0.0), "depth": 1 / 3, "samples": 1 / 3, "stagnancy": 1 / 3}
    assert checked("dst", 3, thirds).shares == METRICS
