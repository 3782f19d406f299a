"""Schedules: which tasks are trained in which epoch; one table."""

from taskdisc.mtl.schedules.make import make_schedule
from taskdisc.mtl.schedules.row import Row
from taskdisc.mtl.schedules.table import SCHEDULES

__all__ = ["SCHEDULES", "Row", "make_schedule"]
