from pathlib import Path

import pytest

from trainer import config as c
from trainer.errors import ConfigError


def test_every_field_says_what_it_is() -> None:
    assert [path for path, field in c.leaves() if path != "recipe" and not field.description] == []


def test_a_dumped_configuration_loads_as_the_same(tmp_path: Path) -> None:
    config = c.with_overrides(c.RunConfig(), {"model.stem.channels": "8,16", "model.stem.strides": "1,2", "seed": "3"})
    path = tmp_path / "config.json"
    path.write_text(c.dump(config))
    assert c.load(path) == config


def test_overrides_are_typed_and_validated() -> None:
    config = c.with_overrides(
        c.RunConfig(), {"model.routing.iterations": "2", "data.augment.flip": "true", "train.epochs": "0.5"}
    )
    assert (config.model.routing.iterations, config.data.augment.flip, config.train.epochs) == (2, True, 0.5)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.routing.iteratons", "2", r"unknown field .* \(did you mean model\.routing\.iterations\?\)"),
        ("iterations", "2", r"did you mean model\.routing\.iterations"),
        ("model.routing.iterations", "0", r"model\.routing\.iterations: .* greater than or equal to 1 \(given: '0'\)"),
        ("model.routing.iterations", "two", r"model\.routing\.iterations: .* \(given: 'two'\)"),
        ("model.routing.algorithm", "dynamc", r"'dynamic'.* or '\w+' \(given: 'dynamc'\)"),
        ("train.global_batch_size", "100", r"global_batch_size 100 is not a multiple of data\.lanes 8"),
        ("model.stem.strides", "0", r"model\.stem\.strides: .* greater than or equal to 1 \(given: '0'\)"),
        ("model.stem.channels", "-3", r"model\.stem\.channels: .* greater than or equal to 1 \(given: '-3'\)"),
        ("model.decoder.hidden", "8,0", r"model\.decoder\.hidden: .* greater than or equal to 1 \(given: '0'\)"),
        ("optimizer.decay_epochs", "0", r"optimizer\.decay_epochs: .* greater than 0 \(given: '0'\)"),
        ("train.epochs", "inf", r"train\.epochs: .* a finite number \(given: 'inf'\)"),
        ("train.xla", "foo", r"line: train\.xla: Input should be 'auto' or a valid boolean \(given: 'foo'\)$"),
        ("model.stem.channels", "3,4", r"strides has 1 values and channels 2"),
        ("optimizer.schedule", "step", r"decay_epochs needs at least one value"),
    ],
)
def test_wrong_values_are_one_line_with_the_field(path: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        c.with_overrides(c.RunConfig(), {path: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"model": {"clases": 3}}', r"unknown field \(did you mean model\.classes"),
        (None, "run dir"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_name(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        c.load(path)
    assert str(path) in str(caught.value)


FIELDS = [path for path, _ in c.leaves()]


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("primary.kernel", "model.primary.kernel"),
        ("kernel", "model.stem.kernel or model.primary.kernel"),
        ("every_steps", "checkpoint.every_steps, log.every_steps or log.observe_every_steps"),
        ("batch-size", "train.global_batch_size or evaluate.batch_size"),
        ("lr", "optimizer.learning_rate"),
        ("kernl", "model.stem.kernel or model.primary.kernel"),
        ("version", ""),
    ],
)
def test_what_was_meant(typed: str, near: str) -> None:
    assert c.nearest(typed, FIELDS) == (f" (did you mean {near}?)" if near else "")


def test_differences_know_what_changes_the_meaning() -> None:
    old = c.RunConfig()
    new = c.with_overrides(old, {"train.epochs": 20, "optimizer.learning_rate": 0.1})
    assert c.differences(old, new) == [
        ("optimizer.learning_rate", 0.001, 0.1, False),
        ("train.epochs", 10.0, 20.0, True),
    ]


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        c.RunConfig().seed = 1  # type: ignore[misc]
