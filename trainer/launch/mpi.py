"""How ranks are started: the command of mpirun, and what must be installed for it.

Open MPI and Horovod are looked at through their files, so that what is missing is said before TensorFlow starts.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

from trainer.errors import ConfigError

HOROVOD_STAMP = Path(sys.prefix) / "share" / "capsnet" / "horovod.json"
"""Written by docker/build-horovod: TensorFlow's version and the options that Horovod was built with."""

MEND = "run 'make horovod' (builds it once, about 80 s on two cores; needs g++ and make)"


def tensorflow_version() -> str | None:
    """Of whichever TensorFlow distribution is installed; None if there is none."""
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def find_mpirun() -> str:
    """Of this environment first, as it is the one that Horovod was built against."""
    beside = Path(sys.prefix) / "bin" / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if not found:
        raise ConfigError(f"more than one rank needs mpirun, and none is installed: {MEND}")
    return found


def check_installed(stamp: Path = HOROVOD_STAMP) -> None:
    """Raises ConfigError with the mend where ranks could not be started together."""
    find_mpirun()
    if importlib.util.find_spec("horovod") is None:
        raise ConfigError(f"more than one rank needs Horovod, and it is not installed: {MEND}")
    installed = tensorflow_version()
    if stamp.exists():
        built = json.loads(stamp.read_text())
        if built["tensorflow"] != installed:
            raise ConfigError(
                f"Horovod was built for TensorFlow {built['tensorflow']}, and {installed} is installed: {MEND}"
            )
        if "HOROVOD_WITH_MPI=1" not in built["options"].split():
            raise ConfigError(f"Horovod was built without MPI ({built['options']}): {MEND}")


def command(ranks: int, program: list[str]) -> list[str]:
    """mpirun for ranks on this machine."""
    return [
        find_mpirun(),
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        "--oversubscribe",  # more ranks than cores is the user's choice
        "--bind-to",
        "none",  # a rank's threads use every core it is given
        *("--mca", "btl_vader_single_copy_mechanism", "none"),  # ptrace between ranks is often forbidden in containers
        *("--mca", "orte_abort_print_stack", "0"),
        "--quiet",
        "-np",
        str(ranks),
        *program,
    ]


def environment(base: dict[str, str]) -> dict[str, str]:
    return {
        "HOROVOD_CYCLE_TIME": "5",  # ms; measured: at 1, its negotiations cost two CPU ranks a tenth of their speed
        **base,
        "HOROVOD_STALL_CHECK_DISABLE": "1",  # the watchdog is ours, see lifeline
        "OMPI_MCA_mpi_abort_print_stack": "0",
    }
