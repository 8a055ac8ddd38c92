"""What the command says about itself, at 80 columns: read by people who see it for the first time."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from trainer import cli, configs
from trainer.errors import CapsnetError
from trainer.parsing import field_values

ROOT = Path(__file__).parents[2]
COLUMNS = 80


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """It and all below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from commands(below)


LONGEST = max(configs.names(), key=len)
PARSERS = {parser.prog: parser for parser in commands(cli._parser(["train", LONGEST]))}


@pytest.mark.parametrize("prog", PARSERS)
def test_no_line_of_a_help_is_too_long(prog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    assert [line for line in PARSERS[prog].format_help().splitlines() if len(line) > COLUMNS] == []


@pytest.mark.parametrize("prog", PARSERS)
def test_every_argument_is_explained_and_shows_its_default(prog: str) -> None:
    for action in PARSERS[prog]._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        assert action.help, action.dest
        if action.default not in (None, False, [], argparse.SUPPRESS):
            assert "(default: " in action.help, action.dest


def test_a_field_shows_its_choices_and_one_that_may_be_true_is_a_switch() -> None:
    said = PARSERS["capsnet train"].format_help()
    for shown in ("--train.xla [{auto,true,false}]", "--model.channels {1,3}", "--model.routing.xla [true|false]"):
        assert shown in said
    parsed = cli._parsed(["train", "--train.xla", "--model.routing.xla=false"])
    assert field_values(parsed) == {"train.xla": "true", "model.routing.xla": "false"}


@pytest.mark.parametrize("prog", PARSERS)
def test_examples_can_be_typed(prog: str) -> None:
    epilog = (PARSERS[prog].epilog or "").replace("\\\n", " ")
    for line in re.findall(r"^ +(?:[A-Z_]+=\S+ )*capsnet (.*)$", epilog, re.MULTILINE):
        words = shlex.split(re.split(r" {3}| \| | > ", line)[0], comments=True)
        with contextlib.suppress(SystemExit):  # of --help
            cli._parsed(words)


def test_the_list_of_recipes_fits_and_says_what_each_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if len(line) > COLUMNS] == []
    rows = {line.split()[0]: line.split()[1] for line in said.splitlines()[1 : 1 + len(configs.names())]}
    assert rows == {name: configs.load(name).data.uri for name in configs.names()}
    assert f"(default: {configs.DEFAULT})" in said


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"capsnet {version('capsnet')}\n"


def test_no_line_of_make_help_is_too_long() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line for line in said.splitlines() if len(line) > COLUMNS] == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("trian", "unknown command trian (did you mean train?); 'capsnet --help' lists all"),
        ("data prepaer", "unknown command prepaer (did you mean prepare?); 'capsnet data --help' lists all"),
        ("recipes more", "unexpected more; see 'capsnet recipes --help'"),
        ("predict a b --chekpoint 3", "--chekpoint (did you mean --checkpoint?); see 'capsnet predict --help'"),
        ("train --lr 1", "unknown option --lr (did you mean --optimizer.learning_rate?)"),
        ("train --batch-size 1", "(did you mean --train.global_batch_size or --evaluate.batch_size?)"),
        ("train quick epochs=3", "a field is given as --name value (did you mean --train.epochs?)"),
        ("compare --routnig em", "(did you mean --routing?); see 'capsnet compare --help'"),
        ("train --ranks 2", "--ranks stands before train: capsnet launch --ranks N train ..."),
        ("launch", "the following arguments are required: command; see"),
        ("train --run gs://", "gs://: names no bucket; give gs://BUCKET/..."),
        ("compare --output gs://b/c", "gs://b/c: cannot be used here"),
        ("probe run --output s3://b/c", "s3://b/c: cannot be used here; give a local folder or gs://BUCKET/..."),
    ],
)
def test_what_is_mistyped_is_one_line_with_what_was_meant(typed: str, said: str) -> None:
    with pytest.raises(CapsnetError, match=re.escape(said)) as caught:
        cli._parsed(typed.split())
    assert "\n" not in str(caught.value)
