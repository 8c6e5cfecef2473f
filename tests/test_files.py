"""PEFT's files, corrupt files, and disks that refuse."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from lora_np.files import load_tensors, save_tensors, write_beside
from lora_np.models import GPT, GPTConfig
from lora_np.nn import LoraConfig, attach_lora, load_adapter, lora_layers, save_adapter
from lora_np.nn.adapter_io import CONFIG, WEIGHTS, read_config
from lora_np.tape import no_grad

SMALL = GPTConfig(vocab_size=11, n_positions=8, n_embd=12, n_layer=2, n_head=3)
PREFIX = "base_model.model."


def rng(seed=0):
    return np.random.default_rng(seed)


def base():
    return GPT(SMALL, rng(1), np.float32)


def adapted(**changes):
    model = base()
    options = {"r": 3, "lora_alpha": 5, "target_modules": ["c_attn"], **changes}
    attach_lora(model, LoraConfig(**options), rng(2))
    for i, p in enumerate(model.trainable().values()):
        p.data += 0.3 * rng(i).normal(size=p.shape).astype(np.float32)
    return model


def logits(model):
    with no_grad():
        return model.logits(rng(3).integers(0, 11, (2, 6))).data


VARIANTS = [
    {},
    {"use_rslora": True},
    {"bias": "lora_only"},
    {"bias": "all"},
    {"use_dora": True},
    {"target_modules": "all-linear"},
    {"target_modules": ["wte", "c_fc"]},
    {"init_lora_weights": "gaussian"},
    {"target_modules": r"h\.1\..*c_fc"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_save_and_load_give_the_same_logits_bit_for_bit(options, tmp_path):
    model = adapted(**options)
    save_adapter(model, tmp_path, "some/base")
    fresh = base()
    config = load_adapter(fresh, tmp_path)
    assert config.scaling == model.lora_config.scaling
    assert np.array_equal(logits(fresh), logits(model))
    assert fresh.trainable().keys() == model.trainable().keys()


def test_keys_and_shapes_are_pefts(tmp_path):
    save_adapter(adapted(target_modules=["c_attn", "wte"]), tmp_path)
    shapes = {k: v.shape for k, v in load_tensors(tmp_path / WEIGHTS).items()}
    assert shapes == {
        PREFIX + "wte.lora_embedding_A": (3, 11),
        PREFIX + "wte.lora_embedding_B": (12, 3),
        **{f"{PREFIX}h.{i}.attn.c_attn.lora_A.weight": (3, 12) for i in (0, 1)},
        **{f"{PREFIX}h.{i}.attn.c_attn.lora_B.weight": (36, 3) for i in (0, 1)},
    }
    save_adapter(adapted(use_dora=True, bias="all"), tmp_path)
    keys = set(load_tensors(tmp_path / WEIGHTS))
    assert PREFIX + "h.0.attn.c_attn.lora_magnitude_vector" in keys
    assert PREFIX + "ln_f.bias" in keys
    raw = json.loads((tmp_path / CONFIG).read_text())
    assert raw["peft_type"] == "LORA" and raw["use_dora"] is True and raw["r"] == 3


def test_the_configuration_names_the_adapted_layers(tmp_path):
    """Not "all-linear", which another library may resolve to other layers."""
    save_adapter(adapted(target_modules="all-linear"), tmp_path)
    targets = json.loads((tmp_path / CONFIG).read_text())["target_modules"]
    assert len(targets) == 8 and "h.0.attn.c_attn" in targets


def saved(tmp_path, **changes):
    save_adapter(adapted(**changes), tmp_path)
    return tmp_path


def edit_config(folder, **changes):
    raw = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**raw, **changes}))


def test_config_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="adapter_config.json is missing"):
        read_config(tmp_path)
    folder = saved(tmp_path)
    for changes, message in [
        ({"peft_type": "IA3"}, "expected peft_type 'LORA'"),
        ({"r": 0}, "r must be 1"),
        ({"rank_pattern": {"c_attn": 9}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"some_new_switch": True}, "some_new_switch"),
        ({"some_config": {"a": 1}}, "some_config"),
        ({"layers_to_transform": 0}, "layers_to_transform"),
        ({"r": 4.0}, "r must be an integer"),
        ({"lora_dropout": None}, "lora_dropout must be a number"),
        ({"target_modules": ["q_proj"]}, "nothing is called 'q_proj'"),
    ]:
        before = (folder / CONFIG).read_text()
        edit_config(folder, **changes)
        model = base()
        with pytest.raises(ValueError, match=message):
            load_adapter(model, folder)
        assert not lora_layers(model)
        (folder / CONFIG).write_text(before)
    (folder / CONFIG).write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read_config(folder)
    (folder / CONFIG).write_text("[]")
    with pytest.raises(ValueError, match="'list'"):
        read_config(folder)


def test_weights_that_do_not_fit_are_listed_and_the_model_is_as_before(tmp_path):
    folder = saved(tmp_path)
    tensors = load_tensors(folder / WEIGHTS)
    first = next(iter(tensors))
    changed = {k + "x" if i == 1 else k: v for i, (k, v) in enumerate(tensors.items())}
    changed[first] = changed[first].T.copy()
    save_tensors(folder / WEIGHTS, changed)
    model = base()
    before = logits(model)
    with pytest.raises(KeyError) as error:
        load_adapter(model, folder)
    for piece in ("missing: ", "unexpected: ", f"shape: {first}"):
        assert piece in error.value.args[0]
    assert not lora_layers(model) and np.array_equal(logits(model), before)
    assert all(p.requires_grad for p in model.parameters())


def test_corrupt_and_truncated_weights(tmp_path):
    folder = saved(tmp_path)
    whole = (folder / WEIGHTS).read_bytes()
    for content in (
        b"",
        whole[:50],
        whole[:-1],
        b"not safetensors at all",
        whole + b"x",
    ):
        (folder / WEIGHTS).write_bytes(content)
        model = base()
        with pytest.raises(ValueError, match="not a whole safetensors file"):
            load_adapter(model, folder)
        assert not lora_layers(model)
    (folder / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="no weight file"):
        load_adapter(base(), folder)


def test_saving_without_an_adapter(tmp_path):
    with pytest.raises(RuntimeError, match="nothing to save"):
        save_adapter(base(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_tensors_of_every_shape_and_dtype(tmp_path):
    arrays = {
        "scalar": np.array(3),
        "empty": np.zeros((0, 2)),
        "half": np.ones(2, np.float16),
        "strided": np.arange(12.0).reshape(3, 4)[:, ::2].T,
    }
    save_tensors(tmp_path / "a", arrays, {"k": "v"})
    for name, got in load_tensors(tmp_path / "a").items():
        assert got.dtype == arrays[name].dtype and np.array_equal(got, arrays[name])


def test_bfloat16_is_named_as_the_reason(tmp_path):
    header = json.dumps({"w": {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}})
    raw = header.encode()
    (tmp_path / "b").write_bytes(len(raw).to_bytes(8, "little") + raw + b"\0\0")
    with pytest.raises(ValueError, match="bfloat16|not a whole"):
        load_tensors(tmp_path / "b")


def test_no_half_written_file_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "w"
    save_tensors(path, {"a": np.ones(3)})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match="could not write.*No space left.*nothing was changed"
    ):
        save_tensors(path, {"a": np.zeros(9)})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["w"]


FULL_DISK = """
import resource, signal, sys
import numpy as np
from lora_np.files import save_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_tensors(sys.argv[1], {"a": np.zeros(100000)})
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(
    not hasattr(resource, "RLIMIT_FSIZE"), reason="needs file size limits"
)
def test_a_real_refusal_of_the_system_leaves_the_old_file(tmp_path):
    """The kernel stops the write after 4096 bytes, as a full disk would."""
    path = tmp_path / "w"
    save_tensors(path, {"a": np.ones(3)})
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)],
                          capture_output=True, text=True)  # fmt: skip
    assert "could not write" in done.stdout and "nothing was changed" in done.stdout
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX paths")
def test_a_path_that_cannot_be_is_an_error_in_words(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="could not write"):
        write_beside(tmp_path / "file" / "below", b"x")


def test_written_files_can_be_read_by_others(tmp_path):
    save_tensors(tmp_path / "w", {"a": np.ones(1)})
    assert (tmp_path / "w").stat().st_mode & 0o044 == 0o044
    assert safetensors.numpy.load_file(tmp_path / "w")["a"].tolist() == [1.0]


def test_a_configuration_as_peft_0_21_writes_it(tmp_path):
    """All keys that peft 0.21.2 writes for a plain adapter; most say nothing."""
    folder = saved(tmp_path)
    off = (
        "alora_invocation_tokens arrow_config auto_mapping corda_config "
        "ensure_weight_tying eva_config exclude_modules kasa_config layer_replication "
        "layers_pattern layers_to_transform lora_bias lora_ga_config megatron_config "
        "modules_to_save monteclora_config revision target_parameters task_type "
        "trainable_token_indices use_bdlora use_qalora velora_config"
    )
    edit_config(
        folder, **dict.fromkeys(off.split()), rank_pattern={}, alpha_pattern={},
        loftq_config={}, megatron_core="megatron.core", qalora_group_size=16,
        peft_version="0.21.2", inference_mode=True,
    )  # fmt: skip
    model = base()
    assert load_adapter(model, folder).r == 3


def test_links_and_permissions_survive(tmp_path):
    target = tmp_path / "target"
    write_beside(target, b"old")
    os.chmod(target, 0o600)
    (tmp_path / "link").symlink_to(target)
    write_beside(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o600


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_beside(tmp_path / "w", b"x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": [1]}, {"target_modules": "("}, {"r": 10**12},
        {"use_rslora": "false"}, {"lora_alpha": "8"},
    ],
)  # fmt: skip
def test_hostile_configurations_are_errors_in_words(changes, tmp_path):
    folder = saved(tmp_path)
    edit_config(folder, **changes)
    model = base()
    with pytest.raises(ValueError):
        load_adapter(model, folder)
    assert not lora_layers(model)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    folder = saved(tmp_path)
    tensors = load_tensors(folder / WEIGHTS)
    first = next(iter(tensors))
    tensors[first] = np.full_like(tensors[first], np.nan)
    save_tensors(folder / WEIGHTS, tensors)
    with pytest.raises(KeyError, match="not finite"):
        load_adapter(base(), folder)


@pytest.mark.parametrize("config", ["[]", "{", '{"n_head": 0}', '{"vocab_size": 10}'])
def test_hostile_model_files(config, tmp_path):
    from lora_np.models import load_model

    save_tensors(tmp_path / "m", {"wte.weight": np.ones((4, 4))}, {"config": config})
    with pytest.raises(ValueError):
        load_model(tmp_path / "m")
