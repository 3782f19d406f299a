"""Folders of a search, a study and a comparison, made once: their readers damage copies of them."""

from pathlib import Path
from typing import Any

import pytest
from bounds import EXAMPLES, TRIED
from hypothesis import HealthCheck, settings
from readers import MADE, MTL

from taskdisc.config import SearchSettings, settings_from
from taskdisc.discovery.folder import new_folder
from taskdisc.discovery.run import load_selected, run_search
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies import STUDIES
from taskdisc.studies.run import new_study, run_study

settings.register_profile(
    "hostile",
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

SEARCH = {"tasks": 1, "budget": 5, "confirm": {"n_splits": 2, "n_random": 20, "random_splits": 1}}
VALUES: dict[str, dict[str, Any]] = {
    "noise": {"n_sets": 3, "n_images": 20, "search": SEARCH},
    "mtl": MTL,
}
OF_SEARCH: dict[str, Any] = {
    "images": {"n_images": 20},
    "ratio": 4,
    "tasks": 2,
    "budget": 6,
    "scorer": "two-stage",
    "train_share": 0.5,
    "protocol": {"n_steps": 5, "n_splits": 2},
    "confirm": {"n_splits": 2, "n_random": 40, "random_splits": 1},
}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    searched = settings_from(SearchSettings, OF_SEARCH)
    images = load_selected(searched.images, Progress())
    run = new_folder(folder / "search", searched, images, Pool(1, "cpu"))
    run_search(images, searched, Pool(1, "cpu"), folder=run, progress=Progress())
    run.close()
    MADE["search"] = run.path
    for name, values in VALUES.items():
        chosen = settings_from(STUDIES[name].settings, values)
        opened = new_study(name, chosen, folder / name, Pool(1, "cpu"), Progress())
        run_study(opened, Pool(1, "cpu"), Progress())
        opened.close()
        MADE[name] = folder / name
    return MADE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What `make fuzz` has read; a test that failed stands above."""
    if EXAMPLES:
        counts = [f"{n:,} {what}" for what, n in sorted(TRIED.items())]
        terminalreporter.write_line(f"files: {sum(TRIED.values()):,}: {', '.join(counts)}")
