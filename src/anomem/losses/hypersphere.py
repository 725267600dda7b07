"""The Deep SAD objective: normal outputs near a fixed centre, those of labelled anomalies far from it.

Ruff, Vandermeulen, Goernitz, Binder, Mueller, Mueller and Kloft, "Deep Semi-Supervised Anomaly Detection", ICLR 2020.
The paper labels normal +1 and anomalous -1; here a mask says which are anomalous. Its weight decay is the optimiser's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anomem.errors import ParameterError

EPSILON = 1e-6
"""Added to a squared distance before its reciprocal is taken, as in the authors' code."""


def squared_distance(outputs: Tensor, centre: Tensor) -> Tensor:
    """Squared Euclidean distance of (B, D) outputs to the centre (D,): (B,) float32 or wider."""
    with torch.autocast(outputs.device.type, enabled=False):
        wide = outputs if outputs.dtype == torch.float64 else outputs.float()
        return (wide - centre).square().sum(dim=1)


def deep_sad(outputs: Tensor, centre: Tensor, anomalous: Tensor, *, eta: float = 1.0) -> Tensor:
    """Mean over the batch of d for normal or unlabelled images and eta / (d + 1e-6) for labelled anomalies.

    Parameters
    ----------
    outputs : Tensor
        (B, D), what the network makes of the images.
    centre : Tensor
        (D,), c; fixed.
    anomalous : Tensor
        (B,) bool, true for labelled anomalies.
    eta : float, > 0
        Weight of the labelled anomalies.

    Returns
    -------
    Tensor, ()
        d is the squared Euclidean distance to the centre. Without anomalies this is the one-class Deep SVDD objective.

    Raises
    ------
    ParameterError
        If eta is not positive.
    """
    if not eta > 0:
        raise ParameterError(f"eta must be above 0, got {eta}")
    distance = squared_distance(outputs, centre)
    return torch.where(anomalous, eta / (distance + EPSILON), distance).mean()


@torch.no_grad()
def hypersphere_centre(outputs: Tensor, *, floor: float = 0.1) -> Tensor:
    """Return c, the mean (D,) of (N, D) outputs, no coordinate nearer to 0 than `floor`; one at 0 goes to +floor.

    A network without biases maps to 0 with all weights 0: a centre away from 0 keeps that from being a solution.
    """
    mean = outputs.mean(dim=0)
    away = torch.where(mean < 0, -floor, floor).to(mean.dtype)
    return torch.where(mean.abs() < floor, away, mean)
