"""What the plain lines of progress say."""

import pytest

from taskdisc.progress import PlainProgress, reading


def test_what_nobody_has_timed_has_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    reading(PlainProgress())(80, 80)  # all images in one batch
    assert capsys.readouterr().err == "images: 80/80 read\n"


def test_what_was_timed_has_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    tell = reading(PlainProgress())
    tell(40, 80)
    tell(80, 80)
    line = capsys.readouterr().err
    assert line.startswith("images: 80/80 read, ")
    assert line.endswith("/s, 0 s left\n")
