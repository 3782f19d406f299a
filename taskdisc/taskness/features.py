"""What the kernels of the closed form see of each image: pixels, random filters or an embedding."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from taskdisc.archives import map_array, one_line
from taskdisc.errors import ImageSetError, SettingError, did_you_mean
from taskdisc.files import absolute
from taskdisc.images import ImageSet

ROWS = "`closed_form.features` must be a .npy of numbers [n_rows, n_features]"

Describe = Callable[[np.ndarray], np.ndarray]
"""Features [n, n_features] of a batch of n images."""

N_FILTERS = 256
FILTER_SIDE = 6
"""Height and width in pixels of the filters of `random`, on images of 32 x 32."""
LARGEST = 1e37
"""Of a feature; a difference of two has room in float32."""

GRID = 3
THRESHOLD = 1.0
"""In standard deviations of what a filter answers to noise."""
SEED = 0
"""Of the filters: the same features for every run."""
BATCH = 64
"""Images described at a time: some hundred megabytes of activations, whatever the set's size."""


def features(name: str, image_set: ImageSet, device: str = "cpu") -> np.ndarray:
    """Features float32 [n_images, n_features] of an image set.

    Args:
        name: One of

            - ``pixels``: standardised pixels at 32 x 32, [n_images, 3072], as the network sees
              them, channel by channel.
            - ``random``: what 256 random filters answer in each ninth of the image.
            - ``torchvision:NAME`` or ``torchvision:NAME=WEIGHTS.pth``: what the last linear layer
              of a torchvision classifier takes in; see `taskdisc.taskness.backbone`.
            - a path that ends in ``.npy``: an embedding from elsewhere, numbers
              [n_rows, n_features]; further axes are flattened. With one row per image of the set,
              rows are taken as they stand; with more, they are those of the source's whole split,
              and row `image_set.indices[i]` is image i's.

            All but ``pixels`` come with columns of mean 0 and a largest magnitude of 1.
        image_set: The images, at the size that a backbone is to see: 32 x 32 hides detail from it.
        device: Where filters and backbones run.

    Raises:
        SettingError: no such features, or a file that cannot be read.
        ImageSetError: rows that do not match the images, are not finite or are all equal.
    """
    kind, argument = _parsed(name)
    row = KINDS[kind]
    found = row(argument, image_set, device)
    # Row by row, for no truth value of every entry needs to be kept.
    finite = np.array([float(np.abs(row).max()) < LARGEST for row in found])
    if not finite.all():
        raise ImageSetError(
            f"`closed_form.features` must be finite numbers below {LARGEST:g} in size, got NaN, "
            f"infinity or a larger one from '{name}' for image {int(finite.argmin())} of "
            f"{len(found)}; leave the image out or mend its row."
        )
    if all(np.array_equal(row, found[0]) for row in found):
        raise ImageSetError(
            "`closed_form.features` must tell images apart, got the same from "
            f"'{name}' for all {len(found)}; choose other features or images."
        )
    return found if kind == "pixels" else _centred(found)


def resolved(name: str) -> str:
    """The same name of features with its file, if it has one, as an absolute path.

    Cheap: no file is opened and nothing heavy imported, so that settings can be checked early and
    a run that is resumed from another folder finds its file.

    Raises:
        SettingError: no such kind of features.
    """
    kind, argument = _parsed(name)
    if kind == ".npy":
        return absolute("closed_form.features", argument)
    network, given, weights = argument.partition("=")
    if kind == "torchvision" and given:
        return f"{kind}:{network}={absolute('closed_form.features', weights)}"
    return name


def read_array(path: str | Path, rule: str) -> np.ndarray:
    """The numbers of a `.npy` file with two axes or more, mapped rather than read.

    So that of a whole split's rows only those that are wanted are read. Objects, which only a
    pickle could hold, cannot be mapped.

    Raises:
        SettingError: a sentence that begins with `rule`, for no such file or another content.
    """
    try:
        rows = map_array(Path(path))
    except FileNotFoundError:
        raise SettingError(f"{rule}, got '{path}', which does not exist.") from None
    except (ValueError, OSError) as error:
        raise SettingError(
            f"{rule}, got '{path}', which cannot be read: {one_line(error)}; "
            "write it with numpy.save(path, array)."
        ) from error
    if rows.dtype.kind not in "fiub" or rows.ndim < 2 or 0 in rows.shape:
        raise SettingError(f"{rule}, got {rows.dtype} {list(rows.shape)} in '{path}'.")
    return rows


def _parsed(name: str) -> tuple[str, str]:
    """Kind, a key of `KINDS`, and argument of a name of features."""
    if name.endswith(".npy"):
        return ".npy", name
    kind, _, argument = name.partition(":")
    if kind not in KINDS or kind == ".npy" or bool(argument) != (kind == "torchvision"):
        names = ("pixels", "random", "torchvision:NAME", "FILE.npy")
        raise SettingError(
            f"`closed_form.features` must be {', '.join(names[:3])} or {names[3]}, got {name!r}; "
            f"{did_you_mean(name, names)}"
        )
    return kind, argument


def _centred(found: np.ndarray) -> np.ndarray:
    # Filters and networks that end in a ReLU answer with positive numbers: without centring, much
    # of a linear kernel would be the one direction that all images share. Leave-one-out accuracy
    # on three draws of 10 classes x 50 images of CIFAR-100, at ridge 3: `random` 0.551 without,
    # 0.574 with; EfficientNet-Lite0 0.887 and 0.899. Columns keep their scales, for dividing each
    # by its deviation gains nothing (0.899, and 0.897 for 0.910 at ridge 0.3). The overall scale
    # leaves kernels as they are, for they divide by one of their own; it keeps squares inside
    # float32. The mean is in float64, for the differences may be small beside it. `pixels` stay
    # as they are: the network sees them so.
    mean = found.mean(axis=0, dtype=np.float64)
    centred = np.empty(found.shape, dtype=np.float32)
    np.subtract(found, mean, out=centred, casting="same_kind")
    centred /= max(float(centred.max()), -float(centred.min()), 1e-30)
    return centred


def _pixels(argument: str, image_set: ImageSet, device: str) -> np.ndarray:
    from taskdisc.taskness.lenet import SIDE, standardised

    return standardised(np.asarray(image_set.resized(SIDE).images)).flatten(1).numpy()


def _random(argument: str, image_set: ImageSet, device: str) -> np.ndarray:
    """Mean responses [n_images, N_FILTERS x GRID²] of random filters in the cells of a grid.

    Coates et al. 2011, "An analysis of single-layer networks in unsupervised feature learning",
    with Gaussian filters in place of learnt ones: every patch is brought to mean 0 and unit
    contrast, and a response counts by what it exceeds the threshold. Of the variants tried on
    digits and CIFAR-100 (patches of the images as filters; sides 5, 6, 8; grids 2, 3, 4;
    thresholds 0 to 2.6; 256 to 1024 filters), leave-one-out regression on this one tells classes
    as well as on any: 0.574 on the images of `_centred`, where pixels give 0.430.
    """
    import torch
    from torch.nn import functional as F

    generator = torch.Generator().manual_seed(SEED)
    filters = torch.randn(N_FILTERS, 3, FILTER_SIDE, FILTER_SIDE, generator=generator)
    filters -= filters.mean(dim=(1, 2, 3), keepdim=True)
    filters = (filters / filters.flatten(1).norm(dim=1)[:, None, None, None]).to(device)

    def describe(pixels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(pixels.reshape(-1, 3, 32, 32)).to(device)
        mean = F.avg_pool2d(x, FILTER_SIDE, stride=1).mean(dim=1, keepdim=True)
        square = F.avg_pool2d(x**2, FILTER_SIDE, stride=1).mean(dim=1, keepdim=True)
        # The floor, in units of the whole set's variance, keeps flat patches from becoming noise.
        contrast = ((square - mean**2).clamp_min(0) + 0.05).sqrt()
        responses = F.relu(F.conv2d(x, filters) / contrast - THRESHOLD)
        return F.adaptive_avg_pool2d(responses, GRID).flatten(1).cpu().numpy()

    return _in_batches(describe, _pixels(argument, image_set, device))


def _torchvision(argument: str, image_set: ImageSet, device: str) -> np.ndarray:
    from taskdisc.taskness.backbone import backbone

    return _in_batches(backbone(argument, device), image_set.images)


def _embedding(argument: str, image_set: ImageSet, device: str) -> np.ndarray:
    return np.asarray(embedding_rows(argument, image_set)).reshape(len(image_set), -1)


def embedding_rows(path: str | Path, image_set: ImageSet) -> np.ndarray:
    """The rows of a `.npy` file that are of the images [n_images, ...], not read yet if possible.

    Raises:
        SettingError: no such file, or no numbers in it.
        ImageSetError: it has rows neither for the images nor for all of their source.
    """
    path, n = Path(path).expanduser(), len(image_set)
    rows = read_array(path, ROWS)
    if len(rows) != n:
        last = int(image_set.indices.max())
        if len(rows) < n or len(rows) <= last:
            raise ImageSetError(
                f"`closed_form.features` must have one row for each of the {n} images, or for each "
                f"of the source's split, which has more than {last}, got {len(rows)} in '{path}'."
            )
        rows = rows[image_set.indices]
    return rows


def _in_batches(describe: Describe, images: np.ndarray) -> np.ndarray:
    """Features [n_images, n_features] of images or their pixels, of `BATCH` images at a time."""
    import torch

    found = np.empty((0, 0), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            # A copy, for torch warns of arrays that it may not write to, as memory maps are.
            batch = describe(np.array(images[start : start + BATCH]))
            if not start:
                found = np.empty((len(images), batch.shape[1]), dtype=np.float32)
            found[start : start + len(batch)] = batch
    return found


KINDS: dict[str, Callable[[str, ImageSet, str], np.ndarray]] = {
    "pixels": _pixels,
    "random": _random,
    "torchvision": _torchvision,
    ".npy": _embedding,
}
"""By kind, from the name's argument, the images and the device."""
