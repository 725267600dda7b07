"""Checks of scores and maps."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from anomem.errors import ImageError, InputError
from anomem.metrics import auroc
from anomem.testing.example import Example, refused, require, require_close


def batch_size_and_order_do_not_matter(example: Example) -> None:
    """Check that batches of 1, 7 and 32, and other orders, give the same scores."""
    for batch_size in (1, 7, 32):
        found = example.score(example.fitted, batch_size=batch_size)
        require_close(found, example.scores, example.scores, f"batch size {batch_size} gives the same scores")
    order = np.random.default_rng(0).permutation(len(example.mixed))
    found = example.score(example.fitted, example.mixed[order])
    require_close(found, example.scores[order], example.scores, "another order gives the same scores")


def threads_agree(example: Example) -> None:
    """Check that one and two threads of arithmetic give the same scores, and so do two concurrent callers."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if before == 1 else 1)
        found = example.score(example.fitted)
    finally:
        torch.set_num_threads(before)
    require_close(found, example.scores, example.scores, "1 and 2 threads give the same scores")
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(lambda _: example.score(example.fitted), range(2)):
            require_close(result, example.scores, example.scores, "two callers at once get the same scores")


def scoring_changes_nothing(example: Example) -> None:
    """Check that scoring changes no fitted state, and that the scorer is in evaluation mode without gradients."""
    scorer = example.fitted.scorer_
    before = {name: tensor.clone() for name, tensor in scorer.state_dict().items()}
    example.score(example.fitted)
    after = scorer.state_dict()
    require(all(torch.equal(after[name], tensor) for name, tensor in before.items()), "the state is unchanged")
    require(not any(module.training for module in scorer.modules()), "every module is in evaluation mode")
    require(not any(p.requires_grad for p in scorer.parameters()), "no parameter asks for a gradient")


def every_kind_of_image(example: Example) -> None:
    """Check that grey, palette, RGBA, 16-bit, EXIF-rotated and non-square images are scored as displayed."""
    grey = np.ascontiguousarray(example.defective[0].mean(axis=2).astype(np.uint8)[:, :48])
    shown = np.repeat(grey[..., None], 3, axis=2)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # orientation: to be turned clockwise
    opaque = np.full_like(grey, 255)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{kind}.png" for kind in ("grey", "palette", "rgba", "sixteen", "rotated")]
        Image.fromarray(grey).save(files[0])
        Image.fromarray(grey).convert("P").save(files[1])
        Image.fromarray(np.dstack([shown, opaque])).save(files[2])
        Image.fromarray(grey.astype(np.uint16) * 257).save(files[3])
        Image.fromarray(np.ascontiguousarray(np.rot90(shown))).save(files[4], exif=rotated)
        results = list(example.fitted.score(files, maps=example.cls.localizes, device="cpu"))
    arrays = [grey, np.dstack([shown, opaque]), grey.astype(np.uint16) * 257, grey[..., None]]
    found = np.asarray([r.score for r in results] + [float(example.score(example.fitted, [a])[0]) for a in arrays])
    wanted = np.full_like(found, example.score(example.fitted, [shown])[0])
    require_close(found, wanted, example.scores, "the same picture has the same score in every format")
    if example.cls.localizes:
        require(all(r.map is not None and r.map.shape == grey.shape for r in results), "maps have the image's size")


def constant_images(example: Example) -> None:
    """Check that black, grey and white images have finite scores, maps and p-values."""
    images = np.stack([np.full((48, 64, 3), level, np.uint8) for level in (0, 127, 255)])
    results = list(example.fitted.score(images, maps=example.cls.localizes, device="cpu"))
    require(np.isfinite([r.score for r in results]).all(), "scores are finite")
    require(all(0 < r.p_value <= 1 for r in results), "p-values lie above 0 and reach 1 at most")
    require(all(r.map is None or np.isfinite(r.map).all() for r in results), "maps are finite")


def defects_rank_above_normals(example: Example) -> None:
    """Check that planted defects have higher scores than normal images: AUROC above 0.8."""
    found = auroc(example.scores, [0] * len(example.normal) + [1] * len(example.defective))
    require(found > 0.8, f"AUROC above 0.8, not {found:.3f}")


def maps_peak_on_defects(example: Example) -> None:
    """Check that maps have the image's size and peak on the planted defect; without maps, drawing is refused."""
    if not example.cls.localizes:
        refused(
            InputError, lambda: example.fitted.anomaly_map(example.defective, device="cpu"), "a method without maps"
        )
        return
    from scipy.ndimage import binary_dilation

    maps = np.asarray(example.fitted.anomaly_map(example.defective, device="cpu"))
    require(maps.shape == example.masks.shape and maps.dtype == np.float32, "(N, H, W) float32, the images' own size")
    near = [binary_dilation(mask, iterations=3) for mask in example.masks]
    hits = [mask[np.unravel_index(m.argmax(), m.shape)] for m, mask in zip(maps, near, strict=True)]
    require(np.mean(hits) >= 0.6, f"maps peak on the defect: {sum(hits)} of {len(hits)}")


def unreadable_images_are_named(example: Example) -> None:
    """Check that a damaged file is refused by name; with ``skip_bad`` it has no score, and the others keep theirs."""
    with tempfile.TemporaryDirectory() as folder:
        good, bad = Path(folder) / "good.png", Path(folder) / "bad.png"
        Image.fromarray(example.mixed[0]).save(good)
        bad.write_bytes(good.read_bytes()[:200])
        line = refused(ImageError, lambda: example.score(example.fitted, [good, bad]), "a damaged file")
        require("bad.png" in line, f"the error names the file: {line}")
        results = list(example.fitted.score([bad, good], skip_bad=True, device="cpu"))
    require(np.isnan(results[0].score) and "bad.png" in str(results[0].error), "a damaged file has an error, no score")
    require_close(
        np.asarray([results[1].score], np.float32), example.scores[:1], example.scores, "other images keep their scores"
    )


def region_of_interest(example: Example) -> None:
    """Check that pixels outside ``roi`` influence neither fit, scores nor maps."""
    roi = np.zeros((64, 64), bool)
    roi[:, :40] = True
    elsewhere = np.random.default_rng(1).integers(0, 256, example.mixed.shape, dtype=np.uint8)
    hidden = np.where(roi[None, :, :, None], example.mixed, elsewhere)
    images = np.concatenate([example.train[:, :, :40], np.full((len(example.train), 64, 24, 3), 127, np.uint8)], axis=2)
    detector = example.fit(example.new(roi=roi), images)
    require(
        np.array_equal(example.score(detector), example.score(detector, hidden)),
        "pixels outside the region change no score",
    )
    if example.cls.localizes:
        maps = np.asarray(detector.anomaly_map(hidden, device="cpu"))
        inside = maps[:, roi].reshape(len(maps), -1).min(axis=1)
        require((maps[:, ~roi] == inside[:, None]).all(), "outside the region a map is as dark as inside at most")


def tiles(example: Example) -> None:
    """Check that images cut into tiles are fitted and scored, and their maps are reassembled."""
    large = np.concatenate([example.normal[:6], example.defective[:6]], axis=2)
    detector = example.fit(example.new(tile=64))
    results = list(detector.score(large, maps=example.cls.localizes, device="cpu"))
    require(np.isfinite([r.score for r in results]).all(), "scores are finite")
    require(all(r.map is None or r.map.shape == (64, 128) for r in results), "maps have the image's size")
