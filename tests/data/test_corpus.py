"""Order and checks of the images passed to a fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomem.data.corpus import read_corpus
from anomem.errors import AnomemWarning, InputError
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.progress import run_to_end

IMAGES = np.zeros((3, 8, 8, 3), np.uint8)


def test_masks_may_stand_among_nones() -> None:
    mask = np.eye(8, dtype=bool)
    corpus = run_to_end(read_corpus(IMAGES, [0, 1, 1], masks=[None, mask, None]))
    assert corpus.mask_of(0, (8, 8)) is None
    assert np.array_equal(corpus.mask_of(1, (8, 8)), mask)


@pytest.mark.parametrize("y", [0, "abc", np.asarray(1), torch.tensor(1)])
def test_one_value_is_no_list_of_labels(y: object) -> None:
    with pytest.raises(InputError, match="y is .*give one entry per image"):
        run_to_end(read_corpus(IMAGES, y))


def test_labels_may_be_arrays_and_tensors() -> None:
    for y in (np.asarray([0, 1, -1]), torch.tensor([0, 1, -1]), (0, 1, -1)):
        assert run_to_end(read_corpus(IMAGES, y)).labels.tolist() == [0, 1, -1]


def test_what_cannot_be_cut_or_has_a_bad_mask_is_left_out_on_request(tmp_path: Path) -> None:
    roi = np.zeros((64, 64), bool)
    roi[:4, :4] = True
    for name, side in (("a", 64), ("b", 64), ("thumb", 5)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    (tmp_path / "mask.png").write_bytes(b"no image")
    images, masks = [tmp_path / f"{name}.png" for name in ("a", "b", "thumb")], [None, tmp_path / "mask.png", None]
    steps = read_corpus(images, masks=masks, skip_bad=True, preprocessing=Preprocessing(16, roi=roi))
    with pytest.warns(AnomemWarning, match="left out 2 unreadable images"):
        corpus = run_to_end(steps)
    assert [digest != 0 for digest in corpus.digests] == [True, False, False]
    assert [line.split(": ")[0] for line in corpus.skipped] == [str(images[1]), str(images[2])]
    assert "mask.png: not an image by its content" in corpus.skipped[0]
