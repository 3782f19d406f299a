"""All architectures, as data."""

from taskdisc.mtl.architectures.row import Row
from taskdisc.mtl.settings import Choice, Flag, Number, OneTask, Whole
from taskdisc.paper import Paper

TANG = Paper(
    "Tang et al.",
    2020,
    "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for "
    "Personalized Recommendations",
    "https://doi.org/10.1145/3383313.3412236",
)

ARCHITECTURES: dict[str, Row] = {
    "independent": Row(
        "a network of its own for each task",
        None,
        "independent:Independent",
        needs_stages=False,
    ),
    "hard-sharing": Row(
        "one backbone for all tasks, a head for each",
        Paper("Caruana", 1997, "Multitask Learning", "https://doi.org/10.1023/A:1007379606734"),
        "hard_sharing:HardSharing",
        settings={"fully_connected": Choice("shared", ("shared", "own"))},
        needs_stages=False,
    ),
    "label-reuse": Row(
        "one task's output as an input of the fully connected part of the others",
        None,
        "label_reuse:LabelReuse",
        settings={
            "giver": OneTask(),
            "convolutions": Choice("shared", ("shared", "independent")),
            "detach": Flag(False),
        },
        least_tasks=2,
    ),
    "cross-stitch": Row(
        "a network per task, features mixed by learned units after every stage",
        Paper(
            "Misra et al.",
            2016,
            "Cross-stitch Networks for Multi-task Learning",
            "https://arxiv.org/abs/1604.03539",
        ),
        "cross_stitch:CrossStitch",
        settings={"self_weight": Number(0.9, low=0.0, high=1.0)},
        least_tasks=2,
    ),
    "mtan": Row(
        "one backbone, and for each task a mask on the features of every stage",
        Paper(
            "Liu et al.",
            2019,
            "End-to-End Multi-Task Learning with Attention",
            "https://arxiv.org/abs/1803.10704",
        ),
        "mtan:MTAN",
    ),
    "mmoe": Row(
        "several backbones as experts, mixed by a gate for each task",
        Paper(
            "Ma et al.",
            2018,
            "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
            "https://doi.org/10.1145/3219819.3220007",
        ),
        "mmoe:MMoE",
        settings={"n_experts": Whole(3, low=1)},
    ),
    "cgc": Row(
        "shared experts and some of each task's own, mixed by a gate for each task",
        TANG,
        "cgc:CGC",
        settings={"n_own": Whole(1, low=1), "n_shared": Whole(1, low=1)},
    ),
    "ple": Row(
        "shared experts and some of each task's own, mixed by gates after every stage",
        TANG,
        "ple:PLE",
        settings={"n_own": Whole(1, low=1), "n_shared": Whole(1, low=1)},
    ),
    "deep-relationship": Row(
        "shared convolutions, fully connected layers under a prior with a task covariance",
        Paper(
            "Long et al.",
            2017,
            "Learning Multiple Tasks with Multilinear Relationship Networks",
            "https://arxiv.org/abs/1506.02117",
        ),
        "deep_relationship:DeepRelationship",
        settings={"strength": Number(1e-4, low=0.0)},
    ),
    "adaptive-sharing": Row(
        "starts shared, then grows branches for groups of tasks from the top down",
        Paper(
            "Lu et al.",
            2017,
            "Fully-adaptive Feature Sharing in Multi-Task Networks with Applications in Person "
            "Attribute Classification",
            "https://arxiv.org/abs/1611.05377",
        ),
        "adaptive_sharing:AdaptiveSharing",
        settings={"grow_every": Whole(5, low=1), "branch_cost": Number(0.05, low=0.0)},
    ),
}
"""By name."""
