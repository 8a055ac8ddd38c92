"""A window of steps under TensorFlow's profiler, for TensorBoard's Profile page; and Horovod's timeline."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from trainer import distributed
from trainer.config import LogConfig
from trainer.distributed import World

TIMELINE = "horovod-timeline.json"


class Profile:
    """Rank 0's. The profile lies under plugins/profile in the run's folder, where TensorBoard looks for it."""

    def __init__(self, config: LogConfig, folder: Path, world: World) -> None:
        self._folder, self._world = folder, world
        self._steps, self._timeline = config.profile_steps, config.horovod_timeline
        self._running = False
        if self._timeline:
            distributed.start_timeline(world, folder / TIMELINE)

    def before(self, step: int) -> None:
        """To be called before each step, with its number from 1."""
        if self._steps and self._steps[0] == step:
            tf.profiler.experimental.start(str(self._folder))
            self._running = True

    def after(self, step: int) -> None:
        """To be called after each step, with its number from 1."""
        if self._running and step >= self._steps[1]:
            self._stop()

    def close(self) -> None:
        """Writes what was profiled so far."""
        if self._running:
            self._stop()
        if self._timeline:
            distributed.stop_timeline(self._world)
            self._timeline = False

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self._running = False
