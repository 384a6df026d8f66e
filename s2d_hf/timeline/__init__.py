"""Faces in long raw videos and their expressions over time."""

from .analysis import S2DTimeline, WindowScores
from .results import FaceTimeline, Segment, VideoTimeline

__all__ = ["FaceTimeline", "S2DTimeline", "Segment", "VideoTimeline", "WindowScores"]
