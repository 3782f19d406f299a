"""All schedules, as data."""

from taskdisc.mtl.schedules.row import Row
from taskdisc.mtl.settings import Flag, Number
from taskdisc.paper import Paper

METRICS = ("depth", "samples", "incompleteness", "stagnancy", "regulariser")
"""The metrics that DST mixes."""

SCHEDULES: dict[str, Row] = {
    "all": Row("every task in every epoch", None, "all_tasks:AllTasks"),
    "random-drop": Row(
        "every task with one constant probability",
        None,
        "random_drop:RandomDrop",
        settings={"p": Number(0.5, low=0.0, high=1.0, open_low=True), "keep_main": Flag(True)},
    ),
    "dst": Row(
        "tasks dropped by depth of head, number of samples, and how finished and moving they are",
        Paper(
            "Malhotra et al.",
            2022,
            "Dropped Scheduled Task: Mitigating Negative Transfer in Multi-task Learning using "
            "Dynamic Task Dropping",
            "https://openreview.net/forum?id=myjAVQrRxS",
        ),
        "dropped_scheduled:DroppedScheduled",
        settings={
            **{metric: Number(0.2, low=0.0, high=1.0) for metric in METRICS},
            "keep_main": Flag(True),
        },
        shares=METRICS,
    ),
}
"""By name."""
