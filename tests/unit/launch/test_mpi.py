import json
from pathlib import Path

import pytest

from trainer.errors import ConfigError
from trainer.launch import mpi

pytest.importorskip("horovod", reason="Horovod is not installed: make horovod")


def stamp(tmp_path: Path, tensorflow: str | None, options: str) -> Path:
    path = tmp_path / "horovod.json"
    path.write_text(json.dumps({"tensorflow": tensorflow, "options": options}))
    return path


def test_a_fitting_horovod_is_taken(tmp_path: Path) -> None:
    mpi.check_installed(stamp(tmp_path, mpi.tensorflow_version(), "A=1 HOROVOD_WITH_MPI=1"))


def test_another_tensorflow_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"built for TensorFlow 1\.2\.3, and .* is installed: run 'make horovod'"):
        mpi.check_installed(stamp(tmp_path, "1.2.3", "HOROVOD_WITH_MPI=1"))


def test_a_horovod_without_mpi_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"without MPI .* run 'make horovod'"):
        mpi.check_installed(stamp(tmp_path, mpi.tensorflow_version(), "HOROVOD_WITH_GLOO=1"))
