import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trainer import checkpoint
from trainer.checkpoint import State
from trainer.errors import CheckpointError, InterruptedRun

TENSORS = {
    "weights/a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "weights/b": np.array([1e-300, -0.0]),
    "optimizer/iteration": np.asarray(np.int64(2**40)),
}


def save(folder: Path, step: int, accuracy: float | None = None) -> Path:
    evaluated = -1 if accuracy is None else step
    return checkpoint.save(folder, State(step, "data", evaluated, accuracy), "{}", TENSORS)


def test_what_is_read_is_what_was_saved_to_the_bit(tmp_path: Path) -> None:
    found = checkpoint.read(save(tmp_path, 3))
    assert found.state == State(3, "data")
    assert found.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].tobytes() == tensor.tobytes()


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, checkpoint.CONFIG, checkpoint.MANIFEST])
def test_any_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 3)
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 4
    (path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=path.name):
        checkpoint.read(path)


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.STATE, checkpoint.CONFIG, checkpoint.MANIFEST])
def test_a_missing_or_shortened_file_is_noticed(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 3)
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=path.name):
        checkpoint.read(path)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        checkpoint.read(path)


def test_a_damaged_newest_is_reported_and_the_one_before_taken(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    (newest / checkpoint.TENSORS).write_bytes(b"")
    said: list[str] = []
    found = checkpoint.read_newest(tmp_path, said.append)
    assert found is not None
    assert found.state.step == 1
    assert len(said) == 1
    assert newest.name in said[0]


def test_all_damaged_is_an_error_and_none_is_none(tmp_path: Path) -> None:
    assert checkpoint.read_newest(tmp_path, print) is None
    (save(tmp_path, 1) / checkpoint.STATE).unlink()
    with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
        checkpoint.read_newest(tmp_path, print)


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step, accuracy in [(1, 0.5), (2, 0.9), (3, 0.7), (4, None), (5, None)]:
        save(tmp_path, step, accuracy)
    checkpoint.prune(tmp_path, keep_last=2)
    assert [checkpoint.step_of(path) for path in checkpoint.paths(tmp_path)] == [2, 4, 5]
    assert checkpoint.choose(tmp_path, "best", print).state.step == 2
    assert checkpoint.choose(tmp_path, "last", print).state.step == 5
    assert checkpoint.choose(tmp_path, "4", print).state.step == 4
    with pytest.raises(CheckpointError, match="there are last, best, 2, 4, 5"):
        checkpoint.choose(tmp_path, "3", print)


def test_a_step_that_is_saved_again_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 1, accuracy=0.5)
    assert checkpoint.read(path).state.test_accuracy == 0.5
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


FILL = """
import sys
from pathlib import Path
import numpy as np
from trainer import checkpoint
from trainer.errors import InterruptedRun
folder = Path(sys.argv[1])
small = {"a": np.zeros(1000, np.float32)}
checkpoint.save(folder, checkpoint.State(1), "{}", small)
try:
    checkpoint.save(folder, checkpoint.State(2), "{}", {"a": np.zeros(2_000_000, np.float32)})
except InterruptedRun as error:
    print(error)
print([path.name for path in folder.iterdir()], checkpoint.read_newest(folder, print).state.step)
"""


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """On a real file system of 1 MB, mounted in a user namespace of its own."""
    script = tmp_path / "fill.py"
    script.write_text(FILL)
    mounted = f"mount -t tmpfs -o size=1m tmpfs {tmp_path}/small && exec {sys.executable} {script} {tmp_path}/small"
    (tmp_path / "small").mkdir()
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mounted], capture_output=True, text=True)
    if "unshare" in done.stderr or "permission denied" in done.stderr.lower():
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert "step-00000002: checkpoint not saved (No space left on device)" in done.stdout, done.stderr
    assert "the run can go on from step 1" in done.stdout
    assert "['step-00000001'] 1" in done.stdout


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """SIGKILL at twenty moments of a process that does nothing but save."""
    script = tmp_path / "save.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nimport numpy as np\nfrom trainer import checkpoint\n"
        "folder = Path(sys.argv[1])\n"
        "for step in range(1, 10**6):\n"
        "    tensors = {'a': np.full(100_000, step, np.float32)}\n"
        "    checkpoint.save(folder, checkpoint.State(step), '{}', tensors)\n"
        "    checkpoint.prune(folder, 2)\n"
        "    if step == 2: print(flush=True)\n"
    )
    random = np.random.default_rng(0)
    for trial in range(5):
        folder = tmp_path / str(trial)
        with subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(timeout=float(random.uniform(0.0, 0.1)))
            except subprocess.TimeoutExpired:
                process.kill()
        said: list[str] = []
        found = checkpoint.read_newest(folder, said.append)
        assert found is not None
        assert not said
        assert (found.tensors["a"] == found.state.step).all()


def test_the_writer_tells_the_training_thread(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = checkpoint.Writer(tmp_path / "file" / "checkpoints", keep_last=1)
    writer.submit(State(1), "{}", TENSORS)
    with pytest.raises(InterruptedRun, match="Not a directory"):
        writer.wait()
    writer.check()  # once


@pytest.mark.parametrize("published", [False, True])
def test_the_disk_is_waited_for_where_the_checkpoint_stays_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(number), fsync(number))[1])
    stored: list[Path] = []
    writer = checkpoint.Writer(tmp_path, 1, stored.append if published else None)
    writer.submit(State(3), "{}", TENSORS)
    writer.wait()
    assert bool(synced) != published
    assert checkpoint.read(tmp_path / "step-00000003").state.step == 3
    assert stored == [tmp_path / "step-00000003"] * published


def test_damaged_newer_checkpoints_are_put_aside_and_half_written_ones_removed(tmp_path: Path) -> None:
    save(tmp_path, 20)
    (save(tmp_path, 30) / checkpoint.TENSORS).write_bytes(b"")
    (tmp_path / ".writing-step-00000017").mkdir()
    checkpoint.take_back(tmp_path, 20)
    save(tmp_path, 25)
    checkpoint.prune(tmp_path, keep_last=1)
    assert {path.name for path in tmp_path.iterdir()} == {"damaged-step-00000030", "step-00000025"}


def test_a_damaged_best_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1, accuracy=0.8)
    (save(tmp_path, 2, accuracy=0.9) / checkpoint.TENSORS).write_bytes(b"")
    said: list[str] = []
    assert checkpoint.choose(tmp_path, "best", said.append).state.step == 1
    assert len(said) == 1


def test_the_manifest_is_of_the_files(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    assert manifest["files"].keys() | {checkpoint.MANIFEST} == set(os.listdir(path))
