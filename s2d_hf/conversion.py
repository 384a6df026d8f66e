"""From the authors' checkpoints to a model folder."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .checkpoints import read_checkpoint
from .configuration_s2d import S2DConfig
from .downloads import find_landmark_file
from .file_names_s2d import natural_order
from .image_processing_s2d import S2DImageProcessor
from .labels import LABELS, dataset_in_name
from .landmark_encoders_s2d import LandmarkEncoder, MobileFaceNetLandmarkEncoder, load_landmark_weights
from .modeling_s2d import S2DForImageClassification, S2DForVideoClassification
from .output_folder import check_output_folder
from .texts_s2d import listed
from .video_processing_s2d import S2DVideoProcessor

# Where a checkpoint carries the whole landmark detector, its part of the report.
_DETECTOR = "landmark encoder"
# Of tensors that are dropped for one reason, a report names so many.
_MAX_NAMES = 4
_MAX_PROBLEMS = 40
# No published ViT has a quarter of so many.
_MAX_BLOCKS = 256

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


# as `str` writes it, and of few digits
_INDEX = "0|[1-9][0-9]{0,3}"


def _rename(name: str, template: str, target: str) -> str | None:
    """`name` in the form of `target`, if it has the form of `template`."""
    pattern = re.escape(template).replace(r"\{i\}", f"(?P<i>{_INDEX})").replace(r"\{p\}", "(?P<p>weight|bias)")
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
        for reason in dict.fromkeys(self.dropped.values()):
            names = [name for name, why in self.dropped.items() if why == reason]
            lines.append(f"  {listed(names, _MAX_NAMES)}: {reason}")
        return "\n".join(lines + [f"Note: {note}" for note in self.notes])


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
    needed = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
    missing = [name for name in needed if name not in state]
    if missing:
        raise ValueError(f"This is no S2D checkpoint: it has no {', '.join(missing)}.")
    _check_shapes(state, needed)
    hidden_size = state["cls_token"].shape[-1]
    patch_size = state["patch_embed.proj.weight"].shape[-1]
    grid = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    fields = {
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "num_channels": state["patch_embed.proj.weight"].shape[1],
        "hidden_size": hidden_size,
        "num_hidden_layers": _count(state, "blocks.{}.mlp.fc1.weight"),
        "num_attention_heads": num_attention_heads or max(1, hidden_size // 64),
        "intermediate_size": state["blocks.0.mlp.fc1.weight"].shape[0],
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "temporal_adapters": "temporal_embedding" in state,
    }
    prompts = _count(state, "prompt_blocks.{}.conv0_0.weight")
    fields["prompt_type"] = "none"
    if prompts:
        is_shallow = prompts == 1 and fields["num_hidden_layers"] > 1
        fields["prompt_type"] = "shallow" if is_shallow else "deep"
        if "patch_embed_prompt.proj.weight" not in state or "prompt_blocks.0.conv0_0.weight" not in state:
            raise ValueError(
                "This checkpoint has prompters, but no landmark embedding (patch_embed_prompt.proj.weight) or no "
                "prompt_blocks.0.conv0_0.weight."
            )
        _check_shapes(state, {"patch_embed_prompt.proj.weight": 4, "prompt_blocks.0.conv0_0.weight": 4})
        fields["landmark_channels"] = state["patch_embed_prompt.proj.weight"].shape[1]
        fields["prompt_hidden_size"] = state["prompt_blocks.0.conv0_0.weight"].shape[0]
    if fields["temporal_adapters"]:
        _check_shapes(state, {"temporal_embedding": 3})
        fields["num_frames"] = state["temporal_embedding"].shape[1]
        down = state.get("prompt_blocks.0.TMA.T_Adapter.D_fc1.weight")
        if down is None:
            raise ValueError(
                "This checkpoint has a temporal embedding, but no temporal adapters (prompt_blocks.*.TMA)."
            )
        _check_shapes(state, {"prompt_blocks.0.TMA.T_Adapter.D_fc1.weight": 2})
        fields["adapter_ratio"] = down.shape[0] / hidden_size
        fields["adapter_num_heads"] = adapter_num_heads
    # without a classifier, as many as there are labels, or transformers' default
    num_labels = count_classes(state) or len(labels or ()) or 2
    if labels is not None:
        if len(labels) != num_labels:
            raise ValueError(
                f"The checkpoint's classifier has {num_labels} classes, but {len(labels)} labels were given: "
                f"{', '.join(labels)}."
            )
        if len({label.strip() for label in labels} - {""}) < num_labels:
            raise ValueError(f"Each class needs a label of its own, and {', '.join(labels)} were given.")
        fields["id2label"] = dict(enumerate(labels))
        fields["label2id"] = {label: i for i, label in enumerate(labels)}
    else:
        fields["num_labels"] = num_labels
    return S2DConfig(**fields)


def count_classes(state: dict[str, torch.Tensor]) -> int | None:
    """The classes of an official checkpoint's classifier; `None` if it has none."""
    name = next((name for name in ("head.fc_cls.weight", "head.weight") if name in state), None)
    if name is None:
        return None
    _check_shapes(state, {name: 2})
    return state[name].shape[0]


def _check_shapes(state: dict[str, torch.Tensor], dimensions: dict[str, int]) -> None:
    for name, number in dimensions.items():
        shape = tuple(state[name].shape)
        if len(shape) != number or 0 in shape:
            raise ValueError(f"{name} has the shape {shape}, and should have {number} dimensions, none of them empty.")


def _count(state: dict[str, torch.Tensor], template: str) -> int:
    """
    How many blocks there are, by a tensor that each of them has.

    Raises:
        ValueError: if some are left out, or there are too many; a model must not grow with what a name says.
    """
    pattern = re.compile(re.escape(template).replace(r"\{\}", "([0-9]+)"))
    found = {match.group(1) for match in map(pattern.fullmatch, state) if match}
    wrong = found - {str(i) for i in range(min(len(found), _MAX_BLOCKS))}
    if wrong:
        number = min(wrong, key=lambda digits: (len(digits), digits))
        raise ValueError(
            f"It has {template.format(number[:20])}, but only {len(found)} of that kind: numbers must follow each "
            f"other, from 0 on, to {_MAX_BLOCKS - 1} at most."
        )
    return len(found)


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
    names_in_file = {}
    for kind in ("weight", "bias"):
        if f"norm.{kind}" in state and f"ln_post.{kind}" not in state:  # how image checkpoints name it
            names_in_file[f"ln_post.{kind}"] = f"norm.{kind}"
        if f"head.{kind}" in state and not has_classifier:
            names_in_file[f"head.fc_cls.{kind}"] = f"head.{kind}"
    state |= {name: state.pop(in_file) for name, in_file in names_in_file.items()}
    if "head.fc_cls.weight" in names_in_file:
        report.notes.append("head was taken as the classifier, for want of head.fc_cls.")
    report.mapped = {part: [] for part in _NAMES}
    if config.prompt_type != "none":
        detector, prefix = carried_landmark_detector(state)
        report.mapped[_DETECTOR] = [(f"{prefix}{name}", name) for name in detector]
        state = {name: state[name] for name in state if name.removeprefix(prefix) not in detector}
    converted, unknown = {}, []
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
        report.mapped[part].append((names_in_file.get(name, name), new_name))
    report.mapped = {part: pairs for part, pairs in report.mapped.items() if pairs}
    _refuse_misfits(converted, [f"{name} {tuple(state[name].shape)}" for name in unknown], config, report)
    return converted, report


def _is_pointwise(name: str) -> bool:
    """Whether a tensor of the authors is the kernel of a 1x1 convolution."""
    return re.fullmatch(r"(prompt_blocks\.\d+\.conv\w+|patch_embed_prompt\.proj)\.weight", name) is not None


def carried_landmark_detector(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """
    The landmark detector that an official checkpoint carries, under its own names, and the prefix that they have in
    the checkpoint; an empty one where there is none, or not all of it.
    """
    wanted = {name: tensor.shape for name, tensor in MobileFaceNetLandmarkEncoder().state_dict().items()}
    counters = {name for name in wanted if name.endswith(".num_batches_tracked")}
    first = next(iter(wanted))
    prefixes = (name.removesuffix(first) for name in state if "landmark" in name and name.endswith(f".{first}"))
    for prefix in prefixes:
        found = {name: state[f"{prefix}{name}"] for name in wanted if f"{prefix}{name}" in state}
        if found.keys() >= wanted.keys() - counters and all(found[name].shape == wanted[name] for name in found):
            return found, prefix
    return {}, ""


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
    num_layers = sum(name.endswith(".fovea.smooth") for name in exported)
    if num_layers > 1:  # the authors' last norm, which their code wants to load and never uses
        for kind, new in (("weight", torch.ones_like), ("bias", torch.zeros_like)):
            exported[f"prompt_norms.{num_layers - 1}.{kind}"] = new(exported[f"prompt_norms.0.{kind}"])
    return exported


def _reason_to_drop(name: str, state: dict[str, torch.Tensor], config: S2DConfig) -> str | None:
    if "landmark" in name:
        return "of a landmark detector that is not whole, or not needed"
    if name.startswith("weak_head."):
        return "a head that only the authors' training uses"
    if re.fullmatch(r"head\.(weight|bias)", name):
        return "another head; head.fc_cls is the classifier"
    if re.fullmatch(r"norm\.(weight|bias)", name):
        return "another norm; ln_post is the final norm"
    norm = re.fullmatch(rf"prompt_norms\.({_INDEX})\.(weight|bias)", name)
    if norm and int(norm.group(1)) >= config.num_prompt_norms:
        return f'never used with prompt_type "{config.prompt_type}"'
    if ".TMA." in name and not config.temporal_adapters:
        return "temporal adapter without a temporal embedding: an image model has none"
    if name.startswith("patch_embed_prompt.") and config.prompt_type == "none":
        return "landmark embedding without prompters"
    return None


def _refuse_misfits(
    converted: dict[str, torch.Tensor],
    unknown: list[str],
    config: S2DConfig,
    report: ConversionReport,
) -> None:
    with torch.device("meta"):
        expected = _model_class(config)(config).state_dict()
    old_names = {new: old for pairs in report.mapped.values() for old, new in pairs}
    problems = [f"{name}: unknown name" for name in unknown]
    problems += [
        f"{old_names[name]}: shape {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
        for name, tensor in converted.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    problems += [f"{old_names[name]}: has no place in this model" for name in converted if name not in expected]
    problems += [
        f"{old_names[name]}: holds values that are no numbers in float32 (NaN or infinite), or of type {tensor.dtype}"
        for name, tensor in converted.items()
        if not tensor.is_floating_point() or not tensor.float().isfinite().all()
    ]
    headless = not any(name.startswith("classifier.") for name in converted)
    missing = [name for name in expected if name not in converted]
    if headless:
        missing = [name for name in missing if not name.startswith("classifier.")]
        report.notes.append("the checkpoint has no classifier: the new one is random and must be trained.")
    problems += [f"{name} {tuple(expected[name].shape)}: missing" for name in missing]
    if problems:
        raise ValueError("The checkpoint does not fit:\n  " + listed(problems, _MAX_PROBLEMS, between="\n  "))


def _model_class(config: S2DConfig) -> type[S2DForVideoClassification] | type[S2DForImageClassification]:
    return S2DForVideoClassification if config.temporal_adapters else S2DForImageClassification


def read_landmark_encoder(path: str | Path) -> LandmarkEncoder:
    """
    MobileFaceNet with the weights of an official landmark checkpoint (`.pth.tar` or `.safetensors`), or with those
    that an official model's checkpoint carries.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its tensors don't fit; the message names each of them.
    """
    state = read_checkpoint(path)
    carried, _ = carried_landmark_detector(state)
    encoder = MobileFaceNetLandmarkEncoder()
    load_landmark_weights(encoder, carried or state, path)
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
    named: str | None = None,
    needs_labels: bool = False,
) -> ConversionReport:
    """
    Writes a model folder from an official checkpoint: weights, configuration, image and video processor, landmark
    encoder and code.

    Args:
        checkpoint (`str` or `Path`): The authors' video or image model, see [`read_checkpoint`].
        output (`str` or `Path`): The folder to write.
        landmark_weights (`str` or `Path`, *optional*): The authors' landmark detector: a file or an address, see
            [`find_landmark_file`]. A detector that the checkpoint carries is taken before it. Where there is neither,
            the authors' is downloaded.
        labels (`tuple[str, ...]`, *optional*): Names of the classes, in order; `find_labels` has those of the
            data sets. By default those of the data set that the checkpoint's name says, see [`dataset_in_name`]; if
            it says none, they are called `LABEL_0`, `LABEL_1`, ...
        num_attention_heads (`int`, *optional*), adapter_num_heads (`int`): See [`infer_config`].
        overwrite (`bool`): Write into a folder that isn't empty.
        crop_faces (`bool`): Let the processors find and crop faces unless they are told otherwise.
        named (`str`, *optional*): The checkpoint's name for messages and labels, by default `checkpoint`.
        needs_labels (`bool`): Refuse a checkpoint without classifier, or of unknown labels.

    Raises:
        FileExistsError: if `output` isn't empty and `overwrite` is False.
        FileNotFoundError: if an input file is missing.
        OSError: if the landmark detector can't be downloaded.
        ValueError: if an input file is refused; the message says why.
    """
    output = Path(output)
    check_output_folder(output, overwrite)
    state = read_checkpoint(checkpoint)
    notes = []
    try:
        if labels is None:
            labels, note = labels_in_name(named or checkpoint, count_classes(state), needs_labels)
            notes.append(note)
        config = infer_config(state, labels, num_attention_heads, adapter_num_heads)
        converted, report = convert_state_dict(state, config)
    except ValueError as error:
        raise ValueError(f"{named or checkpoint}: {error}") from error
    report.notes += filter(None, notes)
    encoder = _find_landmark_encoder(state, config, landmark_weights, report)
    if encoder is not None and config.prompt_type != "none" and encoder.num_channels != config.landmark_channels:
        raise ValueError(
            f"{named or checkpoint} takes landmark features of {config.landmark_channels} channels, and its landmark "
            f"detector gives {encoder.num_channels}."
        )
    if num_attention_heads is None:
        report.notes.append(
            f"the number of attention heads, which no tensor tells, was taken as {config.num_attention_heads}: the "
            f"width of {config.hidden_size} over 64, as in the published ViTs of this size."
        )

    crop = {"height": config.image_size, "width": config.image_size}
    settings: dict[str, Any] = {
        "landmark_encoder": encoder,
        "do_landmarks": encoder is not None,
        "do_crop_faces": crop_faces,
        "size": {"shortest_edge": config.image_size},
        "crop_size": crop,
    }
    S2DImageProcessor(**settings).save_pretrained(output)
    S2DVideoProcessor(**settings, num_frames=config.num_frames).save_pretrained(output)
    # last: a folder without a configuration is no model, should this be broken off
    model = _model_class(config)(config)
    classifier = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("classifier.")}
    model.load_state_dict({**classifier, **converted})
    model.save_pretrained(output)
    return report


def labels_in_name(
    name: str | Path, num_classes: int | None, needed: bool = False
) -> tuple[tuple[str, ...] | None, str | None]:
    """
    The labels of the data set that a checkpoint's name says, if it does so unmistakably, and a sentence that says so.

    Args:
        name (`str` or `Path`): A file, or the address `hf://...` of one.
        num_classes (`int`, *optional*): Of its classifier.
        needed (`bool`): Whether there is no use in classes without names.

    Raises:
        ValueError: if they are needed, and the name doesn't say them or the checkpoint has no classes.
    """
    if num_classes is None:
        if needed:
            raise ValueError("It has no classifier, and can only be trained on.")
        return None, None
    dataset = dataset_in_name(name, num_classes)
    if dataset is not None:
        return LABELS[dataset], (
            f"the labels are those of {dataset}, as the checkpoint's name says: {', '.join(LABELS[dataset])}. Others: "
            "`dataset` or `labels`."
        )
    ask = (
        f"A checkpoint does not hold its labels, and of the {num_classes} classes of this one its name does not say "
        "unmistakably which they are: name the `dataset` on which it was trained "
        f"({', '.join(name for name, labels in LABELS.items() if len(labels) == num_classes) or 'none is known'}) or "
        "the `labels` in their order."
    )
    if needed:
        raise ValueError(ask)
    return None, f"The classes are called LABEL_0, LABEL_1, ... {ask}"


def _find_landmark_encoder(
    state: dict[str, torch.Tensor], config: S2DConfig, given: str | Path | None, report: ConversionReport
) -> LandmarkEncoder | None:
    """The carried detector, the given one, or the authors'; `None` for a model without prompters."""
    carried, prefix = carried_landmark_detector(state)
    if carried and config.prompt_type != "none":
        if given is not None:
            report.notes.append(
                f"`landmark_weights` {given} is not used: the checkpoint carries the detector of its training."
            )
        encoder = MobileFaceNetLandmarkEncoder()
        load_landmark_weights(encoder, carried, f"{prefix}*")
        return encoder
    if given is None and config.prompt_type == "none":
        return None
    return read_landmark_encoder(find_landmark_file(given))


__all__ = [
    "ConversionReport",
    "carried_landmark_detector",
    "convert_checkpoint",
    "convert_state_dict",
    "count_classes",
    "export_state_dict",
    "infer_config",
    "labels_in_name",
    "read_landmark_encoder",
]
