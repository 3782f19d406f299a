"""Which yes-or-no attributes of images say the same, and which would be tasks of their own?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import Field, field_validator

from taskdisc.config import ImagesSettings, Settings
from taskdisc.errors import ImageSetError, SettingError, did_you_mean
from taskdisc.images import SOURCES, ImageSet
from taskdisc.images.measures import MEASURES, measured
from taskdisc.paper import Paper
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import COLOURS, figure_of
from taskdisc.studies.multi_task import images_of
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NUMBERED = 12
"""Attributes of which the map also has the figures."""

CHOSEN, GIVEN = "●", "○"
"""Stand in pictures beside the names of attributes that were chosen, and of those given."""

LEAF_ORDER = Paper(
    "Bar-Joseph et al.",
    2001,
    "Fast optimal leaf ordering for hierarchical clustering",
    "https://doi.org/10.1093/bioinformatics/17.suppl_1.S22",
)


class AttributesSettings(Settings):
    """The images, what is taken for an attribute, and how some are chosen."""

    images: ImagesSettings = ImagesSettings()  # all of the source where no draw is given
    # Measures of the pixels whose being above the median is an attribute, beside all targets of two
    # classes.
    measures: tuple[str, ...] = tuple(MEASURES)
    k: int = Field(8, ge=2)  # attributes to choose; fewer where there are no more
    by: Literal["least", "most"] = "least"  # correlated with each other
    given: tuple[str, ...] = ()  # attributes that the choice is held against

    @field_validator("measures")
    @classmethod
    def _known(cls, measures: tuple[str, ...]) -> tuple[str, ...]:
        for name in measures:
            if name not in MEASURES:
                raise SettingError(
                    f"`measures` must be measures of pixels, got {name!r}; "
                    f"{did_you_mean(name, MEASURES)}"
                )
        return measures


def cells(settings: AttributesSettings) -> list[Cell]:
    """One: it takes no longer than reading the images."""
    return [{"source": settings.images.source}]


def check(settings: AttributesSettings) -> None:
    """Refuse images without attributes, and given ones that are not there.

    Raises:
        SettingError: `given` has another name than those of attributes that vary.
        ImageSetError: fewer than two attributes vary.
    """
    names, values = _attributes(settings)
    varying = [
        name for name, n in zip(names, values.sum(axis=0), strict=True) if 0 < n < len(values)
    ]
    if len(varying) < 2:
        raise ImageSetError(
            f"the images of '{settings.images.source}' must have at least two attributes that some "
            f"of them have and others do not, got {len(varying)} of {len(names)}; take images "
            "with targets of two classes, or give `measures`."
        )
    for name in settings.given:
        if name not in varying:
            alike = "which all images are alike in; leave it out." if name in names else ""
            raise SettingError(
                "`given` must be attributes that some images have and others do not, got "
                f"{name!r}; {alike or did_you_mean(name, varying)}"
            )


def measure(
    settings: AttributesSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """How often each attribute is there, and φ of all pairs; null of one that all are alike in."""
    names, values = _attributes(settings)
    return {
        "n_images": len(values),
        "names": names,
        "rates": values.mean(axis=0).tolist(),
        "phi": [[None if np.isnan(v) else float(v) for v in row] for row in phi(values)],
    }


def attributes_of(images: ImageSet, measures: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Names of the attributes, and which image has which, bool [n_images, n_attributes].

    Every target of two classes is one, there where its class is the second; and every measure,
    there where it is above its median over the images. A measure that is the same of all images
    but for rounding, such as the redness of grey ones, none has.

    Raises:
        SettingError: a measure has the name of a target.
    """
    found = {name: images.targets[name] == 1 for name, of in images.classes.items() if len(of) == 2}
    for name in measures:
        if name in found:
            raise SettingError(
                f"`measures` must have other names than the targets of '{images.source}', got "
                f"{name!r}; leave it out."
            )
        values = measured(images.images, name)
        found[name] = (values > np.median(values)) & (values.std() > 1e-6)
    columns = list(found.values())
    return list(found), np.stack(columns, 1) if columns else np.empty((len(images), 0), dtype=bool)


def _attributes(settings: AttributesSettings) -> tuple[list[str], np.ndarray]:
    images, _ = images_of(settings.images, None)
    return attributes_of(images, settings.measures)


def phi(values: np.ndarray) -> np.ndarray:
    """φ of all pairs of attributes, [n, n] from −1 to 1: Pearson's correlation of yes and no.

    NaN where one of the two is the same for all images.

    Args:
        values: bool [n_images, n].
    """
    centred = values - values.mean(axis=0)
    products = centred.T @ centred
    deviations = np.sqrt(products.diagonal())
    scale = np.outer(deviations, deviations)
    # Rounded, so that what is equal on paper is a tie: its last digits depend on the order of sums.
    divided = np.divide(products, scale, out=np.full_like(products, np.nan), where=scale > 1e-12)
    return divided.round(12) + 0.0


def choose(correlations: np.ndarray, k: int, by: str) -> list[int]:
    """Positions of `k` attributes in the order in which they were chosen, greedily.

    `least`: first the pair with the smallest |φ|; then always the one whose largest |φ| with those
    chosen is smallest. `most`: first the pair with the largest |φ|; then always the one whose
    smallest |φ| with those chosen is largest. Of equals the first.

    Args:
        correlations: φ [n, n], n at least 2, without NaN.
        k: At least 2; all n where there are no more.
        by: `least` or `most`.
    """
    cost = np.abs(correlations) * (1 if by == "least" else -1)
    n = len(cost)
    firsts, seconds = np.triu_indices(n, 1)
    pair = int(cost[firsts, seconds].argmin())
    chosen = [int(firsts[pair]), int(seconds[pair])]
    while len(chosen) < min(k, n):
        worst = cost[:, chosen].max(axis=1)
        worst[chosen] = np.inf
        chosen.append(int(worst.argmin()))
    return chosen


def side_by_side(correlations: np.ndarray) -> list[int]:
    """An order [n] in which strongly correlated attributes, also negatively, are neighbours.

    That of the leaves of a tree by average linkage of 1 − |φ|, turned so that neighbours are as
    near as can be; Bar-Joseph et al. 2001.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distances = 1 - np.abs(correlations)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances), "average", optimal_ordering=True)
    return [int(place) for place in leaves_list(tree)]


class _Found:
    """A record, ready to be spoken of.

    Attributes:
        names: Of attributes that vary, in the order of the images' targets.
        alike: Of those that do not.
        rates: Of attributes that vary, the share of images with it, [n].
        phi: Of attributes that vary, [n, n].
        chosen: Positions, in the order of choice.
        given: Positions of the given ones, in their order.
        n_images: How many images.
    """

    def __init__(self, settings: AttributesSettings, record: Record) -> None:
        rates = np.array(record["rates"])
        varies = (rates > 0) & (rates < 1)
        self.names = [n for n, v in zip(record["names"], varies, strict=True) if v]
        self.alike = [n for n, v in zip(record["names"], varies, strict=True) if not v]
        self.rates = rates[varies]
        self.phi = np.array(record["phi"], dtype=float)[np.ix_(varies, varies)]
        self.chosen = choose(self.phi, settings.k, settings.by)
        self.given = [self.names.index(name) for name in settings.given]
        self.n_images = int(record["n_images"])

    def majority(self, places: Sequence[int]) -> float:
        """Mean accuracy of always guessing the more frequent answer."""
        rates = self.rates[list(places)]
        return float(np.maximum(rates, 1 - rates).mean())

    def pairs(self, places: Sequence[int]) -> np.ndarray:
        """|φ| of all pairs of some attributes."""
        own = np.abs(self.phi[np.ix_(places, places)])
        return own[np.triu_indices(len(places), 1)]

    def label(self, place: int) -> str:
        """The name, marked where it was chosen or given."""
        marks = CHOSEN * (place in self.chosen) + GIVEN * (place in self.given)
        return f"{self.names[place]} {marks}".strip()


def answer(settings: AttributesSettings, records: list[Record]) -> Answer:
    """A row for each attribute: how often it is there, and how it is correlated with the others."""
    found = _Found(settings, records[0])
    texts = {"The chosen attributes, to be trained together": _yaml(found, found.chosen, settings)}
    if found.given:
        texts["The given ones"] = _yaml(found, found.given, settings)
    order = side_by_side(found.phi)
    tall = len(found.names) > MOST_NUMBERED
    paper = SOURCES[settings.images.source].paper
    return Answer(
        [_line(found, place) for place in range(len(found.names))],
        _reading(settings, found),
        {
            "correlations": Plot(_draw_map(found, order), _caption(found), tall),
            "rates": Plot(
                _draw_rates(found),
                f"Share of the images with each attribute. {_marks(found)} Counts of all images: "
                "there is nothing to average.",
                tall,
            ),
        },
        texts=texts,
        tables={"correlations": _pairs(found)},
        papers={
            **({settings.images.source: paper} if paper else {}),
            "order of the map": LEAF_ORDER,
        },
    )


def _line(found: _Found, place: int) -> dict[str, Any]:
    others = np.abs(found.phi[place])
    others[place] = -1
    nearest = int(others.argmax())
    rate = float(found.rates[place])
    return {
        "attribute": found.names[place],
        "share of images": rate,
        "majority guess": max(rate, 1 - rate),
        "mean |φ|": float(np.delete(others, place).mean()),
        "most correlated with": found.names[nearest],
        "φ": float(found.phi[place, nearest]),
        "chosen": _rank(place, found.chosen),
        "given": _rank(place, found.given),
    }


def _rank(place: int, places: Sequence[int]) -> str:
    return str(places.index(place) + 1) if place in places else ""


def _pairs(found: _Found) -> list[dict[str, Any]]:
    firsts, seconds = np.triu_indices(len(found.names), 1)
    return [
        {"first": found.names[i], "second": found.names[j], "phi": float(found.phi[i, j])}
        for i, j in zip(firsts, seconds, strict=True)
    ]


def _reading(settings: AttributesSettings, found: _Found) -> str:
    n = len(found.names)
    everything = list(range(n))
    firsts, seconds = np.triu_indices(n, 1)
    strongest = int(np.abs(found.phi[firsts, seconds]).argmax())
    i, j = int(firsts[strongest]), int(seconds[strongest])
    sentences = [
        f"{found.n_images:,} images, {n} attributes: two of them have |φ| "
        f"{found.pairs(everything).mean():.3f} on average, {found.names[i]} and "
        f"{found.names[j]} the most, φ = {found.phi[i, j]:+.3f}."
    ]
    if found.alike:
        sentences.append(f"Left out, for all images are alike in it: {', '.join(found.alike)}.")
    how = "least" if settings.by == "least" else "most"
    asked = "" if len(found.chosen) == settings.k else f" of {settings.k} that were asked for"
    sentences.append(
        f"The {len(found.chosen)}{asked}, {how} correlated with each other: "
        f"{_group(found, found.chosen)}."
    )
    if found.given:
        sentences.append(f"The {len(found.given)} given: {_group(found, found.given)}.")
    sentences.append(
        f"With {found.n_images:,} images a φ near 0 has a standard error of "
        f"{found.n_images**-0.5:.3f}."
    )
    return " ".join(sentences)


def _group(found: _Found, places: Sequence[int]) -> str:
    names = ", ".join(found.names[place] for place in places)
    pairs = found.pairs(places)
    said = f"{names}; "
    if len(pairs):
        said += f"|φ| {pairs.mean():.3f} on average, {pairs.max():.3f} at most; "
    return (
        f"{said}always guessing the more frequent answer is right in "
        f"{100 * found.majority(places):.2f} % of all cases"
    )


def _yaml(found: _Found, places: Sequence[int], settings: AttributesSettings) -> str:
    tasks = {}
    for place in places:
        name = found.names[place]
        kind = "regression" if name in settings.measures else "binary"
        tasks[name] = {"kind": kind, "of": name}
    text = yaml.safe_dump({"tasks": tasks}, sort_keys=False, default_flow_style=None, width=200)
    if any(task["kind"] == "regression" for task in tasks.values()):
        text = (
            "# A measure of pixels is a task of its value, not of being above the median.\n" + text
        )
    return text


def _marks(found: _Found) -> str:
    return f"{CHOSEN}: chosen." + (f" {GIVEN}: given." if found.given else "")


def _caption(found: _Found) -> str:
    return (
        "φ of all pairs; neighbours are strongly correlated, negatively too. "
        f"{_marks(found)} Counts of all images: there is nothing to average."
    )


def _draw_map(found: _Found, order: Sequence[int]) -> "Figure":
    n = len(order)
    side = 2.6 + max(0.24 * n, 0.5 * min(n, MOST_NUMBERED))
    figure, (axes,) = figure_of(width=side + 0.6, height=side)
    shown = found.phi[np.ix_(order, order)]
    image = axes.imshow(shown, cmap="RdBu_r", vmin=-1, vmax=1)
    axes.grid(False)
    labels = [found.label(place) for place in order]
    axes.set_xticks(range(n), labels, rotation=90, fontsize=8)
    axes.set_yticks(range(n), labels, fontsize=8)
    if n <= MOST_NUMBERED:
        for (row, column), value in np.ndenumerate(shown):
            colour = "white" if abs(value) > 0.6 else "black"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour
            )
    figure.colorbar(image, ax=axes, shrink=0.6, label="φ")
    return figure


def _draw_rates(found: _Found) -> "Figure":
    order = np.argsort(found.rates, kind="stable")
    figure, (axes,) = figure_of(width=9.0, height=1.0 + 0.2 * len(order))
    colours = [COLOURS[1] if place in found.chosen else COLOURS[0] for place in order]
    axes.barh(range(len(order)), found.rates[order], color=colours)
    axes.set_yticks(range(len(order)), [found.label(place) for place in order], fontsize=8)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.axvline(0.5, color="black", linewidth=0.8)
    axes.set(xlim=(0, 1), xlabel="share of the images")
    return figure


STUDY = Study(
    "which attributes of images say the same, and which are tasks of their own?",
    AttributesSettings,
    cells,
    measure,
    answer,
    check,
    texts_title="Tasks",
    exact=True,
    words={
        "φ": "The correlation of two yes-or-no attributes over the images: 1 where the same images "
        "have both, −1 where each image has one of them, 0 where one says nothing of the other.",
        "least": "First the pair with the smallest |φ|, then always the attribute whose largest "
        "|φ| with those chosen is smallest; of equals the first.",
        "most": "First the pair with the largest |φ|, then always the attribute whose smallest |φ| "
        "with those chosen is largest; of equals the first.",
        "majority guess": "The accuracy of always giving the more frequent answer, which takes no "
        "look at an image.",
    },
)
