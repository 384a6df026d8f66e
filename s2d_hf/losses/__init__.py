"""The emotion-anchors self-distillation of S2D."""

from .emotion_anchors import EmotionAnchors
from .schedule import AnchorSchedule

__all__ = ["AnchorSchedule", "EmotionAnchors"]
