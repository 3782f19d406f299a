"""Backbones: networks from images to features, cut into stages; one table."""

from taskdisc.mtl.backbones.make import make_backbone
from taskdisc.mtl.backbones.row import Row
from taskdisc.mtl.backbones.table import BACKBONES

__all__ = ["BACKBONES", "Row", "make_backbone"]
