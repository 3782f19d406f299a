import numpy as np
import pytest

from taskdisc.report.layout import plane, stress


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def test_points_of_a_plane_are_found_again() -> None:
    given = distances(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [7.0, 7.0]]))
    found = plane(given)
    assert distances(found) == pytest.approx(given, abs=1e-3)
    assert stress(given, found) < 1e-3
    assert np.ptp(found[:, 0]) > np.ptp(found[:, 1])  # lies flat


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_points(n: int) -> None:
    given = 1.0 - np.eye(n)
    assert distances(plane(given)) == pytest.approx(given, abs=1e-6)


def test_points_that_all_differ_alike_are_spread_out() -> None:
    """The tasks of a search often do; no plane can show that, and none may hide another."""
    given = 1.0 - np.eye(32)
    found = plane(given)
    apart = distances(found)[~np.eye(32, dtype=bool)]
    assert apart.min() > 0.1
    assert 0 < stress(given, found) < 0.45
    assert np.array_equal(plane(given), found)


def test_points_that_are_one_stay_one() -> None:
    assert np.array_equal(plane(np.zeros((3, 3))), np.zeros((3, 2)))
    assert stress(np.zeros((3, 3)), np.zeros((3, 2))) == 0
