from __future__ import annotations

from pathlib import Path

import pytest

from trainer.launch import gpus


def test_gpus_are_counted_by_their_device_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on GKE, where nvidia-smi is not on the PATH."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert gpus.count(tmp_path) == 0
    for name in ("nvidia0", "nvidia1", "nvidia11", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / name).touch()
    assert gpus.count(tmp_path) == 3


def test_without_device_files_nvidia_smi_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf 'GPU 0: L4 (UUID: GPU-a)\\n  MIG 1g.5gb Device 0: (UUID: MIG-b)\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert gpus.count(tmp_path) == 1
