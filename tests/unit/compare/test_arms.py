"""Arms as they are typed, and the configuration that each becomes."""

from __future__ import annotations

import pytest

from trainer import config as configuration
from trainer import configs
from trainer.compare import arms
from trainer.compare.arms import Arm
from trainer.errors import ConfigError
from trainer.model import routing
from trainer.model.shapes import shapes


def names(text: str) -> list[str]:
    return [arm.name for arm in arms.parse([text], "quick")]


def test_names_controls_recipes_and_arms_of_ones_own() -> None:
    text = "dynamic, uniform,first,sabour2017,wide:model.stem.channels=16,32,64,model.head.pose=8,random"
    found = arms.parse([text], "quick")
    assert [arm.name for arm in found] == ["dynamic", "uniform", "first", "sabour2017", "wide", "random"]
    by_name = {arm.name: arm for arm in found}
    assert by_name["dynamic"] == Arm("dynamic", {"model.routing.algorithm": "dynamic"})
    assert by_name["first"].overrides == {"model.routing.iterations": "1"}
    assert by_name["sabour2017"] == Arm("sabour2017", recipe="sabour2017")
    assert by_name["wide"].overrides == {"model.stem.channels": "16,32,64", "model.head.pose": "8"}


def test_the_option_may_be_given_more_than_once() -> None:
    assert [arm.name for arm in arms.parse(["dynamic,uniform", "first"], "quick")] == ["dynamic", "uniform", "first"]


def test_a_value_may_hold_colons_and_equal_signs() -> None:
    (arm,) = arms.parse(["x:recipe=a:b=c"], "quick")
    assert arm.overrides == {"recipe": "a:b=c"}


WRONG = {
    "dynamc": r"unknown arm dynamc \(did you mean dynamic\?\)",
    "dynamic,dynamic": "dynamic is given twice",
    "x:model.routing.iteration=2": r"unknown field model.routing.iteration \(did you mean model.routing.iterations\?\)",
    "model.routing.iterations=2": "a field needs a name before it",
    "dynamic,model.routing.iterations=2": "a field needs a name before it",
    "x:y": "give NAME:field=value",
    "dynamic:model.routing.iterations=2": "dynamic is an arm already",
    "1x:model.routing.iterations=2": "a name is a letter",
    ":model.routing.iterations=2": "a field needs a name before it",
    "x:train.epochs=2": "train.epochs is the same for all arms; give it as --train.epochs",
    "x:data.augment.shift=2": "data.augment.shift is the same for all arms",
    "x:seed=2": "seed is the same for all arms",
    ",": "no arm; there are dynamic",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match=WRONG[text]):
        arms.parse([text], "quick")


def test_by_default_the_recipes_algorithm_is_first_and_none_is_left_out() -> None:
    found = arms.default("quick")
    assert found[0] == "dynamic"
    assert set(found) == {*routing.names(), *arms.CONTROLS}
    assert len(set(found)) == len(found)


def test_needs_belong_to_another_algorithm_than_the_recipes_only() -> None:
    (arm,) = arms.parse(["inverted"], "quick")
    assert arm.needs == {"loss.kind": "cross_entropy", "loss.scale": "1"}
    (derived,) = arms.parse(["two:model.routing.algorithm=inverted,model.routing.iterations=2"], "quick")
    assert derived.needs == arm.needs
    assert arms.config_of("quick", {}, derived, 0, False).loss.kind == "cross_entropy"
    assert set(arms.NEEDS) <= set(routing.names())


@pytest.mark.parametrize("recipe", ["quick_em", "quick_inverted", "quick_self_routing", "hinton2018"])
def test_arms_activated_by_length_train_as_such_in_recipes_that_are_not(recipe: str) -> None:
    own = configs.load(recipe).model.routing.algorithm
    for arm in arms.parse([",".join(arms.default(recipe))], recipe):
        config = arms.config_of(recipe, {}, arm, 0, False)
        shapes(config.model)
        assert (arm.needs == {}) == (arm.name == own or arm.name in arms.CONTROLS)
        if arm.name in ("dynamic", "uniform", "random", "self_attention"):
            assert (config.loss.kind, config.model.primary.nonlinearity) == ("margin", "squash")
            assert (config.model.primary.activation, config.model.head.coordinates) == ("length", False)
        if arm.name == "em" != own:
            assert (config.loss.kind, config.loss.scale) == ("cross_entropy", 10.0)


@pytest.mark.parametrize(
    ("recipe", "fields", "overlap", "scores"),
    [
        ("quick", {"loss.kind": "cross_entropy"}, False, "linear"),
        ("hinton2018", {}, False, "logistic"),
        ("hinton2018", {}, True, "linear"),  # spread loss knows one class only, a softmax two
        ("cifar10", {"loss.kind": "margin", "loss.label_smoothing": "0"}, False, "logistic"),
    ],
)
def test_scores_of_a_control_are_those_of_the_loss_that_is_laid_last(
    recipe: str, fields: dict[str, str], overlap: bool, scores: str
) -> None:
    (conv,) = arms.parse(["conv_parameters"], recipe)
    config = arms.config_of(recipe, fields, conv, 0, overlap)
    assert config.model.head.scores == scores
    given = arms.config_of(recipe, {**fields, "loss.scale": "3"}, conv, 0, overlap)
    assert given.loss.scale == 3.0


def test_a_control_gives_logits_where_the_loss_is_a_softmax() -> None:
    for recipe, scores, scale in (("quick", "logistic", 10.0), ("imagenet", "linear", 1.0)):
        conv, first = arms.parse(["conv_parameters", "first"], recipe)
        config = arms.config_of(recipe, {}, conv, 0, False)
        assert (config.model.head.scores, config.loss.scale) == (scores, scale)
        assert arms.config_of(recipe, {}, first, 0, False).loss == configs.load(recipe).loss


def test_what_counts_when_values_meet() -> None:
    """The recipe, then what an algorithm needs, then what is given for all, then what makes the arm."""
    (inverted,) = arms.parse(["inverted"], "quick")
    fields = {"loss.scale": "3", "model.routing.iterations": "2"}
    config = arms.config_of("quick", fields, inverted, 5, False)
    assert (config.loss.kind, config.loss.scale, config.model.routing.iterations) == ("cross_entropy", 3.0, 2)
    assert (config.seed, config.recipe) == (5, "quick")
    (first,) = arms.parse(["first"], "quick")
    assert arms.config_of("quick", fields, first, 0, False).model.routing.iterations == 1


def test_a_recipe_as_an_arm_keeps_data_and_budget_of_the_comparison() -> None:
    (arm,) = arms.parse(["sabour2017"], "quick")
    config, quick, own = (
        arms.config_of("quick", {}, arm, 1, False),
        configs.load("quick"),
        configs.load("sabour2017"),
    )
    assert (config.recipe, config.model, config.loss, config.optimizer) == (
        "sabour2017",
        own.model,
        own.loss,
        own.optimizer,
    )
    assert (config.data, config.train) == (quick.data, quick.train)


@pytest.mark.parametrize("name", [*routing.names(), *arms.CONTROLS])
def test_every_arm_becomes_a_configuration_with_and_without_scenes(name: str) -> None:
    (arm,) = arms.parse([name], "quick")
    plain, scenes = (arms.config_of("quick", {}, arm, 0, overlap) for overlap in (False, True))
    shapes(plain.model)
    shapes(scenes.model)
    assert (scenes.source_size, scenes.model.image_size, scenes.objects) == (28, 36, 2)
    assert (scenes.data.augment.shift, scenes.data.augment.flip) == (0, True)
    assert scenes.loss == plain.loss


def test_spread_loss_knows_one_class_only() -> None:
    (arm,) = arms.parse(["em"], "quick")
    plain, scenes = (arms.config_of("quick", {"loss.kind": "spread"}, arm, 0, overlap) for overlap in (False, True))
    assert (plain.loss.kind, scenes.loss.kind) == ("spread", "cross_entropy")


@pytest.mark.parametrize("recipe", configs.names())
def test_every_field_can_be_typed(recipe: str) -> None:
    config = configs.load(recipe)
    typed = {path: arms.typed(configuration.value_at(config, path)) for path, _ in configuration.leaves()}
    assert configuration.with_overrides(config, typed) == config


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("name", [*routing.names(), "first", "sabour2017", "none:model.decoder.hidden="])
def test_as_typed_a_configuration_is_the_same(name: str, overlap: bool) -> None:
    """A run is started with these words."""
    fields = {"optimizer.learning_rate": "0.0123456789", "storage.cache_bytes": "1MiB", "model.routing.xla": "false"}
    (arm,) = arms.parse([name], "quick")
    config = arms.config_of("quick", fields, arm, 7, overlap)
    again = configuration.with_overrides(configs.load(config.recipe), arms.fields_given(config))
    assert again == config


def test_what_does_not_fit_names_the_arm() -> None:
    (arm,) = arms.parse(["x:model.routing.iterations=0"], "quick")
    with pytest.raises(ConfigError, match=r"^arm x: model.routing.iterations: .*given: '0'"):
        arms.config_of("quick", {}, arm, 0, False)
