"""Numbers: parameters, nets, training, the lattice, the codec, ONNX export and inference. Knows no MQTT."""
