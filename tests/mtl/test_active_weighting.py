"""Weightings while some tasks are dropped."""

import io
from copy import deepcopy
from itertools import combinations
from typing import Any

import pytest
import torch
from steps import direction_of, made, step_of
from torch import Tensor
from torch.testing import assert_close

from taskdisc.errors import SettingError
from taskdisc.mtl.weightings import WEIGHTINGS
from taskdisc.mtl.weightings.active import ActiveWeighting
from taskdisc.mtl.weightings.base import Step, Update, Weighting

NAMES = list(WEIGHTINGS)
each_weighting = pytest.mark.parametrize("name", NAMES)
TRAINED = ["uncertainty", "revised-uncertainty", "imtl-l", "imtl"]
each_trained = pytest.mark.parametrize("name", TRAINED)

GENERATOR = torch.Generator().manual_seed(0)
FIVE = torch.randn(5, 10, generator=GENERATOR) + 0.3
LOSSES = torch.tensor([1.0, 2.0, 0.5, 1.5, 0.8])
THREE = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
"""As many tasks as shared parameters, so that shapes do not tell one from the other."""

ALL = (0, 1, 2, 3, 4)
SOME = (0, 1, 2, 4)
MAIN = 2


def active_of(
    name: str, n_tasks: int = 5, main: int = MAIN, seed: int = 0, **settings: Any
) -> ActiveWeighting:
    """The weighting, with a main task where it asks for one."""
    needed = main if WEIGHTINGS[name].requires_main else None
    return ActiveWeighting(name, n_tasks, needed, seed, settings)


def choose(weighting: ActiveWeighting, tasks: tuple[int, ...]) -> None:
    weighting.set_active([task in tasks for task in range(weighting.n_tasks)])


def stepped(
    weighting: Weighting | ActiveWeighting,
    tasks: tuple[int, ...] = ALL,
    n_steps: int = 3,
    jacobian: Tensor = FIVE,
    losses: Tensor = LOSSES,
) -> list[Tensor]:
    """The directions of an epoch of these tasks; losses fall by 1, 2, … % a step, task by task."""
    found = []
    rows = list(tasks)
    speeds = 1 - (torch.arange(len(losses)) + 1) / 100
    for number in range(n_steps):
        turned = jacobian.roll(number, dims=1)[rows]
        step = step_of(turned, (losses * speeds**number)[rows], rows.index(min(rows)))
        found.append(direction_of(weighting.update(step), step))
        weighting.after_step((losses * speeds ** (number + 1))[rows])
    weighting.after_epoch(losses[rows])
    return found


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert_close(found, expected, atol=0, rtol=0)


@each_weighting
def test_with_all_active_it_is_the_weighting_itself(name: str) -> None:
    plain, weighting = made(name, 5, MAIN), active_of(name)
    for _ in range(3):
        assert weighting.part is None and weighting.acting == name
        assert_same(stepped(weighting), stepped(plain))
        choose(weighting, ALL)


@each_weighting
def test_dropped_tasks_have_no_influence(name: str) -> None:
    runs = []
    for factor in (1.0, -7.0):
        changed = torch.ones(5)
        changed[3] = factor
        weighting = active_of(name)
        choose(weighting, SOME)
        runs.append(
            stepped(weighting, SOME, 3, changed[:, None] * FIVE, changed.abs() * LOSSES)
            + stepped(weighting, SOME, 3, changed[:, None] * FIVE, changed.abs() * LOSSES)
        )
    assert_same(runs[1], runs[0])


# MoCo's weights are 1/5 each from the start, whoever is active.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "moco"])
def test_from_the_start_it_is_the_weighting_of_the_active_tasks(name: str) -> None:
    weighting = active_of(name, seed=4)
    choose(weighting, (1, 2, 4))
    plain = made(name, 3, main=1, seed=4)
    for _ in range(3):
        assert_same(stepped(weighting, (1, 2, 4)), stepped(plain, (1, 2, 4)))


def tensors_in(state: Any, name: Any = None) -> list[tuple[Any, Tensor]]:
    """All tensors of a state with their names, however deep, copied."""
    if isinstance(state, dict):
        return [found for key, inner in state.items() for found in tensors_in(inner, key)]
    if isinstance(state, list):
        return [found for inner in state for found in tensors_in(inner, name)]
    return [(name, state.clone())] if isinstance(state, Tensor) else []


def remembers(name: str) -> bool:
    """Whether it keeps more than the number of its steps."""
    weighting = made(name, 5, MAIN)
    stepped(weighting, n_steps=1)
    return bool(tensors_in(weighting.state_dict()))


STATELESS = [name for name in NAMES if not WEIGHTINGS[name].random and not remembers(name)]
each_stateless = pytest.mark.parametrize("name", STATELESS)


def test_many_weightings_remember_nothing() -> None:
    assert {"equal", "mgda", "cagrad", "upgrad", "krum", "cosine-weighted"} <= set(STATELESS)
    assert not {"dwa", "gradnorm", "moco", "famo", "pcd", "gradvac", "db-mtl", "ol-aux"} & set(
        STATELESS
    )


@each_stateless
def test_stateless_weightings_equal_those_of_the_active_tasks_at_any_time(name: str) -> None:
    weighting = active_of(name)
    for tasks in (ALL, SOME, (1, 2, 3), SOME):
        choose(weighting, tasks)
        plain = made(name, len(tasks), tasks.index(MAIN))
        assert_same(stepped(weighting, tasks), stepped(plain, tasks))


ROWS: list[tuple[str, str]] = [
    ("go4align", "indicators"),
    ("gradnorm", "weights"),
    ("gradnorm", "first_losses"),
    ("moco", "weights"),
    ("moco", "tracked"),
    ("db-mtl", "tracked"),
    ("metabalance", "norms"),
    ("ol-aux", "weights"),
    ("auto-lambda", "weights"),
    ("auto-lambda", "mean_square"),
    ("dwa", "_previous_averages"),
    ("gradvac", "_phi_t"),
    ("cr-mogm", "_lambda"),
    ("modo", "_lambda"),
    ("sdmgrad", "_w"),
    ("excess-mtl", "_weights"),
    ("excess-mtl", "_sq_grad_sum"),
    ("excess-mtl", "_initial_w"),
    ("nash-mtl", "prvs_alpha"),
    ("pcd", "_sq_norm_ema"),
    ("famo", "_w"),
    ("famo", "exp_avg"),
]


def state_of(weighting: ActiveWeighting, key: str) -> list[Tensor]:
    """All values of that name in the state of the full weighting."""
    return [value for name, value in tensors_in(weighting.full.state_dict()) if name == key]


def test_every_state_per_task_is_tested() -> None:
    """A new weighting that remembers is a new row above."""
    remembering = {n for n in NAMES if n not in STATELESS and not WEIGHTINGS[n].random}
    assert remembering - {n for n, _ in ROWS} <= {"projection", *TRAINED}


@pytest.mark.parametrize(("name", "key"), ROWS)
def test_states_of_dropped_tasks_stay(name: str, key: str) -> None:
    weighting = active_of(name)
    stepped(weighting)
    stepped(weighting)
    before = state_of(weighting, key)
    assert before and all(value.shape[0] == 5 for value in before)
    choose(weighting, SOME)
    stepped(weighting, SOME, 5, FIVE.flip(1), LOSSES.flip(0))
    assert [value.shape[1:] for value in state_of(weighting, key)] == [v.shape[1:] for v in before]
    choose(weighting, ALL)
    after = state_of(weighting, key)
    # PCD has the main task in the first row, so that task 3 is at 3 either way.
    for old, new in zip(before, after, strict=True):
        assert_close(new[3], old[3], atol=0, rtol=0)
        if name == "gradvac":
            assert_close(new[:, 3], old[:, 3], atol=0, rtol=0)
    moved = {
        i
        for old, new in zip(before, after, strict=True)
        for i in ALL
        if i != 3
        if not torch.equal(old[i], new[i])
    }
    # what was there first stays for all
    assert (moved != set()) == (key not in ("first_losses", "_initial_w"))
    # and they go on together
    assert torch.stack(stepped(weighting)).isfinite().all()


def test_the_row_of_a_dropped_task_before_the_main_one_is_found() -> None:
    """PCD's states are in an order of its own: task 1 is in row 2 where task 2 is the main one."""
    weighting = active_of("pcd")
    stepped(weighting)
    (before,) = state_of(weighting, "_sq_norm_ema")
    choose(weighting, (0, 2, 3, 4))
    assert weighting.part is not None
    taken = weighting.part.get_extra_state()["rule"]["_sq_norm_ema"]
    assert taken.tolist() == before[[0, 1, 3, 4]].tolist()
    assert before[0] == pytest.approx(float((FIVE[MAIN] ** 2).sum()) * (1 - 0.999**3), rel=1e-4)


def test_states_that_begin_with_dropped_tasks() -> None:
    """Numbers per task begin at the active tasks' mean, vectors at 0."""
    norm = active_of("gradnorm")
    choose(norm, SOME)
    stepped(norm, SOME)
    choose(norm, ALL)
    expected = LOSSES.clone()
    expected[3] = LOSSES[list(SOME)].mean()
    assert_close(state_of(norm, "first_losses"), [expected])
    for name in ("moco", "db-mtl"):
        tracking = active_of(name)
        choose(tracking, SOME)
        stepped(tracking, SOME)
        choose(tracking, ALL)
        (tracked,) = state_of(tracking, "tracked")
        assert not tracked[3].any() and tracked[list(SOME)].any(dim=1).all()


HISTORIES: list[tuple[list[tuple[int, ...]], float]] = [
    ([(0, 1, 2), (0, 1, 2), (0, 1)], 3.0),  # the two epochs before
    ([(0, 1, 2), (0, 1), (0, 1)], 1.0),  # one epoch, from which it has not moved
    ([(0, 1), (0, 1), (0, 1)], 1 / 1.75),  # none: as the others on average
]


@pytest.mark.parametrize(("epochs", "rate"), HISTORIES)
def test_dwa_weighs_a_task_that_is_back_by_its_last_two_epochs(
    epochs: list[tuple[int, ...]], rate: float
) -> None:
    weighting = active_of("dwa", 3)
    losses = [[1.0, 4.0, 1.0], [0.5, 1.25, 3.0], [0.25, 0.75, 9.0]]
    for tasks, heard in zip(epochs, losses, strict=True):
        choose(weighting, tasks)
        stepped(weighting, tasks, 1, THREE, torch.tensor(heard))
    choose(weighting, (0, 1, 2))
    rates = torch.tensor([0.5, 0.6, rate])
    assert_close(weighting.update(step_of(THREE)).shown, 3 * torch.softmax(rates / 2, dim=0))


@pytest.mark.parametrize("name", ["imtl", "famo", "gradvac", "nash-mtl", "moco"])
def test_a_copy_goes_its_own_way(name: str) -> None:
    first = active_of(name)
    choose(first, SOME)
    stepped(first, SOME, 1)
    second = deepcopy(first)
    expected = stepped(second, SOME)
    stepped(second, SOME)
    assert_same(stepped(first, SOME), expected)


def test_the_number_of_steps_carries_over() -> None:
    weighting = active_of("random")
    shown = []
    for tasks in (ALL, SOME, ALL, SOME):
        choose(weighting, tasks)
        shown.append(weighting.update(step_of(FIVE[list(tasks)])).shown)
    assert weighting.part is not None
    assert weighting.part.get_extra_state()["n_steps"] == 4
    assert len({tuple(weights.tolist()) for weights in shown if weights is not None}) == 4


def optimised(
    weighting: ActiveWeighting, optimiser: torch.optim.Optimizer, tasks: tuple[int, ...]
) -> None:
    """Some steps of the weighting's own parameters."""
    for _ in range(3):
        # with a loss of 1 nothing would move at first
        total = weighting.update(step_of(FIVE[list(tasks)], 1.3 * LOSSES[list(tasks)])).total
        assert total is not None
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        weighting.restore_dropped()


@pytest.mark.parametrize("kind", ["adam", "sgd"])
@each_trained
def test_trained_parameters_of_dropped_tasks_stay(name: str, kind: str) -> None:
    weighting = active_of(name)
    (parameter,) = weighting.parameters()
    optimiser: torch.optim.Optimizer = (
        torch.optim.AdamW([parameter], 0.1)
        if kind == "adam"
        else torch.optim.SGD([parameter], 0.1, momentum=0.9)
    )
    optimised(weighting, optimiser, ALL)
    before = parameter.detach().clone()
    choose(weighting, SOME)
    # one set of parameters throughout, and none of the part's
    assert [id(p) for p in weighting.parameters()] == [id(parameter)]
    optimised(weighting, optimiser, SOME)
    moved = (parameter != before).tolist()
    assert moved == [True, True, True, False, True]
    choose(weighting, ALL)
    optimised(weighting, optimiser, ALL)
    assert parameter[3] != before[3]


@each_trained
def test_parts_use_the_trained_parameters(name: str) -> None:
    weighting, plain = active_of(name), made(name, 4)
    (parameter,), (other,) = weighting.parameters(), plain.parameters()
    values = torch.tensor([0.3, -0.2, 0.5, 9.0, 0.1])
    with torch.no_grad():
        parameter.copy_(values)
        other.copy_(values[list(SOME)])
    choose(weighting, SOME)
    steps = [step_of(FIVE[list(SOME)], LOSSES[list(SOME)]) for _ in range(2)]
    updates = [w.update(step) for w, step in zip((weighting, plain), steps, strict=True)]
    for update in updates:
        assert update.total is not None
        update.total.backward()
    assert_close(direction_of_shown(updates[0]), direction_of_shown(updates[1]), atol=0, rtol=0)
    assert parameter.grad is not None and other.grad is not None
    assert_close(parameter.grad[list(SOME)], other.grad, atol=0, rtol=0)
    assert parameter.grad[3] == 0


def direction_of_shown(update: Update) -> Tensor:
    assert update.shown is not None
    return update.shown


PER_TASK: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("fixed", {"weights": [1, 2, 3, 4, 5]}, {"weights": [1, 2, 3, 5]}),
    ("stch", {"reference": [0, 0.1, 0.2, 9, 0.3]}, {"reference": [0, 0.1, 0.2, 0.3]}),
    ("famo", {"min_losses": [0, 0.1, 0.2, 9, 0.3]}, {"min_losses": [0, 0.1, 0.2, 0.3]}),
    ("upgrad", {"pref_vector": [1, 2, 3, 4, 5]}, {"pref_vector": [1, 2, 3, 5]}),
    (
        "uncertainty",
        {"kinds": ["regression", "classification", "regression", "regression", "classification"]},
        {"kinds": ["regression", "classification", "regression", "classification"]},
    ),
    ("krum", {"n_selected": 2}, {"n_selected": 2}),
]


@pytest.mark.parametrize(("name", "settings", "rest"), PER_TASK)
def test_settings_per_task_are_those_of_the_active_ones(
    name: str, settings: dict[str, Any], rest: dict[str, Any]
) -> None:
    weighting = active_of(name, **settings)
    choose(weighting, SOME)
    assert_same(stepped(weighting, SOME), stepped(made(name, 4, **rest), SOME))
    choose(weighting, ALL)
    assert_close(stepped(weighting, ALL)[0].isfinite().all(), torch.tensor(True))


FALLBACK: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    *((name, {}, (0, 1, 4)) for name, row in WEIGHTINGS.items() if row.requires_main),
    ("nash-mtl", {}, (3,)),
    ("krum", {}, (1, 3)),
    ("krum", {"n_selected": 4}, (1, 2, 3)),
    ("trimmed-mean", {"trim_number": 2}, (0, 1, 2, 3)),
    ("cosmos", {"weights": [1, 0, 0, 0, 0]}, (1, 2)),
]


@pytest.mark.parametrize(("name", "settings", "tasks"), FALLBACK)
def test_where_it_cannot_be_made_the_losses_are_summed(
    name: str, settings: dict[str, Any], tasks: tuple[int, ...]
) -> None:
    weighting = active_of(name, **settings)
    stepped(weighting)
    before = saved_and_loaded(weighting.full.state_dict())
    choose(weighting, tasks)
    assert weighting.acting == "equal"
    assert_same(stepped(weighting, tasks), stepped(made("equal", len(tasks)), tasks))
    update = weighting.update(step_of(FIVE[list(tasks)]))
    assert update.weights is update.direction is None
    choose(weighting, ALL)
    assert weighting.acting == name
    assert str(saved_and_loaded(weighting.full.state_dict())) == str(before)


@each_weighting
def test_every_choice_of_three_tasks_gives_finite_updates(name: str) -> None:
    """Where krum and trimmed mean fall back, and where shapes of tasks and parameters agree."""
    choices = [c for n in (1, 2, 3) for c in combinations(range(3), n)]
    fresh = [active_of(name, 3, 0) for _ in choices]
    going = active_of(name, 3, 0)
    for tasks, begun in zip(choices, fresh, strict=True):
        for weighting in (begun, going):
            choose(weighting, tasks)
            found = stepped(weighting, tasks, 2, THREE, LOSSES[:3])
            assert torch.stack(found).isfinite().all(), tasks
        choose(begun, (0, 1, 2))
        assert torch.stack(stepped(begun, (0, 1, 2), 2, THREE, LOSSES[:3])).isfinite().all()


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("tasks", [ALL, (0, 2, 4)])
@each_weighting
def test_restored_midway_it_goes_on_as_if_never_stopped(name: str, tasks: tuple[int, ...]) -> None:
    first = active_of(name, seed=5)
    stepped(first)
    choose(first, (1, 2, 4))
    stepped(first, (1, 2, 4))
    choose(first, tasks)
    for task in tasks[:2]:  # within an epoch
        step = step_of(FIVE[list(tasks)] + task)
        first.update(step)
        first.after_step(step.losses.detach() * 0.9)
    second = active_of(name, seed=5)
    choose(second, (0, 1, 2, 3))
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    assert second.active == tasks
    for _ in range(2):
        assert_same(stepped(second, tasks), stepped(first, tasks))
    for weighting in (first, second):
        choose(weighting, SOME)
    assert_same(stepped(second, SOME), stepped(first, SOME))


def test_a_state_of_other_tasks_is_refused() -> None:
    with pytest.raises(SettingError, match="`n_tasks` must be 5, as in the saved state, got 3"):
        active_of("equal", 3).load_state_dict(active_of("equal").state_dict())


@pytest.mark.parametrize("mask", [[False] * 5, [True] * 4, []])
def test_bad_masks_are_refused(mask: list[bool]) -> None:
    with pytest.raises(SettingError, match=r"`mask` must have 5 entries, .* not all of them"):
        active_of("equal").set_active(mask)


@pytest.mark.parametrize("name", ["equal", "mgda", "imtl", "moco"])
def test_what_is_shown_is_spread_over_all_tasks(name: str) -> None:
    weighting = active_of(name)
    for tasks in (SOME, ALL):
        choose(weighting, tasks)
        shown = weighting.update(step_of(FIVE[list(tasks)])).shown
        assert shown is not None and len(shown) == len(tasks)
        spread = weighting.spread(shown)
        assert spread[list(tasks)].tolist() == shown.tolist()
        assert spread.isnan().sum() == 5 - len(tasks)


@each_weighting
def test_no_graph_is_kept_between_steps(name: str) -> None:
    weighting = active_of(name)
    choose(weighting, SOME)
    stepped(weighting, SOME)
    tensors = [*weighting.buffers(), *weighting._before.values()]
    assert not any(tensor.requires_grad for tensor in tensors)


def test_a_step_needs_only_what_the_weighting_needs() -> None:
    weighting = active_of("equal")
    choose(weighting, SOME)
    losses = torch.ones(4, requires_grad=True)
    total = weighting.update(Step(losses)).total
    assert total is not None and total == 4
