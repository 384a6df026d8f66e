"""
A small Hugging Face Hub for the tests: the HTTP calls with which huggingface_hub's own client creates, fills, tags and
reads model repositories, over repositories in memory.

Paths, headers and answers are those that huggingface_hub (1.16 to 2.4) sends and reads in `hf_api.py`,
`_commit_api.py`, `lfs.py` and `file_download.py`. A call that isn't here is answered with 501, so that a test fails
where a client wants more. There is no Xet storage: large files go through Git LFS.
"""

import base64
import binascii
import hashlib
import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from .hub_cards import card_metadata, card_problems
from .hub_repositories import GIT_ATTRIBUTES, Blob, Commit, Refusal, Repository, is_lfs

TOKEN = "hf_token_of_the_tests"
USER = "someone"
ORGANISATIONS = ("s2d-hf",)


class Handler(BaseHTTPRequestHandler):
    """Turns requests into calls of the methods in `ROUTES`, and what these return or refuse into answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and content leave together
    server: "_Server"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self._read_body()
        self.hub = self.server.hub
        self.hub.requests.append(f"{self.command} {url.path}")
        try:
            with self.hub.lock:
                self._dispatch(url.path)
        except Refusal as refusal:
            self._send(refusal.status, {"error": str(refusal)}, refusal.headers)
        except Exception as error:
            # not 500: the client would try for half a minute
            self._send(501, {"error": f"The server of the tests failed: {error!r}"})
            raise

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _dispatch(self, path: str) -> None:
        for method, pattern, name in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == ("GET" if self.command == "HEAD" else self.command):
                groups = {group: unquote(value or "") for group, value in match.groupdict().items()}
                self._check_token(path, groups.get("repo", ""))
                getattr(self, name)(**groups)
                return
        raise Refusal(501, f"This server does not speak {self.command} {path}")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _send(self, status: int, content: Any = None, headers: Mapping[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _check_token(self, path: str, repo: str) -> None:
        """Who writes needs a token, and a namespace of their own; storage has its own signed addresses."""
        given = self.headers.get("Authorization")
        if path.startswith("/storage/"):
            if given:
                raise Refusal(400, "The token went to the storage host, where it must not go")
            return
        if given not in (None, f"Bearer {TOKEN}"):
            raise Refusal(401, "Invalid credentials in Authorization header")
        reading = self.command in ("GET", "HEAD") or "/paths-info/" in path or path == "/api/validate-yaml"
        if given is None and (not reading or path == "/api/whoami-v2"):
            raise Refusal(401, "Invalid username or password.")
        if not reading and repo:
            self._check_namespace(repo.split("/")[0])

    def _check_namespace(self, namespace: str) -> None:
        if namespace not in (USER, *ORGANISATIONS):
            raise Refusal(403, f'You don\'t have the rights to write under the namespace "{namespace}"')

    def _json(self) -> dict[str, Any]:
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise Refusal(400, f"The request is not JSON: {error}") from None

    # -- who and what ----------------------------------------------------------------------------------------------

    def who_am_i(self) -> None:
        organisations = [{"type": "org", "name": name} for name in ORGANISATIONS]
        access = {"type": "access_token", "accessToken": {"displayName": "tests", "role": "write"}}
        self._send(200, {"type": "user", "name": USER, "fullname": USER, "orgs": organisations, "auth": access})

    def create_repository(self) -> None:
        request = self._json()
        if request.get("type", "model") != "model":
            raise Refusal(501, "This server has models only")
        namespace = request.get("organization") or USER
        self._check_namespace(namespace)
        repo = f"{namespace}/{request['name']}"
        answer = {"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo}
        if repo in self.hub.repositories:
            # the client reads `url` from this answer as well
            self._send(409, answer | {"error": "You already created this model repo"})
            return
        first = Commit("initial commit", {".gitattributes": Blob(GIT_ATTRIBUTES)})
        self.hub.repositories[repo] = Repository(repo, {"main": first})
        self._send(200, answer)

    def validate_card(self) -> None:
        errors, warnings = card_problems(self._json()["content"])
        answer = {"errors": [{"message": m} for m in errors], "warnings": [{"message": m} for m in warnings]}
        self._send(400 if errors else 200, answer)

    def model_info(self, repo: str, revision: str = "main") -> None:
        commit = self.hub.repository(repo).at(revision or "main")
        files = commit.files
        try:
            card = card_metadata(files["README.md"].data.decode()) if "README.md" in files else None
        except (UnicodeDecodeError, yaml.YAMLError):
            card = None
        card = card if isinstance(card, dict) else {}
        config = json.loads(files["config.json"].data) if "config.json" in files else {}
        siblings = []
        for path, blob in sorted(files.items()):
            sibling = {"rfilename": path}
            if "blobs" in self.query:
                entry = blob.entry(path)
                sibling |= {"size": entry["size"], "blobId": entry["oid"]}
                if "lfs" in entry:
                    sibling["lfs"] = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": 134}
            siblings.append(sibling)
        self._send(200, {
            "id": repo, "modelId": repo, "author": repo.split("/")[0], "sha": commit.id, "private": False,
            "gated": False, "disabled": False, "downloads": 0, "likes": 0, "lastModified": commit.date,
            "createdAt": commit.history()[-1].date, "tags": card.get("tags", []), "cardData": card,
            "pipeline_tag": card.get("pipeline_tag"), "library_name": card.get("library_name"),
            "model-index": card.get("model-index"), "siblings": siblings,
            "config": {name: config[name] for name in ("architectures", "model_type", "auto_map") if name in config},
        })  # fmt: skip

    def tree(self, repo: str, revision: str, folder: str = "") -> None:
        commit = self.hub.repository(repo).at(revision)
        if folder and folder not in commit.folders():
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound", X_Repo_Commit=commit.id)
        entries = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in commit.folders()]
        entries += [blob.entry(path) for path, blob in commit.files.items()]
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        root = Path(folder)
        shown = [e for e in entries if Path(e["path"]).parent == root or (deep and root in Path(e["path"]).parents)]
        self._send(200, sorted(shown, key=lambda entry: entry["path"]))

    def paths_info(self, repo: str, revision: str) -> None:
        commit = self.hub.repository(repo).at(revision)
        paths = parse_qs(self.body.decode()).get("paths", [])
        self._send(200, [commit.files[path].entry(path) for path in paths if path in commit.files])

    def refs(self, repo: str) -> None:
        repository = self.hub.repository(repo)

        def described(kind: str, refs: Mapping[str, Commit]) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c.id} for n, c in refs.items()]

        branches, tags = described("heads", repository.branches), described("tags", repository.tags)
        self._send(200, {"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    def commits(self, repo: str, revision: str) -> None:
        self._send(200, [
            {"id": c.id, "title": c.message, "message": "", "date": c.date, "authors": [{"user": USER}]}
            for c in self.hub.repository(repo).at(revision).history()
        ])  # fmt: skip

    # -- files to the client ---------------------------------------------------------------------------------------

    def resolve(self, repo: str, revision: str, path: str) -> None:
        commit = self.hub.repository(repo).at(revision)
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.id)
        blob = commit.files[path]
        headers = {"X-Repo-Commit": commit.id, "X-Linked-Size": str(len(blob.data)), "Accept-Ranges": "bytes"}
        if blob.lfs:
            # as on the Hub, another host keeps the content; what the client checks is said here
            headers |= {"Location": f"{self.hub.storage_url}/{blob.sha256}", "X-Linked-ETag": f'"{blob.etag}"'}
            self._send(302, {}, headers)
        else:
            self._send_range(blob.data, headers | {"ETag": f'"{blob.etag}"'})

    def download(self, oid: str) -> None:
        if oid not in self.hub.storage:
            raise Refusal(404, f"There is no object {oid}")
        if self.hub.breaks_left > 0 and self.command == "GET":
            self.hub.breaks_left -= 1
            self._break_off(self.hub.storage[oid])
            return
        self._send_range(self.hub.storage[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def _break_off(self, data: bytes) -> None:
        """Announces the whole content and sends its first half."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.close_connection = True

    def _send_range(self, data: bytes, headers: Mapping[str, str]) -> None:
        headers = {"Content-Type": "application/octet-stream", **headers}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            self._send(200, data, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(data) - 1), len(data) - 1)
        if first > last:
            raise Refusal(416, "Range not satisfiable", Content_Range=f"bytes */{len(data)}")
        self._send(206, data[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})

    # -- files from the client -------------------------------------------------------------------------------------

    def preupload(self, repo: str, revision: str) -> None:
        commit = self.hub.repository(repo).at(revision)
        answers = []
        for file in self._json()["files"]:
            lfs = is_lfs(file["path"], file["size"], base64.b64decode(file["sample"]))
            answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if file["path"] in commit.files:
                answer["oid"] = commit.files[file["path"]].etag
            answers.append(answer)
        self._send(200, {"files": answers})

    def lfs_batch(self, repo: str) -> None:
        self.hub.repository(repo)
        request = self._json()
        if request.get("operation") != "upload" or "basic" not in request.get("transfers", ["basic"]):
            raise Refusal(422, "Only uploads by the transfer `basic` are possible")
        objects = []
        for item in request["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.storage:
                self.hub.announced[item["oid"]] = item["size"]
                answer["actions"] = {
                    "upload": {"href": f"{self.hub.storage_url}/{item['oid']}"},
                    "verify": {"href": f"{self.hub.url}/{repo}.git/info/lfs/verify"},
                }
            objects.append(answer)
        self._send(200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})

    def upload(self, oid: str) -> None:
        if self.hub.announced.get(oid) != len(self.body) or hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, f"Not the announced object: sha256 {oid}, {self.hub.announced.get(oid)} bytes")
        self.hub.storage[oid] = self.body
        self._send(200, {})

    def verify(self, repo: str) -> None:
        request = self._json()
        if len(self.hub.storage.get(request["oid"], b"")) != request["size"]:
            raise Refusal(404, f"The object {request['oid']} has not arrived")
        self._send(200, {})

    def commit(self, repo: str, revision: str) -> None:
        repository = self.hub.repository(repo)
        if revision not in repository.branches:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if "create_pr" in self.query:
            raise Refusal(501, "This server has no pull requests")
        head = repository.branches[revision]
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        if not lines or lines[0]["key"] != "header" or not lines[0]["value"].get("summary"):
            raise Refusal(400, "A commit begins with a header that has a summary")
        header = lines[0]["value"]
        if header.get("parentCommit", head.id) != head.id:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for line in lines[1:]:
            self._change(files, line["key"], line["value"])
        errors, _ = card_problems(files["README.md"].data.decode()) if "README.md" in files else ([], [])
        if errors:
            raise Refusal(400, "Invalid metadata in README.md: " + "; ".join(errors))
        new = Commit(header["summary"], files, head)
        repository.branches[revision] = new
        url = f"{self.hub.url}/{repo}/commit/{new.id}"
        self._send(200, {"success": True, "commitOid": new.id, "commitUrl": url, "hookOutput": ""})

    def _change(self, files: dict[str, Blob], key: str, value: Mapping[str, Any]) -> None:
        """Applies one line of a commit to `files`."""
        path = value["path"]
        if path.startswith("/") or ".." in path.split("/"):
            raise Refusal(400, f"Not a path inside the repository: {path}")
        if key == "file":
            try:
                data = base64.b64decode(value["content"], validate=True)
            except binascii.Error:
                raise Refusal(400, f"The content of {path} is not base64") from None
            if is_lfs(path, len(data), data[:512]) and data:
                raise Refusal(400, f"{path} belongs into LFS")
            files[path] = Blob(data)
        elif key == "lfsFile":
            data = self.hub.storage.get(value["oid"])
            if data is None or len(data) != value.get("size", len(data)):
                raise Refusal(400, f"The LFS object of {path} has not been uploaded")
            files[path] = Blob(data, lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            gone = [p for p in files if p == path or (key == "deletedFolder" and p.startswith(path.rstrip("/") + "/"))]
            if not gone:
                raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del files[name]
        else:
            raise Refusal(501, f"This server does not know the commit operation {key}")

    # -- branches and tags -----------------------------------------------------------------------------------------

    def create_tag(self, repo: str, ref: str) -> None:
        repository = self.hub.repository(repo)
        self._add_ref(repository.tags, self._json()["tag"], repository.at(ref))

    def create_branch(self, repo: str, ref: str) -> None:
        repository = self.hub.repository(repo)
        start = (self._json() if self.body else {}).get("startingPoint", "main")
        self._add_ref(repository.branches, ref, repository.at(start))

    def _add_ref(self, refs: dict[str, Commit], name: str, commit: Commit) -> None:
        if name in refs:
            raise Refusal(409, f"Reference {name} exists already")
        refs[name] = commit
        self._send(200, {})

    def delete_tag(self, repo: str, ref: str) -> None:
        if self.hub.repository(repo).tags.pop(ref, None) is None:
            raise Refusal(404, f"Invalid rev id: {ref}", "RevisionNotFound")
        self._send(200, {})


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"
ROUTES = [
    ("GET", "/api/whoami-v2", "who_am_i"),
    ("POST", "/api/repos/create", "create_repository"),
    ("POST", "/api/validate-yaml", "validate_card"),
    ("GET", rf"/api/models/{_REPO}", "model_info"),
    ("GET", rf"/api/models/{_REPO}/revision/{_REVISION}", "model_info"),
    ("GET", rf"/api/models/{_REPO}/tree/{_REVISION}(?:/(?P<folder>.+))?", "tree"),
    ("POST", rf"/api/models/{_REPO}/paths-info/{_REVISION}", "paths_info"),
    ("GET", rf"/api/models/{_REPO}/refs", "refs"),
    ("GET", rf"/api/models/{_REPO}/commits/{_REVISION}", "commits"),
    ("POST", rf"/api/models/{_REPO}/preupload/{_REVISION}", "preupload"),
    ("POST", rf"/api/models/{_REPO}/commit/{_REVISION}", "commit"),
    ("POST", rf"/api/models/{_REPO}/tag/(?P<ref>[^/]+)", "create_tag"),
    ("DELETE", rf"/api/models/{_REPO}/tag/(?P<ref>[^/]+)", "delete_tag"),
    ("POST", rf"/api/models/{_REPO}/branch/(?P<ref>[^/]+)", "create_branch"),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("POST", rf"/{_REPO}\.git/info/lfs/verify", "verify"),
    ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})", "upload"),
    ("GET", r"/storage/(?P<oid>[0-9a-f]{64})", "download"),
    ("GET", rf"/{_REPO}/resolve/{_REVISION}/(?P<path>.+)", "resolve"),
]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: "HubServer"


class HubServer:
    """
    A running Hub at `url`, and a look into it. For the client it has one user, `USER` in `ORGANISATIONS`, whose token
    is `TOKEN`; only they write, and only under these names. Everybody reads everything. The next `breaks_left`
    downloads of large files break off in their middle.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}
        self.announced: dict[str, int] = {}
        self.requests: list[str] = []
        self.breaks_left = 0
        self.lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.hub = self
        port = self._server.server_port
        self.url = f"http://127.0.0.1:{port}"
        # a host of another name, as for the Hub: the client must send no token there
        self.storage_url = f"http://localhost:{port}/storage"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def repository(self, repo_id: str) -> Repository:
        if repo_id not in self.repositories:
            raise Refusal(404, f"Repository not found: {repo_id}", "RepoNotFound")
        return self.repositories[repo_id]

    def add_model(self, repo_id: str, folder: Path, tags: Sequence[str] = ()) -> str:
        """Puts a folder's files there as one commit, as the whole content of `main`. Returns the commit's id."""
        files = {".gitattributes": Blob(GIT_ATTRIBUTES)}
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            name, data = path.relative_to(folder).as_posix(), path.read_bytes()
            files[name] = Blob(data, lfs=is_lfs(name, len(data), data[:512]))
        with self.lock:
            self.storage |= {blob.sha256: blob.data for blob in files.values() if blob.lfs}
            repository = self.repositories.setdefault(repo_id, Repository(repo_id, {}))
            commit = Commit(f"Add {len(files)} files", files, repository.branches.get("main"))
            repository.branches["main"] = commit
            repository.tags |= dict.fromkeys(tags, commit)
        return commit.id

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Path to content, `.gitattributes` included."""
        return {path: blob.data for path, blob in self.repository(repo_id).at(revision).files.items()}

    def commits(self, repo_id: str) -> list[str]:
        """The messages of the commits of `main`, newest first."""
        return [commit.message for commit in self.repository(repo_id).branches["main"].history()]

    def tags(self, repo_id: str) -> dict[str, str]:
        """Tag to the id of its commit."""
        return {name: commit.id for name, commit in self.repository(repo_id).tags.items()}

    def environment(self, home: Path) -> dict[str, str]:
        """The whole environment for a process whose Hub this is and whose caches are in `home`."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "HF_HOME": str(home),
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1",  # the client would not ask whether there is Xet storage here
        }
