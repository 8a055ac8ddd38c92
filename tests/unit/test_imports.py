"""A file imports only what stands to its left in the order below, or a service; TensorFlow stays where it computes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "trainer"
ORDER = [
    {"errors", "memory", "intervals", "stopping"},
    {"config"},
    {"devices"},
    {"storage", "hints"},
    {"launch"},
    {"distributed", "configs", "checkpoint", "progress", "metrics"},
    {"rundir", "runtime"},
    {"output"},
    {"cluster"},
    {"data", "model"},
    {"losses", "optimizer", "eventfiles", "held"},
    {"weights"},
    {"step", "evaluation", "summaries", "profiling"},
    {"plan", "journal", "meter", "described"},
    {"loop", "dry_run"},
    {"scoring", "export"},
    {"library", "bench", "rank"},
    {"compare", "predict", "doctor", "probe"},
    {"parsing"},
    {"cli_probe_job", "cli_probe_network"},
    {
        "cli_cluster",
        "cli_data",
        "cli_doctor",
        "cli_compare",
        "cli_evaluate",
        "cli_job",
        "cli_predict",
        "cli_probe",
        "cli_sync",
    },
    {"cli"},
    {"__main__", "__init__"},
]
WITHOUT_TENSORFLOW = {
    "errors",
    "config",
    "devices",
    "storage",
    "launch",
    "output",
    "cluster",
    "configs",
    "checkpoint",
    "rundir",
    "stopping",
    "plan",
    "cli",
    "hints",
    "parsing",
    "cli_data",
    "compare",
    "cli_compare",
    "cli_evaluate",
    "cli_cluster",
    "cli_doctor",
    "cli_probe",
    "cli_probe_job",
    "cli_probe_network",
    "doctor",
    "cli_job",
    "cli_predict",
    "cli_sync",
}
ONLY_IMPORTER = {
    "horovod": {"distributed"},
    "google_crc32c": {"storage"},
    "google.cloud": {"storage"},
    "google.auth": {"storage"},
    "requests": {"storage"},
    "kubernetes": {"cluster"},
    "matplotlib": {"compare", "scoring", "probe", "summaries"},
}

FILES = sorted(ROOT.rglob("*.py"))


def part(path: Path) -> str:
    """The unit of the rule: a top-level module or folder of the package."""
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(path: Path, *, top_level: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def rank_of(name: str) -> int:
    return next(number for number, names in enumerate(ORDER) if name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    mine = part(path)
    for name in imports(path, top_level=True):
        if name == "trainer" or not name.startswith("trainer."):
            continue
        other = name.split(".")[1]
        if other != mine:
            assert rank_of(other) < rank_of(mine), f"{mine} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_wrapped_libraries_have_one_importer(path: Path) -> None:
    for name in imports(path, top_level=False):
        for library, allowed in ONLY_IMPORTER.items():
            if name == library or name.startswith(f"{library}."):
                assert part(path) in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_tensorflow_is_imported_where_it_computes(path: Path) -> None:
    if part(path) in WITHOUT_TENSORFLOW:
        assert not {name for name in imports(path, top_level=True) if name.split(".")[0] in ("tensorflow", "keras")}
