"""All architectures, as data."""

from taskdisc.mtl.architectures.row import Row
from taskdisc.mtl.paper import Paper

ARCHITECTURES: dict[str, Row] = {
    "independent": Row("a network of its own for each task", None, "independent:Independent"),
    "hard-sharing": Row(
        "one backbone for all tasks, a head for each",
        Paper("Caruana", 1997, "Multitask Learning", "https://doi.org/10.1023/A:1007379606734"),
        "hard_sharing:HardSharing",
    ),
}
"""By name."""
