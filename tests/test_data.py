"""Committed texts, splits, windows."""

import hashlib
import json

import numpy as np
import pytest

from lora_np import data


def test_every_text_has_provenance_and_its_sha256():
    record = json.loads((data.HERE / "PROVENANCE.json").read_text())
    assert set(record) == set(data.TEXTS)
    for name, entry in record.items():
        content = (data.HERE / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert entry["source"] and "public domain" in entry["licence"]


def test_an_altered_text_is_refused(tmp_path, monkeypatch):
    for name in ("PROVENANCE.json", "devil.txt"):
        (tmp_path / name).write_bytes((data.HERE / name).read_bytes())
    monkeypatch.setattr(data, "HERE", tmp_path)
    assert data.read_text("devil.txt").startswith("ABASEMENT, n.")
    (tmp_path / "devil.txt").write_text("ABASEMENT, n. Something else.")
    with pytest.raises(ValueError, match="sha256 differs"):
        data.read_text("devil.txt")
    with pytest.raises(ValueError, match="there are web_train.txt"):
        data.read_text("../secret")


def test_entries_are_whole_and_split_apart():
    entries = data.devil_entries()
    assert len(entries) > 900 and all(e.split(".")[0] for e in entries)
    assert entries[0].startswith("ABASEMENT, n. A decent and customary")
    training, held_out = (data.decode(p) for p in data.split_ids("devil"))
    assert entries[9] in held_out and entries[9] not in training
    assert entries[0] in training and entries[0] not in held_out
    bible = [data.decode(p) for p in data.split_ids("bible")]
    assert "Elisha" in bible[1] and bible[1][:300] not in bible[0]
    with pytest.raises(ValueError, match="'bible' and 'devil'"):
        data.split_ids("koran")


def test_bytes_and_back():
    assert data.decode(data.encode("naïve 爱")) == "naïve 爱"
    assert data.decode(data.encode("“don’t—”")) == '"don\'t-"'
    assert data.decode(np.array([255, 65])) == "\ufffdA"
    assert data.encode("").shape == (0,)


def test_windows():
    ids = np.arange(50)
    x, y = data.random_windows(ids, 4, 7, np.random.default_rng(0))
    assert x.shape == y.shape == (4, 7) and (y == x + 1).all()
    starts = {int(data.random_windows(ids, 1, 48, np.random.default_rng(s))[0][0, 0])
              for s in range(30)}  # fmt: skip
    assert starts == {0, 1}  # every place can be drawn, the last one too
    batches = data.fixed_windows(ids, 5, 9, batch=2)
    assert [len(b[0]) for b in batches] == [2, 2, 1]
    assert batches[0][0][0, 0] == 0 and batches[-1][1][-1, -1] == 49
    for f in (lambda: data.random_windows(ids, 1, 50, np.random.default_rng(0)),
              lambda: data.fixed_windows(ids, 1, 50)):  # fmt: skip
        with pytest.raises(ValueError, match="does not fit into 50"):
            f()
