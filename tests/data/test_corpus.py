"""Order and checks of the images passed to a fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomem.data.corpus import read_corpus
from anomem.errors import InputError
from anomem.runtime.progress import run_to_end

IMAGES = np.zeros((3, 8, 8, 3), np.uint8)


def test_masks_may_stand_among_nones() -> None:
    mask = np.eye(8, dtype=bool)
    corpus = run_to_end(read_corpus(IMAGES, [0, 1, 1], masks=[None, mask, None]))
    assert corpus.mask_of(0, (8, 8)) is None
    assert np.array_equal(corpus.mask_of(1, (8, 8)), mask)


@pytest.mark.parametrize("y", [0, "abc", np.asarray(1), torch.tensor(1)])
def test_one_value_is_no_list_of_labels(y: object) -> None:
    with pytest.raises(InputError, match="y is .*give one entry an image"):
        run_to_end(read_corpus(IMAGES, y))


def test_labels_may_be_arrays_and_tensors() -> None:
    for y in (np.asarray([0, 1, -1]), torch.tensor([0, 1, -1]), (0, 1, -1)):
        assert run_to_end(read_corpus(IMAGES, y)).labels.tolist() == [0, 1, -1]
