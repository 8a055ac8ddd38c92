"""Python, cores, memory and disks."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import psutil

from trainer import distributed, storage
from trainer.doctor.finding import OK, PROBLEM, WARNING, Finding, Findings
from trainer.launch import memory_kills

GIB = 2**30
PYTHON = (3, 11)
LITTLE_MEMORY, LITTLE_DISK, LITTLE_SHM = 3 * GIB, 5 * GIB, 512 * 2**20
SHM = Path("/dev/shm")


def check() -> Findings:
    yield python(sys.version_info[:2])
    yield Finding("cores", OK, f"{distributed.cores()} of {os.cpu_count()}")
    yield memory(psutil.virtual_memory().total, memory_kills.limit())
    folder = storage.cache_folder()
    yield disk(folder, shutil.disk_usage(_there(folder)).free)
    if SHM.is_dir():
        yield shm(shutil.disk_usage(SHM).total)


def python(version: tuple[int, ...]) -> Finding:
    found = platform.python_version()
    if version != PYTHON:
        return Finding("python", PROBLEM, found, "TensorFlow and Horovod are pinned for 3.11: make PYTHON=python3.11")
    return Finding("python", OK, f"{found}, {sys.prefix}")


def memory(total: int, limit: int | None) -> Finding:
    usable = min(total, limit or total)
    said = f"{total / GIB:.1f} GiB" + (f", this container may use {limit / GIB:.1f}" if limit and limit < total else "")
    if usable < LITTLE_MEMORY:
        return Finding("memory", WARNING, said, "a rank of a small network takes 1 GiB, of the ImageNet recipe 4")
    return Finding("memory", OK, said)


def disk(folder: Path, free: int) -> Finding:
    said = f"{free / GIB:.1f} GiB free for {folder}"
    if not _can_be_written(_there(folder)):
        mend = "set XDG_CACHE_HOME, or storage.cache_dir, to a folder that can be written"
        return Finding("disk", PROBLEM, f"{folder} cannot be written", mend)
    if free < LITTLE_DISK:
        mend = "shards from a bucket are kept there: name another with storage.cache_dir, or set storage.cache_bytes"
        return Finding("disk", WARNING, said, mend)
    return Finding("disk", OK, said)


def shm(total: int) -> Finding:
    said = f"{total / 2**20:,.0f} MiB"
    if total < LITTLE_SHM:
        mend = "NCCL's ranks need more: docker run --shm-size 8g, or a memory-backed volume (k8s/components/gpu)"
        return Finding("/dev/shm", WARNING, said, mend)
    return Finding("/dev/shm", OK, said)


def _can_be_written(folder: Path) -> bool:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _there(folder: Path) -> Path:
    """The nearest folder above that there is."""
    return folder if folder.exists() else _there(folder.parent)
