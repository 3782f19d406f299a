"""Discover binary tasks that a network generalises on, in a set of images nobody labelled."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskdisc.discovery.result import SearchResult
    from taskdisc.discovery.run import search
    from taskdisc.discovery.tasks import Tasks, load_tasks
    from taskdisc.images import ImageSet, held_out, load_images, select
    from taskdisc.labelings import ablation
    from taskdisc.mtl.data_module import TaskData
    from taskdisc.mtl.dataset import TaskDataset
    from taskdisc.studies.load_network import LoadedNetwork, load_network
    from taskdisc.studies.run import study
    from taskdisc.taskness.agreement import Agreement, agreement
    from taskdisc.taskness.confirm import Confirmation, confirm
    from taskdisc.taskness.lenet import LeNet
    from taskdisc.taskness.propagation import Propagation, propagate
    from taskdisc.taskness.score import Scores, score

_HOMES = {
    "Agreement": "taskdisc.taskness.agreement",
    "Confirmation": "taskdisc.taskness.confirm",
    "ImageSet": "taskdisc.images",
    "LeNet": "taskdisc.taskness.lenet",
    "LoadedNetwork": "taskdisc.studies.load_network",
    "Propagation": "taskdisc.taskness.propagation",
    "Scores": "taskdisc.taskness.score",
    "SearchResult": "taskdisc.discovery.result",
    "TaskData": "taskdisc.mtl.data_module",
    "TaskDataset": "taskdisc.mtl.dataset",
    "Tasks": "taskdisc.discovery.tasks",
    "ablation": "taskdisc.labelings",
    "agreement": "taskdisc.taskness.agreement",
    "confirm": "taskdisc.taskness.confirm",
    "held_out": "taskdisc.images",
    "load_images": "taskdisc.images",
    "load_network": "taskdisc.studies.load_network",
    "load_tasks": "taskdisc.discovery.tasks",
    "propagate": "taskdisc.taskness.propagation",
    "score": "taskdisc.taskness.score",
    "search": "taskdisc.discovery.run",
    "select": "taskdisc.images",
    "study": "taskdisc.studies.run",
}
"""Public names and their modules, imported when first used: torch alone takes seconds."""

__all__ = [
    "Agreement",
    "Confirmation",
    "ImageSet",
    "LeNet",
    "LoadedNetwork",
    "Propagation",
    "Scores",
    "SearchResult",
    "TaskData",
    "TaskDataset",
    "Tasks",
    "ablation",
    "agreement",
    "confirm",
    "held_out",
    "load_images",
    "load_network",
    "load_tasks",
    "propagate",
    "score",
    "search",
    "select",
    "study",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'taskdisc' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
