"""The pages of a run: files that need nothing else, from the facts of its folder."""

import base64
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from taskdisc.discovery.folder import GALLERY, RESULT, TRIALS
from taskdisc.errors import RunFailedError
from taskdisc.files import write_atomic
from taskdisc.folder import REPORT
from taskdisc.report import plots
from taskdisc.report.facts import Candidate, Facts, read_facts, reading
from taskdisc.report.gallery import render_gallery
from taskdisc.report.references import references_of
from taskdisc.report.templates import source, templates
from taskdisc.taskness.confirm import LEVEL
from taskdisc.taskness.kernels import MEASURED_ON, ridge_of
from taskdisc.taskness.protocol import WINDOW


def write_report(folder: Path) -> Path:
    """Write `report.html` of a run folder, finished or not, and return its path.

    Beside it, a finished run gets `gallery.html`.

    Raises:
        RunFolderError: no run folder, or one of its files is damaged.
        RunFailedError: the page cannot be written.
    """
    facts = read_facts(folder)
    with reading(folder / (RESULT if facts.is_finished else TRIALS)):
        gallery = render_gallery(facts) if facts.is_finished else None
        page = render(facts)
    try:
        if gallery is not None:
            write_atomic(folder / GALLERY, gallery)
        write_atomic(folder / REPORT, page)
    except OSError as error:
        raise RunFailedError(
            f"the report must go to a folder that can be written, got '{folder}' "
            f"({error.strerror}); mend that, then make the report again."
        ) from error
    return folder / REPORT


def render(facts: Facts) -> str:
    """The page as HTML. Whatever comes from the files of the run is escaped."""
    environment = templates()
    environment.filters |= {
        "picture": partial(_picture, facts.pictures),
        "curves": _curves,
    }
    return environment.get_template("page.html.j2").render(
        facts=facts,
        verdict=verdict(facts),
        references=references_of(facts.settings),
        scored=scored(facts),
        best_so_far=_best_so_far(facts),
        against_random=_against_random(facts),
        level=LEVEL,
        window=WINDOW,
        gallery=GALLERY,
        style=source(environment, "page.css"),
    )


def verdict(facts: Facts) -> str:
    """The outcome of a run in plain words."""
    n, n_tasks = len(facts.candidates), facts.n_tasks
    if not facts.is_finished:
        return (
            f"This run has not finished: {len(facts.seen)} of up to {facts.settings.budget} "
            "labelings are scored, and nothing is confirmed yet."
        )
    if n == 1:
        subject = "The one labeling found is a task" if n_tasks else "No task was found"
    elif n_tasks == 0:
        subject = f"None of the {n} labelings found is a task"
    else:
        subject = f"{n_tasks} of {n} labelings found {'is a task' if n_tasks == 1 else 'are tasks'}"
    if n_tasks == 0:
        return (
            f"{subject}: on fresh splits, a small network does not predict "
            f"{'it' if n == 1 else 'them'} clearly better than it predicts random labelings."
        )
    it = "it" if n_tasks == 1 else "them"
    asked = facts.settings.tasks
    if n < asked:
        subject = f"Of {asked} labelings asked for, {n} far enough apart were found. {subject}"
    return (
        f"{subject}: a small network that learns {it} on some of the images predicts {it} on the "
        "others, clearly better than it predicts random labelings."
    )


def scored(facts: Facts) -> str:
    """How the search scored labelings, in plain words."""
    settings = facts.settings
    if settings.scorer == "trained":
        n = settings.protocol.n_splits
        return (
            f"Each is a mean over {n} split{'s' if n != 1 else ''}. A maximum over noisy scores "
            "rises even where there is nothing to find."
        )
    closed_form = settings.closed_form
    ridge = closed_form.ridge or ridge_of(closed_form.kernel, closed_form.features)
    measured = closed_form.measured
    agreement = (
        f"On {MEASURED_ON} that agrees with trained taskness at a rank correlation of "
        f"{measured.spearman:.2f}."
        if measured
        else "How that agrees with trained taskness has not been measured."
    )
    stages = {
        "closed-form": "",
        "two-stage": f" The best {settings.train_share:.0%} were then scored by training.",
    }
    return (
        "No network was trained for it: each image's label is predicted from all other images by "
        f"kernel ridge regression ({Path(closed_form.kernel).name}, ridge {ridge:g}). {agreement}"
        f"{stages[settings.scorer]}"
    )


def _best_so_far(facts: Facts) -> Markup:
    if not facts.seen:
        return Markup("")
    marked = [(candidate.trial, candidate.number) for candidate in facts.candidates]
    return Markup(plots.best_so_far(facts.seen, facts.best_so_far, marked))


def _against_random(facts: Facts) -> Markup:
    if facts.null is None:
        return Markup("")
    rows = [
        (c.number, c.evidence.mean, c.evidence.sem, c.seen, c.is_task)
        for c in facts.candidates
        if c.evidence is not None
    ]
    return Markup(plots.against_random(facts.null.taskness, facts.null.threshold, rows))


def _curves(candidate: Candidate) -> Markup:
    evidence = candidate.evidence
    assert evidence is not None
    return Markup(
        plots.curves(evidence.training, evidence.validation, evidence.baseline, evidence.g)
    )


def _picture(pictures: Mapping[int, np.ndarray], position: int) -> str:
    """An image as a data: URI, without loss."""
    file = io.BytesIO()
    Image.fromarray(pictures[position]).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
