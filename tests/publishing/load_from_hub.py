"""
Classifies a video with each of several revisions of a model on the Hub, as somebody does who has no s2d_hf, and prints
a JSON report: for each revision the scores by label, and the modules that the model's classes came from.
Runs by itself: `python load_from_hub.py REPOSITORY VIDEO REVISION...`.
"""

import importlib.util
import json
import sys

from transformers import pipeline

repository, video, *revisions = sys.argv[1:]
assert importlib.util.find_spec("s2d_hf") is None, "s2d_hf is installed here"
report = {}
for revision in revisions:
    classifier = pipeline("video-classification", model=repository, trust_remote_code=True, revision=revision)
    scores = {answer["label"]: answer["score"] for answer in classifier(video, top_k=7)}
    parts = (classifier.model, classifier.model.config, classifier.image_processor, classifier.video_processor)
    report[revision] = {"scores": scores, "modules": [type(part).__module__ for part in parts]}
print(json.dumps(report))
