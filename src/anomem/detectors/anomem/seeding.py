"""Seeding of a multi-scale memory from frozen features: one pass over the images, in bounded memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anomem.data.imageset import ImageSet
from anomem.detectors.anomem.heads import LEARNT_LIMIT, POSITION_LIMIT
from anomem.detectors.anomem.scorer import MultiScaleScorer, crop_around, picture
from anomem.nn.deviation import ScaleMemory
from anomem.nn.hopfield import HopfieldMemory, effective_items
from anomem.nn.inference import feature_batches, score_images
from anomem.nn.normalise import FeatureMoments
from anomem.nn.precision import autocast
from anomem.nn.sampling import VectorSample
from anomem.nn.scorer import Output
from anomem.types import Record

SAMPLE_LIMIT = 65_536
"""Number of feature vectors per scale that seed the memory, drawn uniformly from all positions of all images."""

CORESET_LIMIT = 16_000
"""Number of these vectors that the farthest-first choice considers."""

PROFILE_LIMIT = 128
"""Number of training images whose norms are measured after seeding."""

STATISTICS_LIMIT = 4096
"""Number of tune tiles that the standardisation is computed on."""

REPLAY_BYTES = 256 * 2**20
"""Memory for tune normals' features between the two passes over them."""


def seed_memories(
    scorer: MultiScaleScorer,
    learn: ImageSet,
    *,
    sizes: list[int],
    share: int,
    seeding: str,
    shrinkage: float,
    whitening: float,
    rng: torch.Generator,
    precision: str,
    batch_size: int,
) -> Generator[Record, None, list[Tensor]]:
    """Fit the normalisation and seed the memory of every scale.

    Parameters
    ----------
    scorer : MultiScaleScorer
        Its scales are fitted in place.
    learn : ImageSet
        Normals.
    sizes : list of int
        Maximum number of items per scale; 0: no memory.
    share : int
        Minimum number of vectors per item: a memory that holds every vector has no deviations.
    seeding : {"farthest", "kmeans", "random"}
        Sampled vectors that cover the others, centres of k-means on them, or N(0, 0.02).
    shrinkage, whitening : float
        As for :meth:`~anomem.nn.normalise.Normaliser.fit`.
    rng, precision, batch_size
        As for a fit.

    Returns
    -------
    list of Tensor
        For each scale the features (M, C, h, w) of a few of the images, for :func:`learn_statistics`.
    """
    scales = scorer.memories()
    whitened = [scale.normaliser.mode == "whiten" for scale in scales]
    moments = [FeatureMoments(scale.normaliser.dim, scale.hw, unit=scale.normaliser.unit) for scale in scales]
    samples = [VectorSample(SAMPLE_LIMIT, rng) for _ in scales]
    pooled = VectorSample(LEARNT_LIMIT, rng)
    stage = scorer.second_stage
    kept: list[list[Tensor]] = [[] for _ in scales]
    done, held = 0, 0
    for maps in feature_batches(scorer.backbone, learn, precision=precision, batch_size=batch_size):
        features = [maps[facts["source"]] for facts in scorer.config["scales"]]
        for s, scale in enumerate(scales):
            gathered = scale.gather(features[s])
            if whitened[s]:
                moments[s].update(gathered)
            samples[s].add(gathered)
            if held < PROFILE_LIMIT:
                kept[s].append(features[s].half().cpu())
        if "pooled" in stage.blocks:
            pooled.add(stage.pooled(features)[:, :, None, None])
        held += len(features[0])
        done += len(features[0])
        yield Record("features", done, max(done, len(learn)))
    if "pooled" in stage.blocks:
        scorer.config["second_stage"]["n_learnt"] = stage.remember_learnt(pooled.result()[0])
    for s, scale in enumerate(scales):
        if whitened[s]:
            scale.normaliser.fit(moments[s], shrinkage, whitening)
        sample = samples.pop(0)  # Vectors are freed once a scale is seeded from them.
        vectors, positions = sample.result()
        n_items = min(sizes[s], max(1, sample.seen // share)) if sizes[s] else 0
        n_items = min(n_items, len(vectors), CORESET_LIMIT if seeding == "farthest" else len(vectors))
        facts = _seed(scale, vectors, positions, n_items, seeding, rng)
        scorer.config["scales"][s]["n_items"] = n_items
        yield Record("memory", s + 1, len(scales), {"scale": s + 1, "items": n_items, **facts})
    return [torch.cat(k)[:PROFILE_LIMIT] for k in kept]


def _seed(
    scale: ScaleMemory, vectors: Tensor, positions: Tensor, n_items: int, seeding: str, rng: torch.Generator
) -> dict[str, float]:
    """Attach a memory of `n_items` to a scale; return how many of them are in use."""
    if not n_items:
        scale.memory = None
        return {}
    memory = HopfieldMemory(n_items, scale.dim, generator=rng, **scale.retrieval)
    considered = drawn_for(seeding, len(vectors), rng)
    device = scale.normaliser.mean.device if scale.normaliser.mode == "whiten" else torch.device("cpu")
    embedded = scale.embed_vectors(vectors[considered].to(device), positions[considered].to(device)).cpu()
    seed_items(memory, embedded, seeding, rng)
    scale.memory = memory.to(device)
    return {"effective_items": effective_items(memory.usage(embedded[:4096].to(device)))}


def drawn_for(seeding: str, count: int, rng: torch.Generator) -> Tensor | slice:
    """Return those of `count` sampled vectors that a way of seeding considers: some drawn ones, or all."""
    return torch.randperm(count, generator=rng)[:CORESET_LIMIT] if seeding == "farthest" else slice(None)


def seed_items(memory: HopfieldMemory, embedded: Tensor, seeding: str, rng: torch.Generator) -> None:
    """Seed items from considered vectors (M, C) in the space of the association; "random" leaves them."""
    if seeding == "kmeans":
        memory.seed(embedded, rng)
    elif seeding == "farthest":
        memory.items.data.copy_(farthest_first(embedded, memory.n_items, rng))


def learn_statistics(
    scorer: MultiScaleScorer,
    tune: ImageSet,
    profile: list[Tensor],
    *,
    precision: str,
    batch_size: int,
    rng: torch.Generator,
) -> Generator[Record, None, None]:
    """Learn the distribution of normals' deviations: standardisation per scale, and sampled vectors for masks later.

    Parameters
    ----------
    scorer : MultiScaleScorer
        Scorer with seeded memories; in evaluation mode, on its device.
    tune : ImageSet
        Normals that are not in the memory.
    profile : list of Tensor
        Result of :func:`seed_memories`.
    precision : str
        Arithmetic used for scoring.
    batch_size, rng
        As for a fit.
    """
    norms: list[list[Tensor]] = [[] for _ in profile]
    samples = [VectorSample(POSITION_LIMIT, rng) for _ in profile]
    replay: list[list[Tensor]] = []
    seen, held = 0, 0
    for batch in tune.batches(batch_size):
        features, differences = _differences(scorer, batch.images, precision)
        held += sum(f.nbytes for f in features)
        if held <= REPLAY_BYTES:
            replay.append(features)
        for s, difference in enumerate(differences):
            if seen < STATISTICS_LIMIT:
                norms[s].append(difference.norm(dim=1).cpu())
            samples[s].add(difference[:, : scorer.memories()[s].channels].cpu())
        seen += len(batch.images)
        yield Record("tune", int(batch.owner[-1]) + 1, len(tune))
    with torch.inference_mode():
        learnt = [
            torch.cat(
                [scale.difference(p.to(scorer.fusion.weights.device)).norm(dim=1).cpu() for p in part.split(batch_size)]
            )
            for scale, part in zip(scorer.memories(), profile, strict=True)
        ]
    tune_norms = [torch.cat(n) for n in norms]
    scorer.fusion.standardise_on(tune_norms, learnt)
    config = scorer.config["second_stage"]
    config["n_positions"] = scorer.second_stage.remember_positions([sample.result()[0] for sample in samples])
    options: dict[str, Any] = {"precision": precision, "batch_size": batch_size}
    yield from _remember_tune(scorer, tune, tune_norms, iter(replay), **options)


def _remember_tune(
    scorer: MultiScaleScorer,
    tune: ImageSet,
    norms: list[Tensor],
    replay: Iterator[list[Tensor]],
    *,
    precision: str,
    batch_size: int,
) -> Generator[Record, None, None]:
    """Score tune normals along the scoring path, and store the inputs of the second stage."""

    def observe(images: Tensor) -> Output:
        features = next(replay, None)
        return scorer.observe(images) if features is None else scorer.score_features(features)

    one_class, evidence = [], []
    for result in score_images(
        scorer, tune, precision=precision, batch_size=batch_size, evidence=True, forward=observe
    ):
        if result.evidence is not None:
            one_class.append(result.one_class)
            evidence.append(result.evidence)
        yield Record("tune scores", len(one_class), len(tune))
    scorer.adopt_tune(norms, torch.tensor(one_class), torch.stack(evidence))


def look_again(
    scorer: MultiScaleScorer, learn: ImageSet, *, precision: str, batch_size: int
) -> Generator[Record, None, list[Tensor]]:
    """Return features of some training images, recomputed: training changes what :func:`seed_memories` returned."""
    kept: list[list[Tensor]] = [[] for _ in scorer.scales]
    chosen = learn.subset(range(min(PROFILE_LIMIT, len(learn))))
    done = 0
    for maps in feature_batches(scorer.backbone, chosen, precision=precision, batch_size=batch_size):
        for s, facts in enumerate(scorer.config["scales"]):
            kept[s].append(maps[facts["source"]].half().cpu())
        done += len(maps[0])
        yield Record("profile", done, max(done, len(chosen)))
    return [torch.cat(k)[:PROFILE_LIMIT] for k in kept]


def remember_deviations(
    scorer: MultiScaleScorer, learn: ImageSet, *, precision: str, batch_size: int
) -> Generator[Record, None, None]:
    """Store average deviations of training normals, at most LEARNT_LIMIT, for the paper's training of g."""
    chosen, parts = learn.subset(range(min(LEARNT_LIMIT, len(learn)))), []
    for result in score_images(scorer, chosen, precision=precision, batch_size=batch_size, evidence=True):
        if result.evidence is not None:
            parts.append(result.evidence)
        yield Record("deviations", len(parts), len(chosen))
    scorer.config["second_stage"]["n_learnt_deltas"] = scorer.second_stage.remember_deltas(torch.stack(parts))


def pool_again(
    scorer: MultiScaleScorer, learn: ImageSet, *, precision: str, batch_size: int, rng: torch.Generator
) -> Generator[Record, None, None]:
    """Recompute pooled features of training normals: a trained backbone gives others than at seeding."""
    stage = scorer.second_stage
    if "pooled" not in stage.blocks:
        return
    sample, done = VectorSample(LEARNT_LIMIT, rng), 0
    for maps in feature_batches(scorer.backbone, learn, precision=precision, batch_size=batch_size):
        features = [maps[facts["source"]] for facts in scorer.config["scales"]]
        sample.add(stage.pooled(features)[:, :, None, None])
        done += len(features[0])
        yield Record("pooled", done, max(done, len(learn)))
    scorer.config["second_stage"]["n_learnt"] = stage.remember_learnt(sample.result()[0])


@torch.inference_mode()
def _differences(scorer: MultiScaleScorer, images: Tensor, precision: str) -> tuple[list[Tensor], list[Tensor]]:
    """Return features, and per scale their differences from what is recalled."""
    device = scorer.fusion.weights.device
    with autocast(device, precision):
        features = scorer.features(images.to(device))
        return features, scorer.differences(features)


def learn_prototype_pictures(
    scorer: MultiScaleScorer, learn: ImageSet, *, count: int, images: int, precision: str, batch_size: int
) -> Generator[Record, None, None]:
    """Store a small picture per scale of each of the most used items: the nearest patch of the training images.

    Parameters
    ----------
    count : int
        Number of pictures per scale.
    images : int
        Number of images (or of tiles, with the rest of their batch) that are searched.
    precision, batch_size
        As for a fit.
    """
    scales = [(s, m, m.memory) for s, m in enumerate(scorer.memories()) if m.memory is not None]
    total = min(images, len(learn))
    best = {s: torch.full((memory.n_items,), torch.inf) for s, _, memory in scales}
    used = {s: torch.zeros(memory.n_items) for s, _, memory in scales}
    where: dict[tuple[int, int], Tensor] = {}
    seen = 0
    for batch in learn.subset(range(total)).batches(batch_size):
        with torch.inference_mode(), autocast(scorer.fusion.weights.device, precision):
            features = [f.float() for f in scorer.features(batch.images.to(scorer.fusion.weights.device))]
        for s, scale, memory in scales:
            distance, item = _nearest(memory, scale, features[s])
            used[s] += torch.bincount(item.flatten(), minlength=len(used[s]))
            for flat in _nearer(distance.flatten(), item.flatten(), best[s]):
                b, position = divmod(flat, item.shape[1])
                where[s, int(item[b, position])] = crop_around(batch.images[b], position, scale.hw)
        seen += len(batch.images)
        yield Record("prototypes", min(seen, total), total)
        if seen >= images:
            break
    _keep_pictures(scorer, where, used, count)


@torch.inference_mode()
def _nearest(memory: HopfieldMemory, scale: ScaleMemory, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance and index of the nearest item per position: (B, P) each, on the CPU."""
    z = scale.embed(features).flatten(2).transpose(1, 2)
    distance, item = torch.cdist(z, memory.patterns.expand(len(z), -1, -1)).min(dim=2)
    return distance.cpu(), item.cpu()


def _nearer(distance: Tensor, item: Tensor, best: Tensor) -> list[int]:
    """Return the nearest position (of all images) of each item, where it is nearer than `best`, which is updated."""
    order = distance.argsort()
    first = torch.from_numpy(np.unique(item[order].numpy(), return_index=True)[1])
    nearest = order[first]
    hits = nearest[distance[nearest] < best[item[nearest]]]
    best[item[hits]] = distance[hits]
    return hits.tolist()


def _keep_pictures(
    scorer: MultiScaleScorer, where: dict[tuple[int, int], Tensor], used: dict[int, Tensor], count: int
) -> None:
    pictures, usage = [], []
    for s, uses in used.items():
        for item in uses.argsort(descending=True)[:count].tolist():
            if (s, item) in where:
                pictures.append(picture(where[s, item]))
                usage.append([float(s), float(uses[item] / uses.sum())])
    if pictures:
        scorer.config["n_prototypes"] = len(pictures)
        scorer.prototype_pictures = torch.stack(pictures)
        scorer.prototype_usage = torch.tensor(usage)


LOOKAHEAD = 24
"""Number of candidates whose distances are computed in one product; the choice does not depend on it."""


@torch.no_grad()
def farthest_first(vectors: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose `k` of the vectors so that every vector is near a chosen one: greedy k-centre (Gonzalez 1985).

    Each choice is the vector farthest from all chosen so far, so that rare normal features get a prototype of their
    own, which centres of k-means average away.

    Parameters
    ----------
    vectors : Tensor, (M, C), float32
    k : int
        At most M are chosen.
    generator : torch.Generator
        Generator of the first choice, on the CPU.

    Returns
    -------
    Tensor, (min(k, M), C)
        Chosen vectors, in the order of choice.

    Examples
    --------
    >>> line = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    >>> farthest_first(line, 2, torch.Generator().manual_seed(0))[1]
    tensor([10.])
    """
    count = min(k, len(vectors))
    # Half the bytes to stream for each product; the order of distances hardly changes, and real vectors are returned.
    stored = vectors.to(torch.bfloat16) if vectors.device.type == "cpu" and len(vectors) > 1024 else vectors
    squared = stored.float().square().sum(dim=1)
    nearest = np.full(len(vectors), np.inf, np.float32)  # Per choice NumPy takes a tenth of torch's time.
    last = int(torch.randint(len(vectors), (1,), generator=generator))
    candidates = [last]
    chosen = [last]
    while True:
        # The next choices are mostly among those now farthest, so that many rows of distances come from one product.
        rows = squared + squared[candidates, None] - 2 * (stored[candidates] @ stored.T).float()
        where = dict(zip(candidates, rows.cpu().numpy(), strict=True))
        while last in where:
            np.minimum(nearest, where[last], out=nearest)
            nearest[last] = -np.inf
            if len(chosen) == count:
                return vectors[chosen]
            last = int(nearest.argmax())
            chosen.append(last)
        candidates = torch.from_numpy(nearest).topk(min(LOOKAHEAD, len(nearest))).indices.tolist()
