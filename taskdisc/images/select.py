"""Choosing the images of a study: some classes with equally many images each, or any N."""

from dataclasses import dataclass

import numpy as np

from taskdisc.errors import ImageSetError, SettingError, did_you_mean
from taskdisc.images.image_set import ImageSet, Integers


@dataclass(frozen=True)
class Selection:
    """A rule that draws images from an image set; the same rule draws the same images.

    Either `n_images` at random, or `per_class` images of each of `n_classes` classes, grouped by
    class: class A first, then the others in the order drawn. With nothing set, all images.

    Attributes:
        target: name of the target whose classes are meant; None is the set's first.
        class_a: name of class A; None draws it too.
        n_classes: number of classes, class A among them; None is all that have enough images.
        per_class: images of each class.
        n_images: images in all, whatever their class; excludes the three above.
        seed: of the draw, 0 or more.

    Raises:
        SettingError: a number out of range, or settings that exclude each other.
    """

    target: str | None = None
    class_a: str | None = None
    n_classes: int | None = None
    per_class: int | None = None
    n_images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("n_classes", self.n_classes, 1),
            ("per_class", self.per_class, 1),
            ("n_images", self.n_images, 1),
            ("seed", self.seed, 0),
        ):
            if value is None and name != "seed":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SettingError(
                    f"`{name}` must be a whole number of at least {least}, got {value!r}."
                )
        by_class = [
            name
            for name in ("class_a", "n_classes", "per_class")
            if getattr(self, name) is not None
        ]
        if self.n_images is not None and by_class:
            raise SettingError(
                f"`n_images` must be left out where `{by_class[0]}` is set, got {self.n_images!r}: "
                "draw either by class or any images."
            )
        if by_class and self.per_class is None:
            raise SettingError(
                f"`per_class` must be set where `{by_class[0]}` is, got None: "
                "how many images of each class?"
            )

    def positions(self, image_set: ImageSet) -> Integers:
        """Which images of the set are drawn, in order.

        Raises:
            SettingError: the set has no such target or class.
            ImageSetError: the set has too few images or classes.
        """
        rng = np.random.default_rng(self.seed)
        if self.n_images is not None:
            if self.n_images > len(image_set):
                raise ImageSetError(
                    f"`n_images` must be at most {len(image_set)}, the images of "
                    f"'{image_set.source}', got {self.n_images}."
                )
            return np.sort(rng.choice(len(image_set), self.n_images, replace=False))
        if self.per_class is None:
            return np.arange(len(image_set), dtype=np.int64)
        target = image_set.target(self.target)
        labels = image_set.targets[target]
        return np.concatenate(
            [
                np.sort(rng.choice(np.flatnonzero(labels == number), self.per_class, replace=False))
                for number in self._drawn_classes(image_set, target, self.per_class, rng)
            ]
        )

    def _drawn_classes(
        self, image_set: ImageSet, target: str, per_class: int, rng: np.random.Generator
    ) -> list[int]:
        names = image_set.classes[target]
        counts = np.bincount(image_set.targets[target], minlength=len(names))
        # Only classes with enough images are drawn, so that whether it works is not left to chance.
        enough = np.flatnonzero(counts >= per_class)
        if self.class_a is not None:
            if self.class_a not in names:
                raise SettingError(
                    f"`class_a` must be a class of the target '{target}', "
                    f"got {self.class_a!r}: {did_you_mean(self.class_a, names)}"
                )
            first = names.index(self.class_a)
            if counts[first] < per_class:
                raise ImageSetError(
                    f"`per_class` must be at most {counts[first]}, the images of class "
                    f"'{self.class_a}', got {per_class}."
                )
        else:
            first = int(rng.choice(enough)) if len(enough) else 0
        if not len(enough):
            most = int(counts.argmax())
            raise ImageSetError(
                f"`per_class` must be at most {counts[most]}, the images of the largest class "
                f"'{names[most]}', got {per_class}."
            )
        n_classes = len(enough) if self.n_classes is None else self.n_classes
        if n_classes > len(enough):
            lacking = np.where(counts < per_class, counts, -1)
            largest = int(lacking.argmax())
            why = (
                f"class '{names[largest]}' has {counts[largest]}."
                if lacking[largest] >= 0
                else f"'{target}' has no more."
            )
            raise ImageSetError(
                f"`n_classes` must be at most {len(enough)}, the classes with {per_class} or more "
                f"images, got {n_classes}: {why}"
            )
        others = rng.permutation(enough[enough != first])
        return [first, *others[: n_classes - 1].tolist()]


def select(
    image_set: ImageSet,
    *,
    target: str | None = None,
    class_a: str | None = None,
    n_classes: int | None = None,
    per_class: int | None = None,
    n_images: int | None = None,
    seed: int = 0,
) -> ImageSet:
    """The images that a `Selection` of these settings draws, as an image set of their own.

    Example: ``select(cifar, class_a="cat", n_classes=5, per_class=10)`` is 50 images, cats first.
    """
    selection = Selection(target, class_a, n_classes, per_class, n_images, seed)
    return image_set.take(selection.positions(image_set))


def held_out(
    source: ImageSet,
    image_set: ImageSet,
    n_images: int,
    *,
    target: str | None = None,
    seed: int = 0,
) -> ImageSet:
    """Images of a source that an image set drawn from it does not hold, at the same size.

    Neither they nor copies of them are in the image set. With `target`, only images of those of its
    classes that the image set has, equally many of each as far as there are enough.

    Args:
        source: What `image_set` was selected from.
        image_set: The images to leave out; may have been resized since.
        n_images: Images to draw; fewer come back where the source has no more.
        target: Name of the target by whose classes the image set was selected.
        seed: Of the draw, 0 or more.

    Raises:
        SettingError: a number out of range, or no such target.
        ImageSetError: there is nothing left to hold out.
    """
    for name, value, least in (("n_images", n_images, 1), ("seed", seed, 0)):
        if value < least:
            raise SettingError(f"`{name}` must be at least {least}, got {value}.")
    others = ~np.isin(source.indices, image_set.indices)
    labels = np.zeros(len(source), dtype=np.int64)
    if target is not None:
        labels = source.targets[source.target(target)]
        others &= np.isin(labels, image_set.targets[image_set.target(target)])
    order = np.random.default_rng(seed).permutation(np.flatnonzero(others))
    # Dealt: the first image of every class, then the second of every class, and so on.
    turn = np.empty(len(order), dtype=np.int64)
    for label in np.unique(labels[order]):
        members = np.flatnonzero(labels[order] == label)
        turn[members] = np.arange(len(members))
    order = order[np.argsort(turn, kind="stable")]
    known = set(image_set.hashes())
    drawn: list[int] = []
    while len(drawn) < n_images and len(order):
        some, order = order[:n_images], order[n_images:]
        hashes = _of_size(source.take(some), image_set).hashes()
        drawn += [int(i) for i, digest in zip(some, hashes, strict=True) if digest not in known]
    if not drawn:
        whose, cure = "", ""
        if target is not None:
            whose = f" of its classes (target '{target}')"
            cure = ", or hold out images of any class with `agreement.classes=all`"
        raise ImageSetError(
            f"the image set must leave images{whose} of '{source.source}' to hold out, got all "
            f"of them; select fewer{cure}."
        )
    return _of_size(source.take(drawn[:n_images]), image_set)


def _of_size(images: ImageSet, like: ImageSet) -> ImageSet:
    same = images.images.shape[1:] == like.images.shape[1:]
    return images if same else images.resized(like.images.shape[1])
