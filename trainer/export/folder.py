"""What ``capsnet export`` writes: a folder that is whole, or not there.

model/
  README.md                      for whoever gets the folder
  model.keras                    Keras model
  saved_model.pb, variables/     SavedModel: the folder itself
  classes.json                   names of the classes, by label
  run.json                       configuration of the run
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from trainer import checkpoint
from trainer import config as configuration
from trainer.checkpoint import Checkpoint
from trainer.config import RunConfig
from trainer.data import index as data_index
from trainer.errors import ConfigError, DataError
from trainer.rundir import RunDirectory

README, KERAS, SAVED_MODEL, CLASSES, RUN = "README.md", "model.keras", "saved_model.pb", "classes.json", "run.json"
FORMATS = ("both", "keras", "saved_model")


def export(
    run: Path,
    destination: Path,
    which: str = "best",
    formats: str = "both",
    say: Callable[[str], None] = print,
    before_it_appears: Callable[[], None] = lambda: None,
    shown: str = "",
) -> None:
    """Writes the network of a checkpoint for people without this package; see ``about.py`` for what they are told.

    What is written is read back and compared with the network. Where a network cannot be a Keras model, ``both`` says
    so and writes the SavedModel.

    Args:
        formats: one of FORMATS.
        say: takes lines for a person.
        before_it_appears: called when all is written and checked; if it raises, nothing is left.
        shown: what a person calls the run, where that is not its path.

    Raises:
        ConfigError: the destination exists or cannot be written; ``keras`` is asked for and cannot be had.
        CheckpointError: there is no such checkpoint.
        DataError: the data set, which has the names of the classes, is not there or is another.
        CapsnetError: what was written is not the network.
    """
    if str(destination).startswith("gs:"):
        raise ConfigError(f"{destination}: exports go to a local folder; copy it from there")
    if os.path.lexists(destination):
        raise ConfigError(f"{destination}: exists; choose another folder or remove it")
    directory = RunDirectory(run, shown)
    found = checkpoint.choose(directory.checkpoints, which, say)
    config = configuration.validated(json.loads(found.config), str(found.path))
    names = data_index.label_names(data_index.load_index(config.data.uri, config.storage), config)
    if len(names) != config.model.classes:
        raise DataError(f"{config.data.uri}: has {len(names)} classes, the network {config.model.classes}: other data")
    temporary = destination.with_name(f".writing-{destination.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    try:
        temporary.mkdir(parents=True)
        say(f"{directory.shown}: step {found.state.step}")
        _write(temporary, shown or run.resolve().name, found, config, names, formats, say)
        before_it_appears()
        os.rename(temporary, destination)
    except OSError as error:
        raise ConfigError(f"{destination}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    folder: Path,
    run: str,
    found: Checkpoint,
    config: RunConfig,
    names: Sequence[str],
    formats: str,
    say: Callable[[str], None],
) -> None:
    from trainer import runtime

    runtime.import_tensorflow()
    from trainer.export import about, archive, check, keras_model, saved_model
    from trainer.export.copies import DTYPE
    from trainer.weights import network_of

    runtime.set_up_beside()
    without_keras = keras_model.why_not(config.model)
    if without_keras and formats != "saved_model":
        if formats == "keras":
            raise ConfigError(f"no Keras model: {without_keras}; use --format saved_model")
        say(f"no Keras model: {without_keras}")
    has_keras = formats in ("both", "keras") and not without_keras
    has_saved = formats in ("both", "saved_model")

    single = config.model_copy(update={"train": config.train.model_copy(update={"precision": DTYPE})})
    net = network_of(single, found)
    images_BHWC = check.images(config)
    expected_BJ = check.network_scores(config, net, images_BHWC)
    if has_keras:
        keras_model.build(config, net).save(folder / KERAS)
        archive.make_portable(folder / KERAS)
        difference = check.keras_difference(folder / KERAS, images_BHWC, expected_BJ)
        say(_line(KERAS, [folder / KERAS], difference))
    if has_saved:
        saved_model.save(config, net, folder)
        difference = check.saved_model_difference(folder, images_BHWC, expected_BJ)
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != KERAS]
        say(_line("SavedModel", files, difference))
    (folder / CLASSES).write_text(json.dumps(list(names)) + "\n")
    (folder / RUN).write_text(found.config)
    text = about.readme(config, found, run, len(names), has_keras=has_keras, has_saved=has_saved)
    (folder / README).write_text(text)
    say(f"{README:<12} inputs, outputs, how to load; {CLASSES}, {RUN}")


def _line(name: str, files: Sequence[Path], difference: float) -> str:
    size = sum(file.stat().st_size for file in files)
    return f"{name:<12} {size / 1e6:,.1f} MB, scores within {difference:.0e} of the network's"
