"""PEFT's tools that edit a model and claim to keep what it computes, as lines."""

from collections.abc import Callable
from typing import Any

from lora_np.reference.conformance.case import Case

PeftLayer = Any  # peft.PeftLayer, which imports this file


Operation = tuple[Callable[[Case], bool], Callable[[PeftLayer], None]]


def _always(case: Case) -> bool:
    return True


def _run(*lines: str) -> Callable[[PeftLayer], None]:
    def go(layer: PeftLayer) -> None:
        for line in lines:
            layer.script.run(line.format(model=layer.module, layer=layer.layer))

    return go


def _unload(safe: bool) -> Callable[[PeftLayer], None]:
    def go(layer: PeftLayer) -> None:
        name = layer.script.fresh("net")
        layer.script.run(f"{name} = {layer.module}.merge_and_unload(safe_merge={safe})")
        layer.module = name

    return go


def _rescale(layer: PeftLayer) -> None:
    run = layer.script.run
    run("from peft.helpers import rescale_adapter_scale")
    run(f"with rescale_adapter_scale({layer.module}, 0.5): pass")


def _hotswap(layer: PeftLayer) -> None:
    run = layer.script.run
    run("import tempfile; folder = tempfile.mkdtemp()")
    run("from peft.utils.hotswap import hotswap_adapter")
    run(f"{layer.module}.save_pretrained(folder)")
    run(f'hotswap_adapter({layer.module}, folder, "default", torch_device="cpu")')


def _convert(layer: PeftLayer) -> None:
    run, case = layer.script.run, layer.case
    run("from peft import convert_to_lora, set_peft_model_state_dict")
    run(f"config, state = convert_to_lora({layer.module}, rank={min(case.W.shape)})")
    base, model = layer.subject.base(case, case.dtype), layer.script.fresh("model")
    run(f"{model} = get_peft_model(torch.nn.Sequential({base}), config).eval()")
    run(f"set_peft_model_state_dict({model}, state)")
    layer.module = model


OPERATIONS: dict[str, Operation] = {
    "merge_and_unload": (_always, _unload(False)),
    "merge_and_unload(safe_merge=True)": (_always, _unload(True)),
    "disable_adapter and back": (
        _always, _run("with {model}.disable_adapter(): pass")),
    "set_adapter away and back": (
        lambda c: len(c.adapters) > 1,
        _run('{model}.set_adapter("second"); {model}.set_adapter("default")')),
    "delete_adapter of another one": (
        lambda c: len(c.adapters) > 1, _run('{model}.delete_adapter("second")')),
    "scale_layer and unscale_layer": (
        _always, _run("{layer}.scale_layer(0.5); {layer}.unscale_layer(0.5)")),
    "unscale_layer()": (
        _always, _run("{layer}.scale_layer(0.5); {layer}.unscale_layer()")),
    "set_scale(1)": (
        _always, _run('{layer}.set_scale("default", 1.0)')),
    "rescale_adapter_scale and back": (_always, _rescale),
    "convert_to_lora at full rank": (
        lambda c: c.layer == "linear" and not c.fan_in_fan_out, _convert),
    "merge another one and unmerge": (
        lambda c: len(c.adapters) > 1,
        _run('{model}.merge_adapter(["second"]); {model}.unmerge_adapter()')),
    "hotswap_adapter by itself": (_always, _hotswap),
}  # fmt: skip
