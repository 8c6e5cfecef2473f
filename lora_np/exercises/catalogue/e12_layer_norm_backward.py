"""The backward of layer normalisation."""

import numpy as np

from lora_np import functional as F
from lora_np.exercises.exercise import Exercise, Law, derivative, mistake, mistakes


def layer_norm_backward(dy, x, g, eps):
    """The backward of y = g (x - mean) / sqrt(variance + eps) + b along the last axis.

    dy: (N, D) = dL/dy   x: (N, D)   g: (D,)   eps: a number
    Returns (dx, dg, db), of the shapes of x, g and b.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    inverse = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    xhat = centred * inverse
    dxhat = dy * g
    dx = inverse * (
        dxhat
        - dxhat.mean(axis=-1, keepdims=True)
        - xhat * (dxhat * xhat).mean(axis=-1, keepdims=True)
    )
    return dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


def problem(d):
    N, D = d.sizes(2)
    eps = d.choice([1.0, 0.25, 0.1])
    return {
        "dy": d.array(N, D),
        "x": d.array(N, D),
        "g": d.array(D),
        "eps": eps,
        "b": d.array(D),
    }


def parts(c, outside=False):
    """(1 / root, x̂, dy g)"""
    centred = c.x - c.x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    inverse = 1 / (np.sqrt(variance) + c.eps if outside else np.sqrt(variance + c.eps))
    return inverse, centred * inverse, c.dy * c.g


def mean(a):
    return a.mean(-1, keepdims=True)


def dx_of(c, dxhat=None, first=True, second=True, outside=False):
    inverse, xhat, own = parts(c, outside)
    dxhat = own if dxhat is None else dxhat
    dx = dxhat - mean(dxhat) * first - xhat * mean(dxhat * xhat) * second
    return inverse * dx


def through_variance(c):
    """Step by step: x̂ → centred, variance → x."""
    inverse, xhat, dxhat = parts(c)
    D = c.x.shape[1]
    centred = c.x - mean(c.x)
    dvar = (dxhat * centred).sum(-1, keepdims=True) * -(inverse**3) / 2
    dcentred = dxhat * inverse + dvar * 2 * centred / D
    dx = dcentred - mean(dcentred)
    return dx, np.einsum("nd,nd->d", c.dy, xhat), np.einsum("nd->d", c.dy)


def by_jacobian(c):
    inverse, xhat, dxhat = parts(c)
    D = c.x.shape[1]
    eye = np.eye(D, dtype=c.x.dtype)
    dx = [
        i * ((eye - eye.dtype.type(1 / D)) - np.outer(h, h) / D) @ d
        for i, h, d in zip(inverse, xhat, dxhat, strict=True)
    ]
    return np.stack(dx), (c.dy * xhat).sum(0), c.dy.sum(0)


def scaled_by_D(c):
    inverse, xhat, dxhat = parts(c)
    D = c.x.shape[1]
    dx = D * dxhat - dxhat.sum(-1, keepdims=True)
    dx = dx - xhat * (dxhat * xhat).sum(-1, keepdims=True)
    return inverse / D * dx, (xhat * c.dy).sum(axis=0), c.dy.sum(0)


EXERCISE = Exercise(
    id="e12",
    title="the backward of layer norm",
    kind="derive",
    minutes=20,
    difficulty=3,
    needs=("e02", "e11"),
    ask="""
    y = g x̂ + b with x̂ = (x - mean) / sqrt(variance + eps) along each row. Every
    entry of a row moves the mean and the variance, and through them all others.
    Derive dx, dg, db.
    """,
    functions=(layer_norm_backward,),
    returns=("dx", "dg", "db"),
    want=derivative(
        lambda c: F.layer_norm(c.x, c.g, c.b, c.eps)[0],
        {"dx": "x", "dg": "g", "db": "b"},
    ),
    laws=(Law("{arrays} is not the derivative of the loss sum(dy * y).", problem),),
    mistakes=mistakes(
        layer_norm_backward,
        ("dx", "dg", "db"),
        mistake(
            "statistics_constant",
            "dx = dy g / root: mean and variance were taken as constants",
            dx=lambda c: dx_of(c, first=False, second=False),
        ),
        mistake(
            "variance_constant",
            "dx with the mean's term but without the "
            "variance's: x̂ mean(dy g x̂) is missing",
            dx=lambda c: dx_of(c, second=False),
        ),
        mistake(
            "mean_constant",
            "dx with the variance's term but without the mean's: mean(dy g) is missing",
            dx=lambda c: dx_of(c, first=False),
        ),
        mistake(
            "dx_without_g",
            "dx from dy, not from dy g: g comes after x̂",
            dx=lambda c: dx_of(c, dxhat=c.dy),
        ),
        mistake(
            "g_last",
            "dx of the row from dy, multiplied by g at the end: g belongs "
            "inside the means",
            dx=lambda c: dx_of(c, dxhat=c.dy) * c.g,
        ),
        mistake(
            "eps_outside",
            "dx for a root with eps outside: sqrt(variance) + eps",
            dx=lambda c: dx_of(c, outside=True),
        ),
        mistake(
            "dg_from_x",
            "dg = Σ dy x: what g multiplies is x̂, not x",
            dg=lambda c: (c.dy * c.x).sum(0),
        ),
        mistake(
            "dg_not_summed",
            "dg = dy x̂ for each row: g is shared by the rows, sum",
            dg=lambda c: c.dy * parts(c)[1],
        ),
        mistake(
            "dg_mean",
            "the mean over the rows in dg",
            dg=lambda c: (c.dy * parts(c)[1]).mean(0),
        ),
        mistake("db_mean", "the mean over the rows in db", db=lambda c: c.dy.mean(0)),
        mistake(
            "db_with_g",
            "db = Σ dy g: b is added after g has multiplied",
            db=lambda c: (c.dy * c.g).sum(0),
        ),
    ),
    others=(through_variance, by_jacobian, scaled_by_D),
    hints=(
        "Treat x̂ first: dx̂ = dy g. Then dx has three terms: direct, through the "
        "mean, through the variance.",
        "dx is dx̂ without its mean and without its part along x̂, divided by the root.",
        "    dx = inverse * (dxhat - dxhat.mean(axis=1, keepdims=True) - ____)",
    ),
    why="""
    x̂ has mean 0 and (nearly) length √D whatever x is. Moving x along the all-ones
    vector or along x̂ therefore changes (nearly) nothing, and those two directions
    leave the gradient: dx = (dx̂ - mean(dx̂) - x̂ mean(dx̂ x̂)) / root. The formula
    is exact for every eps inside the root.
    """,
    follow_ups=(
        (
            "To what does each row of dx sum?",
            "0: adding a constant to x changes nothing.",
        ),
        (
            "What changes for RMS norm?",
            "No mean is subtracted in the forward, so mean(dx̂) leaves the backward.",
        ),
    ),
    read="lora_np/functional/norm.py; chapter 04",
)
