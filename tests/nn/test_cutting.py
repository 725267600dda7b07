"""Cut models: a trace serves every model of one architecture, and no other."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from anomem.nn.backbones import load_backbone
from anomem.nn.cutting import UntraceableError, cut_model, output_node


class Scaled(nn.Module):
    """Model whose trace holds a constant of its own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) * torch.tensor(self.factor))


class Branching(nn.Module):
    """Model whose path depends on its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Dropping(nn.Module):
    """Model that computes otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(-x if self.training else x)


def image() -> Tensor:
    return torch.linspace(0, 1, 48).view(1, 3, 4, 4)


def test_a_second_model_of_an_architecture_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_backbone("resnet18", (1, 2), weights=None).eval()

    def trace(*_: Any, **__: Any) -> None:
        raise AssertionError("traced again")

    monkeypatch.setattr(fx.Tracer, "trace", trace)
    second = load_backbone("resnet18", (1, 2), weights=None).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert not torch.equal(first(images)[0], second(images)[0]), "weights are each model's own"
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(one, two) for one, two in zip(first(images), second(images), strict=True))
    with pytest.raises(AssertionError, match="traced again"):
        load_backbone("resnet18", (1, 3), weights=None)


def test_modes_of_models_that_share_a_trace_are_their_own() -> None:
    models = [Dropping().eval() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    one, two = (cut_model(model, {"last": "out"}, "dropping") for model in models)
    one.train()
    assert torch.equal(two(image())["out"], models[1](image())), "still in evaluation"
    assert torch.equal(one(image())["out"], models[0].train()(image()))
    two.train()
    one.eval()
    assert torch.equal(one(image())["out"], models[0].eval()(image()))


def test_a_trace_with_constants_serves_its_own_model_alone() -> None:
    for factor in (1.0, 5.0):
        model = Scaled(factor).eval()
        assert torch.equal(cut_model(model, {"last": "out"}, "scaled")(image())["out"], model(image()))


def test_what_cannot_be_traced_is_said() -> None:
    with pytest.raises(UntraceableError):
        cut_model(Branching(), {"x": "out"}, "branching")
    with pytest.raises(UntraceableError):
        output_node(Branching(), "branching")


def test_a_kept_trace_keeps_no_model_alive() -> None:
    first = load_backbone("resnet34", (1,), weights=None)
    seen = weakref.ref(next(first.model.children()))
    del first
    gc.collect()
    assert seen() is None
