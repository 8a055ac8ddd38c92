import pytest

from trainer import distributed
from trainer.distributed import World
from trainer.errors import ConfigError
from trainer.launch.wire import ENV_ADDRESS, ENV_RANKS


def placed(monkeypatch: pytest.MonkeyPatch, **environment: str) -> World:
    for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"):
        monkeypatch.delenv(f"OMPI_COMM_WORLD_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return distributed.placed()


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert placed(monkeypatch) == World(0, 1, 0, 1, alone=True)


def test_ranks_know_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    world = placed(
        monkeypatch,
        OMPI_COMM_WORLD_RANK="5",
        OMPI_COMM_WORLD_SIZE="8",
        OMPI_COMM_WORLD_LOCAL_RANK="1",
        OMPI_COMM_WORLD_LOCAL_SIZE="4",
        **{ENV_RANKS: "8", ENV_ADDRESS: "127.0.0.1:1"},
    )
    assert world == World(5, 8, 1, 4, alone=False)
    assert not world.is_first


def test_ranks_that_would_train_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under an mpirun of another MPI: two processes, each of which thinks that it is alone."""
    with pytest.raises(ConfigError, match=r"2 ranks were started .* they would train apart"):
        placed(monkeypatch, **{ENV_RANKS: "2", ENV_ADDRESS: "127.0.0.1:1"})


def test_ranks_without_a_supervisor_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV_ADDRESS, raising=False)
    with pytest.raises(ConfigError, match="capsnet launch --ranks 2"):
        placed(monkeypatch, OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="1")
