"""Frozen networks that turn face crops into landmark features and 68 facial points."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from .texts_s2d import listed

# Lies beside the model's weights; the image and the video processor of a folder share it.
LANDMARK_WEIGHTS_NAME = "landmark_encoder.safetensors"
NUM_LANDMARKS = 68
# From so many on, PyTorch computes 1x1 convolutions on a CPU thread by other means than matrix products, which gives a
# frame other last digits than it has alone.
_MANY_FRAMES = 16


@dataclass
class LandmarkOutput:
    """
    What a landmark encoder returns for N frames.

    Args:
        features (`torch.Tensor` of shape `(N, num_channels, feature_size, feature_size)`).
        landmarks (`torch.Tensor` of shape `(N, 68, 2)`, *optional*): The points (x, y) in the iBUG 68 order, as
            fractions of the frame's width and height: (0, 0) is its upper left and (1, 1) its lower right corner.
    """

    features: torch.Tensor
    landmarks: torch.Tensor | None = None


class LandmarkEncoder(nn.Module):
    """
    Base of the landmark encoders: frames in, features and points out.

    An encoder is always frozen and in eval mode, computes without gradients and in its own dtype and on its own
    device, and gives its results in the dtype and on the device of its input.

    Subclasses set `encoder_type` and `num_channels` and implement `_encode`; what their constructor takes stands in
    `options`.
    """

    encoder_type: str
    num_channels: int
    feature_size: int = 14
    # frames in float32, so few that what the layers hand on stays in the cache
    cpu_batch_size: int = 4

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "LandmarkEncoder":
        """Does nothing: an encoder stays in eval mode."""
        return super().train(False)

    def to_dict(self) -> dict:
        """The configuration from which [`build_landmark_encoder`] makes this encoder again, without its weights."""
        return {"type": self.encoder_type, **self.options}

    @torch.no_grad()
    def forward(
        self, pixel_values: torch.Tensor, return_landmarks: bool = False, batch_size: int | None = None
    ) -> LandmarkOutput:
        """
        Args:
            pixel_values (`torch.Tensor` of shape `(N, 3, height, width)`): RGB face crops in [0, 1], normalised with
                ImageNet's mean and standard deviation: the very `pixel_values` of the S2D models.
            return_landmarks (`bool`): Compute the points too.
            batch_size (`int`, *optional*): Frames that go through the network at a time. By default 64, and on a CPU
                4, or more in a small network or dtype: as many as stay in its cache with all that is computed of them.

        Raises:
            ValueError: if `pixel_values` are not `(N, 3, height, width)`.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            raise ValueError(f"`pixel_values` must be (N, 3, height, width), got {tuple(pixel_values.shape)}.")
        parameter = next(self.parameters())
        if batch_size is None:
            on_cpu = self.cpu_batch_size * 4 // parameter.element_size()
            batch_size = on_cpu if parameter.device.type == "cpu" else 64
        features, landmarks = [], []
        for chunk in pixel_values.split(batch_size):
            output = self._encode(chunk.to(parameter.device, parameter.dtype), return_landmarks)
            features.append(output.features)
            if output.landmarks is not None:
                landmarks.append(output.landmarks)
        return LandmarkOutput(
            features=torch.cat(features).to(pixel_values).contiguous(),
            landmarks=torch.cat(landmarks).to(pixel_values) if return_landmarks else None,
        )

    def _encode(self, frames: torch.Tensor, return_landmarks: bool) -> LandmarkOutput:
        raise NotImplementedError


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm and, unless `linear`, PReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, padding: int = 0, groups: int = 1,
        linear: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.prelu = None if linear else nn.PReLU(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv, bn = self.conv, self.bn
        if self.training:
            x = bn(conv(x))
        else:  # the norm is a part of the convolution then
            mean: Any = bn.running_mean  # which may be None by PyTorch's hints
            variance: Any = bn.running_var
            scale = bn.weight * (variance + bn.eps).rsqrt()
            weight, bias = conv.weight * scale[:, None, None, None], bn.bias - mean * scale
            is_product = conv.kernel_size == (1, 1) and conv.groups == 1 and x.device.type == "cpu"
            # a compiler would take the number of frames for a constant
            if is_product and not torch.compiler.is_compiling() and len(x) >= _MANY_FRAMES:
                x = nn.functional.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
            else:
                x = nn.functional.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        return x if self.prelu is None else self.prelu(x)


class DepthWise(nn.Module):
    """Inverted bottleneck: 1x1, 3x3 depthwise and linear 1x1 convolution, with a residual connection or a stride."""

    def __init__(self, inputs: int, outputs: int, groups: int, stride: int = 1, residual: bool = False):
        super().__init__()
        self.residual = residual
        self.conv = ConvBlock(inputs, groups)
        self.conv_dw = ConvBlock(groups, groups, kernel=3, stride=stride, padding=1, groups=groups)
        self.project = ConvBlock(groups, outputs, linear=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


class ResidualStage(nn.Module):
    """Residual `DepthWise` blocks in a row."""

    def __init__(self, channels: int, num_blocks: int, groups: int):
        super().__init__()
        self.model = nn.Sequential(*(DepthWise(channels, channels, groups, residual=True) for _ in range(num_blocks)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class LandmarkHead(nn.Module):
    """Global depthwise convolution, linear layer and batch norm: the coordinates."""

    def __init__(self, channels: int, outputs: int, size: int):
        super().__init__()
        self.conv_6_dw = ConvBlock(channels, channels, kernel=size, groups=channels, linear=True)
        self.linear = nn.Linear(channels, outputs, bias=False)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.linear(self.conv_6_dw(x).flatten(1)))


class MobileFaceNetLandmarkEncoder(LandmarkEncoder):
    """
    MobileFaceNet trained for 68 points, the landmark detector of the paper (section 3.2): 1.01 M parameters.

    The features are the output of its second residual stage, 128 channels at 14x14. The layers carry the names of the
    published checkpoints (cunjian/pytorch_face_landmark), so that their weights load as they are.

    Args:
        width (`float`): Channels of every layer relative to the published network's, for smaller ones of one's own;
            the features have `128 * width` channels.
        input_size (`int`): Height and width to which frames are resized, in pixels; the features are
            `input_size / 8` cells high and wide.

    Raises:
        ValueError: if `width` leaves a layer without a whole number of channels, or `input_size` a layer without a
            whole number of cells.
    """

    encoder_type = "mobilefacenet"

    def __init__(self, width: float = 1.0, input_size: int = 112):
        if width <= 0 or 64 * width != int(64 * width):
            raise ValueError(f"`width` must be a positive multiple of 1/64, got {width}.")
        if input_size < 16 or input_size % 16:
            raise ValueError(f"`input_size` must be a positive multiple of 16, got {input_size}.")
        changed = {"width": (width, 1.0), "input_size": (input_size, 112)}
        super().__init__(**{name: value for name, (value, published) in changed.items() if value != published})
        self.input_size = input_size
        self.feature_size = input_size // 8
        # as much memory as 4 frames take in the published network
        self.cpu_batch_size = min(max(4, round(4 * (112 / input_size) ** 2 / width)), 64)
        c64, c128, c256, c512 = (int(channels * width) for channels in (64, 128, 256, 512))
        self.num_channels = c128
        self.conv1 = ConvBlock(3, c64, kernel=3, stride=2, padding=1)
        self.conv2_dw = ConvBlock(c64, c64, kernel=3, padding=1, groups=c64)
        self.conv_23 = DepthWise(c64, c64, groups=c128, stride=2)
        self.conv_3 = ResidualStage(c64, num_blocks=4, groups=c128)
        self.conv_34 = DepthWise(c64, c128, groups=c256, stride=2)
        self.conv_4 = ResidualStage(c128, num_blocks=6, groups=c256)
        self.conv_45 = DepthWise(c128, c128, groups=c512, stride=2)
        self.conv_5 = ResidualStage(c128, num_blocks=2, groups=c256)
        self.conv_6_sep = ConvBlock(c128, c512)
        self.output_layer = LandmarkHead(c512, 2 * NUM_LANDMARKS, size=input_size // 16)
        self._freeze()

    def _encode(self, frames: torch.Tensor, return_landmarks: bool) -> LandmarkOutput:
        size = (self.input_size, self.input_size)
        frames = nn.functional.interpolate(frames, size=size, mode="bilinear", align_corners=True)
        if frames.device.type == "cpu":  # whose convolutions are faster that way
            frames = frames.contiguous(memory_format=torch.channels_last)
        features = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(frames))))
        features = self.conv_4(self.conv_34(features))
        if not return_landmarks:
            return LandmarkOutput(features)
        points = self.output_layer(self.conv_6_sep(self.conv_5(self.conv_45(features))))
        return LandmarkOutput(features, points.unflatten(1, (NUM_LANDMARKS, 2)))


class FANLandmarkEncoder(LandmarkEncoder):
    """
    The Face Alignment Network of the `face-alignment` library (Bulat & Tzimiropoulos, ICCV 2017, arXiv 1703.07332),
    which must be installed to use this class.

    Args:
        num_modules (`int`): Stacked hourglasses; 4 in the published weights.
        features (`"hidden"` or `"heatmaps"`): The 256 channels before the last heatmap layer, or the 68 heatmaps;
            64x64, averaged to 14x14 either way.

    Raises:
        ImportError: if face-alignment is not installed.
    """

    encoder_type = "fan"
    input_size = 256

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, num_modules: int = 4, features: str = "hidden"):
        if features not in ("hidden", "heatmaps"):
            raise ValueError(f'`features` must be "hidden" or "heatmaps", got {features!r}.')
        super().__init__(num_modules=num_modules, features=features)
        self.num_channels = 256 if features == "hidden" else NUM_LANDMARKS
        try:
            models = importlib.import_module("face_alignment.models")
        except ImportError as error:
            raise ImportError("The FAN landmark encoder needs face-alignment: pip install face-alignment") from error
        self.network = models.FAN(num_modules)
        mean, std = torch.tensor(IMAGENET_DEFAULT_MEAN), torch.tensor(IMAGENET_DEFAULT_STD)
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)
        self._freeze()

    @classmethod
    def from_face_alignment(cls, features: str = "hidden", path: str | Path | None = None) -> "FANLandmarkEncoder":
        """
        The published 2DFAN-4: its weights from `path`, a file as the library stores it, or else from the library's
        download cache, which fetches them once.
        """
        encoder = cls(num_modules=4, features=features)
        if path is None:
            api = importlib.import_module("face_alignment.api")
            path = api.load_file_from_url(api.models_urls["2DFAN-4"])
        encoder.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        return encoder

    def _encode(self, frames: torch.Tensor, return_landmarks: bool) -> LandmarkOutput:
        size = (self.input_size, self.input_size)
        frames = nn.functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)
        hidden = []
        last_layer = getattr(self.network, f"l{self.options['num_modules'] - 1}")
        handle = last_layer.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
        try:
            heatmaps = self.network(frames * self.std + self.mean)[-1]
        finally:
            handle.remove()
        features = hidden[0] if self.options["features"] == "hidden" else heatmaps
        return LandmarkOutput(
            nn.functional.adaptive_avg_pool2d(features, self.feature_size),
            heatmap_peaks(heatmaps) if return_landmarks else None,
        )


def heatmap_peaks(heatmaps: torch.Tensor) -> torch.Tensor:
    """
    The place of each heatmap's maximum, moved a quarter cell towards its higher neighbour in x and in y, as
    face-alignment does.

    Args:
        heatmaps (`torch.Tensor` of shape `(N, K, height, width)`).

    Returns:
        `torch.Tensor` of shape `(N, K, 2)`: (x, y) of the cells' centres, as fractions of width and height.
    """
    height, width = heatmaps.shape[-2:]
    index = heatmaps.flatten(2).argmax(dim=-1)
    x, y = index % width, index // width

    def value(columns: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return heatmaps.flatten(2).gather(2, (rows * width + columns).unsqueeze(-1)).squeeze(-1)

    shift_x = (value((x + 1).clamp(max=width - 1), y) - value((x - 1).clamp(min=0), y)).sign() * 0.25
    shift_y = (value(x, (y + 1).clamp(max=height - 1)) - value(x, (y - 1).clamp(min=0))).sign() * 0.25
    inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    points = torch.stack((x + 0.5 + shift_x * inside, y + 0.5 + shift_y * inside), dim=-1)
    return points / points.new_tensor([width, height])


LANDMARK_ENCODERS: dict[str, type[LandmarkEncoder]] = {
    encoder.encoder_type: encoder for encoder in (MobileFaceNetLandmarkEncoder, FANLandmarkEncoder)
}


def build_landmark_encoder(config: dict) -> LandmarkEncoder:
    """
    An encoder with new weights, from what [`LandmarkEncoder.to_dict`] returned.

    Raises:
        ValueError: if `config["type"]` is unknown.
    """
    options = dict(config)
    encoder_type = options.pop("type", None)
    if encoder_type not in LANDMARK_ENCODERS:
        raise ValueError(f"Unknown landmark encoder {encoder_type!r}; there are {', '.join(LANDMARK_ENCODERS)}.")
    return LANDMARK_ENCODERS[encoder_type](**options)


def save_landmark_encoder(encoder: LandmarkEncoder, folder: str | Path) -> Path:
    """
    Writes the encoder's weights into `folder`, with its configuration in the file's metadata.

    Raises:
        ValueError: if weights are NaN or infinite.
    """
    path = Path(folder) / LANDMARK_WEIGHTS_NAME
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"The landmark encoder is not saved: it is NaN or infinite in {', '.join(broken[:3])}.")
    save_file(state, path, metadata={"format": "pt", "landmark_encoder": json.dumps(encoder.to_dict())})
    return path


def load_landmark_encoder(path: str | Path, config: dict) -> LandmarkEncoder:
    """
    The encoder of `config` with the weights of the safetensors file `path`.

    Raises:
        ValueError: if the file is no safetensors file, or holds another encoder's weights.
    """
    encoder = build_landmark_encoder(config)
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    load_landmark_weights(encoder, state, path)
    return encoder


def load_landmark_weights(encoder: LandmarkEncoder, state: dict[str, torch.Tensor], source: str | Path) -> None:
    """
    Loads `state` into `encoder`; floating-point weights keep the encoder's dtype.

    Raises:
        ValueError: if names or shapes do not fit, or weights are NaN or infinite; the message names `source` and each
            of them.
    """
    own = {name: tensor for name, tensor in encoder.state_dict().items() if not _is_counter(name)}
    state = {name: tensor for name, tensor in state.items() if not _is_counter(name)}
    wrong = [f"{name}: missing" for name in own if name not in state]
    wrong += [f"{name}: unexpected" for name in state if name not in own]
    wrong += [
        f"{name}: {tuple(state[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        lines = listed(wrong, 20, between="\n  ")
        raise ValueError(f"{source} does not hold the weights of {encoder.to_dict()}:\n  {lines}")
    # in the encoder's precision, in which more numbers are infinite
    broken = [name for name, tensor in state.items() if not tensor.to(own[name].dtype).isfinite().all()]
    if broken:
        raise ValueError(f"{source} holds values that are no numbers (NaN or infinite): {', '.join(broken[:3])}.")
    encoder.load_state_dict(state, strict=False)


def _is_counter(name: str) -> bool:
    """Batch norms count their training batches; old checkpoints lack the counts, and nothing here reads them."""
    return name.endswith(".num_batches_tracked")


__all__ = [
    "FANLandmarkEncoder",
    "LandmarkEncoder",
    "LandmarkOutput",
    "MobileFaceNetLandmarkEncoder",
    "build_landmark_encoder",
    "load_landmark_encoder",
    "save_landmark_encoder",
]
