"""Allreduce over real ranks: what it takes, how well one link tells another, and what a stop leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.harness import PATIENCE, SMALL
from trainer.errors import ConfigError
from trainer.probe import link, network, ranks
from trainer.probe.network import Measured

pytestmark = pytest.mark.usefixtures("in_turn")
COMMAND = [sys.executable, "-m", "trainer", "probe", "network"]


def measured(to: Path, *words: str) -> list[Measured]:
    done = subprocess.run([*COMMAND, "--to", str(to), *words], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80 or str(to) in done.stdout
    return network.from_json(json.loads(to.read_text()))


def test_two_ranks_as_they_meet_on_this_machine(tmp_path: Path) -> None:
    (found,) = measured(tmp_path / "network.json")
    assert (found.ranks, found.rate) == (2, "")
    assert [each.bytes for each in found.samples] == [1024 * 4**power for power in range(9)]
    assert all(0 < each.low <= each.seconds <= each.high for each in found.samples)
    assert found.samples[-1].seconds > found.samples[0].seconds
    # from a slow disk's to all the memory's of a server: bytes and seconds, not bits or milliseconds
    assert 1e7 < found.link.bytes_per_second < 1e12


def test_the_fit_of_one_rate_predicts_another(tmp_path: Path) -> None:
    try:
        link.check()
    except ConfigError as error:
        pytest.skip(str(error))
    before = subprocess.run(["ip", "link", "show", "lo"], capture_output=True, text=True).stdout
    rates = ("400mbit", "100mbit")
    runs = measured(tmp_path / "network.json", *(word for rate in rates for word in ("--rate", rate)))
    assert [run.rate for run in runs] == list(rates)
    for run in runs:
        largest = run.samples[-1]
        # both ranks send a message of it over the one interface, less the burst that passes at once: no faster
        assert largest.seconds > 0.9 * 2 * largest.bytes / link.bytes_per_second(run.rate)
    fast, slow = runs
    assert fast.samples[-1].seconds < slow.samples[-1].seconds
    # how near the model comes is for docs/probes/ranks: on a busy machine nothing is near
    assert network.predicted(fast, slow.rate) == sorted(network.predicted(fast, slow.rate))
    after = subprocess.run(["ip", "link", "show", "lo"], capture_output=True, text=True).stdout
    assert after == before  # the machine's own loopback is as it was


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ranks", "1"), "an allreduce needs at least 2"),
        (("--rate", "fast"), "give a number and kbit, mbit or gbit"),
        (("--rate", "0mbit"), "give a number and kbit, mbit or gbit"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], message: str) -> None:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_leaves_no_rank_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--to", str(tmp_path / "network.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    family: list[psutil.Process] = []
    deadline = time.monotonic() + PATIENCE
    while sum("trainer.probe.allreduce" in " ".join(each.cmdline()) for each in family) < 3:  # mpirun and two ranks
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
        family = [each for each in psutil.Process(process.pid).children(recursive=True) if alive(each)]
    process.send_signal(number)
    assert process.wait(timeout=30) != 0
    _, left = psutil.wait_procs(family, timeout=20)
    assert not [each for each in left if alive(each)]
    assert list(tmp_path.iterdir()) == []


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_cell_of_two_ranks_is_timed_in_parts_and_trained(tmp_path: Path) -> None:
    numbers = {}
    for count in ("1", "2"):
        folder = tmp_path / count
        folder.mkdir()
        spec, answer = folder / "spec.json", folder / "answer.json"
        fields = {**SMALL, "train.epochs": "0.2", "log.every_steps": "5"}
        spec.write_text(json.dumps({"recipe": "sabour2017", "fields": fields, "settings": {"ranks": count}}))
        assert ranks.main(spec, answer) == 0
        found = json.loads(answer.read_text())
        assert found["outcome"] == "ok", found
        numbers[count] = found["numbers"]
    one, two = numbers["1"], numbers["2"]
    assert one["exposed_seconds"] == 0
    assert "reduction_seconds" not in one
    assert one["gradient_bytes"] == two["gradient_bytes"] == 4 * two["parameters"]
    # the batch is shared; records keep seven digits
    assert two["multiply_adds"] == pytest.approx(one["multiply_adds"] / 2, rel=1e-6)
    assert 0 < two["reduction_seconds"] < 10
    exposed = two["step_seconds"] - two["local_seconds"]
    assert two["exposed_seconds"] == pytest.approx(exposed, abs=1e-6 * two["step_seconds"])  # three of seven digits
    assert two["images_per_second"] > 0
    assert 0 <= two["input_wait"] < 1
