"""What a trainer uploads to the Hub: checked as everything that is published, with both processors and a card."""

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitInfo
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy
from transformers.utils import logging

from ..image_processing_s2d import S2DImageProcessor
from ..publishing import CheckOptions, publish_folder
from ..video_processing_s2d import S2DVideoProcessor
from .arguments import S2DTrainingArguments

if TYPE_CHECKING:  # it stands beside transformers' Trainer, whose methods it calls
    from transformers import Trainer as _Trainer
else:
    _Trainer = object

logger = logging.get_logger(__name__)

# what pushes during the training may have put there, to resume from
_PUSHED_CHECKPOINTS = ("last-checkpoint/*", f"{PREFIX_CHECKPOINT_DIR}-*/*")
# what an image and a video processor of one model have in common
_SHARED_SETTINGS = (
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "do_landmarks", "do_crop_faces", "face_detector", "face_margin",
)  # fmt: skip


class HubUpload(_Trainer):
    """The part of [`S2DTrainer`] that publishes."""

    args: S2DTrainingArguments

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """[`~transformers.Trainer.create_model_card`], unless the output folder has a card already."""
        if Path(self.args.output_dir, "README.md").is_file():
            return
        config = self.model.config
        start = config.name_or_path
        try:
            validate_repo_id(start)
        except HFValidationError:
            # a path; one to a folder that is there is not named
            config.name_or_path = self.args.output_dir
        try:
            super().create_model_card(*args, **kwargs)
        finally:
            config.name_or_path = start

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        version: str | None = None,
        **kwargs: Any,
    ) -> CommitInfo | Future | None:
        """
        Saves the model, checks its folder as [`~s2d_hf.publishing.publish_folder`] does, and uploads in one commit
        what belongs to it: no `training_args.bin`, checkpoints or logs. Of a model card that is not complete, a
        warning lists what is missing; everything else that is wrong keeps the folder from being uploaded.

        Args:
            version (`str`, *optional*): The semantic version that the commit is tagged with: `0.1.0` gives `v0.1.0`.
            commit_message, blocking, token, revision, kwargs: As for [`~transformers.Trainer.push_to_hub`].

        Returns:
            The commit, or with `blocking=False` a `Future` of it; `None` in processes beside the main one.

        Raises:
            ValueError: if the folder has problems (all are listed), or `version` is malformed.
            PublishingError: if the repository holds another architecture, other labels or the version already, or
                can't be written.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        token = token if token is not None else self.args.hub_token
        if self.hub_model_id is None:
            self.init_hf_repo(token=token)
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        folder = Path(self.args.output_dir)
        self._save_other_processor(folder)
        tags = kwargs.get("tags") or []
        tags = [tags] if isinstance(tags, str) else list(tags)
        kwargs["tags"] = list(dict.fromkeys([*tags, *(getattr(self.model, "model_tags", None) or ())])) or None
        self.create_model_card(**({"model_name": self.hub_model_id.split("/")[-1]} | kwargs))
        self._finish_current_push()
        keeps = self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS)
        result = publish_folder(
            folder,
            self.hub_model_id,
            version=version,
            token=token,
            revision=revision if revision is not None else self.args.hub_revision,
            commit_message=commit_message,
            options=CheckOptions(leave_out_strays=True),
            keep=_PUSHED_CHECKPOINTS if keeps else (),
            allow_missing=True,
            blocking=blocking,
            say=logger.info,
        )
        if result.report.missing:
            listed = "\n".join(f"- {problem}" for problem in result.report.missing)
            logger.warning(f"{self.hub_model_id} is uploaded as a draft; this is still missing:\n{listed}")
        for warning in result.report.warnings:
            logger.warning(f"{self.hub_model_id}: {warning}")
        return result.commit

    def _save_other_processor(self, folder: Path) -> None:
        """Image and video pipelines both want a processor; the trainer has one. One that is there is kept."""
        processor = self.processing_class
        is_video = isinstance(processor, S2DVideoProcessor)
        name = "preprocessor_config.json" if is_video else "video_preprocessor_config.json"
        if (folder / name).is_file():
            return
        saved = processor.to_dict()
        settings = {key: saved[key] for key in _SHARED_SETTINGS if saved.get(key) is not None}
        settings["landmark_encoder"] = processor.landmark_encoder
        if is_video:
            S2DImageProcessor(**settings).save_pretrained(folder)
        else:
            S2DVideoProcessor(**settings, num_frames=self.model.config.num_frames).save_pretrained(folder)


__all__ = ["HubUpload"]
