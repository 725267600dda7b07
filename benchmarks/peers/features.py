"""Image features for vector detectors: EfficientNet-Lite0's 1,280 pooled values per image.

Every process computes its features from the image files, so that its seconds and memory include them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from outcome import Watch, describe, options, parsed, save
from PIL import Image

BACKBONE = "tf_efficientnet_lite0"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
PACKAGES = ("torch", "timm", "numpy", "pillow", "scipy", "scikit-learn")

Array = np.ndarray[Any, Any]


class Encoder:
    """Encoder of image files to features, shape ``(images, 1280)``, float32.

    Parameters
    ----------
    weights : pathlib.Path
        State dict of the whole classifier in timm's naming; every tensor must be present and match.
    size : int
        Side of the square that images are resized to, without crop.
    batch : int
        Images per forward pass.
    threads : int
        Threads of torch and of decoding.
    """

    def __init__(self, weights: Path, size: int, batch: int, threads: int) -> None:
        model: Any = timm.create_model(BACKBONE, pretrained=False)
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
        model.reset_classifier(0)
        self.model = model.eval()
        self.size, self.batch, self.threads = size, batch, threads

    def __call__(self, paths: Sequence[str | Path]) -> Array:
        """Read, resize and encode images, in order."""
        found = []
        with torch.inference_mode(), ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(paths), self.batch):
                pixels = np.stack(list(pool.map(self._pixels, paths[start : start + self.batch])))
                images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
                found.append(np.asarray(self.model(images)))
        return np.concatenate(found)

    def _pixels(self, path: str | Path) -> Array:
        with Image.open(path) as image:
            # Pillow's bilinear filter is antialiased for downscaling.
            return np.asarray(image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR))


def measure(
    description: str | None,
    models: Iterable[str],
    make: Callable[[argparse.Namespace, Encoder], tuple[Callable[[list[str]], object], Callable[[list[str]], Array]]],
    packages: Iterable[str],
) -> None:
    """Run one measurement from the command line: fit to the features of ``train/good``, score those of ``test``.

    Parameters
    ----------
    description : str or None
        Docstring of the script.
    models : iterable of str
        Names of its detectors.
    make : callable
        Function of options and encoder that returns two functions of image paths: fit and score.
    packages : iterable of str
        Packages whose versions are recorded, besides those of the features.
    """
    parser = options(description, models)
    parser.add_argument("--weights", type=Path, required=True, help="state dict, timm's names")
    args = parsed(parser)
    torch.set_num_threads(args.threads)
    fit, score = make(args, Encoder(args.weights, args.size, args.batch, args.threads))
    watch = Watch()
    train, test = images_of(args.folder / "train" / "good"), images_of(args.folder / "test")
    fit(train)
    watch.fitted()
    scores = score(test)
    facts = describe(args, [*packages, *PACKAGES]) | {"backbone": BACKBONE, "features": "pooled, 1280"}
    facts |= {"n_train": len(train), "n_test": len(test)} | watch.figures(len(test))
    save(args, test, scores, None, facts)


def images_of(folder: Path) -> list[str]:
    """Image files below a folder, sorted.

    Parameters
    ----------
    folder : pathlib.Path
        Searched with its subfolders.

    Returns
    -------
    list of str
        Paths.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    found = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(f"{folder}: no images; give a folder in MVTec layout")
    return found
