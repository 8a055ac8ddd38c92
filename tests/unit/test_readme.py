"""What README tells people to do, done."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def example(heading: str) -> tuple[str, str]:
    """(the text that leads to it, the code) of the first Python block below a heading."""
    text = (ROOT / "README.md").read_text().split(f"\n### {heading}\n", 1)[1]
    found = re.match(r"(.*?)\n```python\n(.*?)```\n", text, re.DOTALL)
    assert found is not None
    return found[1], found[2]


def test_a_routing_algorithm_is_one_file_and_one_line(tmp_path: Path) -> None:
    """In a copy of the package: the file, the name, and the tests that hold for every algorithm."""
    lead, code = example("A routing algorithm")
    path = re.findall(r"`(trainer/\S+\.py)`:$", lead.strip())[0]
    name = Path(path).stem
    shutil.copytree(ROOT / "trainer", tmp_path / "trainer", ignore=shutil.ignore_patterns("__pycache__", "embedded"))
    shutil.copytree(ROOT / "tests/unit", tmp_path / "tests/unit", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (tmp_path / "tests", tmp_path / "tests/unit"):
        (folder / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert not (tmp_path / path).exists()
    (tmp_path / path).write_text(code)
    config = tmp_path / "trainer/config/model.py"
    before = config.read_text()
    config.write_text(before.replace('algorithm: Literal["dynamic",', f'algorithm: Literal["{name}", "dynamic",', 1))
    assert config.read_text() != before
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", f"{name} or every_algorithm_of"]
    tests = ["tests/unit/model/test_routing.py", "tests/unit/model/test_costs.py"]
    done = subprocess.run(
        [*command, *tests],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 15, done.stdout  # traces, both orders, every size in every precision, the interface
