"""Score images without torch: python standalone.py MODEL.onnx HEATMAPS IMAGES...; needs anomem-runtime[onnxruntime]."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from anomem.runtime.overlay import overlay
from anomem.runtime.session import Session

model, heatmaps, *images = sys.argv[1:]
session = Session.open(model)
Path(heatmaps).mkdir(exist_ok=True)
for result in session.score(images, maps=session.localizes):
    print(result.name, f"{result.score:.6g}", f"{result.p_value:.4g}", "anomalous" if result.anomalous else "normal")
    if result.map is not None:
        picture = np.asarray(ImageOps.exif_transpose(Image.open(result.name)).convert("RGB"))
        drawn = overlay(picture, result.map, *session.map_scale_)
        Image.fromarray(drawn).save(Path(heatmaps) / f"{Path(result.name).stem}.png")
