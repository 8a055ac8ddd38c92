"""TensorFlow, GPUs, Horovod and MPI."""

from __future__ import annotations

import json
import os
import re
import shutil

from trainer.doctor.finding import OK, PROBLEM, SKIPPED, WARNING, Answer, Finding, Findings, answered, asked
from trainer.errors import ConfigError
from trainer.launch import mpi

IMPORT_SECONDS, RING_SECONDS, DRIVER_SECONDS = 120.0, 180.0, 30.0
COMPUTES = """
import json, os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
gpus = [device.name for device in tf.config.list_physical_devices("GPU")]
product = float(tf.linalg.trace(tf.matmul(tf.eye(4), 2 * tf.eye(4))))
print(json.dumps({"version": tf.__version__, "gpus": gpus, "cuda": tf.test.is_built_with_cuda(), "product": product}))
"""
HOROVOD = "import horovod.tensorflow as h; print(h.mpi_built(), h.gloo_built(), bool(h.nccl_built()))"


def check(*, ranks: bool) -> Findings:
    """``ranks``: start two, that reduce a number."""
    answer = asked(["-c", COMPUTES], IMPORT_SECONDS)
    driver = gpu_cards()
    if driver is not None and driver.code:
        yield Finding("driver", PROBLEM, f"nvidia-smi: {driver.said}", "mend the driver of the GPUs, or remove it")
    cards = driver.lines if driver is not None and driver.code == 0 else 0
    yield from tensorflow(answer, cards)
    horovod = check_horovod(cards)
    yield horovod
    if not ranks:
        yield Finding("two ranks", SKIPPED, "--no-ranks")
    elif horovod.level == PROBLEM or answer.code:
        yield Finding("two ranks", SKIPPED, "after the problem above")
    else:
        yield ring(asked(["-m", "trainer.doctor.ring"], RING_SECONDS))


def tensorflow(answer: Answer, cards: int) -> Findings:
    """``cards``: GPUs that the driver lists."""
    if answer.code:
        mend = "make clean, and make train sets it up again; the line above is its own"
        yield Finding("tensorflow", PROBLEM, answer.said, mend)
        return
    try:
        seen = json.loads(answer.said)
    except ValueError:
        yield Finding("tensorflow", PROBLEM, f"its last words were: {answer.said}", "make clean, make train")
        return
    if seen["product"] != 8.0:
        yield Finding("tensorflow", PROBLEM, f"{seen['version']} computes a wrong product", "make clean, make train")
        return
    yield Finding("tensorflow", OK, f"{seen['version']}, computes")
    yield gpus(len(seen["gpus"]), cards, cuda=seen["cuda"], chosen=os.environ.get("CUDA_VISIBLE_DEVICES"))


def gpus(seen: int, cards: int, *, cuda: bool, chosen: str | None = None) -> Finding:
    """``chosen``: the GPUs that somebody left visible, as in CUDA_VISIBLE_DEVICES; None: all."""
    if cards and not cuda:
        return Finding("gpus", PROBLEM, f"{cards}, and TensorFlow's build for CPUs", "make train ACCELERATOR=gpu")
    if chosen is not None:
        cards = min(cards, sum(each.strip() not in ("", "-1") for each in chosen.split(",")))
    if seen < cards:
        mend = "is the driver one for CUDA 12.5 or later, and LD_LIBRARY_PATH free of other CUDA libraries?"
        there = f"the driver lists {cards}" if chosen is None else f"CUDA_VISIBLE_DEVICES leaves {cards}"
        return Finding("gpus", PROBLEM, f"{there}, TensorFlow sees {seen}", mend)
    return Finding("gpus", OK, f"{seen}, one a rank" if seen else "none: ranks compute on the CPU")


def gpu_cards() -> Answer | None:
    """What the driver lists, a line each; None where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return None
    return answered(["nvidia-smi", "--list-gpus"], DRIVER_SECONDS)


def check_horovod(cards: int) -> Finding:
    """Whether several ranks could be started, as far as files tell; then whether its library can be loaded."""
    try:
        mpi.check_installed()
    except ConfigError as error:
        said, _, mend = str(error).partition(": ")
        return Finding("horovod", PROBLEM, said, mend)
    answer = asked(["-c", HOROVOD], IMPORT_SECONDS)
    told = re.fullmatch(r"(True|False) (True|False) (True|False)", answer.said)
    if answer.code or told is None:
        return Finding("horovod", PROBLEM, answer.said, mpi.MEND)
    built_with = dict(zip(("MPI", "Gloo", "NCCL"), told.groups(), strict=True))
    built = json.loads(mpi.HOROVOD_STAMP.read_text()) if mpi.HOROVOD_STAMP.exists() else {"tensorflow": "?"}
    parts = ", ".join(f"{'with' if there == 'True' else 'without'} {name}" for name, there in built_with.items())
    said = f"for TensorFlow {built['tensorflow']}, {parts}; {mpi.find_mpirun()}"
    if cards and built_with["NCCL"] == "False":
        return Finding("horovod", WARNING, said, "several GPUs reduce over NCCL: make horovod ACCELERATOR=gpu")
    return Finding("horovod", OK, said)


def ring(answer: Answer) -> Finding:
    if answer.code:
        mend = "does anything keep local processes from talking to each other? see 'make test ARGS=-k ranks'"
        return Finding("two ranks", PROBLEM, answer.said, mend)
    return Finding("two ranks", OK, answer.said)
