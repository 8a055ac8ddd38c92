"""Images: where they are, what is made of them on the way, and how they are kept near."""

from __future__ import annotations

from typing import Literal

from pydantic import ByteSize, Field

from trainer.config.section import Section, neutral


class AugmentConfig(Section):
    shift: int = Field(0, ge=0, description="random shift of up to this many pixels, filled with zeros")
    flip: bool = Field(False, description="random horizontal flip")
    resize: Literal["none", "crop", "whole", "random_resized_crop"] = Field(
        "none",
        description="how an image becomes image_size: it is so already, a random crop (central in tests), the whole "
        "image resized, or a random part of 8 to 100 % of the area (central in tests)",
    )


class OverlapConfig(Section):
    enabled: bool = Field(
        False,
        description="crowded scenes: each record is overlaid with one of another class, both are to be found; gray "
        "images are added and clipped at 255, of colour images the mean is taken where both lie",
    )
    shift: int = Field(
        4, ge=0, description="each image is shifted by up to this many pixels; image_size is the image's + 2 shift"
    )


class AffineConfig(Section):
    rotation: float = Field(0.0, ge=0, le=180, description="test images are rotated by up to so many degrees")
    shear: float = Field(0.0, ge=0, le=1, description="columns moved by up to so many columns a row, in tests")
    scale: float = Field(0.0, ge=0, lt=1, description="each axis scaled by 1 - scale to 1 + scale, in tests")
    shift: float = Field(0.0, ge=0, description="shifted by up to so many pixels each way, in tests; zeros come in")

    @property
    def enabled(self) -> bool:
        return any((self.rotation, self.shear, self.scale, self.shift))


STANDARD_AFFINE = AffineConfig(rotation=20, shear=0.2, scale=0.2, shift=2)
"""The bounds of affNIST, but for its shift, which a larger canvas has room for."""


class DataConfig(Section):
    uri: str = neutral("embedded", min_length=1, description="folder or gs://bucket/prefix of the shards, or embedded")
    train_split: str = Field("train", description="split that is trained on")
    test_split: str = Field("test", description="split that is evaluated")
    lanes: int = Field(
        8, ge=1, description="parallel record sequences that make up each global batch; ranks must divide it"
    )
    shuffle_window: int = Field(1024, ge=1, description="records of a lane that are shuffled together, across shards")
    interleave_shards: int = Field(8, ge=1, description="shards of a lane whose blocks are mixed into one window")
    augment: AugmentConfig = AugmentConfig()
    rotations: int = Field(
        1,
        ge=1,
        le=360,
        description="angles that images are turned by, evenly around; labels are then class x angle, and model.classes "
        "is to be so many times the classes of the data set: a finer grain of labels, not more natural classes",
    )
    overlap: OverlapConfig = OverlapConfig()
    affine: AffineConfig = AffineConfig()
    scaled_decoding: bool = Field(
        True, description="decode JPEG at 1/2, 1/4 or 1/8 where the part that is used stays at least image_size"
    )
    tolerate_damaged: int = Field(
        0, ge=0, description="damaged records of an epoch, over all ranks, that are done without; more end the run"
    )
    prefetch: int = neutral(4, ge=1, description="batches prepared ahead")
    readers: int = neutral(
        0, ge=0, description="parallel readers and decoders of a rank; 0: the cores, shared among local ranks"
    )


class StorageConfig(Section):
    deadline_seconds: float = neutral(300.0, gt=0, description="Cloud Storage: give up after so long without progress")
    first_wait_seconds: float = neutral(0.5, gt=0, description="wait before the first retry; doubles, with jitter")
    longest_wait_seconds: float = neutral(30.0, gt=0, description="longest wait between two retries")
    stall_seconds: float = neutral(30.0, gt=0, description="a connection that is silent for so long is given up")
    connections: int = neutral(8, ge=1, description="parallel transfers of a rank")
    cache_dir: str = neutral("", description="folder of the shard cache; empty: capsnet under the user's cache folder")
    cache_bytes: ByteSize = neutral(
        ByteSize(20 * 2**30), ge=0, description="bound of the shard cache, as 20GiB; all ranks of a machine share it"
    )
