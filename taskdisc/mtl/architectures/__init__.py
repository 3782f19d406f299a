"""Architectures: which parts of a network the tasks share; one table."""

from taskdisc.mtl.architectures.make import make_network
from taskdisc.mtl.architectures.row import Row
from taskdisc.mtl.architectures.table import ARCHITECTURES

__all__ = ["ARCHITECTURES", "Row", "make_network"]
