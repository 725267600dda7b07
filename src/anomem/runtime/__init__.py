"""Images, preprocessing, calibration, overlays and the manifest, with numpy and Pillow alone."""
