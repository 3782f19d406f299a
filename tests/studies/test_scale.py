"""Time and memory of searches by size."""

from taskdisc.config import settings_from
from taskdisc.pool import Pool
from taskdisc.progress import Progress
from taskdisc.studies.scale import ScaleSettings, run


def test_each_size_has_a_row_and_what_was_asked() -> None:
    settings = settings_from(
        ScaleSettings, {"n_images": [20, 40], "search": {"tasks": 2, "budget": 20}}
    )
    answer = run(settings, Pool(1, "cpu"), Progress())
    assert [row["n_images"] for row in answer.table] == [20, 40]
    assert all(row["put_forward"] == 2 for row in answer.table)
    assert all(row["cpu_s"] > 0 and row["memory_gb"] >= 0 for row in answer.table)
    assert "40 images: 2 labelings" in answer.reading
    assert list(answer.figures) == ["scale"]
