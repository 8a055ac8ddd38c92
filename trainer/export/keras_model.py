"""A network as a Keras model of built-in layers and operations, which ``keras.models.load_model`` reads anywhere.

Axes: B batch, H W image, C channels, J classes, Q class pose size.
"""

from __future__ import annotations

import keras
from keras import ops

from trainer.config import ModelConfig, RoutingConfig, RunConfig
from trainer.errors import CapsnetError
from trainer.export import capsules, head, preprocessing, stem
from trainer.export.copies import Copies
from trainer.export.routing import ROUTES
from trainer.model.network import CapsNet
from trainer.model.routing import Capsules


def why_not(config: ModelConfig) -> str | None:
    """Why a network has no Keras model, or None where it has."""
    algorithm = config.routing.algorithm
    if config.head.kind == "capsules" and algorithm not in ROUTES:
        return f"trainer/export/routing/ has no {algorithm}"
    return None


def build(config: RunConfig, net: CapsNet) -> keras.Model:
    """uint8 images [B, H, W, C] to class_scores, label, poses and, with a decoder, reconstruction.

    Weights are the network's, and trainable. A weight that no output depends on (as that of activations which the
    algorithm does not read) is not in the model.

    Raises:
        CapsnetError: a weight of the network would be left behind.
    """
    model, resize = config.model, config.data.augment.resize
    images_BHWC = preprocessing.images_input(model.image_size, model.channels, resize)
    copies = Copies(one_1=ops.ones_like(images_BHWC[:1, 0, 0, 0], dtype="float32"))
    fitted_BHWC = preprocessing.fitted(images_BHWC, model.image_size, resize)
    features_BHWC = stem.features(copies, net.stem, fitted_BHWC)
    if net.control is not None:
        found = head.control(copies, net.control, features_BHWC)
    else:
        found = _class_capsules(copies, net, capsules.primary(copies, net.primary, model.primary, features_BHWC))
    label_B = ops.argmax(found.activations_BN, axis=-1)
    outputs = {"class_scores": found.activations_BN, "label": label_B, "poses": found.poses_BNP}
    if net.decoder is not None:
        outputs["reconstruction"] = head.reconstruction(copies, net.decoder, found.poses_BNP, label_B)
    left = sorted({weight.path for weight in net.weights} - copies.placed)
    if left:
        raise CapsnetError(f"the Keras model would be without {', '.join(left)}; use --format saved_model")
    return keras.Model(images_BHWC, outputs, name="capsnet")


def _class_capsules(copies: Copies, net: CapsNet, primary: Capsules) -> Capsules:
    layers = [capsules.copied(copies, layer) for layer in [*net.capsule_layers, net.class_capsules]]
    routing = net.class_capsules.routing
    if routing.algorithm == "inverted" and routing.concurrent:
        return _concurrent(layers, primary, routing)
    found = primary
    for layer in layers:
        found = capsules.route(layer, found)
    return found


def _concurrent(layers: list[capsules.Layer], primary: Capsules, routing: RoutingConfig) -> Capsules:
    """See ``model/concurrent.py``: after a first pass each iteration routes all layers from what the last one left."""
    once = routing.model_copy(update={"iterations": 1})
    states: list[Capsules | None] = [primary, *[None] * len(layers)]
    for iteration in range(routing.iterations):
        before, states = states, [primary]
        for number, layer in enumerate(layers):
            children = (states if iteration == 0 else before)[number]
            assert children is not None
            states.append(capsules.route(layer, children, start=before[number + 1], config=once))
    last = states[-1]
    assert last is not None
    return last
