"""Capsule networks: pure tensors in, tensors out. ``network.build`` makes one; ``shapes`` needs no TensorFlow."""
