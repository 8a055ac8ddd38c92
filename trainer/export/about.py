"""README.md of an export: what a person needs who has nothing but the folder.

Axes as there: B batch, H W image, C channels, J classes, Q class pose size.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from trainer.checkpoint import Checkpoint
from trainer.config import ModelConfig, RunConfig
from trainer.data.augment import CENTRAL_SIDE
from trainer.model.shapes import shapes

OLDEST_KERAS = "3.4"  # that reads the file: see archive.py
FLOAT32_BYTES = 4

KERAS = """\
```python
import json, keras, numpy as np
model = keras.models.load_model("model.keras")
images = np.zeros([{shape}], np.uint8)  # yours
outputs = model.predict(images)
print(json.load(open("classes.json"))[outputs["label"][0]])
```

Its weights are ordinary Keras variables. To train on, take the scores alone:

```python
scores = keras.Model(model.inputs, model.output["class_scores"])
scores.compile("adam", loss="mse")
scores.fit(images, np.eye({classes})[[0]])  # with class numbers in place of [0]
```

It keeps the votes of all capsules in memory: {votes} a record, and two to four times that at the peak.
"""

SAVED_MODEL = """\
```python
import json, numpy as np, tensorflow as tf
model = tf.saved_model.load(".").signatures["serving_default"]
images = np.zeros([{shape}], np.uint8)  # yours
outputs = model(images=tf.constant(images))
print(json.load(open("classes.json"))[outputs["label"][0]])
```

Its signature `serving_default` has the input and the outputs above, so that TensorFlow Serving takes the folder too.
"""


def readme(config: RunConfig, found: Checkpoint, run: str, classes: int, *, has_keras: bool, has_saved: bool) -> str:
    """The text, in Markdown."""
    model = config.model
    facts = {
        "shape": ", ".join(map(str, (1, model.image_size, model.image_size, model.channels))),
        "classes": classes,
        "votes": f"{_votes_bytes(model) / 1e6:.1f} MB",
    }
    parts = [
        f"# {config.recipe or 'A network'}: an image classifier with {classes} classes\n",
        _origin(config, found, run),
        _files(has_keras, has_saved),
        "## Input and outputs\n",
        _input(config),
        _outputs(config),
    ]
    if has_keras:
        parts += ["## Keras\n", KERAS.format(**facts)]
    if has_saved:
        parts += ["## SavedModel\n", SAVED_MODEL.format(**facts)]
    return "\n".join([*parts, "## Versions\n", _versions(has_keras, has_saved)])


def _origin(config: RunConfig, found: Checkpoint, run: str) -> str:
    state = found.state
    accuracy = "was not measured at this step"
    if state.test_accuracy is not None and state.evaluated_step == state.step:
        accuracy = f"{100 * state.test_accuracy:.2f} %"
    computed = "" if config.train.precision == "float32" else f", trained in {config.train.precision}"
    return (
        f"Exported from step {state.step:,} of the run `{run}`. Test accuracy there: {accuracy}.\n"
        f"Computes in float32{computed}. The whole configuration of the run is in `run.json`.\n"
    )


def _files(has_keras: bool, has_saved: bool) -> str:
    rows = ["| file | |", "|---|---|"]
    if has_keras:
        rows.append("| `model.keras` | Keras model of built-in layers; loads without any other code |")
    if has_saved:
        rows.append("| `saved_model.pb`, `variables/` | the same network as a TensorFlow SavedModel: this folder |")
    rows.append("| `classes.json` | names of the classes, by label |")
    rows.append("| `run.json` | configuration of the run |")
    return "\n".join(rows) + "\n"


def _input(config: RunConfig) -> str:
    size, channels, resize = config.model.image_size, config.model.channels, config.data.augment.resize
    colour = "RGB" if channels == 3 else "gray"
    sizes = {
        "none": f"H = W = {size}",
        "crop": f"H and W at least {size}, of which the central {size}×{size} pixels are taken",
        "whole": f"any H and W: the whole is resized to {size}×{size}",
        "random_resized_crop": f"any H and W: the central square of {CENTRAL_SIDE:.1%} of the shorter side is resized "
        f"to {size}×{size}",
    }
    count = config.objects
    objects = (
        f"In each image {count} classes are present: those with the {count} largest scores.\n" if count > 1 else ""
    )
    return (
        f"`images`: uint8 [B, H, W, {channels}], {colour}, 0 to 255 as they come from a file; any B; {sizes[resize]}.\n"
        f"Nothing is to be done to them before: that is in the model.\n{objects}"
    )


def _outputs(config: RunConfig) -> str:
    model = config.model
    of_class = model.head.pose if model.head.kind == "capsules" or model.decoder.hidden else 1
    rows = [
        "| output | | |",
        "|---|---|---|",
        f"| `class_scores` | float32 [B, {model.classes}] | {_meaning(model)} |",
        "| `label` | int32 [B] | the class with the largest score |",
        f"| `poses` | float32 [B, {model.classes}, {of_class}] | the class capsules |",
    ]
    if model.decoder.hidden:
        size = f"{model.image_size}, {model.image_size}, {model.channels}"
        rows.append(f"| `reconstruction` | float32 [B, {size}] | the image as `label`'s capsule alone has it, 0 to 1 |")
    loss = config.loss
    if loss.kind == "cross_entropy":
        factor = "" if loss.scale == 1 else f"{loss.scale:g} "
        rows += ["", f"The softmax of {factor}`class_scores` are the probabilities that were trained for."]
    return "\n".join(rows) + "\n"


def _meaning(model: ModelConfig) -> str:
    if model.head.kind != "capsules":
        return "0 to 1" if model.head.scores == "logistic" else "logits, without bounds"
    return {
        "em": "activations of the class capsules, 0 to 1",
        "self_routing": "shares of the classes, 0 to 1",
        "inverted": "logits, without bounds",
    }.get(model.routing.algorithm, "lengths of the class capsules, 0 to 1; they need not sum to 1")


def _versions(has_keras: bool, has_saved: bool) -> str:
    lines = []
    if has_keras:
        lines.append(
            f"`model.keras` needs Keras {OLDEST_KERAS} or newer, on TensorFlow or JAX; written by {keras.__version__}. "
            "It holds no code: leave `safe_mode` on."
        )
    if has_saved:
        lines.append(f"The SavedModel needs TensorFlow 2; written by {tf.__version__}, tried with 2.16 to 2.20.")
    return "\n".join(lines) + "\n"


def _votes_bytes(model: ModelConfig) -> int:
    """Of one record, in all capsule layers."""
    if model.head.kind != "capsules":
        return 0
    sizes = shapes(model)
    votes = sizes.children * model.classes * model.head.pose
    votes += sum(
        layer.side**2 * layer.sizes.children * layer.sizes.parents * layer.sizes.pose for layer in sizes.layers
    )
    return FLOAT32_BYTES * votes
