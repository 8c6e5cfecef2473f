import numpy as np


def init(out_features, in_features, r, rng):
    bound = 1 / np.sqrt(in_features)
    A = rng.uniform(-bound, bound, (r, in_features))
    B = np.zeros((out_features, r))
    return A, B


def forward(x, W, b, A, B, s):
    u = x @ A.T
    return x @ W.T + b + s * (u @ B.T), (x, u)


def backward(dy, cache, W, A, B, s):
    x, u = cache
    v = s * (dy @ B)
    dB = s * (dy.T @ u)
    dA = v.T @ x
    dx = dy @ W + v @ A
    return dx, dA, dB


def merge(W, A, B, s):
    return W + s * (B @ A)


def adamw(parameter, gradient, state, lr, betas=(0.9, 0.999), eps=1e-8, decay=0.01):
    m, v, t = state or (0.0, 0.0, 0)
    t += 1
    m = betas[0] * m + (1 - betas[0]) * gradient
    v = betas[1] * v + (1 - betas[1]) * gradient**2
    m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    parameter = parameter - lr * decay * parameter
    return parameter - lr * m_hat / (np.sqrt(v_hat) + eps), (m, v, t)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    W, b, s = rng.normal(size=(5, 7)), rng.normal(size=5), 16 / 2
    x = rng.normal(size=(64, 7))
    target = x @ (W + np.outer(rng.normal(size=5), rng.normal(size=7))).T + b
    (A, B), state_A, state_B = init(5, 7, 2, rng), None, None
    for _step in range(400):
        y, cache = forward(x, W, b, A, B, s)
        _, dA, dB = backward((y - target) / len(x), cache, W, A, B, s)
        A, state_A = adamw(A, dA, state_A, lr=0.01)
        B, state_B = adamw(B, dB, state_B, lr=0.01)
    print("loss", ((forward(x, W, b, A, B, s)[0] - target) ** 2).mean())
    merged = x @ merge(W, A, B, s).T + b
    print("merge", abs(merged - forward(x, W, b, A, B, s)[0]).max())
