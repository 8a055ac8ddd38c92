from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL
import pytest
import tensorflow as tf
from PIL import Image

from trainer.config import RunConfig, with_overrides
from trainer.data.index import EMBEDDED, check_fits, folder_of, load_index
from trainer.data.records import read_block
from trainer.data.source import Source

SOURCE = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it
TOOL = Path(__file__).parents[3] / "tools" / "embed_fashion_mnist.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embed_fashion_mnist", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_balanced_and_fits_the_default_run() -> None:
    index = load_index(EMBEDDED)
    assert {name: split.class_records for name, split in index.splits.items()} == {
        "train": (1000,) * 10,
        "test": (200,) * 10,
    }
    assert len(set(index.classes)) == 10
    for lanes in (1, 2, 4, 8, 16):
        check_fits(index, with_overrides(RunConfig(), {"data.lanes": lanes}))


def test_it_is_licensed_and_small() -> None:
    folder = folder_of(EMBEDDED)
    licence = (folder / "LICENSE").read_text()
    assert "MIT" in licence
    assert "Copyright (c) 2017 Zalando SE" in licence
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert max(sizes) < 2**20
    assert sum(sizes) < 10_000_000


def contents(folder: Path, split: str) -> list[tuple[bytes, int, bytes]]:
    """(pixels, label, name) of every record, through the checksums of the index."""
    found = []
    source = Source(folder, load_index(str(folder)).splits[split])
    for shard, entry in enumerate(source.split.shards):
        for number in range(len(entry.blocks)):
            for serialized in read_block(source, shard, number):
                feature = tf.train.Example.FromString(serialized).features.feature
                pixels = np.asarray(Image.open(io.BytesIO(feature["image/encoded"].bytes_list.value[0])))
                label = feature["image/class/label"].int64_list.value[0]
                found.append((pixels.tobytes(), label, feature["image/name"].bytes_list.value[0]))
    return found


def test_no_record_comes_twice() -> None:
    for split in ("train", "test"):
        names = [name for _, _, name in contents(folder_of(EMBEDDED), split)]
        assert len(set(names)) == len(names)


@pytest.mark.skipif(not SOURCE.is_dir(), reason=f"the source is not here: {SOURCE} (Debian: dataset-fashion-mnist)")
def test_it_is_what_the_tool_makes(tool: ModuleType, tmp_path: Path) -> None:
    tool.embed(SOURCE, tmp_path)
    embedded = folder_of(EMBEDDED)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in embedded.iterdir()}
    same_bytes = all(path.read_bytes() == (embedded / path.name).read_bytes() for path in tmp_path.iterdir())
    assert same_bytes or PIL.__version__ != tool.PILLOW
    for split, (prefix, _, _) in tool.SPLITS.items():
        images = tool.read_idx(SOURCE / f"{prefix}-images-idx3-ubyte.gz")
        labels = tool.read_idx(SOURCE / f"{prefix}-labels-idx1-ubyte.gz")
        committed = contents(embedded, split)
        assert same_bytes or contents(tmp_path, split) == committed
        for pixels, label, name in committed:
            number = int(name.decode().removeprefix(f"{prefix}/"))
            assert label == labels[number]
            assert pixels == images[number].tobytes()
