"""Building blocks of the detectors: backbones, memories, normalisers, heads."""
