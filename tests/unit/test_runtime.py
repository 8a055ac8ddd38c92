from __future__ import annotations

import subprocess
import sys

import pytest
import tensorflow as tf

from trainer import configs, runtime
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
