"""CIFAR-10: 32 x 32 photographs of ten things."""

from taskdisc.images.cifar import read_cifar
from taskdisc.images.image_set import ImageSet
from taskdisc.images.request import Request


def load(request: Request) -> ImageSet:
    """50,000 train or 10,000 test images, target `class`, in torchvision's layout.

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    from torchvision.datasets import CIFAR10

    images, labels, names = read_cifar(CIFAR10, request)
    found = ImageSet(request.source, images, {"class": labels}, {"class": list(names)})
    return found if (side := request.side(None)) is None else found.resized(side)
