"""The two players' losses of a generative adversarial network, from logits.

N real rows · M generated rows.  The discriminator's logit d says σ(d) = "is real".
"""

from collections.abc import Container

from lora_np.backend import Array, get_xp
from lora_np.functional.activation import sigmoid
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)


def softplus(x: Array) -> Array:
    """ln(1 + eˣ) without overflow; the complex step passes through.

    >>> import numpy as np
    >>> softplus(np.array([-1000.0, 1000.0]))
    array([   0., 1000.])
    """
    xp = get_xp(x)
    positive = x.real > 0
    small = xp.exp(xp.where(positive, -x, x))
    # CuPy has no complex log1p; for real x it keeps the digits of e^-40
    low = xp.log(1.0 + small) if x.dtype.kind == "c" else xp.log1p(small)
    return xp.where(positive, x, xp.zeros_like(x)) + low


def _rows(name: str, logits: Array) -> None:
    expect_shape(name, logits, (None,), "one logit a row")
    if logits.shape[0] == 0:
        raise ValueError(f"{name} is empty: the mean over no row is undefined")


@differentiable("real", "fake")
def discriminator_loss(
    real_N: Array, fake_M: Array, *, needs: Container[str] = ALL
) -> tuple[Array, tuple]:
    """L_D = -mean ln σ(real) - mean ln(1 - σ(fake))     Goodfellow et al. 2014, eq. 1

    The discriminator's side of min_G max_D, with the sign that is minimised.
    At σ = ½ everywhere, where it can tell nothing apart, L_D = 2 ln 2.

    >>> import numpy as np
    >>> round(float(discriminator_loss(np.zeros(3), np.zeros(2))[0]), 4)
    1.3863
    """
    expect_float(real=real_N, fake=fake_M)
    _rows("real_N", real_N)
    _rows("fake_M", fake_M)
    loss = softplus(-real_N).mean() + softplus(fake_M).mean()
    wanted = tuple(n in needs for n in ("real", "fake"))
    return loss, (real_N, fake_M, wanted)


def discriminator_loss_backward(dy: Array, cache: tuple) -> tuple:
    """dreal = -dy (1 - σ(real)) / N;   dfake = dy σ(fake) / M

    From d ln(1 + e^d)/dd = σ(d) and 1 - σ(d) = σ(-d).  Returns (dreal, dfake).

    >>> import numpy as np
    >>> _, c = discriminator_loss(np.zeros(1), np.zeros(2))
    >>> discriminator_loss_backward(1.0, c)
    (array([-0.5]), array([0.25, 0.25]))
    """
    real_N, fake_M, (want_real, want_fake) = cache
    return (
        -sigmoid(-real_N) * (dy / real_N.shape[0]) if want_real else None,
        sigmoid(fake_M) * (dy / fake_M.shape[0]) if want_fake else None,
    )


@differentiable("fake")
def generator_loss(
    fake_M: Array, saturating: bool = False, *, needs: Container[str] = ALL
) -> tuple[Array, tuple | None]:
    """L_G = -mean ln σ(fake), or with saturating=True mean ln(1 - σ(fake))

    The second is the minimax game's own; its gradient vanishes where the discriminator
    is sure (σ → 0), which is why the same paper trains with the first.

    >>> import numpy as np
    >>> round(float(generator_loss(np.zeros(2))[0]), 4)
    0.6931
    """
    expect_float(fake=fake_M)
    _rows("fake_M", fake_M)
    loss = -softplus(fake_M).mean() if saturating else softplus(-fake_M).mean()
    return loss, (fake_M, saturating) if "fake" in needs else None


def generator_loss_backward(dy: Array, cache: tuple | None) -> tuple:
    """dfake = -dy (1 - σ(fake)) / M, or saturating: -dy σ(fake) / M.  Returns (dfake,).

    >>> import numpy as np
    >>> generator_loss_backward(1.0, generator_loss(np.zeros(2))[1])[0]
    array([-0.25, -0.25])
    """
    if cache is None:
        return (None,)
    fake_M, saturating = cache
    slope = sigmoid(fake_M) if saturating else sigmoid(-fake_M)
    return (slope * (-dy / fake_M.shape[0]),)
