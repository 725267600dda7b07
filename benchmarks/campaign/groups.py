"""Groups of dependent photographs: false alarms on new parts, and near-duplicates found or found wrongly.

``python -m benchmarks.campaign.groups``, some minutes; ``$ANOMEM_DATA`` for the image sets.

Scores: made scores of 16 parts of 8 photographs each, calibrated one by one and by groups, then new parts. Bursts:
pictures of as many parts, fitted without groups and with ``groups="near"``, then 400 photographs of new parts. Copies:
photographs of each set with one changed copy, and whether copy and original are in one group. Sets: the normals of each
set, which hold no copies on purpose; images in groups are found wrongly, or are repeats of the set.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from anomem.data.splits import split_normals
from anomem.detectors import get
from anomem.errors import AnomemWarning
from anomem.runtime.alike import find_alike
from anomem.runtime.calibration import calibrate, rejected_ranks
from anomem.runtime.images import IMAGE_SUFFIXES, decode, resize
from anomem.runtime.progress import run_to_end
from anomem.runtime.sources import ArraySource, FileSource
from anomem.types import UInt8Image
from benchmarks.campaign.result import FOLDER, write_result

PARTS, SHOTS, NEW, ALPHA = 16, 8, 400, 0.04
SETS = (
    "magnetic_tile",
    "aitex_tiles",
    "fabric_stain",
    "mvtec_ad_toothbrush",
    "mvtec_ad_pill",
    "mvtec_ad_bottle",
    "visa_capsules",
)
ORIGINALS = 60

Copy = Callable[[UInt8Image, np.random.Generator], UInt8Image]


def scores(seed: int, *, grouped: bool) -> dict[str, float]:
    """Calibrate on made scores and return the promised and the found rate of rejected new parts."""
    rng = np.random.default_rng(seed)
    parts = np.repeat(np.arange(PARTS), SHOTS)
    digests = rng.integers(1, 2**62, parts.size).tolist()
    made = rng.normal(size=PARTS)[parts] + rng.normal(scale=0.01, size=parts.size)
    split = split_normals(digests, parts.tolist(), seed=seed)
    chosen = np.sort(np.concatenate([split.calibrate, split.beside]))
    found = calibrate(made[chosen], groups=parts[chosen].tolist() if grouped else None)
    return {"promised": found.alpha, "rejected": float(found.decide(rng.normal(size=2000).astype(np.float32)).mean())}


def bursts(seed: int, groups: str | None) -> dict[str, float]:
    """Fit to bursts and return the promised and the measured rate of rejected new parts."""
    rng = np.random.default_rng(seed)
    parts = [_part(rng) for _ in range(PARTS)]
    images = [_photograph(part, rng) for part in parts for _ in range(SHOTS)]
    model = get("knn")(size=64, seed=seed).fit(images, groups=groups)
    if rejected_ranks(ALPHA, model.calibration_.n_groups):
        model.set_alpha(ALPHA)
    fresh = [_photograph(_part(rng), rng) for _ in range(NEW)]
    return {"promised": model.calibration_.alpha, "rejected": float(model.predict(fresh).mean())}


def _part(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return np.kron(rng.normal(120, 25, (12, 12, 3)), np.ones((6, 6, 1)))


def _photograph(part: np.ndarray[Any, Any], rng: np.random.Generator) -> UInt8Image:
    return (part + rng.normal(0, 1.5, part.shape)).clip(0, 255).astype(np.uint8)


def _noisy(image: UInt8Image, rng: np.random.Generator) -> UInt8Image:
    return (image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)


def _brighter(image: UInt8Image, rng: np.random.Generator) -> UInt8Image:
    return (image * rng.uniform(0.8, 1.2) + rng.uniform(-15, 15)).clip(0, 255).astype(np.uint8)


def _cropped(image: UInt8Image, rng: np.random.Generator, share: float) -> UInt8Image:
    height, width = image.shape[:2]
    top, left = (round(float(rng.uniform(0, share * side))) for side in (height, width))
    cut = image[top : top + round((1 - share) * height), left : left + round((1 - share) * width)]
    return resize(np.ascontiguousarray(cut), (height, width))


COPIES: dict[str, Copy] = {
    "same pixels, noise of 3 levels": _noisy,
    "brightness and contrast by 20 %": _brighter,
    "half size and back": lambda image, _: resize(
        resize(image, (image.shape[0] // 2, image.shape[1] // 2)), (image.shape[0], image.shape[1])
    ),
    "mirrored": lambda image, _: np.ascontiguousarray(image[:, ::-1]),
    "upside down": lambda image, _: np.ascontiguousarray(image[::-1]),
    "turned by 90 degrees": lambda image, _: np.ascontiguousarray(np.rot90(image)),
    "turned by 180 degrees": lambda image, _: np.ascontiguousarray(np.rot90(image, 2)),
    "turned by 270 degrees, mirrored": lambda image, _: np.ascontiguousarray(np.rot90(image, 3)[:, ::-1]),
    "cropped by 2 %": partial(_cropped, share=0.02),
    "cropped by 5 %": partial(_cropped, share=0.05),
}


def copies(images: list[UInt8Image], change: Copy) -> float:
    """Return the share of images that are in one group with their changed copy, and with nothing else."""
    rng = np.random.default_rng(0)
    found = run_to_end(find_alike(ArraySource([*images, *(change(image, rng) for image in images)])))
    n, sizes = len(images), Counter(found)
    return sum(found[i] == found[n + i] and sizes[found[i]] == 2 for i in range(n)) / n


def facts_of(source: FileSource) -> dict[str, Any]:
    """Return number and size of the groups found in a set, and the seconds it took after decoding."""
    started = time.perf_counter()
    found = run_to_end(find_alike(source))
    sizes = [size for size in Counter(found).values() if size > 1]
    shown = {"images": len(source), "in_groups": sum(sizes), "groups": len(sizes), "largest": max(sizes, default=1)}
    return {**shown, "seconds": round(time.perf_counter() - started, 2)}


def normals_of(folder: Path) -> list[Path]:
    """Return the images of a set's folders of normals."""
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES)
    words = {"good", "normal", "mt_free", "free"}
    return [path for path in paths if words & {part.casefold() for part in path.parts}]


def main() -> None:
    """Measure all three tables and write them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="*", default=["scores", "bursts", "sets"])
    parser.add_argument("--seeds", type=int, default=20, help="fits to bursts")
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    args = parser.parse_args()
    warnings.simplefilter("ignore", AnomemWarning)
    path = FOLDER / "groups.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "scores" in args.parts:
        for grouped in (False, True):
            found = _means([scores(seed, grouped=grouped) for seed in range(300)])
            result.setdefault("scores", {})["by groups" if grouped else "one by one"] = found
    if "bursts" in args.parts:
        for groups in (None, "near"):
            found = _means([bursts(seed, groups) for seed in range(args.seeds)])
            result.setdefault("bursts", {})[groups or "without groups"] = found
    for name in args.sets if "sets" in args.parts else ():
        paths = normals_of(Path(os.environ["ANOMEM_DATA"]) / name)
        result.setdefault("sets", {})[name] = facts_of(FileSource(paths))
        chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(ORIGINALS, len(paths))).astype(int)]
        images = [decode(path) for path in chosen]
        result.setdefault("copies", {})[name] = {kind: round(copies(images, c), 3) for kind, c in COPIES.items()}
        write_result("groups", result)
    print(json.dumps({name: result.get(name) for name in ("scores", "bursts")}))
    write_result("groups", result)


def _means(runs: list[dict[str, float]]) -> dict[str, float]:
    return {**{name: round(float(np.mean([run[name] for run in runs])), 4) for name in runs[0]}, "fits": len(runs)}


if __name__ == "__main__":
    main()
