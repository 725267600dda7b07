"""Largest value per row against torch's own."""

from __future__ import annotations

import pytest
import torch

from anomem.nn.nearest import largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_and_indices_are_those_of_torch(dtype: torch.dtype) -> None:
    rows = torch.randn(50, 301, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.inference_mode():
        values, indices = largest(rows)
    assert torch.equal(values, rows.amax(dim=1))
    assert torch.equal(rows.gather(1, indices[:, None])[:, 0], values)
    assert torch.equal(largest(rows.T)[0], rows.amax(dim=0)), "rows that are not contiguous"


def test_the_first_of_equal_values_counts() -> None:
    assert largest(torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]]))[1].tolist() == [1, 0]


def test_gradients_reach_the_largest() -> None:
    rows = torch.tensor([[1.0, 3.0], [5.0, 2.0]], requires_grad=True)
    largest(rows)[0].sum().backward()
    assert rows.grad.tolist() == [[0.0, 1.0], [1.0, 0.0]]
