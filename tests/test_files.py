"""Hashes of files: each is read once, and no change is missed."""

import hashlib
import os
import time

import pytest

from aggregation import files


@pytest.fixture
def read(monkeypatch):
    """The paths that were hashed, one for each time."""
    paths, plain = [], hashlib.file_digest

    def counted(file, name):
        paths.append(file.name)
        return plain(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return paths


def settle(path):
    """Wait until another change has another time."""
    while time.time_ns() - path.stat().st_ctime_ns <= files.GRAIN:
        time.sleep(0.01)


def test_a_file_is_read_once_until_it_changes(tmp_path, read):
    path = tmp_path / "data"
    path.write_bytes(b"one")
    settle(path)
    assert files.sha256(path) == files.sha256(path) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 1
    before = path.stat()
    path.write_bytes(b"two")  # as long
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as old, it says
    assert files.sha256(path) == hashlib.sha256(b"two").hexdigest()
    path.replace(tmp_path / "elsewhere")
    assert files.sha256(path) == ""


def test_a_file_that_has_just_changed_is_read_again(tmp_path):
    path = tmp_path / "data"
    for k in range(200):  # several within one tick of the clock of files
        text = b"%03d" % k
        path.write_bytes(text)
        assert files.sha256(path) == hashlib.sha256(text).hexdigest()
