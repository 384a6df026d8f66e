"""
Models as ONNX files, for onnxruntime and whatever else runs ONNX: `s2d-hf export-onnx` and [`load_onnx`].

The file holds the model, not the processor: it takes the `pixel_values` and `landmark_features` that the processor of
the model's folder returns.
"""

import json
import logging
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import AutoConfig

from . import auto_classes  # noqa: F401
from .configuration_s2d import S2DConfig
from .model_loading import load_whole_model
from .model_sources import find_model
from .modeling_s2d import CLASSIFIERS, S2DForImageClassification, S2DForVideoClassification
from .output_folder import check_output_folder

if TYPE_CHECKING:
    from google.protobuf.message import Message

# The names that optimum and the Hub know.
MODEL_FILE = "model.onnx"
QUANTIZED_FILE = "model_quantized.onnx"
DEFAULT_OPSET = 20  # the first with GELU

# A float32 file whose logits differ from PyTorch's by more is wrong.
LARGEST_DIFFERENCE = 1e-3
# A compiler may take a size of 1 for a constant: exported with one size, checked with others.
_EXPORT_SIZE, _CHECK_SIZES = 2, (1, 3)

_MISSING = 'ONNX files need more libraries: pip install "s2d-hf[onnx]"'


@dataclass(frozen=True)
class OnnxReport:
    """
    What was written, and how far it is from PyTorch in float32.

    Args:
        file (`Path`): The ONNX file.
        difference (`float`): Largest absolute difference of a logit.
        scale (`float`): Largest absolute logit, to judge the difference by.
        agreement (`int`): In how many of the random inputs the highest logit is the same class's.
        num_inputs (`int`): How many random inputs were compared.
    """

    file: Path
    difference: float
    scale: float
    agreement: int
    num_inputs: int

    def __str__(self) -> str:
        return (
            f"{self.file}, {self.file.stat().st_size / 1e6:.1f} MB. Against PyTorch in float32, on {self.num_inputs} "
            f"random inputs: largest difference of a logit {self.difference:.1e} (largest logit {self.scale:.2g}), "
            f"the same class in {self.agreement} of {self.num_inputs}."
        )


class OnnxClassifier:
    """
    An exported model, run by onnxruntime on the CPU.

    Args:
        file (`Path`): The ONNX file.
        config ([`S2DConfig`]): Of the exported model, e.g. for its `id2label`.
        num_threads (`int`, *optional*): onnxruntime's threads (default: as many as PyTorch uses).

    Raises:
        ImportError: if onnxruntime is missing.
    """

    def __init__(self, file: Path, config: S2DConfig, num_threads: int | None = None):
        runtime = _import_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if num_threads is None else num_threads
        self.config = config
        self.session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def __call__(self, pixel_values: torch.Tensor, landmark_features: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            pixel_values (`torch.Tensor`): `(batch_size, num_frames, 3, height, width)` for videos, `(batch_size, 3,
                height, width)` for images, as the model's processor returns them; the configuration's size.
            landmark_features (`torch.Tensor`, *optional*): `(batch_size, num_frames, landmark_channels,
                landmark_size, landmark_size)`, without `num_frames` for images. Ignored, as the model does, with
                `prompt_type="none"`.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_labels)`: the logits, in float32 on the CPU.

        Raises:
            ValueError: if `landmark_features` are missing, or a shape is not the file's.
        """
        inputs = {"pixel_values": pixel_values, "landmark_features": landmark_features}
        feed = {}
        for declared in self.session.get_inputs():
            tensor = inputs[declared.name]
            if tensor is None:
                raise ValueError(
                    f"`{declared.name}` are missing: pass on both tensors that the model's processor returns."
                )
            if tuple(tensor.shape[1:]) != tuple(declared.shape[1:]):
                raise ValueError(
                    f"`{declared.name}` must be (batch_size, {', '.join(map(str, declared.shape[1:]))}) for this "
                    f"file, got {tuple(tensor.shape)}."
                )
            feed[declared.name] = tensor.detach().to("cpu", torch.float32).numpy()
        return torch.from_numpy(self.session.run(["logits"], feed)[0])


def load_onnx(folder: str | Path, int8: bool = False, num_threads: int | None = None) -> OnnxClassifier:
    """
    Loads what [`export_onnx`] wrote.

    Args:
        folder (`str` or `Path`): The folder with the ONNX file and `config.json`.
        int8 (`bool`): Load the file with int8 weights.
        num_threads (`int`, *optional*): onnxruntime's threads (default: as many as PyTorch uses).

    Raises:
        FileNotFoundError: if the folder doesn't hold the file.
        ImportError: if onnxruntime is missing.
    """
    file = Path(folder) / (QUANTIZED_FILE if int8 else MODEL_FILE)
    if not file.is_file():
        raise FileNotFoundError(f"{file} doesn't exist: write it with `s2d-hf export-onnx{' --int8' * int8}`.")
    return OnnxClassifier(file, S2DConfig.from_pretrained(folder), num_threads)


def export_onnx(
    model: str | Path | nn.Module,
    output: str | Path,
    int8: bool = False,
    opset: int = DEFAULT_OPSET,
    overwrite: bool = False,
) -> list[OnnxReport]:
    """
    Writes a model as the ONNX file `model.onnx`, for batches of any size, with its `config.json` beside it. What is
    written is first run with onnxruntime and compared with PyTorch.

    With `int8`, there is a second file, `model_quantized.onnx`: the weights of the matrix products are int8, each
    output channel with a scale of its own, and their inputs become int8 as they come (onnxruntime's dynamic
    quantisation). Processors without VNNI instructions may add such products up with overflows, so that the error
    there may be larger than the one reported.

    Args:
        model (`str`, `Path` or `nn.Module`): A model's folder, its name on the Hub, or an authors' checkpoint; see
            [`find_model`]. Or an [`S2DForVideoClassification`] or [`S2DForImageClassification`] in float32 on the CPU.
        output (`str` or `Path`): The folder to write.
        int8 (`bool`): Write the file with int8 weights too.
        opset (`int`): The version of ONNX's operators.
        overwrite (`bool`): Write into a folder that isn't empty; ONNX files of both names there are replaced.

    Returns:
        An [`OnnxReport`] for each file, the one in float32 first.

    Raises:
        FileExistsError: if `output` isn't empty and `overwrite` is False.
        ImportError: if onnx, onnxruntime or onnxscript are missing.
        RuntimeError: if the logits of the float32 file are not PyTorch's.
        ValueError: if the model is no S2D classifier, or not in float32.
    """
    output = Path(output)
    check_output_folder(output, overwrite)
    _import_exporters()
    if not isinstance(model, nn.Module):
        model = _load(model)
    if type(model) not in CLASSIFIERS.values():
        raise ValueError(f"only {' and '.join(CLASSIFIERS)} can be exported, and this is a {type(model).__name__}.")
    if {parameter.dtype for parameter in model.parameters()} != {torch.float32}:
        raise ValueError("only models in float32 can be exported: load it with `dtype=torch.float32`.")
    batches = [random_inputs(model, size, seed) for seed, size in enumerate(_CHECK_SIZES)]
    with torch.no_grad():
        expected = torch.cat([model.eval()(**batch).logits for batch in batches])

    with tempfile.TemporaryDirectory() as scratch:
        file, quantized = Path(scratch) / MODEL_FILE, Path(scratch) / QUANTIZED_FILE
        _write(model, file, opset)
        differences = {file: _compare(file, model.config, batches, expected)}
        difference = differences[file][0]
        if not difference <= LARGEST_DIFFERENCE:  # nor if it is not a number
            raise RuntimeError(
                f"the exported model's logits differ from PyTorch's by {difference:.1e}, which is more than "
                f"{LARGEST_DIFFERENCE}: nothing was written to {output}."
            )
        if int8:
            _quantize(file, quantized)
            differences[quantized] = _compare(quantized, model.config, batches, expected)
        output.mkdir(parents=True, exist_ok=True)
        for name in (MODEL_FILE, QUANTIZED_FILE):
            for old in (output / name, output / f"{name}.data"):
                old.unlink(missing_ok=True)
        for part in sorted(Path(scratch).iterdir()):
            shutil.move(part, output / part.name)
    _write_config(model, output / "config.json")
    scale = expected.abs().max().item()
    return [
        OnnxReport(output / file.name, difference, scale, agreement, len(expected))
        for file, (difference, agreement) in differences.items()
    ]


def random_inputs(
    model: S2DForVideoClassification | S2DForImageClassification, batch_size: int, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Normally distributed inputs of the model's shapes, `batch_size` of them; only those that it needs."""
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    leading = (batch_size, config.num_frames) if isinstance(model, S2DForVideoClassification) else (batch_size,)
    shapes = {"pixel_values": (config.num_channels, config.image_size, config.image_size)}
    if config.prompt_type != "none":
        shapes["landmark_features"] = (config.landmark_channels, config.landmark_size, config.landmark_size)
    return {name: torch.randn(*leading, *shape, generator=generator) for name, shape in shapes.items()}


def _write_config(model: nn.Module, file: Path) -> None:
    """Without the model's code, which `save_pretrained` would put beside it."""
    fields = model.config.to_dict() | {"architectures": [type(model).__name__]}
    for name in ("auto_map", "_name_or_path"):  # the latter may be a folder of this machine
        fields.pop(name, None)
    file.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


class _Logits(nn.Module):
    """The model with tensors in and out."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor, landmark_features: torch.Tensor | None = None) -> torch.Tensor:
        return self.model(pixel_values, landmark_features).logits


def _load(name: str | Path) -> S2DForVideoClassification | S2DForImageClassification:
    folder = find_model(name)
    architectures = AutoConfig.from_pretrained(folder).architectures or ["nothing named in its config.json"]
    if architectures[0] not in CLASSIFIERS:
        raise ValueError(f"only {' and '.join(CLASSIFIERS)} can be exported, and {name} is {architectures[0]}.")
    return load_whole_model(CLASSIFIERS[architectures[0]], folder, dtype=torch.float32)


def _write(model: nn.Module, file: Path, opset: int) -> None:
    inputs = random_inputs(model, _EXPORT_SIZE)
    batch = torch.export.Dim("batch_size", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own workings
        program = torch.onnx.export(
            _Logits(model).eval(),
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=["logits"],
            # of the arguments in order: the landmarks may be missing
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=opset,
            verbose=False,
        )
        program.save(file)
    _strip_traces(file)


def _strip_traces(file: Path) -> None:
    """Takes out what the exporter notes of the code that it traced: stack traces with the paths of this machine."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    _clear_notes(model)
    onnx.save(model, file)


def _clear_notes(message: "Message") -> None:
    """Of the model, its graphs, nodes, functions, values and tensors, also of those within nodes."""
    for field in ("doc_string", "metadata_props"):
        if field in message.DESCRIPTOR.fields_by_name:
            message.ClearField(field)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                _clear_notes(part)


def _quantize(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(source)
    # older versions transpose a weight and leave its shape in this list as it was, which their checks then refuse
    del model.graph.value_info[:]
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # onnxruntime advises on the root logger
    try:
        # signed: with unsigned weights, onnxruntime took nearly twice the time on a processor with VNNI
        quantize_dynamic(
            model,
            target,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        logger.setLevel(level)


def _compare(
    file: Path, config: S2DConfig, batches: list[dict[str, torch.Tensor]], expected: torch.Tensor
) -> tuple[float, int]:
    """Largest difference of the file's logits to the expected ones, and in how many rows the class is the same."""
    run = OnnxClassifier(file, config)
    logits = torch.cat([run(**batch) for batch in batches])
    return (logits - expected).abs().max().item(), int((logits.argmax(-1) == expected.argmax(-1)).sum())


def _import_runtime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{_MISSING} ({error})") from error
    return onnxruntime


def _import_exporters() -> None:
    _import_runtime()
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{_MISSING} ({error})") from error


__all__ = ["OnnxClassifier", "OnnxReport", "export_onnx", "load_onnx", "random_inputs"]
