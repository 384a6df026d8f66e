"""From the authors' checkpoints to a model folder."""

import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .configuration_s2d import S2DConfig
from .frames_s2d import natural_order
from .image_processing_s2d import S2DImageProcessor
from .landmark_encoders_s2d import LandmarkEncoder, MobileFaceNetLandmarkEncoder, load_landmark_weights
from .modeling_s2d import S2DForImageClassification, S2DForVideoClassification
from .output_folder import check_output_folder
from .video_processing_s2d import S2DVideoProcessor

# Names of the authors' code and ours, by the part of the model, in the order in which a report lists them. {i} stands
# for the index of a block, {p} for weight or bias.
_NAMES = {
    "ViT": {
        "patch_embed.proj.{p}": "s2d.embeddings.patch_embeddings.{p}",
        "cls_token": "s2d.embeddings.cls_token",
        "pos_embed": "s2d.embeddings.position_embeddings",
        "blocks.{i}.norm1.{p}": "s2d.layers.{i}.layernorm_before.{p}",
        "blocks.{i}.attn.qkv.{p}": "s2d.layers.{i}.attention.qkv.{p}",
        "blocks.{i}.attn.proj.{p}": "s2d.layers.{i}.attention.proj.{p}",
        "blocks.{i}.norm2.{p}": "s2d.layers.{i}.layernorm_after.{p}",
        "blocks.{i}.mlp.fc1.{p}": "s2d.layers.{i}.mlp.fc1.{p}",
        "blocks.{i}.mlp.fc2.{p}": "s2d.layers.{i}.mlp.fc2.{p}",
    },
    "landmark embedding": {"patch_embed_prompt.proj.{p}": "s2d.landmark_embeddings.{p}"},
    "prompters (MCP)": {
        "prompt_norms.{i}.{p}": "s2d.prompt_norms.{i}.{p}",
        "prompt_blocks.{i}.conv0_0.{p}": "s2d.prompt_layers.{i}.prompter.appearance_proj.{p}",
        "prompt_blocks.{i}.conv0_1.{p}": "s2d.prompt_layers.{i}.prompter.landmark_proj.{p}",
        "prompt_blocks.{i}.fovea.smooth": "s2d.prompt_layers.{i}.prompter.fovea_scale",
        "prompt_blocks.{i}.conv1x1.{p}": "s2d.prompt_layers.{i}.prompter.output_proj.{p}",
    },
    "temporal adapters (TMA)": {
        "prompt_blocks.{i}.TMA.T_Adapter.D_fc1.{p}": "s2d.prompt_layers.{i}.temporal_adapter.temporal_down.{p}",
        "prompt_blocks.{i}.TMA.T_Adapter.attn.qkv.{p}": (
            "s2d.prompt_layers.{i}.temporal_adapter.temporal_attention.qkv.{p}"
        ),
        "prompt_blocks.{i}.TMA.T_Adapter.attn.proj.{p}": (
            "s2d.prompt_layers.{i}.temporal_adapter.temporal_attention.proj.{p}"
        ),
        "prompt_blocks.{i}.TMA.T_Adapter.D_fc2.{p}": "s2d.prompt_layers.{i}.temporal_adapter.temporal_up.{p}",
        "prompt_blocks.{i}.TMA.norm.{p}": "s2d.prompt_layers.{i}.temporal_adapter.layernorm.{p}",
        "prompt_blocks.{i}.TMA.S_Adapter.D_fc1.{p}": "s2d.prompt_layers.{i}.temporal_adapter.spatial_down.{p}",
        "prompt_blocks.{i}.TMA.S_Adapter.D_fc2.{p}": "s2d.prompt_layers.{i}.temporal_adapter.spatial_up.{p}",
    },
    "temporal embedding": {"temporal_embedding": "s2d.embeddings.temporal_embeddings"},
    "final norm": {"ln_post.{p}": "s2d.layernorm.{p}"},
    "classifier": {"head.fc_cls.{p}": "classifier.{p}"},
}


def _rename(name: str, template: str, target: str) -> str | None:
    """`name` in the form of `target`, if it has the form of `template`."""
    pattern = re.escape(template).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{p\}", "(?P<p>weight|bias)")
    match = re.fullmatch(pattern, name)
    return target.format(**match.groupdict()) if match else None


def _our_name(name: str) -> tuple[str, str] | None:
    """The part of the model that a tensor of the authors belongs to, and our name for it."""
    for part, names in _NAMES.items():
        for theirs, ours in names.items():
            renamed = _rename(name, theirs, ours)
            if renamed is not None:
                return part, renamed
    return None


@dataclass
class ConversionReport:
    """
    What became of each tensor of a checkpoint.

    Args:
        mapped (`dict[str, list[tuple[str, str]]]`): For each part of the model, the pairs of old and new names.
        dropped (`dict[str, str]`): Tensors that were left out, and why.
        notes (`list[str]`): What else the user should know.
    """

    mapped: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = sum(len(pairs) for pairs in self.mapped.values())
        lines = [f"Mapped {total} tensors:"]
        width = max(len(part) for part in self.mapped)
        for part, pairs in self.mapped.items():
            old, new = pairs[0]
            lines.append(f"  {part:{width}}  {len(pairs):4}  e.g. {old} -> {new}")
        lines.append(f"Dropped {len(self.dropped)} tensors{':' if self.dropped else '.'}")
        lines += [f"  {name}: {reason}" for name, reason in self.dropped.items()]
        return "\n".join(lines + [f"Note: {note}" for note in self.notes])


def read_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """
    The named tensors of a `.pth`, `.pth.tar`, `.pt`, `.bin` or `.safetensors` file.

    A state dict is found at the top or under `model`, `model_state_dict` or `state_dict`; the `module.` that
    DataParallel puts before the names is taken away.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, holds no state dict, or is a pickle of more than tensors and plain
            values, which could run code when it is loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {path}.")
    if path.suffix == ".safetensors":
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    else:
        state = _find_state_dict(_load_tensors_only(path), path)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _load_tensors_only(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"it refers to `{found.group(1)}`" if found else str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} was refused: it is not just tensors and plain values ({what}), and loading such a pickle can "
            "run any code. If you trust its source, load it there with torch.load(..., weights_only=False) and save "
            "its state dict alone: torch.save({'model': state_dict}, path)."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a readable PyTorch checkpoint: {error}") from error


def _find_state_dict(loaded: object, path: Path) -> dict[str, torch.Tensor]:
    for key in ("model", "model_state_dict", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    tensors = {}
    if isinstance(loaded, dict):
        tensors = {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(
            f"{path} holds no state dict, neither at its top nor under model, model_state_dict, state_dict."
        )
    return tensors


def infer_config(
    state: dict[str, torch.Tensor],
    labels: tuple[str, ...] | None = None,
    num_attention_heads: int | None = None,
    adapter_num_heads: int = 8,
) -> S2DConfig:
    """
    The configuration that the shapes of an official checkpoint tell.

    Args:
        state (`dict[str, torch.Tensor]`): Tensors under the authors' names.
        labels (`tuple[str, ...]`, *optional*): Names of the classes, in order.
        num_attention_heads (`int`, *optional*): Heads of the ViT, which no shape tells; `hidden_size / 64`, as in
            every published ViT, if not given.
        adapter_num_heads (`int`): Heads of the temporal adapters.

    Raises:
        ValueError: if tensors are missing that every S2D model has, or `labels` don't fit the classifier.
    """
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight")
    missing = [name for name in needed if name not in state]
    if missing:
        raise ValueError(f"This is no S2D checkpoint: it has no {', '.join(missing)}.")
    hidden_size = state["cls_token"].shape[-1]
    patch_size = state["patch_embed.proj.weight"].shape[-1]
    grid = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    fields = {
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "num_channels": state["patch_embed.proj.weight"].shape[1],
        "hidden_size": hidden_size,
        "num_hidden_layers": _count(state, r"blocks\.(\d+)\."),
        "num_attention_heads": num_attention_heads or max(1, hidden_size // 64),
        "intermediate_size": state["blocks.0.mlp.fc1.weight"].shape[0],
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "temporal_adapters": "temporal_embedding" in state,
    }
    prompts = _count(state, r"prompt_blocks\.(\d+)\.conv0_0\.")
    fields["prompt_type"] = "none"
    if prompts:
        is_shallow = prompts == 1 and fields["num_hidden_layers"] > 1
        fields["prompt_type"] = "shallow" if is_shallow else "deep"
        if "patch_embed_prompt.proj.weight" not in state:
            raise ValueError(
                "This checkpoint has prompters, but no landmark embedding (patch_embed_prompt.proj.weight)."
            )
        fields["landmark_channels"] = state["patch_embed_prompt.proj.weight"].shape[1]
        fields["prompt_hidden_size"] = state["prompt_blocks.0.conv0_0.weight"].shape[0]
    if fields["temporal_adapters"]:
        fields["num_frames"] = state["temporal_embedding"].shape[1]
        down = state.get("prompt_blocks.0.TMA.T_Adapter.D_fc1.weight")
        if down is None:
            raise ValueError(
                "This checkpoint has a temporal embedding, but no temporal adapters (prompt_blocks.*.TMA)."
            )
        fields["adapter_ratio"] = down.shape[0] / hidden_size
        fields["adapter_num_heads"] = adapter_num_heads
    head = state.get("head.fc_cls.weight", state.get("head.weight"))
    # without a classifier, as many as there are labels, or transformers' default
    num_labels = head.shape[0] if head is not None else len(labels or ()) or 2
    if labels is not None:
        if len(labels) != num_labels:
            raise ValueError(
                f"The checkpoint's classifier has {num_labels} classes, but {len(labels)} labels were given: "
                f"{', '.join(labels)}."
            )
        fields["id2label"] = dict(enumerate(labels))
        fields["label2id"] = {label: i for i, label in enumerate(labels)}
    else:
        fields["num_labels"] = num_labels
    return S2DConfig(**fields)


def _count(state: dict[str, torch.Tensor], pattern: str) -> int:
    found = [int(match.group(1)) for match in (re.match(pattern, name) for name in state) if match]
    return max(found, default=-1) + 1


def convert_state_dict(
    state: dict[str, torch.Tensor], config: S2DConfig
) -> tuple[dict[str, torch.Tensor], ConversionReport]:
    """
    Renames an official state dict to `S2DForVideoClassification`'s or `S2DForImageClassification`'s names.

    Returns:
        the new state dict, and the report of what was mapped and what was dropped and why.

    Raises:
        ValueError: if a tensor is of an unknown name, missing, or of another shape than `config` asks for; the
            message names each of them.
    """
    state, report = dict(state), ConversionReport()
    has_classifier = "head.fc_cls.weight" in state
    for kind in ("weight", "bias"):
        if f"norm.{kind}" in state and f"ln_post.{kind}" not in state:  # how image checkpoints name it
            state[f"ln_post.{kind}"] = state.pop(f"norm.{kind}")
        if f"head.{kind}" in state and not has_classifier:
            state[f"head.fc_cls.{kind}"] = state.pop(f"head.{kind}")
            report.notes.append(f"head.{kind} was taken as the classifier, for want of head.fc_cls.{kind}.")
    converted, unknown = {}, []
    mapped: dict[str, list[tuple[str, str]]] = {part: [] for part in _NAMES}
    for name in sorted(state, key=natural_order):
        reason = _reason_to_drop(name, state, config)
        if reason:
            report.dropped[name] = reason
            continue
        renamed = _our_name(name)
        if renamed is None:
            unknown.append(name)
            continue
        part, new_name = renamed
        tensor = state[name]
        # 1x1 convolutions became matrix products
        converted[new_name] = tensor.flatten(1) if _is_pointwise(name) and tensor.ndim == 4 else tensor
        mapped[part].append((name, new_name))
    report.mapped = {part: pairs for part, pairs in mapped.items() if pairs}
    _refuse_misfits(state, converted, unknown, config, report)
    return converted, report


def _is_pointwise(name: str) -> bool:
    """Whether a tensor of the authors is the kernel of a 1x1 convolution."""
    return re.fullmatch(r"(prompt_blocks\.\d+\.conv\w+|patch_embed_prompt\.proj)\.weight", name) is not None


def export_state_dict(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    The way back: a classifier's state dict under the authors' names and in their shapes, for their code.

    Raises:
        ValueError: if a tensor has no name there.
    """
    exported = {}
    for name, tensor in state.items():
        found = (_rename(name, ours, theirs) for names in _NAMES.values() for theirs, ours in names.items())
        official = next((candidate for candidate in found if candidate is not None), None)
        if official is None:
            raise ValueError(f"{name} has no name in the authors' code.")
        exported[official] = tensor[..., None, None] if _is_pointwise(official) else tensor
    return exported


def _reason_to_drop(name: str, state: dict[str, torch.Tensor], config: S2DConfig) -> str | None:
    if "landmark" in name:
        return "landmark detector; its weights are given separately"
    if name.startswith("weak_head."):
        return "a head that only the authors' training uses"
    if re.fullmatch(r"head\.(weight|bias)", name):
        return "another head; head.fc_cls is the classifier"
    if re.fullmatch(r"norm\.(weight|bias)", name):
        return "another norm; ln_post is the final norm"
    norm = re.fullmatch(r"prompt_norms\.(\d+)\.(weight|bias)", name)
    if norm and int(norm.group(1)) >= config.num_prompt_layers:
        return f'never used with prompt_type "{config.prompt_type}"'
    if ".TMA." in name and not config.temporal_adapters:
        return "temporal adapter without a temporal embedding: an image model has none"
    if name.startswith("patch_embed_prompt.") and config.prompt_type == "none":
        return "landmark embedding without prompters"
    return None


def _refuse_misfits(
    state: dict[str, torch.Tensor],
    converted: dict[str, torch.Tensor],
    unknown: list[str],
    config: S2DConfig,
    report: ConversionReport,
) -> None:
    with torch.device("meta"):
        expected = _model_class(config)(config).state_dict()
    old_names = {new: old for pairs in report.mapped.values() for old, new in pairs}
    problems = [f"{name} {tuple(state[name].shape)}: unknown name" for name in unknown]
    problems += [
        f"{old_names[name]}: shape {tuple(state[old_names[name]].shape)}, expected {tuple(expected[name].shape)}"
        for name, tensor in converted.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    problems += [f"{old_names[name]}: has no place in this model" for name in converted if name not in expected]
    headless = not any(name.startswith("classifier.") for name in converted)
    missing = [name for name in expected if name not in converted]
    if headless:
        missing = [name for name in missing if not name.startswith("classifier.")]
        report.notes.append("the checkpoint has no classifier: the new one is random and must be trained.")
    problems += [f"{name} {tuple(expected[name].shape)}: missing" for name in missing]
    if problems:
        raise ValueError("The checkpoint does not fit:\n  " + "\n  ".join(problems))


def _model_class(config: S2DConfig) -> type[S2DForVideoClassification] | type[S2DForImageClassification]:
    return S2DForVideoClassification if config.temporal_adapters else S2DForImageClassification


def read_landmark_encoder(path: str | Path) -> LandmarkEncoder:
    """
    MobileFaceNet with the weights of an official landmark checkpoint (`.pth.tar` or `.safetensors`).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its tensors don't fit; the message names each of them.
    """
    encoder = MobileFaceNetLandmarkEncoder()
    load_landmark_weights(encoder, read_checkpoint(path), path)
    return encoder


def convert_checkpoint(
    checkpoint: str | Path,
    output: str | Path,
    landmark_weights: str | Path | None = None,
    labels: tuple[str, ...] | None = None,
    num_attention_heads: int | None = None,
    adapter_num_heads: int = 8,
    overwrite: bool = False,
    crop_faces: bool = False,
) -> ConversionReport:
    """
    Writes a model folder from an official checkpoint: weights, configuration, image and video processor, landmark
    encoder and code.

    Args:
        checkpoint (`str` or `Path`): The authors' video or image model, see [`read_checkpoint`].
        output (`str` or `Path`): The folder to write.
        landmark_weights (`str` or `Path`, *optional*): The authors' landmark detector; needed unless the checkpoint
            has no prompters.
        labels (`tuple[str, ...]`, *optional*): Names of the classes, in order; `find_labels` has those of the
            benchmarks.
        num_attention_heads (`int`, *optional*), adapter_num_heads (`int`): See [`infer_config`].
        overwrite (`bool`): Write into a folder that isn't empty.
        crop_faces (`bool`): Let the processors find and crop faces unless they are told otherwise.

    Raises:
        FileExistsError: if `output` isn't empty and `overwrite` is False.
        FileNotFoundError: if an input file is missing.
        ValueError: if an input file is refused; the message says why.
    """
    output = Path(output)
    check_output_folder(output, overwrite)
    state = read_checkpoint(checkpoint)
    try:
        config = infer_config(state, labels, num_attention_heads, adapter_num_heads)
        converted, report = convert_state_dict(state, config)
    except ValueError as error:
        raise ValueError(f"{checkpoint}: {error}") from error
    encoder = None
    if landmark_weights is not None:
        encoder = read_landmark_encoder(landmark_weights)
        if config.prompt_type != "none" and encoder.num_channels != config.landmark_channels:
            raise ValueError(
                f"{checkpoint} takes landmark features of {config.landmark_channels} channels, and "
                f"{landmark_weights} gives {encoder.num_channels}."
            )
    elif config.prompt_type != "none":
        raise ValueError(f"{checkpoint} is guided by landmarks: the landmark detector's weights are needed too.")
    if num_attention_heads is None:
        report.notes.append(
            f"{config.num_attention_heads} attention heads assumed, {config.hidden_size} / 64; no tensor tells them."
        )

    model = _model_class(config)(config)
    classifier = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("classifier.")}
    model.load_state_dict({**classifier, **converted})
    model.save_pretrained(output)
    crop = {"height": config.image_size, "width": config.image_size}
    settings = {
        "landmark_encoder": encoder,
        "do_landmarks": encoder is not None,
        "do_crop_faces": crop_faces,
        "size": {"shortest_edge": config.image_size},
        "crop_size": crop,
    }
    S2DImageProcessor(**settings).save_pretrained(output)
    S2DVideoProcessor(**settings, num_frames=config.num_frames).save_pretrained(output)
    return report
