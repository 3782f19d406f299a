"""Where a method comes from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """Authors, year, title and address of the work that a method comes from."""

    authors: str
    year: int
    title: str
    url: str
