"""Folders of a study and of a comparison, made once: their readers damage copies of them."""

from pathlib import Path
from typing import Any

import pytest
from bounds import EXAMPLES
from hypothesis import HealthCheck, settings
from readers import MADE, MTL

from taskdisc.config import settings_from
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


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    for name, values in VALUES.items():
        chosen = settings_from(STUDIES[name].settings, values)
        opened = new_study(name, chosen, folder / name, Pool(1, "cpu"), Progress())
        run_study(opened, Pool(1, "cpu"), Progress())
        opened.close()
        MADE[name] = folder / name
    return MADE
