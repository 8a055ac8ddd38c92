"""A large transform is several variables and one tensor in a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainer import optimizer, weights
from trainer.config import ModelConfig, OptimizerConfig
from trainer.errors import CheckpointError
from trainer.model import parts
from trainer.model.network import CapsNet, build
from trainer.model.routing import LayerSizes

TREE = {
    "image_size": 12,
    "stem": {"channels": [4], "kernel": 3, "strides": [2]},
    "primary": {"types": 2, "pose": 4, "kernel": 3, "stride": 1},
    "decoder": {"hidden": []},
}


def test_parts_keep_to_their_size() -> None:
    for sizes in (
        LayerSizes(1152, 1152, 10, 8, 16),
        LayerSizes(1568, 1568, 100, 16, 16),
        LayerSizes(9, 9, 3000, 64, 64),
    ):
        rows = parts.rows(sizes)
        each = 4 * sizes.child_pose * sizes.parents * sizes.pose
        assert sum(rows) == sizes.transforms
        assert all(count * each <= parts.PART_BYTES or count == 1 for count in rows)
        assert max(rows) - min(rows) <= 1
    assert parts.rows(LayerSizes(1152, 1152, 10, 8, 16)) == (1152,)


def test_names_of_parts_and_of_their_slots_are_joined_in_order() -> None:
    names = [parts.name("a/transform", part, 11) for part in range(11)]
    slots = [f"optimizer/{name.replace('/', '_')}_momentum" for name in names]
    assert parts.joined([*names[::-1], "a/bias", *slots]) == {
        "a/transform": names,
        "a/bias": ["a/bias"],
        "optimizer/a_transform_momentum": slots,
    }
    assert parts.name("a/transform", 0, 1) == "a/transform"


def cut_small(monkeypatch: pytest.MonkeyPatch) -> CapsNet:
    whole_bytes = 4 * 18 * 4 * 10 * 16
    monkeypatch.setattr(parts, "PART_BYTES", whole_bytes // 4)
    return build(ModelConfig.model_validate(TREE), seed=3)


def test_values_and_checkpoints_do_not_depend_on_the_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(ModelConfig.model_validate(TREE), seed=3)
    cut = cut_small(monkeypatch)
    assert len(whole.class_capsules.transform_parts) == 1
    assert len(cut.class_capsules.transform_parts) > 3
    expected, found = (weights.tensors_of(weights.weights_of(net)) for net in (whole, cut))
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
    images_BHWC = np.random.default_rng(0).random((2, 12, 12, 1)).astype(np.float32)
    np.testing.assert_allclose(cut(images_BHWC).poses_BJQ, whole(images_BHWC).poses_BJQ, rtol=1e-5, atol=1e-7)

    other = {name: tensor + 1 for name, tensor in expected.items()}
    weights.assign(weights.weights_of(cut), other, Path("step"))
    for name, tensor in weights.tensors_of(weights.weights_of(cut)).items():
        np.testing.assert_array_equal(tensor, other[name])
    short = {**other, "weights/capsnet/class_capsules/transform": tensor_of_another_size(other)}
    with pytest.raises(CheckpointError, match=r"class_capsules/transform is \[17, 4, 10, 16\], this model has \[18,"):
        weights.assign(weights.weights_of(cut), short, Path("step"))


def tensor_of_another_size(tensors: dict[str, np.ndarray]) -> np.ndarray:
    return tensors["weights/capsnet/class_capsules/transform"][:-1]


def test_slots_of_an_optimizer_are_joined_and_parts_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    net = cut_small(monkeypatch)
    update = optimizer.build_optimizer(OptimizerConfig(weight_decay=0.1), net.trainable_variables)
    slots = {f"optimizer/{variable.path}": variable.value for variable in update.variables}
    tensors = weights.tensors_of(slots)
    transforms = {name: tensor.shape for name, tensor in tensors.items() if "transform" in name}
    assert len(transforms) == 2
    assert set(transforms.values()) == {(18, 4, 10, 16)}
    assert all(optimizer.is_decayed(part.path) for part in net.class_capsules.transform_parts)
