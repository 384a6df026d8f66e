import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForVideoClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
)
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from s2d_hf import (
    S2DConfig,
    S2DForImageClassification,
    S2DForVideoClassification,
    S2DModel,
    modeling_s2d,
    vit_weights_s2d,
)
from s2d_hf.classification_loss_s2d import classification_loss

from .reference import reference_logits
from .small_models import TINY, random_inputs, randomise

# --- exactness


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_golden_tensors_of_the_authors_code(golden, converted, attention):
    model = AutoModelForVideoClassification.from_pretrained(converted, attn_implementation=attention)
    frames = golden["frames"].float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (frames - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        output = model(pixels, golden["landmark_features"], output_hidden_states=True)
    assert (output.logits - golden["logits"]).abs().max() < 1e-5
    assert (output.pooler_output - golden["pooled"]).abs().max() < 1e-5
    assert (output.hidden_states[-1] - golden["last_hidden_state"]).abs().max() < 1e-5


@pytest.mark.parametrize("prompt_type", ["deep", "shallow", "none"])
@pytest.mark.parametrize("temporal_adapters", [True, False])
def test_forward_equals_plain_reference(prompt_type, temporal_adapters):
    config = S2DConfig(
        **(TINY | {"landmark_size": 4, "prompt_type": prompt_type, "temporal_adapters": temporal_adapters})
    )
    model = randomise(S2DForVideoClassification(config)).eval()
    inputs = random_inputs(config, batch_size=2)
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
        logits, features = reference_logits(model.state_dict(), config, **inputs)
    torch.testing.assert_close(output.logits, logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.hidden_states[-1][:, :, 0], features, atol=1e-5, rtol=1e-5)


def test_paper_size_has_the_published_parameter_counts():
    with torch.device("meta"):
        model = S2DForVideoClassification(S2DConfig(num_labels=7))
    unused = 2 * 768  # the authors' last prompt norm, which nothing uses
    assert model.num_parameters() == 95_055_571 - unused
    model.freeze_for_video_tuning()
    assert model.num_parameters(only_trainable=True) == 9_258_451 - unused
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    adapters = sum(model.get_parameter(name).numel() for name in names if "temporal_adapter" in name)
    assert adapters == 8_891_136
    prompting = [name for name in names if "prompt" in name and "temporal_adapter" not in name]
    prompting += [name for name in names if "landmark_embeddings" in name]
    assert sum(model.get_parameter(name).numel() for name in prompting) == 348_108 - unused


def test_freezing_leaves_gradients_only_where_the_paper_tunes(tiny_video_model, tiny_inputs):
    model = tiny_video_model.freeze_for_video_tuning()
    model(**tiny_inputs, labels=torch.tensor([0, 1])).loss.backward()
    frozen = ("s2d.layers.", "s2d.embeddings.patch", "s2d.embeddings.cls_token", "s2d.embeddings.position_embeddings")
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.any(), name


# --- static to dynamic


def test_video_model_from_image_model_gives_a_still_clip_its_scores(tiny_image_model, tmp_path):
    tiny_image_model.save_pretrained(tmp_path)
    video_model = S2DForVideoClassification.from_pretrained(
        tmp_path, num_frames=6, temporal_adapters=True, adapter_init="zero"
    )
    assert video_model.config.temporal_adapters and video_model.config.num_frames == 6
    image = random_inputs(tiny_image_model.config, batch_size=3, video=False)
    clip = {name: tensor.unsqueeze(1).expand(-1, 6, -1, -1, -1) for name, tensor in image.items()}
    with torch.no_grad():
        still = video_model(**clip)
        torch.testing.assert_close(still.logits, tiny_image_model(**image).logits, atol=1e-6, rtol=1e-5)
        # the modules are there, and change the scores once they are trained
        randomise(video_model.s2d.prompt_layers)
        assert (video_model(**clip).logits - still.logits).abs().max() > 1e-2


def test_image_model_in_the_video_class_averages_frames(tiny_image_model, tmp_path):
    tiny_image_model.save_pretrained(tmp_path)
    model = S2DForVideoClassification.from_pretrained(tmp_path)
    inputs = random_inputs(model.config, batch_size=2)
    with torch.no_grad():
        pooled = torch.stack(
            [
                tiny_image_model(inputs["pixel_values"][:, t], inputs["landmark_features"][:, t]).pooler_output
                for t in range(inputs["pixel_values"].shape[1])
            ]
        ).mean(0)
        torch.testing.assert_close(model(**inputs).pooler_output, pooled, atol=1e-5, rtol=1e-5)


def test_random_adapters_change_the_image_model_at_once(tiny_image_model, tmp_path):
    tiny_image_model.save_pretrained(tmp_path)
    model = S2DForVideoClassification.from_pretrained(tmp_path, temporal_adapters=True, adapter_init="random")
    assert all(layer.temporal_adapter.spatial_up.weight.abs().max() > 0 for layer in model.s2d.prompt_layers)


@pytest.mark.parametrize("source", ["new", "image model"])
def test_new_weights_start_where_they_should(tiny_image_model, source, tmp_path):
    if source == "new":
        model = S2DForVideoClassification(S2DConfig(**(TINY | {"adapter_init": "zero", "prompt_fovea_scale": 7.0})))
    else:
        tiny_image_model.save_pretrained(tmp_path)
        model = S2DForVideoClassification.from_pretrained(tmp_path, temporal_adapters=True, adapter_init="zero")
    assert not model.s2d.embeddings.temporal_embeddings.any()
    for layer in model.s2d.prompt_layers:
        adapter = layer.temporal_adapter
        assert not adapter.spatial_up.weight.any() and not adapter.spatial_up.bias.any()
        assert adapter.layernorm.weight.eq(1).all()
        for linear in (adapter.temporal_down, adapter.temporal_up, adapter.spatial_down):
            assert 0.01 < linear.weight.std() < 0.03 and not linear.bias.any()
        assert source != "new" or layer.prompter.fovea_scale.item() == 7.0


@pytest.mark.parametrize("kind", ["vit", "vit_classifier", "vit_mae"])
def test_image_model_starts_from_vit(kind, tmp_path):
    sizes = {name: TINY[name] for name in ("image_size", "patch_size", "hidden_size", "num_hidden_layers",
                                           "num_attention_heads", "intermediate_size")}  # fmt: skip
    if kind == "vit_mae":
        source = ViTMAEForPreTraining(
            ViTMAEConfig(**sizes, decoder_hidden_size=16, decoder_num_attention_heads=2, mask_ratio=0.0)
        )
        vit = source.vit
    elif kind == "vit":
        vit = source = ViTModel(ViTConfig(**sizes), add_pooling_layer=False)
    else:
        source = ViTForImageClassification(ViTConfig(**sizes, num_labels=3))
        vit = source.vit
    randomise(source).eval().save_pretrained(tmp_path)
    labels = {0: "happy", 1: "sad"}
    model = S2DForImageClassification.from_vit_pretrained(
        tmp_path, id2label=labels, prompt_type="none", attn_implementation="eager"
    )
    assert model.config.id2label == labels and model.config._attn_implementation == "eager"
    pixels = random_inputs(model.config, batch_size=2, video=False)["pixel_values"]
    with torch.no_grad():
        ours = model(pixels, output_hidden_states=True).hidden_states[-1]
        theirs = vit(pixels, noise=torch.arange(16.0).repeat(2, 1)) if kind == "vit_mae" else vit(pixels)
    torch.testing.assert_close(ours, theirs.last_hidden_state, atol=1e-5, rtol=1e-5)


def test_only_vits_can_be_started_from(tmp_path, tiny_image_model):
    tiny_image_model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'s2d' checkpoint"):
        S2DForImageClassification.from_vit_pretrained(tmp_path)


# --- what transformers' users expect


def test_outputs_have_the_documented_shapes(tiny_config, tiny_video_model, tiny_inputs):
    tiny_video_model.set_attn_implementation("eager")
    with torch.no_grad():
        output = tiny_video_model(**tiny_inputs, output_hidden_states=True, output_attentions=True)
        plain = tiny_video_model(**tiny_inputs, return_dict=False)
    tokens = 1 + tiny_config.num_patches
    assert output.logits.shape == (2, 5)
    assert len(output.hidden_states) == 4
    assert {states.shape for states in output.hidden_states} == {(2, 4, tokens, 32)}
    assert len(output.attentions) == 3
    assert {weights.shape for weights in output.attentions} == {(2, 4, 2, tokens, tokens)}
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(2, 4, 2, tokens))
    assert isinstance(plain, tuple)
    torch.testing.assert_close(plain[0], output.logits)


def test_attentions_need_the_eager_implementation(tiny_video_model, tiny_inputs, caplog):
    tiny_video_model.set_attn_implementation("sdpa")
    modeling_s2d.logger.addHandler(caplog.handler)
    output = tiny_video_model(**tiny_inputs, output_attentions=True, output_hidden_states=True)
    assert output.attentions is None and len(output.hidden_states) == 4
    assert "set_attn_implementation('eager')" in caplog.text


def test_save_and_load_round_trip(tiny_video_model, tiny_inputs, tmp_path):
    tiny_video_model.save_pretrained(tmp_path)
    again, info = S2DForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, tensor in tiny_video_model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    with torch.no_grad():
        torch.testing.assert_close(
            again(**tiny_inputs).logits, tiny_video_model(**tiny_inputs).logits, rtol=0, atol=1e-6
        )
    backbone = S2DModel.from_pretrained(tmp_path)
    torch.testing.assert_close(backbone(**tiny_inputs).pooler_output, again(**tiny_inputs).pooler_output)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tiny_video_model, tiny_inputs, tmp_path, dtype):
    tiny_video_model.save_pretrained(tmp_path)
    model = S2DForVideoClassification.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    with torch.no_grad():
        logits = model(**tiny_inputs).logits  # float32 in, as from a processor
        expected = tiny_video_model(**tiny_inputs).logits
    assert logits.dtype == dtype
    tolerance = {torch.bfloat16: 0.15, torch.float16: 0.02}[dtype]
    assert (logits.float() - expected).abs().max() < tolerance * expected.abs().max()


def test_attention_implementations_agree(tiny_config, tiny_inputs):
    # flex attention takes heads of 16 and more, and 16 frames
    config = S2DConfig(**(TINY | {"adapter_ratio": 1.0, "num_frames": 16}))
    model = randomise(S2DForVideoClassification(config)).eval()
    inputs = random_inputs(config, batch_size=1)
    logits = {}
    for name in ("eager", "sdpa", "flex_attention"):
        model.set_attn_implementation(name)
        with torch.no_grad():
            logits[name] = model(**inputs).logits
    torch.testing.assert_close(logits["sdpa"], logits["eager"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits["flex_attention"], logits["eager"], atol=1e-4, rtol=1e-4)


def test_every_attention_goes_through_the_interface(tiny_video_model, tiny_inputs):
    seen = []

    def spy(module, query, key, value, attention_mask, **kwargs):
        seen.append((tuple(query.shape), module.is_causal, kwargs["scaling"]))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register("spy", spy)
    expected = tiny_video_model(**tiny_inputs).logits
    tiny_video_model.set_attn_implementation("spy")
    torch.testing.assert_close(tiny_video_model(**tiny_inputs).logits, expected)
    spatial, temporal = (8, 2, 17, 16), (32, 2, 4, 4)  # (sequences, heads, length, head width)
    class_tokens = (8, 2, 1, 16)  # of the last block's, the scores need no others
    assert [shape for shape, _, _ in seen] == [temporal, spatial] * 2 + [temporal, class_tokens]
    assert all(not causal for _, causal, _ in seen)
    assert {scaling for _, _, scaling in seen} == {16**-0.5, 4**-0.5}


@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(tiny_video_model, tiny_inputs, frozen):
    labels = torch.tensor([1, 3])
    models = [copy.deepcopy(tiny_video_model) for _ in range(2)]
    for model in models:
        if frozen:
            model.freeze_for_video_tuning()
        model.dropout.p = 0.0
    models[0].gradient_checkpointing_disable()
    models[1].gradient_checkpointing_enable()
    for model in models:
        model.train()(**tiny_inputs, labels=labels).loss.backward()
    assert models[1].is_gradient_checkpointing
    compared = 0
    for (name, plain), (_, saved) in zip(models[0].named_parameters(), models[1].named_parameters(), strict=True):
        assert (plain.grad is None) == (saved.grad is None), name
        if plain.grad is not None:
            torch.testing.assert_close(saved.grad, plain.grad, msg=name)
            compared += 1
    assert compared > 20


def test_compile_agrees_with_eager_without_graph_breaks(tiny_video_model, tiny_inputs):
    compiled = torch.compile(tiny_video_model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(**tiny_inputs).logits, tiny_video_model(**tiny_inputs).logits, atol=1e-5, rtol=1e-5
        )


def test_inductor_agrees_with_eager(tiny_video_model, tiny_inputs):
    compiled = torch.compile(tiny_video_model, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(**tiny_inputs).logits, tiny_video_model(**tiny_inputs).logits, atol=1e-5, rtol=1e-5
        )


def test_batch_equals_one_by_one(tiny_video_model, tiny_config):
    inputs = random_inputs(tiny_config, batch_size=4)
    with torch.no_grad():
        together = tiny_video_model(**inputs).logits
        alone = [tiny_video_model(**{k: v[i : i + 1] for k, v in inputs.items()}).logits for i in range(4)]
    assert together.std(0).min() > 1e-3  # different videos
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_order_of_frames_matters_only_with_temporal_modules(tiny_video_model, tiny_inputs):
    reverse = {name: tensor.flip(1) for name, tensor in tiny_inputs.items()}
    with torch.no_grad():
        assert (tiny_video_model(**reverse).logits - tiny_video_model(**tiny_inputs).logits).abs().max() > 1e-3
        tiny_video_model.s2d.embeddings.temporal_embeddings.zero_()
        torch.testing.assert_close(
            tiny_video_model(**reverse).logits, tiny_video_model(**tiny_inputs).logits, atol=1e-5, rtol=1e-5
        )


# --- losses


def test_a_vits_blocks_must_be_there(tmp_path, monkeypatch):
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 32, "patch_size": 8}
    vit = ViTModel(ViTConfig(**sizes, num_hidden_layers=3), add_pooling_layer=False)
    vit.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"does not fit the configuration:\nlayers\.3\.layernorm_before\.weight: missing"
    ):
        S2DForImageClassification.from_vit_pretrained(str(tmp_path), num_hidden_layers=4, num_labels=5)
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.qkv\.bias: \(96,\), expected no such weight"):
        S2DForImageClassification.from_vit_pretrained(str(tmp_path), qkv_bias=False, num_labels=5)
    warnings: list[str] = []
    monkeypatch.setattr(vit_weights_s2d.logger, "warning", warnings.append)
    model = S2DForImageClassification.from_vit_pretrained(str(tmp_path), num_hidden_layers=2, num_labels=5)
    assert torch.equal(model.s2d.layers[1].mlp.fc1.weight, vit.layers[1].mlp.fc1.weight)
    assert warnings == [f"Of the blocks of {tmp_path}, the first 2 are used, as `num_hidden_layers` says."]


def test_a_vit_must_be_whole_and_finite(tmp_path):
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "image_size": 32, "patch_size": 8}
    ViTModel(ViTConfig(**sizes, num_hidden_layers=1), add_pooling_layer=False).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    broken = weights | {"layernorm.bias": torch.full((32,), torch.nan)}
    save_file(broken, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"can't be used: weights are NaN or infinite, layernorm\.bias"):
        S2DForImageClassification.from_vit_pretrained(str(tmp_path), num_labels=5)
    misfit = weights | {"layernorm.bias": torch.zeros(33)}
    save_file(misfit, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"The weights of .* don't fit its configuration"):
        S2DForImageClassification.from_vit_pretrained(str(tmp_path), num_labels=5)


def test_losses_equal_their_definitions():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    log_probs = logits - logits.exp().sum(-1, keepdim=True).log()
    index = torch.tensor([0, 4, 2, 2])
    soft = torch.rand(4, 5, generator=torch.Generator().manual_seed(1)).softmax(-1)
    single, multi = (
        S2DConfig(num_labels=5, problem_type=f"{kind}_label_classification") for kind in ("single", "multi")
    )
    torch.testing.assert_close(classification_loss(logits, index, single), -log_probs[range(4), index].mean())
    torch.testing.assert_close(classification_loss(logits, soft, single), -(soft * log_probs).sum(-1).mean())
    several = (soft > 0.2).float()
    p = 1 / (1 + (-logits).exp())
    expected = -(several * p.log() + (1 - several) * (1 - p).log()).mean()
    torch.testing.assert_close(classification_loss(logits, several, multi), expected)
    one_hot = torch.nn.functional.one_hot(index, 5).float()
    torch.testing.assert_close(
        classification_loss(logits, one_hot, single), classification_loss(logits, index, single)
    )


@pytest.mark.parametrize("num_labels", [1, 5])
@pytest.mark.parametrize("problem_type", [None, "regression", "single_label", "multi_label"])
@pytest.mark.parametrize("kind", ["indices", "zeros and ones", "integers of the logits' shape"])
def test_losses_are_those_of_transformers(num_labels, problem_type, kind):
    """Also where `problem_type` is not given."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, num_labels, generator=generator)
    labels = torch.randint(num_labels, (4,), generator=generator)
    if kind != "indices":
        labels = torch.nn.functional.one_hot(labels, num_labels)
        labels = labels.float() if kind == "zeros and ones" else labels
    if problem_type == "single_label" and num_labels == 1:
        pytest.skip("transformers knows no such configuration")
    if problem_type in ("single_label", "multi_label"):
        problem_type += "_classification"
    config = S2DConfig(num_labels=num_labels, problem_type=problem_type)
    try:
        expected = ForSequenceClassificationLoss(labels, logits, copy.deepcopy(config))
    except (RuntimeError, ValueError):  # it doesn't take such labels
        return
    if kind == "zeros and ones" and problem_type is None and num_labels > 1:
        assert expected > 0.6  # binary cross-entropy, and not that of class probabilities
    torch.testing.assert_close(classification_loss(logits, labels, config), expected)


@pytest.mark.parametrize(
    ("labels", "problem_type", "message"),
    [
        (torch.zeros(3, dtype=torch.long), None, "must be class indices"),
        (torch.zeros(4, 4), None, r"the shape of the logits, \(4, 5\), for a multi_label_classification model"),
        (torch.zeros(4), None, r"the shape of the logits, \(4, 5\)"),
        (torch.zeros(4, 4), "single_label_classification", "must be class indices"),
        (torch.zeros(4, 5, dtype=torch.long), "single_label_classification", "must be class indices"),
        (torch.zeros(4), "regression", r"the shape of the logits, \(4, 5\), for a regression model"),
        (torch.zeros(4, dtype=torch.long), "multi_label_classification", r"the shape of the logits, \(4, 5\)"),
    ],
)
def test_labels_of_a_wrong_shape_are_refused(labels, problem_type, message):
    with pytest.raises(ValueError, match=f"`labels` must .*{message.removeprefix('must ')}"):
        classification_loss(torch.zeros(4, 5), labels, S2DConfig(num_labels=5, problem_type=problem_type))


# --- other sizes


def test_other_frame_counts_only_when_asked_for(tiny_video_model, tiny_config):
    longer = random_inputs(S2DConfig(**(TINY | {"num_frames": 7})), batch_size=1)
    with pytest.raises(ValueError, match=r"7 frames.*trained with 4.*interpolate_temporal_encoding"):
        tiny_video_model(**longer)
    assert tiny_video_model(**longer, interpolate_temporal_encoding=True).logits.shape == (1, 5)
    embeddings = tiny_video_model.s2d.embeddings
    times = embeddings.interpolated_times(7)  # every other one of 7 frames over the clip is one of the 4
    torch.testing.assert_close(times[:, ::2], embeddings.temporal_embeddings)
    between = (embeddings.temporal_embeddings[:, :-1] + embeddings.temporal_embeddings[:, 1:]) / 2
    torch.testing.assert_close(times[:, 1::2], between)


def test_an_image_model_says_that_it_has_no_temporal_embeddings(tiny_image_model):
    for num_frames in (4, 7):  # as many as the configuration has, and others
        with pytest.raises(ValueError, match=r"no temporal embeddings.*temporal_adapters"):
            tiny_image_model.s2d.embeddings.interpolated_times(num_frames)


def test_other_image_sizes_only_when_asked_for(tiny_video_model, tiny_config):
    inputs = random_inputs(tiny_config, batch_size=1)
    inputs["pixel_values"] = torch.nn.functional.interpolate(inputs["pixel_values"][0], size=(48, 40))[None]
    with pytest.raises(ValueError, match=r"48x40.*32x32.*interpolate_pos_encoding"):
        tiny_video_model(**inputs)
    with torch.no_grad():
        output = tiny_video_model(**inputs, interpolate_pos_encoding=True, output_hidden_states=True)
    assert output.hidden_states[-1].shape == (1, 4, 1 + 6 * 5, 32)
    # bicubic interpolation keeps what is constant
    embeddings = tiny_video_model.s2d.embeddings
    with torch.no_grad():
        embeddings.position_embeddings[:, 1:] = 0.5
        torch.testing.assert_close(embeddings.interpolated_positions(6, 5)[:, 1:], torch.full((1, 30, 32), 0.5))
    inputs["pixel_values"] = inputs["pixel_values"][..., :36]
    with pytest.raises(ValueError, match="multiples of the patch size 8"):
        tiny_video_model(**inputs, interpolate_pos_encoding=True)


# --- bad input


def test_missing_or_misshapen_inputs_are_named(tiny_video_model, tiny_image_model, tiny_inputs):
    pixels, features = tiny_inputs["pixel_values"], tiny_inputs["landmark_features"]
    with pytest.raises(ValueError, match="`landmark_features` are missing"):
        tiny_video_model(pixels)
    with pytest.raises(ValueError, match=r"`landmark_features` must be \(2, 4, 6, 5, 5\), got \(2, 3, 6, 5, 5\)"):
        tiny_video_model(pixels, features[:, :3])
    with pytest.raises(ValueError, match=r"`landmark_features` must be .* got \(2, 4, 5, 5, 5\)"):
        tiny_video_model(pixels, features[:, :, :5])
    with pytest.raises(ValueError, match="3 frames, and the model was trained with 4"):
        tiny_video_model(pixels[:, :3], features[:, :3])
    with pytest.raises(ValueError, match="S2DForVideoClassification must be"):
        tiny_video_model(pixels[:, 0], features[:, 0])
    with pytest.raises(ValueError, match="S2DForImageClassification must be"):
        tiny_image_model(pixels, features)
    with pytest.raises(ValueError, match="This is a video model"):
        tiny_video_model.s2d(pixels[:, 0], features[:, 0])
    with pytest.raises(ValueError, match=r"3, height, width"):
        tiny_video_model(pixels[:, :, :1], features)


def test_image_class_refuses_a_video_configuration(tiny_config):
    with pytest.raises(ValueError, match="temporal_adapters"):
        S2DForImageClassification(tiny_config)


def test_without_prompts_landmarks_are_not_needed():
    config = S2DConfig(**(TINY | {"prompt_type": "none", "temporal_adapters": False}))
    model = S2DForVideoClassification(config).eval()
    assert not any("prompt" in name or "landmark" in name for name, _ in model.named_parameters())
    assert model(random_inputs(config, batch_size=1)["pixel_values"]).logits.shape == (1, 5)
