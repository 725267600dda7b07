"""AnoMem's second stage on labels: heads on the deviations, mixed with the one-class score (Eq. 10 to 13)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomem.nn.kernel_ridge import squared_distances

BLOCKS = {"pooled": 1, "signed": 1, "spread": 2, "top": 1, "peak": 2}
"""Width of each summary of an image per scale, in multiples of the scale's channels.

pooled: the average unit feature. Of Delta: signed: its average (phi of Eq. 10); spread: average and maximum of its
magnitude; top: its average over the tenth of the positions that deviate most; peak: maximum and minimum.
"""

KERNELS = {"pooled": {"sharpness": 2.5, "ridge": 3e-4}}
"""Parameters of a block's kernel ridge head that differ from the defaults."""

HIDDEN = 64
CLIP = 5.0
LEARNT_LIMIT = 4096
"""Maximum number of training normals whose pooled features are kept."""

POSITION_LIMIT = 4096
"""Maximum number of tune normals' deviations kept per scale, to contrast with positions marked by masks."""


class SecondStage(nn.Module):
    """Heads fitted to labelled images; inactive until :meth:`adopt` or a loaded state activates them.

    Parameters
    ----------
    channels : list of int
        C per scale.
    blocks : list of str
        Summaries (of :data:`BLOCKS`) that each carry one kernel ridge head; "signed" is always kept, for the evidence
        map.
    weights : list of float
        lambda per scale.
    distance : bool
        True for the paper's own head, g(phi(Delta)) per scale fused by Eq. 13, instead of kernel
        ridge.
    n_support : int
        Number of normals that the heads were fitted to: the tune normals that the scorer carries.
    n_labelled : int
        Number of labelled images that the heads were fitted to; 0: inactive.
    n_positions : int
        Number of sampled deviations of tune normals kept per scale.
    n_learnt : int
        Number of training normals whose pooled features are kept, where a head uses them: unlike deviations, features
        of training images are as good as others.
    n_learnt_deltas : int
        Number of training normals whose average deviations are kept, for the paper's training of g.

    Notes
    -----
    score = (1 - w) deviation + w head, both standardised on tune normals; w is the labels' share. The map takes
    evidence per position, g(Delta_ij), from the paper's own head g: two dense layers per scale, which run as 1x1
    convolutions.
    """

    center: Tensor
    scale: Tensor
    learnt: Tensor
    learnt_deltas: Tensor
    weights: Tensor
    map_weights: Tensor
    distance_affine: Tensor
    heads: Tensor
    labelled: Tensor
    mix: Tensor

    def __init__(
        self,
        channels: Sequence[int],
        *,
        blocks: Sequence[str],
        weights: Sequence[float],
        map_weights: Sequence[float] | None = None,
        distance: bool = False,
        n_support: int = 0,
        n_labelled: int = 0,
        n_positions: int = 0,
        n_learnt: int = 0,
        n_learnt_deltas: int = 0,
    ) -> None:
        super().__init__()
        self.channels, self.blocks, self.distance_head = list(channels), list(blocks), distance
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))
        shown = torch.tensor(map_weights or weights, dtype=torch.float32, device="cpu")  # No file holds them.
        self.register_buffer("map_weights", shown, persistent=False)
        self.layout = _layout(self.channels, self.blocks)
        dim = self.evidence_dim(channels, blocks)
        self.n_support, self.n_labelled = n_support, n_labelled
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("labelled", torch.zeros(n_labelled, dim, dtype=torch.float16))
        pooled = BLOCKS["pooled"] * sum(self.channels) if "pooled" in self.blocks else 0
        self.register_buffer("learnt", torch.zeros(n_learnt, pooled, dtype=torch.float16))
        place = None if n_learnt_deltas else "cpu"  # As no file holds none.
        kept = torch.zeros(n_learnt_deltas, sum(self.channels), dtype=torch.float16, device=place)
        self.register_buffer("learnt_deltas", kept, persistent=n_learnt_deltas > 0)  # files of version 0.1 have none
        for h, name in enumerate(self.blocks):
            further = n_learnt if name == "pooled" else 0
            self.register_buffer(f"alpha_{h}", torch.zeros(n_support + n_labelled + further if n_labelled else 0))
        # Per head: bandwidth, mean and deviation of its predictions.
        self.register_buffer("heads", torch.ones(len(self.blocks), 3))
        # For the paper's head: mean and deviation of its distances for tune normals.
        self.register_buffer("distance_affine", torch.tensor([0.0, 1.0]))
        # Mean and deviation of the one-class score and of the map's pixels, and w.
        self.register_buffer("mix", torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]))
        self.evidence_heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)) for c in channels
        )
        # Per scale: mean and deviation of g at the positions of tune normals.
        self.register_buffer("evidence_affine", torch.tensor([0.0, 1.0]).repeat(len(self.channels), 1))
        for s, c in enumerate(self.channels):
            self.register_buffer(f"positions_{s}", torch.zeros(n_positions, c, dtype=torch.float16))
            self.register_buffer(f"delta_affine_{s}", torch.tensor([[0.0], [1.0]]).repeat(1, c))

    evidence_affine: Tensor

    @staticmethod
    def evidence_dim(channels: Sequence[int], blocks: Sequence[str]) -> int:
        """Return the length of an image's evidence."""
        return sum(channels) * sum(BLOCKS[block] for block in dict.fromkeys(["signed", *blocks]))

    @property
    def active(self) -> bool:
        """True where labels weigh in the score."""
        return self.n_labelled > 0

    @property
    def weight(self) -> float:
        """w, the labels' share of the score."""
        return float(self.mix[4])

    def remember_learnt(self, pooled: Tensor) -> int:
        """Store pooled features of training normals, (n, d) float16; return n."""
        self.learnt = pooled.half()
        return len(pooled)

    def remember_deltas(self, evidence: Tensor) -> int:
        """Store phi(Delta) of training normals from their evidence, (n, D); return n."""
        self.register_buffer("learnt_deltas", evidence[:, self.layout["signed"]].half())
        return len(evidence)

    def learnt_delta(self, scale: int) -> Tensor:
        """Return phi(Delta) of training normals at one scale, (n, C) float32."""
        start = sum(self.channels[:scale])
        return self.learnt_deltas[:, start : start + self.channels[scale]].float()

    def pooled(self, features: Sequence[Tensor]) -> Tensor:
        """Return the "pooled" block of images, (B, d)."""
        return torch.cat([_pooled(f) for f in features], dim=1)

    def remember_positions(self, vectors: Sequence[Tensor]) -> int:
        """Store sampled deviations of tune normals, a (n, C) tensor per scale; all scales keep equally many."""
        count = min(len(v) for v in vectors)
        for s, vector in enumerate(vectors):
            setattr(self, f"positions_{s}", vector[:count].half())
            spread = vector.std(dim=0, correction=0)
            affine = torch.stack([vector.mean(dim=0), (spread + 0.5 * spread.mean()).clamp_min(1e-6)])
            self.get_buffer(f"delta_affine_{s}").copy_(affine)
        return count

    def positions(self, scale: int) -> Tensor:
        """Return sampled deviations of tune normals at one scale, (n, C) float32."""
        return self.get_buffer(f"positions_{scale}").float()

    def evidence(self, features: Sequence[Tensor], deltas: Sequence[Tensor]) -> Tensor:
        """Summarise images: features and deviations [(B, C_s, h_s, w_s)] to (B, D) float16."""
        summaries = [_summarise(f, d, self.layout) for f, d in zip(features, deltas, strict=True)]
        return torch.cat([torch.cat(block, dim=1) for block in zip(*summaries, strict=True)], dim=1).half()

    def block(self, evidence: Tensor, name: str) -> Tensor:
        """Return one block of the evidence, standardised on tune normals and clipped: (B, d)."""
        return self._standard(evidence[:, self.layout[name]], name)

    def fitted_to(self, support: Tensor, name: str) -> Tensor:
        """Return a head's training block: tune normals, labelled images, then training normals, (n, d)."""
        judged = self.block(torch.cat([support, self.labelled]), name)
        return torch.cat([judged, self._standard(self.learnt, name)]) if name == "pooled" else judged

    def _standard(self, values: Tensor, name: str) -> Tensor:
        part = self.layout[name]
        standard = (values.float() - self.center[part]) / self.scale[part]
        return standard if name == "pooled" else standard.clamp(-CLIP, CLIP)

    def standardise_on(self, evidence: Tensor) -> None:
        """Learn centre and scale of the evidence from tune normals (n, D)."""
        values = evidence.float()
        self.center.copy_(values.mean(dim=0))
        spread = values.std(dim=0, correction=0)
        for name, part in self.layout.items():
            per_scale = spread[part].split([c * BLOCKS[name] for c in self.channels])
            if name == "pooled":
                floors = [s.square().mean().sqrt().expand_as(s) for s in per_scale]
            else:
                floors = [s + 0.5 * s.mean() for s in per_scale]
            self.scale[part] = torch.cat(floors).clamp_min(1e-6)

    def forward(self, one_class: Tensor, evidence: Tensor, support: Tensor) -> Tensor:
        """Mix one-class scores (B,), evidence (B, D) and the tune normals' evidence (n, D) into scores (B,)."""
        if not self.active:
            return one_class
        deviation = (one_class - self.mix[0]) / self.mix[1]
        return (1 - self.mix[4]) * deviation + self.mix[4] * self._say(evidence, support)

    def _say(self, evidence: Tensor, support: Tensor) -> Tensor:
        """Return the heads' predictions, standardised on tune normals, (B,)."""
        if self.distance_head:
            return (self.fused_distance(evidence) - self.distance_affine[0]) / self.distance_affine[1]
        total = torch.zeros_like(evidence[:, 0], dtype=torch.float32)
        for h, name in enumerate(self.blocks):
            squared = squared_distances(self.block(evidence, name), self.fitted_to(support, name))
            prediction = torch.exp(-squared / self.heads[h, 0]) @ self.get_buffer(f"alpha_{h}")
            total = total + (prediction - self.heads[h, 1]) / self.heads[h, 2]
        return total / len(self.blocks)

    def fused_distance(self, evidence: Tensor) -> Tensor:
        """Return Eq. 10 per scale, fused by Eq. 13: (B, D) to (B,)."""
        scales = range(len(self.channels))
        distances = torch.stack([self.distance(s, self.signed(evidence, s)) for s in scales], dim=1)
        return (distances * self.weights).sum(dim=1) / self.weights.sum()

    def fuse_map(self, map_: Tensor, deltas: Sequence[Tensor]) -> Tensor:
        """Mix the evidence per position into a (B, h, w) map, in the map's own units."""
        layers, total = torch.zeros_like(map_), torch.zeros(())
        placed = [s for s, delta in enumerate(deltas) if max(delta.shape[2:]) > 1]
        for s in placed or range(len(deltas)):  # single positions count only where there are no others
            delta = deltas[s]
            standard = (self.evidence_at(s, delta) - self.evidence_affine[s, 0]) / self.evidence_affine[s, 1]
            resized = F.interpolate(standard[:, None], size=map_.shape[1:], mode="bilinear", align_corners=False)
            layers = layers + self.map_weights[s] * resized[:, 0]
            total = total + self.map_weights[s]
        evidence = self.mix[2] + self.mix[3] * layers / total
        return (1 - self.mix[4]) * map_ + self.mix[4] * evidence

    def evidence_at(self, scale: int, delta: Tensor) -> Tensor:
        """Return g(Delta_ij) at every position: (B, C, h, w) to (B, h, w)."""
        return self.distance(scale, delta.permute(0, 2, 3, 1))

    def distance(self, scale: int, deltas: Tensor) -> Tensor:
        """Return the anomaly distance g of deviations (..., C), at least 0: (...)."""
        affine = self.get_buffer(f"delta_affine_{scale}")
        standard = ((deltas - affine[0]) / affine[1]).clamp(-CLIP, CLIP)
        return F.softplus(self.evidence_heads[scale](standard))[..., 0]

    def signed(self, evidence: Tensor, scale: int) -> Tensor:
        """Return phi(Delta) of one scale from the evidence, (B, C) float32."""
        start = self.layout["signed"].start + sum(self.channels[:scale])
        return evidence[:, start : start + self.channels[scale]].float()


def _layout(channels: Sequence[int], blocks: Sequence[str]) -> dict[str, slice]:
    """Return the slice of each block in the evidence."""
    layout, start = {}, 0
    for name in dict.fromkeys(["signed", *blocks]):
        width = BLOCKS[name] * sum(channels)
        layout[name] = slice(start, start + width)
        start += width
    return layout


def _pooled(features: Tensor) -> Tensor:
    """Return the average feature per image, of unit norm: (B, C, h, w) to (B, C)."""
    return F.normalize(features.float().mean(dim=(2, 3)), dim=1)


def _summarise(features: Tensor, delta: Tensor, wanted: dict[str, slice]) -> list[Tensor]:
    """Return summaries of one scale, in the order of `wanted`: each (B, BLOCKS[name] * C)."""
    flat = delta.flatten(2)
    found = []
    for name in wanted:
        if name == "pooled":
            found.append(_pooled(features))
        elif name == "signed":
            found.append(flat.mean(dim=2))
        elif name == "spread":
            magnitude = flat.abs()
            found.append(torch.cat([magnitude.mean(dim=2), magnitude.amax(dim=2)], dim=1))
        elif name == "top":
            count = max(1, round(0.1 * flat.shape[2]))
            chosen = flat.norm(dim=1).topk(count, dim=1).indices
            found.append(flat.gather(2, chosen[:, None].expand(-1, flat.shape[1], -1)).mean(dim=2))
        else:
            found.append(torch.cat([flat.amax(dim=2), flat.amin(dim=2)], dim=1))
    return found
