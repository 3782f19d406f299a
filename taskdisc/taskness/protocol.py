"""How an image set is divided into train and validation: protocols as data, splits as masks."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from taskdisc.errors import SettingError, did_you_mean

WINDOW = 5
"""Steps of the rolling median, and so the fewest that a training can have."""


@dataclass(frozen=True)
class Protocol:
    """How one labeling is scored: which splits, how many, and how long each network trains."""

    splits: str = "stratified"  # a name in SPLITTERS
    n_splits: int = 10  # trainings per labeling
    n_folds: int = 5  # stratified: folds per repeat; random: 1/n_folds of the images validate
    common: bool = True  # the same random order and initialisations for all labelings compared
    most_images: int = 200  # that one repeat of the splits uses, drawn afresh; 0: all of them
    n_steps: int = 0  # steps of full-batch Adam; 0: 20 for 50 images, see `steps`
    lr: float = 1e-3  # learning rate of Adam

    def __post_init__(self) -> None:
        if self.splits not in SPLITTERS:
            cure = did_you_mean(self.splits, SPLITTERS)
            raise SettingError(
                f"`protocol.splits` must be a known kind of split, got {self.splits!r}; {cure}"
            )
        for name, least in (("n_splits", 1), ("n_folds", 2), ("most_images", 0)):
            value = getattr(self, name)
            if value < least:
                raise SettingError(f"`protocol.{name}` must be at least {least}, got {value}.")
        if 0 < self.most_images < self.n_folds:
            raise SettingError(
                f"`protocol.most_images` must be at least `protocol.n_folds` = {self.n_folds}, or "
                f"0 for all images, got {self.most_images}."
            )
        if self.n_steps != 0 and self.n_steps < WINDOW:
            raise SettingError(
                f"`protocol.n_steps` must be at least {WINDOW}, the window of the rolling "
                f"median, or 0 for the size's own number, got {self.n_steps}."
            )
        if not 0 < self.lr <= 1:
            raise SettingError(f"`protocol.lr` must be above 0 and at most 1, got {self.lr}.")

    def images(self, n_images: int) -> int:
        """Images that one repeat of the splits uses, train and validation, of a set of this size.

        It bounds what a training costs; the next repeat draws others, so that all come in.
        """
        return min(n_images, self.most_images or n_images)

    def steps(self, n_images: int) -> int:
        """Steps of training on an image set of this size.

        By default 20·√(n_images / 50), at least 10. A small set is learnt by heart within a few
        steps, after which a minimum is luck: training longer makes the score less reliable and
        random labelings score above 0 (study `score-reliability`). The minimum of class labelings
        comes after about 20, 40 and 70 steps with 50, 200 and 500 images of CIFAR-100.
        """
        n_images = self.images(n_images)
        return self.n_steps or max(10, round(20 * (n_images / 50) ** 0.5))


def protocol_from(value: "Protocol | str | dict[str, Any]") -> Protocol:
    """A protocol from its name, from `{name: …, <field>: …}` over a named one, or as it is.

    Raises:
        SettingError: an unknown name or field.
    """
    if isinstance(value, Protocol):
        return value
    if not isinstance(value, str | dict):
        raise SettingError(f"`protocol` must be a name or a mapping of settings, got {value!r}.")
    changes = {"name": value} if isinstance(value, str) else dict(value)
    name = changes.pop("name", "stratified")
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise SettingError(
            f"`protocol` must be a known protocol, got {name!r}; "
            f"{did_you_mean(str(name), PROTOCOLS)}"
        )
    known = {field.name: type(field.default) for field in fields(Protocol)}
    for field, value in changes.items():
        if field not in known:
            raise SettingError(
                f"`protocol.{field}` is not a setting of a protocol; "
                f"{did_you_mean(str(field), known)}"
            )
        if known[field] is float:
            changes[field] = _number(value)
        if type(changes[field]) is not known[field]:
            raise SettingError(
                f"`protocol.{field}` must be of type {known[field].__name__}, got {value!r}."
            )
    return replace(PROTOCOLS[name], **changes)


def _number(value: Any) -> Any:
    """A float from a whole number, or from text such as 1e-4, which YAML does not take for one."""
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value


def validation_masks(
    protocol: Protocol, labeling: np.ndarray, repeat_rngs: list[np.random.Generator]
) -> np.ndarray:
    """Which images validate in each split, bool [n_splits, n_images], for one labeling.

    Each generator draws one repeat: `n_folds` splits under stratification, one otherwise.
    """
    splitter = SPLITTERS[protocol.splits][0]
    masks = [splitter(labeling, protocol.n_folds, rng) for rng in repeat_rngs]
    return np.concatenate(masks)[: protocol.n_splits]


def n_repeats(protocol: Protocol) -> int:
    """Draws that `n_splits` splits need; the last repeat may be used in part."""
    per_repeat = protocol.n_folds if SPLITTERS[protocol.splits][1] else 1
    return -(-protocol.n_splits // per_repeat)


def _stratified_folds(labeling: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """k folds, each with its share of the positives and of the negatives, differing by at most one.

    The images are put in one random order and dealt to the folds, positives first; so labelings
    that differ in few images have nearly the same folds under the same order.
    """
    order = rng.permutation(len(labeling))
    dealt = np.concatenate([order[labeling[order] == 1], order[labeling[order] == 0]])
    fold = np.empty(len(labeling), dtype=np.int64)
    fold[dealt] = np.arange(len(labeling)) % n_folds
    return fold == np.arange(n_folds)[:, None]


def _random_split(labeling: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """One split regardless of the labels: 1/n_folds of the images, at least one, validate."""
    mask = np.zeros((1, len(labeling)), dtype=bool)
    n_validation = max(1, len(labeling) // n_folds)
    mask[0, rng.permutation(len(labeling))[:n_validation]] = True
    return mask


_Splitter = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]

SPLITTERS: dict[str, tuple[_Splitter, bool]] = {
    "stratified": (_stratified_folds, True),
    "random": (_random_split, False),
}
"""By name: the splitter, and whether one draw of it gives `n_folds` splits (else one)."""

PROTOCOLS: dict[str, Protocol] = {
    # The default; chosen by `taskdisc study score-reliability`, see docs/experiments.md.
    "stratified": Protocol(),
    # The source work: one random 80-20 split per labeling, 100 steps of Adam at 1e-3.
    "source": Protocol(splits="random", n_splits=1, common=False, n_steps=100, most_images=0),
}
