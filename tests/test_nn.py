"""Modules, state, the GPT, attaching LoRA, merging, removing."""

import numpy as np
import pytest

from lora_np import lora as L
from lora_np.models import GPT, GPTConfig, load_model, save_model
from lora_np.nn import (
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    LoraConfig,
    Module,
    Parameter,
    attach_lora,
    lora_layers,
    merge_lora,
    print_trainable_parameters,
    recompute,
    remove_lora,
    unmerge_lora,
)
from lora_np.nn.adapt import count_parameters, find_targets
from lora_np.numerics import certify
from lora_np.tape import Tensor, no_grad

SMALL = GPTConfig(vocab_size=11, n_positions=8, n_embd=12, n_layer=2, n_head=3)


def rng(seed=0):
    return np.random.default_rng(seed)


def gpt(dtype=np.float64, **changes):
    return GPT(GPTConfig(**{**SMALL.as_dict(), **changes}), rng(1), dtype)


def ids(batch=2, time=6, seed=2):
    return rng(seed).integers(0, 11, (batch, time))


def config(**changes):
    return LoraConfig(
        **{"r": 3, "lora_alpha": 5, "target_modules": ["c_attn"], **changes}
    )


def shake(model, seed=4):
    """Give every trainable parameter random values, so that B ≠ 0."""
    for p in model.trainable().values():
        p.data += 0.3 * rng(seed).normal(size=p.shape)
        seed += 1


def logits(model):
    with no_grad():
        return model.logits(ids()).data


# ---- Module


def test_names_are_gpt2s():
    names = [n for n, _ in gpt().named_parameters()]
    assert names[:3] == ["wte.weight", "wpe.weight", "h.0.ln_1.weight"]
    assert "h.1.attn.c_attn.bias" in names and "h.0.mlp.c_fc.weight" in names
    assert "lm_head.weight" not in names  # tied
    assert "lm_head.weight" in dict(gpt(tie_word_embeddings=False).named_parameters())


def test_tied_parameters_are_listed_once():
    class Twice(Module):
        def __init__(self):
            self.a = Parameter(np.ones(2))
            self.b = self.a

    assert [n for n, _ in Twice().named_parameters()] == ["a"]
    with pytest.raises(NotImplementedError, match="Twice has no forward"):
        Twice()(1)


def test_strict_load_lists_everything_and_changes_nothing():
    model = gpt()
    state = model.state_dict()
    before = state["wte.weight"].copy()
    del state["ln_f.bias"]
    state["extra"] = np.ones(1)
    state["wpe.weight"] = np.ones((3, 3))
    state["wte.weight"] = 0 * before
    with pytest.raises(KeyError) as error:
        model.load_state_dict(state)
    for piece in ("missing: ln_f.bias", "unexpected: extra", "wpe.weight is (3, 3)"):
        assert piece in error.value.args[0]
    assert np.array_equal(model.state_dict()["wte.weight"], before)
    model.load_state_dict(gpt(np.float32).state_dict())  # keeps its own dtype
    assert model.wte.weight.dtype == np.float64


def test_train_and_eval_reach_every_module():
    model = gpt(dropout=0.5)
    assert all(m.training for _, m in model.named_modules())
    model.eval()
    assert not any(m.training for _, m in model.named_modules())
    a, b = logits(model), logits(model)
    assert np.array_equal(a, b)
    model.train()
    with pytest.raises(ValueError, match="needs rng"):
        model.logits(ids())
    assert not np.array_equal(
        model.logits(ids(), rng(0)).data, model.logits(ids(), rng(1)).data
    )


def test_layers_by_themselves():
    x = Tensor(rng().normal(size=(4, 3)))
    assert Linear(3, 2, rng(), bias=False)(x).shape == (4, 2)
    np.testing.assert_allclose(
        LayerNorm(3, dtype=np.float64)(x).data.mean(1), 0, atol=1e-12
    )
    assert Embedding(5, 2, rng())(np.array([0, 4])).shape == (2, 2)
    with pytest.raises(ValueError, match="at 1 nothing passes"):
        Dropout(1.0)
    with pytest.raises(ValueError, match="n_head"):
        gpt(n_head=5)


# ---- GPT


def test_gpt_gradient_is_certified():
    """The whole model as one function of a few of its parameters."""
    model = gpt(n_kv_head=1)
    shake(model)
    target = ids(seed=3)
    target[0, 1] = -100
    chosen = [
        "wte.weight",
        "h.0.attn.c_attn.weight",
        "h.1.mlp.c_proj.bias",
        "ln_f.weight",
    ]
    own = dict(model.named_parameters())

    def f(a, b, c, d):
        for name, value in zip(chosen, (a, b, c, d), strict=True):
            own[name].data = value
        with_graph = model.loss(ids(), target)
        return with_graph.data, with_graph

    def backward(dy, loss):
        model.zero_grad()
        loss.backward(np.asarray(dy))
        return tuple(own[n].grad for n in chosen)

    inputs = [own[n].data.copy() for n in chosen]
    assert certify(
        f, backward, inputs, rng=rng(), analytic="covered pair by pair"
    ).passed


def test_loss_equals_cross_entropy_of_logits():
    from lora_np.functional import cross_entropy

    model, target = gpt(), ids(seed=5)
    want, _ = cross_entropy(model.logits(ids()).data, target.reshape(-1))
    np.testing.assert_allclose(model.loss(ids(), target).data, want, rtol=1e-13)


def test_the_model_is_causal():
    model, a = gpt(), ids()
    b = a.copy()
    b[:, 4:] = (b[:, 4:] + 1) % 11
    x, y = (model.logits(i).data.reshape(2, 6, 11) for i in (a, b))
    assert np.array_equal(x[:, :4], y[:, :4]) and not np.array_equal(x[:, 4:], y[:, 4:])


def test_bad_ids_and_lengths():
    model = gpt()
    with pytest.raises(IndexError, match="got 11 at position 3"):
        model.logits(np.array([[0, 1, 2, 11]]))
    with pytest.raises(TypeError, match="integers"):
        model.logits(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="9 positions do not fit"):
        model.logits(np.zeros((1, 9), int))
    with pytest.raises(ValueError, match="batch of one"):
        model.logits(np.zeros(3, int))
    with pytest.raises(ValueError, match="one target an id"):
        model.loss(ids(), ids()[:, :3])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_gives_the_same_gradients(dropout):
    """Dropout masks are replayed: the same bits, and the generator ends alike."""
    results = []
    for checkpoint in (False, True):
        model = gpt(dropout=dropout)
        model.checkpoint_blocks = checkpoint
        attach_lora(model, config(lora_dropout=dropout, bias="all"), rng(3))
        shake(model)
        g = rng(7)
        loss = model.loss(ids(), ids(seed=3), rng=g)
        loss.backward()
        grads = {n: p.grad for n, p in model.trainable().items()}
        results.append((float(loss.data), grads, g.random()))
    (l1, g1, r1), (l2, g2, r2) = results
    assert l1 == l2 and r1 == r2 and set(g1) == set(g2) and len(g1) > 4
    for n in g1:
        assert np.array_equal(g1[n], g2[n]), n


def test_checkpointing_that_draws_new_masks_would_be_noticed(monkeypatch):
    import sys

    from lora_np.nn import recompute as module_function
    from lora_np.nn.recompute import recompute as function

    module = sys.modules[function.__module__]
    monkeypatch.setattr(module, "_replay", lambda block, x, rng, state: block(x, rng))
    assert module_function is function
    grads = []
    for checkpoint in (False, True):
        model = gpt(dropout=0.5)
        model.checkpoint_blocks = checkpoint
        model.loss(ids(), ids(seed=3), rng=rng(7)).backward()
        grads.append(model.wte.weight.grad)
    assert not np.allclose(*grads)


def test_recompute_without_gradients():
    with no_grad():
        assert recompute(lambda x, r: x * 2.0, Tensor(np.ones(1))).node is None
    y = recompute(lambda x, r: x * 2.0, Tensor(np.ones(1)))  # nothing inside is trained
    y.backward()


# ---- attach


def test_attach_freezes_all_but_the_factors():
    model = gpt()
    assert attach_lora(model, config(), rng()) == ["h.0.attn.c_attn", "h.1.attn.c_attn"]
    assert list(model.trainable()) == [
        f"h.{i}.attn.c_attn.lora_{f}" for i in (0, 1) for f in "AB"
    ]
    r, (out, inside) = 3, (36, 12)
    assert count_parameters(model)[0] == 2 * r * (out + inside)


def test_output_is_unchanged_at_the_start_and_gradients_follow():
    for extra in ({}, {"use_rslora": True}, {"use_dora": True},
                  {"init_lora_weights": "gaussian"}, {"target_modules": "all-linear"},
                  {"target_modules": ["wte"]}):  # fmt: skip
        model = gpt()
        base = logits(model)
        attach_lora(model, config(**extra), rng())
        np.testing.assert_allclose(logits(model), base, rtol=1e-12, atol=1e-13)
        model.loss(ids(), ids(seed=3)).backward()
        first = {n: bool(p.grad.any()) for n, p in model.trainable().items()}
        moving = "lora_A" if "wte" in extra.get("target_modules", "") else "lora_B"
        assert all(v for n, v in first.items() if moving in n or "magnitude" in n)
        still = {"lora_A": "lora_B", "lora_B": "lora_A"}[moving]
        assert not any(v for n, v in first.items() if still in n)
    model = gpt()
    attach_lora(model, config(init_lora_weights=False), rng())
    assert not np.allclose(logits(model), base)


def test_frozen_weights_get_no_gradient_and_do_not_move():
    from lora_np.training import AdamW

    model = gpt()
    before = model.state_dict()
    attach_lora(model, config(), rng())
    optimizer = AdamW(list(model.trainable().values()), lr=0.1)
    start = {n: p.data.copy() for n, p in model.trainable().items()}
    for _ in range(2):
        optimizer.zero_grad()
        model.loss(ids(), ids(seed=3)).backward()
        optimizer.step()
    assert all(p.grad is None for n, p in model.named_parameters() if "lora_" not in n)
    assert all(
        not np.array_equal(p.data, start[n]) for n, p in model.trainable().items()
    )
    remove_lora(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[n], before[n]) for n in before)


def test_target_patterns():
    model = gpt()
    assert find_targets(model, ["attn.c_proj"]) == [
        "h.0.attn.c_proj",
        "h.1.attn.c_proj",
    ]
    assert len(find_targets(model, ["c_proj"])) == 4
    assert find_targets(model, r"h\.1\.mlp\..*") == ["h.1.mlp.c_fc", "h.1.mlp.c_proj"]
    assert len(find_targets(model, "all-linear")) == 8
    assert find_targets(model, ["wte", "h.0.mlp.c_fc"]) == ["wte", "h.0.mlp.c_fc"]
    with pytest.raises(ValueError, match="'q_proj'.*h.0.attn.c_attn, h.0.attn.c_proj"):
        find_targets(model, ["c_attn", "q_proj"])
    with pytest.raises(ValueError, match="'attn'"):
        find_targets(model, ["attn"])  # a module, but none that can be adapted
    untied = gpt(tie_word_embeddings=False)
    assert "lm_head" not in find_targets(untied, "all-linear")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"r": 0}, "r must be 1"),
        ({"lora_dropout": 1.0}, "less than 1"),
        ({"lora_dropout": -0.1}, "at least 0"),
        ({"bias": "some"}, "bias must be one of"),
        ({"target_modules": []}, "target_modules is empty"),
        ({"target_modules": None}, "target_modules is empty"),
        ({"init_lora_weights": "zeros"}, "never train"),
        ({"init_lora_weights": "pissa"}, "one of"),
        ({"use_dora": True, "lora_dropout": 0.1}, "not offered"),
        ({"lora_alpha": float("inf")}, "finite"),
    ],
)
def test_config_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_attach_errors_leave_the_model_alone():
    model = gpt()
    with pytest.raises(ValueError, match="nothing is called"):
        attach_lora(model, config(target_modules=["nope"]), rng())
    with pytest.raises(ValueError, match="wte is none"):
        attach_lora(
            model, config(target_modules=["c_attn", "wte"], use_dora=True), rng()
        )
    assert all(p.requires_grad for p in model.parameters()) and not lora_layers(model)
    for f in (merge_lora, unmerge_lora, remove_lora):
        with pytest.raises(RuntimeError, match="no adapter is attached"):
            f(model)
    attach_lora(model, config(), rng())
    with pytest.raises(RuntimeError, match="attached already"):
        attach_lora(model, config(), rng())


@pytest.mark.parametrize("bias, expected", [("none", 0), ("lora_only", 2), ("all", 13)])
def test_bias_modes_and_their_return(bias, expected):
    model = gpt()
    base = logits(model)
    attach_lora(model, config(bias=bias), rng())
    biases = [n for n in model.trainable() if n.endswith("bias")]
    assert len(biases) == expected
    if bias == "lora_only":
        assert all("c_attn.base_layer" in n for n in biases)
    shake(model)
    trained = logits(model)
    assert not np.allclose(trained, base)
    merge_lora(model)
    np.testing.assert_allclose(logits(model), trained, rtol=1e-10, atol=1e-11)
    remove_lora(model)
    np.testing.assert_allclose(logits(model), base, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("extra", [{}, {"use_rslora": True}, {"use_dora": True},
                                   {"target_modules": "all-linear"},
                                   {"target_modules": ["wte", "c_fc"]}])  # fmt: skip
def test_merge_unmerge_and_keep(extra):
    model = gpt()
    base = logits(model)
    attach_lora(model, config(**extra), rng())
    shake(model)
    apart = logits(model)
    assert np.abs(apart - base).max() > 1e-3
    merge_lora(model)
    np.testing.assert_allclose(logits(model), apart, rtol=1e-10, atol=1e-11)
    with pytest.raises(RuntimeError, match="merged already"):
        merge_lora(model)
    unmerge_lora(model)
    np.testing.assert_allclose(logits(model), apart, rtol=1e-10, atol=1e-11)
    with pytest.raises(RuntimeError, match="not merged"):
        unmerge_lora(model)
    remove_lora(model, keep_merged=True)
    assert not lora_layers(model)
    np.testing.assert_allclose(logits(model), apart, rtol=1e-10, atol=1e-11)
    attach_lora(model, config(), rng())  # a second adapter on the merged model
    remove_lora(model)
    np.testing.assert_allclose(logits(model), apart, rtol=1e-10, atol=1e-11)


def test_a_tied_matrix_is_adapted_in_both_uses():
    model = gpt()
    attach_lora(model, config(target_modules=["wte"]), rng())
    shake(model)
    layer = model.wte
    E = layer.base_layer.weight.data + layer.delta()
    plain = gpt()
    plain.wte.weight.data = E
    np.testing.assert_allclose(logits(model), logits(plain), rtol=1e-11, atol=1e-12)
    model.loss(ids(), ids(seed=3)).backward()
    plain.loss(ids(), ids(seed=3)).backward()
    dense = plain.wte.weight.grad.T  # ΔE = s (B A)ᵀ
    s, A, B = layer.scaling, layer.lora_A, layer.lora_B
    np.testing.assert_allclose(A.grad, s * B.data.T @ dense, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(B.grad, s * dense @ A.data.T, rtol=1e-9, atol=1e-12)


def test_merging_that_would_overflow_changes_nothing():
    model = gpt(np.float16)
    attach_lora(model, config(target_modules="all-linear"), rng())
    shake(model)
    before = {n: p.data.copy() for n, p in model.named_parameters()}
    model.h[1].mlp.c_proj.lora_B.data[...] = 60000
    model.h[1].mlp.c_proj.lora_A.data[...] = 60000
    with pytest.raises(OverflowError, match="float16"):
        merge_lora(model)
    for n, p in model.named_parameters():
        if "base_layer.weight" in n:
            np.testing.assert_allclose(p.data, before[n], rtol=2e-3, atol=2e-3)
    assert not any(layer.merged for layer in lora_layers(model).values())


def test_dora_layer_matches_the_pair_and_starts_with_row_norms():
    model = gpt()
    attach_lora(model, config(use_dora=True), rng())
    layer = model.h[0].attn.c_attn
    W = layer.base_layer.weight.data
    np.testing.assert_allclose(
        layer.lora_magnitude_vector.data, L.row_norm(W), rtol=1e-13
    )
    shake(model)
    x = rng(8).normal(size=(5, 12))
    A, B, m = layer.lora_A.data, layer.lora_B.data, layer.lora_magnitude_vector.data
    want, _ = L.dora_linear(x, W, layer.base_layer.bias.data, A, B, m, layer.scaling)
    np.testing.assert_allclose(layer(Tensor(x)).data, want, rtol=1e-12, atol=1e-13)


def test_lora_dropout_acts_in_training_only():
    model = gpt()
    attach_lora(model, config(lora_dropout=0.5), rng())
    shake(model)
    model.eval()
    a = logits(model)
    model.train()
    with pytest.raises(ValueError, match="needs rng"):
        model.logits(ids())
    assert not np.allclose(model.logits(ids(), rng(0)).data, a)


def test_print_trainable_parameters(capsys):
    model = gpt()
    attach_lora(model, config(), rng())
    print_trainable_parameters(model)
    trained, total = count_parameters(model)
    assert capsys.readouterr().out == (
        f"trainable params: {trained:,} || all params: {total:,} || "
        f"trainable%: {100 * trained / total:.4f}\n"
    )


def test_untie_copies_the_head():
    model = gpt()
    a = logits(model)
    model.untie()
    model.untie()
    assert np.array_equal(logits(model), a) and "lm_head.weight" in model.state_dict()


# ---- model files


def test_model_files_round_trip(tmp_path):
    model = gpt(np.float32)
    save_model(model, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert again.config == model.config
    assert np.array_equal(logits(again), logits(model))


def test_model_file_errors(tmp_path):
    from lora_np.files import save_tensors

    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="no weight file"):
        load_model(path)
    model = gpt(np.float32)
    save_model(model, path)
    whole = path.read_bytes()
    for cut in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            load_model(path)
    save_tensors(path, {"a": np.ones(1)})
    with pytest.raises(ValueError, match="no model configuration"):
        load_model(path)
    model.wte.weight.data[0, 0] = 1e6
    with pytest.raises(ValueError, match="not finite as float16"):
        save_model(model, path, np.float16)


@pytest.mark.parametrize("extra", [{}, {"use_dora": True}])
def test_an_untied_head_can_be_adapted(extra):
    model = gpt(tie_word_embeddings=False)
    attach_lora(model, config(target_modules=["lm_head"], **extra), rng())
    shake(model)
    apart = logits(model)
    target = ids(seed=3)
    loss = model.loss(ids(), target)
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.trainable().values())
    merge_lora(model)
    np.testing.assert_allclose(logits(model), apart, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(model.loss(ids(), target).data, loss.data, rtol=1e-12)


def test_dropout_on_the_fused_head_is_refused_in_training_only():
    model = gpt(tie_word_embeddings=False)
    attach_lora(model, config(target_modules=["lm_head"], lora_dropout=0.1), rng())
    with pytest.raises(ValueError, match="leave the head out"):
        model.loss(ids(), ids(), rng=rng())
    logits(model.eval())


def test_position_embeddings_can_be_adapted():
    model = gpt()
    base = logits(model)
    attach_lora(model, config(target_modules=["wpe"]), rng())
    np.testing.assert_allclose(logits(model), base, rtol=1e-12, atol=1e-13)
    shake(model)
    assert not np.allclose(logits(model), base)
    model.new_cache(1)


# ---- cases that a review with hostile eyes brought up


def test_an_overflowing_merge_changes_no_bit():
    model = gpt(np.float16)
    attach_lora(model, config(target_modules="all-linear"), rng())
    shake(model)
    last = model.h[1].mlp.c_proj
    last.lora_B.data[...] = last.lora_A.data[...] = 60000
    before = model.state_dict()
    for f in (merge_lora, lambda m: remove_lora(m, keep_merged=True)):
        with pytest.raises(OverflowError):
            f(model)
        after = model.state_dict()
        assert all(np.array_equal(before[n], after[n]) for n in before)
        assert len(lora_layers(model)) == 8


def test_a_state_is_refused_while_merged():
    from lora_np.training import SGD, History, TrainOptions, save_training, train

    model = gpt()
    attach_lora(model, config(bias="all"), rng())
    state = model.state_dict()
    optimizer = SGD(list(model.trainable().values()), lr=0.1)
    merge_lora(model)
    for f in (
        lambda: model.load_state_dict(state),
        lambda: save_training("/nowhere", model, optimizer, History()),
        lambda: train(model, optimizer, lambda g: None, TrainOptions(1)),
    ):
        with pytest.raises(RuntimeError, match="merged"):
            f()


def test_head_only_models_and_adapted_ones_are_saved_right(tmp_path):
    model = gpt(np.float32)
    model.untie()
    model.lm_head.weight.data += 1
    save_model(model, tmp_path / "m")
    assert np.array_equal(logits(load_model(tmp_path / "m")), logits(model))
    attach_lora(model, config(), rng())
    with pytest.raises(ValueError, match="save_adapter"):
        save_model(model, tmp_path / "m")


def test_the_cache_refuses_gradients():
    model = gpt()
    with pytest.raises(RuntimeError, match="no_grad"):
        model.logits(ids(), cache=model.new_cache(2))


def test_a_zero_row_in_an_adapted_dora_head():
    model = gpt(tie_word_embeddings=False)
    model.lm_head.weight.data[3] = 0
    attach_lora(model, config(target_modules=["lm_head"], use_dora=True), rng())
    apart = logits(model)
    assert np.isfinite(apart).all() and not apart[:, 3].any()
    merge_lora(model)
    np.testing.assert_allclose(logits(model), apart, atol=1e-12)


def test_a_layer_shared_by_two_paths_is_refused():
    model = gpt()
    model.h[1].attn.c_attn = model.h[0].attn.c_attn
    with pytest.raises(ValueError, match="one and the same layer"):
        attach_lora(model, config(), rng())


@pytest.mark.parametrize(
    "changes", [{"n_head": 0}, {"n_embd": 13}, {"n_kv_head": 2}, {"vocab_size": "5"}]
)
def test_impossible_shapes(changes):
    with pytest.raises(ValueError, match="must be"):
        gpt(**changes)


def test_leaf_gradients_are_the_leafs_own():
    a, b = Parameter(np.ones(3)), Parameter(np.ones(3))
    g = np.ones(3)
    (a + b).backward(g)
    a.grad *= 5
    assert b.grad.tolist() == g.tolist() == [1, 1, 1]
    a.grad = None
    a.sum().backward()
    a.grad += 1  # not a read-only view
