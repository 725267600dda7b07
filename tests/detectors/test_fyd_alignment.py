"""Alignment: warps compose and invert, aligners start at the identity, learn, and stay within bounds."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anomem.detectors.fyd.alignment import (
    FCA_BOUNDS,
    FeatureAligner,
    ImageAligner,
    affine,
    compose,
    identity,
    in_frame,
    invert,
    places,
    rotation,
    warp,
)
from anomem.detectors.fyd.fine_alignment import (
    PixelAlignment,
    Pose,
    disc,
)
from anomem.errors import ParameterError
from anomem.runtime.progress import run_to_end
from anomem.training import Recipe, train
from tests.detectors.warps import generator, numbers, smooth, thetas, well_inside

# --- warps ------------------------------------------------------------------------------------


@given(first=numbers, second=numbers, point=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_composing_equals_applying_one_after_the_other(
    first: list[float], second: list[float], point: tuple[float, float]
) -> None:
    one, two = (affine(torch.tensor([values], dtype=torch.float64)) for values in (first, second))
    place = torch.tensor([[*point, 1.0]], dtype=torch.float64).unsqueeze(2)
    after_second = two @ place
    expected = one @ torch.cat([after_second, torch.ones(1, 1, 1, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(compose(one, two) @ place, expected)
    undone = compose(one, invert(one)), compose(invert(one), one)
    for theta in undone:
        torch.testing.assert_close(theta, torch.eye(2, 3, dtype=torch.float64)[None])


def test_warping_twice_equals_warping_by_the_composition() -> None:
    images = smooth(4)
    first, second = thetas(4, seed=1, strength=0.5), thetas(4, seed=2, strength=0.5)
    twice = warp(warp(images, first), second)
    once = warp(images, compose(first, second))
    inside = well_inside(second) * well_inside(compose(first, second))
    assert 0.5 < float(inside.mean()) < 1
    assert float(((twice - once).abs() * inside[:, None]).max()) < 3
    reverse = warp(images, compose(second, first))
    assert float(((twice - reverse).abs() * inside[:, None]).max()) > 10


def test_warp_and_inverse_warp_return_the_image() -> None:
    images, theta = smooth(4), thetas(4, seed=3)
    back = warp(warp(images, theta), invert(theta))
    seen = warp(in_frame(theta, (64, 64))[:, None], invert(theta), padding="zeros")[:, 0] > 0.999
    seen &= in_frame(invert(theta), (64, 64)) > 0
    interior = seen[:, 2:-2, 2:-2]
    apart = ((back - images).abs().amax(dim=1)[:, 2:-2, 2:-2])[interior]
    assert float(interior.float().mean()) > 0.5
    assert float(apart.max()) < 4
    moved = (warp(images, theta) - images).abs().amax(dim=1)[:, 2:-2, 2:-2][interior]
    assert float(moved.mean()) > 10


def test_identity_changes_nothing() -> None:
    images = torch.rand(2, 3, 9, 12, generator=generator())
    torch.testing.assert_close(warp(images, identity(2, images)), images, atol=1e-5, rtol=0)
    assert bool(in_frame(identity(2, images), (9, 12)).all())


def test_quarter_turns_are_exact() -> None:
    images = torch.rand(1, 3, 8, 8, generator=generator())
    for turns in (1, 2, 3):
        found = warp(images, rotation(torch.tensor([turns * math.pi / 2])))
        torch.testing.assert_close(found, torch.rot90(images, turns, dims=(2, 3)), atol=1e-4, rtol=0)


def test_places_are_those_of_affine_grid() -> None:
    theta = thetas(3, seed=4)
    torch.testing.assert_close(places(theta, (5, 7)), F.affine_grid(theta, [3, 1, 5, 7], align_corners=False))


def test_padding_is_marked() -> None:
    shifted = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])  # reads half an image to the right
    assert in_frame(shifted, (4, 4)).tolist() == [[[1, 1, 0, 0]] * 4]
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    assert warp(ramp, shifted, padding="border")[0, 0, 0].tolist() == pytest.approx([2, 3, 3, 3])
    assert warp(ramp, shifted, padding="reflection")[0, 0, 0].tolist() == pytest.approx([2, 3, 3, 2])


# --- aligners ---------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [True, False])
def test_an_untrained_image_aligner_changes_nothing(vector: bool) -> None:
    aligner = ImageAligner(32, vector=vector, hidden=8).eval()
    assert aligner.localiser.last.out_features == (2 if vector else 1)
    torch.testing.assert_close(aligner(smooth(3, 32)), torch.eye(2, 3).expand(3, 2, 3))


def test_fourteen_by_fourteen_positions_reach_the_last_layers() -> None:
    aligner = ImageAligner(224)
    assert aligner.view(torch.zeros(1, 3, 224, 224)).shape[2:] == (56, 56)
    assert aligner.localiser.hidden.in_features == 16 * 14 * 14
    assert FeatureAligner(24, (56, 56)).localiser.hidden.in_features == 16 * 14 * 14
    assert aligner.angle(torch.zeros(2, 3, 224, 224)).shape == (2,)


@pytest.mark.parametrize("vector", [True, False])
def test_angles_are_bounded(vector: bool) -> None:
    aligner = ImageAligner(32, max_angle=0.5, vector=vector, hidden=8).eval()
    torch.nn.init.normal_(aligner.localiser.last.weight, std=30, generator=generator())
    angles = aligner.angle(smooth(40, 32)).detach()
    assert 0.4 < float(angles.abs().max()) <= 0.5


def test_an_untrained_feature_aligner_changes_nothing() -> None:
    for bounds in (FCA_BOUNDS, None):
        aligner = FeatureAligner(5, (8, 8), bounds=bounds, hidden=8).eval()
        theta = aligner(torch.randn(3, 5, 8, 8, generator=generator()))
        torch.testing.assert_close(theta, torch.eye(2, 3).expand(3, 2, 3))


def test_feature_warps_are_bounded() -> None:
    """By 0.2 in the logarithm of the scale and in each shift, which numbers however large reach and never pass."""
    aligner = FeatureAligner(5, (8, 8), centred=False, hidden=8).eval()
    maps, longest = torch.randn(64, 5, 8, 8, generator=generator()), 0.2 * math.sqrt(2)
    torch.nn.init.normal_(aligner.localiser.last.weight, std=100, generator=generator())
    theta = aligner(maps).detach()
    assert float(_log_scale(theta).abs().max()) <= 0.2001
    assert float(theta[:, :, 2].norm(dim=1).max()) <= longest + 1e-4
    torch.nn.init.zeros_(aligner.localiser.last.weight)
    for number, reached in ((1e3, 0.2), (-1e3, -0.2)):
        torch.nn.init.constant_(aligner.localiser.last.bias, number)
        theta = aligner(maps).detach()
        torch.testing.assert_close(_log_scale(theta), torch.full((64,), reached), atol=1e-4, rtol=0)
        torch.testing.assert_close(theta[:, :, 2].norm(dim=1), torch.full((64,), longest), atol=1e-4, rtol=0)


def _log_scale(theta: Tensor) -> Tensor:
    return (theta[:, 0, 0] * theta[:, 1, 1] - theta[:, 0, 1] * theta[:, 1, 0]).log() / 2


def test_a_warp_that_all_share_is_taken_out() -> None:
    maps = torch.randn(16, 5, 8, 8, generator=generator())
    aligner = FeatureAligner(5, (8, 8), hidden=8)
    torch.nn.init.normal_(aligner.localiser.last.weight, std=0.05, generator=generator())
    torch.nn.init.constant_(aligner.localiser.last.bias, 0.2)
    aligner.train()
    free = FeatureAligner(5, (8, 8), centred=False, hidden=8)
    free.load_state_dict(aligner.state_dict())
    free.requires_grad_(False)
    aligner.requires_grad_(False)
    assert float((free.train()(maps).mean(dim=0) - torch.eye(2, 3)).abs().max()) > 0.1
    assert float((aligner(maps).mean(dim=0) - torch.eye(2, 3)).abs().max()) < 0.02
    for _ in range(80):
        aligner(maps)
    aligner.eval()
    torch.testing.assert_close(aligner(maps)[:4], aligner(maps[:4]), atol=1e-5, rtol=1e-5)  # no batch any more
    assert float((aligner(maps).mean(dim=0) - torch.eye(2, 3)).abs().max()) < 0.05


def test_maps_too_small_are_refused() -> None:
    with pytest.raises(ParameterError, match="larger size"):
        FeatureAligner(5, (3, 3))


def test_pixels_teach_a_common_direction() -> None:
    """Bars in random directions: after training they lie as before, but alike."""
    side, count = 24, 20
    angles = torch.linspace(-math.pi / 2, math.pi / 2, count + 1)[:-1]
    bar = torch.zeros(1, 3, side, side)
    bar[..., 10:14, 3:21] = 255
    bars = warp(bar.expand(count, -1, -1, -1), rotation(angles), padding="border")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        aligner = ImageAligner(side, hidden=16)
    training = PixelAlignment(aligner, Pose(turns=math.pi, padding="border"), generator())
    # A rate that falls to 0 lets it settle: at a constant one it wanders, and each rounding another way.
    recipe = Recipe(150, 0.003, optimiser="adamw")
    run_to_end(train(aligner.train(), training.loss, itertools.repeat(bars), recipe, device=torch.device("cpu")))
    aligner.eval()
    with torch.no_grad():
        directions = torch.remainder(angles + aligner.angle(bars), math.pi)

    def concentration(values: Tensor) -> float:  # 1 where all directions agree, a bar having no head
        return float(torch.stack([(2 * values).cos().mean(), (2 * values).sin().mean()]).norm())

    assert concentration(angles) < 0.1
    assert concentration(directions) > 0.9


@pytest.mark.parametrize(("groups", "surplus"), [((0.9,), 0.9), ((0.9, 0.9 + math.pi), 0.9)])
def test_the_common_direction_turns_as_little_as_possible(groups: tuple[float, ...], surplus: float) -> None:
    aligner = ImageAligner(32, hidden=8).eval()
    images = smooth(3, 32)
    as_it_is = torch.cat([g + 0.3 * torch.randn(200, generator=generator()) for g in groups])
    with torch.no_grad():
        before = aligner.angle(images)
        aligner.centre(rotation(as_it_is))
        turned = torch.remainder(aligner.angle(images) - before, 2 * math.pi)
    torch.testing.assert_close(turned, (before - surplus) % (2 * math.pi), atol=0.05, rtol=0)
    number = ImageAligner(32, vector=False, hidden=8).eval()
    number.centre(rotation(as_it_is))  # it has no direction to choose
    torch.testing.assert_close(number(images), torch.eye(2, 3).expand(3, 2, 3))


def test_only_the_inscribed_circle_counts() -> None:
    inside = disc(torch.zeros(1, 1, 32, 32))
    assert float(inside.mean()) == pytest.approx(math.pi / 4, abs=0.01)
    theta = rotation(torch.tensor([0.4, -2.0]))
    assert bool((in_frame(theta, (32, 32)) >= inside).all())


def test_poses_turn_and_enlarge_within_their_limits() -> None:
    images = smooth(3, 32)
    assert torch.equal(Pose()(images, generator()), images)
    angles = ((2 * torch.rand(2, 3, generator=generator()) - 1) * 0.5)[0]
    torch.testing.assert_close(Pose(turns=0.5)(images, generator()), warp(images, rotation(angles)))
    ramp = torch.linspace(-1, 1, 33).expand(200, 1, 33, 33)[..., :32] + 1 / 32
    slopes = (lambda z: z[:, 0, 16, 20] - z[:, 0, 16, 12])(Pose(zooms=0.3)(ramp, generator())) / 0.5
    assert 0.29 < float(slopes.log().abs().max()) < 0.31
