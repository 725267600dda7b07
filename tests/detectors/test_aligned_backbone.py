"""Backbone with aligners between its stages, and the losses that train it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from anomem.detectors.fyd.aligned_backbone import Aligned, AlignedBackbone, cut, spread_of
from anomem.detectors.fyd.alignment import (
    affine,
    compose,
    rotation,
    warp,
)
from anomem.detectors.fyd.fine_alignment import (
    DenseAlignment,
    FineAlignment,
    Pose,
    Weights,
)
from anomem.errors import ParameterError
from anomem.nn.backbones import Backbone
from tests.detectors.warps import generator, smooth


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Backbone(stages=(1, 2, 3), folded=True).eval()


def _aligned(backbone: Backbone, **changes: Any) -> AlignedBackbone:
    options: dict[str, Any] = {"image": {"hidden": 8}, "feature": {"hidden": 8, "centred": False}}
    return AlignedBackbone(backbone, (64, 64), **{**options, **changes}).eval()


def _shaken(model: AlignedBackbone) -> AlignedBackbone:
    """Aligners that do something."""
    for name, parameter in model.named_parameters():
        if name.endswith("localiser.last.bias"):
            parameter.data.copy_(0.1 * torch.randn(len(parameter), generator=generator()))
    return model


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_a_backbone_in_pieces_computes_the_same(name: str) -> None:
    whole = Backbone(name, stages=(1, 2, 3)).eval()
    images = smooth(2, 64)
    with torch.inference_mode():
        expected = whole(images)
        x = (images - whole.mean) / whole.std
        for piece, wanted in zip(cut(whole), expected, strict=True):
            x = piece(x)
            torch.testing.assert_close(x, wanted, rtol=1e-4, atol=1e-4)
        found = AlignedBackbone(whole, (64, 64), image=None, feature=None).eval()(images)
    for one, wanted in zip(found.maps, expected, strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.last, found.maps[-1])


def test_stages_out_of_order_are_refused() -> None:
    with pytest.raises(ParameterError, match="in order"):
        cut(Backbone(stages=(3, 2)).eval())


def test_untrained_aligners_leave_the_maps_alone(backbone: Backbone) -> None:
    images = smooth(2, 64)
    with torch.inference_mode():
        plain = _aligned(backbone, image=None, feature=None)(images)
        found = _aligned(backbone)(images)
    for one, wanted in zip(found.maps, plain.maps, strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-3, atol=1e-3)


def test_the_common_frame_is_that_of_the_last_stage(backbone: Backbone) -> None:
    images = smooth(2, 64)
    model = _shaken(_aligned(backbone))
    with torch.inference_mode():
        found = model(images)
        model.common_frame = False
        own = model(images)
        _, first, second, third = found.thetas
        for theta in found.thetas[1:]:
            assert float((theta - torch.eye(2, 3)).abs().max()) > 0.02
        torch.testing.assert_close(found.maps[2], own.maps[2])
        torch.testing.assert_close(own.last, own.maps[2])
        later = warp(warp(own.maps[0], second), third)
        same = torch.cosine_similarity(found.maps[0][..., 3:-3, 3:-3], later[..., 3:-3, 3:-3], dim=1).mean()
        other = torch.cosine_similarity(own.maps[0][..., 3:-3, 3:-3], later[..., 3:-3, 3:-3], dim=1).mean()
    assert float(same) > float(other)
    expected = compose(compose(compose(found.thetas[0], first), second), third)
    torch.testing.assert_close(found.theta(), expected)


def test_what_any_warp_made_up_is_marked() -> None:
    right, left = (torch.tensor([[[1.0, 0.0, s], [0.0, 1.0, 0.0]]]) for s in (1.0, -1.0))
    blank = torch.zeros(1, 1, 4, 4)
    found = Aligned([blank], blank, blank, [right, left])
    torch.testing.assert_close(found.theta(), torch.eye(2, 3)[None])  # where one goes out, the other comes back in
    # Read from the left half of a frame whose right half is padding.
    assert found.seen((4, 4)).tolist() == [[[0, 0, 1, 1]] * 4]


def test_aligners_stand_behind_chosen_stages_alone(backbone: Backbone) -> None:
    images = smooth(2, 64).byte()
    one = _shaken(_aligned(backbone, image=None, feature={"hidden": 8, "behind": [1]}))
    found = one(images)
    moved = [not torch.equal(theta, torch.eye(2, 3).expand(2, 2, 3)) for theta in found.thetas]
    assert moved == [False, False, True, False]
    before = _aligned(backbone, image=None, feature=None)(images)
    # In the layout of the forward pass: with several threads another one takes another kernel, and rounds otherwise.
    x = ((images - one.mean) / one.std).contiguous(memory_format=torch.channels_last)
    assert torch.equal(one.segments[0](x), before.maps[0])


def test_every_parameter_gets_a_gradient(backbone: Backbone) -> None:
    model = _shaken(_aligned(backbone, feature={"hidden": 8}))
    for name, parameter in model.named_parameters():
        if name.endswith("localiser.last.weight"):
            torch.nn.init.normal_(parameter, std=0.05, generator=generator())
    model.requires_grad_(True)
    training = DenseAlignment(model, width=16, weights=Weights(), pose=Pose(1.0, 0.1), rng=generator())
    training.train()
    loss, figures = training.loss(smooth(4, 64).byte())
    loss.backward()
    without = [n for n, p in training.named_parameters() if p.grad is None or not bool((p.grad != 0).any())]
    # What all share in a feature warp is taken out again.
    assert [n for n in without if not n.endswith("localiser.last.bias")] == []
    assert all("feature_aligners" in n for n in without)
    assert {"feature_loss", "image_loss", "z_deviation", "angle_spread", "scale_spread", "shift_spread"} <= set(figures)


def test_the_summed_loss_is_the_mean_times_the_positions(backbone: Backbone) -> None:
    images, losses = smooth(4, 64).byte(), []
    for summed in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            weights = Weights(0.0, 1.0, summed=summed)
            training = DenseAlignment(_aligned(backbone), width=16, weights=weights, pose=Pose(), rng=generator())
            losses.append(float(training.loss(images)[0].detach()))
    height, width = training.backbone.maps[-1].hw
    assert losses[1] == pytest.approx(height * width * losses[0], rel=1e-5)


def test_both_losses_are_weighted(backbone: Backbone) -> None:
    found = {}
    for weights in (Weights(1.0, 0.0), Weights(0.0, 1.0), Weights(2.0, 3.0)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _aligned(backbone)
            training = DenseAlignment(model, width=16, weights=weights, pose=Pose(), rng=generator()).eval()
        value, figures = training.loss(smooth(4, 64))
        found[weights.image, weights.feature] = float(value.detach())
        assert float(value.detach()) == pytest.approx(
            weights.image * figures["image_loss"] + weights.feature * figures["feature_loss"], abs=1e-6
        )
    assert found[2.0, 3.0] == pytest.approx(2 * found[1.0, 0.0] + 3 * found[0.0, 1.0], abs=1e-5)


def test_encoder_has_three_layers_and_predictor_two() -> None:
    fine = FineAlignment(7, width=12)
    for part, channels in ((fine.encoder, [7, 12, 12, 12]), (fine.predictor, [12, 12, 12])):
        convolutions = [m for m in part if isinstance(m, torch.nn.Conv2d)]
        assert [c.in_channels for c in convolutions] + [convolutions[-1].out_channels] == channels
        assert all(c.kernel_size == (1, 1) for c in convolutions)
        norms = [type(m) for m in part if not isinstance(m, torch.nn.Conv2d)]
        assert norms == [torch.nn.BatchNorm2d, torch.nn.ReLU] * (len(convolutions) - 1)
    encoded, predicted = fine(torch.randn(2, 7, 3, 3))
    torch.testing.assert_close(predicted, fine.predictor(encoded), rtol=1e-4, atol=1e-4)


def test_spread_tells_how_much_warps_differ() -> None:
    same = rotation(torch.full((5,), 0.7))
    still = spread_of([same])
    assert still["angle_spread"] == pytest.approx(0, abs=0.1)
    assert still["scale_spread"] == pytest.approx(0, abs=1e-6)
    angles = 0.3 * torch.randn(500, generator=generator())
    assert spread_of([rotation(angles)])["angle_spread"] == pytest.approx(math.degrees(0.3), rel=0.1)
    many = torch.zeros(500, 6)
    many[:, 1] = many[:, 2] = 0.1 * torch.randn(500, generator=generator())
    many[:, 4] = 0.05 * torch.randn(500, generator=generator(1))
    found = spread_of([affine(many)])
    assert found["scale_spread"] == pytest.approx(0.1, rel=0.1)
    assert found["shift_spread"] == pytest.approx(0.05, rel=0.2)
