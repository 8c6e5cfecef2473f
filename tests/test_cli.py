"""The command line as its user meets it: exit codes, sentences, files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lora_np.cli import adapt, bench, check, job, pretrain
from lora_np.cli.common import base_model
from lora_np.cli.main import COMMANDS, main
from lora_np.data import BASE

ROOT = Path(__file__).parent.parent


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lora_np", *arguments],
        capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_check_lists_every_pair_and_exits_0(capsys):
    from lora_np.reference import PAIRS

    assert main(["check", "--cases", "2"]) == 0
    out = capsys.readouterr().out
    for p in PAIRS:
        assert f"\n{p.name} " in out
        for name in p.wrt:
            assert any(
                line.startswith(p.name + " ") and f" d{name} " in line
                for line in out.split("\n")
            ), (p.name, name)
    assert "n/a (1): " in out and "all agree" in out


@pytest.mark.parametrize(
    "label, array",
    [
        ("linear:dW_mean", "dW"), ("lora_linear:dB_not_scaled", "dB"),
        ("lora_linear:no_scale", "y"), ("softmax:sum_not_subtracted", "dz"),
        ("dora_linear:norm_detached", "dA"), ("embedding:repeats_lost", "dE"),
        ("attention:mask_after_softmax", "y"), ("lstm:truncated_cell", "dc"),
    ],
)  # fmt: skip
def test_a_wrong_implementation_makes_check_fail_and_is_named(label, array, capsys):
    assert main(["check", "--wrong", label]) == 1
    out = capsys.readouterr().out
    assert f"FAILED {label.split(':')[0]} {array}" in out and "failures" in out


def test_check_verbose_and_list(capsys):
    assert main(["check", "--only", "linear", "--verbose"]) == 0
    out = capsys.readouterr().out
    assert "worst at" in out and "got" in out and "absolute" in out
    assert main(["check", "--list-wrong"]) == 0
    assert "lora_linear:dA_transposed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["check", "--only", "lora_liner"], "no pair 'lora_liner'; there are linear"),
        (["check", "--wrong", "linear:x"], "there are linear:dW_transposed"),
        (["check", "--cases", "0"], "--cases must be 1 or more"),
        (["generate", "--adapter", "/nowhere"], "adapter_config.json is missing"),
        (["generate", "--prompt", ""], "--prompt is empty"),
        (
            ["generate", "--temperature", "-1"],
            "temperature must be 0 or more and finite",
        ),
        (["adapt", "--r", "0"], "r must be 1 or more, got 0"),
        (["adapt", "--lora-dropout", "1"], "less than 1"),
        (["adapt", "--target-modules", "q_proj"], "nothing is called 'q_proj'"),
        (["adapt", "--method", "full", "--out", "x"], "only --method lora"),
        (["adapt", "--lr", "nan", "--steps", "1"], "lr must be 0 or more"),
        (["adapt", "--method", "full", "--use-dora"], "an option of --method lora"),
        (["check", "--only", "relu", "--wrong", "linear:db_mean"], "leaves that out"),
        (["chapters", "99_nothing.py"], "no chapter '99_nothing'; there are 00_start"),
        (["bench", "--inside", "--repeat", "0"], "--repeat must be 1"),
        (["chapters", "--folder", "/nowhere"], "no chapters in /nowhere"),
        (["--backend", "cupy"], "use --backend numpy"),
    ],
)
def test_errors_are_one_sentence(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert "Traceback" not in captured.err and captured.err.count("\n") == 1


def test_options_before_the_subcommand_are_not_lost(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--backend", "cupy", "generate"])
    assert stop.value.code == 2
    assert "python -m lora_np generate --backend cupy" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_noticed_first(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(job, "certify_pair", None)  # never reached
    for arguments in (["--out"], ["adapt", "--out"]):
        assert main([*arguments, str(tmp_path / "file")]) == 2
        assert "is a file, not a folder" in capsys.readouterr().err
    assert main(["pretrain", "--out", str(tmp_path / "file" / "b")]) == 2
    assert main(["adapt", "--out", ""]) == 2


def test_debug_shows_the_traceback():
    with pytest.raises(KeyError):
        main(["check", "--debug", "--only", "nope"])


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"] if command else ["--help"])
    assert stop.value.code == 0
    assert f"python -m lora_np {command or ''}".strip() in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--seed", "-1"], ["--seed", "x"], ["nonsense"], ["check", "--nope"]]
)
def test_argument_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_interrupting_is_quiet(monkeypatch, capsys):
    def stop(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "run", stop)
    assert main(["check"]) == 130
    assert capsys.readouterr().err == "\nstopped\n"


def test_adapt_saves_what_generate_loads(tmp_path, capsys):
    folder = str(tmp_path / "adapter")
    assert main(["adapt", "--steps", "2", "--r", "2", "--out", folder]) == 0
    out = capsys.readouterr().out
    assert "trainable params: 16,384" in out and "new text 2.3" in out
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["r"] == 2
    assert main(["generate", "--adapter", folder, "--max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("In the beginning")


def test_the_recorded_rates_lie_inside_their_grid():
    found = json.loads(adapt.SEARCH.read_text())["held_out_loss"]
    for method, rate in adapt.recorded_rates().items():
        grid = sorted(map(float, found[method]))
        assert grid[0] < rate < grid[-1], method


def test_the_committed_base_is_what_was_recorded():
    record = json.loads(pretrain.RECORD.read_text())
    assert pretrain.held_out(base_model()) == pytest.approx(
        record["held_out_loss"], abs=2e-4
    )
    assert BASE.stat().st_size <= 2_000_000


def test_pretraining_runs_and_does_not_compare_other_lengths(tmp_path, capsys):
    path = tmp_path / "b.safetensors"
    assert main(["pretrain", "--steps", "2", "--out", str(path)]) == 0
    assert "not compared" in capsys.readouterr().out and path.stat().st_size > 10**6


@pytest.mark.slow
def test_pretraining_reproduces_the_recorded_loss(tmp_path):
    """About ten minutes: the whole base again, within 0.02 nats."""
    assert main(["pretrain", "--out", str(tmp_path / "b.safetensors")]) == 0


def test_bench_measures(capsys):
    assert main(["bench", "--inside", "--shape", "tiny", "--repeat", "1"]) == 0
    out = capsys.readouterr().out
    assert "sgemm GF/s" in out and "tiny" in out and "one BLAS thread" in out
    assert bench.gemm_flops("gpt2") > 100 * bench.gemm_flops("tiny") / 3


@pytest.mark.slow
def test_memory_does_not_grow_over_200_steps():
    done = run("bench", "--growth")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_merge_that_changes_the_model_fails_the_job(monkeypatch):
    """The equality of section 4 can fail: a merge with twice the update."""
    import argparse

    from lora_np.nn import lora_layers

    monkeypatch.setattr(adapt, "STEPS", 1)
    done = adapt.adapt("lora", 0.01, steps=1, before=(0.0, 0.0))
    options = argparse.Namespace(seed=0, backend="numpy")
    for layer in lora_layers(done.model).values():
        layer.lora_B.data += 0.01
    assert job.check_merge(done, options) == []
    layer = next(iter(lora_layers(done.model).values()))
    original = type(layer).delta
    monkeypatch.setattr(type(layer), "delta", lambda self: 2.0 * original(self))
    assert job.check_merge(done, options) != []


@pytest.mark.slow
def test_the_main_job_from_the_shell(tmp_path):
    done = run("--out", str(tmp_path))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "everything agrees" in done.stdout and "the same bit for bit" in done.stdout
    assert len(list((tmp_path / "figures").glob("*.png"))) == 5
    again = run("figures", "--out", str(tmp_path))
    assert again.stdout.count("(unchanged)") == 5
    committed = run("figures")
    assert committed.stdout.count("(unchanged)") == 5, "the figures are not current"


def test_figures_are_rewritten_only_when_they_show_something_else(tmp_path):
    from lora_np import plots

    def figure(values):
        return plots.loss_against_rank([1, 2], {"a": values}, 2)

    path = tmp_path / "f.png"
    assert plots.save(figure([1.0, 0.5]), path)
    first = path.read_bytes()
    assert not plots.save(figure([1.0, 0.5001]), path) and path.read_bytes() == first
    assert plots.save(figure([1.0, 0.7]), path) and path.read_bytes() != first
    assert plots.save(figure([1.0, 0.5]), path) and path.read_bytes() == first
    path.write_bytes(b"no picture")
    assert plots.save(figure([1.0, 0.5]), path)


def test_plots_return_figures():
    from matplotlib.figure import Figure

    from lora_np import plots

    made = [
        plots.certification_errors({"linear": {"tape": 0.0, "central": 1e-10}}),
        plots.loss_curves({"a": np.ones(9)}, {"base": (2, 1), "a": (1, 2)}),
        plots.memory_bars({"a": {"weights": 4, "checkpoint": 2}}),
        plots.singular_values({"a": np.arange(9.0)[::-1]}, 3),
    ]
    for figure in made:
        assert isinstance(figure, Figure)
        for axis in figure.axes:
            assert axis.get_ylabel() or axis.get_yticklabels()
