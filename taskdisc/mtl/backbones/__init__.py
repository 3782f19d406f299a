"""Backbones: networks from images to features, cut into stages; one table."""

from taskdisc.mtl.backbones.common import COMMON
from taskdisc.mtl.backbones.make import make_backbone
from taskdisc.mtl.backbones.row import Row
from taskdisc.mtl.backbones.table import BACKBONES, TORCHVISION

__all__ = ["BACKBONES", "COMMON", "TORCHVISION", "Row", "make_backbone"]
