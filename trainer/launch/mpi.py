"""How ranks are started: the command of mpirun, and what must be installed for it.

Open MPI and Horovod are looked at through their files, so that what is missing is said before TensorFlow starts.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from trainer.errors import ConfigError

HOROVOD_STAMP = Path(sys.prefix) / "share" / "capsnet" / "horovod.json"
"""Written by docker/build-horovod: TensorFlow's version and the options that Horovod was built with."""

SSH_CONFIG = Path("/etc/capsnet/ssh_config")
SSH = ("ssh", "-F", str(SSH_CONFIG))
"""How other machines of a run are reached."""

PASSED_ON = (
    *("CAPSNET_", "HOROVOD_", "NCCL_", "TF_", "XLA_", "OPAL_PREFIX", "PYTHON", "XDG_CACHE_HOME", "MPLCONFIGDIR"),
    *("GOOGLE_", "STORAGE_EMULATOR_HOST", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE"),
    "LD_LIBRARY_PATH",  # of the image, with the driver on GKE: sshd's sessions have none; mpirun puts its own before it
)
"""Beginnings of the variables that ranks on other machines get from the launcher."""

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
    found = str(_beside()) if _beside().exists() else shutil.which("mpirun")
    if not found:
        raise ConfigError(f"more than one rank needs mpirun, and none is installed: {MEND}")
    return found


def _beside() -> Path:
    return Path(sys.prefix) / "bin" / "mpirun"


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


def command(ranks: int, program: list[str], hostfile: Path | None, environment: Mapping[str, str]) -> list[str]:
    """mpirun for ranks on this machine, or on those of a hostfile, where they get what matters of the environment."""
    return [
        find_mpirun(),
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *(_over(hostfile, environment) if hostfile else ["--oversubscribe"]),  # more ranks than cores: a user's choice
        "--bind-to",
        "none",  # a rank's threads use every core it is given
        *("--mca", "btl_vader_single_copy_mechanism", "none"),  # ptrace between ranks is often forbidden in containers
        *("--mca", "orte_abort_print_stack", "0"),
        "--quiet",
        "-np",
        str(ranks),
        *program,
    ]


def _over(hostfile: Path, environment: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in environment if name.startswith(PASSED_ON))
    return [
        *("--hostfile", str(hostfile)),
        *("--prefix", sys.prefix),  # a remote shell has no PATH to this environment
        *("--mca", "plm_rsh_agent", shlex.join(SSH)),
        *(word for name in names for word in ("-x", name)),
    ]


def environment(base: Mapping[str, str]) -> dict[str, str]:
    return {
        "HOROVOD_CYCLE_TIME": "5",  # ms; measured: at 1, its negotiations cost two CPU ranks a tenth of their speed
        **({"OPAL_PREFIX": sys.prefix} if _beside().exists() else {}),  # the wheel was built for another folder
        **base,
        "HOROVOD_STALL_CHECK_DISABLE": "1",  # the watchdog is ours, see lifeline
        "OMPI_MCA_mpi_abort_print_stack": "0",
    }
