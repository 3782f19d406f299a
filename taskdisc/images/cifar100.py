"""CIFAR-100: 32 x 32 photographs of a hundred things in twenty groups."""

from pathlib import Path

import numpy as np

from taskdisc.errors import ImageSetError, did_you_mean
from taskdisc.images.cifar import cifar_root, read_cifar
from taskdisc.images.decode import decode_files
from taskdisc.images.folder import class_folders, numbered
from taskdisc.images.image_set import Images, ImageSet, Integers
from taskdisc.images.request import Request
from taskdisc.images.tree import open_tree

# Coarse class -> its five fine classes: the table at https://www.cs.toronto.edu/~kriz/cifar.html,
# in the spelling of the archive's `meta` file.
COARSE: dict[str, tuple[str, ...]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
# Both in alphabetical order, which is the official numbering.
COARSE_NAMES = list(COARSE)
FINE_NAMES = sorted(fine for group in COARSE.values() for fine in group)
COARSE_OF_FINE = np.array(
    [next(i for i, group in enumerate(COARSE.values()) if fine in group) for fine in FINE_NAMES],
    dtype=np.int64,
)


def load(request: Request) -> ImageSet:
    """50,000 train or 10,000 test images, targets `fine` (100 classes) and `coarse` (20).

    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
    https://www.cs.toronto.edu/~kriz/cifar.html. Read from torchvision's layout, or from image
    folders ``{train,test}/<fine class>/<file>`` in a folder or a .zip.
    """
    place = _image_folders(request.data_root)
    if place is None:
        from torchvision.datasets import CIFAR100

        images, fine, _ = read_cifar(CIFAR100, request)
        found = _image_set(request, images, fine)
        return found if (side := request.side(None)) is None else found.resized(side)
    with open_tree(place) as tree:
        top = next(
            (top for top in ("", *tree.children()) if request.split in tree.children(top)), None
        )
        if top is None:
            raise request.missing(f"folders '{request.split}/<fine class>/'")
        by_class = class_folders(tree, f"{top}/{request.split}".lstrip("/"))
        for name in by_class:
            if name not in FINE_NAMES:
                raise ImageSetError(
                    f"The class folders of 'cifar100' must be named by its fine classes, "
                    f"got '{name}' in '{place}': {did_you_mean(name, FINE_NAMES)}"
                )
        paths, fine = numbered(by_class, FINE_NAMES)
        return _image_set(request, decode_files(tree, paths, request, request.side(None)), fine)


def _image_folders(root: Path) -> Path | None:
    """The folder or .zip with image folders at `root`, or None where there is none."""
    if root.is_file():
        return root
    if (cifar_root(root, "cifar-100-python") / "cifar-100-python").is_dir():
        return None
    for folder in (root, root / "cifar100"):
        if (folder / "train").is_dir() or (folder / "test").is_dir():
            return folder
    return None


def _image_set(request: Request, images: Images, fine: Integers) -> ImageSet:
    return ImageSet(
        source=request.source,
        images=images,
        targets={"fine": fine, "coarse": COARSE_OF_FINE[fine]},
        classes={"fine": list(FINE_NAMES), "coarse": list(COARSE_NAMES)},
    )
