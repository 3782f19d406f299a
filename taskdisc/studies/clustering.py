"""Can clusters of labelings stand for the space of labelings? Random ones, two algorithms."""

from math import comb
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from taskdisc.config import Settings
from taskdisc.errors import SettingError
from taskdisc.labelings import canonical, encode, n_positives, random_labelings
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.drawing import band, figure_of
from taskdisc.studies.estimates import mean_and_sem, plus_minus, sign_of
from taskdisc.studies.study import Answer, Cell, Plot, Record, Study

K_MEANS = "k-means"

PUBLISHED: dict[tuple[int, int, int], dict[int, float]] = {
    (20, 4, 150): {
        1_000: 20.1,
        2_000: 22.5,
        3_000: 23.3,
        5_000: 24.0,
        10_000: 25.1,
        20_000: 25.4,
        50_000: 25.4,
        100_000: 25.4,
    },
    (100, 9, 1_000): {20_000: 51.0},
}
"""What the source work reports: mean cluster ablation [%], by images, ratio, clusters; labelings.

At 50,000 and 100,000 it says only that the figure stays as it is. For its 100 images it names no
ratio: 1:9 gives its figure, 1:4 gives 48.
"""

N_FRESH = 2_000
"""Labelings drawn afresh, to see how near the nearest centroid is to any labeling."""

_MEASURED = ("mean_cluster_ablation", "mean_member_ablation", "fresh_ablation", "drawn_ablation")

_LEAST_BANDWIDTH = 0.1
"""Stands for a bandwidth of 0; two different labelings are √2 apart at least."""


def n_possible(n_images: int, ratio: int) -> int:
    """Different labelings of some images; at 1:1 one of labeling and flip."""
    n_pos = n_positives(n_images, ratio)
    return comb(n_images, n_pos) // (2 if ratio == 1 else 1)


class ClusteringCase(Settings):
    """Some images, and into how many clusters which numbers of their labelings are put."""

    n_images: int = Field(20, ge=2, le=1000)
    ratio: int = Field(4, ge=1)  # negatives to one positive
    n_clusters: int = Field(150, ge=1)
    n_labelings: tuple[int, ...] = Field((500, 1_000, 2_000, 5_000, 10_000, 20_000), min_length=1)

    @model_validator(mode="after")
    def _clusters_can_be_filled(self) -> "ClusteringCase":
        possible = n_possible(self.n_images, self.ratio)
        least = min(*self.n_labelings, possible)
        if self.n_clusters > least:
            raise SettingError(
                f"`n_clusters` must be at most the number of labelings, {least} here "
                f"(`n_labelings` is {min(self.n_labelings)} at least, and {self.n_images} "
                f"images have {possible} different ones at 1:{self.ratio}), got "
                f"{self.n_clusters}; lower it."
            )
        return self


class MeanShiftSettings(Settings):
    """Up to how many labelings mean-shift is run as well, and how wide it looks."""

    most_labelings: int = Field(500, ge=0)  # its time grows with their square
    # Bandwidth: mean distance to the farthest of this share of the labelings that are nearest.
    quantiles: tuple[float, ...] = (0.01, 0.1)

    @model_validator(mode="after")
    def _are_shares(self) -> "MeanShiftSettings":
        for quantile in self.quantiles:
            if not 0 < quantile <= 1:
                raise SettingError(
                    "`mean_shift.quantiles` must be shares of the labelings, above 0 and up to 1, "
                    f"got {quantile:g}."
                )
        return self


class ClusteringSettings(Settings):
    """What is clustered, how, and how often."""

    cases: tuple[ClusteringCase, ...] = Field(
        (
            ClusteringCase(),
            ClusteringCase(n_images=100, n_clusters=300, n_labelings=(500, 1_000, 2_000, 5_000)),
        ),
        min_length=1,
    )
    mean_shift: MeanShiftSettings = MeanShiftSettings()
    n_seeds: int = Field(3, ge=2)  # repeats: other labelings, other starts
    seed: int = Field(0, ge=0)


def cells(settings: ClusteringSettings) -> list[Cell]:
    """One per case, number of labelings, algorithm and repeat; the longest first."""
    named = {}
    for case in settings.cases:
        for n_labelings in case.n_labelings:
            algorithms = {K_MEANS: case.n_clusters}
            if n_labelings <= settings.mean_shift.most_labelings:
                # It finds the number of clusters by itself, so cases that differ in it share this.
                algorithms |= {f"mean-shift {q:g}": 0 for q in settings.mean_shift.quantiles}
            for algorithm, n_clusters in algorithms.items():
                for repeat in range(settings.n_seeds):
                    cell = {
                        "n_images": case.n_images,
                        "ratio": case.ratio,
                        "n_clusters": n_clusters,
                        "n_labelings": n_labelings,
                        "algorithm": algorithm,
                        "seed": settings.seed + repeat,
                    }
                    named[tuple(cell.values())] = cell
    return sorted(named.values(), key=lambda cell: -_cost(cell))


def _cost(cell: Cell) -> int:
    """What a cell takes, in some unit: the distances that are computed."""
    others = cell["n_clusters"] or 100 * cell["n_labelings"]
    return int(cell["n_images"] * cell["n_labelings"] * others)


def measure(
    settings: ClusteringSettings, cell: Cell, pool: Pool, progress: Progress
) -> dict[str, Any]:
    """Cluster random labelings; ablations in percent."""
    n_images, ratio, n_labelings = cell["n_images"], cell["ratio"], cell["n_labelings"]
    n_pos = n_positives(n_images, ratio)
    rng = np.random.default_rng([cell["seed"], n_images, ratio, n_labelings])
    labelings = _drawn(n_labelings, n_images, n_pos, rng)
    fresh = _drawn(N_FRESH, n_images, n_pos, rng)
    distinct, counts = np.unique(labelings, axis=0, return_counts=True)
    if cell["algorithm"] == K_MEANS:
        n_clusters = min(cell["n_clusters"], len(distinct))
        model = k_means(distinct, counts, n_clusters, cell["seed"])
    else:
        model = _mean_shift(labelings, float(cell["algorithm"].split()[1]))
    members = model.predict(distinct.astype(np.float32))
    centroids = np.array([encode(centroid, n_pos) for centroid in model.cluster_centers_])
    away = ablations_to(distinct, centroids[members])
    per_cluster = cluster_means(away, counts, members)
    others = _drawn(len(per_cluster), n_images, n_pos, rng)
    return {
        "mean_cluster_ablation": 100 * float(per_cluster.mean()),
        "mean_member_ablation": 100 * float(np.average(away, weights=counts)),
        "fresh_ablation": 100 * ablation_of_nearest(fresh, centroids),
        "drawn_ablation": 100 * ablation_of_nearest(fresh, others),
        "n_found": len(per_cluster),
        "n_distinct": len(distinct),
    }


def ablation_of_nearest(labelings: np.ndarray, others: np.ndarray) -> float:
    """Mean ablation of labelings [n, n_images] to the nearest of others [n_others, n_images]."""
    n_pos = int(labelings[0].sum())
    common = labelings.astype(np.float32) @ others.T.astype(np.float32) / n_pos
    if 2 * n_pos == labelings.shape[1]:
        common = np.maximum(common, 1 - common)
    return float(1 - common.max(axis=1).mean())


def _drawn(n: int, n_images: int, n_pos: int, rng: np.random.Generator) -> np.ndarray:
    """Random labelings uint8 [n, n_images], each as `canonical` has it."""
    labelings = random_labelings(n, n_images, n_pos, rng)
    return np.array([canonical(labeling) for labeling in labelings])


def k_means(distinct: np.ndarray, counts: np.ndarray, n_clusters: int, seed: int) -> Any:
    """Fitted k-means of labelings [n_distinct, n_images], each as often as it counts."""
    from sklearn.cluster import KMeans

    model = KMeans(n_clusters, init="k-means++", n_init=1, random_state=seed)
    return model.fit(distinct.astype(np.float32), sample_weight=counts)


def _mean_shift(labelings: np.ndarray, quantile: float) -> Any:
    from sklearn.cluster import MeanShift, estimate_bandwidth

    points = labelings.astype(np.float32)
    bandwidth = max(float(estimate_bandwidth(points, quantile=quantile)), _LEAST_BANDWIDTH)
    return MeanShift(bandwidth=bandwidth).fit(points)


def ablations_to(labelings: np.ndarray, others: np.ndarray) -> np.ndarray:
    """`ablation` of each labeling [n, n_images] to the one in its row of `others` [n, n_images]."""
    n_pos = int(labelings[0].sum())
    common = (labelings & others).sum(axis=1) / n_pos
    if 2 * n_pos == labelings.shape[1]:
        common = np.maximum(common, 1 - common)
    return 1 - common


def cluster_means(values: np.ndarray, counts: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Mean value of every cluster that has members, each value as often as it counts.

    Args:
        values: Of each labeling [n].
        counts: How often it was drawn [n].
        members: Its cluster [n].
    """
    sums, sizes = np.bincount(members, counts * values), np.bincount(members, counts)
    return sums[sizes > 0] / sizes[sizes > 0]


def chance(n_images: int, ratio: int) -> float:
    """Expected ablation [%] of two labelings drawn at random: 1 − 1 / (R + 1), less at 1:1."""
    n_pos = n_positives(n_images, ratio)
    in_common = range(max(0, 2 * n_pos - n_images), n_pos + 1)
    expected = 0.0
    for n in in_common:
        share = n / n_pos if ratio > 1 else max(n, n_pos - n) / n_pos
        pairs = comb(n_pos, n) * comb(n_images - n_pos, n_pos - n)
        expected += pairs / comb(n_images, n_pos) * (1 - share)
    return 100 * expected


def answer(settings: ClusteringSettings, records: list[Record]) -> Answer:
    """Mean cluster ablation, by images, clusters, labelings and algorithm.

    Beside it the mean over labelings instead of over clusters; that of labelings which were not
    clustered (fresh), to their nearest centroid and to the nearest of as many random labelings
    (drawn); and what the source work reports.
    """
    groups = _groups(records)
    table = [_row(rows) for rows in groups]
    return Answer(table, _reading(groups), {"clustering": _draw(groups)})


def _groups(records: list[Record]) -> list[list[Record]]:
    """Records that differ in their seed alone, together; in the order of the columns."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault((*_case(record), record["n_labelings"]), []).append(record)
    return [groups[key] for key in sorted(groups)]


def _case(record: Record) -> tuple[int, int, str, int]:
    return record["n_images"], record["ratio"], record["algorithm"], record["n_clusters"]


def _row(rows: list[Record]) -> dict[str, Any]:
    first = rows[0]
    n_images, ratio, n_labelings = first["n_images"], first["ratio"], first["n_labelings"]
    values = {name: mean_and_sem(_values(rows, name)) for name in _MEASURED}
    return {
        "n_images": n_images,
        "ratio": ratio,
        "n_clusters": first["n_clusters"] or float(np.mean(_values(rows, "n_found"))),
        "n_labelings": n_labelings,
        "mean_cluster_ablation": float(values["mean_cluster_ablation"][0]),
        "mean_cluster_ablation_sem": float(values["mean_cluster_ablation"][1]),
        "n_seeds": len(rows),
        "algorithm": first["algorithm"],
        "n_distinct": float(np.mean(_values(rows, "n_distinct"))),
        "n_possible": float(n_possible(n_images, ratio)),
        "mean_member_ablation": float(values["mean_member_ablation"][0]),
        "mean_member_ablation_sem": float(values["mean_member_ablation"][1]),
        "fresh_ablation": float(values["fresh_ablation"][0]),
        "fresh_ablation_sem": float(values["fresh_ablation"][1]),
        "drawn_ablation": float(values["drawn_ablation"][0]),
        "drawn_ablation_sem": float(values["drawn_ablation"][1]),
        "chance": chance(n_images, ratio),
        "published": _published(first).get(n_labelings),
    }


def _values(rows: list[Record], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=float)


def _published(record: Record) -> dict[int, float]:
    return PUBLISHED.get((record["n_images"], record["ratio"], record["n_clusters"]), {})


def _reading(groups: list[list[Record]]) -> str:
    largest = {_case(rows[0]): rows for rows in groups}  # in rising number of labelings
    of_k_means = [rows for rows in largest.values() if rows[0]["algorithm"] == K_MEANS]
    sentences = [_of_case(rows) for rows in of_k_means]
    shifted = [row for rows in largest.values() if rows not in of_k_means for row in rows]
    if shifted:
        ablations = [row["mean_cluster_ablation"] for row in shifted]
        found = [row["n_found"] for row in shifted]
        sentences.append(
            f"Mean-shift finds {min(found)} to {max(found)} clusters, of {min(ablations):.0f} to "
            f"{max(ablations):.0f} %."
        )
    gaps = [
        (abs(float(_values(rows, "mean_cluster_ablation").mean()) - value), rows[0])
        for rows in groups
        for value in [_published(rows[0]).get(rows[0]["n_labelings"])]
        if value is not None
    ]
    if gaps:
        gap, at = max(gaps, key=lambda pair: pair[0])
        sentences.append(
            f"What the source work reports of these ({len(gaps)} of the rows) is met within "
            f"{gap:.1f} points, the farthest at {at['n_images']} images and "
            f"{at['n_labelings']:,} labelings; beyond 20,000 labelings of 20 images it says only "
            "that the figure stays, and of 100 images it names no ratio: 1:9 is the one that fits."
        )
    sentences.append(f"Means ± s.e. over {len(groups[0])} repeats.")
    return " ".join(sentences)


def _of_case(rows: list[Record]) -> str:
    """What k-means of the most labelings of a case comes to."""
    first = rows[0]
    by_chance = chance(first["n_images"], first["ratio"])
    fresh, drawn = _values(rows, "fresh_ablation"), _values(rows, "drawn_ablation")
    better = {
        1: "clearly better than",
        0: "not to be told from",
        -1: "clearly worse than",
    }[sign_of(drawn - fresh)]
    return (
        f"{first['n_images']} images at 1:{first['ratio']}: k-means puts "
        f"{first['n_labelings']:,} labelings ({np.mean(_values(rows, 'n_distinct')):,.0f} "
        f"different of {_in_words(n_possible(first['n_images'], first['ratio']))}) into "
        f"{first['n_clusters']:,} clusters of mean ablation "
        f"{plus_minus(_values(rows, 'mean_cluster_ablation'), 1)} %; labelings drawn afresh are "
        f"{plus_minus(fresh, 1)} % from the nearest centroid, which is {better} as many labelings "
        f"drawn at random ({plus_minus(drawn, 1)} %), where two labelings are {by_chance:.0f} % "
        "apart."
    )


def _in_words(number: int) -> str:
    return f"{number:,} possible" if number < 10**9 else f"{float(number):.0e} possible"


def _draw(groups: list[list[Record]]) -> Plot:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    panels = list(dict.fromkeys((rows[0]["n_images"], rows[0]["ratio"]) for rows in groups))
    figure, axes = figure_of(len(panels), width=4.6, height=4.4, share_y=True)
    for axis, panel in zip(axes, panels, strict=True):
        curves: dict[tuple[Any, ...], list[list[Record]]] = {}
        for rows in groups:
            if (rows[0]["n_images"], rows[0]["ratio"]) == panel:
                curves.setdefault(_case(rows[0]), []).append(rows)
        for curve in curves.values():
            _draw_curve(axis, curve)
        axis.axhline(chance(*panel), color="0.3", linestyle="--", linewidth=1)
        axis.annotate(
            "chance", (1, chance(*panel)), (-4, 3), ("axes fraction", "data"),
            textcoords="offset points", ha="right", color="0.3", fontsize=8,
        )  # fmt: skip
        largest = max(rows[0]["n_labelings"] for curve in curves.values() for rows in curve)
        if n_possible(*panel) <= largest:
            axis.axvline(n_possible(*panel), color="0.5", linestyle=":", linewidth=1)
            axis.annotate(
                f"{n_possible(*panel):,} are possible", (n_possible(*panel), 0.02), (3, 0),
                ("data", "axes fraction"), textcoords="offset points", color="0.3", fontsize=8,
            )  # fmt: skip
        axis.set(xscale="log", xlabel="random labelings", title=f"{panel[0]} images, 1:{panel[1]}")
        axis.set_ylim(0, 100)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.tick_params(axis="x", labelsize=7)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, frameon=False)
    axes[0].set_ylabel("mean cluster ablation [%]")
    n = len(groups[0])
    return Plot(
        figure,
        "Share of its positives that a labeling does not have in common with the rounded centroid "
        "of its cluster, mean within each cluster and then over clusters, and the mean of "
        f"{N_FRESH:,} labelings drawn afresh to the nearest rounded centroid. Bands: ± "
        f"s.e. over {n} repeats (other labelings and starts). Hollow circles: the source work. "
        "Dashed: the mean distance of two random labelings. Dotted: as many as are possible. "
        "Of mean-shift the number is the quantile that its bandwidth comes from.",
    )


def _draw_curve(axis: Any, curve: list[list[Record]]) -> None:
    """Draw what one algorithm gives against the number of labelings."""
    first = curve[0][0]
    x = [rows[0]["n_labelings"] for rows in curve]
    name = first["algorithm"]
    if first["n_clusters"]:
        name += f", {first['n_clusters']:,} clusters"
    for column, what in (
        ("mean_cluster_ablation", "clustered"),
        ("fresh_ablation", "drawn afresh"),
    ):
        values = np.array([_values(rows, column) for rows in curve]).T
        band(axis, x, values, f"{name}: {what}")
    published = {n: value for n, value in _published(first).items() if n in x}
    if published:
        axis.plot(
            list(published),
            list(published.values()),
            linestyle="",
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor="black",
            label="source work",
        )


STUDY = Study(
    "can clusters of labelings stand for the space of labelings?",
    ClusteringSettings,
    cells,
    measure,
    answer,
)
