"""Faults of a layer's life, kept: each a subject in which one method is wrong.

They start from `OwnSubject`, which holds every law, so that the fault is the only
difference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Array, Case
from lora_np.reference.conformance.protocol import Grads
from lora_np.reference.subjects.own import PAIRS, OwnLayer, OwnSubject, right_pair
from lora_np.reference.subjects.own_parts import base_forward

Columns = tuple[tuple[str, str], ...]
PLAIN: Columns = (("linear", "plain"),)


@dataclass(frozen=True)
class Life:
    """One fault: its name, what is wrong, where to try it, and how to build it."""

    name: str
    why: str
    subject: Callable[[], Any]
    columns: Columns = PLAIN


LIVES: list[Life] = []


def on_layer(why: str, columns: Columns = PLAIN) -> Callable:
    """Register a subclass of OwnLayer as a fault."""

    def register(layer: type[OwnLayer]) -> type[OwnLayer]:
        class Wrong(OwnSubject):
            def layer(self, case: Case, adapters: int = 1) -> OwnLayer:
                name = "dora" if case.use_dora else case.layer
                return layer(case, right_pair(PAIRS[name]))

        LIVES.append(Life(_name(layer), why, Wrong, columns))
        return layer

    return register


def on_subject(why: str, columns: Columns = PLAIN) -> Callable:
    """Register a subclass of OwnSubject as a fault."""

    def register(subject: type[OwnSubject]) -> type[OwnSubject]:
        LIVES.append(Life(_name(subject), why, subject, columns))
        return subject

    return register


def _name(made: type) -> str:
    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in made.__name__)
    return words.strip("_")


# ---- starting


@on_subject("A and B both zero: nothing ever learns")
class BothZero(OwnSubject):
    """dA has the factor B, dB the factor A."""

    def fresh(self, case: Case, init: Any, seed: int) -> OwnLayer:
        return self.layer(case.with_factors(
            **{n: 0 * a for n, a in case.factors.items()}
        ))  # fmt: skip


@on_subject("B is random too: the output changes at once")
class RandomB(OwnSubject):
    """As init_lora_weights=False, under the name of True."""

    def fresh(self, case: Case, init: Any, seed: int) -> OwnLayer:
        return super().fresh(case, False, seed)


@on_subject("A stored (in, r) and given to the initialiser: fan-in is read as r")
class FanInIsR(OwnSubject):
    """A is √(in/r) times too large."""

    def fresh(self, case: Case, init: Any, seed: int) -> OwnLayer:
        layer = super().fresh(case, init, seed)
        r, inside = layer.now["A"].shape
        layer.now["A"] = layer.now["A"] * np.sqrt(inside / r)
        return layer


@on_subject("a seed of its own: every run draws the same A")
class HiddenSeed(OwnSubject):
    """The given seed is not used."""

    def fresh(self, case: Case, init: Any, seed: int) -> OwnLayer:
        return super().fresh(case, init, 0)


@on_subject("the principal part goes into the adapter and stays in the weight too")
class SplitKept(OwnSubject):
    """PiSSA without the subtraction."""

    def fresh(self, case: Case, init: Any, seed: int) -> OwnLayer:
        U, sigma, Vt = np.linalg.svd(case.W, full_matrices=False)
        k = min(case.r, len(sigma))
        A, B = 0 * case.factors["A"], 0 * case.factors["B"]
        A[:k], B[:, :k] = Vt[:k], U[:, :k] * sigma[:k] / case.scale()
        return self.layer(case.with_factors(A=A, B=B))


@on_subject("a token's column of A is drawn as well: ΔE of unseen tokens is noise",
            (("embedding", "plain"),))  # fmt: skip
class EmbeddingStartsRandom(OwnSubject):
    """Both factors of an embedding random."""

    def fresh(self, case: Case, init: Any, seed: int) -> OwnLayer:
        return super().fresh(case, False, seed)


# ---- the update and merging


@on_layer("merging adds B A without s")
class MergeUnscaled(OwnLayer):
    """s is in the forward only."""

    def merge(self, *adapters: int) -> None:
        self.s, kept = 1.0, self.s
        super().merge(*adapters)
        self.s = kept


@on_layer("merging forgets that s is α/√r", (("linear", "rslora"),))
class MergeWithAlphaOverR(OwnLayer):
    """The scale is computed a second time, without the option."""

    def merge(self, *adapters: int) -> None:
        self.s, kept = self.case.lora_alpha / self.case.r, self.s
        super().merge(*adapters)
        self.s = kept


@on_layer("the adapter stays active after merging: its update counts twice")
class ActiveAfterMerge(OwnLayer):
    """`merged` is not looked at."""

    def forward(self, *inputs: Any) -> Any:
        return self._run(inputs)[0]


@on_layer("unmerging only forgets that it was merged")
class UnmergeKeepsWeight(OwnLayer):
    """The weight is left as it is."""

    def unmerge(self) -> None:
        self.merged = []


@on_layer("unmerging subtracts B A without s")
class UnmergeUnscaled(OwnLayer):
    """Each merge and unmerge leaves something behind."""

    def unmerge(self) -> None:
        self.s, kept = 1.0, self.s
        super().unmerge()
        self.s = kept


@on_layer("a second merge replaces the first")
class MergeReplaces(OwnLayer):
    """From a copy of the base that was taken at the start."""

    def merge(self, *adapters: int) -> None:
        for i in adapters or (None,):
            self.frozen = {n: self.case.cast(self.case.given[n]) for n in self.frozen}
            super().merge(*(() if i is None else (i,)))


@on_layer("the update is not transposed where the weight is",
          (("linear", "fan_in_fan_out"),))  # fmt: skip
class MergeNotTransposed(OwnLayer):
    """Shapes differ, so it adds what fits: noticed only by value."""

    def _add(self, deltas: dict[str, Array], sign: float) -> None:
        W = self.frozen["W"]
        self.frozen = {"W": W + sign * np.resize(deltas["W"], W.shape)}


@on_layer("the update is reported without s")
class DeltaUnscaled(OwnLayer):
    """For tools that read it; merging has its own."""

    def delta(self, adapter: int | None = None) -> Array:
        return super().delta(adapter) / self.s


@on_layer("the update has a diagonal of its own: its rank is not bounded by r")
class DiagonalBeside(OwnLayer):
    """A learnt rescaling sold as LoRA."""

    def delta(self, adapter: int | None = None) -> Array:
        delta = super().delta(adapter)
        return delta + np.eye(*delta.shape)


@on_layer("A's rows are normalised: the product no longer decides")
class NormalisedA(OwnLayer):
    """(A, B) and (M A, B M⁻¹) differ."""

    def forward(self, *inputs: Any) -> Any:
        kept, A = self.now, self.now["A"]
        length = np.sqrt((A * A).sum(1, keepdims=True))
        self.now = {**kept, "A": A / length}
        y = super().forward(*inputs)
        self.now = kept
        return y


@on_layer("setting the scale instead of multiplying it")
class ScaleSet(OwnLayer):
    """Two calls do not find their way back."""

    def scale_by(self, factor: float) -> None:
        self.s = factor


@on_layer("disabling keeps half of the update")
class HalfDisabled(OwnLayer):
    """A fade instead of a switch."""

    def disable(self) -> None:
        self.s *= 0.5


@on_layer("reloading claims to keep the effect and loses the scale")
class ReloadLosesScale(OwnLayer):
    """An operation of a tool."""

    def operations(self) -> tuple[str, ...]:
        return ("reload",)

    def apply(self, operation: str) -> None:
        self.s = 1.0


# ---- combining


@on_layer("the combined adapter keeps a scale on top")
class CombinedScaleOnTop(OwnLayer):
    """The parts' scales are in the factors already."""

    def combine(
        self, adapters: tuple[int, ...], weights: list[float], how: str
    ) -> None:
        super().combine(adapters, weights, how)
        self.s = self.case.scale()


@on_layer("the weight of a part enters A and B: it counts squared")
class WeightSquared(OwnLayer):
    """As when roots are forgotten."""

    def combine(
        self, adapters: tuple[int, ...], weights: list[float], how: str
    ) -> None:
        super().combine(adapters, [w * abs(w) for w in weights], how)


@on_layer("a negative weight loses its sign")
class SignLost(OwnLayer):
    """The root of |w| on both factors."""

    def combine(
        self, adapters: tuple[int, ...], weights: list[float], how: str
    ) -> None:
        super().combine(adapters, [abs(w) for w in weights], how)


@on_layer("the first part's scale is used for all parts")
class FirstScaleForAll(OwnLayer):
    """Right where all adapters have one alpha and rank."""

    def combine(
        self, adapters: tuple[int, ...], weights: list[float], how: str
    ) -> None:
        ratio = [self.case.scale(adapters[0]) / self.case.scale(i) for i in adapters]
        super().combine(adapters, [w * q for w, q in zip(weights, ratio, strict=True)],
                        how)  # fmt: skip


@on_layer("the SVD merge keeps one singular value")
class RankOneSvd(OwnLayer):
    """The rank is not passed on."""

    def combine(
        self, adapters: tuple[int, ...], weights: list[float], how: str
    ) -> None:
        super().combine(adapters, weights, how)
        if how == "svd" and len(self.now["A"]) > 1 and len(adapters) > 1:
            self.now["A"][1:] = 0.0


@on_layer("combining scales the parts in place")
class PartsScaled(OwnLayer):
    """The first adapter is not what it was."""

    def combine(
        self, adapters: tuple[int, ...], weights: list[float], how: str
    ) -> None:
        super().combine(adapters, weights, how)
        self.all[0] = {**self.all[0], "A": self.all[0]["A"] * weights[0]}


# ---- training


@on_layer("the frozen weight is trained along")
class WeightMoves(OwnLayer):
    """It was left in the optimizer."""

    def train(self, target: Array, steps: int, lr: float, optimizer: str,
              *inputs: Any) -> None:  # fmt: skip
        self.frozen["W"] = self.frozen["W"] * (1.0 - lr)
        super().train(target, steps, lr, optimizer, *inputs)


@on_layer("the gradient of the frozen weight is computed and returned")
class WeightGradient(OwnLayer):
    """Right, and the whole cost of full fine-tuning."""

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        return {**super().gradients(dy, *inputs), "W": dy.T @ inputs[0]}


@on_layer("only B is trained")
class AFrozen(OwnLayer):
    """A method of its own (LoRA-FA), under LoRA's name."""

    def train(self, target: Array, steps: int, lr: float, optimizer: str,
              *inputs: Any) -> None:  # fmt: skip
        A = self.now["A"]
        super().train(target, steps, lr, optimizer, *inputs)
        self.now = {**self.now, "A": A}


@on_layer("columns of A move for tokens that never came", (("embedding", "plain"),))
class UnseenMove(OwnLayer):
    """A dense optimizer on a sparse gradient."""

    def train(self, target: Array, steps: int, lr: float, optimizer: str,
              *inputs: Any) -> None:  # fmt: skip
        super().train(target, steps, lr, optimizer, *inputs)
        self.now = {**self.now, "A": self.now["A"] - lr}


@on_layer("Adam without its corrections for the start at zero")
class NoBiasCorrection(OwnLayer):
    """The first steps are too large or too small."""

    def train(self, target: Array, steps: int, lr: float, optimizer: str,
              *inputs: Any) -> None:  # fmt: skip
        before = self.now
        super().train(target, steps, lr, optimizer, *inputs)
        if optimizer == "adamw":
            self.now = {
                n: before[n] + 3.16 * (a - before[n]) for n, a in self.now.items()
            }


@on_layer("the second batch's gradient overwrites the first's")
class Overwrites(OwnLayer):
    """= instead of +=."""

    def accumulate(self, batches: list[tuple]) -> Grads:
        return super().accumulate(batches[-1:])


@on_layer("gradients of several batches are averaged inside the layer")
class Averages(OwnLayer):
    """The caller divides once more."""

    def accumulate(self, batches: list[tuple]) -> Grads:
        total = super().accumulate(batches)
        return {n: None if g is None else g / len(batches) for n, g in total.items()}


@on_layer("the backward runs twice over the cache: gradients double")
class CheckpointDoubles(OwnLayer):
    """The recomputed forward is differentiated along with the first."""

    def checkpointed(self, dy: Any, *inputs: Any) -> Grads:
        grads = super().checkpointed(dy, *inputs)
        return {n: None if g is None else 2 * g for n, g in grads.items()}


# ---- modes


@on_layer("training mode drops nothing", (("linear", "dropout"),))
class NoDropout(OwnLayer):
    """lora_dropout is read and not used."""

    def forward_training(self, seed: int, *inputs: Any) -> Any:
        return self.forward(*inputs)


@on_layer("dropout is active in evaluation mode", (("linear", "dropout"),))
class DropoutAlways(OwnLayer):
    """The mode is not passed on."""

    def forward(self, *inputs: Any) -> Any:
        return super().forward(*inputs) if self.merged else (
            self.forward_training(1, *inputs))  # fmt: skip


@on_layer("the gradient draws another mask than the forward", (("linear", "dropout"),))
class OtherMask(OwnLayer):
    """Checkpointing without the generator's state."""

    def gradients_training(self, seed: int, dy: Any, *inputs: Any) -> Grads:
        return super().gradients_training(seed + 1, dy, *inputs)


@on_layer("an entry is kept with probability p, not dropped", (("linear", "dropout"),))
class KeptWithP(OwnLayer):
    """Right at p = 1/2."""

    def _mask(self, seed: int, x: Array) -> dict[str, Any]:
        keep = np.random.default_rng(seed).random(x.shape) < self.case.p
        return {"mask_ND": keep, "p": self.case.p}


@on_layer("the rate is written into the code", (("linear", "dropout"),))
class OtherRate(OwnLayer):
    """lora_dropout is read and replaced by 0.05: the mean is right all the same."""

    def _mask(self, seed: int, x: Array) -> dict[str, Any]:
        keep = np.random.default_rng(seed).random(x.shape) >= 0.05
        return {"mask_ND": keep, "p": 0.05}


@on_layer("dropout stands after A, on r numbers a row", (("linear", "dropout"),))
class DropoutAfterA(OwnLayer):
    """Another method: loralib and PEFT drop x."""

    def forward_training(self, seed: int, *inputs: Any) -> Any:
        (x,), f = inputs, self.now
        u = x @ f["A"].T
        keep = np.random.default_rng(seed).random(u.shape) >= self.case.p
        low = self.s * (u * keep / (1 - self.case.p)) @ f["B"].T
        return base_forward(self.case, self.weights(), (x,)) + low


@on_layer("every row gets the first row's adapter")
class FirstForAll(OwnLayer):
    """Right in batches of one adapter."""

    def mixed(self, which: Array, *inputs: Any) -> Any:
        return super().mixed(0 * which + which[:1], *inputs)


# ---- numbers


@on_layer("the scale is a NumPy scalar: float32 comes back as float64",
          (("linear", "float32"),))  # fmt: skip
class Promoted(OwnLayer):
    """np.float64 promotes."""

    def forward(self, *inputs: Any) -> Any:
        return super().forward(*inputs) * np.float64(1.0)


@on_layer("the merged weight is stored in float64", (("linear", "float32"),))
class MergedWider(OwnLayer):
    """Twice the memory after merging."""

    def _add(self, deltas: dict[str, Array], sign: float) -> None:
        self.frozen = {"W": self.frozen["W"] + sign * deltas["W"]}


@on_layer("float32 is computed in float16 inside", (("linear", "float32"),))
class RoughInside(OwnLayer):
    """An autocast left on."""

    def forward(self, *inputs: Any) -> Any:
        return super().forward(*(x.astype(np.float16).astype(x.dtype) for x in inputs))


@on_layer(
    "gradients come in float64 whatever the layer's dtype", (("linear", "float32"),)
)
class WideGradients(OwnLayer):
    """Twice the memory of the optimizer's input."""

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        grads = super().gradients(dy, *inputs)
        return {n: None if g is None else g.astype(float) for n, g in grads.items()}


@on_layer("float64 passes through float32 inside", PLAIN)
class ThroughFloat32(OwnLayer):
    """Whole numbers do not show it."""

    def forward(self, *inputs: Any) -> Any:
        y = super().forward(*inputs)
        return y.astype(np.float32).astype(y.dtype)


@on_layer("gradients are zero in half precision", (("linear", "float16"),))
class UnderflowInHalf(OwnLayer):
    """A loss scale that was forgotten."""

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        grads = super().gradients(dy, *inputs)
        return {n: None if g is None else 0 * g for n, g in grads.items()}


@on_layer("the backward clears the caller's dy")
class ClearsCotangent(OwnLayer):
    """In-place reuse of an array that is not its own."""

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        grads = super().gradients(dy, *inputs)
        dy[...] = 0
        return grads


@on_layer("DoRA divides by a norm of zero", (("linear", "dora"),))
class DoraZeroOverZero(OwnLayer):
    """A dead row gives NaN."""

    def forward(self, *inputs: Any) -> Any:
        V = self.weights()["W"] + self.s * self.now["B"] @ self.now["A"]
        return super().forward(*inputs) + 0.0 / np.sqrt((V * V).sum(1))


@on_layer("an empty batch gives one row")
class EmptyIsOne(OwnLayer):
    """np.atleast_2d on a squeezed result."""

    def forward(self, *inputs: Any) -> Any:
        y = super().forward(*inputs)
        return y if len(y) else np.zeros((1, *y.shape[1:]))


@on_layer("a batch of one row is squeezed")
class OneRowSqueezed(OwnLayer):
    """y.squeeze()."""

    def forward(self, *inputs: Any) -> Any:
        y = super().forward(*inputs)
        return y[0] if len(y) == 1 else y


@on_layer("the backward scales the caller's dy in place")
class CotangentChanged(OwnLayer):
    """And, with it, the input."""

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        grads = super().gradients(dy, *inputs)
        inputs[0][...] *= 2
        return grads


# ---- files


@on_subject("loading computes the scale as α/r, whatever the file says",
            (("linear", "rslora"),))  # fmt: skip
class RsloraNotRead(OwnSubject):
    """use_rslora is saved and not read."""

    def load(self, case: Case, folder: Path) -> OwnLayer:
        layer = super().load(case, folder)
        layer.s = case.lora_alpha / case.r
        return layer


@on_layer("saving while merged writes the base's difference from the merged weight")
class SavedMergedEmpty(OwnLayer):
    """Which is zero by then."""

    def save(self, folder: Path) -> None:
        kept = self.now
        if self.merged:
            self.now = {n: 0 * a for n, a in kept.items()}
        super().save(folder)
        self.now = kept


@on_layer("factors are stored as (in, r) and (r, out)")
class SavedTransposed(OwnLayer):
    """And read back alike, so that only others notice."""

    def save(self, folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        super().save(folder)
        path = Path(folder) / "adapter_model.safetensors"
        turned = {k: np.ascontiguousarray(a.T) for k, a in load_file(path).items()}
        save_file(turned, path)
