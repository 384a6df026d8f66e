"""Folders that can be published: a model and a complete card, made up for the tests."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPO_ID = "s2d-hf/s2d-dfew"
CARD = """---
license: cc-by-nc-4.0
library_name: transformers
pipeline_tag: {task}
tags:
- s2d
- facial-expression-recognition
datasets:
- made/up
model-index:
- name: made-up
  results:
  - task:
      type: {task}
    dataset:
      name: Made up
      type: made/up
    metrics:
    - type: recall
      name: UAR
      value: 0.5
---

# made-up

A card that the tests made up.

## How to use

```python
from transformers import pipeline

# a heading only to those who don't see the code
classifier = pipeline("{task}", model="{repo_id}", trust_remote_code=True)
```

## Labels

| | label |
| --- | --- |
{labels}

## Intended use

Tests.

## Out-of-scope use

Everything else.

## Training data

None.

## Training

### How

Not at all.

## Evaluation

Of nothing.

## Biases and limits

Of random numbers.

## Environmental impact

Little.

## Citation

```bibtex
@misc{{made, title={{{{Made up}}}}}}
```
"""


def make_card(labels: Sequence[str], repo_id: str = REPO_ID, task: str = "video-classification") -> str:
    """A complete card."""
    rows = "\n".join(f"| {i} | {label} |" for i, label in enumerate(labels))
    return CARD.format(labels=rows, repo_id=repo_id, task=task)


def make_folder(model: Path, folder: Path, repo_id: str = REPO_ID) -> Path:
    """A copy of a saved model with a complete card."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    labels = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
    is_video = config["architectures"] == ["S2DForVideoClassification"]
    task = "video-classification" if is_video else "image-classification"
    (folder / "README.md").write_text(make_card(labels, repo_id, task))
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Sets fields of a JSON file; `None` takes one away."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def replace_text(path: Path, old: str, new: str) -> None:
    """Replaces text that must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
