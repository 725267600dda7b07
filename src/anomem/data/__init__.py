"""Data: image sources, labels, splits, synthetic defects, augmentation, image sets."""
