"""What a program without this package must know to run an ONNX file: written into the file, and as JSON beside it."""

import json
from pathlib import Path
from typing import Any

from transformers.image_utils import PILImageResampling, validate_preprocess_arguments

from .access_tokens_s2d import refuse_access_tokens
from .configuration_s2d import S2DConfig
from .image_processing_s2d import S2DImageProcessor
from .labels import label_names
from .video_processing_s2d import S2DVideoProcessor

Processor = S2DVideoProcessor | S2DImageProcessor

# The key of the metadata; its value is JSON.
METADATA_KEY = "s2d"
PROCESSOR_FILES: dict[type, str] = {
    S2DVideoProcessor: "video_preprocessor_config.json",
    S2DImageProcessor: "preprocessor_config.json",
}
_OWN_SETTINGS = {"face_detector", "landmark_encoder", "image_processor_type", "video_processor_type"}
# each step of the preparation, and what it needs
_STEPS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std",
)  # fmt: skip
_SIZES = ({"height", "width"}, {"shortest_edge"})


def check_preparation(processor: Processor, image_size: int, name: str | Path) -> None:
    """
    Refuses what [`describe_preparation`] can't describe, the processor can't do, or the model can't take.

    Args:
        processor (`Processor`): The processor.
        image_size (`int`): Height and width of the model's frames, in pixels.
        name (`str` or `Path`): What the user calls the model.

    Raises:
        ValueError: if a setting is missing or can't be described, or frames don't get the model's size.
    """
    file = PROCESSOR_FILES[type(processor)]
    try:
        validate_preprocess_arguments(**{setting: getattr(processor, setting) for setting in _STEPS})
    except ValueError as error:
        raise ValueError(f"the processor of {name} prepares no frames: {error} Correct its {file}.") from error
    if processor.do_resize and set(_edges(processor.size)) not in _SIZES:
        raise ValueError(
            f"the processor of {name} resizes to {_edges(processor.size)}, which ONNX files don't describe: give "
            f"`size` in its {file} either height and width or shortest_edge alone."
        )
    if isinstance(processor, S2DImageProcessor) and processor.do_pad:
        raise ValueError(
            f"the processor of {name} pads images, which ONNX files don't describe: turn `do_pad` off in its {file}."
        )
    description = describe_preparation(processor)
    setting = "size" if description["center_crop"] is None else "crop_size"
    made = description["center_crop"] or description["resize"] or {}
    if "height" not in made:
        raise ValueError(
            f"the size of the frames that the processor of {name} makes depends on the picture, and the model takes "
            f"{image_size}x{image_size}: turn `do_center_crop` on in its {file}."
        )
    if (made["height"], made["width"]) != (image_size, image_size):
        raise ValueError(
            f"the processor of {name} makes frames of {made['height']}x{made['width']} pixels, and the model takes "
            f"{image_size}x{image_size}: correct `{setting}` in its {file}."
        )


def describe_preparation(processor: Processor) -> dict[str, Any]:
    """
    How frames become `pixel_values`, in this order, and which of a video's frames are taken. Of a processor that
    [`check_preparation`] lets pass.

    Returns:
        `resize` (transformers' `size`, and how to resample; None: not at all), `center_crop` (height and width; None:
        not at all), `rescale_factor`, and `image_mean` and `image_std` of each channel; `do_crop_faces`, whether the
        face is cropped before all that; of a video processor also `frame_stride` and `fps` (both None: the frames are
        spread evenly).
    """
    resize, crop = None, None
    if processor.do_resize:
        resize = _edges(processor.size) | {
            "resample": PILImageResampling(processor.resample).name.lower(),
            "antialias": True,  # which transformers never turns off
        }
    if processor.do_center_crop:
        crop = _edges(processor.crop_size)
    description = {
        "resize": resize,
        "center_crop": crop,
        "rescale_factor": processor.rescale_factor if processor.do_rescale else 1.0,
        "image_mean": _of_channels(processor.image_mean) if processor.do_normalize else [0.0] * 3,
        "image_std": _of_channels(processor.image_std) if processor.do_normalize else [1.0] * 3,
        "do_crop_faces": bool(processor.do_crop_faces),
    }
    if isinstance(processor, S2DVideoProcessor):
        description |= {"frame_stride": processor.frame_stride, "fps": processor.fps}
    return description


def describe_model(config: S2DConfig, architecture: str) -> dict[str, Any]:
    """
    What the model's numbers mean.

    Returns:
        `architecture`, `labels` in the order of the logits, `function_to_apply` (as the pipelines call what makes
        scores of logits: `"softmax"`, `"sigmoid"` or `"none"`), `num_frames` of a clip, and `image_size`.
    """
    functions = {"regression": "none", "multi_label_classification": "sigmoid"}
    return {
        "architecture": architecture,
        "labels": list(label_names(config)),
        "function_to_apply": functions.get(config.problem_type, "softmax"),
        "num_frames": config.num_frames,
        "image_size": config.image_size,
    }


def write_metadata(file: Path, description: dict[str, Any]) -> None:
    """
    Writes a description into an ONNX file, with the names of the file's inputs and outputs, in place of the metadata
    that it has.

    Raises:
        ValueError: if there is an access token in it.
    """
    import onnx

    model = onnx.load(file, load_external_data=False)
    names = {
        "inputs": [value.name for value in model.graph.input],
        "outputs": [value.name for value in model.graph.output],
    }
    text = json.dumps(description | names)
    refuse_access_tokens(text, f"No {file.name} is written")
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, file)


def write_processor(processor: Processor, file: Path) -> None:
    """
    Writes a processor's settings without its code, which `save_pretrained` would put beside them, and without what
    else somebody may have written into its file.

    Raises:
        ValueError: if there is an access token in them.
    """
    known = _OWN_SETTINGS | set(type(processor).valid_kwargs.__annotations__)
    settings = {name: value for name, value in processor.to_dict().items() if name in known}
    write_json(settings, file)


def write_json(fields: dict[str, Any], file: Path) -> None:
    """
    Raises:
        ValueError: if there is an access token in the fields.
    """
    text = json.dumps(fields, indent=2, sort_keys=True) + "\n"
    refuse_access_tokens(text, f"No {file.name} is written")
    file.write_text(text)


def _edges(size: Any) -> dict[str, int]:
    return {name: edge for name, edge in dict(size).items() if edge is not None}


def _of_channels(values: float | list[float]) -> list[float]:
    return list(values) if isinstance(values, (list, tuple)) else [values] * 3


__all__ = [
    "METADATA_KEY",
    "PROCESSOR_FILES",
    "Processor",
    "check_preparation",
    "describe_model",
    "describe_preparation",
    "write_json",
    "write_metadata",
    "write_processor",
]
