"""Common files of the exported-model benchmarks: JPEG textures, one fitted model, its exports, bare backbones.

All files are in one folder and made once; :func:`prepare` reuses those of an earlier run.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.common import Bench, isolated

SIDE, QUALITY = 256, 92
FORMS = {
    "onnxruntime float32": ("model.onnx", "fp32", "float32"),
    "openvino float32": ("float32.xml", "fp32", "float32"),
    "openvino bfloat16": ("bfloat16.xml", "bf16", "bfloat16"),
    "openvino int8": ("int8.xml", "int8", "int8"),
}
"""Runtime and precision -> file, precision of the export, arithmetic."""

QUANTISED = 64


def write_jpegs(root: Path, n_train: int, n_test: int) -> None:
    """Write one texture in MVTec layout as JPEG files of 256 px: normals to fit to and to score, a few darkened."""
    import numpy as np
    from PIL import Image

    from anomem.data.synthetic import crops
    from anomem.runtime.atomic import atomic_path

    for part, half, count in (
        ("train/good", "train", n_train),
        ("test/good", "test", n_test),
        ("test/dark", "test", 4),
    ):
        (root / part).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            path = root / part / f"{i:05d}.jpg"
            if path.exists():
                continue
            rng = np.random.default_rng([len(part), i])
            (image,) = crops("gravel", 1, size=SIDE, half=half, rng=rng)
            if part == "test/dark":
                image[80:120, 80:120] //= 3
            with atomic_path(path) as target:
                Image.fromarray(image).save(target, format="JPEG", quality=QUALITY)


def test_files(root: Path) -> list[Path]:
    """Return the files to score, in the order of both sides."""
    from anomem.runtime.listing import find_images

    return find_images(root / "test")


def prepare(bench: Bench, n_train: int, n_test: int) -> tuple[Path, Path]:
    """Prepare images, model and exports; return the folders of images and of models."""
    base = bench.folder.parent / "exported"
    images, models = base / f"textures-{n_train}-{n_test}", base / f"models-{n_train}"
    made = models / "done"
    if not made.exists() or not (images / "test").is_dir():
        print(isolated(make, str(images), str(models), n_train, n_test, bench.args.threads))
        made.touch()
    return images, models


def make(images: str, models: str, n_train: int, n_test: int, threads: int) -> dict[str, Any]:
    """Write the images, fit to them, export; for a separate process."""
    import torch

    import anomem

    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    root, out = Path(images), Path(models)
    out.mkdir(parents=True, exist_ok=True)
    write_jpegs(root, n_train, n_test)
    started = time.perf_counter()
    native = out / "model.safetensors"
    if not native.exists():
        anomem.AnoMem().fit(sorted((root / "train/good").iterdir())[:n_train]).save(native)
    detector = anomem.load(native)
    fitted = time.perf_counter() - started
    for name, precision, _ in FORMS.values():
        if not (out / name).exists():
            wanted = {} if precision == "fp32" else {"normals": sorted((root / "train/good").iterdir())}
            wanted |= {"max_drop": 1.0} if precision == "int8" else {}
            detector.export(out / name, precision=precision, **wanted)
    write_bare(detector, out, sorted((root / "train/good").iterdir())[:QUANTISED])
    return {"fit_seconds": round(fitted, 1), "seconds": round(time.perf_counter() - started, 1)}


def write_bare(detector: Any, out: Path, normals: list[Path]) -> None:
    """Export the backbone alone, up to its last feature map, with the model's export code."""
    from anomem.export.graph import write_onnx
    from anomem.export.ir import write_ir
    from anomem.nn.scorer import Output, Scorer

    class Bare(Scorer):
        def __init__(self, backbone: Any) -> None:
            super().__init__({})
            self.backbone = backbone

        def forward(self, images: Any) -> Output:
            # Earlier maps are computed on the way to the last one; engines accept scores (B,) alone.
            return Output(self.backbone(images)[-1].flatten(1).mean(dim=1))

    hw = detector.preprocessing_.hw
    graph = write_onnx(Bare(detector.scorer_.backbone), hw, out / "bare.onnx")
    write_ir(out / "bare.onnx", out / "bare_float.xml", graph, None)
    write_ir(out / "bare.onnx", out / "bare_int8.xml", graph, list(prepared(detector, normals)))


def prepared(model: Any, files: list[Path]) -> Any:
    """Return files as model input, (N, S, S, 3) uint8."""
    import numpy as np

    from anomem.runtime.scoring import PreparedImages
    from anomem.runtime.sources import open_images

    preprocessing = model.preprocessing_ if hasattr(model, "_state") else model._facts.preprocessing
    images = PreparedImages(open_images(files), preprocessing)
    return np.concatenate([image.tiles for batch in images.prepared(16) for image in batch])


def runtimes() -> str:
    """Return the versions of the runtimes, for a note."""
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("openvino", "onnxruntime"))


def bare_file(models: Path, form: str) -> Path:
    """Return the file of the bare backbone for a form."""
    name, _, arithmetic = FORMS[form]
    return models / (
        "bare.onnx" if name.endswith(".onnx") else f"bare_{'int8' if arithmetic == 'int8' else 'float'}.xml"
    )
