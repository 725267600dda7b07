"""Fitted models as files for other runtimes: ONNX and OpenVINO, checked against the model they came from."""
