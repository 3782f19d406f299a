from typing import Any

import pytest

from taskdisc import errors
from taskdisc.errors import RunFailedError, RunFolderError, TaskdiscError, did_you_mean


def children(kind: type[TaskdiscError]) -> list[type[TaskdiscError]]:
    return [
        kind,
        *(grandchild for child in kind.__subclasses__() for grandchild in children(child)),
    ]


@pytest.mark.parametrize("kind", children(TaskdiscError))
def test_every_error_has_an_exit_code_and_is_a_builtin_error_too(kind: Any) -> None:
    # 2: the user can mend it; 1: the run failed on its way.
    assert kind.exit_code == (1 if issubclass(kind, RunFailedError) else 2)
    assert kind.__doc__
    builtin = {RunFolderError: RuntimeError, RunFailedError: RuntimeError}.get(kind, ValueError)
    assert kind is TaskdiscError or issubclass(kind, builtin)


def test_every_error_is_defined_in_one_place() -> None:
    from_here = {kind for kind in children(TaskdiscError) if kind.__module__ == errors.__name__}
    assert {kind.__name__ for kind in from_here} >= {
        *("SettingError", "ImageSetError", "RunFolderError", "RunFailedError")
    }


@pytest.mark.parametrize(
    ("name", "choices", "words"),
    [
        ("twopointsde", ["TwoPointsDE", "CMA"], "did you mean 'TwoPointsDE'?"),
        ("sourse", ["source", "stratified"], "did you mean 'source'?"),
        ("?", ["b", "a"], "choose one of a, b."),
        ("", ["b", "a"], "choose one of a, b."),
    ],
)
def test_the_nearest_name_is_suggested(name: str, choices: list[str], words: str) -> None:
    assert did_you_mean(name, choices) == words


def test_many_choices_are_cut() -> None:
    sentence = did_you_mean("?", [f"name{i:03d}" for i in range(100)])
    assert sentence.endswith("….")
    assert "name011" in sentence
    assert "name012" not in sentence
