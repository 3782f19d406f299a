"""The trainer: known answers, what reaches which parameter, resuming, faults, several devices."""

import gc
import json
import os
import pickle
import signal
import tempfile
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from training import SPLIT, finite, fit, images, module, moved, row, run, tasks

from taskdisc.errors import ImageSetError, RunFailedError, RunFolderError, SettingError
from taskdisc.mtl.architectures.hard_sharing import HardSharing
from taskdisc.mtl.backbones import make_backbone
from taskdisc.mtl.data import Batches
from taskdisc.mtl.module import ORDER, MultiTaskModule, on_device
from taskdisc.mtl.tasks import Task
from taskdisc.mtl.train import BEST, EPOCHS, LAST, best_epoch, check_checkpoint, trainer_of
from taskdisc.mtl.weightings import WEIGHTINGS, Needs
from taskdisc.mtl.weightings.base import Step, Update

OF_EACH_NEED = {row.needs: name for name, row in reversed(WEIGHTINGS.items())}
"""The first weighting of each kind."""

# ---- known answers -------------------------------------------------------------------------


def plain_loss(outputs: Sequence[Tensor], positions: Tensor, of: Sequence[Task]) -> Tensor:
    """The weighted sum of the tasks' losses over the images that each of them knows."""
    total = torch.zeros(())
    for output, task in zip(outputs, of, strict=True):
        labels = torch.from_numpy(task.labels[positions.numpy()])
        known = torch.from_numpy(task.known[positions.numpy()])
        loss = {
            "classification": F.cross_entropy,
            "binary": F.binary_cross_entropy_with_logits,
            "regression": F.mse_loss,
        }[task.kind]
        total = total + task.weight * loss(output[known], labels[known])
    return total


def plainly_trained(
    made: MultiTaskModule, optimizer: torch.optim.Optimizer, n_devices: int = 1
) -> None:
    """A loop over the module's own batches, by nothing but PyTorch."""
    pixels = torch.from_numpy(images().images).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (
        f(pixels[SPLIT.train], dim=(0, 2, 3))[:, None, None]
        for f in (torch.mean, lambda x, dim: torch.std(x, dim, correction=0))
    )
    settings = made.training_settings
    for epoch in range(settings.epochs):
        seed = [made.seed, ORDER, epoch]
        parts = [
            Batches(SPLIT.train, made.tasks, settings.batch, seed, rank, n_devices)
            for rank in range(n_devices)
        ]
        for together in zip(*parts, strict=True):
            losses = []
            for positions in together:
                outputs = made.network((pixels[positions] - mean) / deviation)
                losses.append(plain_loss(outputs, positions, made.tasks))
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()


CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "weights": {"digit": {"weight": 0.3}, "bright": {"weight": 2.0}},
    "few labels": {"digit": {"labelled": 12}, "bright": {"labelled": 5}},
}


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("change", CHANGES)
def test_equal_weights_are_a_plain_loop(change: str, optimizer: str) -> None:
    training = {"epochs": 2, "batch": 20, "optimizer": optimizer, "weight_decay": 0.01}
    settings, of = row({**training, "lr": 1e-3}), tasks(**CHANGES[change])
    made, plain = module(settings, of), module(settings, of)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    more = {"momentum": 0.9} if optimizer == "sgd" else {}
    rule = kind[optimizer](plain.network.parameters(), lr=1e-3, weight_decay=0.01, **more)
    assert all(moved(made, lambda: fit(made)).values())
    plainly_trained(plain, rule)
    assert_close(made.network.state_dict(), plain.network.state_dict())


def test_a_head_has_a_learning_rate_of_its_own() -> None:
    settings, of = row({"epochs": 2, "lr": 1e-3, "head_lr": {"parity": 10.0}}), tasks()
    made, plain = module(settings, of), module(settings, of)
    fast = list(plain.network.heads[1].parameters())
    slow = [p for p in plain.network.parameters() if not any(p is q for q in fast)]
    groups = [{"params": slow, "lr": 1e-3}, {"params": fast, "lr": 1e-2}]
    fit(made)
    plainly_trained(plain, torch.optim.Adam(groups))
    assert_close(made.network.state_dict(), plain.network.state_dict())


def test_the_learning_rate_falls_by_half_a_cosine() -> None:
    made = module(row({"epochs": 4, "lr": 0.01, "head_lr": {"parity": 10.0}, "decay": "cosine"}))
    rates: list[list[float]] = []
    made.on_train_batch_end = lambda *_: rates.append(  # type: ignore[method-assign]
        [group["lr"] for group in cast(torch.optim.Optimizer, made.optimizers()).param_groups]
    )
    fit(made)
    by_epoch = np.array(rates).reshape(4, -1, 4)
    expected = np.array([1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]) * 0.01
    np.testing.assert_allclose(by_epoch[:, :, 0], expected[:, None].repeat(2, 1))
    np.testing.assert_allclose(by_epoch[:, :, 1], 10 * by_epoch[:, :, 0])


def test_the_last_epoch_is_tested_where_that_is_asked_for(tmp_path: Path) -> None:
    training = {"epochs": 3, "lr": 0.01, "epoch": "last"}
    unseen = tasks(digit={"labelled": 30, "labelled_validation": 0})
    found = run(tmp_path, row(training), unseen)  # no label says which epoch is best
    assert found.epoch == 3 and [record["score"] for record in found.history] == [None] * 3
    best, last = (torch.load(tmp_path / name, weights_only=True) for name in (BEST, LAST))
    assert_close(best["state_dict"], last["state_dict"])


def weighting_of(made: MultiTaskModule, rule: Callable[[Step], Update]) -> MultiTaskModule:
    """The module with another rule in place of its weighting."""
    made.weighting.full.update = rule
    return made


ONES = torch.ones(3)
ALIKE: dict[str, Callable[[Step], Update]] = {
    "weights": lambda step: Update(weights=ONES),
    "direction": lambda step: Update(direction=step.jacobian.sum(0)),
    "total and weights": lambda step: Update(total=step.losses.sum(), weights=ONES),
}


@pytest.mark.parametrize("form", ALIKE)
@pytest.mark.parametrize(
    ("architecture", "route"),
    [
        ("hard-sharing", "jacobian"),
        ("hard-sharing", "gramian"),
        ("mtan", "jacobian"),
        ("deep-relationship", "gramian"),
    ],
)
def test_weights_of_one_are_the_sum(architecture: str, form: str, route: str) -> None:
    training = {"gradients": route, "optimizer": "sgd", "lr": 0.01}
    plain = fit(module(row(training, architecture=architecture)))
    settings = row(training, architecture=architecture, weighting="pcgrad")
    made = fit(weighting_of(module(settings), ALIKE[form]))
    assert_close(made.network.state_dict(), plain.network.state_dict())


@pytest.mark.parametrize("route", ["jacobian", "gramian"])
def test_weights_are_for_what_is_shared_and_heads_follow_their_tasks(route: str) -> None:
    settings = row({"gradients": route, "optimizer": "sgd", "lr": 0.1, "batch": 72})
    made, plain = module(settings), module(settings)
    of_tasks = [torch.zeros(p.shape) for p in plain.network.parameters()]
    positions = next(iter(Batches(SPLIT.train, made.tasks, 72, [0, ORDER, 0])))
    outputs = plain.network(plain.prepared(positions))
    for weight, task, output in zip([2.0, 0.0, 0.5], plain.tasks, outputs, strict=True):
        loss = plain_loss([output], positions, [task])
        found = torch.autograd.grad(
            loss, list(plain.network.parameters()), allow_unused=True, retain_graph=True
        )
        for total, gradient, (name, _) in zip(
            of_tasks, found, plain.network.named_parameters(), strict=True
        ):
            if gradient is not None:
                total += gradient * (1.0 if name.startswith("heads") else weight)
    weights = torch.tensor([2.0, 0.0, 0.5])
    fit(weighting_of(made, lambda step: Update(weights=weights)))
    for now, before, gradient in zip(
        made.network.parameters(), plain.network.parameters(), of_tasks, strict=True
    ):
        assert_close(now, before - 0.1 * gradient)


@pytest.mark.parametrize(
    "weighting", [name for name, row in WEIGHTINGS.items() if row.needs is Needs.GRAMIAN]
)
def test_both_routes_to_the_gramian_train_alike(weighting: str) -> None:
    found = []
    for route in ("jacobian", "gramian"):
        settings = row({"gradients": route, "optimizer": "sgd", "lr": 1e-3}, weighting=weighting)
        made = fit(module(settings))
        assert made.shared.gramian_alone == (route == "gramian")
        found.append(made)
    assert_close(*(made.network.state_dict() for made in found), atol=1e-4, rtol=1e-3)
    assert_close(*(torch.tensor(made.history[0]["cosines"]) for made in found))


def test_cosines_and_conflicts_are_those_of_the_first_batches() -> None:
    settings = row({"optimizer": "sgd", "lr": 1e-9, "probes": 1, "batch": 36})
    made = module(settings)
    positions = next(iter(Batches(SPLIT.train, made.tasks, 36, [0, ORDER, 0])))
    outputs = made.network(made.prepared(positions))
    rows = []
    for task, output in zip(made.tasks, outputs, strict=True):
        loss = plain_loss([output], positions, [task])
        parts = torch.autograd.grad(loss, made.shared.parameters, retain_graph=True)
        rows.append(torch.cat([part.flatten() for part in parts]))
    cosines = F.cosine_similarity(torch.stack(rows)[:, None], torch.stack(rows), dim=2)
    (record,) = fit(made).history
    assert_close(torch.tensor(record["cosines"]), cosines)
    pairs = cosines[[0, 0, 1], [1, 2, 2]]
    assert record["conflicts"] == pytest.approx(float((pairs < 0).double().mean()))


# ---- tasks that are dropped or have few labels ---------------------------------------------


def active_in(made: MultiTaskModule, *epochs: Sequence[int]) -> MultiTaskModule:
    """The module with these tasks active in its epochs."""
    made.schedule.active = lambda epoch: np.isin(range(3), epochs[epoch - 1])
    return made


@pytest.mark.parametrize("architecture", ["hard-sharing", "deep-relationship", "cgc"])
@pytest.mark.parametrize("weighting", ["equal", "uncertainty", "pcgrad", "imtl", "moco", "modo"])
def test_a_dropped_task_stands_still(
    architecture: str, weighting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The epoch before leaves momentum, and weights decay.
    training = {"epochs": 2, "optimizer": "adamw", "weight_decay": 0.1, "lr": 0.01}
    settings = row(training, architecture=architecture, weighting=weighting)
    made = active_in(module(settings), (0, 1, 2), (0, 2))
    before: dict[str, Tensor] = {}
    start = made.on_train_epoch_start

    def starting() -> None:
        start()
        before.update({name: p.detach().clone() for name, p in made.named_parameters()})

    monkeypatch.setattr(made, "on_train_epoch_start", starting)
    fit(made)
    still = {name for name, p in made.named_parameters() if torch.equal(p, before[name])}
    own = {f"network.{name}" for name, reached in made.reached.items() if reached == [1]}
    assert own and still == own
    for name, p in made.weighting.full.named_parameters():
        assert (p == before[f"weighting.full.{name}"]).tolist() == [False, True, False]


def test_images_that_a_task_does_not_know_change_nothing_for_it() -> None:
    of = tasks(parity={"labelled": 6})
    settings = row({"epochs": 2, "batch": 20}, architecture="independent")
    made = fit(module(settings, of))
    assert all(finite(record) for record in made.history)
    # A network of its own sees only the images with labels, whatever the others look like.
    unknown = np.setdiff1d(SPLIT.train, np.flatnonzero(of[1].known))
    changed = images().images.copy()
    changed[unknown] = 255 - changed[unknown]
    other = module(settings, of)
    other._inputs = changed
    fit(other)
    for name, reached in made.reached.items():
        same = torch.equal(other.network.get_parameter(name), made.network.get_parameter(name))
        assert same == (reached == [1])


# ---- going on ------------------------------------------------------------------------------


def killed_in(folder: Path, epoch: int, settings: Any, **how: Any) -> None:
    """A training that is killed in the middle of an epoch, from 1, without a chance to clean up."""

    def act() -> None:
        step = MultiTaskModule.training_step

        def deadly(self: MultiTaskModule, positions: Tensor, number: int) -> None:
            if self.current_epoch + 1 == epoch and number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            step(self, positions, number)

        MultiTaskModule.training_step = deadly
        run(folder, settings, **how)

    process = get_context("fork").Process(target=act)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


GROWING = {"name": "adaptive-sharing", "grow_every": 1, "branch_cost": 0.0}
DST = {"name": "dst", "depth": 0.0, "samples": 0.0, "regulariser": 0.0} | {
    "incompleteness": 0.2,
    "stagnancy": 0.8,
    "keep_main": False,
}
"""Goes by the losses alone."""

RESUMED: dict[str, dict[str, Any]] = {
    "equal": {},
    "sgd": {"training": {"optimizer": "sgd"}},
    "uncertainty": {"weighting": "uncertainty"},
    "dwa": {"weighting": "dwa"},
    "famo": {"weighting": "famo"},
    "gradvac": {"weighting": "gradvac"},
    "excess-mtl": {"weighting": "excess-mtl"},
    "moco": {"weighting": "moco"},
    "modo": {"weighting": "modo"},
    "auto-lambda": {"weighting": "auto-lambda"},
    "dst": {"schedule": DST, "weighting": "uncertainty"},
    "drop": {
        "schedule": {"name": "random-drop", "keep_main": False},
        "weighting": {"name": "moco"},
    },
    "growing": {"architecture": GROWING, "weighting": "moco"},
    "relationship": {"architecture": "deep-relationship", "weighting": "gradnorm"},
    "normalised": {"backbone": {"name": "convnet", "width": 4}, "weighting": "modo"},
    "dropout": {"backbone": "lenet", "weighting": "pcgrad"},
    "bf16": {"training": {"precision": "bf16-mixed"}, "weighting": "pcgrad"},
    "last": {"training": {"epoch": "last", "decay": "cosine"}},
}


@pytest.fixture
def dropout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the LeNet drop features, for the configuration of that name."""
    if request.node.callspec.params["name"] != "dropout":
        return
    from taskdisc.mtl.backbones import small

    lenet = small.lenet

    def dropping(shape: tuple[int, ...]) -> tuple[list[nn.Module], int]:
        stages, n_convolutional = lenet(shape)
        return [*stages[:-1], nn.Sequential(nn.Dropout(0.5), stages[-1])], n_convolutional

    monkeypatch.setattr(small, "lenet", dropping)


@pytest.mark.usefixtures("dropout")
@pytest.mark.parametrize("name", RESUMED)
def test_a_killed_training_goes_on_to_the_same_result(name: str, tmp_path: Path) -> None:
    methods = dict(RESUMED[name])
    training = {"epochs": 4, "lr": 3e-3, **methods.pop("training", {})}
    settings = row(training, **methods)
    # From this seed DST drops a task in the last epoch, as of the losses before the kill.
    straight = run(tmp_path / "straight", settings, seed=1)
    killed_in(tmp_path / "killed", 3, settings, seed=1)
    assert len(check_checkpoint(tmp_path / "killed" / LAST)["history"]) == 2
    # A folder may be moved in between.
    resumed = run((tmp_path / "killed").rename(tmp_path / "moved"), settings, seed=1)
    assert json.dumps(resumed.history) == json.dumps(straight.history)
    assert (resumed.test, resumed.epoch) == (straight.test, straight.epoch)
    lines = [(tmp_path / folder / EPOCHS).read_text() for folder in ("straight", "moved")]
    assert lines[0] == lines[1]
    assert [line.split(",")[0] for line in lines[0].split()] == ["epoch", "1", "2", "3", "4"]
    again = run(tmp_path / "moved", settings, seed=1)
    assert (again.history, again.test) == (resumed.history, resumed.test)


@pytest.mark.parametrize("architecture", ["hard-sharing", "mtan", "ple", "label-reuse"])
def test_frozen_stages_are_the_same_computed_once_or_in_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(make_backbone("convnet", (3, 16, 16), width=4).state_dict(), weights)
    backbone = {"name": "convnet", "width": 4, "mode": "last", "weights": str(weights)}
    settings = row({"epochs": 2}, backbone=backbone, architecture=architecture)
    once = run(tmp_path / "once", settings)
    monkeypatch.setattr("taskdisc.mtl.train.MOST_FEATURES", 0)
    every = run(tmp_path / "every", settings)
    assert once.n_parameters == every.n_parameters
    for first, second in zip(once.history, every.history, strict=True):
        assert first["losses"] == pytest.approx(second["losses"], rel=1e-4)
    saved = torch.load(tmp_path / "every" / BEST, weights_only=True)["state_dict"]
    assert sum(v.numel() for n, v in saved.items() if n.startswith("network.")) < 6000


def test_an_architecture_without_a_stage_to_train_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(make_backbone("lenet", (3, 16, 16)).state_dict(), weights)
    backbone = {"name": "lenet", "mode": "fixed", "weights": str(weights)}
    assert module(row(backbone=backbone)).network.heads
    with pytest.raises(SettingError, match="architecture 'mtan' must have a stage of the backbone"):
        module(row(backbone=backbone, architecture="mtan"))


# ---- what goes wrong -----------------------------------------------------------------------


def test_labels_that_are_no_numbers_name_task_step_and_epoch(tmp_path: Path) -> None:
    of = tasks()
    labels = of[2].labels.copy()
    labels[SPLIT.train[0]] = np.inf
    of[2] = replace(of[2], labels=labels)
    with pytest.raises(
        RunFailedError, match=r"the loss of task 'bright' must .* in step [12] of epoch 1"
    ):
        run(tmp_path / "run", row(), of)
    assert not (tmp_path / "run" / LAST).exists()


@pytest.mark.parametrize("name", [n for n in WEIGHTINGS if WEIGHTINGS[n].needs is not Needs.LOSSES])
def test_what_a_weighting_cannot_solve_is_told(tmp_path: Path, name: str) -> None:
    of = tasks()
    of[2] = replace(of[2], labels=np.full_like(of[2].labels, 1e30))
    with pytest.raises(
        RunFailedError, match=r"must be .* numbers?, got NaN or infinity .* epoch 1"
    ):
        run(tmp_path / "run", row(weighting=name), of)


def test_a_step_too_long_is_told_before_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(RunFailedError, match=r"must be .* numbers?, got NaN or infinity"):
        run(tmp_path / "run", row({"lr": 1e30, "epochs": 3}))
    assert not (tmp_path / "run" / LAST).exists()
    # A single step per epoch: the loss before it is fine.
    with pytest.raises(
        RunFailedError, match=r"the weights .* must be finite .* after step 1 of epoch 1"
    ):
        run(
            tmp_path / "other",
            row({"lr": 1e38, "batch": 72, "optimizer": "sgd"}),
            tasks(digit={"weight": 1e6}),
        )
    assert not (tmp_path / "other" / LAST).exists()


def test_the_epoch_before_a_fault_can_be_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = row({"epochs": 3})
    straight = run(tmp_path / "straight", settings)
    losses = MultiTaskModule.losses

    def bad(self: MultiTaskModule, *args: Any) -> Tensor:
        factor = torch.nan if self.current_epoch == 2 else 1.0
        return losses(self, *args) * torch.tensor([1.0, factor, 1.0])

    with monkeypatch.context() as patch:
        patch.setattr(MultiTaskModule, "losses", bad)
        with pytest.raises(
            RunFailedError, match=r"task 'parity' .* in step 1 of epoch 3; the check"
        ):
            run(tmp_path / "run", settings)
    assert len(check_checkpoint(tmp_path / "run" / LAST)["history"]) == 2
    resumed = run(tmp_path / "run", settings)
    assert (resumed.history, resumed.test) == (straight.history, straight.test)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"training": {"lr": 0.1}}, r"`training.lr` is 0.1 here and 0.001 there"),
        ({"weighting": "uncertainty"}, r"`weighting.name` is 'uncertainty' here and 'equal' there"),
        ({"weighting": {"name": "equal"}, "schedule": "dst"}, "`schedule.name` is 'dst' here"),
        ({"backbone": {"name": "lenet", "hidden": 8}}, "`backbone.hidden` is 8 here and None"),
        ({"seed": 1}, "`seed` is 1 here and 0 there"),
        ({"main": None}, "`main` is None here and 0 there"),
        ({"of": {"parity": {"weight": 0.5}}}, "`tasks.parity.weight` is 0.5 here and 1.0 there"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    other: dict[str, Any], message: str, once: Path
) -> None:
    methods = dict(other)
    how = {key: methods.pop(key) for key in ("seed", "main") if key in methods}
    of = tasks(**methods.pop("of", {}))
    with pytest.raises(SettingError, match=message):
        run(once, row(methods.pop("training", None), **methods), of, **how)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of one epoch."""
    folder = tmp_path_factory.mktemp("once") / "run"
    run(folder, row())
    return folder


class Shell:
    """Pickled, it is a call of the shell."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


FOREIGN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "text": lambda content: b"weights",
    "torn": lambda content: content[: len(content) // 2],
    "torn at the end": lambda content: content[:-30],
    "code": lambda content: pickle.dumps({"taskdisc": Shell()}),
}


@pytest.mark.parametrize("file", [LAST, BEST])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_that_is_no_checkpoint_is_refused_and_not_executed(
    name: str, file: str, once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for checkpoint in (LAST, BEST):
        (tmp_path / checkpoint).write_bytes((once / checkpoint).read_bytes())
    (tmp_path / file).write_bytes(FOREIGN[name]((once / file).read_bytes()))
    with pytest.raises(RunFolderError, match=rf"{file} must be a checkpoint .* remove the check"):
        run(tmp_path, row())
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("value", [{"state_dict": {}}, [1, 2], torch.zeros(3)])
def test_a_checkpoint_of_another_program_is_refused(value: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / LAST)
    torch.save(value, tmp_path / BEST)
    with pytest.raises(RunFolderError, match=r"must be a checkpoint of a multi-task training"):
        run(tmp_path, row())


def without(task: Task, positions: np.ndarray) -> Task:
    """A task without labels at some positions."""
    labels = task.labels.copy()
    labels[positions] = -1 if labels.ndim == 1 else np.nan
    return replace(task, labels=labels)


@pytest.mark.parametrize("number", range(3))
def test_labels_that_are_missing_where_they_are_needed(number: int) -> None:
    of = tasks()
    of[number] = without(tasks()[number], SPLIT.train)
    with pytest.raises(ImageSetError, match=rf"task '{of[number].name}' must have labels among"):
        module(row(), of)
    of[number] = without(tasks()[number], SPLIT.validation)
    with pytest.raises(ImageSetError, match="must have labels enough for its metric"):
        module(row(), of, main=number)
    fitted = fit(module(row(), of, main=None))
    assert set(fitted.history[0]["validation"][number].values()) == {None}


@pytest.mark.parametrize(
    "weighting",
    ["equal", "uncertainty", "cosine-weighted", "pcgrad", "upgrad", "pcd", "imtl-g", "nash-mtl"],
)
def test_a_task_without_a_label_in_any_batch_harms_nothing(weighting: str) -> None:
    of = tasks()
    even = np.arange(0, 120, 2)
    of = [without(of[0], even), *(without(task, even + 1) for task in of[1:])]
    training = {"main_share": 1.0, "epoch": "last"}  # batches are of the main task's images alone
    made = fit(module(row(training, weighting=weighting), of))
    assert all(p.isfinite().all() for p in made.network.parameters())
    assert made.history[0]["losses"][1:] == [0, 0]


# ---- what it leaves for others -------------------------------------------------------------


def test_a_trained_backbone_goes_on_in_another_training(tmp_path: Path) -> None:
    run(tmp_path / "first", row({"epochs": 1}))
    weights = str(tmp_path / "first" / BEST)
    fixed = module(row(backbone={"name": "lenet", "mode": "fixed", "weights": weights}))
    trained = module(row())
    trained.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
    pixels = trained.prepared(torch.from_numpy(SPLIT.test))
    (frozen,) = fixed._frozen
    assert frozen is not None
    shared = cast(HardSharing, trained.network).shared.eval()
    assert_close(frozen(pixels), shared(pixels))


def test_a_network_without_a_backbone_for_all_leaves_none(tmp_path: Path) -> None:
    run(tmp_path / "first", row({"epochs": 1}, architecture="independent"))
    weights = str(tmp_path / "first" / BEST)
    with pytest.raises(SettingError, match="a checkpoint whose network has none for all tasks"):
        module(row(backbone={"name": "lenet", "mode": "fixed", "weights": weights}))


# ---- the chosen epoch ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "epoch"),
    [
        ([0.1, 0.3, 0.2], 2),
        ([0.3, 0.3], 1),
        ([None, 0.0], 2),
        ([None, -5.0, None], 2),
        ([None, None], 1),
        ([0.1, 0.1 + 1e-12], 2),
    ],
)
def test_the_best_epoch_is_the_first_of_the_highest_scores(
    scores: list[float | None], epoch: int
) -> None:
    assert best_epoch([{"score": score} for score in scores]) == epoch


@pytest.mark.parametrize("main", [None, 0])
def test_test_images_are_asked_for_once_at_the_chosen_epoch(
    main: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[int] = Counter()
    prepared = MultiTaskModule.prepared

    def counting(self: MultiTaskModule, positions: Tensor) -> Tensor:
        asked.update(positions.tolist())
        return prepared(self, positions)

    monkeypatch.setattr(MultiTaskModule, "prepared", counting)
    settings = row({"epochs": 5, "lr": 0.03})
    trained = run(tmp_path, settings, main=main)
    assert {asked[int(position)] for position in SPLIT.test} == {1}
    scores = [record["score"] for record in trained.history]
    assert scores.index(max(scores)) + 1 == trained.epoch < 5
    if main == 0:
        assert scores == [record["validation"][0]["accuracy"] for record in trained.history]
    # The figures are those of the weights of that epoch.
    made = module(settings)
    saved = torch.load(tmp_path / BEST, weights_only=True)
    assert saved["epoch"] + 1 == trained.epoch
    made.load_state_dict(saved["state_dict"])
    made.eval()
    outputs = made.network(prepared(made, torch.from_numpy(SPLIT.test)))
    digit = torch.from_numpy(made.tasks[0].labels[SPLIT.test])
    right = (outputs[0].argmax(1) == digit).double().mean()
    assert trained.test["digit"]["accuracy"] == pytest.approx(float(right))
    odd = torch.from_numpy(made.tasks[1].labels[SPLIT.test])
    right = ((outputs[1] > 0) == (odd > 0.5)).double().mean()
    assert trained.test["parity"]["accuracy"] == pytest.approx(float(right))
    bright = torch.from_numpy(made.tasks[2].labels[SPLIT.test])
    left = ((outputs[2] - bright) ** 2).sum() / ((bright - bright.mean()) ** 2).sum()
    assert trained.test["bright"]["r2"] == pytest.approx(1 - float(left.detach()), abs=1e-5)


# ---- several devices -----------------------------------------------------------------------


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts processes by fork, which takes no imports."""
    monkeypatch.setattr("taskdisc.mtl.train.SEVERAL", "ddp_fork_find_unused_parameters_true")


def each_rank(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Callable[[], list[dict[str, Any]]]:
    """Has every process write down with what it ends; gives what they wrote."""

    def write(self: MultiTaskModule) -> None:
        kept = {"state": self.state_dict(), "history": self.history}
        torch.save(kept, folder / f"{self.global_rank}.pt")

    monkeypatch.setattr(MultiTaskModule, "on_fit_end", write)
    return lambda: [torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pt"))]


@pytest.mark.usefixtures("forked")
def test_two_devices_average_their_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = row({"batch": 18, "epochs": 2, "optimizer": "sgd"})
    ends = each_rank(monkeypatch, tmp_path)
    trained = run(tmp_path / "run", settings, devices=2)
    first, second = ends()
    assert first["history"] == second["history"] == trained.history
    plain = module(settings)
    rule = torch.optim.SGD(plain.network.parameters(), lr=1e-3, momentum=0.9)
    plainly_trained(plain, rule, n_devices=2)
    for end in (first, second):
        found = {name: end["state"][f"network.{name}"] for name in plain.network.state_dict()}
        assert_close(found, plain.network.state_dict())


DEVICES: dict[str, dict[str, Any]] = {
    "states": {"weighting": "moco", "backbone": {"name": "convnet", "width": 4}},
    "growing": {"architecture": GROWING, "weighting": "gradvac"},
    "dropping": {"schedule": {"name": "dst", "keep_main": False}, "weighting": "uncertainty"},
    "two batches": {"weighting": "modo"},
    "look ahead": {"weighting": "auto-lambda"},
    "rerun": {"weighting": "famo"},
    "gramian": {"weighting": "pcgrad", "training": {"gradients": "gramian"}},
}


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("name", DEVICES)
def test_two_devices_end_alike(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = dict(DEVICES[name])
    settings = row({"batch": 12, "epochs": 3, **methods.pop("training", {})}, **methods)
    ends = each_rank(monkeypatch, tmp_path)
    run(tmp_path / "run", settings, devices=2)
    first, second = ends()
    assert first["history"] == second["history"]
    states = [str(end["state"]) for end in (first, second)]
    assert states[0] == states[1]
    for key, value in first["state"].items():
        if isinstance(value, Tensor):
            assert torch.equal(value, second["state"][key])


# ---- precision and devices -----------------------------------------------------------------


@pytest.mark.parametrize("weighting", OF_EACH_NEED.values())
@pytest.mark.parametrize("architecture", ["hard-sharing", "deep-relationship"])
def test_bfloat16_trains(architecture: str, weighting: str) -> None:
    training = {"precision": "bf16-mixed", "epochs": 2}
    made = fit(module(row(training, architecture=architecture, weighting=weighting)))
    assert all(finite(record) for record in made.history)


def halved(made: MultiTaskModule, scale: float) -> Any:
    """Train with half precision, from that scale; the scaler as it ends."""
    from lightning.pytorch.plugins.precision import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    fit(made, precision=None, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    return scaler


@pytest.mark.parametrize("route", ["jacobian", "gramian"])
@pytest.mark.parametrize("weighting", [*OF_EACH_NEED.values(), "moco", "famo"])
def test_half_precision_is_scaled_and_brought_back(weighting: str, route: str) -> None:
    # Gradients so short that half precision takes them for 0.
    of = tasks(**{task.name: {"weight": 1e-6} for task in tasks()})
    training = {"optimizer": "sgd", "lr": 1e4, "gradients": route, "weight_decay": 0.0}
    full = module(row(training, weighting=weighting), of)
    half = module(row(training, weighting=weighting), of)
    before = {name: p.detach().clone() for name, p in full.network.named_parameters()}
    fit(full)
    assert halved(half, 2.0**20).get_scale() == 2.0**20
    for name, p in half.network.named_parameters():
        expected = full.network.get_parameter(name) - before[name]
        assert torch.linalg.norm(p - before[name] - expected) <= 0.1 * torch.linalg.norm(expected)


@pytest.mark.parametrize("weighting", ["equal", "moco", "gradvac", "modo", "auto-lambda"])
def test_gradients_that_overflow_lower_the_scale_and_reach_no_weighting(weighting: str) -> None:
    made = module(row({"epochs": 4, "batch": 12}, weighting=weighting))
    assert halved(made, 2.0**25).get_scale() < 2.0**20
    assert all(finite(record) for record in made.history)
    for value in made.weighting.state_dict().values():
        assert not isinstance(value, Tensor) or bool(value.isfinite().all())
    assert made.history[-1]["losses"] != made.history[0]["losses"]


WAITING = {
    "aligned-mtl", "auto-lambda", "cr-mogm", "famo", "geometric", "gradvac", "imtl", "imtl-g",
    "krum", "mgda", "modo", "nash-mtl", "ol-aux", "pcd", "pcgrad", "sdmgrad",
}  # fmt: skip
"""Weightings whose own rules look at numbers, which waits for a GPU; most are torchjd's loops."""


class Looks(TorchDispatchMode):
    """Counts how often a number of a tensor is looked at."""

    n = 0

    def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += f.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select")
        return f(*args, **(kwargs or {}))


@pytest.mark.parametrize(("precision", "route"), [("32", "jacobian"), ("bf16-mixed", "gramian")])
def test_a_step_never_waits_but_where_a_weighting_does(
    precision: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = set()
    step = MultiTaskModule.training_step
    for weighting in WEIGHTINGS:
        looks = Looks()

        def counted(self: MultiTaskModule, positions: Tensor, number: int) -> None:
            if number == 0:  # where losses are checked
                return step(self, positions, number)
            with looks:  # noqa: B023
                return step(self, positions, number)

        monkeypatch.setattr(MultiTaskModule, "training_step", counted)
        # Adam looks at its own numbers on the CPU, but not on a GPU.
        training = {"optimizer": "sgd", "precision": precision, "gradients": route}
        fit(module(row(training, weighting=weighting)))
        if looks.n:
            waiting.add(weighting)
    assert waiting == WAITING


class Recorded:
    """Stands for Lightning's trainer, and remembers what it was made of."""

    last: dict[str, Any]

    def __init__(self, **settings: Any) -> None:
        Recorded.last = settings


@pytest.mark.parametrize(
    ("device", "devices", "expected"),
    [
        ("cpu", 1, ("cpu", 1, "auto")),
        ("auto", 1, ("auto", 1, "auto")),
        ("cuda", 1, ("gpu", 1, "auto")),
        ("cuda:3", 1, ("gpu", [3], "auto")),
        ("cuda", 4, ("gpu", 4, "ddp_spawn_find_unused_parameters_true")),
        ("auto", 2, ("auto", 2, "ddp_spawn_find_unused_parameters_true")),
    ],
)
def test_devices_as_lightning_takes_them(
    device: str,
    devices: int,
    expected: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lightning.pytorch.Trainer", Recorded)
    trainer_of(row(), tmp_path, device, devices, False)
    found = Recorded.last
    assert (found["accelerator"], found["devices"], found["strategy"]) == expected


def test_a_numbered_device_is_one() -> None:
    with pytest.raises(SettingError, match=r"`device` must be without a number .* 'cuda:1'"):
        trainer_of(row(), Path(), "cuda:1", 2, False)


def test_inputs_on_the_device_are_those_of_the_host() -> None:
    made = module(row())
    positions = torch.from_numpy(SPLIT.validation)
    host = made.prepared(positions)
    made._on_device = torch.from_numpy(images().images.copy())
    assert torch.equal(made.prepared(positions), host)
    made.on_fit_end()
    assert made._on_device is None


def test_inputs_go_to_the_device_in_parts(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2500, 16, 16, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        found = on_device(mapped, torch.device("cpu"))  # what torch holds is not traced
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert torch.equal(found, torch.from_numpy(pixels))
    assert most < 0.6 * pixels.nbytes
    floats = on_device(np.ones((3, 2), dtype=np.float32), torch.device("cpu"))
    assert floats.dtype == torch.float32 and floats.tolist() == [[1, 1]] * 3


# ---- memory --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weighting", "route"), [("equal", "gramian"), ("pcgrad", "gramian"), ("modo", "jacobian")]
)
def test_epochs_leave_nothing_behind(
    weighting: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    end = MultiTaskModule.on_train_epoch_end

    def counting(self: MultiTaskModule) -> None:
        end(self)
        gc.collect()
        counts.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()))

    monkeypatch.setattr(MultiTaskModule, "on_train_epoch_end", counting)
    settings = row({"epochs": 3, "batch": 24, "gradients": route}, weighting=weighting)
    made = weakref.ref(fit(module(settings)))
    assert counts[1] == counts[2]
    gc.collect()
    assert made() is None


def test_checkpoints_are_written_beside_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Elsewhere may be another disk, from which they would be copied and not renamed.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    run(tmp_path / "run", row())
    assert check_checkpoint(tmp_path / "run" / LAST)["history"]
    assert not list((tmp_path / "run").glob(".*"))
