"""Checkpoints as people hold them: how they are stored, what lies beside the weights, damage and malice."""

import argparse
import io
import os
import pickle
import random
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from s2d_hf.checkpoints import read_checkpoint

FORMS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


def assert_same(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], tensor), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrapping", ["model", "model_state_dict", "state_dict", "module", "top", "net", "names"])
def test_places_of_a_state_dict(official_state, tmp_path, wrapping, form):
    loaded = {"epoch": 100, wrapping: official_state}
    if wrapping == "top":
        loaded = official_state
    elif wrapping == "names":  # of DataParallel, compiled
        loaded = {"state_dict": {f"_orig_mod.module.{name}": tensor for name, tensor in official_state.items()}}
    torch.save(loaded, tmp_path / "checkpoint.pth", **FORMS[form])
    assert_same(read_checkpoint(tmp_path / "checkpoint.pth"), official_state)


@pytest.mark.parametrize("name", ["split01_checkpoint-best.pth", "pretrain-image.pth"])
@pytest.mark.parametrize("form", FORMS)
def test_files_as_the_authors_write_them(shared, tmp_path, name, form):
    """PyTorch itself is the oracle; the files are ours, so that its unpickler may run."""
    loaded = torch.load(shared / "golden" / name, weights_only=False)
    assert isinstance(loaded["args"], argparse.Namespace)
    torch.save(loaded, tmp_path / name, **FORMS[form])
    expected = loaded.get("model") or loaded["model_state_dict"]
    for path in (shared / "golden" / name, tmp_path / name):
        assert_same(read_checkpoint(path), expected)


def test_safetensors(official_state, tmp_path):
    save_file(official_state, tmp_path / "checkpoint.safetensors")
    assert_same(read_checkpoint(tmp_path / "checkpoint.safetensors"), official_state)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)


@pytest.mark.parametrize("form", FORMS)
def test_what_lies_beside_the_weights_does_not_matter(tmp_path, form):
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters())
    model.linear(torch.ones(3)).sum().backward()
    optimizer.step()
    beside = {
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(path=Path("a/b"), lr=np.float64(1e-5), seed=np.random.default_rng(0)),
        "whole": model,
        "function": os.path.join,
        "class": Model,
        "array": np.arange(5),
        "set": {1, 2},
        "bytes": b"\0\1",
        "complex": 1j,
        "device": torch.device("cpu"),
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "nothing": None,
        ("a", "tuple"): 2**70,
    }
    torch.save({"model": model.state_dict()} | beside, tmp_path / "checkpoint.pth", **FORMS[form])
    assert_same(read_checkpoint(tmp_path / "checkpoint.pth"), dict(model.state_dict()))


@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_every_kind(tmp_path, form):
    base = torch.arange(24, dtype=torch.float32)
    tensors = {
        "view": base[4:16].view(3, 4),
        "transposed": base.view(4, 6).t(),
        "strided": base[::3],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }
    kinds = "float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64"
    tensors |= {kind: torch.tensor([0, 1, 1]).to(getattr(torch, kind)) for kind in kinds.split()}
    torch.save({"model": tensors}, tmp_path / "checkpoint.pth", **FORMS[form])
    state = read_checkpoint(tmp_path / "checkpoint.pth")
    assert_same(state, tensors)
    state["view"][0, 0] = 99  # each has memory of its own
    assert state["strided"][0] == 0 and state["transposed"][4, 0] == 4


class Malicious:
    """Leaves a trace where its pickle is loaded."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


class MaliciousState:
    def __setstate__(self, state):
        Path(state["trace"]).touch()

    def __getstate__(self):
        return {"trace": os.environ["S2D_TEST_TRACE"]}


@pytest.mark.parametrize("form", FORMS)
def test_a_payload_leaves_no_trace(tmp_path, monkeypatch, form):
    trace = tmp_path / "trace"
    monkeypatch.setenv("S2D_TEST_TRACE", str(trace))
    weights = {"cls_token": torch.ones(1, 1, 2)}
    for payload in (Malicious(trace), MaliciousState(), [Malicious(trace)], {"deep": (Malicious(trace),)}):
        torch.save({"args": payload, "model": weights, "more": payload}, tmp_path / "bad.pth", **FORMS[form])
        assert_same(read_checkpoint(tmp_path / "bad.pth"), weights)
        assert not trace.exists()
        # the payload is one that works
        torch.load(tmp_path / "bad.pth", weights_only=False)
        assert trace.exists()
        trace.unlink()
    # even among the weights, where it is no tensor
    torch.save({"model": weights | {"evil": Malicious(trace)}}, tmp_path / "bad.pth", **FORMS[form])
    assert_same(read_checkpoint(tmp_path / "bad.pth"), weights)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(ValueError, match=r"plain\.pth"):
        read_checkpoint(tmp_path / "plain.pth")
    assert not trace.exists()


def test_files_that_are_no_checkpoints_are_named(tmp_path, shared):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save({"model": {"epoch": 3}}, tmp_path / "empty_state.pth")
    torch.save({"ema": {"a": torch.ones(1)}, "net": {"b": torch.ones(1)}}, tmp_path / "several.pth")
    with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
        archive.writestr("a.txt", "hello")
    for name, reason in {
        "text.pth": "damaged",
        "empty.pth": "0 bytes",
        "text.safetensors": "safetensors",
        "empty_state.pth": "no state dict",
        "several.pth": "'ema', 'net'",
        "archive.pth": "none that torch.save wrote",
    }.items():
        with pytest.raises(ValueError, match=reason) as refusal:
            read_checkpoint(tmp_path / name)
        assert name in str(refusal.value)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="is a folder"):
        read_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"ik\.pth.*number 1 in place of a name"):
        read_checkpoint(shared / "cases" / "hostile" / "ik.pth")


TENSOR = torch.arange(6, dtype=torch.float32).view(2, 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("unreadable", [
    TENSOR.to(torch.float8_e4m3fn), TENSOR.to(torch.uint16), TENSOR.to_sparse(), TENSOR.to("meta"),
    torch.quantize_per_tensor(TENSOR, 0.1, 0, torch.qint8), torch.complex(TENSOR, TENSOR).conj(),
    torch.complex(TENSOR, TENSOR).conj().imag,
], ids=["float8", "uint16", "sparse", "meta", "quantized", "conjugate", "negative"])  # fmt: skip
def test_tensors_that_cannot_be_read_are_not_left_out(tmp_path, unreadable, form):
    """Nor read wrongly: without them, or with another sign, it would be another model."""
    torch.save({"model": {"good": TENSOR, "bad": unreadable}}, tmp_path / "a.pth", **FORMS[form])
    with pytest.raises(ValueError, match=r"a\.pth.*can't be read, such as 'bad'|a\.pth.*(damaged|missing)"):
        read_checkpoint(tmp_path / "a.pth")


def test_tensors_with_attributes(tmp_path):
    marked = TENSOR.clone()
    marked.origin = "elsewhere"
    torch.save({"model": {"a": marked}}, tmp_path / "a.pth")
    assert_same(read_checkpoint(tmp_path / "a.pth"), {"a": TENSOR})


def test_names_that_meet_after_unwrapping_stay_apart(tmp_path):
    torch.save({"model": {"module.a": TENSOR, "a": TENSOR + 1}}, tmp_path / "a.pth")
    assert_same(read_checkpoint(tmp_path / "a.pth"), {"module.a": TENSOR, "a": TENSOR + 1})


@pytest.mark.parametrize("name", ["a\x1b[31mred", "a\nb", "a" * 5000])
def test_names_that_would_move_a_terminal_are_refused(tmp_path, name):
    torch.save({"model": {name: TENSOR}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="damaged: a tensor is called") as refusal:
        read_checkpoint(tmp_path / "a.pth")
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 500


def test_views_do_not_multiply_a_file(tmp_path):
    """Two hundred, each one element short of the whole, of which each would be copied."""
    base = torch.zeros(100_001)
    torch.save({"model": {f"t{i}": base[:-1] for i in range(200)}}, tmp_path / "views.pth")
    with pytest.raises(ValueError, match=r"views\.pth.*larger than the file"):
        read_checkpoint(tmp_path / "views.pth")


def test_what_people_download_by_mistake(tmp_path):
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for name, reason in (("page.pth", "web page"), ("pointer.pth", "git lfs pull")):
        with pytest.raises(ValueError, match=reason):
            read_checkpoint(tmp_path / name)


def rewritten(path: Path, target: Path, compression: int = zipfile.ZIP_STORED, **changed: bytes) -> Path:
    """A zip file with other contents of some of its parts."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(target, "w", compression) as copy:
        for name in archive.namelist():
            copy.writestr(name, changed.get(name.rpartition("/")[2], archive.read(name)))
    return target


def test_small_files_do_not_become_large_ones(tmp_path):
    """8 MB of zeros in 8 kB; and a pickle that says its tensor has a billion elements."""
    torch.save({"model": {"weight": torch.zeros(2**21)}}, tmp_path / "plain.pth")
    bomb = rewritten(tmp_path / "plain.pth", tmp_path / "bomb.pth", zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 20_000
    with pytest.raises(ValueError, match=r"bomb\.pth.*compressed"):
        read_checkpoint(bomb)
    torch.save({"model": {"weight": torch.zeros(3).expand(100, 3)}}, tmp_path / "repeated.pth")
    with pytest.raises(ValueError, match=r"weight is damaged: its shape \(100, 3\)"):
        read_checkpoint(tmp_path / "repeated.pth")


CRAFTED = {
    "marks": b"\x80\x02" + b"(" * 100_000 + b".",
    "nested": b"\x80\x02]" + b"\x85" * 1_000_000 + b".",  # a tuple in a tuple in a tuple ...
    "nested key": b"\x80\x02}]" + b"\x85" * 1_000_000 + b"K\x01s.",
    "doubled key": b"\x80\x02})" + b"2\x86" * 100 + b"K\x01s.",  # whose hash takes 2 ** 100 steps
    "memo": b"\x80\x02}r\xff\xff\xff\xff.",  # entry 4,294,967,295
    "endless bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "endless frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "long number": b"\x80\x02I" + b"9" * 5_000 + b"\n.",
    "no end": b"\x80\x02N",
    "nothing": b"",
    "no opcode": b"\x80\x02\xff.",
    "empty stack": b"\x80\x02s.",
    # (x, x) of (x, x) ... as the key of a part and as the name of a class: as text, 2 ** 60 times as long
    "doubled storage": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\n)"
    + b"2\x86" * 60
    + b"X\x00\x00\x00\x00K\x01tQ.",
    "doubled class": b"\x80\x04)" + b"2\x86" * 60 + b"X\x01\x00\x00\x00a\x93.",
    # a dictionary whose 3,000 entries are one with 3,000 entries that are one ...
    "shared": b"\x80\x02}q\x00"
    + b"".join(
        b"}q"
        + bytes([level])
        + b"("
        + b"".join(b"X\x04\x00\x00\x00%04dh" % number + bytes([level - 1]) for number in range(3000))
        + b"u"
        for level in (1, 2, 3)
    )
    + b".",
}


def test_crafted_pickles(warm_python, tmp_path):
    """In a process of its own: they may crash or fill the memory of readers that trust them."""
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "plain.pth")
    paths = [
        rewritten(tmp_path / "plain.pth", tmp_path / f"{name}.pth", **{"data.pkl": data})
        for name, data in CRAFTED.items()
    ]
    code = (
        "import resource, sys; from s2d_hf.checkpoints import read_checkpoint\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: read_checkpoint(path)\n"
        "    except ValueError as error: print(error)\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
        "assert grown < 500_000, grown"
    )
    run = warm_python.run("-c", code, *paths)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == len(paths)
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"{path} is not a readable PyTorch checkpoint: ")


def mutated(data: bytes, generator: random.Random) -> bytes:
    """A file in which a few bytes are others, a part is missing, doubled or zero, or the end is cut off."""
    data = bytearray(data)
    kind = generator.choice(("flip", "flip", "cut", "remove", "double", "zero"))
    start = generator.randrange(len(data))
    # half of them where the pickle and the lists of parts are, and not in the values
    if generator.random() < 0.5:
        start = generator.choice((generator.randrange(16_000), len(data) - 1 - generator.randrange(16_000)))
    length = generator.choice((1, 8, 100, 5000))
    if kind == "flip":
        for _ in range(generator.choice((1, 3, 20))):
            place = min(len(data) - 1, start + generator.randrange(length))
            data[place] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        del data[start:]
    elif kind == "remove":
        del data[start : start + length]
    elif kind == "double":
        data[start:start] = data[start : start + length]
    else:
        data[start : start + length] = bytes(len(data[start : start + length]))
    return bytes(data)


def test_a_thousand_mutations_are_right_or_one_clear_error(shared, tmp_path):
    originals = [shared / "golden" / "split01_checkpoint-best.pth", shared / "golden" / "pretrain-image.pth"]
    expected = {path: read_checkpoint(path) for path in originals}
    generator = random.Random(0)
    refused = 0
    for number in range(1000):
        original = originals[number % 2]
        path = tmp_path / "mutated.pth"
        path.write_bytes(mutated(original.read_bytes(), generator))
        started = time.monotonic()
        try:
            state = read_checkpoint(path)
        except ValueError as error:
            assert str(error).startswith(f"{path} is not a readable PyTorch checkpoint: ")
            assert len(str(error)) < 600 and "\n" not in str(error)
            refused += 1
        else:  # what was hit is not needed
            assert_same(state, expected[original])
        assert time.monotonic() - started < 5
    assert refused > 500


def test_mutated_pickles_with_right_checksums(shared, tmp_path):
    """Whoever means harm writes the checksums anew: no crash, no trace; the values may be any."""
    original = shared / "golden" / "split01_checkpoint-best.pth"
    with zipfile.ZipFile(original) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        data = archive.read(name)
    generator = random.Random(1)
    for _ in range(150):
        path = rewritten(original, tmp_path / "mutated.pth", **{"data.pkl": mutated(data, generator)})
        try:
            state = read_checkpoint(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def test_mutated_legacy_files(shared, tmp_path):
    loaded = torch.load(shared / "golden" / "split01_checkpoint-best.pth", weights_only=False)
    buffer = io.BytesIO()
    torch.save(loaded, buffer, _use_new_zipfile_serialization=False)
    generator = random.Random(2)
    for _ in range(300):
        path = tmp_path / "mutated.pth"
        path.write_bytes(mutated(buffer.getvalue(), generator))
        try:
            state = read_checkpoint(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:  # it has no checksums: the names and shapes hold, or tell that it is damaged later on
            assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
