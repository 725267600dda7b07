"""All checks of the contract, and the one call that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from anomem.detector import Detector
from anomem.testing import exports, files, fits, labels, parameters, scores
from anomem.testing.example import Example

Check = Callable[[Example], None]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        parameters.init_only_assigns,
        parameters.clone_and_repr_round_trip,
        parameters.wrong_parameters_are_named,
        parameters.presets_fill_in,
        fits.fit_returns_self_and_spares_the_global_random_state,
        fits.same_seed_same_scores,
        fits.refit_equals_a_fresh_fit,
        fits.fewer_images_than_a_batch,
        fits.an_interrupted_fit_leaves_no_model,
        fits.unfitted_is_said,
        fits.groups_stay_together,
        scores.batch_size_and_order_do_not_matter,
        scores.threads_agree,
        scores.scoring_changes_nothing,
        scores.every_kind_of_image,
        scores.constant_images,
        scores.unreadable_images_are_named,
        scores.defects_rank_above_normals,
        scores.maps_peak_on_defects,
        scores.region_of_interest,
        scores.tiles,
        labels.labels_count_as_the_class_says,
        labels.unknown_labels_are_left_out,
        labels.wrong_labels_are_refused,
        labels.roles_share_no_image,
        labels.calibration_scores_are_scores,
        labels.cross_fitted_normals_have_all_roles,
        labels.calibrating_leaves_out_what_was_learnt_from,
        labels.labels_refit_the_second_stage,
        labels.refitting_equals_fitting_with_labels,
        files.saved_and_loaded,
        files.pickles_are_refused,
        files.damaged_files_are_refused,
        files.files_do_not_grow,
        exports.exported_scores_are_scores,
    )
}
"""Every check by name; each takes an :class:`Example` and raises AssertionError where the contract is broken."""


def check_detector(
    cls: type[Detector], *, only: Iterable[str] | None = None, example: Example | None = None
) -> dict[str, str]:
    """Check that a detector class keeps the contract.

    Parameters
    ----------
    cls : type
        Detector class; its ``test_params`` should make a fit take a second and fill its memory with 14 images. A check
        named in ``cls.contract_skips`` (name -> reason) is left out.
    only : iterable of str, optional
        Names from :data:`CHECKS`; all by default.
    example : Example, optional
        Images and fitted detectors to share between calls.

    Returns
    -------
    dict
        Per check "passed", or "skipped: " and the reason.

    Raises
    ------
    AssertionError
        At the first check that fails; the message is the broken claim.
    KeyError
        For an unknown check.
    """
    example = Example(cls) if example is None else example
    skips: dict[str, str] = getattr(cls, "contract_skips", {})
    outcome = {}
    for name in CHECKS if only is None else only:
        check = CHECKS[name]
        if name in skips:
            outcome[name] = f"skipped: {skips[name]}"
            continue
        try:
            check(example)
        except Exception as error:
            error.add_note(f"{cls.__name__} breaks the contract in {name}: {check.__doc__}")
            raise
        outcome[name] = "passed"
    return outcome
