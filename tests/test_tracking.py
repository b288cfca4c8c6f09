"""W&B: what is mirrored, what is sent, and that none of it can harm a run.

The real `wandb` writes and sends; only its server is ours, on this machine: it keeps what it is sent.
"""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_store import BOARD, STEPS, do_steps, planned

from harness import archive, tracking
from harness.errors import HarnessError
from harness.mirror import ROWS, identities, note_path, run_id
from harness.records import Cost, Example, Prediction
from harness.store import Snapshot, Store

pytest.importorskip("wandb")

OFFLINE = {"mode": "offline", "project": "acme", "entity": None, "adapters": False}


class Server(ThreadingHTTPServer):
    """As much of a W&B server as its own program needs to send a run: keeps runs, history and files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.runs: dict[str, dict[str, Any]] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.files: dict[str, bytes] = {}
        self.bytes = b""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The program hangs up without good-bye when it has ended."""

    def file(self, run: str, name: str) -> Any:
        (found,) = [data for path, data in self.files.items() if path.startswith(f"/{run}/{name}")]
        return json.loads(found)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.bytes += data
        return data

    def _answer(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_PUT(self) -> None:
        self.server.files[self.path] = self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = json.loads(self._body())
        if self.path != "/graphql":
            run = self.path.split("/")[-2]
            for name, part in body.get("files", {}).items():
                if name == "wandb-history.jsonl":
                    self.server.history.setdefault(run, []).extend(map(json.loads, part["content"]))
            return self._answer({"exitcode": None, "limits": {}})
        sent = body.get("variables") or {}
        if body["operationName"] == "UpsertBucket":
            known = self.server.runs.setdefault(sent["name"], {})
            known.update({key: value for key, value in sent.items() if value is not None})
            project = {"id": "p", "name": sent["project"], "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "x", "name": sent["name"], "displayName": "", "description": "", "config": "{}"}
            bucket |= {"sweepName": None, "historyLineCount": 0, "project": project}
            return self._answer({"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}})
        if body["operationName"] == "CreateRunFiles":
            places = [{"name": name, "uploadUrl": f"{self.server.url}/{sent['run']}/{name}"} for name in sent["files"]]
            return self._answer({"data": {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": places}}})
        if body["operationName"] == "CreateArtifact":
            self.server.artifacts.append(sent["input"])
        return self._answer({"data": None, "errors": [{"message": "this server does not know that"}]})


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A W&B server of our own that one is logged in to; nothing else is reachable."""
    found = Server()
    thread = threading.Thread(target=found.serve_forever, args=(0.05,))
    thread.start()
    nobody(tmp_path, monkeypatch)
    monkeypatch.setenv("WANDB_BASE_URL", found.url)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be someone who never used W&B, without a network."""
    monkeypatch.setenv("HOME", str(tmp_path / "home-of-nobody"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC", "WANDB_CONFIG_DIR", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


SPEC = {
    "question": "which?",
    "model": {"kind": "canned"},
    "data": {"heldout": "heldout.jsonl"},
    "variants": [{"name": "rag", "retrieve": {"kind": "dense", "top_k": 3}}, {"name": "lora"}],
    "tracking": OFFLINE,
}


def results(root: Path, name: str = "desk", seeds: int = 1) -> Snapshot:
    """Leave a finished experiment with training curves."""
    store = Store(root)
    step = store.step(STEPS[0])
    if step.outcome is None:
        step.start({})
        (step.path / "artifact").mkdir()
        (step.path / "artifact" / "adapter.safetensors").write_bytes(b"weights")
        rows = [{"step": n, "epoch": n / 4, "loss": 2.0 / n, "note": "x"} for n in (1, 2, 3)] + [
            {"step": 3, "eval_loss": 0.5}
        ]
        (step.path / "artifact" / "curves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        step.complete({})
    do_steps(store)
    runs = [replace(planned(seed=seed), experiment=name) for seed in range(seeds)]
    with store.begin(name, SPEC, "", runs) as snapshot:
        snapshot.write_examples(Example(id=f"q{n}", input=f"question {n}", targets=("gold", "or")) for n in range(7))
        for run in runs:
            cost = Cost(train_seconds=3.5, output_tokens=70)
            snapshot.save_run(replace(run, status="complete", cost=cost, provenance={"versions": {"torch": "2"}}))
        snapshot.finish(BOARD, "")
    return snapshot


def mirrored(snapshot: Snapshot, root: Path, **settings: Any) -> str | None:
    """Mirror in the tracker's own process; return its problem."""
    tracking.start(root, snapshot.ref, {**OFFLINE, **settings})
    tracking._started[-1].wait()
    return tracking.problem(root, snapshot.ref)


def test_a_run_is_mirrored_whole_and_sent_later_with_nothing_of_the_machine(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "canary-in-the-environment")
    root = tmp_path / "canary-in-the-path"
    snapshot = results(root)
    run = run_id(snapshot.runs()[0])
    assert mirrored(snapshot, root) is None
    assert server.bytes == b""  # offline means offline

    sent = list(tracking.sync(Store(root)))
    assert [(entry.ok, entry.message) for entry in sent] == [
        (True, "sent: desk@1 rag, seed 0"),
        (True, "sent: desk@1 leaderboard"),
    ]
    (board,) = set(server.runs) - {run}
    about = server.runs[run]
    assert (about["project"], about["groupName"], about["tags"]) == ("acme", "desk", ["RAG", "rag"])
    assert about["displayName"] == "desk@1 rag, seed 0" and about.get("host") is None
    config = {key: entry["value"] for key, entry in json.loads(about["config"]).items()}
    assert config["variant"] == {"name": "rag", "retrieve": {"kind": "dense", "top_k": 3}}
    assert (config["seed"], config["snapshot"], config["versions"]) == (0, 1, {"torch": "2"})

    curve = [row for row in server.history[run] if "train.0/step" in row or "train" in row]
    assert [(row["train.0/step"], row.get("train.0/loss"), row.get("train.0/eval_loss")) for row in curve] == [
        (1, 2.0, None),
        (2, 1.0, None),
        (3, 2.0 / 3, None),
        (3, None, 0.5),
    ]
    summary = server.file(run, "wandb-summary.json")
    assert (summary["status"], summary["cost/train_seconds"], summary["cost/output_tokens"]) == ("complete", 3.5, 70)
    assert (summary["metric/exact_match"], summary["metric/exact_match/n"]) == (1.0, 3)
    assert (summary["predictions"], summary["predictions_shown"]) == (7, 7)
    table = server.file(run, "media/table/predictions")
    row = dict(zip(table["columns"], table["data"][3], strict=True))
    assert (row["id"], row["input"], row["gold"], row["answer"]) == ("q3", "question 3", "gold | or", "text q3")
    assert (row["exact_match"], row["passages"], row["seconds"]) == (1.0, "d#0", 0.5)
    leaderboard = server.file(board, "media/table/leaderboard")
    assert dict(zip(leaderboard["columns"], leaderboard["data"][0], strict=True))["metrics.exact_match.value"] == 0.43

    written = b"".join(path.read_bytes() for path in (root / "wandb").rglob("*.wandb"))
    for canary in (b"canary-in-the-environment", b"k" * 40):
        assert canary not in server.bytes and canary not in written, canary
    for canary in (b"canary-in-the-path", str(Path.cwd()).encode(), sys.prefix.encode()):
        assert canary not in server.bytes, canary
    for word in (socket.gethostname(), getpass.getuser()):
        assert f'"{word}"'.encode() not in server.bytes

    assert list(tracking.sync(Store(root))) == []
    before = len(server.bytes)
    assert mirrored(snapshot, root) is None
    assert list(tracking.sync(Store(root))) == [] and len(server.bytes) == before
    assert len(list((root / "wandb").glob("offline-run-*"))) == 2


def test_sync_goes_on_past_a_bad_folder_and_mirrors_what_was_not(tmp_path: Path, server: Server) -> None:
    snapshot = results(tmp_path, seeds=2)
    assert mirrored(snapshot, tmp_path) is None
    first, _, board = tracking._waiting(tmp_path, identities(snapshot))
    folder = tmp_path / json.loads(first.read_text())["folder"]
    for path in folder.glob("*.wandb"):
        path.write_bytes(b"not what it was")
    (tmp_path / json.loads(board.read_text())["folder"]).rename(tmp_path / "wandb" / "elsewhere")
    (tmp_path / "wandb" / "mirrored" / "broken.json").write_text("{")
    results(tmp_path, name="triage")
    sent = {entry.folder: entry for entry in tracking.sync(Store(tmp_path))}
    assert not sent[folder.relative_to(tmp_path).as_posix()].ok
    assert [entry.message for entry in sent.values() if entry.ok] == [
        "sent: desk@1 rag, seed 1",
        "sent: triage@1 rag, seed 0",
        "sent: triage@1 leaderboard",
    ]
    assert [entry.message for entry in sent.values() if "the folder is gone" in entry.message]
    assert {entry.ok for entry in tracking.sync(Store(tmp_path), "triage")} == set()
    messages = [entry.message for entry in tracking.sync(Store(tmp_path), "desk@1") if entry.ok]
    assert messages == ["sent: desk@1 leaderboard"]


def test_online_sends_at_once_and_adapters_go_along_when_asked(tmp_path: Path, server: Server) -> None:
    snapshot = results(tmp_path)
    assert mirrored(snapshot, tmp_path, mode="online", adapters=True) is None
    assert len(server.runs) == 2
    assert [a["artifactTypeName"] for a in server.artifacts if a["artifactCollectionNames"] is None].count("model") == 1
    assert "desk-rag-0-train.0" in [a["artifactCollectionName"] for a in server.artifacts]
    assert list(tracking.sync(Store(tmp_path))) == []


def test_a_server_that_never_answers_costs_its_seconds_and_no_result(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    results(tmp_path)
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(16)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{hole.getsockname()[1]}")
        sent = list(tracking.sync(Store(tmp_path), seconds=3))
    assert [entry.ok for entry in sent] == [False, False] and "no answer within 3 s" in sent[0].message
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    assert [entry.ok for entry in tracking.sync(Store(tmp_path))] == [True, True]
    assert Store(tmp_path).snapshot("desk").state == "complete"


def test_a_broken_wandb_is_one_warning_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody(tmp_path, monkeypatch)
    snapshot = results(tmp_path / "results")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "wandb.py").write_text("raise RuntimeError('this wandb is broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    before = {path: path.read_bytes() for path in snapshot.path.rglob("*") if path.is_file()}
    tracking.start(tmp_path / "results", snapshot.ref, OFFLINE)
    assert tracking._started[-1].wait() == 1
    warning = tracking.problem(tmp_path / "results", snapshot.ref)
    assert warning and "failed (RuntimeError: this wandb is broken); the results are whole" in warning
    assert tracking.problem(tmp_path / "results", snapshot.ref) is None
    assert "Traceback" in (tmp_path / "results" / "logs" / "tracking.log").read_text()
    assert {path: path.read_bytes() for path in snapshot.path.rglob("*") if path.is_file()} == before


def test_without_wandb_only_who_asked_for_online_is_told(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from harness import tracking
from harness.errors import HarnessError
from harness.store import Store
sys.modules["wandb"] = None
sys.meta_path.insert(0, type("No", (), {"find_spec": staticmethod(lambda name, *_: None)}))
import importlib.util
importlib.util.find_spec = lambda name: None
root = Path(sys.argv[1])
for mode in ("offline", "online"):
    tracking.start(root, "desk@1", {"mode": mode})
    print(tracking.problem(root, "desk@1"), len(tracking._started))
try:
    list(tracking.sync(Store(root)))
except HarnessError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    offline, online, sync = done.stdout.splitlines()
    assert offline == "None 0" and online.startswith("W&B is not installed, so nothing was sent: ")
    assert sync.startswith("W&B is not installed: ") and ".[track]" in sync


def test_online_without_a_login_stays_here_with_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody(tmp_path, monkeypatch)
    snapshot = results(tmp_path / "results")
    warning = mirrored(snapshot, tmp_path / "results", mode="online")
    assert warning == "you are not logged in to W&B, so nothing was sent: `wandb login`, then `harness sync`."
    assert len(list((tmp_path / "results" / "wandb").glob("offline-run-*"))) == 2
    with pytest.raises(HarnessError, match="you are not logged in to W&B: run `wandb login`"):
        list(tracking.sync(Store(tmp_path / "results")))


def test_off_does_nothing_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody(tmp_path, monkeypatch)
    started = len(tracking._started)
    tracking.start(tmp_path, "desk@1", {"mode": "off"})
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracking.start(tmp_path, "desk@1", OFFLINE)
    assert len(tracking._started) == started and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["offline", "dryrun"])
def test_the_environment_keeps_here_what_the_spec_would_send(
    mode: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    snapshot = results(tmp_path)
    assert mirrored(snapshot, tmp_path, mode="online") is None
    assert server.bytes == b""
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2


def test_the_environment_never_sends_more_than_the_spec_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for environment, expected in (("disabled", "off"), ("online", "offline"), ("", "offline"), ("dryrun", "offline")):
        monkeypatch.setenv("WANDB_MODE", environment)
        assert tracking._mode("offline") == expected
    monkeypatch.setenv("WANDB_MODE", "online")
    assert tracking._mode("off") == "off" and tracking._mode("online") == "online"


def test_modules_of_the_working_and_the_results_folder_are_not_taken_for_wandb(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = results(tmp_path / "results")
    for folder in (tmp_path, tmp_path / "results"):
        for name in ("wandb.py", "json.py"):
            (folder / name).write_text("raise RuntimeError('a module that lies about')")
    monkeypatch.chdir(tmp_path)
    assert mirrored(snapshot, tmp_path / "results") is None
    assert [entry.ok for entry in tracking.sync(Store(tmp_path / "results"))] == [True, True]


def test_what_was_mirrored_of_a_deleted_run_goes_and_is_never_sent_under_a_name_used_again(
    tmp_path: Path, server: Server
) -> None:
    first = results(tmp_path)
    assert mirrored(first, tmp_path) is None
    second = results(tmp_path, seeds=2)  # a snapshot of its own that holds the first one's run too
    assert mirrored(second, tmp_path) is None
    shared, alone = run_id(first.runs()[0]), run_id(second.runs()[1])
    folders = tmp_path / "wandb"
    assert len(list(folders.glob("offline-run-*"))) == 4  # two runs, two leaderboards
    (tmp_path / "logs" / "tracking-desk@2.txt").write_text("it failed")

    store = Store(tmp_path)
    archive.delete(store, "desk@2")
    assert len(list(folders.glob("offline-run-*"))) == 2 and not list(folders.glob(f"*-{alone}"))
    assert note_path(tmp_path, shared).exists() and not note_path(tmp_path, alone).exists()
    assert list(folders.glob(f"*-{shared}")) and tracking.problem(tmp_path, "desk@2") is None

    # What a killed tracker, or a harness before this one, left of runs that are gone.
    left = folders / f"offline-run-20260101_000000-{'0' * 24}"
    left.mkdir()
    (left / "run.wandb").write_bytes(b"12345")
    unfinished = folders / f"offline-run-20260101_000000-{shared}"
    unfinished.mkdir()
    note = {"what": "desk@9 rag", "experiment": "desk", "folder": f"wandb/{left.name}", "made": "", "sent": None}
    note_path(tmp_path, "0" * 24).write_text(json.dumps(note))
    assert [entry.message for entry in tracking.sync(store, "desk")] == [
        "sent: desk@1 rag, seed 0",
        "sent: desk@1 leaderboard",
    ]
    listed = [f"wandb/mirrored/{'0' * 24}.json", f"wandb/{left.name}", f"wandb/{unfinished.name}"]
    assert sorted(entry.name for entry in archive.gc(store)) == sorted(listed) and left.exists()
    with tracking._alone(tmp_path):
        assert archive.gc(store) == [] and archive.gc(store, dry=False) == []
    assert sorted(entry.name for entry in archive.gc(store, dry=False)) == sorted(listed)
    assert archive.gc(store) == [] and not left.exists() and len(list(folders.glob("offline-run-*"))) == 2

    archive.delete(store, "desk")
    assert not list(folders.glob("offline-run-*")) and not list((folders / "mirrored").iterdir())


def test_a_login_is_found_where_wandb_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody(tmp_path, monkeypatch)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert not tracking.logged_in()
    home = tmp_path / "home-of-nobody"
    (home / ".config" / "wandb").mkdir(parents=True)
    (home / ".netrc").write_text("machine wandb.acme.test login user password secret\n")
    (home / ".netrc").chmod(0o600)
    assert not tracking.logged_in()
    (home / ".config" / "wandb" / "settings").write_text("[default]\nbase_url = https://wandb.acme.test\n")
    assert tracking.logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.test")
    assert not tracking.logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert tracking.logged_in()


def test_a_run_tried_anew_after_a_failure_is_another_wandb_run_and_the_same_work_is_the_same() -> None:
    run = replace(planned(), status="complete")
    assert run_id(run) == run_id(replace(run, cost=Cost(train_seconds=9), started="later", notes=("a",)))
    others = [replace(run, seed=1), replace(run, variant="b"), replace(run, status="failed"), replace(run, steps={})]
    assert len({run_id(other) for other in [run, *others]}) == 5


def test_a_failed_run_and_more_predictions_than_a_table_takes(tmp_path: Path, server: Server) -> None:
    store, count = Store(tmp_path), ROWS + 7
    step = store.step(STEPS[1])
    step.start({})
    step.write_predictions(Prediction(id=f"q{n}", text="a") for n in range(count))
    step.complete({})
    long, broken = replace(planned("long"), steps={"predict": STEPS[1]}), replace(planned("broken"), steps={})
    with store.begin("desk", SPEC, "", [long, broken]) as snapshot:
        snapshot.write_examples(Example(id=f"q{n}", input="") for n in range(count))
        snapshot.save_run(replace(long, status="complete"))
        failed = replace(broken, status="failed", error="no memory")
        snapshot.save_run(failed)
    assert [entry.ok for entry in tracking.sync(store)] == [True, True]
    summaries = [server.file(run, "wandb-summary.json") for run in server.runs]
    assert {(entry.get("predictions_shown"), entry.get("predictions")) for entry in summaries} == {
        (ROWS, count),
        (None, None),
    }
    assert server.file(run_id(failed), "wandb-summary.json")["error"] == "no memory"
