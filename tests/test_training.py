"""Optimizers, loop, accumulation, resuming, NaN stop, generation, the allocator."""

import math

import numpy as np
import pytest

from lora_np.models import GPT, GPTConfig
from lora_np.nn import LoraConfig, Parameter, attach_lora
from lora_np.training import (
    SGD,
    Adam,
    AdamW,
    History,
    TrainOptions,
    accumulate_gradients,
    clip_grad_norm,
    generate,
    held_out_loss,
    load_training,
    next_distribution,
    save_training,
    train,
    tune_allocator,
    warmup_cosine,
)
from lora_np.training.planted import first_update, loss_for_rank

SMALL = GPTConfig(vocab_size=11, n_positions=8, n_embd=12, n_layer=2, n_head=3)


def rng(seed=0):
    return np.random.default_rng(seed)


def gpt(dtype=np.float64, seed=1, **changes):
    return GPT(GPTConfig(**{**SMALL.as_dict(), **changes}), rng(seed), dtype)


def draw(generator):
    ids = generator.integers(0, 11, (3, 7))
    return ids[:, :-1], ids[:, 1:]


# ---- optimizers, against the published recursions written out


def run(optimizer_of, steps=5):
    p = Parameter(np.array([1.0, -2.0, 3.0]))
    optimizer = optimizer_of([p])
    for t in range(steps):
        p.grad = rng(t).normal(size=3)
        optimizer.step()
    return p.data


def test_sgd_with_momentum_and_decay():
    x, v = np.array([1.0, -2.0, 3.0]), 0.0
    for t in range(5):
        v = 0.9 * v + rng(t).normal(size=3) + 0.1 * x
        x = x - 0.05 * v
    got = run(lambda ps: SGD(ps, lr=0.05, momentum=0.9, weight_decay=0.1))
    np.testing.assert_allclose(got, x, rtol=1e-13)


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_adam_couples_and_adamw_decouples(kind):
    x, m, v = np.array([1.0, -2.0, 3.0]), 0.0, 0.0
    lr, b1, b2, eps, decay = 0.05, 0.8, 0.9, 1e-6, 0.3
    for t in range(5):
        g = rng(t).normal(size=3) + (decay * x if kind is Adam else 0)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        if kind is AdamW:
            x = x - lr * decay * x
        step = m / (1 - b1 ** (t + 1)) / (np.sqrt(v / (1 - b2 ** (t + 1))) + eps)
        x = x - lr * step
    got = run(lambda ps: kind(ps, lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay))
    np.testing.assert_allclose(got, x, rtol=1e-12)
    other = Adam if kind is AdamW else AdamW
    assert not np.allclose(x, run(lambda ps: other(ps, lr, (b1, b2), eps, decay)))


def test_groups_make_lora_plus_one_line():
    model = gpt()
    attach_lora(model, LoraConfig(r=2, target_modules=["c_attn"]), rng())
    named = model.trainable()
    groups = [
        {"params": [p for n, p in named.items() if n.endswith("lora_A")]},
        {"params": [p for n, p in named.items() if n.endswith("lora_B")], "lr": 0.16},
    ]
    optimizer = SGD(groups, lr=0.01)
    before = {n: p.data.copy() for n, p in named.items()}
    for p in named.values():
        p.grad = np.ones(p.shape)
    optimizer.scale_lr(0.5)
    optimizer.step()
    for n, p in named.items():
        moved = float((before[n] - p.data).max())
        assert moved == pytest.approx(0.08 if n.endswith("B") else 0.005)


def test_optimizer_errors():
    p = Parameter(np.ones(1))
    with pytest.raises(ValueError, match="empty"):
        SGD([], lr=0.1)
    with pytest.raises(ValueError, match="twice"):
        SGD([p, p], lr=0.1)
    for lr in (-1.0, math.nan):
        with pytest.raises(ValueError, match="lr must be"):
            SGD([p], lr=lr)
    with pytest.raises(ValueError, match="betas"):
        Adam([p], betas=(1.0, 0.9))


def test_clipping_scales_all_together():
    a, b = Parameter(np.zeros(1)), Parameter(np.zeros(2))
    a.grad, b.grad = np.array([3.0]), np.array([0.0, 4.0])
    shared = b.grad
    assert clip_grad_norm([a, b], 2.5) == 5.0
    assert a.grad.tolist() == [1.5] and b.grad.tolist() == [0.0, 2.0]
    assert shared.tolist() == [0.0, 4.0]  # not in place
    assert clip_grad_norm([a, b], 100.0) == 2.5 and a.grad.tolist() == [1.5]
    assert clip_grad_norm([Parameter(np.zeros(1))], 1.0) == 0.0
    with pytest.raises(ValueError, match="max_norm"):
        clip_grad_norm([a], 0.0)


def test_schedule():
    factors = [warmup_cosine(i, 11, warmup=1, floor=0.2) for i in range(11)]
    assert factors[0] == factors[1] == 1.0 and factors[-1] == pytest.approx(0.2)
    assert factors[1:] == sorted(factors[1:], reverse=True)
    assert [warmup_cosine(i, 8, warmup=4) for i in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert warmup_cosine(0, 1) == 1.0
    with pytest.raises(ValueError, match="warmup"):
        warmup_cosine(0, 3, warmup=4)


# ---- accumulation


def gradients(model, batches, generator=None):
    model.zero_grad()
    loss, tokens = accumulate_gradients(model, batches, generator)
    return loss, tokens, {n: p.grad for n, p in model.named_parameters()}


def test_accumulation_equals_the_big_batch_also_with_unequal_counts():
    model = gpt()
    ids = rng(3).integers(0, 11, (6, 8))
    x, y = ids[:, :-1], ids[:, 1:].copy()
    y[0], y[1, 2:], y[4, :3] = -100, -100, -100  # micro-batches count 9, 14, 11
    big = gradients(model, [(x, y)])
    parts = gradients(model, [(x[i : i + 2], y[i : i + 2]) for i in (0, 2, 4)])
    assert big[1] == parts[1] == 42 - 7 - 5 - 3
    assert parts[0] == pytest.approx(big[0], rel=1e-13)
    for n, g in big[2].items():
        np.testing.assert_allclose(parts[2][n], g, rtol=1e-10, atol=1e-14)


def test_the_mean_of_means_would_differ():
    """What the loop must not do."""
    model = gpt()
    ids = rng(3).integers(0, 11, (4, 8))
    x, y = ids[:, :-1], ids[:, 1:].copy()
    y[0] = y[1, 1:] = -100
    big = gradients(model, [(x, y)])[2]
    model.zero_grad()
    for i in (0, 2):
        (model.loss(x[i : i + 2], y[i : i + 2]) * 0.5).backward()
    wrong = {n: p.grad for n, p in model.named_parameters()}
    assert not np.allclose(wrong["wte.weight"], big["wte.weight"], rtol=1e-3)


def test_a_batch_that_counts_nothing_is_an_error():
    x = np.zeros((1, 3), int)
    with pytest.raises(ValueError, match="no position of the batch counts"):
        accumulate_gradients(gpt(), [(x, x - 100)], None)
    with pytest.raises(ValueError, match="held-out set has no position"):
        held_out_loss(gpt(), [(x, x - 100)])


def test_held_out_loss_weighs_tokens_and_leaves_the_mode():
    model = gpt(dropout=0.5)
    ids = rng(3).integers(0, 11, (4, 7))
    x, y = ids[:, :-1], ids[:, 1:].copy()
    y[:2, 1:] = -100
    whole = held_out_loss(model, [(x, y)])
    assert held_out_loss(model, [(x[:2], y[:2]), (x[2:], y[2:])]) == pytest.approx(
        whole
    )
    assert model.training and all(p.grad is None for p in model.parameters())
    skipped = (x, np.full_like(y, -100))
    assert held_out_loss(model, [(x, y), skipped]) == pytest.approx(whole)


# ---- the loop


def test_training_learns_and_keeps_a_history():
    model = gpt()
    fixed = draw(rng(5))
    seen = []
    options = TrainOptions(
        30, evaluate=lambda: (seen.append(1), held_out_loss(model, [fixed]))[1],
        evaluate_every=12, schedule=lambda s: 1.0 - s / 60,
    )  # fmt: skip
    h = train(model, AdamW(model.parameters(), lr=0.01), lambda g: fixed, options)
    assert h.loss[-1] < 0.5 * h.loss[0] and len(h.loss) == len(h.lr) == 30
    assert [s for s, _ in h.held_out] == [12, 24, 30] and len(seen) == 3
    assert h.lr[0] == 0.01 and h.lr[-1] == pytest.approx(0.01 * (1 - 29 / 60))
    assert h.tokens == [18] * 30 and min(h.seconds) > 0


def make(seed=1):
    model = gpt(np.float32, seed, dropout=0.2)
    attach_lora(
        model, LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.1), rng()
    )
    return model, AdamW(list(model.trainable().values()), lr=0.01)


def options(steps, **extra):
    return TrainOptions(
        steps, seed=3, accumulate=2, schedule=lambda s: 1 / (1 + s), **extra
    )


def test_interrupt_and_resume_is_bit_for_bit(tmp_path):
    model, optimizer = make()
    whole = train(model, optimizer, draw, options(9))
    path = tmp_path / "run.safetensors"
    first, optimizer_1 = make()

    class Stop(Exception):
        pass

    def interrupted(generator):
        if optimizer_1.steps == 5:
            raise Stop
        return draw(generator)

    with pytest.raises(Stop):
        train(first, optimizer_1, interrupted, options(9, save_to=path, save_every=4))
    second, optimizer_2 = make()
    history = load_training(path, second, optimizer_2)
    assert optimizer_2.steps == 4 and len(history.loss) == 4
    history = train(second, optimizer_2, draw, options(9), history)
    for n, a in model.state_dict().items():
        assert np.array_equal(a, second.state_dict()[n]), n
    assert history.loss == whole.loss and history.grad_norm == whole.grad_norm


def test_resume_without_the_moments_would_be_noticed(tmp_path):
    model, optimizer = make()
    train(model, optimizer, draw, options(6))
    second, optimizer_2 = make()
    train(second, optimizer_2, draw, options(4))
    optimizer_2.state = [{} for _ in optimizer_2.state]
    train(second, optimizer_2, draw, options(6))
    a, b = model.state_dict(), second.state_dict()
    assert any(not np.array_equal(a[n], b[n]) for n in a)


def test_checkpoints_that_do_not_fit(tmp_path):
    model, optimizer = make()
    train(model, optimizer, draw, options(2))
    path = tmp_path / "run.safetensors"
    save_training(path, model, optimizer, History())
    with pytest.raises(KeyError, match="does not fit"):
        load_training(path, gpt(np.float32), optimizer)
    sgd = SGD(list(model.trainable().values()), lr=0.1, momentum=0.9)
    with pytest.raises(KeyError, match="optimizer state"):
        load_training(path, model, sgd)
    state = optimizer.state_dict()
    state["0.m"] = np.ones(3)
    with pytest.raises(KeyError, match="the parameter"):
        optimizer.load_state_dict(state)
    from lora_np.files import save_tensors

    save_tensors(path, {"a": np.ones(1)})
    with pytest.raises(ValueError, match="no training checkpoint"):
        load_training(path, model, optimizer)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="not a whole"):
        load_training(path, model, optimizer)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_stops_with_step_and_parameter_and_keeps_the_weights():
    model = gpt()
    optimizer = AdamW(model.parameters(), lr=0.01)
    train(model, optimizer, draw, TrainOptions(3))
    before = model.state_dict()
    model.h[1].mlp.c_fc.bias.data[0] = np.inf
    with pytest.raises(FloatingPointError, match="step 4: .*not finite is the .*of "):
        train(model, optimizer, draw, TrainOptions(9))
    after = model.state_dict()
    assert optimizer.steps == 3 and all(p.grad is None for p in model.parameters())
    changed = [n for n in before if not np.array_equal(before[n], after[n])]
    assert changed == ["h.1.mlp.c_fc.bias"]


def test_train_options_are_checked():
    with pytest.raises(ValueError, match="accumulate"):
        TrainOptions(1, accumulate=0)
    with pytest.raises(ValueError, match="steps"):
        TrainOptions(-1)


# ---- generation


def trained():
    model = gpt()
    for p in model.parameters():
        p.data += 0.5 * rng(9).normal(size=p.shape)
    return model


@pytest.mark.parametrize("kv", [None, 1])
def test_cached_logits_equal_those_without_the_cache(kv):
    from lora_np.tape import no_grad

    model = gpt(n_kv_head=kv)
    ids = rng(4).integers(0, 11, (2, 8))
    with no_grad():
        whole = model.logits(ids).data.reshape(2, 8, 11)
        cache = model.new_cache(2)
        parts = [model.logits(ids[:, a:b], cache=cache).data.reshape(2, b - a, 11)
                 for a, b in ((0, 3), (3, 4), (4, 8))]  # fmt: skip
        np.testing.assert_allclose(
            np.concatenate(parts, 1), whole, rtol=1e-11, atol=1e-12
        )
        with pytest.raises(ValueError, match="do not fit"):
            model.logits(ids[:, :1], cache=cache)


@pytest.mark.parametrize("prompt", [[1], [1, 2, 3], list(range(11)) + [4, 5]])
def test_greedy_tokens_are_the_same_with_and_without_the_cache(prompt):
    """Also past n_positions = 8, where the window moves."""
    model = trained()
    a = generate(model, prompt, 30, rng(), temperature=0, use_cache=True)
    b = generate(model, prompt, 30, rng(), temperature=0, use_cache=False)
    assert np.array_equal(a, b) and len(a) == len(prompt) + 30
    assert list(a[: len(prompt)]) == prompt


def test_sampling_is_seeded_and_stops():
    model = trained()
    a, b, c = (generate(model, [1], 20, rng(s), 2.0) for s in (5, 5, 6))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    stop = int(a[4])
    short = generate(model, [1], 20, rng(5), 2.0, stop=stop)
    assert short[-1] == stop and np.array_equal(short, a[: len(short)])
    assert generate(model, [3], 0, rng()).tolist() == [3]
    with pytest.raises(ValueError, match="at least one id"):
        generate(model, [], 3, rng())
    with pytest.raises(IndexError, match="got 11"):
        generate(model, [11], 3, rng())


def test_temperature_top_k_and_top_p():
    logits = np.log(np.array([0.1, 0.5, 0.25, 0.15]))
    np.testing.assert_allclose(next_distribution(logits), [0.1, 0.5, 0.25, 0.15])
    assert next_distribution(logits, temperature=0).tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(next_distribution(logits, top_k=2), [0, 2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(
        next_distribution(logits, top_p=0.7), [0, 2 / 3, 1 / 3, 0]
    )
    assert next_distribution(logits, top_p=0.01).tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(next_distribution(logits, top_k=9, top_p=1.0),
                               [0.1, 0.5, 0.25, 0.15])  # fmt: skip
    hot, cold = (next_distribution(logits, t)[1] for t in (2.0, 0.5))
    assert hot < 0.5 < cold
    ties = next_distribution(np.zeros(4), top_k=2)
    assert (ties > 0).sum() == 2
    big = next_distribution(np.array([1e4, 0.0]), 0.5)
    assert big.tolist() == [1.0, 0.0]
    for bad in ({"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            next_distribution(logits, **bad)


# ---- the experiments of chapter 05 and the allocator


def test_loss_has_its_knee_at_the_planted_rank():
    losses = {r: loss_for_rank(r, seed=0, noise=0.0) for r in (1, 2, 3, 4, 6)}
    assert losses[1] > losses[2] > losses[3] > 1e-3
    assert losses[4] < 1e-4 * losses[3] and losses[6] < 1e-4 * losses[3]


def test_which_scale_keeps_the_first_step_the_same():
    def spread(use_rslora, optimizer):
        falls = [np.mean([first_update(r, use_rslora, optimizer, s)["loss"]
                          for s in range(4)]) for r in (4, 32, 256)]  # fmt: skip
        return max(falls) / min(falls)

    assert spread(True, "sgd") < 1.1 and spread(False, "adam") < 1.1
    assert spread(False, "sgd") > 10 and spread(True, "adam") > 5
    with pytest.raises(ValueError, match="optimizer"):
        first_update(4, True, "rmsprop", 0)


def test_the_allocator_call_is_a_no_op_elsewhere(monkeypatch):
    assert tune_allocator() in (True, False)
    monkeypatch.setattr("sys.platform", "darwin")
    assert tune_allocator() is False


def test_adam_counts_the_steps_of_each_parameter():
    """A parameter whose first gradient comes late is corrected as in its first step."""
    p, q = Parameter(np.zeros(1)), Parameter(np.zeros(1))
    optimizer = AdamW([p, q], lr=0.1, weight_decay=0.0)
    for step in range(6):
        p.grad, q.grad = np.ones(1), np.ones(1) if step == 5 else None
        optimizer.step()
    assert q.data[0] == pytest.approx(-0.1, rel=1e-6)
    optimizer.load_state_dict(optimizer.state_dict())
    assert [s["t"] for s in optimizer.state] == [6, 1]


def test_clipping_in_half_precision_does_not_overflow():
    p = Parameter(np.zeros(400, np.float16))
    p.grad = np.full(400, 20.0, np.float16)
    assert clip_grad_norm([p], 1.0) == pytest.approx(400.0)
    assert p.grad[0] == pytest.approx(0.05, rel=1e-3)


def test_optimizer_states_are_copies_and_complete():
    p = Parameter(np.ones(2))
    optimizer = Adam([p], lr=0.1)
    p.grad = np.ones(2)
    optimizer.step()
    state = optimizer.state_dict()
    kept = state["0.m"].copy()
    optimizer.load_state_dict(state)
    optimizer.step()
    assert np.array_equal(state["0.m"], kept)
    sgd = SGD([p], lr=0.1, momentum=0.9)
    for other, source in ((sgd, state), (optimizer, {"0.t": np.array(1), "steps": 1})):
        with pytest.raises(KeyError):
            other.load_state_dict(source)
    with pytest.raises(KeyError, match="count of steps"):
        optimizer.load_state_dict({})


def test_a_run_is_saved_at_its_end(tmp_path):
    model, optimizer = make()
    path = tmp_path / "end"
    train(model, optimizer, draw, options(3, save_to=path, save_every=2))
    second, optimizer_2 = make()
    assert len(load_training(path, second, optimizer_2).loss) == 3
    with pytest.raises(ValueError, match="max_norm"):
        train(model, optimizer, draw, options(9, max_grad_norm=0.0))
