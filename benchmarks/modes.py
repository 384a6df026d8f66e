"""
The ways to run a model that are compared: precisions, oneDNN, compilers, attention, placement, int8 weights and ONNX.

A mode's `prepare` changes the model that it is given, so give it a copy, and returns what takes `pixel_values` and
`landmark_features` and returns the logits. It may take minutes. It raises an error where the mode can't run.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from s2d_hf import S2DForVideoClassification
from s2d_hf.fast_cpu import FastLinear, use_fast_cpu

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Mode:
    """
    A way to run a model.

    Args:
        name (`str`): As the command and the tables call it.
        prepare: Takes a float32 model in eval mode and returns its forward pass.
        needs (`str`, *optional*): The package or hardware without which `prepare` raises an error.
        precision_note (`str`): What is computed in which precision.
    """

    name: str
    prepare: Callable[[S2DForVideoClassification], Forward]
    needs: str | None
    precision_note: str


def eager(model: S2DForVideoClassification, dtype: torch.dtype) -> Forward:
    """The forward pass of a model as it is, in a precision."""
    model = model.to(dtype)

    def forward(pixel_values: torch.Tensor, landmark_features: torch.Tensor) -> torch.Tensor:
        return model(pixel_values.to(dtype), landmark_features.to(dtype)).logits

    return forward


def fast_path(model: nn.Module) -> nn.Module:
    """
    A model whose large linear layers ask oneDNN; it is changed in place.

    Raises:
        RuntimeError: if the model is not on a CPU, or the environment turns the fast path off.
    """
    if next(model.parameters()).device.type != "cpu":
        raise RuntimeError("the model is not on a CPU")
    use_fast_cpu(model)
    if not any(isinstance(module, FastLinear) for module in model.modules()):
        raise RuntimeError("the environment variable S2D_FAST_CPU=0 turns the fast path off")
    return model


def _fast_path(model: S2DForVideoClassification, dtype: torch.dtype) -> Forward:
    return eager(fast_path(model), dtype)


def _compile_blocks(model: S2DForVideoClassification, dtype: torch.dtype) -> Forward:
    """Every block and prompt layer by itself: equal ones share their code, so that a cold start takes less."""
    _allow_recompiling()
    for layer in [*model.s2d.layers, *model.s2d.prompt_layers]:
        layer.compile(fullgraph=True, dynamic=False)
    return eager(model, dtype)


def _compile_whole(model: S2DForVideoClassification, dtype: torch.dtype, **options: bool) -> Forward:
    _allow_recompiling()
    return torch.compile(eager(model, dtype), fullgraph=True, dynamic=False, options=options)


def _allow_recompiling() -> None:
    """PyTorch's limit is per function, and all sizes and modes of a run share the blocks' functions."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)


def _compile_frozen(model: S2DForVideoClassification, dtype: torch.dtype) -> Forward:
    """With the weights as constants, which are then laid out as the matrix products want them."""
    if next(model.parameters()).device.type != "cpu":
        return _compile_whole(model, dtype)
    return _compile_whole(model, dtype, freezing=True)


def _compile_cuda_graphs(model: S2DForVideoClassification, dtype: torch.dtype) -> Forward:
    """What `mode="reduce-overhead"` is: all kernels of a forward pass launched at once."""
    _demand_cuda(model)
    compiled = _compile_whole(model, dtype, **{"triton.cudagraphs": True})

    def forward(pixel_values: torch.Tensor, landmark_features: torch.Tensor) -> torch.Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        # the graph's next run writes where this one's result lies
        return compiled(pixel_values, landmark_features).clone()

    return forward


def precision_of(name: str) -> str | None:
    """The precision that a name tells, of a mode or another candidate, float32 by default; `None` for integers."""
    if "int8" in name:
        return None
    return next((precision for precision in ("bfloat16", "float16") if precision in name), "float32")


def _float16(model: S2DForVideoClassification) -> Forward:
    _demand_cuda(model)
    return eager(model, torch.float16)


def _flash_attention(model: S2DForVideoClassification) -> Forward:
    _demand_cuda(model)
    model = model.to(torch.bfloat16)  # it refuses float32
    model.set_attn_implementation("flash_attention_2")
    return eager(model, torch.bfloat16)


def _device_map(model: S2DForVideoClassification) -> Forward:
    """Loaded from a folder, with its modules where accelerate puts them: on a CPU there is one place."""
    where = "auto" if next(model.parameters()).device.type == "cuda" else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        placed = type(model).from_pretrained(folder, device_map=where)
    return eager(placed.eval(), torch.float32)


def _int8_torchao(model: S2DForVideoClassification) -> Forward:
    """
    The linear layers of the ViT blocks, compiled: without, the scales are computed and applied in passes of their own.
    """
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    for layer in model.s2d.layers:
        quantize_(layer, Int8DynamicActivationInt8WeightConfig(), filter_fn=_is_linear)
    return _compile_blocks(model, torch.float32)


def _is_linear(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear)


def _onnx(model: S2DForVideoClassification, int8: bool) -> Forward:
    if next(model.parameters()).device.type != "cpu":
        raise RuntimeError("ONNX files are measured on the CPU only")
    from s2d_hf.onnx_export import export_onnx, load_onnx

    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, folder, int8=int8)
        return load_onnx(folder, int8=int8)


def _demand_cuda(model: S2DForVideoClassification) -> None:
    if next(model.parameters()).device.type != "cuda":
        raise RuntimeError("the model is not on a CUDA device")


_BFLOAT16 = "weights and intermediate results in bfloat16; attention's sums and softmax in float32"
_BFLOAT16_EAGER = "weights and intermediate results in bfloat16; on a CPU, attention's scores, too"
_INT8 = "weights int8 per channel, their inputs int8 {inputs} as they come; the rest in float32"

_ALL = (
    Mode("float32", partial(eager, dtype=torch.float32), None, "float32"),
    Mode("float32-fast-path", partial(_fast_path, dtype=torch.float32), "a CPU", "float32"),
    Mode("float32-compiled-blocks", partial(_compile_blocks, dtype=torch.float32), "a C++ compiler", "float32"),
    Mode("float32-compiled", partial(_compile_frozen, dtype=torch.float32), "a C++ compiler", "float32"),
    Mode("onnx-float32", partial(_onnx, int8=False), 'pip install "s2d-hf[onnx]"', "float32"),
    Mode("bfloat16", partial(eager, dtype=torch.bfloat16), None, _BFLOAT16_EAGER),
    Mode("bfloat16-fast-path", partial(_fast_path, dtype=torch.bfloat16), "a CPU", _BFLOAT16_EAGER),
    Mode("bfloat16-compiled-blocks", partial(_compile_blocks, dtype=torch.bfloat16), "a C++ compiler", _BFLOAT16),
    Mode("bfloat16-compiled", partial(_compile_frozen, dtype=torch.bfloat16), "a C++ compiler", _BFLOAT16),
    Mode("bfloat16-cuda-graphs", partial(_compile_cuda_graphs, dtype=torch.bfloat16), "a CUDA device", _BFLOAT16),
    Mode("float16", _float16, "a CUDA device", _BFLOAT16.replace("bfloat16", "float16")),
    Mode("bfloat16-flash-attention", _flash_attention, "a CUDA device, pip install flash-attn", _BFLOAT16),
    Mode("float32-device-map", _device_map, "pip install accelerate", "float32"),
    Mode("int8-torchao", _int8_torchao, "pip install torchao, and a C++ compiler", _INT8.format(inputs="per token")),
    Mode("onnx-int8", partial(_onnx, int8=True), 'pip install "s2d-hf[onnx]"', _INT8.format(inputs="per clip")),
)
MODES: dict[str, Mode] = {mode.name: mode for mode in _ALL}

__all__ = ["MODES", "Forward", "Mode", "eager", "fast_path", "precision_of"]
