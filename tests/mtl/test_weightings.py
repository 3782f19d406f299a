"""What all weightings have in common, and what is refused."""

import io
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from steps import J, direction_of, directions, made, step_of
from torch import Tensor
from torch.testing import assert_close

from taskdisc.errors import SettingError
from taskdisc.mtl.weightings import WEIGHTINGS, Needs, make_weighting
from taskdisc.mtl.weightings.base import Gradients, Step, Weighting

NAMES = list(WEIGHTINGS)
each_weighting = pytest.mark.parametrize("name", NAMES)

THREE = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
FOUR = torch.randn(4, 10, generator=torch.Generator().manual_seed(0)) + 0.3

SCALES = [1e-15, 1e-4, 1e4, 1e15]


@each_weighting
def test_a_row_is_complete(name: str) -> None:
    row = WEIGHTINGS[name]
    assert row.summary and row.summary[-1] != "."
    assert row.paper is None or row.paper.url.startswith("https://")
    assert isinstance(row.needs, Needs)
    for setting in row.settings.values():
        assert setting.keeps(setting.default, 3)
    assert isinstance(made(name, 3), Weighting)


def test_reading_the_table_imports_no_torch() -> None:
    code = "import taskdisc.mtl.weightings, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def length(gradient: Tensor) -> float:
    return float(torch.linalg.vector_norm(gradient))


# How many times its gradient the first step of a single task is, with the loss 2.
ALONE: dict[str, Callable[[Tensor], float]] = {
    "scale-invariant": lambda gradient: 1 / 2,
    "uncertainty": lambda gradient: 1 / 2,
    "revised-uncertainty": lambda gradient: 1 / 2,
    "cagrad": lambda gradient: 1.5,
    "fairgrad": lambda gradient: 1 / length(gradient),
    "moco": lambda gradient: 0.5 * 2 / length(gradient),
    "db-mtl": lambda gradient: 0.1 / 2,
    "auto-lambda": lambda gradient: 0.1 + 1e-4,
}


@pytest.mark.parametrize("gradient", [[3.0, 4.0, 0.0], [-1.0, 0.5, 2.0]])
@pytest.mark.parametrize(
    "name", [n for n in NAMES if WEIGHTINGS[n].least_tasks(WEIGHTINGS[n].defaults) == 1]
)
def test_one_task_is_plain_training(name: str, gradient: list[float]) -> None:
    jacobian = torch.tensor([gradient])
    (direction,) = directions(made(name, 1), jacobian, losses=[2.0])
    assert bool(WEIGHTINGS[name].one_task) == (name in ALONE)
    factor = ALONE[name](jacobian) if name in ALONE else 1.0
    assert_close(direction, factor * jacobian[0], atol=1e-5, rtol=1e-5)


def test_weightings_that_need_more_tasks() -> None:
    found = {n: r.least_tasks(r.defaults) for n, r in WEIGHTINGS.items()}
    assert {n: k for n, k in found.items() if k > 1} == {
        "nash-mtl": 2,
        "krum": 3,
        "trimmed-mean": 3,
    }


# These draw task by task.
IN_DRAWN_ORDER = {"random", "pcgrad", "gradvac"}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in IN_DRAWN_ORDER])
def test_order_of_tasks_does_not_matter(name: str) -> None:
    losses = [1.0, 2.0, 0.5, 1.5]
    expected = directions(made(name, 4), FOUR, losses, n_steps=3)
    for order in list(permutations(range(4)))[1::5]:
        main = order.index(0)
        permuted = [losses[i] for i in order]
        found = directions(made(name, 4, main), FOUR[list(order)], permuted, main, n_steps=3)
        assert_close(found, expected, atol=1e-3, rtol=1e-3)


DEGENERATE = {
    "zero": torch.zeros(3, 3),
    "duplicate": torch.stack([THREE[0], THREE[1], THREE[1]]),
    "dependent": torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]]),
    "opposite": torch.tensor([[1.0, 2, 3], [-1, -2, -3], [2, 4, 6]]),
    "one zero": torch.tensor([[1.0, 2, 3], [0, 0, 0], [2, 5, 6]]),
    "main zero": torch.tensor([[0.0, 0, 0], [1, 2, 3], [2, 5, 6]]),
    "unequal scales": THREE * torch.tensor([[1e-15], [1.0], [1e15]]),
    "one parameter": THREE[:, :1],
}


@each_weighting
def test_degenerate_gradients_give_finite_updates(name: str) -> None:
    found = {
        case: torch.stack(directions(made(name, 3), jacobian, n_steps=4))
        for case, jacobian in DEGENERATE.items()
    }
    assert [case for case, updates in found.items() if not updates.isfinite().all()] == []
    assert not found["zero"].any()


@each_weighting
def test_extreme_losses_give_finite_updates(name: str) -> None:
    for losses in ([0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [1e15, 1e-15, 1.0]):
        found = torch.stack(directions(made(name, 3), THREE, losses, n_steps=6))
        assert found.isfinite().all(), losses


@pytest.mark.parametrize("name", [n for n in NAMES if "scale" not in WEIGHTINGS[n].limits])
def test_gradients_of_any_scale_give_finite_updates(name: str) -> None:
    for scale in (SCALES[0], SCALES[-1]):
        found = torch.stack(directions(made(name, 4), FOUR * scale, n_steps=6))
        assert found.isfinite().all(), scale
        assert found.any(dim=1).all(), scale


def test_modo_stands_still_with_long_gradients() -> None:
    found = torch.stack(directions(made("modo", 4), FOUR * 1e15))
    assert not found.any()
    assert "scale" in WEIGHTINGS["modo"].limits


def test_ol_aux_overflows_with_long_gradients() -> None:
    found = torch.stack(directions(made("ol-aux", 4), FOUR * 1e15, n_steps=6))
    assert found[:5].isfinite().all() and not found[5].isfinite().any()
    assert "scale" in WEIGHTINGS["ol-aux"].limits


def test_limits_are_those_that_are_tested() -> None:
    found = {(name, limit) for name, row in WEIGHTINGS.items() for limit in row.limits}
    assert found == {("modo", "scale"), ("ol-aux", "scale")}


# What these do depends on the gradients' size, as their papers have it: step sizes of weights,
# constants beside squared norms, bounds, or gradients brought to the losses' size.
BY_SIZE = {
    "nash-mtl",
    "fairgrad",
    "excess-mtl",
    "moco",
    "modo",
    "sdmgrad",
    "pcd",
    "auto-lambda",
}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in BY_SIZE])
def test_directions_grow_with_the_gradients(name: str) -> None:
    (expected,) = directions(made(name, 4), FOUR)
    for scale in SCALES:
        (found,) = directions(made(name, 4), FOUR * scale)
        assert_close(found / scale, expected, atol=1e-4, rtol=1e-3)


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize("n_before", [0, 5])
@each_weighting
def test_restored_weightings_go_on_as_if_never_stopped(name: str, n_before: int) -> None:
    losses = [1.0, 2.0, 0.5, 1.5]
    first = made(name, 4, seed=5)
    directions(first, FOUR, losses, n_steps=n_before)
    second = made(name, 4, seed=5)
    second.load_state_dict(saved_and_loaded(first.state_dict()))
    # a restored state can be saved before its first step
    third = made(name, 4, seed=5)
    third.load_state_dict(saved_and_loaded(second.state_dict()))
    changed = [0.7, 2.1, 0.6, 0.9]
    expected = directions(first, FOUR.flip(1), changed, n_steps=3)
    for restored in (second, third):
        found = directions(restored, FOUR.flip(1), changed, n_steps=3)
        assert_close(found, expected, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["excess-mtl", "nash-mtl", "famo", "gradvac", "dwa"])
def test_a_saved_state_stays_as_it_was(name: str) -> None:
    weighting = made(name, 3)
    directions(weighting, THREE)
    state = weighting.state_dict()
    before = saved_and_loaded(state)
    directions(weighting, FOUR[:3, :3], [0.5, 0.6, 0.7], n_steps=2)
    assert str(state) == str(before)


@pytest.mark.parametrize("name", ["gradvac", "famo", "uncertainty", "gradnorm", "equal"])
def test_a_state_of_other_tasks_is_refused(name: str) -> None:
    first = made(name, 4)
    directions(first, FOUR)
    with pytest.raises((SettingError, RuntimeError), match=r"`n_tasks` must be 4|size mismatch"):
        made(name, 3).load_state_dict(first.state_dict())


@each_weighting
def test_the_same_seed_gives_the_same_updates(name: str) -> None:
    expected = directions(made(name, 4, seed=3), FOUR, n_steps=4)
    torch.rand(5)
    assert_close(directions(made(name, 4, seed=3), FOUR, n_steps=4), expected, atol=0, rtol=0)


@pytest.mark.parametrize("name", ["random", "pcgrad", "gradvac", "graddrop"])
def test_another_seed_or_step_draws_anew(name: str) -> None:
    assert WEIGHTINGS[name].random
    runs = [torch.stack(directions(made(name, 4, seed=s), FOUR, n_steps=8)) for s in range(2)]
    assert not torch.equal(runs[0], runs[1])
    assert len({tuple(row) for row in runs[0].tolist()}) > 1


@each_weighting
def test_global_randomness_is_untouched(name: str) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    directions(made(name, 4), FOUR, n_steps=2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]
    assert random.getstate() == before[2]


@each_weighting
def test_an_update_says_one_thing_and_keeps_no_graph(name: str) -> None:
    step = step_of(FOUR)
    update = made(name, 4).update(step)
    assert update.weights is None or update.direction is None
    assert not all(part is None for part in (update.total, update.weights, update.direction))
    for part in (update.weights, update.direction, update.shown):
        assert part is None or not part.requires_grad
    if update.total is not None:
        assert update.total.requires_grad and update.total.ndim == 0
    needs_losses_only = WEIGHTINGS[name].needs is Needs.LOSSES
    assert not needs_losses_only or update.weights is update.direction is None


@each_weighting
def test_only_what_is_needed_is_computed(name: str) -> None:
    def never() -> Tensor:
        raise AssertionError("computed")

    needs = WEIGHTINGS[name].needs
    step = step_of(FOUR)
    if needs is Needs.LOSSES:
        step = Step(step.losses)
    elif needs is Needs.GRAMIAN:
        step = Step(step.losses, Gradients(never, lambda: FOUR @ FOUR.T))
    elif needs is Needs.JACOBIAN:
        step = Step(step.losses, step.gradients)
    elif needs is Needs.TWO_BATCHES:
        step = Step(step.losses, step.gradients, step.second)
    made(name, 4).update(step)


@pytest.mark.parametrize("name", ["uncertainty", "revised-uncertainty", "imtl-l", "imtl"])
def test_learned_weightings_have_parameters(name: str) -> None:
    weighting = made(name, 2)
    step = step_of(J, [1.0, 5.0])
    total = weighting.update(step).total
    assert total is not None
    total.backward()
    (parameter,) = weighting.parameters()
    assert parameter.grad is not None and parameter.grad.abs().min() >= 0
    assert parameter.grad[0] != parameter.grad[1]


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("uncertainty", "revised-uncertainty", "imtl-l", "imtl")]
)
def test_other_weightings_have_none(name: str) -> None:
    weighting = made(name, 3)
    directions(weighting, THREE, n_steps=2)
    assert not list(weighting.parameters())


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("pcgard", {}, "did you mean 'pcgrad'"),
    ("pcd", {}, "`main` must name the main task"),
    ("cosine-weighted", {}, "`main` must name the main task"),
    ("auto-lambda", {}, "`main` must name the main task"),
    ("equal", {"main": 3}, "`main` must be the number of a task, 0 to 2, got 3"),
    ("equal", {"main": -1}, "`main` must be"),
    ("equal", {"n_tasks": 0}, "`n_tasks` must be at least 1"),
    ("random", {"seed": -1}, "`seed` must be at least 0, got -1"),
    ("nash-mtl", {"n_tasks": 1}, "`n_tasks` must be at least 2"),
    ("krum", {"n_byzantine": 1}, "`n_tasks` must be at least 4"),
    ("trimmed-mean", {"trim_number": 2}, "`n_tasks` must be at least 5"),
    ("krum", {"n_selected": 4}, "`n_selected` of weighting 'krum'.* at most the 3 tasks"),
    ("equal", {"weights": [1, 1, 1]}, "`weights` is not a setting .* it has no settings"),
    ("cagrad", {"C": 0.5}, "`C` is not a setting .* did you mean 'c'"),
    ("cagrad", {"c": -1}, r"`c` of weighting 'cagrad' must be a number in \[0, inf\), got -1"),
    ("cagrad", {"c": "big"}, "got 'big'"),
    ("cagrad", {"c": float("nan")}, "got nan"),
    ("cagrad", {"c": True}, "got True"),
    ("dwa", {"temperature": 0}, r"must be a number in \(0, inf\), got 0"),
    ("pcd", {"main": 0, "beta": 1}, r"`beta` .* in \[0, 1\), got 1"),
    ("fixed", {"weights": [1, 2]}, "`weights` .* a list of 3 numbers, one for each task"),
    ("fixed", {"weights": 2}, "got 2"),
    ("cosmos", {"weights": [0, 0, 0]}, "not all of them 0"),
    ("graddrop", {"leak": [0, 1, 2]}, "of at least 0 and at most 1, one for each task"),
    ("stch", {"weights": [1, 1, -1]}, "of at least 0"),
    ("uncertainty", {"kinds": ["regression"]}, "a list of 3 words among regression, class"),
    ("uncertainty", {"kinds": ["regression"] * 2 + ["x"]}, "`kinds`"),
    ("aligned-mtl", {"scale_mode": "max"}, "one of min, median, rmse, got 'max'"),
    ("mgda", {"max_iters": 1.5}, "a whole number of at least 1, got 1.5"),
    ("mgda", {"max_iters": None}, "got None"),
    ("ol-aux", {"main": 0, "log": 1}, "true or false, got 1"),
    ("cr-mogm", {"of": "Krum"}, "one of MGDA"),
]


@pytest.mark.parametrize(("name", "given", "match"), BAD)
def test_bad_input_is_refused(name: str, given: dict[str, Any], match: str) -> None:
    with pytest.raises(SettingError, match=match):
        make_weighting(name, **{"n_tasks": 3, **given})


@pytest.mark.parametrize(
    ("name", "settings", "extra"),
    [
        ("cagrad", {}, "cagrad"),
        ("nash-mtl", {}, "nash_mtl"),
        ("fairgrad", {}, "fairgrad"),
        ("upgrad", {}, "quadprog_projector"),
        ("dualproj", {}, "quadprog_projector"),
        ("cr-mogm", {"of": "UPGrad"}, "quadprog_projector"),
    ],
)
def test_missing_solver_is_named_with_its_cure(
    name: str, settings: dict[str, Any], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchjd._mixins.find_spec", lambda package: None)
    cure = rf'weighting \'{name}\' .*: pip install "torchjd\[{extra}\]"\.$'
    with pytest.raises(SettingError, match=cure):
        make_weighting(name, 2, **settings)
    assert name == "cr-mogm" or WEIGHTINGS[name].extra == extra


@pytest.mark.parametrize("name", ["mgda", "config", "modo", "auto-lambda"])
def test_a_step_without_what_is_needed_is_refused(name: str) -> None:
    losses = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="must be given to a weighting that needs it"):
        made(name, 2).update(Step(losses))


def test_families_agree_where_they_meet() -> None:
    step = step_of(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    for name in ("pcgrad", "gradvac", "cosine-unweighted", "projection", "orthogonal"):
        direction = direction_of(made(name, 2).update(step), step)
        assert_close(direction, torch.ones(2))
