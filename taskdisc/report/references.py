"""What a run rests on, as data: one row per work, and when a run has used it."""

from collections.abc import Callable
from dataclasses import dataclass

from taskdisc.config import SearchSettings
from taskdisc.discovery.proposers import PROPOSERS


@dataclass(frozen=True)
class Reference:
    """One row of `REFERENCES`.

    Attributes:
        citation: Authors, year, title and place.
        url: Where it is.
        used_for: Its part in a run.
        used_by: Whether a run with these settings has used it.
    """

    citation: str
    url: str
    used_for: str
    used_by: Callable[[SearchSettings], bool]


def references_of(settings: SearchSettings) -> dict[str, Reference]:
    """The works that a run with these settings has used, by key."""
    return {key: row for key, row in REFERENCES.items() if row.used_by(settings)}


def _always(settings: SearchSettings) -> bool:
    return True


def _from_nevergrad(settings: SearchSettings) -> bool:
    return settings.proposer not in PROPOSERS


def _by_differential_evolution(settings: SearchSettings) -> bool:
    return _from_nevergrad(settings) and "DE" in settings.proposer


def _by_swaps(settings: SearchSettings) -> bool:
    return settings.proposer in ("swap", "spectral") or settings.warm_start > 0


def _by_tangent(settings: SearchSettings) -> bool:
    return settings.uses_closed_form and "tangent" in settings.closed_form.kernel


def _by_random_features(settings: SearchSettings) -> bool:
    used = (settings.closed_form.features, *settings.closed_form.kernel.split("+"))
    return settings.uses_closed_form and "random" in used


def _on(*sources: str) -> Callable[[SearchSettings], bool]:
    return lambda settings: settings.images.source in sources


REFERENCES: dict[str, Reference] = {
    "atanov2022": Reference(
        "Atanov, A., Filatov, A., Yeo, T., Sohmshetty, A., Zamir, A. (2022). Task Discovery: "
        "Finding the Tasks that Neural Networks Generalize on. NeurIPS 35.",
        "https://arxiv.org/abs/2212.00261",
        "the idea of searching for tasks. Its repository has a class TasknessScore, which measures "
        "another quantity than the taskness of this page.",
        _always,
    ),
    "lecun1998": Reference(
        "LeCun, Y., Bottou, L., Bengio, Y., Haffner, P. (1998). Gradient-based learning applied to "
        "document recognition. Proceedings of the IEEE 86(11), 2278–2324.",
        "https://doi.org/10.1109/5.726791",
        "LeNet, the network that is trained.",
        _always,
    ),
    "kingma2015": Reference(
        "Kingma, D. P., Ba, J. (2015). Adam: A Method for Stochastic Optimization. ICLR.",
        "https://arxiv.org/abs/1412.6980",
        "how it is trained.",
        _always,
    ),
    "nevergrad": Reference(
        "Rapin, J., Teytaud, O. (2018). Nevergrad: A gradient-free optimization platform.",
        "https://github.com/facebookresearch/nevergrad",
        "the proposer of labelings.",
        _from_nevergrad,
    ),
    "storn1997": Reference(
        "Storn, R., Price, K. (1997). Differential Evolution: A Simple and Efficient Heuristic for "
        "Global Optimization over Continuous Spaces. Journal of Global Optimization 11, 341–359.",
        "https://doi.org/10.1023/A:1008202821328",
        "the algorithm of the proposer.",
        _by_differential_evolution,
    ),
    "allen1974": Reference(
        "Allen, D. M. (1974). The Relationship between Variable Selection and Data Augmentation "
        "and a Method for Prediction. Technometrics 16(1), 125–127.",
        "https://doi.org/10.1080/00401706.1974.10489157",
        "the closed form: what leaving one image out would give.",
        lambda settings: settings.uses_closed_form,
    ),
    "jacot2018": Reference(
        "Jacot, A., Gabriel, F., Hongler, C. (2018). Neural Tangent Kernel: Convergence and "
        "Generalization in Neural Networks. NeurIPS 31.",
        "https://arxiv.org/abs/1806.07572",
        "the kernel of the closed form.",
        _by_tangent,
    ),
    "coates2011": Reference(
        "Coates, A., Ng, A., Lee, H. (2011). An Analysis of Single-Layer Networks in Unsupervised "
        "Feature Learning. AISTATS, PMLR 15, 215–223.",
        "https://proceedings.mlr.press/v15/coates11a.html",
        "the random features of the closed form.",
        _by_random_features,
    ),
    "glover1989": Reference(
        "Glover, F. (1989). Tabu Search, Part I. ORSA Journal on Computing 1(3), 190–206.",
        "https://doi.org/10.1287/ijoc.1.3.190",
        "how swap search goes on beyond a local optimum.",
        _by_swaps,
    ),
    "phipson2010": Reference(
        "Phipson, B., Smyth, G. K. (2010). Permutation P-values Should Never Be Zero. Statistical "
        "Applications in Genetics and Molecular Biology 9(1), 39.",
        "https://doi.org/10.2202/1544-6115.1585",
        "p from random labelings.",
        _always,
    ),
    "benjamini1995": Reference(
        "Benjamini, Y., Hochberg, Y. (1995). Controlling the False Discovery Rate: A Practical and "
        "Powerful Approach to Multiple Testing. Journal of the Royal Statistical Society B 57(1), "
        "289–300.",
        "https://doi.org/10.1111/j.2517-6161.1995.tb02031.x",
        "the adjustment of p.",
        _always,
    ),
    "digits": Reference(
        "Alpaydin, E., Kaynak, C. (1998). Optical Recognition of Handwritten Digits. UCI Machine "
        "Learning Repository; via scikit-learn.",
        "https://doi.org/10.24432/C50P49",
        "the images.",
        _on("digits"),
    ),
    "krizhevsky2009": Reference(
        "Krizhevsky, A. (2009). Learning Multiple Layers of Features from Tiny Images. Technical "
        "report, University of Toronto.",
        "https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf",
        "the images.",
        _on("cifar10", "cifar100"),
    ),
    "le2015": Reference(
        "Le, Y., Yang, X. (2015). Tiny ImageNet Visual Recognition Challenge. CS 231N, Stanford "
        "University.",
        "http://cs231n.stanford.edu/reports/2015/pdfs/yle_project.pdf",
        "the images.",
        _on("tiny-imagenet"),
    ),
    "liu2015": Reference(
        "Liu, Z., Luo, P., Wang, X., Tang, X. (2015). Deep Learning Face Attributes in the Wild. "
        "ICCV.",
        "https://arxiv.org/abs/1411.7766",
        "the images (CelebA).",
        _on("celeba"),
    ),
}
