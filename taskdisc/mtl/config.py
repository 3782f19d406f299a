"""The settings of multi-task training; importing it imports no torch."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from taskdisc.config import Settings
from taskdisc.errors import SettingError, did_you_mean
from taskdisc.files import absolute
from taskdisc.mtl.auxiliaries import resolved
from taskdisc.mtl.kinds import KINDS, LOSS, METRICS


class Method(Settings):
    """A method by its name, with settings of its own: a name, or `{name: …, setting: value}`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def settings(self) -> dict[str, Any]:
        """All but the name."""
        return dict(self.model_extra or {})


class TaskSettings(Settings):
    """One task: where its labels come from, and how it is trained and measured."""

    kind: Literal["classification", "binary", "multi-label", "regression"]
    of: tuple[str, ...]  # a target, a measure of the pixels, or for several labels several of them
    positives: tuple[str, ...] = ()  # binary: the classes of the target that are yes
    among: tuple[str, ...] = ()  # classes of the target whose images have a label; all of them
    weight: float = Field(1.0, ge=0)  # of its loss, before any weighting
    metric: str = ""  # by which it is compared; its kind's first by default
    also: tuple[str, ...] = ()  # other metrics that tables show beside it, or its loss
    labelled: int | None = Field(None, ge=1)  # training images that keep their label; all
    # Validation images that do; where few are labelled in training, as few in proportion.
    labelled_validation: int | None = Field(None, ge=0)

    @field_validator("of", "positives", "among", "also", mode="before")
    @classmethod
    def _one_or_several(cls, of: Any) -> Any:
        return (of,) if isinstance(of, str) else of

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind in ("classification", "binary") and len(self.of) != 1:
            raise SettingError(
                f"`of` must be one target for a task of kind {self.kind}, "
                f"got {len(self.of)}: {', '.join(self.of)}."
            )
        if self.positives and self.kind != "binary":
            raise SettingError(
                f"`positives` must be left out of a task of kind {self.kind}, "
                f"got {', '.join(self.positives)}; they make a binary task of a target."
            )
        if self.among and self.kind not in ("classification", "binary"):
            raise SettingError(
                f"`among` must be left out of a task of kind {self.kind}, got "
                f"{', '.join(self.among)}; it names classes of one target."
            )
        metrics = KINDS[self.kind].metrics
        if self.metric:
            self._check_metric("metric", self.metric, metrics)
        for name in self.also:
            self._check_metric("also", name, (LOSS, *metrics))
            if name == (self.metric or metrics[0]) or self.also.count(name) > 1:
                raise SettingError(
                    f"`also` must name metrics once that are shown beside `metric`, got {name!r} "
                    "twice."
                )
        return self

    def _check_metric(self, setting: str, name: str, choices: tuple[str, ...]) -> None:
        if name not in choices:
            known = "" if name in METRICS else "a known one and "
            raise SettingError(
                f"`{setting}` must be {known}one that a task of kind {self.kind} takes, "
                f"got {name!r}; {did_you_mean(name, choices)}"
            )


class TrainingSettings(Settings):
    """How a network is trained, whatever it is."""

    epochs: int = Field(20, ge=1)
    batch: int = Field(64, ge=1)  # images; a few more where a rare label would be missing
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"  # sgd: with momentum 0.9
    lr: float = Field(1e-3, gt=0)
    head_lr: dict[str, Annotated[float, Field(gt=0)]] = Field({})  # times `lr`, of a head
    decay: Literal["none", "cosine"] = "none"  # of `lr` from epoch to epoch, down to nearly 0
    weight_decay: float = Field(0.0, ge=0)
    # Share of every batch that is images with a label of the main task, drawn over and over where
    # they are few, so that all rows take as many steps. By default they are dealt out once.
    main_share: float | None = Field(None, gt=0, le=1)
    epoch: Literal["best", "last"] = "best"  # tested: the best one on validation, or the last one
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    # How gradients of several tasks are had: all of them (jacobian), or only their inner products,
    # which holds them one layer at a time (gramian). auto: the first, unless it takes above 1 GiB.
    gradients: Literal["auto", "jacobian", "gramian"] = "auto"
    probes: int = Field(2, ge=0)  # batches per epoch whose cosines and conflicts are logged


class RowSettings(Settings):
    """One row of a comparison: what is trained, and how the tasks are weighted and scheduled."""

    architecture: Method = Method(name="hard-sharing")
    backbone: Method = Method(name="lenet")
    weighting: Method = Method(name="equal")
    schedule: Method = Method(name="all")
    tasks: tuple[str, ...] | None = None  # which of the tasks; all by default
    aux: str = ""  # auxiliary tasks beside them: see `mtl.auxiliaries.FORMS`; none by default
    aux_tasks: tuple[str, ...] | None = None  # which of these; all by default
    aux_joined: bool = False  # as one task of several labels, with one loss, their mean
    aux_weight: float = Field(1.0, ge=0)  # of the loss of each, before any weighting
    training: TrainingSettings = TrainingSettings()

    @field_validator("tasks", "aux_tasks")
    @classmethod
    def _each_once(
        cls, tasks: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        for task in tasks or ():
            if (tasks or ()).count(task) > 1:
                raise SettingError(
                    f"`{info.field_name}` must name every task once, got {task!r} twice."
                )
        return tasks

    @model_validator(mode="after")
    def _has_tasks(self) -> Self:
        if self.tasks == () and not self.aux:
            raise SettingError("`tasks` must name at least one where there is no `aux`, got none.")
        if self.aux_tasks is not None and not self.aux:
            raise SettingError(
                "`aux_tasks` must be left out where there is no `aux`, got "
                f"{', '.join(self.aux_tasks)}."
            )
        if self.aux_tasks == ():
            raise SettingError(
                "`aux_tasks` must name at least one, got none; leave out `aux` for no auxiliary "
                "tasks."
            )
        return self

    @field_validator("aux")
    @classmethod
    def _auxiliaries_from_anywhere(cls, aux: str) -> str:
        return resolved(aux) if aux else aux

    @field_validator("backbone")
    @classmethod
    def _weights_from_anywhere(cls, backbone: Method) -> Method:
        return backbone.model_copy(update=with_absolute_weights(backbone.settings))


def with_absolute_weights(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a backbone, so that a run that goes on from another folder finds its weights."""
    weights = backbone.get("weights")
    if not isinstance(weights, str) or weights in ("", "download"):
        return dict(backbone)
    return {**backbone, "weights": absolute("weights", weights)}
