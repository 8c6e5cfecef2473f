r"""Make the committed texts again from the Debian packages that they come from.

    apt-get download sword-text-web sword-text-sparv dict-devil dict-elements \
        fortunes-zh
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
MODULES = Path("usr/share/sword/modules/texts/ztext")
MODULE = MODULES / "engWEB2015eb"
SPANISH = MODULES / "spaRV1909eb"
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


def clean_words(osis: str) -> str:
    """The words of a verse on one line; no notes, titles or tags."""
    text = re.sub(r"<(note|title)\b.*?</\1>", " ", osis, flags=re.S)
    text = re.sub(r"\s+", " ", re.sub(r"<(div|l|lb|chapter)\b[^>]*>", " ", text))
    text = re.sub(r" +([,.;:?!’”])", r"\1", re.sub(r"<[^>]+>", "", text))
    return re.sub(r" +", " ", text).strip()


def make_genesis(folder: Path) -> str:
    """Genesis from a SWORD zText module, one verse a line, in verse order.

    Index entries of 10 bytes point into the block: module, testament, book, then each
    chapter's heading and its verses. Genesis is the first book of the first block.
    """
    block = read_block(folder, "ot", 1).encode("utf-8")
    index, verses = (folder / "ot.bzv").read_bytes(), []
    for i in range(3, 3 + 50 + 1533):  # fifty headings among the verses
        _, offset, size = struct.unpack("<IIH", index[10 * i : 10 * i + 10])
        osis = block[offset : offset + size].decode("utf-8")
        heading = "<chapter n=" in osis
        if not heading:
            verses.append(clean_words(osis))
    return "\n".join(verses) + "\n"


def make_elements(root: Path) -> str:
    """The elements up to lawrencium; the texts of later ones are another source's."""
    path = root / "usr/share/dictd/elements.dict.dz"
    text = gzip.decompress(path.read_bytes()).decode("latin-1")
    return (
        text[text.index("hydrogen\nSymbol") : text.index("\nunnilquadium")].strip()
        + "\n"
    )


def make_poems(root: Path) -> str:
    """The Tang poems without titles and authors, a blank line between two."""
    raw = (root / "usr/share/games/fortunes/tang300").read_text("utf-8")
    poems = re.sub(r"\x1b\[[0-9;]*m", "", raw).split("\n%")
    lines = [[w.strip() for w in poem.strip().split("\n")[2:]] for poem in poems]
    return "\n\n".join("\n".join(w for w in poem if w) for poem in lines if poem) + "\n"


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
        "genesis_en.txt": make_genesis(root / MODULE),
        "genesis_es.txt": make_genesis(root / SPANISH),
        "elements.txt": make_elements(root),
        "tang.txt": make_poems(root),
    }
    for name, text in texts.items():
        content = text.encode("utf-8")
        write_beside(HERE / name, content)
        print(hashlib.sha256(content).hexdigest(), len(content), name)


if __name__ == "__main__":
    main()
