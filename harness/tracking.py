"""Mirrors results to Weights & Biases (W&B), from the store and in a process of its own.

The store is the truth. First each run is written as an offline W&B run (harness/mirror.py). Sending those folders is
a second step, taken when the spec says `mode = "online"` and you are logged in, or by `harness sync`. Neither can fail
or slow down a run: what goes wrong stands in `results/logs/tracking.log`, and `problem` says it once. The tracker goes
on after the run has ended, so that is mostly at the next run. W&B's own error reports are off.

    python -m harness.tracking RESULTS NAME@N SETTINGS-AS-JSON
"""

from __future__ import annotations

import configparser
import contextlib
import importlib.util
import json
import logging
import netrc
import os
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import HarnessError, StoreError
from harness.mirror import LOCK, identities, mirror, missing
from harness.store import Snapshot, Store

log = logging.getLogger(__name__)

SEND_SECONDS = 600.0
_NOT_OURS = (
    "WANDB_RUN_ID",
    "WANDB_RESUME",
    "WANDB_SWEEP_ID",
    "WANDB_SERVICE",
    "WANDB_MODE",
    "WANDB_NOTES",
    "WANDB_HOST",
)
_started: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one folder (or one snapshot) that was to be sent."""

    folder: str
    ok: bool
    message: str


# ------------------------------------------------------------------------------------------- called by who runs it


def start(root: Path, ref: str, settings: Mapping[str, Any]) -> None:
    """Begin to mirror a snapshot, in the background, and return at once. Never raises.

    `settings` are those of the spec's `[tracking]` table: `mode` ("off" does nothing), `project`, `entity`, `adapters`.
    The environment's WANDB_MODE may hold back what the spec would send, never the other way round.
    """
    settings = {**settings, "mode": _mode(settings["mode"])}
    online = settings["mode"] == "online"
    if settings["mode"] == "off":
        return
    if importlib.util.find_spec("wandb") is None:
        if online:
            hint = "pip install -e '.[track]' in a checkout, then `harness sync`"
            _report(root, ref, f"W&B is not installed, so nothing was sent: {hint}.")
        return
    if online and not logged_in():
        _report(root, ref, "you are not logged in to W&B, so nothing was sent: `wandb login`, then `harness sync`.")
        settings = {**settings, "mode": "offline"}
    try:
        files.make_folder(root / "logs")
        with (root / "logs" / "tracking.log").open("ab") as output:
            # kept in a list: an object that is dropped while its process runs is a warning
            _started.append(
                subprocess.Popen(
                    _command(root, ref, settings),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=_environment(root),
                    start_new_session=True,
                )
            )
    except (OSError, StoreError) as error:
        _report(root, ref, f"W&B tracking could not start: {error}")


def _mode(asked: str) -> str:
    """Return the spec's mode, or the stricter one that WANDB_MODE asks for ("dryrun" is W&B's old word for offline)."""
    environment = os.environ.get("WANDB_MODE", "").strip().lower()
    if environment == "disabled":
        return "off"
    return "offline" if asked == "online" and environment in ("offline", "dryrun") else asked


def problem(root: Path, ref: str) -> str | None:
    """Return what went wrong when the snapshot was mirrored last, or None. It is said once.

    A tracker that still works has said nothing yet: its warning is told by the next call, at the next run or `sync`.
    """
    path = _problem_file(root, ref)
    try:
        text = path.read_text()
        path.unlink()
    except OSError:
        return None
    return text


def sync(store: Store, experiment: str | None = None, seconds: float = SEND_SECONDS) -> Iterator[Sent]:
    """Mirror what is not mirrored yet, then send what is still local, folder by folder, past any that fails.

    `experiment` is a name, "name@N" or "latest"; None is everything. Only what these snapshots hold now is sent: never
    a run that was deleted. A folder gets at most `seconds`. Raises HarnessError where W&B is not installed or you are
    not logged in.
    """
    if importlib.util.find_spec("wandb") is None:
        raise HarnessError("W&B is not installed: pip install -e '.[track]' in a checkout.")
    if not logged_in():
        raise HarnessError("you are not logged in to W&B: run `wandb login`, or set WANDB_API_KEY; then sync again.")
    wanted: set[str] = set()
    for name, number in _chosen(store, experiment):
        ref = f"{name}@{number}"
        try:
            snapshot = Snapshot(store.root, name, number)
            wanted |= set(identities(snapshot))
            settings = {"project": "harness", **snapshot.spec.get("tracking", {"mode": "offline"})}
            if settings["mode"] == "off" or not missing(store.root, snapshot):
                continue
            command = _command(store.root, ref, {**settings, "mode": "offline"})
            subprocess.run(command, env=_environment(store.root), capture_output=True, check=False)
            if fault := problem(store.root, ref):
                yield Sent(ref, False, fault)
        except StoreError as error:
            yield Sent(ref, False, str(error))
    for note in _waiting(store.root, wanted):
        yield _send(store.root, note, seconds)


def _chosen(store: Store, experiment: str | None) -> list[tuple[str, int]]:
    if experiment is None:
        return list(store.snapshots())
    chosen = store.snapshot(experiment)
    whole = "@" not in experiment and experiment != "latest"
    return [(chosen.name, number) for number in (store.numbers(chosen.name) if whole else [chosen.number])]


def logged_in() -> bool:
    """Whether W&B would find a key for its server: in the environment or in the netrc file. Reads no key."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    settings = configparser.ConfigParser(strict=False)
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
        settings.read(Path(folder).expanduser() / "settings")
    url = os.environ.get("WANDB_BASE_URL") or settings.get("default", "base_url", fallback="https://api.wandb.ai")
    for name in (os.environ.get("NETRC"), "~/.netrc", "~/_netrc"):
        with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
            if name and urllib.parse.urlsplit(url).hostname in netrc.netrc(str(Path(name).expanduser())).hosts:
                return True
    return False


def _command(root: Path, ref: str, settings: Mapping[str, Any]) -> list[str]:
    return [sys.executable, "-P", "-m", "harness.tracking", str(root.resolve()), ref, json.dumps(dict(settings))]


def _environment(root: Path) -> dict[str, str]:
    """Return the environment for W&B: nothing of this machine goes along, its files stay in the results folder."""
    ours = {
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_CONSOLE": "off",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_SAVE_CODE": "false",
        "WANDB_DIR": str(root.resolve()),
        "WANDB_DATA_DIR": str(root.resolve() / "wandb" / "data"),
        "WANDB_X_GRAPHQL_RETRY_MAX": "4",
        "WANDB_X_FILE_STREAM_RETRY_MAX": "4",
        "WANDB_X_FILE_TRANSFER_RETRY_MAX": "4",
    }
    return {**{name: value for name, value in os.environ.items() if name not in _NOT_OURS}, **ours}


# ----------------------------------------------------------------------------------------------------------- notes


def _report(root: Path, ref: str, text: str) -> None:
    with contextlib.suppress(StoreError):
        files.make_folder(root / "logs")
        files.write_bytes(_problem_file(root, ref), text.encode("utf-8", "replace"))


def _problem_file(root: Path, ref: str) -> Path:
    return root / "logs" / f"tracking-{ref}.txt"


def _waiting(root: Path, wanted: Collection[str]) -> list[Path]:
    """Return the notes of folders that were not sent yet, of the W&B ids `wanted`, oldest first."""
    found = []
    for path in (root / "wandb" / "mirrored").glob("*.json"):
        if path.stem not in wanted:
            continue
        try:
            note = files.read_json(path)
            if note["sent"] is None:
                found.append((note["made"], path))
        except (StoreError, KeyError, TypeError) as error:
            log.warning("%s is no note of a mirrored run: %s", path, error)
    return [path for _, path in sorted(found)]


def _send(root: Path, path: Path, seconds: float) -> Sent:
    """Send one folder with W&B's own program. Its exit status says nothing; the mark that it leaves does."""
    note = files.read_json(path)
    folder = root / note["folder"]
    message = f"it got no answer within {seconds:.0f} s; it stays here, and `harness sync` tries again"
    if not folder.is_dir():
        path.unlink()
        return Sent(note["folder"], False, "the folder is gone; the next `harness sync` makes it again")
    command = [sys.executable, "-P", "-m", "wandb", "sync", str(folder.resolve())]
    try:
        # In an empty folder: W&B takes settings, and Python modules, from where it is started.
        with tempfile.TemporaryDirectory(prefix="harness-") as nowhere:
            done = subprocess.run(
                command,
                env=_environment(root),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=nowhere,
                timeout=seconds,
                check=False,
            )
        message = _fault(done.stdout.decode("utf-8", "replace"))
    except subprocess.TimeoutExpired:
        pass
    except OSError as error:
        message = str(error)
    if not any(folder.glob("*.wandb.synced")):
        return Sent(note["folder"], False, message)
    files.write_json(path, {**note, "sent": files.now()})
    return Sent(note["folder"], True, f"sent: {note['what']}")


def _fault(output: str) -> str:
    """Return the line of W&B's output that says most: its first error, else its last line."""
    lines = [line.removeprefix("wandb:").strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "Error")) and "error logs at" not in line]
    return (errors or lines or ["W&B said nothing"])[0 if errors else -1]


# --------------------------------------------------------------------------------------------- the tracker's process


def main(words: Sequence[str]) -> int:
    """Mirror one snapshot, and send it where that is asked for. Whatever fails is logged and told by `problem`."""
    root, ref, settings = Path(words[0]), words[1], json.loads(words[2])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        store = Store(root)
        snapshot = store.snapshot(ref)
        with _alone(root):
            for what in mirror(store, snapshot, settings):
                log.info("%s: mirrored %s", ref, what)
        if settings["mode"] == "online":
            _send_all(store.root, snapshot)
    except Exception as error:
        log.exception("%s: mirroring to W&B failed", ref)
        where = root / "logs" / "tracking.log"
        _report(
            root,
            ref,
            f"mirroring {ref} to W&B failed ({type(error).__name__}: {error}); the results are whole. See {where}.",
        )
        return 1
    return 0


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let one process at a time mirror."""
    lock = files.Lock(root / "locks" / LOCK)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _send_all(root: Path, snapshot: Snapshot) -> None:
    for note in _waiting(root, identities(snapshot)):
        sent = _send(root, note, SEND_SECONDS)
        log.info("%s: %s", sent.folder, sent.message)
        if not sent.ok:
            _report(
                root, snapshot.ref, f"{sent.folder} was not sent to W&B ({sent.message}); `harness sync` tries again."
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
