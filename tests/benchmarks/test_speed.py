"""The benchmark's yardstick, its counting, and the command on tiny models."""

import json
import mmap
from dataclasses import replace
from itertools import count

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import normalize
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from benchmarks import memory, plots, profiling, report, speed, timeline, training
from benchmarks.candidates import (
    OURS,
    OURS_CHECKPOINTED,
    OURS_KEEPING,
    PLAIN,
    TRAINING,
    VIDEOMAE_FAST,
    forward_names,
    prepare_step,
    training_way,
)
from benchmarks.counting import count_flops, count_page_faults, watch_saved_tensors
from benchmarks.forward import measure_forward
from benchmarks.measuring import fit_line, ratio, summarise, time_in_turns
from benchmarks.models import SIZES, make_clips
from benchmarks.modes import precision_of
from benchmarks.plain_model import plain_logits
from benchmarks.plots import caption
from benchmarks.training import collect_gradients, largest_difference
from s2d_hf import S2DConfig, S2DForVideoClassification

from ..small_models import TINY, random_inputs, randomise


def test_plain_model_computes_ours():
    config = S2DConfig(**(TINY | {"landmark_size": TINY["image_size"] // TINY["patch_size"]}))
    model, inputs = randomise(S2DForVideoClassification(config)).eval(), random_inputs(config, batch_size=2)
    with torch.no_grad():
        logits = model(**inputs).logits
        torch.testing.assert_close(plain_logits(model, **inputs), logits, rtol=0, atol=1e-5)
    assert logits.std() > 0.01  # so that the tolerance says something


def test_plain_model_computes_the_authors(converted, golden):
    model = S2DForVideoClassification.from_pretrained(converted)
    pixels = normalize((golden["frames"].float() / 255).flatten(0, -4), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    with torch.no_grad():
        logits = plain_logits(model, pixels.view(golden["frames"].shape), golden["landmark_features"])
    torch.testing.assert_close(logits, golden["logits"], rtol=0, atol=1e-5)


def test_operations_of_known_layers():
    linear, convolution = torch.nn.Linear(30, 20), torch.nn.Conv2d(3, 5, kernel_size=4, stride=4)
    tokens, image = torch.randn(2, 7, 30), torch.randn(2, 3, 16, 8)
    query = torch.randn(2, 3, 11, 8)
    attend = torch.nn.functional.scaled_dot_product_attention
    expected = {
        "linear": 2 * 2 * 7 * 30 * 20,
        "convolution": 2 * 2 * (4 * 2) * 5 * (3 * 4 * 4),
        "attention": 2 * (2 * 2 * 3 * 11 * 11 * 8),
        "product added in place": 2 * 14 * 30 * 20,
    }
    with torch.no_grad():
        counted = {
            "linear": count_flops(lambda: linear(tokens)),
            "convolution": count_flops(lambda: convolution(image)),
            "attention": count_flops(lambda: attend(query, query, query)),
            "product added in place": count_flops(
                lambda: torch.zeros(14, 20).addmm_(tokens.flatten(0, 1), linear.weight.T)
            ),
        }
        assert counted == expected
        if hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available():
            onednn = torch.ops.mkldnn._linear_pointwise
            arguments = (linear.weight, linear.bias, "none", [], "")
            assert count_flops(lambda: onednn(tokens, *arguments)) == expected["linear"]


def test_operations_of_the_plain_model_at_the_papers_size():
    """What can be counted by hand: tokens, widths and blocks."""
    with torch.device("meta"):
        model = S2DForVideoClassification(S2DConfig(num_labels=7))
        inputs = torch.empty(1, 16, 3, 224, 224), torch.empty(1, 16, 128, 14, 14)
    with torch.no_grad():
        counted = count_flops(lambda: plain_logits(model, *inputs))
    frames, patches, width, adapter, prompt = 16, 196, 768, 192, 8
    tokens = patches + 1
    block = tokens * (4 * width**2 + 2 * width * 3072) + 2 * tokens**2 * width
    beside = patches * (4 * width * adapter + 4 * adapter**2 + 2 * frames * adapter + 3 * width * prompt)
    embedding = patches * (3 * 16 * 16 * width + 128 * width)
    assert counted == 2 * (frames * (12 * (block + beside) + embedding) + 7 * width)


def test_saved_bytes():
    linear = torch.nn.Linear(4, 6)
    inputs = torch.randn(10, 4)
    # the input for the weight's gradient, the exponential's result for its own; the sum keeps nothing
    with watch_saved_tensors(linear) as kept:
        linear(inputs).exp().sum()
    assert sum(kept.values()) == 4 * (10 * 4 + 10 * 6)


def test_memory_that_cannot_be_measured_is_left_out(capsys):
    assert memory.measure_in_own_process("forward", "no such mode", "tiny", "cpu") is None
    message = capsys.readouterr().err
    assert "The peak memory of no such mode could not be measured" in message and "KeyError" in message


def test_page_faults_of_new_memory():
    content = bytes(64 * 2**20)
    with mmap.mmap(-1, len(content)) as region:  # past the allocator, which may have memory left
        faults = count_page_faults(lambda: region.write(content))
    if faults is None:
        pytest.skip("this system doesn't tell a process's page faults")
    # a page has 4 KiB to 2 MiB
    assert 32 <= faults <= 34_000
    assert count_page_faults(lambda: None) < 32


def test_candidates_take_turns():
    """A clock that a call moves by its own cost, and that drifts: every round slows down both alike."""
    now, calls, rounds = [0.0], [], count(1)
    costs = {"a": 3.0, "b": 1.0}

    def cost(name: str) -> None:
        calls.append(name)
        now[0] += costs[name] * (1 + (next(rounds) - 1) // 2)

    turns = {name: (lambda name=name: cost(name)) for name in costs}
    times = time_in_turns(turns, rounds=8, clock=lambda: now[0])
    pairs = [tuple(calls[i : i + 2]) for i in range(0, 16, 2)]
    assert {*pairs} == {("a", "b"), ("b", "a")}
    assert times == {"a": [3.0 * i for i in range(1, 9)], "b": [1.0 * i for i in range(1, 9)]}
    assert ratio(times["a"], times["b"])["median"] == 3
    assert summarise(times["b"])["median"] == 4.5 and summarise(times["b"])["quartiles"] == [2.75, 6.25]
    with pytest.raises(ValueError, match="rounds"):
        time_in_turns(turns, rounds=0)


def test_fitted_line():
    fit = fit_line([1, 2, 4], [3.0, 5.0, 9.0])
    assert fit["slope"] == pytest.approx(2) and fit["intercept"] == pytest.approx(1)
    assert fit["largest_residual"] == pytest.approx(0, abs=1e-9)
    assert fit_line([1, 2, 4], [1.0, 4.0, 16.0])["exponent"] == pytest.approx(2)
    assert fit_line([1, 2, 4], [1.0, 4.0, 16.0])["largest_residual"] > 0.1


def test_peak_memory_sees_what_a_call_allocates():
    peak = memory.peak_memory(lambda: torch.ones(50 * 2**20, dtype=torch.uint8).max())
    if peak is None:
        pytest.skip("this system doesn't tell the peak memory of a process")
    # the system counts pages in batches
    assert 45 * 2**20 <= peak["call"] < 70 * 2**20
    assert peak["peak"] > peak["call"]
    assert memory.peak_memory(lambda: None)["call"] < 10 * 2**20


@pytest.mark.parametrize(("part", "name"), [("forward", "float32"), ("training", OURS)])
def test_peak_memory_of_a_candidate(part, name):
    measured = memory.measure(part, name, "tiny", "cpu", batch=2)
    assert measured is None or measured["peak"] > measured["call"] >= 0


def test_training_steps_agree():
    gradients, losses = {}, {}
    for name in TRAINING:
        model, _, step = prepare_step(name, SIZES["tiny"], "cpu")
        losses[name] = float(step(*make_clips(model.config, 2), torch.tensor([1, 4])))
        gradients[name] = collect_gradients(model)
    assert not any("mlp" in key for key in gradients[PLAIN])
    for name, way in TRAINING.items():
        error = largest_difference(gradients[name], gradients[PLAIN])
        if way.autocast:
            assert 1e-6 < abs(losses[name] - losses[PLAIN]) < 0.05
            assert error > 1e-3
        else:
            assert losses[name] == pytest.approx(losses[PLAIN], abs=1e-5)
            assert error < 1e-4
    doubled = {key: 2 * gradient for key, gradient in gradients[PLAIN].items()}
    assert largest_difference(doubled, gradients[PLAIN]) == pytest.approx(1)
    with pytest.raises(ValueError, match="classifier"):
        largest_difference({}, {"classifier.bias": torch.ones(1)})


def test_checkpointing_of_our_steps():
    """Which layers are computed again, told by how often each runs in a step."""
    runs = {}
    for name in (OURS, OURS_KEEPING, OURS_CHECKPOINTED):
        model, _, step = prepare_step(name, SIZES["tiny"], "cpu")
        counts = {"prompt": 0, "block": 0}

        def count_run(kind, counts=counts):
            counts[kind] += 1

        for kind, layers in (("prompt", model.s2d.prompt_layers), ("block", model.s2d.layers)):
            for layer in layers:
                # a part of the layer, whose own hooks are outside what is computed again
                part = layer.prompter.output_proj if kind == "prompt" else layer.layernorm_before
                part.register_forward_pre_hook(lambda *_, kind=kind, count_run=count_run: count_run(kind))
        step(*make_clips(model.config, 1), torch.tensor([1]))
        runs[name] = counts
    assert runs == {
        OURS: {"prompt": 4, "block": 2},
        OURS_KEEPING: {"prompt": 2, "block": 2},
        OURS_CHECKPOINTED: {"prompt": 4, "block": 4},
    }
    assert [training_way(name) for name in TRAINING] == [*TRAINING.values()]


def test_names_of_the_forward_part():
    assert forward_names(["float32"], None)[-1] == "float32"
    assert forward_names(["float32", "onnx-int8"], "1234abc")[-2:] == ["onnx-int8", "commit 1234abc"]
    assert forward_names(["bfloat16-fast-path"], "1234abc")[-2:] == ["commit 1234abc", "commit 1234abc, bfloat16"]


@pytest.mark.parametrize(
    ("mode", "precision"),
    [
        ("float32", "float32"),
        ("plain (a)", "float32"),
        ("commit 36987a3, bfloat16", "bfloat16"),
        ("float16", "float16"),
        ("onnx int8", None),
    ],
)
def test_precision_of_a_mode(mode, precision):
    assert precision_of(mode) == precision


def test_command(tmp_path, monkeypatch, capsys):
    """The whole command but for the peak memory, and with a mode whose package is missing."""
    eager = speed.MODES["float32"]

    def fail(model):
        raise ImportError("No module named 'fastest'")

    broken = type(eager)("missing", fail, "the package fastest", "unknown")
    monkeypatch.setitem(speed.MODES, "missing", broken)
    arguments = ["--quick", "--rounds", "1", "--no-memory", "--modes", "float32", "missing"]
    folder = speed.main([*arguments, "--output", str(tmp_path / "speed")])
    results = json.loads((folder / "results.json").read_text())
    (run,) = results["forward"]["runs"]
    assert {*run["candidates"]} == {"plain (a)", "VideoMAE (b)", "VideoMAE (b), fast path", "float32"}
    ours = run["candidates"]["float32"]
    assert ours["largest_error"] < 1e-5 < ours["logits_spread"] and ours["agreement"] == 1
    assert ours["flops"] < run["candidates"]["plain (a)"]["flops"]
    assert "fastest" in results["forward"]["unavailable"]["missing"]
    assert {*results["training"]["candidates"]} == {*TRAINING}
    assert len(results["processors"]["videos"]) == 2
    points = results["scaling"]["timeline"]["points"]
    assert points["2 s, 2 faces"]["windows"] == 2 * points["2 s, 1 face"]["windows"] > 0
    text = (folder / "results.md").read_text()
    assert text in capsys.readouterr().out and "| missing | needs the package fastest" in text
    with Image.open(folder / "speed.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels.shape[1] > 1000 and pixels.std() > 10
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plots.plot_speed(results, folder / "speed.svg")
    drawn = (folder / "speed.svg").read_text()
    assert ">VideoMAE, fast path<" in drawn and "Plain: its forward pass" in drawn
    assert "(a)" not in drawn and "(b)" not in drawn  # the letters of the tables
    assert "Whiskers" not in drawn  # of one round


def test_command_against_a_commit(tmp_path, head, monkeypatch):
    """The committed model beside the one in the working tree."""
    monkeypatch.setattr(plots, "plot_speed", lambda results, path: path.write_text(caption(results)))
    arguments = ["--quick", "--rounds", "2", "--no-memory", "--parts", "forward", "training", "--against", "HEAD"]
    folder = speed.main([*arguments, "--modes", "float32", "bfloat16", "--output", str(tmp_path)])
    results = json.loads((folder / "results.json").read_text())
    name = f"commit {head}"
    (run,) = results["forward"]["runs"]
    candidates = run["candidates"]
    assert [*candidates][-2:] == [name, f"{name}, bfloat16"]
    assert candidates[name]["largest_error"] < 1e-5 < candidates[f"{name}, bfloat16"]["largest_error"] < 0.1
    for of, over in (("plain (a)", name), ("float32", name), ("bfloat16", f"{name}, bfloat16")):
        times = [candidates[each]["seconds"]["values"] for each in (over, of)]
        assert candidates[of]["times_as_fast_as_commit"]["values"] == pytest.approx(
            [a / b for a, b in zip(*times, strict=True)]
        )
    steps = results["training"]["candidates"]
    assert [*steps] == [*TRAINING, name] and steps[name]["largest_gradient_error"] < 1e-4
    text = (folder / "results.md").read_text()
    shares = [line for line in text.splitlines() if line.startswith(f"| {name} |")][-1].split("|")
    assert shares[-2].strip() == "1.00" and f"over {name}'s" in text
    share = steps[name]["saved_bytes"] / steps["plain (a)"]["saved_bytes"]
    assert shares[-3].strip() == f"{share:.2f}"
    drawn = (folder / "speed.png").read_text()
    assert f"Commit {head}: the model as it was" in drawn and "Whiskers: from the rounds' first quartile" in drawn


def test_fast_paths_say_why_they_are_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("S2D_FAST_CPU", "0")
    settings = speed.Settings(size_name="tiny", rounds=1, with_memory=False, modes=("float32", "float32-fast-path"))
    results = measure_forward(settings)
    assert {*results["unavailable"]} == {"float32-fast-path", VIDEOMAE_FAST}
    assert all("S2D_FAST_CPU=0" in reason for reason in results["unavailable"].values())


def test_a_part_that_fails_stops_no_other_one(tmp_path, monkeypatch, capsys):
    def fail(settings):
        yield {"so": "far"}
        raise MemoryError("a GPU is full")

    monkeypatch.setattr(timeline, "measure_timeline", fail)
    monkeypatch.setattr(profiling, "measure_profile", lambda settings: {"float32": "slow"})  # which comes after it
    monkeypatch.setattr(report, "_timeline", str)
    arguments = ["--quick", "--parts", "timeline", "profile", "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"Not measured, see above: timeline\."):
        speed.main(arguments)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["not_measured"] == {"timeline": "MemoryError: a GPU is full"}
    assert results["timeline"] == {"so": "far"} and results["profile"] == {"float32": "slow"}
    assert "| timeline | MemoryError: a GPU is full |" in (tmp_path / "results.md").read_text()
    assert "in fail" in capsys.readouterr().err


def test_training_step_of_several_clips():
    settings = speed.Settings(size_name="tiny", rounds=1, with_memory=False)
    one, three = (training.measure_training(replace(settings, training_batch=batch)) for batch in (1, 3))
    assert (one["batch"], three["batch"]) == (1, 3)
    counted = [results["candidates"][OURS_KEEPING]["flops"] for results in (one, three)]
    assert 2.5 < counted[1] / counted[0] <= 3  # but for what the weights alone cost


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rounds", "0"],
        ["--clips", "1"],
        ["--batch-sizes", "0"],
        ["--modes", "fastest"],
        ["--against", "HEAD", "--parts", "scaling"],
        ["--training-batch-size", "0"],
        ["--heights", "121"],
        ["--heights", "64"],
        ["--faces", "0"],
        ["--seconds", "0.4"],
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--videos", "0"],
        ["--detector-weights", "no-such-file"],
        ["--clock", "cpu", "--parts", "timeline"],
        ["--against", "no-such-commit"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit):
        speed.parse_arguments(arguments)
    assert arguments[0] in capsys.readouterr().err
