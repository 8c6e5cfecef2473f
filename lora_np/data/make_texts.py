"""Make the committed texts again from the Debian packages that they come from.

    apt-get download sword-text-web dict-devil
    for f in *.deb; do dpkg-deb -x "$f" unpacked; done
    python -m lora_np.data.make_texts unpacked

Prints the sha256 of every file; they must be those in PROVENANCE.json.
"""

import argparse
import gzip
import hashlib
import re
import struct
import zlib
from pathlib import Path

from lora_np.files.weights import write_beside

HERE = Path(__file__).parent
MODULE = "usr/share/sword/modules/texts/ztext/engWEB2015eb"
# Prose books by their place in the module: Genesis, Exodus, Joshua, Judges, Ruth,
# Samuel, 1 Kings, Nehemiah, Esther; the Gospels and Acts. 2 Kings is held out.
TRAIN = [("ot", i) for i in (1, 2, 6, 7, 8, 9, 10, 11, 17, 24)]
TRAIN += [("nt", i) for i in (1, 2, 3, 4, 5)]
HELD_OUT = [("ot", 12)]


def read_block(folder: Path, testament: str, index: int) -> str:
    """One book of a SWORD zText module (zlib blocks, an index of 12-byte entries)."""
    entry = (folder / f"{testament}.bzs").read_bytes()[12 * index : 12 * index + 12]
    offset, size, _ = struct.unpack("<III", entry)
    data = (folder / f"{testament}.bzz").read_bytes()[offset : offset + size]
    return zlib.decompress(data).decode("utf-8")


def plain_text(osis: str) -> str:
    """The words of a book, one paragraph a line; no notes, titles or numbers."""
    text = osis[osis.index("<chapter") :]
    text = re.sub(r"<note.*?</note>", " ", text, flags=re.S)
    text = re.sub(r"<title.*?</title>", " ", text, flags=re.S)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"<div sID=[^>]*>|<l [^>]*>|<lb[^>]*>", "\n", text)
    text = re.sub(r"<[^>]+>", "", text)
    text = re.sub(r" +([,.;:?!’”])", r"\1", re.sub(r" +", " ", text))
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line) + "\n"


def make_bible(root: Path, books: list[tuple[str, int]]) -> str:
    """The plain text of several books, in the given order."""
    return "".join(plain_text(read_block(root / MODULE, t, i)) for t, i in books)


def make_devil(root: Path) -> str:
    """The Devil's Dictionary from its first entry on, lines as they are."""
    raw = gzip.decompress((root / "usr/share/dictd/devil.dict.dz").read_bytes())
    text = raw.decode("utf-8")
    text = text[text.index("ABASEMENT, n.") : text.index("\n abcdefghij")]
    return text.rstrip() + "\n"


def main() -> None:
    """Write the texts beside this file and print their sha256."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("root", type=Path, help="where the packages were unpacked")
    root = parser.parse_args().root
    texts = {
        "web_train.txt": make_bible(root, TRAIN),
        "web_held_out.txt": make_bible(root, HELD_OUT),
        "devil.txt": make_devil(root),
    }
    for name, text in texts.items():
        content = text.encode("utf-8")
        write_beside(HERE / name, content)
        print(hashlib.sha256(content).hexdigest(), len(content), name)


if __name__ == "__main__":
    main()
