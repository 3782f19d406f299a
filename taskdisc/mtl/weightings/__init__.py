"""Weightings: rules that turn several losses or gradients into one update; one table."""

from taskdisc.mtl.weightings.make import make_weighting
from taskdisc.mtl.weightings.row import Needs, Row
from taskdisc.mtl.weightings.table import WEIGHTINGS

__all__ = ["WEIGHTINGS", "Needs", "Row", "make_weighting"]
