"""All that can be chosen by name: what it does, what it needs and where it comes from."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, TypeVar

from taskdisc.discovery.proposers import NEVERGRAD, PROPOSERS
from taskdisc.discovery.scorers import SCORERS
from taskdisc.images import SOURCES
from taskdisc.mtl.architectures import ARCHITECTURES
from taskdisc.mtl.architectures import Row as ArchitectureRow
from taskdisc.mtl.backbones import BACKBONES, COMMON, TORCHVISION
from taskdisc.mtl.kinds import KINDS
from taskdisc.mtl.schedules import SCHEDULES
from taskdisc.mtl.settings import Setting
from taskdisc.mtl.weightings import WEIGHTINGS
from taskdisc.mtl.weightings import Row as WeightingRow
from taskdisc.paper import Paper
from taskdisc.studies import STUDIES
from taskdisc.studies.study import Study


@dataclass(frozen=True)
class Method:
    """One thing that can be chosen by name.

    Attributes:
        name: By which it is chosen.
        summary: What it does, one line.
        paper: Where it comes from; None where that is no paper.
        needs: What it needs, one line; empty where nothing.
        settings: Of its settings by name, the default and the rule that values keep.
    """

    name: str
    summary: str
    paper: Paper | None = None
    needs: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class _Row(Protocol):
    @property
    def summary(self) -> str: ...

    @property
    def paper(self) -> Paper | None: ...


R = TypeVar("R", bound=_Row)


def methods() -> dict[str, list[Method]]:
    """Everything that can be chosen by name, by its kind, in the order of its table."""
    return {
        "weightings": _listed(WEIGHTINGS, _weighting_needs),
        "architectures": _listed(ARCHITECTURES, _architecture_needs),
        "backbones": _backbones(),
        "schedules": _listed(SCHEDULES),
        "task_kinds": [
            Method(name, row.summary, needs=f"metrics: {', '.join(row.metrics)}")
            for name, row in KINDS.items()
        ],
        "proposers": [
            *_listed(PROPOSERS, lambda row: row.needs),
            *_listed({"nevergrad": NEVERGRAD}, lambda row: row.needs),
        ],
        "scorers": _listed(SCORERS, lambda row: row.needs),
        "studies": [
            Method(name, row.question, needs=_study_needs(row))
            for name, row in STUDIES.items()
            if not row.command
        ],
        "image_sets": _listed(SOURCES, lambda row: row.needs),
    }


def as_values(listed: Mapping[str, list[Method]]) -> dict[str, list[dict[str, Any]]]:
    """The same as JSON values."""
    return {kind: [asdict(method) for method in rows] for kind, rows in listed.items()}


def _listed(rows: Mapping[str, R], needs: Callable[[R], str] = lambda row: "") -> list[Method]:
    return [
        Method(name, row.summary, row.paper, needs(row), _settings(getattr(row, "settings", {})))
        for name, row in rows.items()
    ]


def _settings(settings: Mapping[str, Setting]) -> dict[str, dict[str, Any]]:
    n_tasks = 3  # rules that depend on it say so for three tasks
    return {
        name: {"default": setting.default, "rule": setting.rule(n_tasks)}
        for name, setting in settings.items()
    }


def _backbones() -> list[Method]:
    rows = _listed({**BACKBONES, "torchvision:NAME": TORCHVISION})
    return [replace(row, settings={**row.settings, **_settings(COMMON)}) for row in rows]


def _weighting_needs(row: WeightingRow) -> str:
    main = ["a main task"] if row.requires_main else []
    return ", ".join([row.needs.value, *main, *_tasks(row.least_tasks(row.defaults))])


def _architecture_needs(row: ArchitectureRow) -> str:
    return ", ".join(_tasks(row.least_tasks))


def _tasks(least: int) -> list[str]:
    return [f"at least {least} tasks"] if least > 1 else []


def _study_needs(row: Study) -> str:
    return "an image set" if "images" in row.settings.model_fields else ""
