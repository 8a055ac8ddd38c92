"""The ranks of a run as one world. The only importer of Horovod, which a world of size 1 does not need.

Every collective has an explicit name, and every rank calls the same ones in the same order: automatic names differ
as soon as one rank traces another graph, and then all ranks wait for ever.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trainer.errors import ConfigError, InterruptedRun
from trainer.launch.wire import ENV_ADDRESS, ENV_HOROVOD, ENV_RANKS

if TYPE_CHECKING:
    import tensorflow as tf


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class World:
    """Where this process stands: rank of size in the run, local_rank of local_size on its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    alone: bool = True
    """Collectives are the identity; Horovod is not imported."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def cores(self) -> int:
        """An equal share of the cores that this process may use."""
        return max(1, cores() // self.local_size)


def placed() -> World:
    """The world as the environment tells it, before Horovod or TensorFlow is imported.

    Raises:
        ConfigError: the process belongs to several ranks that were not started by ``capsnet launch``, or to fewer
            than it started.
    """
    environment = os.environ
    world = by_mpirun()
    expected = int(environment.get(ENV_RANKS, str(world.size)))
    if world.size != expected:
        raise ConfigError(
            f"{expected} ranks were started and mpirun tells this one that there are {world.size}: they would train "
            "apart; use the mpirun that Horovod was built with ('make horovod')"
        )
    if world.size > 1 and ENV_ADDRESS not in environment:
        raise ConfigError(f"start several ranks with 'capsnet launch --ranks {world.size} train ...', not with mpirun")
    return world


def by_mpirun() -> World:
    """As mpirun alone tells it: of ranks that nobody watches, as those of the probe."""
    environment = os.environ
    size = int(environment.get("OMPI_COMM_WORLD_SIZE", "1"))
    return World(
        rank=int(environment.get("OMPI_COMM_WORLD_RANK", "0")),
        size=size,
        local_rank=int(environment.get("OMPI_COMM_WORLD_LOCAL_RANK", "0")),
        local_size=int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")),
        alone=size == 1 and not environment.get(ENV_HOROVOD),
    )


def join(world: World) -> None:
    """Connects the ranks. Raises ConfigError where Horovod cannot, or where the ranks do not find each other."""
    if world.alone:
        return
    try:
        import horovod.tensorflow as hvd
    except Exception as error:  # horovod raises anything from ImportError to NotFoundError on a wrong TensorFlow
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"Horovod cannot be imported ({reason}): run 'make horovod'") from None
    if not hvd.mpi_built():
        raise ConfigError("this Horovod was built without MPI: run 'make horovod'")
    os.environ.setdefault("HOROVOD_TIMELINE", "DYNAMIC")  # lets start_timeline work; writes nothing by itself
    hvd.init()
    if (hvd.rank(), hvd.size()) != (world.rank, world.size):
        raise ConfigError(
            f"mpirun says rank {world.rank} of {world.size} and Horovod {hvd.rank()} of {hvd.size()}: the ranks do "
            "not find each other; run 'make horovod' so that both use one MPI"
        )


def sum_over_ranks(world: World, tensor: tf.Tensor, name: str) -> tf.Tensor:
    if world.alone:
        return tensor
    import horovod.tensorflow as hvd

    return hvd.allreduce(tensor, op=hvd.Sum, name=name)


def mean_gradients(
    world: World, gradients: Sequence[tf.Tensor], names: Sequence[str], compression: Literal["none", "float16"]
) -> list[tf.Tensor]:
    """The mean over ranks of each gradient.

    One operation for each tensor: it starts as soon as the backward pass has made that gradient, and Horovod fuses
    those that are ready at the same time into one buffer. A grouped operation would wait for the last.
    """
    if world.alone:
        return list(gradients)
    import horovod.tensorflow as hvd

    compressor = hvd.Compression.fp16 if compression == "float16" else hvd.Compression.none
    return [
        hvd.allreduce(gradient, op=hvd.Average, name=f"gradient.{name}", compression=compressor)
        for gradient, name in zip(gradients, names, strict=True)
    ]


def sum_values(world: World, values: Sequence[float], name: str) -> np.ndarray:
    """Plain numbers summed over ranks, in float64."""
    import tensorflow as tf

    return np.asarray(sum_over_ranks(world, tf.constant(values, tf.float64), name))


def broadcast(world: World, variables: Sequence[tf.Variable], name: str) -> None:
    """Gives every rank the values of rank 0."""
    if world.alone:
        return
    import horovod.tensorflow as hvd

    for index, variable in enumerate(variables):
        variable.assign(hvd.broadcast(variable.read_value(), root_rank=0, name=f"{name}.{index}"))


def broadcast_object(world: World, value: Any, name: str) -> Any:
    """Rank 0's value, pickled, on every rank."""
    if world.alone:
        return value
    import horovod.tensorflow as hvd

    return hvd.broadcast_object(value, root_rank=0, name=name)


def barrier(world: World, name: str) -> None:
    sum_values(world, [1.0], f"barrier.{name}")


def start_timeline(world: World, path: Path) -> None:
    """Horovod writes there what each reduction waits for; nothing where there is no Horovod. On rank 0."""
    if not world.alone:
        import horovod.tensorflow as hvd

        hvd.start_timeline(str(path))


def stop_timeline(world: World) -> None:
    if not world.alone:
        import horovod.tensorflow as hvd

        hvd.stop_timeline()


def lost_ranks(error: BaseException) -> InterruptedRun | None:
    """An error of a collective whose other side is gone, in plain words; None for any other error."""
    text = str(error)
    if "Horovod" in text and any(word in text for word in ("shut down", "has been shut", "failed", "aborted")):
        return InterruptedRun("lost the connection to the other ranks")
    return None
