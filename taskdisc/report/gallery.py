"""The gallery of a run: one file to look through its labelings, name them, keep or drop them."""

import base64
import hashlib
import io
import json
import shlex
from math import ceil, sqrt
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from taskdisc.discovery.export import KEEP_SCHEMA
from taskdisc.folder import REPORT
from taskdisc.labelings import ablations, to_hex
from taskdisc.report.facts import Candidate, Facts
from taskdisc.report.layout import plane, stress
from taskdisc.report.plots import number
from taskdisc.report.templates import p_text, source, templates

MAP_WIDTH, MAP_HEIGHT, _MAP_MARGIN = 400, 340, 30

_MOST_CLASSES = 6
"""Known classes that are told of a labeling, by target."""


def render_gallery(facts: Facts) -> str:
    """The gallery of a finished run as HTML; whatever comes from the files of the run is escaped.

    Its pictures are those of the run folder, whose number `MOST_PICTURED` bounds.
    """
    environment = templates()
    positions = sorted(facts.pictures)
    style = source(environment, "page.css") + source(environment, "gallery.css")
    columns = ceil(sqrt(len(positions)))
    if positions:
        style += _sheet([facts.pictures[i] for i in positions], columns)
    script = source(environment, "gallery.js")
    return environment.get_template("gallery.html.j2").render(
        facts=facts,
        report=REPORT,
        style=style,
        script=script,
        data=_json(_data(facts, positions, columns)),
        n_pictured=len(positions),
        export_command=f"taskdisc export {shlex.quote(str(facts.folder))} --keep keep.json",
    )


def _data(facts: Facts, positions: list[int], columns: int) -> dict[str, Any]:
    """What the script of the page works on."""
    assert facts.null is not None
    candidates = facts.candidates
    labelings = np.zeros((len(candidates), facts.n_images), dtype=np.uint8)
    for labeling, candidate in zip(labelings, candidates, strict=True):
        labeling[list(candidate.positives)] = 1
    distances = ablations(labelings)
    points = plane(distances)
    # A browser remembers decisions by what they are about, wherever the run folder lies.
    content = " ".join([facts.content, *sorted(candidate.key for candidate in candidates)])
    return {
        "schema": KEEP_SCHEMA,
        "run": facts.name,
        "images": facts.content,
        "memory": "taskdisc-" + hashlib.sha256(content.encode()).hexdigest()[:16],
        "report": REPORT,
        "threshold": facts.null.threshold,
        "nImages": facts.n_images,
        "nPositives": facts.n_positives,
        "positions": positions,
        "columns": columns,
        "targets": list(facts.recovered),
        "map": {"width": MAP_WIDTH, "height": MAP_HEIGHT, "stress": stress(distances, points)},
        "labelings": [
            {
                **_labeling(candidate),
                "positives": to_hex(labeling[positions]),
                "nearest": _nearest(candidates, i, distances[i]),
                "point": point,
            }
            for i, (candidate, labeling, point) in enumerate(
                zip(candidates, labelings, _placed(points), strict=True)
            )
        ],
    }


def _labeling(candidate: Candidate) -> dict[str, Any]:
    evidence = candidate.evidence
    assert evidence is not None
    return {
        "key": candidate.key,
        "number": candidate.number,
        "isTask": candidate.is_task,
        "taskness": evidence.mean,
        "tasknessText": f"{number(evidence.mean)} ± {number(evidence.sem)}",
        "evidence": [
            ["Splits", f"{evidence.n_splits} fresh ones"],
            ["p", f"{p_text(evidence.p)}, adjusted {p_text(evidence.p_adjusted)}"],
            ["Seen by the search", f"{number(candidate.seen)} in trial {candidate.trial}"],
        ],
        "match": candidate.match,
        "classes": {
            target: list(counts.items())[:_MOST_CLASSES]
            for target, counts in candidate.known_classes.items()
        },
    }


def _nearest(
    candidates: tuple[Candidate, ...], own: int, distances: np.ndarray
) -> dict[str, float] | None:
    """Number and distance of the nearest other task; None where there is no other."""
    others = [i for i, other in enumerate(candidates) if i != own and other.is_task]
    if not others:
        return None
    nearest = min(others, key=lambda i: (distances[i], i))
    return {"number": candidates[nearest].number, "ablation": float(distances[nearest])}


def _placed(points: np.ndarray) -> list[list[float]]:
    """Points of a map in the user units of its picture, the same scale along both axes."""
    room = np.array([MAP_WIDTH, MAP_HEIGHT]) - 2 * _MAP_MARGIN
    low, high = points.min(axis=0), points.max(axis=0)
    scale = float((room / np.maximum(high - low, 1e-9)).min())
    middle = np.array([MAP_WIDTH, MAP_HEIGHT]) / 2
    return (middle + (points - (low + high) / 2) * scale).round(1).tolist()


def _sheet(images: list[np.ndarray], columns: int) -> Markup:
    """The style of a window on one picture of all images, side by side without gaps."""
    height, width = images[0].shape[:2]
    rows = ceil(len(images) / columns)
    sheet = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height, x : x + width] = image
    grey = (sheet == sheet[..., :1]).all()  # a third of the bytes
    file = io.BytesIO()
    Image.fromarray(sheet[..., 0] if grey else sheet).save(file, "PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    # Positions of backgrounds are shares of the room that is left, hence a row less one.
    across, down = max(columns - 1, 1), max(rows - 1, 1)
    return Markup(
        f".tile {{ background-image: url({uri}); "
        f"background-size: {columns}00% {rows}00%; --across: {across}; --down: {down}; }}\n"
    )


def _json(value: Any) -> Markup:
    """JSON that cannot end the element it stands in."""
    return Markup(json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))
