"""Learnability studies: one file each, one table, one way to run and keep them."""

from taskdisc.studies import (
    ablation,
    adversarial_split,
    affinity,
    agreement,
    attributes,
    baseline,
    class_recovery,
    closed_form,
    clustering,
    gradient_cosine,
    gradient_cosine_toy,
    multi_task,
    near_far,
    noise,
    positives,
    probe,
    random_features,
    real_vs_random,
    scale,
    score_reliability,
    search_comparison,
    size_ratio,
    toy_valley,
)
from taskdisc.studies.study import Study

STUDIES: dict[str, Study] = {
    "baseline": baseline.STUDY,
    "ablation": ablation.STUDY,
    "size-ratio": size_ratio.STUDY,
    "positives": positives.STUDY,
    "real-vs-random": real_vs_random.STUDY,
    "random-features": random_features.STUDY,
    "clustering": clustering.STUDY,
    "adversarial-split": adversarial_split.STUDY,
    "score-reliability": score_reliability.STUDY,
    "closed-form": closed_form.STUDY,
    "search-comparison": search_comparison.STUDY,
    "class-recovery": class_recovery.STUDY,
    "noise": noise.STUDY,
    "agreement": agreement.STUDY,
    "scale": scale.STUDY,
    "attributes": attributes.STUDY,
    "mtl": multi_task.STUDY,
    "affinity": affinity.STUDY,
    "near-far": near_far.STUDY,
    "probe": probe.STUDY,
    "gradient-cosine": gradient_cosine.STUDY,
    "gradient-cosine-toy": gradient_cosine_toy.STUDY,
    "toy-valley": toy_valley.STUDY,
}


def command_of(name: str) -> str:
    """The command, after `taskdisc`, that runs a study."""
    return STUDIES[name].command or f"study {name}"
