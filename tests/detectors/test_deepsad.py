"""Deep SAD: networks without biases, the centre, and the effect of labels on distances."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import anomem
from anomem.data.imageset import ImageSet
from anomem.data.sources import open_source
from anomem.data.synthetic import crops, plant
from anomem.detectors.baselines import deepsad as module
from anomem.detectors.baselines._hypersphere import (
    Autoencoder,
    Hypersphere,
    dense,
    draw_weights,
    hypersphere_centre,
    lenet_decoder,
    lenet_encoder,
)
from anomem.detectors.baselines.deepsad import DeepSAD, DeepSADImageScorer, mixed
from anomem.errors import AnomemWarning, InputError, ParameterError
from anomem.fitting import Run, make_run
from anomem.metrics import auroc
from anomem.runtime.preprocess import Preprocessing
from anomem.runtime.progress import run_to_end
from anomem.testing.example import digests
from anomem.types import UInt8Image

OPTIONS: dict[str, Any] = {"alpha": 0.2, "device": "cpu", "fit_precision": "float32"}
TINY: dict[str, Any] = {"size": 64, "hidden": (32,), "rep_dim": 8, "pretrain_steps": 30, "train_steps": 60}
LENET: dict[str, Any] = {"size": 32, "encoder": "lenet", "rep_dim": 16, "train_batch": 8}


@pytest.fixture(scope="module")
def normals() -> UInt8Image:
    return crops("gravel", 40, size=64, half="train", rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def holes() -> UInt8Image:
    rng = np.random.default_rng(1)
    return np.stack([plant(i, "hole", rng, 0.5)[0] for i in crops("gravel", 8, size=64, half="test", rng=rng)])


def _labelled(detector: DeepSAD, normals: UInt8Image, anomalies: UInt8Image) -> DeepSAD:
    return detector.fit(np.concatenate([normals, anomalies]), [0] * len(normals) + [1] * len(anomalies), **OPTIONS)


def _run(**params: Any) -> Run:
    return make_run(DeepSAD(**params).resolve(), device="cpu", fit_precision="float32", batch_size=8, workers=0)


def _trained(normals: Tensor, anomalies: Tensor, **params: Any) -> Hypersphere:
    """A small network trained on vectors."""
    run, dim = _run(pretrain_steps=100, lr=1e-3, **params), normals.shape[1]
    sphere = Hypersphere(dense([dim, 32, 8]), 8)
    autoencoder = Autoencoder(sphere.encoder, dense([8, 32, dim]))
    batches = mixed(normals, anomalies, run.params.train_batch, run.rng)
    run_to_end(module._train(sphere, autoencoder, batches, [normals], run, precision="float32"))
    return sphere


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- networks ---------------------------------------------------------------------------------


def test_networks_have_no_learnt_shift_and_a_gradient_everywhere() -> None:
    for encoder, decoder, inputs in (
        (dense([12, 8, 5]), dense([5, 8, 12]), _random(4, 12)),
        (lenet_encoder(32, 5), lenet_decoder(32, 5), _random(4, 3, 32, 32).abs()),
    ):
        network = Autoencoder(encoder, decoder)
        draw_weights(network, torch.Generator().manual_seed(0))
        assert all(name.endswith("weight") and p.ndim > 1 for name, p in network.named_parameters())
        assert encoder(inputs).shape == (4, 5)
        reconstructed = network(inputs)
        assert reconstructed.shape == inputs.shape
        (reconstructed - inputs).square().mean().backward()
        assert all(float(p.grad.abs().max()) > 0 for p in network.parameters() if p.grad is not None)
        assert all(p.grad is not None for p in network.parameters())


def test_without_biases_a_dense_encoder_is_homogeneous_and_unbounded() -> None:
    encoder = dense([12, 8, 5]).double()
    draw_weights(encoder, torch.Generator().manual_seed(0))
    inputs = _random(4, 12).double()
    torch.testing.assert_close(encoder(1e4 * inputs), 1e4 * encoder(inputs))
    torch.testing.assert_close(encoder(0 * inputs), torch.zeros(4, 5).double())


def test_lenet_at_32_pixels_is_the_papers() -> None:
    encoder = lenet_encoder(32, 128)
    shapes = [tuple(p.shape) for p in encoder.parameters()]
    assert shapes == [(32, 3, 5, 5), (64, 32, 5, 5), (128, 64, 5, 5), (128, 128 * 16)]
    kinds = {nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU, nn.MaxPool2d, nn.Flatten, nn.Linear}
    assert {type(m) for m in encoder} == kinds  # nothing that saturates
    assert [m.eps for m in encoder if isinstance(m, nn.BatchNorm2d)] == [1e-4] * 3


@pytest.mark.parametrize("size", [4, 48, 224, 100])
def test_lenet_takes_sizes_that_halve_down_to_four(size: int) -> None:
    with pytest.raises(ParameterError, match=f"size={size} does not halve"):
        lenet_encoder(size, 8)


def test_weights_are_drawn_from_the_generator_alone() -> None:
    networks = [dense([6, 4, 2]) for _ in range(3)]
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        draw_weights(network, torch.Generator().manual_seed(seed))
    first, again, other = (torch.cat([p.flatten() for p in n.parameters()]) for n in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_score_is_the_distance_to_the_centre() -> None:
    sphere = Hypersphere(nn.Identity(), 3)
    sphere.centre = torch.tensor([1.0, 2.0, 3.0])
    outputs = _random(5, 3)
    wanted = [float(np.sqrt(sum((a - b) ** 2 for a, b in zip(z, (1, 2, 3), strict=True)))) for z in outputs.tolist()]
    assert sphere(outputs).tolist() == pytest.approx(wanted, rel=1e-6)


# --- batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "wanted"), [(60, 40, 6), (500, 1, 1), (2, 300, 15), (1, 0, 0)])
def test_anomalies_stand_in_batches_in_their_share(n: int, m: int, wanted: int) -> None:
    normals, anomalies = torch.zeros(n, 3), torch.ones(m, 3)
    for inputs, flags in itertools.islice(mixed(normals, anomalies, 16, torch.Generator().manual_seed(0)), 3):
        assert inputs.shape == (16, 3)
        assert int(flags.sum()) == wanted
        assert torch.equal(inputs[:, 0] == 1, flags)


# --- the detector -----------------------------------------------------------------------------


def test_the_centre_is_the_mean_of_pretrained_outputs() -> None:
    vectors = _random(50, 10)
    pretrained = _trained(vectors, vectors[:0], train_steps=0)
    with torch.no_grad():
        outputs = pretrained.encoder(vectors)
    for d, found in enumerate(pretrained.centre.tolist()):
        mean = sum(outputs[:, d].tolist()) / 50
        assert found == pytest.approx(mean if abs(mean) >= 0.1 else (0.1 if mean >= 0 else -0.1), rel=1e-4)
    assert torch.equal(_trained(vectors, vectors[:0], train_steps=60).centre, pretrained.centre)


def test_pretraining_reconstructs() -> None:
    """Of vectors that span two dimensions an output of two loses little, once the autoencoder is trained."""
    vectors = _random(200, 2) @ _random(2, 10, seed=1)
    losses = []
    for steps in (1, 300):
        network = Autoencoder(dense([10, 16, 2]), dense([2, 16, 10]))
        run = _run(pretrain_steps=steps, train_steps=0)
        sphere = Hypersphere(network.encoder, 2)
        batches = mixed(vectors, vectors[:0], 128, run.rng)
        (record, *_) = list(module._train(sphere, network, batches, [vectors], run, precision="float32"))[-1:]
        losses.append(record.facts["loss"])
    assert losses[1] < 0.3 * losses[0]


def test_training_brings_normals_nearer_without_collapsing() -> None:
    normals, strange = _random(400, 10), 4 * _random(100, 10, seed=1)
    distances = []
    for steps in (0, 200):
        sphere = _trained(normals, normals[:0], train_steps=steps)
        with torch.no_grad():
            distances.append((sphere(_random(200, 10, seed=2)), sphere(strange)))
    (before, _), (after, far) = distances
    assert after.mean() < 0.5 * before.mean()
    assert far.mean() > 1.5 * after.mean()
    assert after.std() > 0.1 * after.mean()


def test_labels_keep_anomalies_away_and_eta_weighs_them() -> None:
    """Anomalies of a kind that the one-class objective finds more normal than normals."""

    def anomalies(n: int, seed: int) -> Tensor:
        return 0.5 * _random(n, 10, seed=seed) + torch.eye(10)[0] * 2

    normals, fresh = _random(400, 10), _random(300, 10, seed=3)
    found = []
    for shown, eta in ((0, 1.0), (40, 1.0), (40, 100.0)):
        sphere = _trained(normals, anomalies(40, 1)[:shown], train_steps=300, eta=eta)
        with torch.no_grad():
            found.append(auroc(torch.cat([sphere(fresh), sphere(anomalies(300, 2))]).numpy(), [0] * 300 + [1] * 300))
    assert found[0] < 0.5
    assert found[1] > found[0] + 0.1
    assert found[2] > 0.9


def test_three_normals_one_anomaly_and_another_backbone_are_enough(normals: UInt8Image, holes: UInt8Image) -> None:
    images = np.concatenate([normals[:3], holes[:1]])
    for options in ({**TINY, "backbone": "resnet18", "weights": None}, LENET):
        for labels in ([0, 0, 0, 1], [0, 0, 0, -1]):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                detector = DeepSAD(**{**options, "pretrain_steps": 2, "train_steps": 2}).fit(
                    images, labels, device="cpu"
                )
            assert any(issubclass(w.category, AnomemWarning) for w in caught)
            assert np.isfinite(detector.anomaly_score(normals[:5], device="cpu")).all()


def test_the_literal_network_learns_and_survives_its_file(
    normals: UInt8Image, holes: UInt8Image, tmp_path: Any
) -> None:
    before, after = (
        _labelled(DeepSAD(**LENET, pretrain_steps=20, train_steps=steps, lr=1e-3), normals, holes[:4])
        for steps in (0, 40)
    )
    encoders = [detector.scorer_.sphere.encoder for detector in (before, after)]
    assert not torch.equal(encoders[0][1].running_var, encoders[1][1].running_var)  # batch statistics are learnt
    shown = after.anomaly_score(holes[:4], device="cpu")
    assert shown.mean() > 1.5 * after.calibration_.scores.mean()
    scores = after.anomaly_score(holes, device="cpu")
    after.save(tmp_path / "model")
    assert np.array_equal(anomem.load(tmp_path / "model").anomaly_score(holes, device="cpu"), scores)
    alone = np.concatenate([after.anomaly_score(holes[i : i + 1], device="cpu") for i in range(len(holes))])
    assert alone == pytest.approx(scores, rel=1e-4)


def test_the_literal_centre_is_that_of_evaluation_mode(normals: UInt8Image) -> None:
    detector = DeepSAD(**LENET, pretrain_steps=3, train_steps=0).fit(normals, **OPTIONS)
    scorer, source = detector.scorer_, open_source(normals)
    assert isinstance(scorer, DeepSADImageScorer)
    learnt = ImageSet(source, Preprocessing(size=32))
    kept = [i for i in range(len(source)) if source.digest(i) in digests(detector)["learn"]]
    (batch,) = learnt.subset(kept).batches(64)
    with torch.inference_mode():
        outputs = scorer.sphere.encoder(batch.images / 255)
    torch.testing.assert_close(scorer.sphere.centre, hypersphere_centre(outputs), rtol=1e-4, atol=1e-5)


def test_labels_are_no_second_stage(normals: UInt8Image, holes: UInt8Image) -> None:
    detector = DeepSAD(**{**TINY, "pretrain_steps": 1, "train_steps": 1}).fit(normals, **OPTIONS)
    with pytest.raises(InputError, match="no second stage"):
        detector.label(holes, device="cpu")


def test_wrong_values_are_named(normals: UInt8Image) -> None:
    for detector, name in (
        (DeepSAD(eta=0.0), "eta"),
        (DeepSAD(hidden=()), "hidden"),
        (DeepSAD(encoder="cnn"), "encoder"),
    ):
        with pytest.raises(ParameterError, match=f"{name}="):
            detector.fit(normals)
    with pytest.raises(ParameterError, match="size=224 does not halve"):
        DeepSAD(encoder="lenet").fit(normals, device="cpu")
