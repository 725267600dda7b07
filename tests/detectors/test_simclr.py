"""SimCLR: the trained parameters, and one-class scores against references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from anomem.data.sources import open_source
from anomem.data.synthetic import crops
from anomem.detectors.baselines._one_class import NearestVectors, gaussians_of, nearest_of, prototypes_of
from anomem.detectors.baselines.knn import KNN
from anomem.detectors.baselines.simclr import ContrastedEncoder, SimCLR, SimCLRScorer, Training
from anomem.errors import ParameterError
from anomem.nn.backbones import Backbone, load_backbone
from anomem.nn.views import unfreeze
from anomem.types import UInt8Image

SCRATCH = {"backbone": "resnet18", "weights": None, "width": 0.125, "size": 32}


@pytest.fixture(scope="module")
def images() -> UInt8Image:
    return crops("gravel", 50, size=64, half="train", rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def fresh() -> UInt8Image:
    return crops("brick", 8, size=64, half="test", rng=np.random.default_rng(1))


def fitted(images: UInt8Image, **params: object) -> SimCLR:
    detector = SimCLR(**{"size": 64, "training": None, **params})
    return detector.fit(images, alpha=0.2, device="cpu", fit_precision="float32")


def scorer_of(detector: SimCLR) -> SimCLRScorer:
    assert isinstance(detector.scorer_, SimCLRScorer)
    return detector.scorer_


def embedded(detector: SimCLR, images: UInt8Image) -> np.ndarray:
    scorer = scorer_of(detector)
    with torch.inference_mode():
        return scorer.embed(scorer.backbone(torch.from_numpy(images).permute(0, 3, 1, 2))).numpy()


def learnt(detector: SimCLR, images: UInt8Image) -> UInt8Image:
    """Those of the images that the encoder and its score were fitted to."""
    source, digests = open_source(images), detector.digests_by_role_["learn"]
    return images[[source.digest(i) in digests for i in range(len(images))]]


def losses(detector: SimCLR) -> list[float]:
    return [record.facts["loss"] for record in detector.history_ if record.stage == "contrastive training"]


# --- one-class scores -------------------------------------------------------------------------


def squared_mahalanobis(z: np.ndarray, cluster: np.ndarray, shrinkage: float) -> np.ndarray:
    from scipy.spatial.distance import cdist

    covariance = np.cov(cluster.T, bias=True)
    shrunk = (1 - shrinkage) * covariance + shrinkage * covariance.trace() / len(covariance) * np.eye(len(covariance))
    return cdist(z, cluster.mean(axis=0)[None], "mahalanobis", VI=np.linalg.inv(shrunk))[:, 0] ** 2


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_mahalanobis_equals_scipy(shrinkage: float) -> None:
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(60, 7, generator=rng) @ torch.randn(7, 7, generator=rng) + 3
    z = torch.randn(9, 7, generator=rng)
    found = gaussians_of(vectors, 1, shrinkage, rng)(z)
    wanted = squared_mahalanobis(z.double().numpy(), vectors.double().numpy(), shrinkage)
    assert found.numpy() == pytest.approx(wanted, rel=1e-4)


def test_the_nearest_gaussian_counts() -> None:
    rng = torch.Generator().manual_seed(1)
    clusters = [torch.randn(40, 5, generator=rng) * (1 + c) + 50 * c for c in range(3)]
    z = torch.cat([50.0 * c + torch.randn(4, 5, generator=rng) for c in range(3)])
    found = gaussians_of(torch.cat(clusters)[torch.randperm(120, generator=rng)], 3, 0.05, rng)(z)
    every = [squared_mahalanobis(z.double().numpy(), c.double().numpy(), 0.05) for c in clusters]
    assert found.numpy() == pytest.approx(np.min(every, axis=0), rel=1e-3)


def test_mahalanobis_of_an_encoder_equals_scipy(images: UInt8Image, fresh: UInt8Image) -> None:
    detector = fitted(images, one_class="mahalanobis", shrinkage=0.2)
    bank = embedded(detector, learnt(detector, images)).astype(np.float64)
    wanted = squared_mahalanobis(embedded(detector, fresh).astype(np.float64), bank, 0.2)
    assert detector.anomaly_score(fresh) == pytest.approx(wanted, rel=1e-3)


def test_directions_without_variance_are_bounded() -> None:
    rng = torch.Generator().manual_seed(2)
    flat = torch.cat([torch.randn(20, 3, generator=rng), torch.zeros(20, 2)], dim=1)
    off = torch.tensor([[0.0, 0, 0, 1, 0], [0, 0, 0, 0, 0]])
    literal, shrunk = (gaussians_of(flat, 1, s, rng)(off) for s in (0.0, 0.1))
    # No variance counts as less than a millionth of the mean one.
    assert float(literal[0]) == pytest.approx(1e6 / float(flat.var(dim=0, correction=0).mean()), rel=1e-3)
    assert literal[0] > 100 * shrunk[0] > 100 * shrunk[1]
    assert torch.isfinite(gaussians_of(torch.ones(4, 5), 1, 0.0, rng)(off)).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_knn_equals_scikit_learn(images: UInt8Image, fresh: UInt8Image, metric: str) -> None:
    from sklearn.neighbors import NearestNeighbors

    detector = fitted(images, k=3, metric=metric)
    bank = embedded(detector, learnt(detector, images))
    assert np.allclose(np.linalg.norm(bank, axis=1), 1, atol=1e-5) == (metric == "cosine")
    distances, _ = NearestNeighbors(n_neighbors=3).fit(bank).kneighbors(embedded(detector, fresh))
    assert detector.anomaly_score(fresh) == pytest.approx((distances**2).sum(axis=1), rel=1e-3)


def test_kmeans_is_the_distance_to_the_nearest_centre(images: UInt8Image, fresh: UInt8Image) -> None:
    from sklearn.neighbors import NearestNeighbors

    detector = fitted(images, one_class="kmeans", n_prototypes=4)
    centres = scorer_of(detector).one_class.bank
    assert centres.shape == (4, 1280)
    distances, _ = NearestNeighbors(n_neighbors=1).fit(centres).kneighbors(embedded(detector, fresh))
    assert detector.anomaly_score(fresh) == pytest.approx(distances[:, 0] ** 2, rel=1e-3)
    bank = embedded(detector, learnt(detector, images))
    assigned = NearestNeighbors(n_neighbors=1).fit(centres).kneighbors(bank, return_distance=False)[:, 0]
    for c, centre in enumerate(centres.numpy()):
        assert centre == pytest.approx(bank[assigned == c].mean(axis=0), abs=2e-2)


def test_more_is_asked_for_than_there_is() -> None:
    rng = torch.Generator().manual_seed(3)
    vectors = torch.randn(5, 4, generator=rng)
    z = torch.randn(3, 4, generator=rng)
    everything = torch.cdist(z, vectors).square()
    torch.testing.assert_close(nearest_of(vectors, 9)(z), everything.sum(dim=1))
    torch.testing.assert_close(prototypes_of(vectors, 9, rng)(z), everything.amin(dim=1))
    assert 1 <= len(gaussians_of(vectors, 9, 0.1, rng).means) <= 5
    with pytest.raises(ParameterError, match="k=6 is not allowed; expected 1 to 5"):
        NearestVectors(5, 4, 6)


def test_the_file_is_bounded(images: UInt8Image) -> None:
    scorer = scorer_of(fitted(images, k=9, max_items=5))
    assert scorer.one_class.bank.shape == (5, 1280)
    assert scorer.config["k"] == 5


# --- contrastive training ---------------------------------------------------------------------


def encoder(how: str, projection_dim: int | None = 6) -> ContrastedEncoder:
    torch.manual_seed(0)
    backbone = Backbone("resnet18", (-2,), embedding=True, width=0.125, small_stem=True).train()
    unfreeze(backbone, how)
    rng = torch.Generator().manual_seed(0)
    return ContrastedEncoder(backbone, 64, projection_dim=projection_dim, temperature=0.2, rng=rng)


def maps_of(model: ContrastedEncoder, seed: int) -> list[Tensor]:
    shown = 255 * torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return model.embed(model.features(shown))


@pytest.mark.parametrize("how", ["all", "last"])
@pytest.mark.parametrize("projection_dim", [6, None])
def test_every_trained_parameter_has_a_gradient_and_no_other(how: str, projection_dim: int | None) -> None:
    model = encoder(how, projection_dim)
    for name, parameter in model.named_parameters():
        if name.endswith("bn2.weight"):  # timm starts every block as the identity: its first convolution waits a step
            torch.nn.init.ones_(parameter)
    model.loss(maps_of(model, 1), maps_of(model, 2)).backward()
    for name, parameter in model.named_parameters():
        trained = how == "all" or name.startswith(("head.", "backbone.model.layer4"))
        assert parameter.requires_grad == trained, name
        assert trained == (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)), name


def test_the_loss_is_nt_xent_of_the_projections() -> None:
    model = encoder("all")
    first, second = maps_of(model, 1), maps_of(model, 2)
    assert [m.shape for m in first] == [(5, 6, 1, 1)]
    members = torch.cat([first[0], second[0]]).flatten(1).detach().double().numpy()
    members /= np.linalg.norm(members, axis=1, keepdims=True)
    total = 0.0
    for i in range(10):
        others = sum(math.exp(members[i] @ members[j] / 0.2) for j in range(10) if j != i)
        total -= math.log(math.exp(members[i] @ members[(i + 5) % 10] / 0.2) / others)
    assert float(model.loss(first, second).detach()) == pytest.approx(total / 10, rel=1e-5)


def test_the_loss_falls_from_scratch(images: UInt8Image) -> None:
    tints = np.random.default_rng(2).uniform(0.2, 1, (len(images), 1, 1, 3))
    found = losses(fitted((images * tints).astype(np.uint8), **SCRATCH, training=Training(steps=30, batch=8)))
    assert len(found) == 3
    assert found[-1] < 0.8 * found[0]


def test_the_loss_falls_on_a_pretrained_backbone(images: UInt8Image) -> None:
    # Of 20 steps the fall was within the noise of ten batches' mean: another order of additions undid it.
    found = losses(fitted(images, size=32, training=Training(steps=40, batch=8)))
    assert len(found) == 4
    assert found[-1] < 0.95 * found[0]


@pytest.mark.parametrize("how", ["last", "all"])
def test_what_is_trained_of_a_pretrained_backbone(images: UInt8Image, how: str) -> None:
    scorer = scorer_of(fitted(images, training=Training(train_backbone=how, steps=1, batch=4)))
    given = load_backbone(stages=(-2,), embedding=True, folded=True).state_dict()
    changed = {name for name, tensor in scorer.backbone.state_dict().items() if not torch.equal(tensor, given[name])}
    behind = ("model.blocks.5.", "model.blocks.6.", "model.conv_head.")
    weights = {name for name in given if name.endswith(".weight")}
    assert changed & weights == (weights if how == "all" else {name for name in weights if name.startswith(behind)})
    assert not any(parameter.requires_grad for parameter in scorer.parameters())


def test_without_training_it_is_cosine_knn(images: UInt8Image, fresh: UInt8Image) -> None:
    untrained = fitted(images).anomaly_score(fresh)
    frozen = fitted(images, training=Training(train_backbone="none", steps=5))
    assert losses(frozen) == []
    assert np.array_equal(untrained, frozen.anomaly_score(fresh))
    nearest = KNN(size=64, k=2, metric="cosine")
    nearest.fit(images, alpha=0.2, calibration="split", device="cpu", fit_precision="float32")
    knn = nearest.anomaly_score(fresh)
    assert untrained == pytest.approx(knn, rel=1e-4)


def test_embeddings_are_learnt_in_the_precision_of_the_scores(images: UInt8Image, fresh: UInt8Image) -> None:
    params = {"size": 32, "training": None, "one_class": "mahalanobis", "shrinkage": 0.0}
    options = {"alpha": 0.2, "device": "cpu"}
    scores = [
        SimCLR(**params).fit(images, fit_precision=precision, **options).anomaly_score(fresh)
        for precision in ("float32", "bfloat16")
    ]
    assert np.array_equal(*scores)


def test_the_head_is_dropped(images: UInt8Image) -> None:
    scorer = scorer_of(fitted(images, **SCRATCH, training=Training(steps=1, batch=4)))
    assert {name.split(".")[0] for name in scorer.state_dict()} == {"backbone", "one_class"}
    assert scorer.one_class.bank.shape[1] == scorer.config["dim"] == 64


def test_small_images_from_scratch_take_a_small_stem(images: UInt8Image) -> None:
    for size, stride in ((32, (1, 1)), (96, (2, 2))):
        scorer = scorer_of(fitted(images, **{**SCRATCH, "size": size}, training=Training(steps=1, batch=4)))
        assert scorer.backbone.model.conv1.stride == stride
        assert not scorer.backbone.training
