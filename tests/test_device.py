"""The same code on another array library: a strict stand-in for CuPy, always; a real
GPU where there is one."""

import numpy as np
import pytest

from lora_np import backend
from lora_np.functional import linear
from lora_np.models import GPT, GPTConfig
from lora_np.nn import LoraConfig, attach_lora, load_adapter, merge_lora, save_adapter
from lora_np.reference import PAIRS, Draw
from lora_np.tape import Tensor, concat, exp, log, tanh, where
from lora_np.training import (
    SGD,
    AdamW,
    TrainOptions,
    clip_grad_norm,
    generate,
    held_out_loss,
    train,
)

from . import strict_cupy


def real_cupy():
    try:
        import cupy
    except ImportError:
        return None
    return cupy if cupy.is_available() else None


@pytest.fixture(params=["stand-in", "gpu"] if real_cupy() else ["stand-in"])
def xp(request, monkeypatch):
    if request.param == "stand-in":
        return strict_cupy.install(monkeypatch)
    return real_cupy()


def test_a_gpu_was_there():
    if real_cupy() is None:
        pytest.skip("no GPU: CuPy is not installed or finds no device; stand-in only")


def rng(seed=0):
    return np.random.default_rng(seed)


def move(xp, value):
    return xp.asarray(value) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("p", PAIRS, ids=lambda p: p.name)
@pytest.mark.parametrize("seed", range(6))
def test_every_pair_gives_the_same_on_the_device(p, seed, xp):
    given = p.problem(Draw.seeded(seed))
    y, cache = p.forward(**given)
    moved, moved_cache = p.forward(**{k: move(xp, v) for k, v in given.items()})
    parts = y if isinstance(y, tuple) else (y,)
    dy = tuple(rng(i).normal(size=a.shape) for i, a in enumerate(parts))
    want = p.backward(dy if isinstance(y, tuple) else dy[0], cache)
    moved_dy = tuple(xp.asarray(d) for d in dy)
    got = p.backward(moved_dy if isinstance(y, tuple) else moved_dy[0], moved_cache)
    moved_parts = moved if isinstance(moved, tuple) else (moved,)
    for a, b in zip((*parts, *want), (*moved_parts, *got), strict=True):
        if a is None:
            assert b is None
        else:
            assert isinstance(b, xp.ndarray)
            np.testing.assert_allclose(b.get(), a, rtol=1e-9, atol=1e-11)


def test_the_tape_on_the_device(xp):
    def run(module):
        x = Tensor(module.asarray(rng().normal(size=(3, 4))), requires_grad=True)
        w = Tensor(module.asarray(rng(1).normal(size=(4,))), requires_grad=True)
        ids = module.asarray(np.array([0, 2, 2]))
        y = tanh(x * w) @ exp(x.T) / 3.0 + log(w * w + 1.0).sum() - 2.0
        z = where(module.asarray(np.eye(3) > 0), y[ids], 0.5) ** 2
        total = concat([z, y], axis=0).mean() + z.max() + x.reshape(12).sum()
        total.backward()
        return (
            backend.to_host(total.data),
            backend.to_host(x.grad),
            backend.to_host(w.grad),
        )

    for a, b in zip(run(np), run(xp), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


CONFIG = GPTConfig(
    vocab_size=11, n_positions=8, n_embd=12, n_layer=2, n_head=3, dropout=0.1
)


def trained(module, steps=3, **lora):
    model = GPT(CONFIG, rng(1), np.float64)
    options = {"r": 2, "target_modules": "all-linear", "bias": "all", **lora}
    attach_lora(model, LoraConfig(**options), rng(2))
    model.to(module)
    model.checkpoint_blocks = True

    def draw(g):
        ids = g.integers(0, 11, (2, 7))
        return ids[:, :-1], ids[:, 1:]

    optimizer = AdamW(list(model.trainable().values()), lr=0.02)
    history = train(model, optimizer, draw, TrainOptions(steps, accumulate=2))
    return model, history, optimizer


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.2}, {"use_dora": True}])
def test_training_on_the_device(lora, xp):
    host, want, _ = trained(np, **lora)
    device, got, optimizer = trained(xp, **lora)
    assert isinstance(device.wpe.weight.data, xp.ndarray)
    np.testing.assert_allclose(got.loss, want.loss, rtol=1e-9)
    a, b = host.state_dict(), device.state_dict()
    for name in a:
        np.testing.assert_allclose(b[name], a[name], rtol=1e-7, atol=1e-9)
    assert all(isinstance(v, np.ndarray) for v in optimizer.state_dict().values())
    optimizer.load_state_dict(optimizer.state_dict())


def test_repeated_tokens_add_up_on_the_device(xp):
    """`out[idx] += g` would pass every other check."""
    model = GPT(CONFIG, rng(1), np.float64).eval()
    ids = np.full((1, 6), 3)
    model.loss(ids, ids).backward()
    want = model.wte.weight.grad
    moved = GPT(CONFIG, rng(1), np.float64).eval().to(xp)
    moved.loss(ids, ids).backward()
    np.testing.assert_allclose(moved.wte.weight.grad.get(), want, rtol=1e-9)


def test_merge_save_load_and_generate_on_the_device(xp, tmp_path):
    model, _, _ = trained(xp)
    save_adapter(model, tmp_path)
    fresh = GPT(CONFIG, rng(1), np.float64)
    load_adapter(fresh, tmp_path)
    host = generate(fresh, [1, 2], 12, rng(), temperature=0)
    device = generate(model, [1, 2], 12, rng(), temperature=0)
    assert np.array_equal(host, device)
    merge_lora(model)
    assert np.array_equal(generate(model, [1, 2], 12, rng(), temperature=0), host)
    ids = rng(4).integers(0, 11, (2, 6))
    losses = [held_out_loss(m, [(ids, ids)]) for m in (model, fresh)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_optimizers_and_clipping_on_the_device(xp):
    from lora_np.nn import Parameter

    p = Parameter(xp.asarray(np.ones(3)))
    p.grad = xp.asarray(np.array([3.0, 0.0, 4.0]))
    assert clip_grad_norm([p], 1.0) == pytest.approx(5.0)
    SGD([p], lr=1.0, momentum=0.5, weight_decay=0.1).step()
    np.testing.assert_allclose(p.data.get(), [0.3, 0.9, 0.1], rtol=1e-12)


def test_mixing_host_and_device_is_named(xp):
    with pytest.raises(TypeError, match="one device"):
        backend.get_xp(np.ones(1), xp.asarray(np.ones(1)))


def test_a_frozen_step_does_not_stop_the_pipeline(monkeypatch):
    """Only the loss of counted tokens may synchronise, a few times a step."""
    module = strict_cupy.install(monkeypatch)
    model, _, optimizer = trained(module, steps=1)
    ids = rng(4).integers(0, 11, (2, 6))
    strict_cupy.SYNCHRONISATIONS[0] = 0
    model.eval()
    model.loss(ids, ids, "sum").backward()
    optimizer.step()
    assert strict_cupy.SYNCHRONISATIONS[0] <= 4


# ---- the stand-in itself must refuse what CuPy refuses


@pytest.mark.parametrize(
    "slip",
    [
        lambda xp, a: np.exp(a),
        lambda xp, a: np.asarray(a),
        lambda xp, a: a + np.ones(3),
        lambda xp, a: np.ones(3) * a,
        lambda xp, a: a @ np.ones((3, 2)),
        lambda xp, a: xp.vecdot(a, a),
        lambda xp, a: a.sum(initial=0.0),
        lambda xp, a: xp.where(True, a, a),
        lambda xp, a: xp.exp(a, where=a > 0),
        lambda xp, a: xp.concatenate([a, np.ones(3)]),
        lambda xp, a: linear(a.reshape(1, 3), np.ones((2, 3))),
    ],
)
def test_porting_mistakes_are_refused(slip, monkeypatch):
    module = strict_cupy.install(monkeypatch)
    with pytest.raises((TypeError, AttributeError)):
        slip(module, module.asarray(np.ones(3)))


def test_porting_mistakes_that_change_values_show(monkeypatch):
    module = strict_cupy.install(monkeypatch)
    a = module.asarray(np.zeros(3))
    a[module.asarray(np.array([0, 0]))] += 1.0
    assert a.get().sum() == 1.0  # the second write is lost
    assert np.isnan(module.empty(2).get()).all()
    assert module.asarray(np.arange(3))[module.asarray(np.array([4]))].get() == [1]
    assert isinstance(a.sum(), module.ndarray)


# ---- choosing a backend


def test_select_says_what_is_missing(monkeypatch):
    with pytest.raises(ValueError, match="'numpy' or 'cupy', got 'torch'"):
        backend.select("torch")
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(RuntimeError, match="pip install cupy"):
        backend.select("cupy")
    module = strict_cupy.Module("cupy")
    module.is_available = lambda: False
    monkeypatch.setitem(__import__("sys").modules, "cupy", module)
    with pytest.raises(RuntimeError, match="no usable GPU"):
        backend.select("cupy")
    strict_cupy.install(monkeypatch)
    assert backend.select("cupy") is __import__("sys").modules["cupy"]
