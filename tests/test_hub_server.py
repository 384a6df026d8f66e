"""The Hub of the tests says no where the Hub does, and huggingface_hub's client understands it."""

import hashlib
import json
import subprocess
import sys
import urllib.error
import urllib.request

from .hub_cards import card_problems

# prints what each call ends with: the class of the client's error and its status
CLIENT = """
import json, sys
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download

mine, api = "someone/model", HfApi()
ends = {}

def call(name, function, *arguments, **options):
    try:
        function(*arguments, **options)
        ends[name] = "done"
    except Exception as error:
        ends[name] = f"{type(error).__name__} {getattr(getattr(error, 'response', None), 'status_code', '')}".strip()

def commit(content, path="notes.txt", **options):
    operations = [CommitOperationAdd(path, content)] if content else [CommitOperationDelete(path)]
    return api.create_commit(mine, operations, commit_message="change", **options)

call("info of no repository", api.model_info, mine)
call("create without a token", HfApi(token=False).create_repo, mine)
call("create with a wrong token", HfApi(token="hf_wrong").create_repo, mine)
call("create for others", api.create_repo, "others/model")
call("create", api.create_repo, mine)
call("create again", api.create_repo, mine)
call("create again, that's fine", api.create_repo, mine, exist_ok=True)
start = api.model_info(mine).sha
call("change", commit, b"one", parent_commit=start)
call("change on an old state", commit, b"two", parent_commit=start)
call("change without a token", commit, b"two", token=False)
call("card with a licence of its own", commit, b"---\\nlicense: mine\\n---\\n# Model", "README.md")
call("delete what isn't there", commit, None, "other.txt")
call("commit to no branch", commit, b"two", revision="v1")
call("tag", api.create_tag, mine, tag="v1")
call("tag again", api.create_tag, mine, tag="v1")
commit(b"three")
commit(bytes(1000), "folder/weights.safetensors")
call("file of no revision", hf_hub_download, mine, "notes.txt", revision="v2")
call("no file of a revision", hf_hub_download, mine, "weights.safetensors", revision="v1")
call("others' model", HfApi(token=False).model_info, "others/public")
call("change of others' model", api.create_tag, "others/public", tag="v1")
read = {revision: open(hf_hub_download(mine, "notes.txt", revision=revision)).read() for revision in ("v1", "main")}
tree = sorted(entry.path for entry in api.list_repo_tree(mine))
weights = open(snapshot_download(mine) + "/folder/weights.safetensors", "rb").read()
print(json.dumps([ends, read, tree, weights == bytes(1000)]))
"""


def test_refusals_and_revisions(hub, tmp_path):
    (tmp_path / "public").mkdir()
    hub.add_model("others/public", tmp_path / "public")
    done = subprocess.run(
        [sys.executable, "-c", CLIENT], env=hub.environment(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ends, read, tree, weights_are_right = json.loads(done.stdout)
    assert ends == {
        "info of no repository": "RepositoryNotFoundError 404",
        "create without a token": "HfHubHTTPError 401",
        "create with a wrong token": "HfHubHTTPError 401",
        "create for others": "HfHubHTTPError 403",
        "create": "done",
        "create again": "HfHubHTTPError 409",
        "create again, that's fine": "done",
        "change": "done",
        "change on an old state": "HfHubHTTPError 412",
        "change without a token": "HfHubHTTPError 401",
        "card with a licence of its own": "ValueError",
        "delete what isn't there": "RemoteEntryNotFoundError 404",
        "commit to no branch": "RevisionNotFoundError 404",
        "tag": "done",
        "tag again": "HfHubHTTPError 409",
        "file of no revision": "RevisionNotFoundError 404",
        "no file of a revision": "RemoteEntryNotFoundError 404",
        "others' model": "done",
        "change of others' model": "HfHubHTTPError 403",
    }
    assert read == {"v1": "one", "main": "three"}
    assert tree == [".gitattributes", "folder", "notes.txt"]
    assert weights_are_right
    assert hub.files("someone/model", "v1").keys() == {".gitattributes", "notes.txt"}
    assert hub.commits("someone/model") == ["change"] * 3 + ["initial commit"]


def test_uploads_are_what_was_announced(hub):
    content = b"weights"
    oid = hashlib.sha256(content).hexdigest()
    hub.announced[oid] = len(content)

    def put(data: bytes, at: str = oid) -> int:
        request = urllib.request.Request(f"{hub.storage_url}/{at}", data, method="PUT")
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    assert put(b"Weights") == 400
    assert put(content + b"!") == 400
    assert put(content, hashlib.sha256(b"never announced").hexdigest()) == 400
    assert hub.storage == {}
    assert put(content) == 200
    assert hub.storage == {oid: content}


def test_what_the_hub_has_against_cards():
    def card(metadata: str) -> str:
        return f"---\n{metadata}\n---\n# Model\n"

    assert card_problems(card("license: mit\npipeline_tag: video-classification\ntags: [s2d]")) == ([], [])
    assert card_problems("# Model\n") == ([], ["empty or missing yaml metadata in repo card"])
    result = "{task: {type: a}, dataset: {type: b, name: B}, metrics: [{type: uar, value: 1}]}"
    assert card_problems(card(f"model-index: [{{name: m, results: [{result}]}}]")) == ([], [])
    for wrong, name in (
        ("license: mine", "license"),
        ("pipeline_tag: faces", "pipeline_tag"),
        ("tags: [1]", "tags"),
        ("model-index: [{name: m}]", "model-index"),
        ("model-index: [{name: m, results: [{task: {type: a}, metrics: []}]}]", "model-index"),
        ("a: b: c", "YAML"),
    ):
        errors, _ = card_problems(card(wrong))
        assert len(errors) == 1 and name in errors[0]
    _, warnings = card_problems(card("datasets: [a name with spaces]"))
    assert len(warnings) == 1
