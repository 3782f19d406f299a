"""What all tests share: real images, and nothing left behind in the user's folders."""

import os
from collections.abc import Callable
from pathlib import Path

# One thread, as in the workers of the pool: sums have one order, and tests share the machine's
# cores politely. Set before torch is imported, which reads it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest

from taskdisc.files import write_npz
from taskdisc.images import ImageSet, load_images, select


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Finds a file of ../shared/data, beside the project, or skips the test."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"{name} is not in ../shared/data")
        return path

    return find


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASKDISC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def digits() -> ImageSet:
    """50 real images: ten of each of five digits, class by class."""
    return select(load_images("digits", cache=False), n_classes=5, per_class=10, seed=0)


@pytest.fixture(scope="session")
def class_labeling() -> np.ndarray:
    """The labeling at 1:4 whose positives are the first digit of `digits`."""
    return (np.arange(50) < 10).astype(np.uint8)


@pytest.fixture
def benefit_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works where the tasks are that configs/mtl/benefit.yaml and probe.yaml name: in each file a
    stand-in, one task on four images, for settings to be read."""
    arrays = {
        "labelings": np.array([[1, 0, 0, 1]], dtype=np.uint8),
        "indices": np.arange(4),
        "hashes": np.array(["0" * 16] * 4),
        **{name: np.ones(1) for name in ("taskness", "sem", "p_adjusted")},
    }
    (tmp_path / "runs").mkdir()
    for name in ("pixels", "random", "tangent"):
        write_npz(tmp_path / "runs" / f"benefit-{name}.npz", arrays)
    monkeypatch.chdir(tmp_path)
