"""Temporary: to be removed once tests/conftest.py provides the same."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    def find(name: str) -> Path:
        path = Path(__file__).resolve().parents[2].parent / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"{name} is not on this machine")
        return path

    return find


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASKDISC_CACHE", str(tmp_path / "cache"))
