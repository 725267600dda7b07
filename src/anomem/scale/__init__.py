"""Scoring of very many images: shards on disk, computed by processes here or on a Ray cluster."""

from anomem.scale.scoring import ShardedRun, score_shards

__all__ = ["ShardedRun", "score_shards"]
