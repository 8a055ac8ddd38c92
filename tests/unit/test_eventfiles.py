"""Event files, read back with TensorFlow's and TensorBoard's own readers."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.util import tensor_util

from trainer import eventfiles
from trainer.data.tfrecord import frame
from trainer.errors import CheckpointError, InterruptedRun


def scalar(tag: str, value: float, description: str = "what it is") -> Any:
    return scalar_pb(tag, value, description=description).value[0]


def written(folder: Path, steps: list[int], tag: str = "loss") -> Path:
    """A new event file with one value a step."""
    file = eventfiles.EventFile(folder)
    for step in steps:
        file.write(step, [scalar(tag, step / 8)])
    file.close()
    return eventfiles.paths(folder)[-1]


def beyond(step: int) -> Any:
    return lambda event: event.step > step


def shown_steps(path: Path) -> list[int]:
    """Steps of the values in a file, by TensorFlow's reader, which raises at a damaged record."""
    return [event.step for event in tf.compat.v1.train.summary_iterator(str(path)) if event.summary.value]


def all_steps(folder: Path) -> Counter[int]:
    return Counter(step for path in eventfiles.paths(folder) for step in shown_steps(path))


def test_tensorboards_reader_finds_values_and_description(tmp_path: Path) -> None:
    written(tmp_path, [10, 20, 30])
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    points = {point.step: float(tensor_util.make_ndarray(point.tensor_proto)) for point in reader.Tensors("loss")}
    assert points == {10: 1.25, 20: 2.5, 30: 3.75}
    assert reader.SummaryMetadata("loss").summary_description == "what it is"
    assert reader.SummaryMetadata("loss").plugin_data.plugin_name == "scalars"


def test_every_event_is_readable_before_the_file_is_closed(tmp_path: Path) -> None:
    file = eventfiles.EventFile(tmp_path)
    for step in (1, 2):
        file.write(step, [scalar("loss", 0.5), scalar("accuracy", 0.5)])
        assert shown_steps(eventfiles.paths(tmp_path)[0]) == list(range(1, step + 1))
    file.close()


def test_a_file_is_made_by_the_first_value(tmp_path: Path) -> None:
    file = eventfiles.EventFile(tmp_path)
    file.write(1, [])
    file.flush()
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_read_behind_those_that_are_there_whatever_the_clock_says(tmp_path: Path) -> None:
    ahead = tmp_path / f"events.out.tfevents.{int(time.time()) + 1000}.host.1"
    written(tmp_path, [1]).rename(ahead)
    newest = written(tmp_path, [2])
    assert eventfiles.paths(tmp_path) == [ahead, newest]
    assert newest != ahead


@pytest.mark.parametrize("step", [10, 15, 20])
def test_taking_back_cuts_in_place_at_the_first_step_beyond(tmp_path: Path, step: int) -> None:
    path = written(tmp_path, [10, 20, 30, 40])
    inode, before = path.stat().st_ino, path.read_bytes()
    eventfiles.take_back(tmp_path, beyond(step))
    assert shown_steps(path) == [kept for kept in (10, 20) if kept <= step]
    assert path.stat().st_ino == inode
    assert before.startswith(path.read_bytes())


def test_taking_back_to_a_step_that_nothing_is_beyond_leaves_the_file_alone(tmp_path: Path) -> None:
    path = written(tmp_path, [10, 20])
    before = path.read_bytes()
    eventfiles.take_back(tmp_path, beyond(20))
    assert path.read_bytes() == before


@pytest.mark.parametrize("lost", [1, 4, 5, 30])
def test_a_record_cut_short_is_removed(tmp_path: Path, lost: int) -> None:
    path = written(tmp_path, [10, 20])
    whole = path.stat().st_size
    written_again = written(tmp_path, [10, 20, 30])
    os.truncate(written_again, written_again.stat().st_size - lost)
    with pytest.raises(tf.errors.DataLossError):
        shown_steps(written_again)
    eventfiles.take_back(tmp_path, beyond(100))
    assert shown_steps(written_again) == [10, 20]
    assert path.stat().st_size == whole


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\xff" * 7, frame(b"\xff\xff")[:-1], frame(b"\xff\xff")])
def test_bytes_that_are_no_event_are_removed(tmp_path: Path, tail: bytes) -> None:
    path = written(tmp_path, [10])
    before = path.read_bytes()
    path.write_bytes(before + tail)
    eventfiles.take_back(tmp_path, beyond(100))
    assert path.read_bytes() == before


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
def test_a_flipped_bit_ends_what_is_kept(tmp_path: Path, position: float) -> None:
    path = written(tmp_path, list(range(1, 41)))
    data = bytearray(path.read_bytes())
    data[int(len(data) * position)] ^= 4
    path.write_bytes(data)
    eventfiles.take_back(tmp_path, beyond(100))
    steps = shown_steps(path)
    assert steps == list(range(1, len(steps) + 1))
    assert 0 < len(steps) < 40


def test_files_without_anything_to_show_are_removed(tmp_path: Path) -> None:
    first, second = written(tmp_path, [10, 20]), written(tmp_path, [30, 40])
    (tmp_path / "events.out.tfevents.0000000001.host.1").touch()
    other = tmp_path / "metrics.jsonl"
    other.write_text("not an event file")
    eventfiles.take_back(tmp_path, beyond(20))
    assert sorted(tmp_path.iterdir()) == sorted([first, other])
    assert not second.exists()


def test_steps_out_of_order_are_kept_where_they_are_not_beyond(tmp_path: Path) -> None:
    path = written(tmp_path, [10, 30, 20, 40, 15])
    inode = path.stat().st_ino
    eventfiles.take_back(tmp_path, beyond(20))
    assert shown_steps(path) == [10, 20, 15]
    assert path.stat().st_ino == inode


def test_files_of_tensorflows_writer_are_taken_back_too(tmp_path: Path) -> None:
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        for step in range(5):
            tf.summary.scalar("loss", 0.5, step=step)
    eventfiles.take_back(tmp_path, beyond(2))
    assert all_steps(tmp_path) == {0: 1, 1: 1, 2: 1}


def test_no_step_appears_twice_after_several_resumes(tmp_path: Path) -> None:
    written(tmp_path, [10, 20, 30])
    for resumed_from, last in [(20, 60), (0, 20), (20, 50), (30, 70)]:
        eventfiles.take_back(tmp_path, beyond(resumed_from))
        path = written(tmp_path, list(range(resumed_from + 10, last + 1, 10)))
        with path.open("ab") as file:
            file.write(frame(b"killed")[:9])
    eventfiles.take_back(tmp_path, beyond(70))
    assert all_steps(tmp_path) == dict.fromkeys(range(10, 80, 10), 1)
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    assert [point.step for point in reader.Tensors("loss")] == list(range(10, 80, 10))


def test_a_reader_that_already_saw_more_is_told_to_forget_it(tmp_path: Path) -> None:
    written(tmp_path, [10, 20, 30])
    reader = plugin_event_accumulator.EventAccumulator(str(tmp_path))
    reader.Reload()
    eventfiles.take_back(tmp_path, beyond(10))
    written(tmp_path, [20, 40])
    reader.Reload()
    assert [point.step for point in reader.Tensors("loss")] == [10, 20, 40]


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1.host.1"
    shutil.copy(shutil.which("sleep") or "", path)
    with subprocess.Popen([path, "60"]) as running:  # the kernel refuses writers, even root
        try:
            with pytest.raises(CheckpointError) as caught:
                eventfiles.take_back(tmp_path, beyond(1))
        finally:
            running.kill()
    reason = "Text file busy"
    assert str(caught.value) == (
        f"{path}: cannot be taken back to the checkpoint ({reason}); make it writable or remove it"
    )


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


FILL = """
import sys
from pathlib import Path
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from trainer import eventfiles
from trainer.errors import InterruptedRun
file = eventfiles.EventFile(Path(sys.argv[1]))
try:
    for step in range(1, 1000):
        file.write(step, [scalar_pb("loss", 0.5).value[0]])
except InterruptedRun as error:
    print(step, error)
file.close()
print("tensorflow" in sys.modules)
"""


def test_a_full_disk_is_one_line_and_leaves_whole_events(tmp_path: Path) -> None:
    """A limit on the size of a file makes the kernel refuse the rest of a write, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path)],
        preexec_fn=_limit_file_size,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    message, tensorflow_was_imported = done.stdout.splitlines()
    step, text = message.split(" ", 1)
    (path,) = eventfiles.paths(tmp_path)
    assert text == f"{path}: not written (File too large); make room and resume"
    assert shown_steps(path) == list(range(1, int(step)))
    assert int(step) > 5
    assert tensorflow_was_imported == "False"


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    file = eventfiles.EventFile(tmp_path / "gone")
    with pytest.raises(InterruptedRun, match=r"gone/events.*: not written \(No such file or directory\)"):
        file.write(1, [scalar("loss", 0.5)])
