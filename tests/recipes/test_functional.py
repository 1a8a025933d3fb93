import keras
import numpy as np

from recipes.functional import Subclassed, build_model
from toolkit.drawing import draw_graph

INPUTS = dict(zip(("block", "neighbor"), np.random.default_rng(0).normal(size=(2, 5, 8)), strict=True))


def test_with_equal_weights_the_subclass_equals_the_graph_and_with_others_it_does_not():
    model, twin = build_model(), Subclassed()
    ours, theirs = model(INPUTS), twin(INPUTS)
    for name in ("price", "dear"):
        assert not np.allclose(ours[name], theirs[name])
    twin.set_weights(model.get_weights())
    theirs = twin(INPUTS)
    for name in ("price", "dear"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)


def test_the_shared_layer_is_counted_once_and_serves_both_inputs():
    model = build_model()
    describe, deep, price, dear = 8 * 64 + 64, 128 * 64 + 64, 72 + 1, 64 + 1
    assert model.count_params() == describe + deep + price + dear
    kernel, bias = model.get_layer("describe").get_weights()
    middle = keras.Model(model.inputs, model.get_layer("both").output)
    wanted = [np.maximum(INPUTS[name] @ kernel + bias, 0) for name in ("block", "neighbor")]
    np.testing.assert_allclose(middle(list(INPUTS.values())), np.hstack(wanted), rtol=1e-4, atol=1e-5)


def test_without_the_deep_path_the_price_is_linear_in_the_block_and_the_neighbor_does_not_count():
    model = build_model()
    deep = model.get_layer("deep")
    deep.set_weights([np.zeros_like(each) for each in deep.get_weights()])
    kernel, bias = model.get_layer("price").get_weights()
    np.testing.assert_allclose(
        model(INPUTS)["price"], INPUTS["block"] @ kernel[:8] + bias, rtol=1e-4, atol=1e-5
    )


def test_the_drawn_graph_shows_every_layer_and_both_calls_of_the_shared_one():
    model = build_model()
    texts = [text for text in draw_graph(model).texts if text.get_text()]
    names = {text.get_text(): text.get_text().removesuffix(" (called 2 times)") for text in texts}
    assert set(names.values()) == {layer.name for layer in model.layers}
    assert "describe (called 2 times)" in names
    name_at = {text.get_position(): names[text.get_text()] for text in texts}
    arrows = [text for text in draw_graph(model).texts if not text.get_text()]
    assert sorted((name_at[arrow.xyann], name_at[arrow.xy]) for arrow in arrows) == [
        ("block", "describe"),
        ("block", "wide_and_deep"),
        ("both", "deep"),
        ("deep", "dear"),
        ("deep", "wide_and_deep"),
        ("describe", "both"),
        ("describe", "both"),
        ("neighbor", "describe"),
        ("wide_and_deep", "price"),
    ]
