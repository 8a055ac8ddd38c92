"""Axes that several studies share, and that are more than one field."""

from trainer.probe.study import Axis

CLASSES, IMAGE = 10, 28
"""Of the images that come with the package."""
TYPES, POSE = 16, 8
"""Of the primary capsules of ``quick``; convolutional layers have as many, so that what they add to is like them."""


def depth(
    name: str, layers: tuple[int, ...], *, window: int = 3, residual: bool = False, arms: tuple[str, ...] = ()
) -> Axis:
    """Routed capsule layers, class capsules included: the others are convolutional, of windows of so many positions."""

    def changes(count: int) -> dict[str, str]:
        def each(value: int) -> str:
            return ",".join([str(value)] * (count - 1))

        return {
            "model.layers.types": each(TYPES),
            "model.layers.poses": each(POSE),
            "model.layers.kernels": each(window),
            "model.layers.strides": each(1),
            "model.layers.padding": "same" if count > 1 else "valid",
            "model.layers.residual": str(residual and count > 1).lower(),
        }

    note = f"Layers of {TYPES} capsules of {POSE} numbers a position, from windows of {window}x{window} positions."
    return Axis(name, {str(count): changes(count) for count in layers}, arms, "" if window == 3 else note)


def grain(name: str, rotations: tuple[int, ...]) -> Axis:
    """Parents from the same images: labels of class x angle."""
    return Axis(
        name,
        {
            str(CLASSES * count): {"data.rotations": str(count), "model.classes": str(CLASSES * count)}
            for count in rotations
        },
        note="Labels are class x angle of rotation: the same images at a finer grain of labels, not more natural "
        "classes. Records for each label fall as labels rise.",
    )


def equal_parameters(name: str, types: tuple[int, ...]) -> Axis:
    """Many small children or few large ones: types x pose stays, and with it every number of parameters."""
    numbers = TYPES * POSE
    return Axis(
        name,
        {
            f"{count} x {numbers // count}": {
                "model.primary.types": str(count),
                "model.primary.pose": str(numbers // count),
            }
            for count in types
        },
        note=f"Types x size of a pose at each position, always {numbers} numbers.",
    )


def resampled(name: str, sizes: tuple[int, ...]) -> Axis:
    """The same images, resized: more positions and children, and no more to be seen."""
    return Axis(
        name,
        {
            str(size): {"model.image_size": str(size), "data.augment.resize": "none" if size == IMAGE else "whole"}
            for size in sizes
        },
        note=f"The same images of {IMAGE} pixels, resized: more children, and no more to be seen.",
    )
