"""What people name, and which images that is."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from trainer.errors import ConfigError, DataError
from trainer.predict import sources


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPEG", "notes.txt", ".hidden.png", "deep/er/c.jpg", "deep/d.webp"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    with zipfile.ZipFile(tmp_path / "more.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x/1.png", "x/2.csv", "__MACOSX/3.png"):
            archive.writestr(name, name * 100)
    return tmp_path


def names(*words: str) -> list[str]:
    return [item.name for item in sources.found(words)[0]]


def test_a_folder_is_all_images_below_it_in_order(tree: Path) -> None:
    items, aside = sources.found(["photos"])
    assert [item.name for item in items] == [
        "photos/a.JPEG",
        "photos/b.png",
        "photos/deep/d.webp",
        "photos/deep/er/c.jpg",
    ]
    assert aside == 1
    assert [item.read() for item in items] == [b"a.JPEG", b"b.png", b"deep/d.webp", b"deep/er/c.jpg"]


def test_a_zip_is_read_where_it_lies(tree: Path) -> None:
    items, aside = sources.found(["more.zip"])
    assert ([item.name for item in items], aside) == (["more.zip/x/1.png"], 1)
    assert items[0].read() == b"x/1.png" * 100


def test_files_come_in_the_order_of_the_words_whatever_their_names(tree: Path) -> None:
    assert names("photos/notes.txt", "photos/a.JPEG", "photos/a.JPEG") == [
        "photos/notes.txt",
        "photos/a.JPEG",
        "photos/a.JPEG",
    ]
    assert names(str(tree / "photos/b.png")) == [str(tree / "photos/b.png")]


def test_patterns_match_what_a_shell_would(tree: Path) -> None:
    assert names("photos/*.png") == ["photos/b.png"]
    assert names("photos/**/*.jpg") == ["photos/deep/er/c.jpg"]
    (tree / "photos/[1].png").touch()
    assert names("photos/[1].png") == ["photos/[1].png"]  # a file of that name comes before a pattern


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("nowhere.png", "nowhere.png: no such file or folder"),
        ("photos/*.tiff", "nothing that it matches"),
        ("gs://bucket/x.png", "images are read from local files"),
        ("empty", r"empty: no images \(.jpg, .jpeg, .jpe, .png, ...\) among 1 files"),
    ],
)
def test_what_is_not_there_is_one_line(tree: Path, word: str, said: str) -> None:
    (tree / "empty").mkdir()
    (tree / "empty/read.me").touch()
    with pytest.raises(ConfigError, match=said):
        sources.found([word])


def test_a_broken_zip_is_named(tree: Path) -> None:
    (tree / "broken.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"broken.zip: not a whole zip file"):
        sources.found(["broken.zip"])
