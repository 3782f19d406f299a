"""The training of a network on several tasks, as Lightning runs it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchjd.autogram import Engine

from taskdisc.classifiers import TRAINED
from taskdisc.errors import ImageSetError, RunFailedError, SettingError
from taskdisc.mtl.architectures.base import MultiTaskNetwork, reach
from taskdisc.mtl.backbones.base import Backbone
from taskdisc.mtl.config import TrainingSettings
from taskdisc.mtl.data import Batches, InOrder, Split
from taskdisc.mtl.gradients import SharedGradients, mean_over_devices
from taskdisc.mtl.schedules.base import Schedule
from taskdisc.mtl.tasks import Task, blind, loss_of, measured, per_image, score_of
from taskdisc.mtl.weightings import WEIGHTINGS, Needs
from taskdisc.mtl.weightings.active import ActiveWeighting
from taskdisc.mtl.weightings.base import Gradients, LookAhead, Step, Update

ORDER, SECOND, AHEAD, DRAWS = range(4)
"""Streams of random numbers of an epoch: its order, second batches, validation batches, dropout."""

CHECK_EVERY = 50
"""Steps between two looks at whether a loss is still a number, each of which waits for a GPU."""

MOST_ON_DEVICE = 2**32
"""Bytes of inputs that are kept on a GPU as a whole."""

OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9}),
}


class MultiTaskModule(LightningModule):
    """A network, its tasks, and how their losses become one update.

    Where several devices train one network, each has batches of its own. Losses, Jacobians and
    Gramians are means over devices before a weighting hears of them, so that all devices weight
    alike; the Gramian without the Jacobian is then a mean of Gramians.

    Args:
        network: With a head for each task.
        inputs: Images uint8 [n_images, H, W, 3], or features float32 [n_images, …] as they are.
        tasks: In the order of the network's heads.
        split: Of the images.
        normalisation: Mean and deviation of each channel that images are brought to.
        weighting: Of the tasks.
        schedule: Of the tasks.
        training: How it is trained.
        main: Number of the main task, where there is one.
        seed: From which the order of the images and all that is drawn follows.
        says: What this training is, as plain values; a checkpoint of another is refused.
        frozen: What images go through before the network, never trained and in no checkpoint.

    Attributes:
        history: One record per epoch.

    Raises:
        SettingError: batches have a share for the main task, and there is none.
        ImageSetError: a task has no label to train on, or no task that chooses the epoch has labels
            enough for its metric among the validation images.
    """

    _mean: Tensor
    _deviation: Tensor

    def __init__(
        self,
        network: MultiTaskNetwork,
        inputs: np.ndarray,
        tasks: Sequence[Task],
        split: Split,
        normalisation: tuple[Sequence[float], Sequence[float]],
        weighting: ActiveWeighting,
        schedule: Schedule,
        training: TrainingSettings,
        main: int | None,
        seed: int,
        says: Mapping[str, Any],
        frozen: Backbone | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.weighting = weighting
        self.schedule = schedule
        self.tasks, self.main = list(tasks), main
        self.training_settings, self.seed = training, seed
        self.says = dict(says)
        self.split = split
        self.history: list[dict[str, Any]] = []
        self._needs = WEIGHTINGS[weighting.name].needs
        self._rerun = WEIGHTINGS[weighting.name].rerun
        self._inputs = inputs
        self._frozen = (frozen,)  # in a tuple, so that it is no submodule
        self._on_device: Tensor | None = None
        for name, values in zip(("mean", "deviation"), normalisation, strict=True):
            shaped = torch.tensor(values, dtype=torch.float32)[:, None, None]
            self.register_buffer(f"_{name}", shaped, persistent=False)
        for number, task in enumerate(tasks):
            self.register_buffer(f"_labels{number}", torch.from_numpy(task.labels), False)
            self.register_buffer(f"_weight{number}", torch.tensor(task.weight), False)
        self._check_labels()
        self._constants = [
            blind(task, split.train, split.validation)[task.metric_name] for task in tasks
        ]
        self._check_choice()
        self._find_shared()

    def _check_labels(self) -> None:
        for task in self.tasks:
            if not task.known[self.split.train].any():
                raise ImageSetError(
                    f"task '{task.name}' must have labels among its training images, got none; "
                    "leave it out."
                )

    def _check_choice(self) -> None:
        if self.main is None and self.training_settings.main_share is not None:
            raise SettingError(
                "`training.main_share` must be left out where there is no main task, got "
                f"{self.training_settings.main_share:g}; name one by `main`."
            )
        if self.training_settings.epoch == "last":
            return
        choosing = range(len(self.tasks)) if self.main is None else [self.main]
        if all(math.isnan(self._constants[number]) for number in choosing):
            task = self.tasks[choosing[0]]
            raise ImageSetError(
                f"task '{task.name}' must have labels enough for its metric, {task.metric_name}, "
                "among the validation images, which choose the epoch; take more of them, or set "
                "`training.epoch` to last."
            )

    # ---- what is trained -------------------------------------------------------------------

    def _find_shared(self) -> None:
        """Divide the parameters into those that several tasks reach, and each task's own."""
        reached = reach(self.network, self.prepared(torch.from_numpy(self.split.train[:2])))
        self.reached = reached
        shared = [name for name, tasks in reached.items() if len(tasks) > 1]
        self.shared = SharedGradients(
            self.network, shared, self.training_settings.gradients, len(self.tasks)
        )
        self._shared_names = shared
        own = set(reached) - set(shared)
        self._own = [p for name, p in self.network.named_parameters() if name in own]
        self._own += list(self.weighting.parameters())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimiser; heads have learning rates of their own."""
        lr, head_lr = self.training_settings.lr, self.training_settings.head_lr
        heads = [list(head.parameters()) for head in self.network.heads]
        in_heads = {id(p) for head in heads for p in head}
        groups = [
            {"params": head, "lr": lr * head_lr.get(task.name, 1.0)}
            for head, task in zip(heads, self.tasks, strict=True)
            if any(p.requires_grad for p in head)
        ]
        rest = [p for p in self.network.parameters() if p.requires_grad and id(p) not in in_heads]
        if rest:
            groups.append({"params": rest, "lr": lr})
        if trained := list(self.weighting.parameters()):
            groups.append({"params": trained, "lr": lr, "weight_decay": 0.0})
        self._lrs: list[Any] = [group["lr"] for group in groups]
        kind, settings = OPTIMIZERS[self.training_settings.optimizer]
        return kind(groups, lr=lr, weight_decay=self.training_settings.weight_decay, **settings)

    # ---- batches ---------------------------------------------------------------------------

    def train_dataloader(self) -> Batches:
        """The batches of this epoch on this device."""
        return self._batches(self.split.train, ORDER)

    def val_dataloader(self) -> InOrder:
        """All validation images."""
        return InOrder(self.split.validation, 256)

    def test_dataloader(self) -> InOrder:
        """All test images."""
        return InOrder(self.split.test, 256)

    def _batches(self, positions: np.ndarray, stream: int) -> Batches:
        return Batches(
            positions,
            self.tasks,
            self.training_settings.batch,
            [self.seed, stream, self.current_epoch],
            self.trainer.global_rank,
            self.trainer.world_size,
            self.main,
            self.training_settings.main_share,
        )

    def transfer_batch_to_device(self, batch: Tensor, device: torch.device, index: int) -> Tensor:
        """Positions stay where they are, for the inputs may be there too."""
        return batch

    def on_fit_start(self) -> None:
        # Once, where there is room for all: a batch is then a gather on the device.
        if self.device.type != "cpu" and self._inputs.nbytes < MOST_ON_DEVICE:
            self._on_device = on_device(self._inputs, self.device)
        # A checkpoint may have been loaded, in which tasks share other parameters than at first.
        self._find_shared()

    def on_fit_end(self) -> None:
        self._on_device = None  # the device is for the next training

    def prepared(self, positions: Tensor) -> Tensor:
        """Inputs [n, 3, H, W], or features, as the network takes them."""
        if self._on_device is None:
            found = sent(torch.from_numpy(self._inputs[positions.numpy()]), self.device)
        else:
            found = self._on_device[sent(positions, self.device)]
        return self.normalised(found) if found.dtype == torch.uint8 else found

    def normalised(self, images: Tensor) -> Tensor:
        """Images uint8 [n, H, W, 3] as the network takes them: what comes before it is done."""
        found = (images.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._deviation
        (frozen,) = self._frozen
        if frozen is None:
            return found
        with torch.no_grad():
            return frozen.to(self.device)(found)

    def labels(self, positions: Tensor) -> list[Tensor]:
        """The labels of each task at some positions."""
        there = sent(positions, self.device)
        return [getattr(self, f"_labels{task}")[there] for task in range(len(self.tasks))]

    # ---- one epoch of training -------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        # Dropout draws from the global generators; seeding them by the epoch makes a resumed run
        # draw what an uninterrupted one does.
        derived = np.random.SeedSequence([self.seed, DRAWS, self.current_epoch]).generate_state(1)
        torch.manual_seed(int(derived[0]) + self.global_rank)
        self._decay()
        active = self.schedule.active(self.current_epoch + 1)
        self.weighting.set_active(active)
        self._active = [int(number) for number in np.flatnonzero(active)]
        parameters = dict(self.network.named_parameters())
        self._resting = [
            parameters[name]
            for name, tasks in self.reached.items()
            if tasks and not {*tasks} & {*self._active}
        ]
        zeros = torch.zeros(len(self.tasks), device=self.device)
        self._sums = {"loss": zeros.clone(), "weight": zeros.clone()}
        self._n_steps = 0
        self._first_bad = torch.full_like(zeros, -1)
        self._gramians: list[Tensor] = []
        if self._needs is Needs.TWO_BATCHES:
            self._second = iter(self._batches(self.split.train, SECOND))
        if self._needs is Needs.VALIDATION:
            self._ahead: Iterator[Tensor] = iter(())

    def _decay(self) -> None:
        """Learning rates of this epoch: by half a cosine, from the whole to what follows 0."""
        if self.training_settings.decay == "none":
            return
        done = self.current_epoch / self.training_settings.epochs
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        for group, lr in zip(optimizer.param_groups, self._lrs, strict=True):
            group["lr"] = lr * (1 + math.cos(math.pi * done)) / 2

    def losses(self, outputs: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """The losses [n_active] of the active tasks, times their fixed weights.

        On several devices each has the mean as its value, and the gradient of its own part.
        """
        own = torch.stack(
            [
                loss_of(self.tasks[t].kind, outputs[t].float(), labels[t])
                * getattr(self, f"_weight{t}")
                for t in self._active
            ]
        )
        mean = mean_over_devices(own)
        return own if mean is own else own + (mean - own.detach())

    def training_step(self, positions: Tensor, number: int) -> None:
        """One update."""
        images, labels = self.prepared(positions), self.labels(positions)
        probed = number < self.training_settings.probes
        self._scale = self._scale_of_half()
        second = self._second_losses() if self._needs is Needs.TWO_BATCHES else None
        engine = self.shared.engine() if self._needs is Needs.GRAMIAN or probed else None
        outputs = self.network(images)
        losses = self.losses(outputs, labels)
        # What comes of gradients is not for half precision.
        with torch.autocast(self.device.type, enabled=False):
            gradients = self._gradients(losses, outputs, engine)
            step = Step(
                losses,
                gradients,
                None if second is None else self._gradients(second),
                self._look_ahead(gradients) if self._needs is Needs.VALIDATION else None,
            )
            update = self._overflowed(step) or self._weighted(step, number)
            self._note(number, losses, update)
            if probed and self.shared.parameters:
                self._gramians.append(gradients.gramian)
            self._move(self._scalar(update, losses, gradients))
        if self._rerun:
            with torch.no_grad():
                self.weighting.after_step(self.losses(self.network(images), labels))

    def _weighted(self, step: Step, number: int) -> Update:
        """The weighting's update; what it cannot solve because something is infinite is said so."""
        try:
            return self.weighting.update(step)
        except Exception:
            self._mark(number, step.losses)
            self._check_losses()
            if step.gradients is None or step.gradients.gramian.isfinite().all():
                raise
            raise RunFailedError(
                "the gradients of the tasks must be finite numbers, got NaN or infinity in step "
                f"{number + 1} of epoch {self.current_epoch + 1}; the checkpoint of the epoch "
                "before is kept: lower `training.lr`."
            ) from None

    def _scalar(self, update: Update, losses: Tensor, gradients: Gradients) -> Tensor:
        """A scalar whose gradient is the update.

        Where the shared parameters move by another rule than the others, it is the inner product
        of the parameters with their updates, so that what hooks into `backward` (scaling for half
        precision, the mean over devices) meets it as it would meet any loss.
        """
        penalty = self.network.penalty()
        extra = losses.new_zeros(()) if penalty is None else penalty
        if update.weights is None and update.direction is None:
            assert update.total is not None
            return update.total + extra
        own_loss = losses.sum() if update.total is None else update.total
        if update.direction is None and self.shared.gramian_alone:
            assert update.weights is not None
            moves: Sequence[Tensor | None] = self._grad(
                (update.weights * losses).sum(), self.shared.parameters
            )
        else:
            direction = update.direction
            if direction is None:
                assert update.weights is not None
                direction = update.weights @ gradients.jacobian
            moves = self.shared.split(direction)
        pairs = [
            *zip(self.shared.parameters, moves, strict=True),
            *zip(self._own, self._grad(own_loss, self._own), strict=True),
        ]
        products = [(p * move.detach()).sum() for p, move in pairs if move is not None]
        return torch.stack(products).sum() + extra

    def _move(self, scalar: Tensor) -> None:
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(scalar)
        # What only dropped tasks reach stands still, whatever a penalty or momentum would do.
        for parameter in self._resting:
            parameter.grad = None
        optimizer.step()
        self.weighting.restore_dropped()

    def _second_losses(self) -> Tensor:
        positions = next(self._second)
        return self.losses(self.network(self.prepared(positions)), self.labels(positions))

    def _look_ahead(self, gradients: Gradients) -> LookAhead:
        main, lr = self.main, self.training_settings.lr
        assert main is not None
        positions = next(self._ahead, None)
        if positions is None:
            self._ahead = iter(self._batches(self.split.validation, AHEAD))
            positions = next(self._ahead)
        images, labels = self.prepared(positions), self.labels(positions)[main]
        parameters = dict(self.network.named_parameters())
        names = [name for name in parameters if name in set(self._shared_names)]

        def gradient(weights: Tensor) -> Tensor:
            moved = {name: parameters[name].detach() for name in names}
            with torch.enable_grad():
                moved = {
                    name: (moved[name] - lr * part).requires_grad_()
                    for name, part in zip(
                        names, self.shared.split(weights @ gradients.jacobian), strict=True
                    )
                }
                # Batch statistics are not for a trial step to change.
                buffers = {name: b.clone() for name, b in self.network.named_buffers()}
                with self.trainer.precision_plugin.forward_context():
                    outputs = torch.func.functional_call(
                        self.network, {**parameters, **moved, **buffers}, (images,)
                    )
                loss = loss_of(self.tasks[main].kind, outputs[main].float(), labels)
                found = self._grad(loss, list(moved.values()))
            parts = [
                torch.zeros_like(value) if g is None else g
                for value, g in zip(moved.values(), found, strict=True)
            ]
            if not parts:
                return weights.new_zeros(1)
            return mean_over_devices(torch.cat([part.flatten() for part in parts]))

        return LookAhead(gradient, lr)

    # ---- half precision --------------------------------------------------------------------

    def _scale_of_half(self) -> float:
        """By what Lightning scales losses of half precision, whose gradients would vanish; or 1."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return 1.0 if scaler is None else float(scaler.get_scale())

    def _gradients(
        self, losses: Tensor, outputs: Sequence[Tensor] = (), engine: Engine | None = None
    ) -> Gradients:
        """Gradients of losses, computed at the scale and brought back from it."""
        scale = self._scale
        found = self.shared.of(losses * scale, outputs, engine)
        if scale == 1:
            return found
        return Gradients(lambda: found.jacobian / scale, lambda: found.gramian / scale**2)

    def _grad(self, scalar: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """The same of a scalar; None for what it does not depend on. The graph stays."""
        if not parameters:
            return []
        found = torch.autograd.grad(
            scalar * self._scale, parameters, retain_graph=True, allow_unused=True
        )
        return [g if g is None or self._scale == 1 else g / self._scale for g in found]

    def _overflowed(self, step: Step) -> Update | None:
        """The plain sum where gradients overflow at this scale, so that no weighting hears them.

        The sum overflows too, whereupon the scaler leaves out the step and lowers the scale.
        """
        if self._scale == 1 or self._needs is Needs.LOSSES:
            return None
        gramians = [g.gramian for g in (step.gradients, step.second) if g is not None]
        finite = all(bool(gramian.isfinite().all()) for gramian in gramians)
        return None if finite else Update(total=step.losses.sum())

    # ---- what is logged --------------------------------------------------------------------

    @torch.no_grad()
    def _note(self, number: int, losses: Tensor, update: Update) -> None:
        active = self.weighting.rows
        self._sums["loss"][active] += losses.detach()
        shown = update.weights if update.shown is None else update.shown
        self._sums["weight"][active] += torch.nan if shown is None else shown.detach().float()
        self._n_steps += 1
        self._mark(number, losses)
        if number % CHECK_EVERY == 0:
            self._check_losses()
            self.log("loss", losses.detach().mean(), prog_bar=True, logger=False)

    def _mark(self, number: int, losses: Tensor) -> None:
        """Remember, on the device, the first step in which each active task's loss is no number."""
        active = self.weighting.rows
        bad = ~losses.detach().isfinite() & (self._first_bad[active] < 0)
        self._first_bad[active] = torch.where(bad, float(number), self._first_bad[active])

    def _check_losses(self) -> None:
        """Refuse to go on with a loss that is no number; what was saved before stays."""
        steps = self._first_bad.tolist()
        for task, step in zip(self.tasks, steps, strict=True):
            if step >= 0:
                raise RunFailedError(
                    f"the loss of task '{task.name}' must be a finite number, got NaN or infinity "
                    f"in step {int(step) + 1} of epoch {self.current_epoch + 1}; the checkpoint of "
                    "the epoch before is kept: lower `training.lr`, or look at the task's labels."
                )

    def _check_parameters(self) -> None:
        """Refuse what no later epoch could go on from, before it is saved."""
        for name, values in self.network.state_dict().items():
            if not bool(values.isfinite().all()):
                raise RunFailedError(
                    f"the weights of the network must be finite numbers, got NaN or infinity in "
                    f"`{name}` after step {self._n_steps} of epoch {self.current_epoch + 1}; the "
                    "checkpoint of the epoch before is kept: lower `training.lr`."
                )

    def on_train_epoch_end(self) -> None:
        means = self._sums["loss"] / self._n_steps
        dropped = torch.ones(len(self.tasks), dtype=torch.bool, device=self.device)
        dropped[self._active] = False
        means[dropped] = torch.nan
        weights = (self._sums["weight"] / self._n_steps).masked_fill(dropped, torch.nan)
        self.weighting.after_epoch(means[self._active])
        epoch = self.current_epoch + 1
        self.schedule.after_epoch(epoch, means.double().cpu().numpy())
        if self.network.after_epoch(self._correct()):
            self._find_shared()
        cosines, conflicts = self._conflicts()
        record = {
            "epoch": epoch,
            "active": self._active,
            "losses": _plain(means),
            "weights": _plain(weights),
            "cosines": cosines,
            "conflicts": conflicts,
            **self._validation,
        }
        self.history.append(record)
        logged = flat_record(record, [task.name for task in self.tasks])
        for logger in self.trainer.loggers:  # not by `log`, which takes a tenth of a short epoch
            logger.log_metrics(logged, self.trainer.global_step)

    def _conflicts(self) -> tuple[list[list[float | None]], float | None]:
        """Mean cosines of the tasks' gradients [n_tasks, n_tasks], and the share of pairs below 0.

        Over the probed batches; null for tasks that were dropped or have no gradient.
        """
        n = len(self.tasks)
        found = torch.full((n, n), torch.nan)
        if not self._gramians:
            return _plain(found), None
        stacked = torch.stack(self._gramians).double().cpu()
        lengths = stacked.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        cosines = stacked / (lengths[:, :, None] * lengths[:, None, :])
        active = torch.tensor(self._active)
        found[active[:, None], active] = cosines.mean(0).clamp(-1, 1).float()
        upper = torch.ones(len(active), len(active), dtype=torch.bool).triu(1)
        pairs = cosines[:, upper]
        pairs = pairs[~pairs.isnan()]
        return _plain(found), float((pairs < 0).double().mean()) if len(pairs) else None

    # ---- validation and test ---------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        # At the end of an epoch of training, before metrics meet what is no number.
        self._check_losses()
        self._check_parameters()
        # Each device has batch statistics of its own batches.
        for buffer in self.network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(mean_over_devices(buffer))
        self._start_measuring()

    def validation_step(self, positions: Tensor, number: int) -> None:
        """Gather metrics and losses of validation images."""
        self._measure(positions)

    def on_validation_epoch_end(self) -> None:
        # Devices validate alike but for rounding, and must go on from the same figures.
        found = self.trainer.strategy.broadcast(self._found())
        outputs, labels = self._gathered()
        self._losses_per_image = mean_over_devices(
            torch.stack(
                [
                    per_image(task.kind, output, known)
                    for task, output, known in zip(self.tasks, outputs, labels, strict=True)
                ]
            )
        )
        metrics = [of[task.metric_name] for task, of in zip(self.tasks, found, strict=True)]
        scores = [
            score_of(task, value, constant)
            for task, value, constant in zip(self.tasks, metrics, self._constants, strict=True)
        ]
        chosen = scores if self.main is None else [scores[self.main]]
        known = [score for score in chosen if not math.isnan(score)]
        score = sum(known) / len(known) if known else math.nan
        self._validation = {
            "validation": [plain(of) for of in found],
            "score": score if math.isfinite(score) else None,
        }
        if math.isfinite(score):
            self.log("score", score, prog_bar=True, logger=False, rank_zero_only=True)

    def on_test_epoch_start(self) -> None:
        self._start_measuring()

    def test_step(self, positions: Tensor, number: int) -> None:
        """Gather metrics of test images."""
        self._measure(positions)

    def on_test_epoch_end(self) -> None:
        names = [task.name for task in self.tasks]
        self.tested = dict(zip(names, self._found(), strict=True))

    def _start_measuring(self) -> None:
        self._outputs: list[list[Tensor]] = []
        self._positions: list[Tensor] = []

    @torch.no_grad()
    def _measure(self, positions: Tensor) -> None:
        self._outputs.append([o.float() for o in self.network(self.prepared(positions))])
        self._positions.append(positions)

    def _gathered(self) -> tuple[list[Tensor], list[Tensor]]:
        """Outputs and labels of each task on all images that were measured."""
        outputs = [torch.cat(of_task) for of_task in zip(*self._outputs, strict=True)]
        return outputs, self.labels(torch.cat(self._positions))

    def _found(self) -> list[dict[str, float]]:
        """What was measured of each task: its loss and all metrics of its kind."""
        arguments = zip(self.tasks, *self._gathered(), strict=True)
        return [measured(task, outputs, labels) for task, outputs, labels in arguments]

    def _correct(self) -> Tensor:
        """Of the last validation, the negative loss of each image, [n_tasks, n_validation]."""
        return -self._losses_per_image

    # ---- checkpoints -----------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["taskdisc"] = {
            "says": self.says,
            "history": self.history,
            "schedule": self.schedule.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint["taskdisc"]
        check_says(saved["says"], self.says)
        if self.trainer.state.fn != "fit":
            # A test needs the network alone; states of the weighting may have another shape by now.
            found = {n: v for n, v in checkpoint["state_dict"].items() if n.startswith(TRAINED)}
            checkpoint["state_dict"] = {**self.state_dict(), **found}
            return
        self.history = saved["history"]
        self.schedule.load_state_dict(saved["schedule"])


def check_says(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another configuration.

    Raises:
        SettingError: it is of another one; names the first setting that differs.
    """
    here, there = _flat(wanted), _flat(saved)
    for name in {**here, **there}:
        if here.get(name) != there.get(name):
            raise SettingError(
                f"the checkpoint must be of the same configuration, got another: `{name}` is "
                f"{here.get(name)!r} here and {there.get(name)!r} there; remove it to start afresh."
            )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings by their paths, such as `training.lr`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": v for inner, v in _flat(value).items()}
        else:
            found[name] = value
    return found


def flat_record(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, float]:
    """An epoch's record as the loggers take it: one number per name, unknown ones left out."""
    columns = {
        "train_loss": record["losses"],
        "weight": record["weights"],
    }
    found = {"epoch": record["epoch"]} | {
        f"{column}/{name}": value
        for column, values in columns.items()
        for name, value in zip(names, values, strict=True)
    }
    for name, of_task in zip(names, record["validation"], strict=True):
        found |= {f"val_{metric}/{name}": value for metric, value in of_task.items()}
    for i, first in enumerate(names):
        found[f"active/{first}"] = float(i in record["active"])
        for j, second in enumerate(names[:i]):
            found[f"cosine/{second}/{first}"] = record["cosines"][i][j]
    found |= {"conflicts": record["conflicts"], "score": record["score"]}
    return {name: value for name, value in found.items() if value is not None}


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host on a device, without waiting for it."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def on_device(inputs: np.ndarray, device: torch.device) -> Tensor:
    """All inputs on a device, some at a time, so that the host holds no second copy of them."""
    found = torch.empty(
        inputs.shape, dtype=torch.from_numpy(inputs[:0].copy()).dtype, device=device
    )
    for start in range(0, len(inputs), 1000):
        # Copied, for what is mapped from a file must not be written to, of which torch warns.
        found[start : start + 1000] = torch.from_numpy(np.array(inputs[start : start + 1000]))
    return found


def plain(found: Mapping[str, float]) -> dict[str, float | None]:
    """The same with null for what is no finite number, as JSON takes it."""
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _plain(values: Tensor) -> Any:
    """Nested lists of a tensor; null for what is no finite number."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [value if math.isfinite(value) else None for value in values.tolist()]
