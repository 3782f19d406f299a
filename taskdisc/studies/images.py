"""The images of studies: of one source, which a process reads once, whatever is drawn from it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from taskdisc.config import ImagesSettings
from taskdisc.discovery.run import at_network_side, load_source, select_images
from taskdisc.errors import ImageSetError, SettingError, did_you_mean
from taskdisc.images import ImageSet
from taskdisc.progress import Progress
from taskdisc.taskness.protocol import Protocol

_OF_THE_DRAW = ("target", "class_a", "n_classes", "per_class", "n_images", "seed")
"""Settings that choose among the images of a source."""

_sources: dict[ImagesSettings, ImageSet] = {}


def source_of(settings: ImagesSettings, progress: Progress | None = None) -> ImageSet:
    """All images of the settings' source.

    Raises:
        SettingError: a setting breaks its rule.
        ImageSetError: the images are missing or unreadable.
    """
    blank = {name: ImagesSettings.model_fields[name].default for name in _OF_THE_DRAW}
    key = settings.model_copy(update=blank)
    if key not in _sources:
        _sources.clear()  # one source at a time, so that memory stays bounded
        _sources[key] = load_source(key, progress or Progress())
    return _sources[key]


def drawn(settings: ImagesSettings, **changes: Any) -> ImageSet:
    """The images that settings choose, with some of them changed, at the network's 32x32.

    Raises:
        SettingError: a setting breaks its rule.
        ImageSetError: the images are missing, unreadable or too few.
    """
    changed = settings.model_copy(update=changes)
    return select_images(source_of(changed), changed)


def check_by_class(settings: ImagesSettings, protocol: Protocol) -> None:
    """Refuse settings of a study of one class against others, all images trained on.

    Raises:
        SettingError: not some images of each of some classes, or a protocol that takes fewer.
    """
    n_classes, per_class = settings.n_classes or 0, settings.per_class or 0
    if settings.n_images is not None:
        raise SettingError(
            "`images.n_images` must be left out, for the images are drawn by class, got "
            f"{settings.n_images}; set `images.n_classes` and `images.per_class`."
        )
    if n_classes < 3:
        raise SettingError(
            "`images.n_classes` must be at least 3, for one class stands against several, got "
            f"{settings.n_classes}; the source work takes 4."
        )
    if per_class < protocol.n_folds:
        raise SettingError(
            f"`images.per_class` must be at least `protocol.n_folds` = {protocol.n_folds}, got "
            f"{settings.per_class}; the source work takes 50."
        )
    check_folds(protocol, n_classes * per_class)


def check_folds(protocol: Protocol, n_images: int) -> None:
    """Refuse a protocol that takes fewer images, or leaves a fold without positives to chance.

    Raises:
        SettingError: it does.
    """
    if protocol.images(n_images) < n_images:
        raise SettingError(
            f"`protocol.most_images` must be 0, for the study is of all {n_images} images, got "
            f"{protocol.most_images}."
        )
    if protocol.splits != "stratified":
        raise SettingError(
            "`protocol.splits` must be stratified, for every fold to have positives, got "
            f"{protocol.splits!r}."
        )


def class_labelings(images: ImageSet, target: str | None = None) -> dict[str, np.ndarray]:
    """Every class of some images against the others: uint8 [n_images] by name, as they come."""
    target = images.target(target)
    labels, names = images.targets[target], images.classes[target]
    return {names[i]: (labels == i).astype(np.uint8) for i in dict.fromkeys(labels.tolist())}


def of_classes(
    settings: ImagesSettings, classes: Sequence[str], per_class: int, seed: int
) -> ImageSet:
    """`per_class` images of each of some named classes, class by class, at the network's 32x32.

    Raises:
        SettingError: there is no such class.
        ImageSetError: the images are missing, unreadable or too few.
    """
    source = source_of(settings)
    target = source.target(settings.target)
    for name in classes:
        if name not in source.classes[target]:
            raise SettingError(
                f"`classes` must be classes of the target '{target}', got {name!r}; "
                f"{did_you_mean(name, source.classes[target])}"
            )
    rng = np.random.default_rng(seed)
    positions = [
        _some(
            np.flatnonzero(source.targets[target] == source.classes[target].index(name)),
            per_class,
            name,
            rng,
        )
        for name in classes
    ]
    return at_network_side(source.take(np.concatenate(positions)), settings)


def one_against_rest(
    settings: ImagesSettings, n_pos: int, n_neg: int, seed: int, most_pos: int
) -> tuple[ImageSet, np.ndarray]:
    """`n_pos` images of one class, then `n_neg` of any other, and the labeling uint8 [n_images].

    The class is `class_a`, or drawn from those with `most_pos` images, the most that any image set
    of the study takes, so that the same seed has the same class in all of them. Negatives are drawn
    from all images of other classes.

    Raises:
        SettingError: there is no such class.
        ImageSetError: the images are missing, unreadable or too few.
    """
    source = source_of(settings)
    target = source.target(settings.target)
    labels, names = source.targets[target], source.classes[target]
    rng = np.random.default_rng(seed)
    if settings.class_a is None:
        counts = np.bincount(labels, minlength=len(names))
        class_a = next((i for i in rng.permutation(len(names)) if counts[i] >= most_pos), None)
        if class_a is None:
            most = int(counts.argmax())
            raise ImageSetError(
                f"a class must have {most_pos} images for its labeling, and the largest, "
                f"'{names[most]}', has {counts[most]}; use fewer images, or classes of another "
                "`images.target`."
            )
    elif settings.class_a in names:
        class_a = names.index(settings.class_a)
    else:
        raise SettingError(
            f"`images.class_a` must be a class of the target '{target}', got "
            f"{settings.class_a!r}; {did_you_mean(settings.class_a, names)}"
        )
    positives = _some(np.flatnonzero(labels == class_a), n_pos, names[class_a], rng)
    negatives = _some(np.flatnonzero(labels != class_a), n_neg, "others", rng)
    labeling = np.repeat([1, 0], [n_pos, n_neg]).astype(np.uint8)
    chosen = source.take(np.concatenate([positives, negatives]))
    return at_network_side(chosen, settings), labeling


def _some(positions: np.ndarray, n: int, what: str, rng: np.random.Generator) -> np.ndarray:
    if len(positions) < n:
        raise ImageSetError(
            f"{n} images of '{what}' are needed, and there are {len(positions)}; use fewer."
        )
    return rng.permutation(positions)[:n]


def check_not_given(settings: ImagesSettings, *names: str) -> None:
    """Refuse settings of the draw that a study decides itself.

    Raises:
        SettingError: one of them is given.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            raise SettingError(
                f"`images.{name}` must be left out, for the study decides it, got {value!r}."
            )
