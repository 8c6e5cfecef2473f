"""Find the bug: an adapter that is different after loading."""

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def load_adapter(config, tensors, path):
    """(A, B, s) of the layer at `path` from PEFT's files, already read.

    config: dict of adapter_config.json, with r, lora_alpha, use_rslora
    tensors: dict of adapter_model.safetensors; keys such as
    "base_model.model.h.0.attn.lora_A.weight"   path: "h.0.attn" for instance
    """
    key = f"base_model.model.{path}.lora_"
    A, B = tensors[key + "A.weight"], tensors[key + "B.weight"]
    r = config["r"]
    s = config["lora_alpha"] / (r**0.5 if config["use_rslora"] else r)
    return A, B, s


def load_adapter_as_found(config, tensors, path):
    """(A, B, s) of the layer at `path` from PEFT's files, already read.

    config: dict of adapter_config.json, with r, lora_alpha, use_rslora
    tensors: dict of adapter_model.safetensors; keys such as
    "base_model.model.h.0.attn.lora_A.weight"   path: "h.0.attn" for instance
    """
    found = {}
    for name, array in tensors.items():
        if path in name:
            found[name.split(".")[-2]] = array
    r = config.get("r", 8)
    s = config.get("alpha", r) / (r**0.5 if config.get("rslora") else r)
    return found["lora_A"], found["lora_B"], s


def problem(d):
    D, M = d.sizes(2)
    r = d.choice([4, 1]) if d.rng is None else d.choice([4, 9])
    tensors = {}
    paths = [f"h.{i}.attn" for i in (1, 10, 2)]
    for path in paths:
        tensors[f"base_model.model.{path}.lora_A.weight"] = d.array(r, D)
        tensors[f"base_model.model.{path}.lora_B.weight"] = d.array(M, r)
    config = {
        "r": r,
        "lora_alpha": d.choice([16, 32, 8]),
        "use_rslora": d.choice([False, True]),
    }
    return {
        "config": config,
        "tensors": tensors,
        "path": d.choice(["h.1.attn", "h.10.attn", "h.2.attn"]),
    }


def nested(d):
    """A path that is contained in others: "attn" in "h.1.attn"."""
    made = problem(d)
    tensors = made["tensors"]
    r, D = tensors["base_model.model.h.1.attn.lora_A.weight"].shape
    M = len(tensors["base_model.model.h.1.attn.lora_B.weight"])
    own = {
        "base_model.model.attn.lora_A.weight": d.array(r, D),
        "base_model.model.attn.lora_B.weight": d.array(M, r),
    }
    return {**made, "tensors": {**own, **tensors}, "path": "attn"}


def wanted(c):
    config = c["config"]
    key = f"base_model.model.{c['path']}.lora_"
    return (
        c["tensors"][key + "A.weight"],
        c["tensors"][key + "B.weight"],
        L.scaling(config["lora_alpha"], config["r"], config["use_rslora"]),
    )


def with_scale(c, s):
    A, B, _ = wanted(vars(c))
    return A, B, s


def by_prefix(c):
    lead = "base_model.model." + c.path + "."
    own = {k[len(lead) :]: v for k, v in c.tensors.items() if k.startswith(lead)}
    r = float(c.config["r"])
    s = c.config["lora_alpha"] * r ** (-0.5 if c.config["use_rslora"] else -1.0)
    return own["lora_A.weight"], own["lora_B.weight"], s


EXERCISE = Exercise(
    id="e45",
    title="worse after loading",
    kind="find the bug",
    minutes=10,
    difficulty=2,
    needs=("e16", "e23"),
    ask="""
    "Saved, loaded, and the loss is worse than before saving; no error is raised." This
    function reads PEFT's files. There is more than one fault. Repair it.
    """,
    functions=(load_adapter,),
    found=(load_adapter_as_found,),
    returns=("A", "B", "s"),
    want=wanted,
    laws=(
        Law("{arrays} differs from what was saved.", problem),
        Law("{arrays} belongs to another layer.", nested),
    ),
    mistakes=mistakes(
        load_adapter,
        ("A", "B", "s"),
        mistake(
            "rslora_ignored",
            "lora_alpha / r, whatever use_rslora says",
            lambda c: with_scale(c, c.config["lora_alpha"] / c.config["r"]),
        ),
        mistake(
            "no_scale",
            "a scale of 1: lora_alpha was not read",
            lambda c: with_scale(c, 1.0),
        ),
        mistake(
            "alpha_alone",
            "lora_alpha without the division",
            lambda c: with_scale(c, float(c.config["lora_alpha"])),
        ),
    ),
    others=(
        by_prefix,
        lambda c: with_scale(
            c, L.scaling(c.config["lora_alpha"], c.config["r"], c.config["use_rslora"])
        ),
    ),
    hints=(
        "The law: save, then load, gives the same function: A, B and the scale.",
        "Which keys does the configuration really have? What does get do with a wrong "
        "one? And for which other layers is `path in name` true?",
        "    s = config['lora_alpha'] / (r**0.5 if ____ else r)",
    ),
    why="""
    get("alpha", r) with a wrong key gives the default r, so the scale is 1 whatever was
    trained; get("rslora") gives None. `path in name` lets a later layer whose name
    contains the path overwrite the right one ("attn" is in "h.1.attn"). Read keys that
    must be there with [], and compare whole names.
    """,
    follow_ups=(
        (
            "Which test catches all three?",
            "Save a model with two layers, B ≠ 0, lora_alpha ≠ r, every option; load "
            "into a fresh model; compare logits.",
        ),
        (
            "What should a loader do with keys that it does not know?",
            "Refuse them with their names; a silent skip is a lost adapter.",
        ),
    ),
    read="lora_np/nn/adapter_io.py; chapter 05",
)
