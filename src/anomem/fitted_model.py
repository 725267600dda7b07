"""Fitted attributes of a detector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomem.errors import NotFittedError
from anomem.fitting import Fitted
from anomem.nn.scorer import Scorer
from anomem.runtime.calibration import Calibration
from anomem.runtime.frame import Frame
from anomem.runtime.model import Model
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.suspects import Suspect
from anomem.types import Record


class FittedModel(Model):
    """Model whose state is one immutable :class:`~anomem.fitting.Fitted`, None before the fit."""

    _fitted: Fitted | None

    def _state(self) -> Fitted:
        if self._fitted is None:
            raise NotFittedError(f"{type(self).__name__}: not fitted; call fit first, or load a model")
        return self._fitted

    @property
    def scorer_(self) -> Scorer:
        """Fitted module; its ``state_dict`` is the whole fitted state."""
        return self._state().scorer

    @property
    def calibration_(self) -> Calibration:
        """Calibration scores, alpha, threshold and p-values."""
        return self._state().calibration

    @property
    def history_(self) -> list[Record]:
        """Records of the fit, in order."""
        return list(self._state().history)

    @property
    def map_scale_(self) -> tuple[float, float]:
        """Low and high of the one colour scale for this model's maps."""
        return self._state().map_scale

    @property
    def counts_(self) -> dict[str, int]:
        """Images by role: n_train, n_tune, n_calibration, n_labelled."""
        return self._state().counts

    @property
    def groups_(self) -> Mapping[str, Any]:
        """Groups among the normals of the fit; see :func:`anomem.runtime.groups.group_facts`."""
        return dict(self._state().grouping)

    @property
    def skipped_(self) -> tuple[str, ...]:
        """Lines that name the images that the fit could not read, one per image."""
        return self._state().skipped

    @property
    def suspects_(self) -> tuple[Suspect, ...]:
        """Normals of the fit with an extreme out-of-sample score, worst first: path, score, p_value.

        Look at them before the threshold is trusted; see :func:`anomem.runtime.suspects.find_suspects`.
        """
        return self._state().suspects

    @property
    def excluded_(self) -> int:
        """Number of normals that a person left out of the fit."""
        return self._state().excluded

    @property
    def digests_by_role_(self) -> dict[str, frozenset[int]]:
        """Content hashes by role: learn, tune, calibration, labelled."""
        return dict(self._state().digests)

    @property
    def preprocessing_(self) -> Preprocessing:
        """Steps from a decoded image to the network's input."""
        return self._state().preprocessing

    @property
    def frame_(self) -> Frame | None:
        """Size at which the fit's normal images are seen, and the smallest defect that it shows."""
        return self._state().frame

    @property
    def resolved_(self) -> dict[str, Any]:
        """Hyperparameters of the fit, with the preset's values filled in."""
        return dict(self._state().resolved)
