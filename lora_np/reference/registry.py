"""Every pair with its problem, its primitive form and the methods that certify it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lora_np import functional as F
from lora_np import lora as L
from lora_np.reference import primitive, problems
from lora_np.reference.draw import Draw


@dataclass(frozen=True)
class Pair:
    """A hand-derived pair and its witnesses.

    exact: short names of the inputs in whose entries the function is linear, or why the
    exact method does not apply. analytic: True, or why the complex step does not.
    """

    name: str
    forward: Callable
    backward: Callable
    problem: Callable[[Draw], dict[str, Any]]
    primitive: Callable
    exact: tuple[str, ...] | str
    analytic: bool | str = True

    @property
    def wrt(self) -> tuple[str, ...]:
        """Short names of the differentiated inputs, in the backward's order."""
        return self.forward.wrt  # type: ignore[attr-defined]


_KINK = "a branch on the sign of the real part: it would only repeat the formula"

_SVD = "an SVD takes |x|², so a complex step goes through it silently wrong"


def _pair(name: str, exact: tuple | str, analytic: bool | str = True,
          of: str | None = None, problem: str | None = None) -> Pair:  # fmt: skip
    room, function = (L if "lora" in name or "dora" in name else F), of or name
    return Pair(
        name,
        getattr(room, function),
        getattr(room, function + "_backward"),
        getattr(problems, problem or name),
        getattr(primitive, function),
        exact,
        analytic,
    )


_LORA = ("x", "b", "A", "B")
PAIRS: tuple[Pair, ...] = (
    _pair("linear", ("x", "W", "b")),
    _pair("embedding", ("E",)),
    _pair("layer_norm", "not linear in x; in g and b it is, but x̂ is not whole"),
    _pair("rms_norm", "not linear in x; in g and b it is, but x̂ is not whole"),
    _pair("relu", ("x",), _KINK),
    _pair("gelu", "not linear in x", problem="elementwise"),
    _pair("gelu_tanh", "not linear in x", problem="elementwise"),
    _pair("silu", "not linear in x", problem="elementwise"),
    _pair("swiglu", "linear in b, but silu(a) is no integer"),
    _pair("softmax", "not linear in z"),
    _pair("cross_entropy", "not linear in z"),
    _pair("linear_cross_entropy", "not linear in h or W"),
    _pair("dropout", ("x",)),
    _pair("rotary", "linear in x, but sines are no integers"),
    _pair("attention", "linear in v, but probabilities are no integers"),
    _pair("qkv_attention", "not linear in q and k"),
    _pair("conv1d", ("x", "W", "b")),
    _pair("conv2d", ("x", "W", "b")),
    _pair("lstm_cell", "not linear: sigmoid and tanh"),
    _pair("lstm", "not linear: sigmoid and tanh"),
    _pair("truncated_svd", "not linear in x", _SVD),
    _pair("projection", ("x",)),
    _pair("kl_divergence", "not linear in z or w"),
    _pair("discriminator_loss", "not linear: ln σ"),
    _pair("generator_loss", "not linear: ln σ"),
    _pair("lora_linear", _LORA),
    _pair("lora_embedding", ("A", "B")),
    _pair("lora_tied", ("h", "A", "B")),
    _pair("lora_conv1d", _LORA),
    _pair("lora_conv2d", _LORA),
    _pair("lora_qkv", ("x", "b", "Aq", "Bq", "Ak", "Bk", "Av", "Bv")),
    _pair("lora_linear_tasks", ("x", "A", "B", "c")),
    _pair("lora_lstm", "not linear: sigmoid and tanh"),
    _pair(
        "lora_self_attention",
        "a softmax lies between; where it is linear (Ao, Bo) its inputs are not whole",
    ),
    _pair(
        "dora_linear",
        "not linear in A and B; where it is linear (x, b, m) m/n is not whole",
    ),
    _pair("dora_constant_norm", "linear, but m/n is no integer", of="dora_linear"),
)


def pair(name: str) -> Pair:
    """The pair called `name`.  Raises KeyError that lists the names.

    >>> pair("linear").wrt
    ('x', 'W', 'b')
    """
    for p in PAIRS:
        if p.name == name:
            return p
    raise KeyError(f"no pair {name!r}; there are {', '.join(p.name for p in PAIRS)}")
