"""Fitted models as files for other runtimes: ONNX and OpenVINO, compared with their source model."""
