from typing import Any

import pytest

from taskdisc.config import SearchSettings, settings_from
from taskdisc.report.references import REFERENCES, references_of

ALWAYS = {"atanov2022", "lecun1998", "kingma2015", "phipson2010", "benjamini1995"}


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({}, {"digits"}),
        ({"scorer": "closed-form"}, {"digits", "allen1974", "jacot2018"}),
        ({"proposer": "swap"}, {"digits", "allen1974", "jacot2018", "glover1989"}),
        (
            {"proposer": "spectral", "closed_form": {"kernel": "rbf"}},
            {"digits", "allen1974", "glover1989"},
        ),
        (
            {"scorer": "two-stage", "closed_form": {"features": "random"}},
            {"digits", "allen1974", "coates2011"},
        ),
        ({"closed_form": {"kernel": "tangent"}}, {"digits"}),  # nothing asks it
        ({"proposer": "TwoPointsDE"}, {"nevergrad", "storn1997", "digits"}),
        ({"proposer": "random"}, {"digits"}),
        ({"proposer": "OnePlusOne"}, {"nevergrad", "digits"}),
        ({"proposer": "random", "images": {"source": "cifar100"}}, {"krizhevsky2009"}),
        ({"proposer": "random", "images": {"source": "tiny-imagenet"}}, {"le2015"}),
        ({"proposer": "random", "images": {"source": "celeba"}}, {"liu2015"}),
        ({"proposer": "random", "images": {"source": "folder"}}, set()),
    ],
)
def test_a_run_names_what_it_used(settings: dict[str, Any], more: set[str]) -> None:
    trained = {"proposer": "random", "scorer": "trained", **settings}
    assert set(references_of(settings_from(SearchSettings, trained))) == ALWAYS | more


@pytest.mark.parametrize("key", REFERENCES)
def test_reference_is_complete(key: str) -> None:
    row = REFERENCES[key]
    assert row.citation.endswith(".")
    assert row.used_for.endswith(".")
    assert row.url.startswith("http")
