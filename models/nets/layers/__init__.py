"""Layers of nets that NumPy computes: forward, backward, the module of Torch that is the same, and its ONNX."""
