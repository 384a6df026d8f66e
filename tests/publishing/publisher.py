"""
Publishes folders with huggingface_hub's own client, as a process with an environment of its own. Reads a JSON object
of the arguments of `publish_folder`, and of `CheckOptions`, from each line of its input and answers each with a line
of JSON: what was said, the commit, or the error. Loading the model takes seconds and is left out. Runs by itself:
`python publisher.py`.
"""

import json
import os
import sys

from huggingface_hub import HfApi, constants

from s2d_hf.publishing import CheckOptions, publish_folder


def answer(request: dict) -> dict:
    said: list[str] = []
    meanwhile = request.pop("meanwhile", None)  # a file that somebody else uploads once the plan is made

    def say(text: str) -> None:
        said.append(text)
        if meanwhile is not None and len(said) == 2:
            HfApi().upload_file(path_or_fileobj=b"x", path_in_repo=meanwhile, repo_id=request["repo_id"])

    endpoint, token = constants.ENDPOINT, os.environ.pop("HF_TOKEN")
    if not request.pop("without_token", False):
        os.environ["HF_TOKEN"] = request.pop("environment_token", token)
    constants.ENDPOINT = request.pop("endpoint", endpoint)
    try:
        names = ("card", "leave_out", "leave_out_strays")
        options = {name: request.pop(name) for name in names if name in request}
        checks = CheckOptions(probe=lambda folder, labels: [], **options)
        result = publish_folder(**request, options=checks, say=say)
        commit = result.commit.result() if request.get("blocking") is False else result.commit
        statuses = {change.name: change.status for change in result.plan.changes}
        return {"said": said, "commit": None if commit is None else commit.oid, "statuses": statuses}
    except Exception as error:
        return {"said": said, "error": f"{type(error).__name__}: {error}"}
    finally:
        constants.ENDPOINT, os.environ["HF_TOKEN"] = endpoint, token


out = sys.stdout
sys.stdout = sys.stderr  # what libraries print is no answer
for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), file=out, flush=True)
os._exit(0)  # a process that has loaded torch takes seconds to end
