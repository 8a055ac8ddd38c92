"""What this process computes on, and what is compiled for it."""

from __future__ import annotations

from collections.abc import Callable

from trainer.config import TrainConfig


def on_gpu() -> bool:
    """Whether this process computes on a GPU. TensorFlow takes it from here on, and keeps it."""
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


def whole_passes(config: TrainConfig) -> bool:
    """Whether XLA compiles forward and backward pass, and the update, each as a whole.

    On a GPU a step is otherwise hundreds of kernels whose start takes longer than their work (docs/gpu.md); on a CPU
    XLA's convolutions are slower than TensorFlow's.
    """
    return on_gpu() if config.xla == "auto" else config.xla


def gpu_bytes(run: Callable[[], object]) -> int:
    """What a run holds on the GPU at its peak above what lies there before, as TensorFlow's allocator counts it.

    ``run`` has to wait for its results.
    """
    import tensorflow as tf

    before = tf.config.experimental.get_memory_info("GPU:0")["current"]
    tf.config.experimental.reset_memory_stats("GPU:0")
    run()
    return int(tf.config.experimental.get_memory_info("GPU:0")["peak"] - before)
