"""Augmented views: two per image of a batch, seeded by a generator.

Implemented in plain torch: crop and flip are one resampling, and brightness, contrast, saturation,
hue and grey are one 3 x 4 matrix per image, which takes less than half the time of kornia's pipeline
on a CPU. Also, kornia uses torch's global generator, which must not change here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from anomem.errors import InputError, ParameterError

__all__ = ["LITERAL", "Augmentation", "view", "views"]

_LUMA = (0.299, 0.587, 0.114)
_ASPECT = 4 / 3


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Strengths of the random augmentations.

    The defaults are the AnoMem paper's list (crop with rescale, flip, brightness, contrast,
    saturation, Gaussian blur, noise) with SimCLR's strengths, which the paper does not give. Hue
    (SimCLR: 0.1) and grey (SimCLR: 0.2) are not in that list and are off.

    Parameters
    ----------
    crop_scale : (float, float)
        Minimum and maximum share of the area kept by the crop, in (0, 1]. The aspect varies from
        3/4 to 4/3 as far as it fits; with (1, 1) it is fixed.
    flip : float
        Probability of a left-right flip.
    brightness, contrast, saturation : float
        Factors are drawn from 1 - s to 1 + s, s in [0, 1].
    hue : float
        Maximum rotation of the colours about the grey axis, in full turns, in [0, 0.5].
    grey : float
        Probability of conversion to grey.
    blur : float
        Probability of a Gaussian blur.
    noise : float
        Maximum standard deviation of the added Gaussian noise, in [0, 1], relative to the range.
    jitter_probability : float
        Probability that brightness, contrast, saturation and hue change.
    blur_sigma : float
        Maximum standard deviation of the blur relative to the shorter side, in [0, 0.1]. The minimum is a twentieth of
        it (SimCLR: 0.1 to 2 px at 224 px).
    size : int, optional
        Side of the square views in pixels; the size of the images by default.

    Raises
    ------
    ParameterError
        Value outside its range.
    """

    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.0
    grey: float = 0.0
    blur: float = 0.5
    noise: float = 0.02
    jitter_probability: float = 0.8
    blur_sigma: float = 0.009
    size: int | None = None

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ParameterError(f"crop_scale {self.crop_scale}; give 0 < least <= most <= 1")
        if self.size is not None and self.size < 1:
            raise ParameterError(f"size {self.size}; give a number of pixels, or None")
        most = {"hue": 0.5, "blur_sigma": 0.1}
        for name in (field.name for field in fields(self)):
            value, limit = getattr(self, name), most.get(name, 1.0)
            if name not in ("crop_scale", "size") and not 0 <= value <= limit:
                raise ParameterError(f"{name} {value}; give 0 to {limit:g}")


LITERAL = Augmentation()
"""Augmentations listed in the AnoMem paper."""


def views(
    images: Tensor,
    augmentation: Augmentation,
    *,
    shared_geometry: bool,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Make two views of each image.

    Parameters
    ----------
    images : Tensor, shape (B, 3, H, W), float
        Values in [0, 1].
    augmentation : Augmentation
    shared_geometry : bool
        Crop and flip both views alike, so that equal positions show equal content, and change
        colours, sharpness and noise independently. Otherwise all changes are independent.
    generator : torch.Generator
        Source of randomness. A CPU generator gives the same parameters for any device.

    Returns
    -------
    first, second : Tensor, shape (B, 3, H, W) or (B, 3, size, size), float32
        Values in [0, 1], on the device of ``images``, without gradient.

    Raises
    ------
    InputError
        Other shape, or integer dtype.
    """
    if not shared_geometry:
        first = view(images, augmentation, generator=generator)
        return first, view(images, augmentation, generator=generator)
    with torch.no_grad():
        resampled = _crop_and_flip(_checked(images), augmentation, generator)
        first = _photometric(resampled, augmentation, generator)
        return first, _photometric(resampled, augmentation, generator)


def view(images: Tensor, augmentation: Augmentation, *, generator: torch.Generator) -> Tensor:
    """Make one view of each image; see `views`."""
    with torch.no_grad():
        resampled = _crop_and_flip(_checked(images), augmentation, generator)
        return _photometric(resampled, augmentation, generator)


def _checked(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(f"images of shape {tuple(images.shape)}, {images.dtype}; give (B, 3, H, W) float")
    return images.float()


def _uniform(low: float, high: float, count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw (count,) numbers on the generator's device, so that a seed gives the same numbers for any device."""
    drawn = torch.rand(count, generator=generator, device=generator.device)
    return (low + (high - low) * drawn).to(like.device)


def _crop_and_flip(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    area = _uniform(*augmentation.crop_scale, count, images, generator)
    aspect = _uniform(-math.log(_ASPECT), math.log(_ASPECT), count, images, generator).exp()
    # An aspect that does not fit is moved towards 1, so that the area stays as drawn.
    aspect = aspect.clamp(min=area, max=1 / area)
    tall, wide = (area / aspect).sqrt(), (area * aspect).sqrt()
    top = (1 - tall) * _uniform(-1, 1, count, images, generator)
    left = (1 - wide) * _uniform(-1, 1, count, images, generator)
    mirrored = _uniform(0, 1, count, images, generator) < augmentation.flip
    theta = images.new_zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = torch.where(mirrored, -wide, wide), left
    theta[:, 1, 1], theta[:, 1, 2] = tall, top
    size = augmentation.size
    shape = (height, width) if size is None else (size, size)
    if count == 0:
        return images.new_zeros(0, 3, *shape)
    if max(height / shape[0], width / shape[1]) > 2:
        # Bilinear resampling uses four pixels: shrink first to avoid aliasing.
        rough = (min(height, 2 * shape[0]), min(width, 2 * shape[1]))
        images = functional.interpolate(images, rough, mode="bilinear", antialias=True)
    grid = functional.affine_grid(theta, [count, 3, *shape], align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _photometric(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    changed = _jitter(images, augmentation, generator)
    changed = _blur(changed, augmentation, generator)
    if augmentation.noise > 0:
        level = _uniform(0, augmentation.noise, len(images), images, generator)
        drawn = torch.randn(images.shape, generator=generator, device=generator.device)
        changed = changed + level[:, None, None, None] * drawn.to(images.device)
    return changed.clamp(0, 1)


def _jitter(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Change the colours of each image by one affine map of its RGB values."""
    count = len(images)

    def factor(strength: float) -> Tensor:
        drawn = _uniform(1 - strength, 1 + strength, count, images, generator)
        return drawn[:, None, None]

    eye = torch.eye(3, device=images.device)
    luma = images.new_tensor(_LUMA).expand(3, 3)  # each row gives the grey value
    brightness, contrast = factor(augmentation.brightness), factor(augmentation.contrast)
    saturation = factor(augmentation.saturation)
    turn = 2 * math.pi * (factor(augmentation.hue) - 1)
    lost = _uniform(0, 1, count, images, generator) < augmentation.grey
    saturation = torch.where(lost[:, None, None], 0.0, saturation)
    chroma = (saturation * (eye - luma)) @ _turn_about_grey(turn)
    matrix = brightness * contrast * (luma + chroma)
    mean_grey = (images.mean(dim=(2, 3)) @ images.new_tensor(_LUMA))[:, None, None]
    offset = brightness * (1 - contrast) * mean_grey
    jittered = matrix @ images.flatten(2) + offset
    kept = _uniform(0, 1, count, images, generator) >= augmentation.jitter_probability
    # Grey has a separate probability.
    plain = torch.where(lost[:, None, None], luma, eye) @ images.flatten(2)
    return torch.where(kept[:, None, None], plain, jittered).reshape(images.shape).clamp(0, 1)


def _turn_about_grey(angle: Tensor) -> Tensor:
    """Return rotations (B, 3, 3) of RGB space about (1, 1, 1) by angle (B, 1, 1), by Rodrigues' formula."""
    a = 1 / math.sqrt(3)
    cross = angle.new_tensor([[0, -a, a], [a, 0, -a], [-a, a, 0]])
    along = angle.new_full((3, 3), 1 / 3)
    eye = torch.eye(3, device=angle.device)
    return angle.cos() * eye + angle.sin() * cross + (1 - angle.cos()) * along


def _blur(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    most = augmentation.blur_sigma * min(images.shape[2:])
    sigma = _uniform(most / 20, most, len(images), images, generator)
    picked = _uniform(0, 1, len(images), images, generator) < augmentation.blur
    if not bool(picked.any()):
        return images
    reach = min(math.ceil(2.5 * most), min(images.shape[2:]) - 1)
    if reach < 1:
        return images
    blurred = images.clone()
    blurred[picked] = _gaussian(images[picked], sigma[picked], reach)
    return blurred


def _gaussian(images: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """Blur each image (B, 3, H, W) by its own sigma (B,) in pixels; mirrored at the edges."""
    count, channels, height, width = images.shape
    steps = torch.arange(-reach, reach + 1, device=images.device)
    # A sigma below 0.01 pixels has no effect, and near 0 the quotient is undefined.
    kernel = torch.exp(-0.5 * (steps / sigma.clamp(min=0.01)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, 0)
    planes = functional.pad(images, (reach,) * 4, mode="reflect")
    planes = planes.reshape(1, count * channels, height + 2 * reach, width + 2 * reach)
    planes = functional.conv2d(planes, kernel[:, None, :, None], groups=count * channels)
    planes = functional.conv2d(planes, kernel[:, None, None, :], groups=count * channels)
    return planes.reshape(images.shape)
