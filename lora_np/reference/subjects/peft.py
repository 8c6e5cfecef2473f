"""A shim for PEFT (tested with the versions that the findings name; needs torch).

Layers are built as its users build them: a torch module, LoraConfig, get_peft_model.
What PEFT refuses in a sentence of its own is not offered; the sentence is kept.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Array, Case
from lora_np.reference.conformance.protocol import NotOffered
from lora_np.reference.subjects.peft_operations import OPERATIONS
from lora_np.reference.subjects.recorded import (
    RecordedLayer,
    RecordedSubject,
    tensor,
)

NAMES = ("default", "second", "third")
IN_FLOAT32 = ("pissa", "pissa_niter_4", "olora", "mica", "orthogonal")
_MODULES = {"embedding": "torch.nn.Embedding", "conv1d": "torch.nn.Conv1d",
            "conv2d": "torch.nn.Conv2d"}  # fmt: skip


@contextmanager
def refused() -> Iterator[None]:
    """PEFT's own refusals as NotOffered, with its words."""
    try:
        yield
    except (ValueError, NotImplementedError, TypeError) as error:
        raise NotOffered(f"refused: {str(error).strip().splitlines()[0]}") from None


class PeftSubject(RecordedSubject):
    """Linear, Conv1D (stored transposed), embedding, convolutions."""

    name, files, dora_constant_norm = "peft", "peft", True
    imports = ("import torch", "from peft import LoraConfig, PeftModel, get_peft_model")

    def __init__(self) -> None:
        try:
            self.version = importlib.import_module("peft").__version__
        except ImportError as error:
            raise NotOffered(
                f"PEFT cannot be imported ({error}); in an environment of its own: "
                "pip install torch, then pip install peft"
            ) from None
        import logging
        import warnings

        logging.disable(logging.WARNING)
        warnings.filterwarnings("ignore", module="peft")
        self.begin()

    # ---- building

    def base(self, case: Case, dtype: str) -> str:
        """Lines for the frozen module; returns its name."""
        run, name = self.script.run, self.script.fresh("base")
        if case.layer == "linear" and case.fan_in_fan_out:
            run("from transformers.pytorch_utils import Conv1D")
            run(f"{name} = Conv1D({case.W.shape[0]}, {case.W.shape[1]})")
        elif case.layer == "linear":
            run(f"{name} = torch.nn.Linear({case.W.shape[1]}, {case.W.shape[0]}, "
                f"bias={case.b is not None})")  # fmt: skip
        elif case.layer == "embedding":
            run(f"{name} = torch.nn.Embedding{case.W.shape}")
        elif case.layer in ("conv1d", "conv2d"):
            g = case.given
            channels = case.W.shape[1] * g["groups"], case.W.shape[0]
            run(f"{name} = {_MODULES[case.layer]}({channels[0]}, {channels[1]}, "
                f"{case.W.shape[2:]}, stride={g['stride']}, padding={g['padding']}, "
                f"dilation={g['dilation']}, groups={g['groups']}, "
                f"bias={case.b is not None})")  # fmt: skip
        else:
            raise NotOffered(f"PEFT has no adapter of this kind for {case.layer}")
        W = case.W.T if case.fan_in_fan_out else case.W
        run(f"{name}.weight.data = {tensor(W, dtype)}")
        if case.b is not None or case.fan_in_fan_out:
            b = np.zeros(case.W.shape[0]) if case.b is None else case.b
            run(f"{name}.bias.data = {tensor(b, dtype)}")
        return name

    def config(self, case: Case, adapter: int, **more: Any) -> str:
        """LoraConfig(...) with what differs from the defaults."""
        a = case.adapters[adapter]
        options: dict[str, Any] = {"r": a.r, "lora_alpha": _plain(a.lora_alpha)}
        options["target_modules"] = ["0"]
        for name in ("use_rslora", "use_dora", "fan_in_fan_out"):
            if getattr(case, name):
                options[name] = True
        if case.p:
            options["lora_dropout"] = case.p
        return "LoraConfig(" + ", ".join(
            f"{k}={v!r}" for k, v in {**options, **more}.items()
        ) + ")"  # fmt: skip

    def layer(self, case: Case, adapters: int = 1) -> "PeftLayer":
        """See the protocol."""
        base = self.base(case, case.dtype)
        model = self.script.fresh("model")
        with refused():
            self.script.run(f"{model} = get_peft_model(torch.nn.Sequential({base}), "
                            f"{self.config(case, 0)}).eval()")  # fmt: skip
            for i in range(1, adapters):
                config = self.config(case, i)
                self.script.run(f'{model}.add_adapter("{NAMES[i]}", {config})')
            if adapters > 1:
                self.script.run(f"{model}.eval()")  # what was added came in train mode
        made = PeftLayer(self, case, model, case.dtype)
        for i in range(adapters):
            made.put_factors(i)
        return made

    def initialisations(self, case: Case) -> tuple[Any, ...]:
        """Those that claim to keep the output and need no data."""
        if case.layer == "linear" and case.dtype in ("float64", "float32"):
            return True, "gaussian", *IN_FLOAT32
        return True, "gaussian"

    def fresh(self, case: Case, init: Any, seed: int) -> "PeftLayer":
        """Those that take an SVD ask for float32."""
        if init == "orthogonal" and case.r % 2:
            init = True  # it asks for an even rank
        if init in ("pissa", "pissa_niter_4", "olora", "mica") and (
            case.r > min(case.W.shape)
        ):  # fmt: skip
            init = True  # and these for one that W has
        dtype = "float32" if init in IN_FLOAT32 else case.dtype
        if case.lora_alpha < 0:
            case = replace(
                case,
                adapters=tuple(
                    replace(a, lora_alpha=abs(a.lora_alpha)) for a in case.adapters
                ),
            )  # PiSSA takes the root of σ / s
        base = self.base(case, dtype)
        model = self.script.fresh("model")
        config = self.config(case, 0, **({} if init is True else {
            "init_lora_weights": init}))  # fmt: skip
        self.script.run(f"torch.manual_seed({seed})")
        with refused():
            self.script.run(f"{model} = get_peft_model(torch.nn.Sequential({base}), "
                            f"{config}).eval()")  # fmt: skip
        return PeftLayer(self, case, model, dtype)

    def load(self, case: Case, folder: Path) -> "PeftLayer":
        """PeftModel.from_pretrained on a base as it was."""
        base = self.base(case, case.dtype)
        model = self.script.fresh("model")
        call = f"from_pretrained(torch.nn.Sequential({base}), {str(folder)!r})"
        self.script.run(f"{model} = PeftModel.{call}.eval()")
        return PeftLayer(self, case, model, case.dtype)


def _plain(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)


class PeftLayer(RecordedLayer):
    """A layer inside a PeftModel."""

    def __init__(self, subject: PeftSubject, case: Case, model: str, dtype: str):
        script, self.subject = subject.script, subject
        self.layer = f"{model}.base_model.model[0]"
        self.active = "default"
        super().__init__(script, case, model, self._paths("default", case),
                         f"{self.layer}.base_layer.weight", dtype)  # fmt: skip

    def _paths(self, name: str, case: Case) -> dict[str, str]:
        if case.layer == "embedding":
            found = {n: f'{self.layer}.lora_embedding_{n}["{name}"]' for n in "AB"}
        else:
            found = {n: f'{self.layer}.lora_{n}["{name}"].weight' for n in "AB"}
        if case.use_dora:
            found["m"] = f'{self.layer}.lora_magnitude_vector["{name}"].weight'
        return found

    def put_factors(self, adapter: int) -> None:
        """Set an adapter's factors."""
        if self.case.given.get("groups", 1) > 1:
            raise NotOffered("its A sees all groups: other factors, see the README")
        for n, path in self._paths(NAMES[adapter], self.case).items():
            if n in self.case.adapters[adapter].factors:
                self.put(path, self.case.adapters[adapter].factors[n])

    def delta(self, adapter: int | None = None) -> Array:
        """get_delta_weight."""
        if self.case.use_dora:
            raise NotOffered("the update of DoRA: get_delta_weight is s B A there")
        name = self.active if adapter is None else NAMES[adapter]
        turn = ".T" if self.case.fan_in_fan_out else ""
        return self.read(f'{self.layer}.get_delta_weight("{name}"){turn}', "delta")

    def merge(self, *adapters: int) -> None:
        """merge_adapter."""
        names = [NAMES[i] for i in adapters] if adapters else [self.active]
        with refused():
            self.script.run(f"{self.module}.merge_adapter({names})")

    def unmerge(self) -> None:
        """unmerge_adapter."""
        self.script.run(f"{self.module}.unmerge_adapter()")

    def scale_by(self, factor: float) -> None:
        """scale_layer."""
        self.script.run(f"{self.layer}.scale_layer({factor})")

    def disable(self) -> None:
        """disable_adapter_layers."""
        self.script.run(f"{self.module}.base_model.disable_adapter_layers()")

    def combinations(self) -> tuple[str, ...]:
        """add_weighted_adapter's; those that prune or vote are no sums."""
        return "cat", "svd", "linear"

    def combine(
        self, adapters: tuple[int, ...], weights: list[float], how: str
    ) -> None:
        """add_weighted_adapter, then set_adapter."""
        names = [NAMES[i] for i in adapters]
        with refused():
            self.script.run(f"{self.module}.add_weighted_adapter({names}, {weights}, "
                            f'"mix", combination_type="{how}")')  # fmt: skip
        self.script.run(f'{self.module}.set_adapter("mix")')
        self.active = "mix"

    def operations(self) -> tuple[str, ...]:
        """Tools that edit a model and claim to keep what it computes."""
        return tuple(n for n, (fits, _) in OPERATIONS.items() if fits(self.case))

    def apply(self, operation: str) -> None:
        """The operation's lines."""
        with refused():
            OPERATIONS[operation][1](self)

    def mixed(self, which: Array, *inputs: Any) -> Any:
        """model(x, adapter_names=[...])."""
        names = ["__base__" if i < 0 else NAMES[i] for i in which]
        x = ", ".join(self.given(inputs))
        with refused():
            return self.read(f"{self.module}({x}, adapter_names={names})", "y")

    def save(self, folder: Path) -> None:
        """save_pretrained."""
        self.script.run(f"{self.module}.save_pretrained({str(folder)!r})")
