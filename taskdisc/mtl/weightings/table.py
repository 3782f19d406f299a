"""All weightings, as data."""

from typing import Any

from taskdisc.mtl.settings import Choice, Flag, Number, PerTask, Whole, WordPerTask
from taskdisc.mtl.weightings.row import Needs, Row
from taskdisc.paper import Paper

RATE: dict[str, Any] = {"low": 0.0, "open_low": True}
SHARE: dict[str, Any] = {"low": 0.0, "high": 1.0, "open_high": True}

NASH = Paper(
    "Navon et al.",
    2022,
    "Multi-Task Learning as a Bargaining Game",
    "https://arxiv.org/abs/2202.01017",
)
IMPARTIAL = Paper(
    "Liu et al.",
    2021,
    "Towards Impartial Multi-task Learning",
    "https://openreview.net/forum?id=IMPnRXEWpvr",
)
SIMILARITY = Paper(
    "Du et al.",
    2018,
    "Adapting Auxiliary Losses Using Gradient Similarity",
    "https://arxiv.org/abs/1812.02224",
)


def _equal_shares(n_tasks: int) -> float:
    return 1 / n_tasks


def _ones(n_tasks: int) -> float:
    return 1.0


def _zeros(n_tasks: int) -> float:
    return 0.0


WEIGHTINGS: dict[str, Row] = {
    "equal": Row(
        "the plain sum of the losses",
        Paper("Caruana", 1997, "Multitask Learning", "https://doi.org/10.1023/A:1007379606734"),
        Needs.LOSSES,
        "adapters:FromLosses",
        torchjd="scalarization:Sum",
    ),
    "fixed": Row(
        "a sum of the losses with given weights",
        Paper(
            "Xin et al.",
            2022,
            "Do Current Multi-Task Optimization Methods in Deep Learning Even Help?",
            "https://openreview.net/forum?id=A2Ya5aLtyuG",
        ),
        Needs.LOSSES,
        "adapters:FromLosses",
        torchjd="scalarization:Constant",
        settings={"weights": PerTask(_ones)},
    ),
    "scale-invariant": Row(
        "the sum of the losses' logarithms",
        NASH,
        Needs.LOSSES,
        "scale_invariant:ScaleInvariant",
        one_task="its gradient divided by its loss",
    ),
    "random": Row(
        "weights drawn anew in each step (RLW)",
        Paper(
            "Lin et al.",
            2022,
            "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning",
            "https://arxiv.org/abs/2111.10603",
        ),
        Needs.LOSSES,
        "adapters:FromLosses",
        torchjd="scalarization:Random",
        random=True,
    ),
    "uncertainty": Row(
        "weights by learned variances of the tasks",
        Paper(
            "Kendall et al.",
            2018,
            "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and "
            "Semantics",
            "https://arxiv.org/abs/1705.07115",
        ),
        Needs.LOSSES,
        "uncertainty:Uncertainty",
        settings={"kinds": WordPerTask(("regression", "classification"))},
        one_task="its gradient times 1/(2σ²), or 1/σ² for a classification",
    ),
    "revised-uncertainty": Row(
        "uncertainty weighting whose regulariser stays positive",
        Paper(
            "Liebel and Körner",
            2018,
            "Auxiliary Tasks in Multi-task Learning",
            "https://arxiv.org/abs/1805.06334",
        ),
        Needs.LOSSES,
        "uncertainty:RevisedUncertainty",
        one_task="its gradient times 1/(2σ²)",
    ),
    "dwa": Row(
        "more weight for losses that fell less over the last two epochs",
        Paper(
            "Liu et al.",
            2019,
            "End-to-End Multi-Task Learning with Attention",
            "https://arxiv.org/abs/1803.10704",
        ),
        Needs.LOSSES,
        "dwa:DynamicWeightAverage",
        settings={"temperature": Number(2.0, **RATE)},
    ),
    "geometric": Row(
        "the geometric mean of the losses (GLS)",
        Paper(
            "Chennupati et al.",
            2019,
            "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for "
            "Multi-Task Learning",
            "https://arxiv.org/abs/1904.08492",
        ),
        Needs.LOSSES,
        "adapters:FromPositiveLosses",
        torchjd="scalarization:GeometricMean",
    ),
    "imtl-l": Row(
        "learned scales that bring the losses to one size",
        IMPARTIAL,
        Needs.LOSSES,
        "imtl:BalancedLosses",
    ),
    "imtl-g": Row(
        "equal projections of the update on every gradient",
        IMPARTIAL,
        Needs.GRAMIAN,
        "adapters:FromScaledGramian",
        torchjd="aggregation:IMTLGWeighting",
    ),
    "imtl": Row(
        "IMTL-L for heads and scales, IMTL-G for the shared parameters",
        IMPARTIAL,
        Needs.GRAMIAN,
        "imtl:BalancedBoth",
    ),
    "stch": Row(
        "a smooth maximum of the weighted losses",
        Paper(
            "Lin et al.",
            2024,
            "Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
            "https://arxiv.org/abs/2402.19078",
        ),
        Needs.LOSSES,
        "adapters:FromLosses",
        torchjd="scalarization:STCH",
        settings={
            "mu": Number(0.1, **RATE),
            "weights": PerTask(_equal_shares, low=0.0, total=True),
            "reference": PerTask(_zeros),
        },
    ),
    "famo": Row(
        "weights learned so that all losses fall at one rate",
        Paper(
            "Liu et al.",
            2023,
            "FAMO: Fast Adaptive Multitask Optimization",
            "https://arxiv.org/abs/2306.03792",
        ),
        Needs.LOSSES,
        "famo:FastAdaptive",
        settings={
            "min_losses": PerTask(_zeros),
            "lr": Number(0.025, low=0.0),
            "weight_decay": Number(1e-3, low=0.0),
        },
        rerun=True,
    ),
    "cosmos": Row(
        "a weighted sum of the losses that rewards their cosine to the weights",
        Paper(
            "Ruchte and Grabocka",
            2021,
            "Scalable Pareto Front Approximation for Deep Multi-Objective Learning",
            "https://arxiv.org/abs/2103.13392",
        ),
        Needs.LOSSES,
        "adapters:FromLosses",
        torchjd="scalarization:COSMOS",
        settings={
            "lambda_": Number(1.0, low=0.0),
            "weights": PerTask(_equal_shares, low=0.0, total=True),
        },
    ),
    "pbi": Row(
        "the losses' length along the weights plus a penalty across them",
        Paper(
            "Zhang and Li",
            2007,
            "MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition",
            "https://doi.org/10.1109/TEVC.2007.892759",
        ),
        Needs.LOSSES,
        "adapters:FromLosses",
        torchjd="scalarization:PBI",
        settings={
            "theta": Number(5.0, low=0.0),
            "weights": PerTask(_ones, low=0.0, total=True),
            "reference": PerTask(_zeros),
        },
    ),
    "go4align": Row(
        "one weight for each group of tasks at similar risk",
        Paper(
            "Shen et al.",
            2024,
            "GO4Align: Group Optimization for Multi-Task Alignment",
            "https://arxiv.org/abs/2404.06486",
        ),
        Needs.LOSSES,
        "go4align:GroupAlignment",
        settings={"n_groups": Whole(2, low=1), "rate": Number(1e-4, low=0.0)},
        random=True,
    ),
    "gradnorm": Row(
        "weights learned so that gradients' norms follow the tasks' training rates",
        Paper(
            "Chen et al.",
            2018,
            "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask "
            "Networks",
            "https://arxiv.org/abs/1711.02257",
        ),
        Needs.GRAMIAN,
        "grad_norm:GradNorm",
        settings={"alpha": Number(1.5, low=0.0), "lr": Number(0.025, **RATE)},
    ),
    "mgda": Row(
        "the shortest convex combination of the gradients",
        Paper(
            "Désidéri; Sener and Koltun",
            2018,
            "Multi-Task Learning as Multi-Objective Optimization",
            "https://arxiv.org/abs/1810.04650",
        ),
        Needs.GRAMIAN,
        "adapters:FromScaledGramian",
        torchjd="aggregation:MGDAWeighting",
        settings={"epsilon": Number(0.001, **RATE), "max_iters": Whole(100, low=1)},
    ),
    "pcgrad": Row(
        "each gradient projected off those that conflict with it, in random order",
        Paper(
            "Yu et al.",
            2020,
            "Gradient Surgery for Multi-Task Learning",
            "https://arxiv.org/abs/2001.06782",
        ),
        Needs.GRAMIAN,
        "adapters:FromGramian",
        torchjd="aggregation:PCGradWeighting",
        random=True,
    ),
    "gradvac": Row(
        "cosines of the gradients pushed up to their moving means, in random order",
        Paper(
            "Wang et al.",
            2021,
            "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively "
            "Multilingual Models",
            "https://arxiv.org/abs/2010.05874",
        ),
        Needs.GRAMIAN,
        "adapters:FromScaledGramian",
        torchjd="aggregation:GradVacWeighting",
        settings={"beta": Number(0.5, low=0.0, high=1.0), "eps": Number(1e-8, low=0.0)},
        random=True,
    ),
    "graddrop": Row(
        "per parameter the gradients of one sign, drawn by their share",
        Paper(
            "Chen et al.",
            2020,
            "Just Pick a Sign: Optimizing Deep Multitask Models with Gradient Sign Dropout",
            "https://arxiv.org/abs/2010.06808",
        ),
        Needs.JACOBIAN,
        "adapters:Aggregated",
        torchjd="aggregation:GradDrop",
        settings={"leak": PerTask(_zeros, low=0.0, high=1.0)},
        random=True,
    ),
    "cagrad": Row(
        "the best worst-case progress within a ball around the mean gradient",
        Paper(
            "Liu et al.",
            2021,
            "Conflict-Averse Gradient Descent for Multi-task Learning",
            "https://arxiv.org/abs/2110.14048",
        ),
        Needs.GRAMIAN,
        "adapters:FromScaledGramian",
        torchjd="aggregation:CAGradWeighting",
        settings={"c": Number(0.5, low=0.0), "norm_eps": Number(1e-4, low=0.0)},
        extra="cagrad",
        one_task="its gradient times 1 + c",
    ),
    "nash-mtl": Row(
        "the bargaining solution between the tasks",
        NASH,
        Needs.JACOBIAN,
        "nash_mtl:NashBargaining",
        settings={
            "max_norm": Number(1.0, low=0.0),
            "update_weights_every": Whole(1, low=1),
            "optim_niter": Whole(20, low=1),
        },
        extra="nash_mtl",
        least_tasks=lambda settings: 2,
    ),
    "aligned-mtl": Row(
        "gradients made orthogonal and equally long before the mean",
        Paper(
            "Senushkin et al.",
            2023,
            "Independent Component Alignment for Multi-Task Learning",
            "https://openaccess.thecvf.com/content/CVPR2023/papers/Senushkin_Independent_Component_"
            "Alignment_for_Multi-Task_Learning_CVPR_2023_paper.pdf",
        ),
        Needs.GRAMIAN,
        "adapters:FromScaledGramian",
        torchjd="aggregation:AlignedMTLWeighting",
        settings={
            "pref_vector": PerTask(_equal_shares, low=0.0),
            "scale_mode": Choice("min", ("min", "median", "rmse")),
        },
    ),
    "fairgrad": Row(
        "the α-fair sharing of progress between the tasks",
        Paper(
            "Ban and Ji",
            2024,
            "Fair Resource Allocation in Multi-Task Learning",
            "https://arxiv.org/abs/2402.15638",
        ),
        Needs.GRAMIAN,
        "fairgrad:FairSharing",
        settings={"alpha": Number(1.0, low=0.0)},
        extra="fairgrad",
        one_task="its gradient g times |g|^(−2α / (1 + α)): at unit length for α = 1",
    ),
    "upgrad": Row(
        "the mean of the gradients, each projected to conflict with none",
        Paper(
            "Quinton and Rey",
            2024,
            "Jacobian Descent for Multi-Objective Optimization",
            "https://arxiv.org/abs/2406.16232",
        ),
        Needs.GRAMIAN,
        "adapters:FromScaledGramian",
        torchjd="aggregation:UPGradWeighting",
        settings={"pref_vector": PerTask(_equal_shares, low=0.0)},
        extra="quadprog_projector",
    ),
    "dualproj": Row(
        "the mean gradient, projected to conflict with none",
        Paper(
            "Lopez-Paz and Ranzato",
            2017,
            "Gradient Episodic Memory for Continual Learning",
            "https://arxiv.org/abs/1706.08840",
        ),
        Needs.GRAMIAN,
        "adapters:FromScaledGramian",
        torchjd="aggregation:DualProjWeighting",
        settings={"pref_vector": PerTask(_equal_shares, low=0.0)},
        extra="quadprog_projector",
    ),
    "config": Row(
        "the direction with one angle to all gradients",
        Paper(
            "Liu et al.",
            2024,
            "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks",
            "https://arxiv.org/abs/2408.11104",
        ),
        Needs.JACOBIAN,
        "adapters:Aggregated",
        torchjd="aggregation:ConFIG",
        settings={"pref_vector": PerTask(_ones, low=0.0)},
    ),
    "krum": Row(
        "the mean of the gradients that are nearest to the others",
        Paper(
            "Blanchard et al.",
            2017,
            "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent",
            "https://proceedings.neurips.cc/paper/2017/file/"
            "f4b9ec30ad9f68f89b29639786cb62ef-Paper.pdf",
        ),
        Needs.GRAMIAN,
        "adapters:FromScaledGramian",
        torchjd="aggregation:KrumWeighting",
        settings={"n_byzantine": Whole(0), "n_selected": Whole(1, low=1, within_tasks=True)},
        least_tasks=lambda settings: settings["n_byzantine"] + 3,
    ),
    "trimmed-mean": Row(
        "per parameter the mean without the largest and smallest gradients",
        Paper(
            "Yin et al.",
            2018,
            "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates",
            "https://proceedings.mlr.press/v80/yin18a/yin18a.pdf",
        ),
        Needs.JACOBIAN,
        "adapters:Aggregated",
        torchjd="aggregation:TrimmedMean",
        settings={"trim_number": Whole(1)},
        least_tasks=lambda settings: 2 * settings["trim_number"] + 1,
    ),
    "cr-mogm": Row(
        "a moving mean of the weights of another weighting",
        Paper(
            "Zhou et al.",
            2022,
            "On the Convergence of Stochastic Multi-Objective Gradient Manipulation and Beyond",
            "https://proceedings.neurips.cc/paper_files/paper/2022/file/"
            "f91bd64a3620aad8e70a27ad9cb3ca57-Paper-Conference.pdf",
        ),
        Needs.GRAMIAN,
        "cr_mogm:SmoothedWeights",
        settings={
            "of": Choice("MGDA", ("MGDA", "PCGrad", "AlignedMTL", "IMTLG", "UPGrad", "DualProj")),
            "alpha": Number(0.9, low=0.0, high=1.0),
        },
        random=True,
    ),
    "excess-mtl": Row(
        "more weight for tasks with a larger estimated excess risk",
        Paper(
            "He et al.",
            2024,
            "Robust Multi-Task Learning with Excess Risks",
            "https://arxiv.org/abs/2402.02009",
        ),
        Needs.JACOBIAN,
        "adapters:FromJacobian",
        torchjd="aggregation:ExcessMTLWeighting",
        settings={"robust_step_size": Number(1.0, **RATE), "n_warmup_steps": Whole(0)},
    ),
    "moco": Row(
        "tracked gradients with weights moved to their least norm",
        Paper(
            "Fernando et al.",
            2023,
            "Mitigating Gradient Bias in Multi-objective Learning: A Provably Convergent Approach",
            "https://openreview.net/forum?id=dLAYGdKTi2",
        ),
        Needs.JACOBIAN,
        "moco:CorrectedGradients",
        settings={
            "beta": Number(0.5, low=0.0, high=1.0, open_low=True),
            "gamma": Number(0.1, low=0.0),
            "rho": Number(0.0, low=0.0),
        },
        one_task="its tracked gradient, at the length of its loss; β times that at first",
    ),
    "modo": Row(
        "weights moved to the least norm by two independent batches",
        Paper(
            "Chen et al.",
            2023,
            "Three-Way Trade-Off in Multi-Objective Learning: Optimization, Generalization and "
            "Conflict-Avoidance",
            "https://arxiv.org/abs/2305.20057",
        ),
        Needs.TWO_BATCHES,
        "adapters:TwoBatches",
        torchjd="aggregation:MoDoWeighting",
        settings={"gamma": Number(0.1, **RATE), "rho": Number(0.1, low=0.0)},
        limits={
            "scale": "for gradients longer than about 10⁴ torchjd's projection onto the simplex "
            "rounds all weights to 0, and the shared parameters stand still"
        },
    ),
    "sdmgrad": Row(
        "weights of least norm near given preferences, by two independent batches",
        Paper(
            "Xiao et al.",
            2023,
            "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic "
            "Algorithms",
            "https://arxiv.org/abs/2305.18409",
        ),
        Needs.TWO_BATCHES,
        "adapters:TwoBatches",
        torchjd="aggregation:SDMGradWeighting",
        settings={
            "lr": Number(10.0, **RATE),
            "momentum": Number(0.5, **SHARE),
            "n_iter": Whole(20, low=1),
            "lambda_": Number(0.3, low=0.0),
            "pref_vector": PerTask(_equal_shares, low=0.0, total=True),
        },
    ),
    "db-mtl": Row(
        "smoothed gradients of the losses' logarithms, brought to one length",
        Paper(
            "Lin et al.",
            2023,
            "Dual-Balancing for Multi-Task Learning",
            "https://arxiv.org/abs/2308.12029",
        ),
        Needs.JACOBIAN,
        "db_mtl:DualBalancing",
        settings={"beta": Number(0.9, **SHARE), "decay": Number(0.0, low=0.0)},
        one_task="its smoothed gradient divided by its loss; 1 − β times that at first",
    ),
    "pcd": Row(
        "as close to the main gradient as some progress on each auxiliary allows",
        Paper(
            "Varam and AlHajri",
            2026,
            "Not All Objectives Are Born Equal: Priority-Constrained Descent for Hierarchical "
            "Multi-Objective Optimization",
            "https://openreview.net/forum?id=HT01yGHLEt",
        ),
        Needs.GRAMIAN,
        "pcd:PriorityConstrained",
        settings={
            "tau": Number(0.02, low=0.0, high=1.0),
            "beta": Number(0.999, **SHARE),
            "eps": Number(1e-8, low=0.0),
        },
        requires_main=True,
    ),
    "cosine-weighted": Row(
        "auxiliary gradients by the cosine of their angle to the main one, if positive",
        SIMILARITY,
        Needs.GRAMIAN,
        "similarity:WeightedCosine",
        requires_main=True,
    ),
    "cosine-unweighted": Row(
        "auxiliary gradients where they do not oppose the main one",
        SIMILARITY,
        Needs.GRAMIAN,
        "similarity:UnweightedCosine",
        requires_main=True,
    ),
    "tanimoto": Row(
        "auxiliary gradients by their Tanimoto similarity to the main one, if positive",
        None,
        Needs.GRAMIAN,
        "similarity:Tanimoto",
        requires_main=True,
    ),
    "projection": Row(
        "auxiliary gradients without what opposes the main one",
        Paper(
            "Tran-Thien",
            2020,
            "Censoring the auxiliary loss gradient to mitigate risks of negative transfer",
            "https://github.com/vivien000/auxiliary-learning2",
        ),
        Needs.JACOBIAN,
        "projection:Projection",
        settings={
            "weight": Number(1.0, low=0.0),
            "smoothing": Number(1.0, low=0.0, high=1.0, open_low=True),
        },
        requires_main=True,
    ),
    "ol-aux": Row(
        "weights of auxiliaries that grow while they agree with the main task",
        Paper(
            "Lin et al.",
            2019,
            "Adaptive Auxiliary Task Weighting for Reinforcement Learning",
            "https://papers.nips.cc/paper/2019/hash/0e900ad84f63618452210ab8baae0218-Abstract.html",
        ),
        Needs.GRAMIAN,
        "ol_aux:OnlineAuxiliaries",
        settings={
            "rate": Number(0.01, low=0.0),
            "horizon": Whole(5, low=1),
            "log": Flag(True),
        },
        requires_main=True,
        limits={
            "scale": "its weights grow with the squares of the gradients, without bound, and "
            "overflow with gradients of 10¹⁵"
        },
    ),
    "orthogonal": Row(
        "auxiliary gradients without what is along the main one",
        None,
        Needs.GRAMIAN,
        "projection:Orthogonal",
        settings={"weight": Number(1.0, low=0.0)},
        requires_main=True,
    ),
    "metabalance": Row(
        "auxiliary gradients near the main one's magnitude",
        Paper(
            "He et al.",
            2022,
            "MetaBalance: Improving Multi-Task Recommendations via Adapting Gradient Magnitudes "
            "of Auxiliary Tasks",
            "https://arxiv.org/abs/2203.06801",
        ),
        Needs.GRAMIAN,
        "meta_balance:MetaBalance",
        settings={
            "relax": Number(0.7, low=0.0, high=1.0),
            "beta": Number(0.9, **SHARE),
            "strategy": Choice("both", ("larger", "smaller", "both")),
        },
        requires_main=True,
    ),
    "auto-lambda": Row(
        "weights learned to lower the main task's loss on validation batches",
        Paper(
            "Liu et al.",
            2022,
            "Auto-Lambda: Disentangling Dynamic Task Relationships",
            "https://arxiv.org/abs/2202.03091",
        ),
        Needs.VALIDATION,
        "auto_lambda:AutoLambda",
        settings={"start": Number(0.1), "lr": Number(1e-4, **RATE)},
        requires_main=True,
        one_task="its gradient times λ",
    ),
}
"""By name."""
