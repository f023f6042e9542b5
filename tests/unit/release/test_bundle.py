from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest

from modelyard.core.errors import BundleTampered, ReleaseError
from modelyard.release import bundle as bundle_module
from modelyard.release.bundle import LIMITS, Bundle, read_bundle, verify_bundle, write_bundle
from modelyard.release.key import SigningKey
from modelyard.release.sign import SIGNATURE, sign


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", bundle)


def test_round_trip(folder: Path, bundle: Bundle, key: SigningKey) -> None:
    found = read_bundle(folder, [key.public])
    assert dict(found.files) == dict(bundle.files)
    assert found.digest == bundle.digest
    assert sorted(path.name for path in folder.iterdir()) == sorted(LIMITS)


def test_equal_parts_give_equal_bytes(make: Callable[..., Bundle]) -> None:
    assert dict(make().files) == dict(make().files)
    assert make(version=2).digest != make(version=1).digest


def test_the_digest_leaves_the_signature_out(bundle: Bundle, key: SigningKey) -> None:
    other = {**bundle.files, SIGNATURE: sign(bundle.files, key, name="another name")}
    assert other[SIGNATURE] != bundle.files[SIGNATURE]
    assert Bundle(other).digest == bundle.digest
    assert Bundle({**bundle.files, "evidence.jsonl": b""}).digest != bundle.digest


@pytest.mark.parametrize("name", LIMITS)
def test_one_changed_byte_in_any_file_is_found(folder: Path, key: SigningKey, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleTampered) as caught:
        read_bundle(folder, [key.public])
    assert caught.value.where == name


@pytest.mark.parametrize("name", LIMITS)
def test_a_missing_file_is_named(folder: Path, key: SigningKey, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleTampered, match=name) as caught:
        read_bundle(folder, [key.public])
    assert caught.value.where == name


def test_an_added_file_is_named(folder: Path, key: SigningKey) -> None:
    (folder / "hook.py").write_text("print('never run')")
    with pytest.raises(BundleTampered, match=r"hook\.py"):
        read_bundle(folder, [key.public])


def test_a_renamed_file_is_named(folder: Path, key: SigningKey) -> None:
    (folder / "answers.json").rename(folder / "answer.json")
    with pytest.raises(BundleTampered, match=r"answer\.json"):
        read_bundle(folder, [key.public])


def test_a_swapped_signature_is_found(folder: Path, key: SigningKey, make: Callable[..., Bundle]) -> None:
    (folder / SIGNATURE).write_bytes(make(version=2).files[SIGNATURE])
    with pytest.raises(BundleTampered) as caught:
        read_bundle(folder, [key.public])
    assert caught.value.where == "release.json"


def _symlink(path: Path, other: Path) -> None:
    path.symlink_to(other)


def _hardlink(path: Path, other: Path) -> None:
    path.hardlink_to(other)


def _pipe(path: Path, other: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path, other: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("plant", [_symlink, _hardlink, _pipe, _folder])
def test_only_plain_files_are_read(
    folder: Path, key: SigningKey, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    """The very same bytes through a link are refused too: a link can point elsewhere a moment later."""
    other = tmp_path / "outside"
    (folder / "model.onnx").rename(other)
    plant(folder / "model.onnx", other)
    with pytest.raises(BundleTampered) as caught:
        read_bundle(folder, [key.public])
    assert caught.value.where == "model.onnx"


def test_a_linked_folder_is_refused(folder: Path, key: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ReleaseError, match="no bundle here"):
        read_bundle(tmp_path / "link", [key.public])
    with pytest.raises(ReleaseError, match="no bundle here"):
        read_bundle(tmp_path / "absent", [key.public])


def test_a_file_beyond_its_bound_is_not_read(folder: Path, key: SigningKey) -> None:
    with (folder / "release.json").open("wb") as file:
        file.truncate(LIMITS["release.json"] + 1)
    with pytest.raises(BundleTampered, match="too large"):
        read_bundle(folder, [key.public])
    with (folder / "model.onnx").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BundleTampered, match="too large"):
        read_bundle(folder, [key.public])


def test_nothing_is_parsed_before_the_signature_holds(
    bundle: Bundle, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []
    monkeypatch.setattr(bundle_module, "parse_object", lambda data, where, error=None: parsed.append(where))
    with pytest.raises(BundleTampered):
        verify_bundle(Bundle({**bundle.files, "release.json": b"[" * 100_000}), [key.public])
    assert parsed == []


def test_writing_again_changes_nothing_and_never_overwrites(
    folder: Path, bundle: Bundle, make: Callable[..., Bundle]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert write_bundle(folder, bundle) == folder
    with pytest.raises(ReleaseError, match="cannot be written"):
        write_bundle(folder, make(version=2))
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert [path.name for path in folder.parent.iterdir() if path.name.endswith(".part")] == []


def test_a_full_disk_leaves_nothing_behind(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(bundle_module, "_write", write)
    with pytest.raises(ReleaseError, match="No space left"):
        write_bundle(tmp_path / "out" / "bundle", bundle)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bundle_with_other_files_is_not_written(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleTampered, match="escape"):
        write_bundle(tmp_path / "b", Bundle(MappingProxyType({**bundle.files, "../escape": b""})))
    assert not (tmp_path / "b").exists()


def test_release_json_says_what_it_should(bundle: Bundle) -> None:
    said = json.loads(bundle.files["release.json"])
    assert said["format"] == 1
    assert (said["name"], said["version"], said["task"], said["labels"]) == (
        "digits",
        1,
        "classification",
        ["no", "yes"],
    )
    assert said["lineage"]["model"] == bundle.digests["model.onnx"]
    assert said["options"] == {"threads": 1}
