"""
Models as ONNX files, for onnxruntime and whatever else runs ONNX: `s2d-hf export-onnx` and [`load_onnx`].

A model's file takes the `pixel_values` and `landmark_features` that the processor of the model's folder returns. For
programs without that processor, its landmark encoder is a file as well, and what it does to frames stands in the
files' metadata: `docs/onnx.md` shows how to use them.
"""

import logging
import shutil
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import AutoConfig
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from . import auto_classes  # noqa: F401
from .configuration_s2d import S2DConfig
from .image_processing_s2d import S2DImageProcessor
from .landmark_encoders_s2d import LANDMARK_WEIGHTS_NAME, LandmarkEncoder
from .model_loading import load_whole_model
from .model_sources import find_model
from .modeling_s2d import CLASSIFIERS, S2DForImageClassification, S2DForVideoClassification
from .onnx_metadata import (
    PROCESSOR_FILES,
    Processor,
    check_preparation,
    describe_model,
    describe_preparation,
    write_json,
    write_metadata,
    write_processor,
)
from .output_folder import check_output_folder
from .video_processing_s2d import S2DVideoProcessor

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnxruntime import InferenceSession

# The names that optimum and the Hub know.
MODEL_FILE = "model.onnx"
QUANTIZED_FILE = "model_quantized.onnx"
LANDMARK_FILE = "landmark_encoder.onnx"
DEFAULT_OPSET = 20  # the first with GELU

# A float32 file whose logits differ from PyTorch's by more is wrong. What an encoder gives may be far from 1, and
# counts by its size: of random frames, PyTorch's own features in float32 are off by up to 1e-4 of the largest one.
LARGEST_DIFFERENCE = 1e-3
# What the folders of models and of processors have, and those of ONNX files have not.
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin", LANDMARK_WEIGHTS_NAME)
# A compiler may take a size of 1 for a constant: exported with one size, checked with others.
_EXPORT_SIZE, _CHECK_SIZES = 2, (1, 3)

_MISSING = 'ONNX files need more libraries: pip install "s2d-hf[onnx]"'

logger = transformers_logging.get_logger(__name__)


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


@dataclass(frozen=True)
class LandmarkOnnxReport:
    """
    A landmark encoder that was written, and how far it is from PyTorch in float32.

    Args:
        file (`Path`): The ONNX file.
        feature_difference (`float`): Largest absolute difference of a landmark feature.
        feature_scale (`float`): Largest absolute feature, to judge the difference by.
        landmark_difference (`float`): Largest absolute difference of a point's coordinate, as a fraction of the
            frame's width or height.
        landmark_scale (`float`): Largest absolute coordinate.
        num_inputs (`int`): How many random frames were compared.
    """

    file: Path
    feature_difference: float
    feature_scale: float
    landmark_difference: float
    landmark_scale: float
    num_inputs: int

    def __str__(self) -> str:
        return (
            f"{self.file}, {self.file.stat().st_size / 1e6:.1f} MB. Against PyTorch in float32, on {self.num_inputs} "
            f"random frames: largest difference of a feature {self.feature_difference:.1e} (largest feature "
            f"{self.feature_scale:.2g}), of a point {self.landmark_difference:.1e} of the frame."
        )


class OnnxClassifier:
    """
    An exported model, run by onnxruntime on the CPU. A file with int8 weights takes one clip, or image, at a time: the
    clips of a batch then go through it one by one.

    Args:
        file (`Path`): The ONNX file.
        config ([`S2DConfig`]): Of the exported model, e.g. for its `id2label`.
        num_threads (`int`, *optional*): onnxruntime's threads (default: as many as PyTorch uses).

    Raises:
        ImportError: if onnxruntime is missing.
    """

    def __init__(self, file: Path, config: S2DConfig, num_threads: int | None = None):
        self.config = config
        self.session = _open_session(file, num_threads)

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
        if self.session.get_inputs()[0].shape[0] != 1:
            return torch.from_numpy(self.session.run(["logits"], feed)[0])
        rows = [{name: array[i : i + 1] for name, array in feed.items()} for i in range(len(pixel_values))]
        return torch.from_numpy(np.concatenate([self.session.run(["logits"], row)[0] for row in rows]))


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
) -> list[OnnxReport | LandmarkOnnxReport]:
    """
    Writes a model as the ONNX file `model.onnx`, for batches of any size, with its `config.json` beside it. What is
    written is first run with onnxruntime and compared with PyTorch.

    With `int8`, there is a second file, `model_quantized.onnx`: the weights of the matrix products are int8, each
    output channel with a scale of its own, and their inputs become int8 as they come, with one scale for each input
    (onnxruntime's dynamic quantisation). It is for a batch of one, so that no clip's scores depend on others.
    Processors without VNNI instructions may add such products up with overflows, so that the error there may be larger
    than the one reported.

    A model that is named, and has landmark prompts, comes with its processor's landmark encoder,
    `landmark_encoder.onnx`: `pixel_values` `(batch_size, 3, image_size, image_size)` in, `landmark_features`
    `(batch_size, landmark_channels, landmark_size, landmark_size)` and `landmarks` `(batch_size, 68, 2)` out. Labels,
    and what the processor does to frames, stand in the files' metadata (see [`describe_model`] and
    [`describe_preparation`]) and in the processor's JSON file. Of a processor that is missing, a warning tells.

    Args:
        model (`str`, `Path` or `nn.Module`): A model's folder, its name on the Hub, or an authors' checkpoint; see
            [`find_model`]. Or an [`S2DForVideoClassification`] or [`S2DForImageClassification`] in float32 on the CPU,
            which has no processor.
        output (`str` or `Path`): The folder to write.
        int8 (`bool`): Write the file with int8 weights too.
        opset (`int`): The version of ONNX's operators.
        overwrite (`bool`): Write into a folder that isn't empty, but holds no model's weights; files of an earlier
            export there are replaced or deleted.

    Returns:
        An [`OnnxReport`] for each file of the model, the one in float32 first, and then a [`LandmarkOnnxReport`] if
        there is an encoder.

    Raises:
        FileExistsError: if `output` isn't empty and `overwrite` is False.
        ImportError: if onnx, onnxruntime or onnxscript are missing.
        OSError: if the weights of the processor's landmark encoder are missing.
        RuntimeError: if the results of a float32 file are not PyTorch's.
        ValueError: if the model is no S2D classifier, or not in float32, `output` is a model's folder, the processor
            doesn't fit the model or can't be described, or an access token stands in its settings.
    """
    output = Path(output)
    check_output_folder(output, overwrite)
    _refuse_model_folder(output)
    _import_exporters()
    processor: Processor | None = None
    preparation: dict[str, Any] = {}
    exported: Any = model
    if not isinstance(model, nn.Module):
        exported, processor, preparation = _load(find_model(model), model)
    if type(exported) not in CLASSIFIERS.values():
        raise ValueError(f"only {' and '.join(CLASSIFIERS)} can be exported, and this is a {type(exported).__name__}.")
    if {parameter.dtype for parameter in exported.parameters()} != {torch.float32}:
        raise ValueError("only models in float32 can be exported: load it with `dtype=torch.float32`.")
    batches = [random_inputs(exported, size, seed) for seed, size in enumerate(_CHECK_SIZES)]
    with torch.no_grad():
        expected = torch.cat([exported.eval()(**batch, return_dict=True).logits for batch in batches])

    with tempfile.TemporaryDirectory() as scratch:
        file, quantized = Path(scratch) / MODEL_FILE, Path(scratch) / QUANTIZED_FILE
        _write(exported, file, opset)
        reports: list[Any] = [_compare(file, exported.config, batches, expected)]
        _check_difference("model's logits", reports[0].difference, 1, output)
        if int8:
            _quantize(file, quantized)
            reports.append(_compare(quantized, exported.config, batches, expected))
        for report in reports:
            write_metadata(report.file, describe_model(exported.config, type(exported).__name__) | preparation)
        if processor is not None and processor.landmark_encoder is not None:
            encoder, encoder_file = processor.landmark_encoder, Path(scratch) / LANDMARK_FILE
            _write_encoder(encoder, exported.config.image_size, encoder_file, opset)
            write_metadata(encoder_file, {"image_size": exported.config.image_size} | preparation)
            found = _compare_encoder(encoder, exported.config.image_size, encoder_file)
            _check_difference("landmark features", found.feature_difference, found.feature_scale, output)
            _check_difference("landmarks", found.landmark_difference, found.landmark_scale, output)
            reports.append(found)
        if processor is not None:
            write_processor(processor, Path(scratch) / PROCESSOR_FILES[type(processor)])
        _write_config(exported, Path(scratch) / "config.json")
        output.mkdir(parents=True, exist_ok=True)
        for name in (MODEL_FILE, QUANTIZED_FILE, LANDMARK_FILE, *PROCESSOR_FILES.values()):
            for old in (output / name, output / f"{name}.data"):
                old.unlink(missing_ok=True)
        for part in sorted(Path(scratch).iterdir()):
            shutil.move(part, output / part.name)
    return [replace(report, file=output / report.file.name) for report in reports]


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


def _refuse_model_folder(folder: Path) -> None:
    """
    Raises:
        ValueError: if weights lie in the folder, whose configuration and processors' files would be lost.
    """
    weights = [path.name for pattern in _WEIGHTS for path in sorted(folder.resolve().glob(pattern))]
    if weights:
        raise ValueError(
            f"{folder} holds a model's weights ({weights[0]}), whose settings would be replaced or deleted: name "
            "another folder."
        )


def _write_config(model: Any, file: Path) -> None:
    """Without the model's code, which `save_pretrained` would put beside it."""
    fields = model.config.to_dict() | {"architectures": [type(model).__name__]}
    for name in ("auto_map", "_name_or_path"):  # the latter may be a folder of this machine
        fields.pop(name, None)
    write_json(fields, file)


class _Logits(nn.Module):
    """The model with tensors in and out."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor, landmark_features: torch.Tensor | None = None) -> torch.Tensor:
        return self.model(pixel_values, landmark_features, return_dict=True).logits


class _Landmarks(nn.Module):
    """A landmark encoder with tensors in and out."""

    def __init__(self, encoder: LandmarkEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        # its `forward` cuts a batch into pieces, whose number would be fixed in the file
        output = self.encoder._encode(pixel_values, return_landmarks=True)
        return output.features.contiguous(), output.landmarks


def _load(
    folder: str, name: str | Path
) -> tuple[S2DForVideoClassification | S2DForImageClassification, Processor | None, dict[str, Any]]:
    """
    A model, the processor of its task, if it has one, without a landmark encoder where it takes no landmarks, and what
    the folder's processors do to frames.
    """
    architectures = AutoConfig.from_pretrained(folder).architectures or ["nothing named in its config.json"]
    if architectures[0] not in CLASSIFIERS:
        raise ValueError(f"only {' and '.join(CLASSIFIERS)} can be exported, and {name} is {architectures[0]}.")
    model = load_whole_model(CLASSIFIERS[architectures[0]], folder, dtype=torch.float32)
    processor_class = S2DVideoProcessor if isinstance(model, S2DForVideoClassification) else S2DImageProcessor
    settings_file = PROCESSOR_FILES[processor_class]
    if cached_file(folder, settings_file, _raise_exceptions_for_missing_entries=False) is None:
        logger.warning(
            f"{name} has no {settings_file}: the ONNX files don't say how frames are prepared, and there is no "
            f"{LANDMARK_FILE}."
        )
        return model, None, {}
    takes_landmarks = model.config.prompt_type != "none"
    processor = processor_class.from_pretrained(folder, **({} if takes_landmarks else {"landmark_encoder": None}))
    if takes_landmarks and processor.landmark_encoder is None:
        logger.warning(f"The {settings_file} of {name} names no landmark encoder: there is no {LANDMARK_FILE}.")
    _check_processor(processor, model.config, name)
    preparation = describe_preparation(processor)
    if isinstance(processor, S2DImageProcessor):
        preparation |= _describe_sampling(folder, name, model.config, preparation)
    return model, processor, preparation


def _describe_sampling(
    folder: str, name: str | Path, config: S2DConfig, preparation: dict[str, Any]
) -> dict[str, float | None]:
    """Which of a video's frames an image model is given: by the video processor of its folder, if it has one."""
    video_file, image_file = PROCESSOR_FILES[S2DVideoProcessor], PROCESSOR_FILES[S2DImageProcessor]
    if cached_file(folder, video_file, _raise_exceptions_for_missing_entries=False) is None:
        return {}
    processor = S2DVideoProcessor.from_pretrained(folder, landmark_encoder=None)
    check_preparation(processor, config.image_size, name)
    description = describe_preparation(processor)
    others = [key for key, value in preparation.items() if description[key] != value]
    if others:
        logger.warning(
            f"The {video_file} of {name} prepares frames in another way than its {image_file}, which the ONNX files "
            f"describe: {', '.join(others)}."
        )
    return {key: value for key, value in description.items() if key not in preparation}


def _check_processor(processor: Processor, config: S2DConfig, name: str | Path) -> None:
    """
    Raises:
        ValueError: if the processor gives something of another shape than the model takes, or can't be described.
    """
    check_preparation(processor, config.image_size, name)
    if isinstance(processor, S2DVideoProcessor) and processor.num_frames != config.num_frames:
        raise ValueError(
            f"the processor of {name} takes {processor.num_frames or 'all'} frames of a video, and the model takes "
            f"{config.num_frames}: correct `num_frames` in its {PROCESSOR_FILES[S2DVideoProcessor]}."
        )
    encoder = processor.landmark_encoder
    if encoder is None:
        return
    given = (encoder.num_channels, encoder.feature_size)
    if given != (config.landmark_channels, config.landmark_size):
        raise ValueError(
            f"the landmark encoder of {name} gives features of {given[0]} channels and {given[1]}x{given[1]} cells, "
            f"and the model takes {config.landmark_channels} channels and {config.landmark_size}x"
            f"{config.landmark_size} cells: it is another model's."
        )


def _write(model: Any, file: Path, opset: int) -> None:
    _export(_Logits(model).eval(), random_inputs(model, _EXPORT_SIZE), ["logits"], file, opset)


def _write_encoder(encoder: LandmarkEncoder, image_size: int, file: Path, opset: int) -> None:
    inputs = {"pixel_values": _random_frames(_EXPORT_SIZE, image_size)}
    _export(_Landmarks(encoder), inputs, ["landmark_features", "landmarks"], file, opset)


def _export(module: nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str], file: Path, opset: int) -> None:
    batch = torch.export.Dim("batch_size", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own workings
        program: Any = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=outputs,
            # of the arguments in order: the landmarks may be missing
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=opset,
            verbose=False,
        )
        program.save(file)
    _strip_traces(file)


def _random_frames(batch_size: int, image_size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(seed))


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
    # the scale of an input is that of all its clips
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime advises on the root logger
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
        root.setLevel(level)


def _compare(
    file: Path, config: S2DConfig, batches: list[dict[str, torch.Tensor]], expected: torch.Tensor
) -> OnnxReport:
    """The file's logits beside the expected ones."""
    run = OnnxClassifier(file, config)
    logits = torch.cat([run(**batch) for batch in batches])
    return OnnxReport(
        file,
        difference=(logits - expected).abs().max().item(),
        scale=expected.abs().max().item(),
        agreement=int((logits.argmax(-1) == expected.argmax(-1)).sum()),
        num_inputs=len(expected),
    )


def _compare_encoder(encoder: LandmarkEncoder, image_size: int, file: Path) -> LandmarkOnnxReport:
    """The file's features and points beside the encoder's."""
    session = _open_session(file)
    expected, found = [], []
    for seed, size in enumerate(_CHECK_SIZES):
        frames = _random_frames(size, image_size, seed)
        output = encoder(frames, return_landmarks=True)
        expected.append((output.features, output.landmarks))
        arrays = session.run(["landmark_features", "landmarks"], {"pixel_values": frames.numpy()})
        found.append([torch.from_numpy(array) for array in arrays])
    (features, points), (found_features, found_points) = (
        [torch.cat(parts) for parts in zip(*pairs, strict=True)] for pairs in (expected, found)
    )
    return LandmarkOnnxReport(
        file,
        feature_difference=(found_features - features).abs().max().item(),
        feature_scale=features.abs().max().item(),
        landmark_difference=(found_points - points).abs().max().item(),
        landmark_scale=points.abs().max().item(),
        num_inputs=len(features),
    )


def _check_difference(what: str, difference: float, scale: float, output: Path) -> None:
    """
    Raises:
        RuntimeError: if it is too large.
    """
    allowed = LARGEST_DIFFERENCE * scale
    if not difference <= allowed:  # nor if it is not a number
        raise RuntimeError(
            f"the exported {what} differ from PyTorch's by {difference:.1e}, which is more than {allowed:.1g}: "
            f"nothing was written to {output}."
        )


def _open_session(file: Path, num_threads: int | None = None) -> "InferenceSession":
    runtime = _import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads() if num_threads is None else num_threads
    return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


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


__all__ = ["LandmarkOnnxReport", "OnnxClassifier", "OnnxReport", "export_onnx", "load_onnx", "random_inputs"]
