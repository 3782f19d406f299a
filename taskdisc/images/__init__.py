"""The image sets: one file per source, one table, one way to load, select and look at them."""

from taskdisc.images.image_set import ImageSet, as_image_set
from taskdisc.images.select import Selection, held_out, select
from taskdisc.images.sources import SOURCES, load_images

__all__ = [
    "SOURCES",
    "ImageSet",
    "Selection",
    "as_image_set",
    "held_out",
    "load_images",
    "select",
]
