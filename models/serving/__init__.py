"""A trained net for applications: ONNX, and the child process that answers."""
