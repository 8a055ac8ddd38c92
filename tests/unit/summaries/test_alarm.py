"""The state that capsule networks die in: told from one that is alive, and said in words."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.unit.summaries.boards import batch_of, board_for, built, configured, values_in
from trainer.config import RunConfig
from trainer.data.index import load_index
from trainer.journal import FirstRankJournal
from trainer.model.network import CapsNet
from trainer.rundir import RunDirectory
from trainer.summaries.alarm import Signs


def dying(net: CapsNet, scale: float = 1e-3) -> CapsNet:
    for part in net.class_capsules.transform_parts:
        part.assign(part * scale)
    return net


def alive(net: CapsNet) -> CapsNet:
    return dying(net, 20.0)


def looked_at(folder: Path, config: RunConfig, net: CapsNet) -> tuple[Signs, dict[str, float]]:
    board = board_for(folder, config, net)
    signs = board.observe(10, batch_of(config))
    board.close()
    found = {value.tag: tf.make_ndarray(value.tensor) for _, value in values_in(folder)}
    return signs, found


def test_a_dead_network_has_all_signs(tmp_path: Path) -> None:
    config = configured()
    signs, found = looked_at(tmp_path, config, dying(built(config)))
    assert signs.dead
    assert signs.count == signs.possible == found["routing/alarm"] == 3
    assert "entropy 1.00000 of ln J" in signs.sentence
    assert "margin loss rests at 0.810" in signs.sentence
    assert found["capsules/class_capsules/dead_parents"] == 1


def test_a_network_that_is_alive_has_none(tmp_path: Path) -> None:
    config = configured()
    signs, found = looked_at(tmp_path, config, alive(built(config)))
    assert not signs.dead
    assert signs.count == found["routing/alarm"] == 0
    assert signs.sentence == ""
    assert found["capsules/class_capsules/dead_parents"] == 0


@pytest.mark.parametrize(
    ("fields", "possible"),
    [
        ({"model__routing__algorithm": "uniform"}, 2),  # has no couplings that could change
        ({"model__routing__iterations": 1}, 2),
        ({"loss__kind": "cross_entropy"}, 2),
        ({"model__routing__algorithm": "inverted", "model__primary__nonlinearity": "layer_norm"}, 2),  # no lengths
        ({"model__head__kind": "conv_parameters"}, 0),
    ],
)
def test_a_sign_counts_where_it_has_a_meaning(tmp_path: Path, fields: dict[str, object], possible: int) -> None:
    config = configured(**fields)
    signs, found = looked_at(tmp_path, config, built(config))
    assert signs.possible == possible
    assert ("routing/alarm" in found) == (possible > 0)
    assert possible or not signs.dead


def test_a_person_is_told_once_and_when_it_is_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = configured()
    net = dying(built(config))
    directory = RunDirectory(tmp_path)
    journal = FirstRankJournal(directory, config, net, load_index("embedded"), total_steps=100)
    with caplog.at_level(logging.INFO, logger="capsnet"):
        for step in (10, 20, 30):
            journal.observe(step, batch_of(config))
        for part in net.class_capsules.transform_parts:
            part.assign(part * 2e4)
        for step in (40, 50):
            journal.observe(step, batch_of(config))
    journal.close()
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in told] == ["WARNING", "INFO"]
    assert told[0][1].startswith("step 20: the network looks dead: couplings are uniform")
    assert told[1][1] == "step 40: the network is alive again"


def test_shares_of_dead_and_always_on_capsules(tmp_path: Path) -> None:
    config = configured(log__observe_records=3)
    net = alive(built(config))
    _, found = looked_at(tmp_path, config, net)
    batch = batch_of(config)
    trace = net(batch["image"][:3], trace=True).traces["class_capsules"]
    for side, capsules in (("children", trace.children), ("parents", trace.parents)):
        columns = [list(column) for column in capsules.activations_BN.numpy().T]
        dead = np.mean([all(value < 0.05 for value in column) for column in columns])
        on = np.mean([all(value > 0.5 for value in column) for column in columns])
        silent = np.mean([value < 0.05 for column in columns for value in column])
        assert found[f"capsules/class_capsules/dead_{side}"] == pytest.approx(dead)
        assert found[f"capsules/class_capsules/silent_{side}"] == pytest.approx(silent)
        assert found[f"capsules/class_capsules/always_on_{side}"] == pytest.approx(on)
