"""TensorFlow's settings for one rank: threads, devices, determinism. To be called before the first operation."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import socket
import subprocess
import sys

from trainer import memory
from trainer.config import RunConfig
from trainer.distributed import World
from trainer.errors import ConfigError
from trainer.launch.gpus import count as count_gpus

ENV_DEVICE = "CAPSNET_DEVICE"
"""``gpu``: a rank that sees no GPU ends instead of training on a CPU. Jobs that ask a cluster for GPUs set it."""


NOTES = "|".join(
    (
        "^WARNING: All log messages before absl",
        r"^I[0-9]{4} [0-9:.]+ ",
        "Unable to register cu[A-Za-z]+ factory",  # at each import of TensorFlow 2.18 beside CUDA
    )
)
"""What TensorFlow says of itself on a machine with GPUs whatever TF_CPP_MIN_LOG_LEVEL is, as a pattern of grep."""


def quieten() -> None:
    """Leaves NOTES out of what libraries write to stderr from here on, where there are GPUs.

    By a process that ends with this one, as what a library says before it crashes must be seen too. Python's own
    ``sys.stderr`` goes where it went.
    """
    grep = shutil.which("grep")
    if grep is None or not count_gpus():
        return
    sys.stderr.flush()
    kept = os.dup(2)
    command = [grep, "--line-buffered", "--text", "--invert-match", "--extended-regexp", NOTES]
    # a session of its own: Ctrl-C is for this process, which may have more to say
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=kept, start_new_session=True)
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), 2)
    reader.stdin.close()
    sys.stderr = os.fdopen(kept, "w", buffering=1, errors="backslashreplace")


def import_tensorflow() -> None:
    """For commands, before anything else imports it.

    Keras would bring Matplotlib for galleries that nobody draws here, a fifth of the time that the import takes. Who
    draws imports it later. A seventh goes to collections of garbage among objects that stay: none are made meanwhile,
    and later ones pass over what is there by now.
    """
    if "tensorflow" not in sys.modules:
        quieten()
    if not {"tensorflow", "matplotlib"} & sys.modules.keys():
        sys.modules["matplotlib"] = None  # type: ignore[assignment]  # to import it fails, which Keras expects
        gc.disable()
        try:
            import tensorflow  # noqa: F401
        finally:
            gc.enable()
            del sys.modules["matplotlib"]
        gc.freeze()


def threads_of_rank(config: RunConfig, world: World) -> int:
    return config.train.threads or world.cores


def set_up(config: RunConfig, world: World) -> str:
    """Configures TensorFlow and returns a line that says what this rank computes on.

    Each rank takes the GPU of its local rank, and only as much of its memory as it needs.

    Raises:
        ConfigError: there are GPUs, but fewer than ranks on this machine; or none, where one was requested.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        _check_not_requested()
    threads = threads_of_rank(config, world)
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.config.experimental.enable_tensor_float_32_execution(config.train.tf32)
    if not gpus:
        _start_xla_quietly()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''} a rank"
    if world.local_size > len(gpus):
        raise ConfigError(
            f"{world.local_size} ranks on a machine with {len(gpus)} GPU(s): start at most one rank for each GPU"
        )
    mine = gpus[world.local_rank]
    tf.config.set_visible_devices(mine, "GPU")
    tf.config.experimental.set_memory_growth(mine, True)
    name = tf.config.experimental.get_device_details(mine).get("device_name", "GPU")
    _start_xla_quietly()
    return f"{name}, one a rank"


def _check_not_requested() -> None:
    """Raises ConfigError where each rank is to have a GPU: there is none."""
    import tensorflow as tf

    wanted = os.environ.get(ENV_DEVICE, "")
    if wanted not in ("", "gpu"):
        raise ConfigError(f"{ENV_DEVICE}={wanted}: give gpu, or leave it out to take what there is")
    if wanted:
        cuda = tf.test.is_built_with_cuda()
        why = (
            "look at the driver of the node, and the device plugin"
            if cuda
            else "this TensorFlow is built for CPUs, take an image made with ACCELERATOR=gpu"
        )
        raise ConfigError(
            f"a GPU was requested ({ENV_DEVICE}=gpu) and none is visible on {socket.gethostname()}: {why}"
        )


def set_up_beside() -> None:
    """For a command that computes little, perhaps beside a training: on the CPU."""
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # this process computes on a GPU already
        tf.config.set_visible_devices([], "GPU")
    _start_xla_quietly()


def memory_peaks() -> dict[str, float]:
    """The most memory so far in MiB: of this process, and of its GPU where it has one."""
    import tensorflow as tf

    peaks = {"peak_memory_mib": memory.peak_mib()}
    if tf.config.get_visible_devices("GPU"):
        peaks["peak_gpu_memory_mib"] = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    return peaks


def _start_xla_quietly() -> None:
    """XLA's first use prints notes about itself that no log level silences; what goes wrong is an exception still."""
    import tensorflow as tf

    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
