"""Where images come from, how normals are split, synthetic defects and augmentation."""
