"""Delete, gc, pack and unpack: nothing that is in use goes, nothing hostile comes in."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_store import STEPS, answer, do_steps, everything, finished, planned, python

from harness import archive, files
from harness.errors import StoreError
from harness.store import Store

OTHER = tuple(name[:-1] + "0" for name in STEPS)


def tree(root: Path) -> dict[str, bytes]:
    """Return every file of a folder but locks and the index."""
    every = (
        path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != "index.json"
    )
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in every}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """An archive of one finished experiment."""
    store = Store(tmp_path / "here")
    finished(store)
    return archive.pack(store, "desk", tmp_path / "desk.zip")


# ------------------------------------------------------------------------------------------------------ delete, gc


def test_delete_takes_snapshots_and_gc_then_takes_the_steps_that_nothing_uses(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store)
    finished(store, question="another")
    finished(store, "triage", steps=(STEPS[0], *OTHER[1:]))
    assert archive.gc(store) == []
    assert archive.delete(store, "desk@1") == ["desk@1"] and store.numbers("desk") == [2]
    assert archive.gc(store) == []
    assert archive.delete(store, "desk") == ["desk@2"] and store.names() == ["triage"]
    assert not (tmp_path / "experiments" / "desk").exists()
    found = archive.gc(store)
    assert [entry.name for entry in found] == [f"steps/{STEPS[1]}", f"steps/{STEPS[2]}"]
    assert all(entry.bytes > 300 and entry.why == "no snapshot uses it" for entry in found)
    assert store.step(STEPS[1]).outcome is not None
    assert archive.gc(store, dry=False) == found and archive.gc(store) == []
    assert [step.name for step in store.steps()] == sorted((STEPS[0], *OTHER[1:]))
    assert everything(store, "triage")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_deleting_a_name_that_is_not_there_says_what_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store)
    for ref, message in (("dask", "Did you mean 'desk'"), ("desk@2", "Available: desk@1"), ("desk@", "Available")):
        with pytest.raises(StoreError, match=message):
            archive.delete(store, ref)
    assert store.numbers("desk") == [1]
    assert archive.delete(store, "latest") == ["desk@1"]


def test_a_number_is_not_given_twice_while_later_ones_stand(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for question in "abc":
        finished(store, question=question)
    archive.delete(store, "desk@2")
    assert finished(store, question="d").ref == "desk@4"


def test_what_a_living_process_works_on_is_neither_deleted_nor_collected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.begin("desk", {}, "", [planned()]):
        do_steps(store)
        do_steps(store, OTHER)  # begun since a run goes on: it may be about to refer to them
        with pytest.raises(StoreError, match="desk@1 is running now"):
            archive.delete(store, "desk")
        assert archive.gc(store) == []
    assert [entry.name for entry in archive.gc(store)] == sorted(f"steps/{name}" for name in OTHER)
    with store.step(OTHER[0]).lock():
        with pytest.raises(StoreError, match="another process works on the step"):
            archive.delete(store, OTHER[0])
        assert f"steps/{OTHER[0]}" not in {entry.name for entry in archive.gc(store, dry=False)}
    assert store.step(OTHER[0]).outcome is not None


def test_gc_finds_what_killed_processes_left(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store)
    left = [tmp_path / "tmp" / "dead", store.step(STEPS[0]).work]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"12345")
    old, new = tmp_path / "steps" / STEPS[1] / ".predictions.jsonl.1.tmp", tmp_path / ".index.json.2.tmp"
    for path in (old, new):
        path.write_bytes(b"123")
    os.utime(old, (time.time() - 7200,) * 2)
    found = {entry.name: entry.bytes for entry in archive.gc(store, dry=False)}
    assert found == {"tmp/dead": 5, f"steps/{STEPS[0]}/work": 5, f"steps/{STEPS[1]}/{old.name}": 3}
    assert new.exists() and not old.exists() and not any(folder.exists() for folder in left)
    assert everything(store)


def test_gc_removes_nothing_when_a_snapshot_cannot_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store)
    do_steps(store, OTHER)
    (tmp_path / "experiments" / "desk" / "1" / "snapshot.json").write_text("{")
    for dry in (True, False):
        with pytest.raises(StoreError, match="gc removes nothing, because it cannot tell which steps desk@1 uses"):
            archive.gc(store, dry=dry)
    assert len(list(store.steps())) == 6


def test_gc_while_others_begin_and_work_takes_nothing_they_need(tmp_path: Path) -> None:
    script = """
        from harness import archive
        store, children = Store(Path(sys.argv[1])), []
        for number in range(3):
            child = os.fork()
            if child == 0:
                for round in range(4):
                    names = tuple(f"{name.partition('-')[0]}-{number}{round}" for name in STEPS)
                    finished(store, f"desk-{number}", str(round), names)
                os._exit(0)
            children.append(child)
        until = time.time() + 0.2
        while children or time.time() < until:
            archive.gc(store, dry=False)
            children = [child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)]
        for number in range(3):
            for round in range(4):
                everything(store, f"desk-{number}@{round + 1}")
        print(len(list(store.steps())))
    """
    assert python(script, tmp_path) == "36\n"


# ---------------------------------------------------------------------------------------------------- pack, unpack


def test_an_archive_brings_everything_to_another_folder(tmp_path: Path, packed: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    assert archive.unpack(there, packed) == "desk@1"
    assert tree(there.root) == tree(here.root)
    assert everything(there) == everything(here)
    assert there.experiments() == here.experiments()
    assert archive.unpack(there, packed) == "desk@1" and there.numbers("desk") == [1]
    assert archive.gc(there) == []
    with zipfile.ZipFile(packed) as content:
        assert str(tmp_path) not in "".join(content.namelist()) and content.testzip() is None


def test_the_same_snapshot_packs_to_the_same_bytes(tmp_path: Path, packed: Path) -> None:
    again = archive.pack(Store(tmp_path / "here"), "desk@1", tmp_path / "again.zip")
    assert again.read_bytes() == packed.read_bytes()
    with pytest.raises(StoreError, match="is there already"):
        archive.pack(Store(tmp_path / "here"), "desk", again)


def test_steps_that_exist_are_merged_and_a_taken_number_gives_the_next(tmp_path: Path, packed: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    archive.unpack(there, packed)
    archive.delete(there, "desk")
    finished(there, question="another one")
    before = tree(there.root)
    assert archive.unpack(there, packed) == "desk@2" and archive.unpack(there, packed) == "desk@2"
    assert before.items() <= tree(there.root).items()
    assert everything(there, "desk@2") == everything(here)


def test_a_step_of_the_same_name_and_another_content_is_never_overwritten(tmp_path: Path, packed: Path) -> None:
    there = Store(tmp_path / "there")
    step = there.step(STEPS[1])
    step.start({})
    step.write_predictions([answer("other")])
    step.complete({})
    before = tree(there.root)
    with pytest.raises(StoreError, match=rf"{STEPS[1]} is in .* with another content .* with --results"):
        archive.unpack(there, packed)
    assert tree(there.root) == before


def test_the_unfinished_work_of_a_killed_process_gives_way_and_a_living_one_does_not(
    tmp_path: Path, packed: Path
) -> None:
    there = Store(tmp_path / "there")
    step = there.step(STEPS[1])
    step.start({})
    with step.answers() as answers:
        answers.append([answer("1")])
    with step.lock(), pytest.raises(StoreError, match="another process works on the step"):
        archive.unpack(there, packed)
    assert archive.unpack(there, packed) == "desk@1" and step.outcome == {"seconds": 1.25, "n": 7}
    assert not step.work.exists() and list((there.root / "tmp").iterdir()) == []


def test_an_interrupted_run_moves_with_the_steps_that_are_complete(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    with here.begin("desk", {"a": 1}, "text", [planned()]):
        do_steps(here, STEPS[:1])
        here.step(STEPS[1]).start({})
        with pytest.raises(StoreError, match="is running now: pack it when it has ended"):
            archive.pack(here, "desk", tmp_path / "desk.zip")
    assert archive.unpack(there, archive.pack(here, "desk", tmp_path / "desk.zip")) == "desk@1"
    assert [step.name for step in there.steps()] == [STEPS[0]] and there.snapshot("desk").state == "interrupted"
    with there.begin("desk", {"a": 1}, "text", [planned()]) as again:
        assert again.ref == "desk@1"


def test_a_damaged_store_is_not_packed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store)
    path = tmp_path / "steps" / STEPS[0] / "artifact" / "adapter.safetensors"
    path.write_bytes(b"?" * path.stat().st_size)
    with pytest.raises(StoreError, match=r"adapter.safetensors is damaged"):
        archive.pack(store, "desk", tmp_path / "desk.zip")
    assert list(tmp_path.glob("*.zip*")) == list(tmp_path.glob(".*zip*")) == []


# ---------------------------------------------------------------------------------------------------- hostile ones


def rebuilt(packed: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None], listed: bool = True) -> Path:
    """Return an archive with changed content whose manifest fits it again, unless not `listed`."""
    with zipfile.ZipFile(packed) as old:
        content = {name: old.read(name) for name in old.namelist()}
    manifest = json.loads(content.pop(archive.MANIFEST))
    change(content, manifest)
    if listed:
        manifest["files"] = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in content.items()}
    path = packed.with_name("hostile.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in {**content, archive.MANIFEST: json.dumps(manifest).encode()}.items():
            new.writestr(name, data)
    return path


def refused(tmp_path: Path, path: Path, match: str) -> None:
    """The archive is refused with a message, and nothing anywhere has changed."""
    there = Store(tmp_path / "there")
    archive.delete(there, "latest") if there.names() else None
    before = {found: found.lstat().st_mtime_ns for found in tmp_path.rglob("*") if found.is_file()}
    with pytest.raises(StoreError, match=match):
        archive.unpack(there, path)
    after = {found: found.lstat().st_mtime_ns for found in tmp_path.rglob("*") if found.is_file()}
    assert {found for found in after if found.suffix != ".lock"} == {f for f in before if f.suffix != ".lock"}
    assert list((there.root / "tmp").iterdir()) == [] and there.experiments() == [] and list(there.steps()) == []


NAMES = [
    "../up.json",
    "/etc/passwd",
    "steps/../../up.json",
    f"steps/{STEPS[0]}/../../../up",
    f"steps/{STEPS[0]}//double",
    f"steps/{STEPS[0]}/./dot",
    f"steps/{STEPS[0]}/a\\..\\b",
    f"steps/{STEPS[0]}/C:stream",
    f"steps/{STEPS[0]}/trailing.",
    f"steps/{STEPS[0]}/line\nbreak",
    f"steps/{STEPS[0]}/STEP.json",
    f"steps/{STEPS[0]}",
    "steps/.hidden/complete.json",
    "steps/con/complete.json",
    "experiments/other/1/snapshot.json",
    "experiments/desk/2/snapshot.json",
    "experiments/desk/01/snapshot.json",
    "experiments/desk/1",
    "VERSION",
    "index.json",
    "locks/desk.lock",
    "tmp/x",
    "C:/windows",
    "//server/share",
    f"steps/{STEPS[0]}/step.json/inner",
    f"steps/{STEPS[0]}/extra.json",
    f"steps/{STEPS[0]}/.{'x' * 300}",
    "experiments/desk/1/extra.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_no_place_in_the_results_is_refused(tmp_path: Path, packed: Path, name: str) -> None:
    refused(tmp_path, rebuilt(packed, lambda content, _: content.update({name: b"{}"})), r"hostile|damaged|cannot be")
    assert not list(tmp_path.rglob("up*"))


def test_links_folders_and_encrypted_entries_are_refused(tmp_path: Path, packed: Path) -> None:
    for mode, flag in ((stat.S_IFLNK, 0), (stat.S_IFDIR, 0), (stat.S_IFCHR, 0), (stat.S_IFREG, 1)):
        path = tmp_path / f"hostile-{mode}-{flag}.zip"
        with zipfile.ZipFile(packed) as old, zipfile.ZipFile(path, "w") as new:
            for number, name in enumerate(old.namelist()):
                info = zipfile.ZipInfo(name)
                info.external_attr = ((mode if number == 3 else stat.S_IFREG) | 0o777) << 16
                new.writestr(info, old.read(name))
                info.flag_bits |= flag if number == 3 else 0
        refused(tmp_path, path, "is a link, a folder or encrypted")


def test_an_archive_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path, packed: Path) -> None:
    """A bomb: a small file, compressed well, behind a manifest that lists little; then one that lists too much."""
    name = f"steps/{STEPS[0]}/artifact/adapter.safetensors"
    bomb = rebuilt(packed, lambda content, _: content.update({name: bytes(50_000_000)}), listed=False)
    assert bomb.stat().st_size < 200_000
    refused(tmp_path, bomb, "is not what its manifest lists")

    def huge(content: dict[str, bytes], manifest: dict[str, Any]) -> None:
        manifest["files"][name][0] = 10**18

    refused(tmp_path, rebuilt(packed, huge, listed=False), "needs 1,000,000,000,000.* bytes")


def test_a_wrong_manifest_is_refused(tmp_path: Path, packed: Path) -> None:
    def changed(**what: Any) -> Callable[[dict[str, bytes], dict[str, Any]], None]:
        return lambda _, manifest: manifest.update(what)

    refused(
        tmp_path, rebuilt(packed, changed(format=2)), r"newer harness \(format 2; this one reads up to 1\): upgrade"
    )
    for what in ({"format": "1"}, {"format": None}, {"ref": 5}, {"ref": "desk"}, {"ref": "other@1"}, {"ref": ""}):
        refused(tmp_path, rebuilt(packed, changed(**what)), "hostile")
    for files_ in ([], {"a": 1}, {"a": [1]}, {"a": [-1, "x"]}, {}):
        refused(tmp_path, rebuilt(packed, changed(files=files_), listed=False), "hostile")
    refused(tmp_path, rebuilt(packed, lambda content, _: content.popitem(), listed=False), "manifest lists")


def test_content_that_does_not_fit_its_seal_is_refused(tmp_path: Path, packed: Path) -> None:
    for name in (
        f"steps/{STEPS[1]}/predictions.jsonl",
        f"steps/{STEPS[0]}/complete.json",
        "experiments/desk/1/leaderboard.json",
        "experiments/desk/1/snapshot.json",
        "experiments/desk/1/runs/rag@0.json",
    ):
        data = b'{"payload": {}, "sha256": "0"}'
        refused(tmp_path, rebuilt(packed, lambda content, _, n=name, d=data: content.update({n: d})), "damaged")
        refused(tmp_path, rebuilt(packed, lambda content, _, n=name: content.pop(n)), "damaged|not complete")
    step = f"steps/{STEPS[2]}/"

    def without_a_step(content: dict[str, bytes], _: Any) -> None:
        for name in [name for name in content if name.startswith(step)]:
            del content[name]

    refused(tmp_path, rebuilt(packed, without_a_step), f"the step {STEPS[2]} of rag is not in the archive")


def test_a_seal_or_a_run_that_names_a_path_outside_is_refused(tmp_path: Path, packed: Path) -> None:
    """The digests fit: only the names are hostile."""
    (tmp_path / "secret").write_text("s")
    about = [1, hashlib.sha256(b"s").hexdigest()]

    def reseal(content: dict[str, bytes], folder: str, change: Callable[[dict[str, Any]], None]) -> None:
        body = json.loads(content[f"{folder}/complete.json"])
        del body["sha256"]
        change(body)
        body["sha256"] = files.digest(body, 64)
        content[f"{folder}/complete.json"] = json.dumps(body).encode()

    for outside in ("../../../../secret", str(tmp_path / "secret")):
        for folder in (f"steps/{STEPS[0]}", "experiments/desk/1"):
            hostile = rebuilt(
                packed,
                lambda content, _, f=folder, o=outside: reseal(
                    content, f, lambda body: body["files"].update({o: about})
                ),
            )
            refused(tmp_path, hostile, "damaged")

    def hostile_run(content: dict[str, bytes], _: Any) -> None:
        run = files.json.loads(content["experiments/desk/1/runs/rag@0.json"])
        run["steps"]["predict"] = "../../secret"
        data = content["experiments/desk/1/runs/rag@0.json"] = json.dumps(run).encode()
        listed = [len(data), hashlib.sha256(data).hexdigest()]
        reseal(content, "experiments/desk/1", lambda body: body["files"].update({"runs/rag@0.json": listed}))

    refused(tmp_path, rebuilt(packed, hostile_run), "cannot be the name of a step")


def test_a_file_that_is_no_archive_or_is_cut_anywhere_is_refused(tmp_path: Path, packed: Path) -> None:
    data = packed.read_bytes()
    cut = tmp_path / "cut.zip"
    for length in [0, 1, 100, *range(200, len(data), len(data) // 12), len(data) - 1]:
        cut.write_bytes(data[:length])
        refused(tmp_path, cut, "is no archive of results, or it is damaged")
    with pytest.raises(StoreError, match=r"cannot read .*none\.zip: No such file"):
        archive.unpack(Store(tmp_path / "there"), tmp_path / "none.zip")


def test_a_changed_byte_in_an_archive_is_found_or_changes_nothing(tmp_path: Path, packed: Path) -> None:
    data, expected = packed.read_bytes(), tree(Store(tmp_path / "here").root)
    found = 0
    for number, place in enumerate(range(11, len(data), len(data) // 24)):
        changed = tmp_path / "changed.zip"
        changed.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        there = Store(tmp_path / f"there-{number}")
        try:
            archive.unpack(there, changed)
        except StoreError:
            found += 1
            assert there.experiments() == [] and list(there.steps()) == []
        else:
            assert tree(there.root) == expected
    assert found > 8


def test_a_killed_unpack_leaves_a_store_that_takes_the_archive_again(tmp_path: Path, packed: Path) -> None:
    script = """
        from harness import archive
        random.seed(5)
        there, kills = Path(sys.argv[2]), 0
        archive.unpack(Store(Path(sys.argv[2] + "-warm")), Path(sys.argv[1]))
        for number in range(12):
            child = os.fork()
            if child == 0:
                archive.unpack(Store(there), Path(sys.argv[1]))
                os._exit(0)
            time.sleep(random.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
            for summary in Store(there).experiments():
                everything(Store(there), summary.ref)
        store = Store(there)
        print(kills, archive.unpack(store, Path(sys.argv[1])), len(everything(store)))
        archive.gc(store, dry=False)
        print(list((there / "tmp").iterdir()), len(list(store.steps())))
    """
    first, second = python(script, packed, tmp_path / "there").splitlines()
    assert int(first.split()[0]) > 0 and " desk@1 " in first and second == "[] 3"


def test_a_failed_run_packs_and_unpacks(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    with here.begin("desk", {}, "", [planned()]) as snapshot:
        snapshot.save_run(replace(planned(), status="failed", error="no memory"))
        snapshot.finish({"rows": []}, "")
    archive.unpack(there, archive.pack(here, "desk", tmp_path / "desk.zip"))
    assert there.snapshot("desk").state == "failed" and there.snapshot("desk").runs()[0].error == "no memory"
