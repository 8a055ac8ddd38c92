"""Axes that several studies share, and that are more than one field."""

from trainer.probe.study import Axis

TYPES, POSE = 16, 8
"""As many capsules of such poses as the primary capsules of ``quick``: what they add to must be like them."""


def depth(name: str, layers: tuple[int, ...], *, residual: bool = False, arms: tuple[str, ...] = ()) -> Axis:
    """Routed capsule layers, class capsules included: the others are convolutional, of 3x3 windows."""

    def changes(count: int) -> dict[str, str]:
        def each(value: int) -> str:
            return ",".join([str(value)] * (count - 1))

        return {
            "model.layers.types": each(TYPES),
            "model.layers.poses": each(POSE),
            "model.layers.kernels": each(3),
            "model.layers.strides": each(1),
            "model.layers.padding": "same" if count > 1 else "valid",
            "model.layers.residual": str(residual and count > 1).lower(),
        }

    return Axis(name, {str(count): changes(count) for count in layers}, arms)
