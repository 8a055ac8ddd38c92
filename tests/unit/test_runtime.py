from __future__ import annotations

import subprocess
import sys

import pytest
import tensorflow as tf

from trainer import configs, runtime
from trainer.config import with_overrides
from trainer.distributed import World
from trainer.errors import ConfigError


def test_tensorflow_comes_without_matplotlib_which_comes_when_it_is_drawn() -> None:
    check = (
        "import sys; from trainer import runtime; runtime.import_tensorflow(); "
        "assert 'tensorflow' in sys.modules and not any(name.startswith('matplotlib') for name in sys.modules); "
        "from trainer.summaries import figures; assert 'matplotlib.figure' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", r"a GPU was requested \(CAPSNET_DEVICE=gpu\) and none is visible on "),
        ("GPU", "CAPSNET_DEVICE=GPU: give"),
    ],
)
def test_a_rank_that_is_to_have_a_gpu_does_not_train_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, device: str, words: str
) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    monkeypatch.setenv(runtime.ENV_DEVICE, device)
    with pytest.raises(ConfigError, match=words):
        runtime.set_up(configs.load("quick"), World())


def test_notes_of_libraries_are_left_out_where_there_are_gpus() -> None:
    program = """
import os, sys
from trainer import runtime
runtime.count_gpus = lambda: 1
runtime.quieten()
note = "I0000 00:00:1795789174.883892     843 gpu_device.cc:2022] Created device"
factory = "E0000 00:00:1795789165.960230     843 cuda_dnn.cc:8310] Unable to register cuDNN factory: Attempting"
failure = "E0000 00:00:1795789165.960230     843 cuda_driver.cc:152] failed call to cuInit: no CUDA-capable device"
os.write(2, f"{note}\\n{factory}\\n{failure}\\n".encode())
print("of Python", file=sys.stderr)
os.write(2, b"its last words\\n")
os.kill(os.getpid(), 11)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -11
    said = sorted(done.stderr.splitlines())
    assert [line.rpartition("] ")[2] for line in said] == [
        "failed call to cuInit: no CUDA-capable device",
        "its last words",
        "of Python",
    ]


@pytest.mark.parametrize("rounded", [True, False])
def test_products_are_rounded_to_tf32_as_configured(rounded: bool) -> None:
    config = with_overrides(configs.load("quick"), {"train.tf32": str(rounded)})
    program = (
        "import sys; import tensorflow as tf; from trainer import runtime; from trainer.distributed import World; "
        "from trainer.config import RunConfig; config = RunConfig.model_validate_json(sys.argv[1]); "
        "runtime.set_up(config, World()); "
        f"assert tf.config.experimental.tensor_float_32_execution_enabled() is {rounded}"
    )
    subprocess.run([sys.executable, "-c", program, config.model_dump_json()], check=True)
