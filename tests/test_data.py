"""Committed texts, splits, windows."""

import hashlib
import io
import json
import tarfile
import zipfile
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest

from lora_np import data
from lora_np.cli.main import main
from lora_np.data import fetch, tasks


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


# ---- tasks made of the texts


def test_elements_stop_where_another_source_begins():
    entries = tasks.element_entries()
    assert len(entries) == 103 and entries[-1].startswith("lawrencium")
    assert "Wikipedia" not in data.read_text("elements.txt")
    pairs = tasks.element_questions(entries)
    assert len(pairs) == 4 * 103
    assert ("What is the atomic number of iron?", "26") in pairs
    assert ("Which element is Fe?", "iron") in pairs
    assert all(q and a for q, a in pairs)


def test_verses_are_aligned_and_poems_whole():
    pairs = tasks.verse_pairs()
    assert len(pairs) == 1533 and all(a and b for a, b in pairs)
    joseph = [b for a, b in pairs if "Joseph" in a]
    assert len(joseph) > 100 and np.mean(["José" in b for b in joseph]) > 0.8
    shifted = [b for (a, _), (_, b) in pairwise(pairs) if "Joseph" in a]
    assert np.mean(["José" in b for b in shifted]) < 0.8  # a slip would show
    poems = tasks.poems()
    assert len(poems) == 313 and not any("作者" in p or "《" in p[:1] for p in poems)
    text = "".join(poems)
    assert text.count("编") == 1 and text.count("程") == 1 and "\x1b" not in text


def test_unknown_characters():
    c = tasks.Characters("aabbc", at_least=2)
    assert len(c) == 3 and c.encode("cab").tolist() == [0, 1, 2]
    assert c.decode(c.encode("xyz")) == "□□□" and c.encode("").shape == (0,)


def test_prompts_count_answers_only_and_keep_them():
    x, y = tasks.prompt_batch([("Q: ", "answer"), ("a very long prompt ", "yes")], 10)
    assert x.shape == y.shape == (2, 10)
    for row, want in ((0, "answer\n"), (1, "yes\n")):
        counted = y[row][y[row] != tasks.IGNORE]
        assert data.decode(counted) == want
    whole = tasks.encode("Q: answer\n")
    np.testing.assert_array_equal(x[0, : len(whole) - 1], whole[:-1])
    at = np.flatnonzero(y[1] != tasks.IGNORE)
    np.testing.assert_array_equal(
        x[1, at[1:]], y[1, at[:-1]]
    )  # the input is one behind
    long = tasks.prompt_batch([("prompt", "x" * 50)], 8)
    assert (long[1] != tasks.IGNORE).sum() == 8  # no room for more


def test_labelled_windows_are_balanced_and_labelled_right():
    texts = [np.full(50, i) for i in range(3)]
    x, y = tasks.labelled_windows(texts, 12, 5, np.random.default_rng(0))
    assert x.shape == (12, 5) and (x == y[:, None]).all()
    assert np.bincount(y).tolist() == [4, 4, 4]
    with pytest.raises(ValueError, match="multiple of the 3 classes"):
        tasks.labelled_windows(texts, 10, 5, np.random.default_rng(0))


# ---- optional data: a local index in place of PyPI


class Answer(io.BytesIO):
    headers: ClassVar = {}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A made-up source; returns a function that sets what the index serves."""
    monkeypatch.setenv("LORA_NP_DATA", str(tmp_path / "cache"))
    content = b"the archive"
    made = fetch.Source("toy", "toy-1.tar.gz", hashlib.sha256(content).hexdigest(),
                        "1 kB", "MIT", "nothing")  # fmt: skip
    monkeypatch.setitem(fetch.SOURCES, "toy", made)
    served = {"page": b'<a href="https://files/x/toy-1.tar.gz#sha256=0">toy</a>',
              "file": content}  # fmt: skip

    def urlopen(url, timeout):
        if isinstance(served["page"], Exception):
            raise served["page"]
        return Answer(served["page"] if url.endswith("/toy/") else served["file"])

    monkeypatch.setattr(fetch.urllib.request, "urlopen", urlopen)
    return served


def test_fetched_archives_are_checked_and_kept(index):
    with pytest.raises(FileNotFoundError, match="lora_np fetch toy"):
        fetch.archive("toy")
    assert fetch.fetch("toy").read_bytes() == b"the archive" == fetch.archive("toy")
    index["page"] = OSError("no network")
    fetch.fetch("toy")  # nothing to do, so no network is needed
    (fetch.folder() / "toy-1.tar.gz").write_bytes(b"altered")
    with pytest.raises(ValueError, match="delete it and fetch it again"):
        fetch.fetch("toy")


@pytest.mark.parametrize(
    "change, error, words",
    [({"page": b"nothing here"}, ValueError, "does not list toy-1.tar.gz"),
     ({"file": b"another content"}, ValueError, "nothing kept"),
     ({"page": OSError("no network")}, OSError, "no network")],
)  # fmt: skip
def test_what_is_not_the_archive_is_not_kept(index, change, error, words):
    index.update(change)
    with pytest.raises(error, match=words):
        fetch.fetch("toy")
    assert not fetch.available("toy")


def test_the_fetch_command(index, capsys):
    assert main(["fetch"]) == 0
    assert "sentiment-zh" in capsys.readouterr().out
    assert main(["fetch", "toys"]) == 2
    assert "no data set 'toys'" in capsys.readouterr().err
    assert main(["fetch", "toy"]) == 0


def test_archives_are_read(index, monkeypatch):
    def tarball(files):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return buffer.getvalue()

    rows = b"1_1\t-0.5\tbad film\n1_2\t2.0\tgood\n2_1\t1.0\tfine\tindeed\n"
    inner = tarball({"h/movieReviewSnippets_GroundTruth.txt": rows})
    reviews = {"s/sentiment/pos.txt": "好\n好\n都\n".encode(),
               "s/sentiment/neg.txt": "坏\n都\n".encode()}  # fmt: skip
    phrases = io.BytesIO()
    with zipfile.ZipFile(phrases, "w") as z:
        texts = {"": {}, "Open": ["打开"], "menu\x04Open": ["开"], "OK": ["OK"]}
        z.writestr("a.json", json.dumps(texts))
    archives = {"sentiment": tarball({"v/hutto_ICWSM_2014.tar.gz": inner}),
                "sentiment-zh": tarball(reviews),
                "translation-zh": phrases.getvalue()}  # fmt: skip
    monkeypatch.setattr(fetch, "archive", archives.__getitem__)
    assert fetch.sentiment("movie") == [("bad film", -0.5, "1"), ("good", 2.0, "1"),
                                        ("fine\tindeed", 1.0, "2")]  # fmt: skip
    assert fetch.sentiment_zh() == [("好", 1.0, "好"), ("坏", -1.0, "坏")]
    assert fetch.translation("zh") == [("Open", "打开")]
    with pytest.raises(ValueError, match="holds no file"):
        fetch.sentiment("tweets")
