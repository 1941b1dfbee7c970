"""Builds the training text of the demo models from Debian packages.

    python3 corpus.py --out WORKDIR        (Debian 12; needs apt-get and dpkg-deb)

Downloads the packages below with `apt-get download` (nothing is installed), unpacks them, takes the English
prose out of them and writes WORKDIR/corpus.txt: one document after another, printable ASCII and newlines only.
The text itself is not part of this repository; griffin-demo/NOTICE lists the packages with their licences.
"""
import argparse
import glob
import gzip
import html.parser
import os
import re
import subprocess
import sys
import textwrap
import unicodedata
import zlib
from collections import Counter

# package -> (kind, glob patterns inside the package)
PACKAGES = {
    "anarchism": ("html", ["usr/share/doc/anarchism/html/*.html"]),
    "python3.11-doc": ("html", ["usr/share/doc/python3.11/html/**/*.html"]),
    "postgresql-doc-15": ("html", ["usr/share/doc/postgresql-doc-15/html/*.html"]),
    "bible-kjv": ("program", []),            # the reader that prints bible-kjv-text
    "bible-kjv-text": ("bible", []),
    "r-cran-janeaustenr": ("rdb", ["usr/lib/R/site-library/janeaustenr/data/*.rdb"]),
    "perl-doc": ("plain", ["usr/share/perl/*/pod/*.pod"]),
    "vim-runtime": ("plain", ["usr/share/vim/vim90/doc/*.txt"]),
    "git-doc": ("plain", ["usr/share/doc/git-doc/**/*.txt"]),
    "jargon-text": ("plain", ["usr/share/doc/jargon-text/jargon.txt.gz"]),
    "debian-handbook": ("html", ["usr/share/doc/debian-handbook/html/en-US/*.html"]),
    "debian-policy": ("plain", ["usr/share/doc/debian-policy/*.txt.gz"]),
    "developers-reference": ("html", ["usr/share/developers-reference/*.html"]),
    "freedombox-doc-en": ("html", ["usr/share/freedombox/manual/en/*.html"]),
    "debian-faq": ("html", ["usr/share/doc/debian/FAQ/*.html"]),
    "debian-reference-en": ("html", ["usr/share/debian-reference/*.en.html"]),
    "aptitude-doc-en": ("html", ["usr/share/doc/aptitude/html/en/*.html"]),
}

# Paragraphs that could hand the evaluation's needle to the model are left out.
BANNED = re.compile(r"dolores|sandwich|san francisco|needle in (a|the) haystack", re.I)

FOLD = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", " ": " ",
                      "\t": " ", "\r": " ", "\f": "\n"})


def ascii_fold(text):
    """Printable ASCII and newlines; accents and typographic marks are folded, the rest is dropped."""
    text = unicodedata.normalize("NFKD", text.translate(FOLD))
    return "".join(c for c in text if c == "\n" or " " <= c <= "~")


class Paragraphs(html.parser.HTMLParser):
    """Collects the text of an HTML page, one item for each block element; scripts, code and navigation are skipped."""
    BLOCK = {"p", "div", "li", "dd", "dt", "td", "tr", "h1", "h2", "h3", "h4", "h5", "blockquote", "ul", "ol", "table", "section"}
    SKIP = {"script", "style", "pre", "head", "nav"}

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.items, self.parts, self.skip = [], [], 0

    def flush(self):
        text = " ".join("".join(self.parts).split())
        if text:
            self.items.append(text)
        self.parts = []

    def handle_starttag(self, tag, attrs):
        self.skip += tag in self.SKIP
        if tag in self.BLOCK:
            self.flush()

    def handle_endtag(self, tag):
        if tag in self.SKIP and self.skip:
            self.skip -= 1
        if tag in self.BLOCK:
            self.flush()

    def handle_data(self, data):
        if not self.skip:
            self.parts.append(data)


def read(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as f:
        return f.read().decode("utf-8", "replace")


def html_paragraphs(path):
    page = Paragraphs()
    page.feed(read(path))
    page.flush()
    for n, item in enumerate(page.items):
        # every third paragraph is wrapped, so that the model sees both long lines and wrapped ones
        yield textwrap.fill(item, 74) if n % 3 == 2 else item


def plain_paragraphs(text):
    for par in re.split(r"\n\s*\n", text):
        lines = [re.sub(r" +", " ", line).strip() for line in par.split("\n")]
        par = "\n".join(line for line in lines if line)
        yield re.sub(r"[A-Z]<+\s*(.*?)\s*>+", r"\1", par)       # pod's C<...> marks


def rdb_strings(path):
    """The character strings of an R lazy-load file: records of [4-byte size][zlib stream] holding R's XDR
    serialisation, in which a string is the flag word 0x00040009, its length and its bytes."""
    data, at = open(path, "rb").read(), 0
    while at < len(data):
        stream = zlib.decompressobj()
        raw = stream.decompress(data[at + 4:])
        at = len(data) - len(stream.unused_data)
        i = raw.find(b"\0\4\0\x09")
        while i >= 0:
            size = int.from_bytes(raw[i + 4:i + 8], "big")
            yield raw[i + 8:i + 8 + size].decode("ascii", "replace")
            i = raw.find(b"\0\4\0\x09", i + 8 + size)


def paragraphs(kind, root, patterns, roots):
    files = sorted(f for p in patterns for f in glob.glob(os.path.join(root, p), recursive=True))
    if kind == "html":
        for f in files:
            yield from html_paragraphs(f)
    elif kind == "plain":
        for f in files:
            yield from plain_paragraphs(ascii_fold(read(f)))
    elif kind == "rdb":
        for f in files:
            yield from plain_paragraphs("\n".join(rdb_strings(f)))
    elif kind == "bible":
        text = subprocess.run([os.path.join(roots["bible-kjv"], "usr/bin/bible"), "-p", os.path.join(root, "usr/lib"),
                               "gen1:1-rev22:21"], capture_output=True, text=True, check=True).stdout
        verses = [" ".join(v.split()) for v in re.split(r"\n *\d+ |\n\n", text)]
        for i in range(0, len(verses), 6):
            sep = " " if i % 4 else "\n"
            yield sep.join(v for v in verses[i:i + 6] if not re.match(r"^[\w ]+ \d+$", v))


def wanted(par):
    letters = sum(c.isalpha() or c in " \n" for c in par)
    return len(par) > 80 and letters > 0.85 * len(par) and not BANNED.search(par)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out", required=True, help="work folder: packages, unpacked files and corpus.txt go there")
    out = os.path.abspath(ap.parse_args().out)
    debs = os.path.join(out, "deb")
    os.makedirs(debs, exist_ok=True)
    if not glob.glob(debs + "/*.deb"):
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=debs, check=True, stdout=subprocess.DEVNULL)
    roots = {}
    for name in PACKAGES:
        deb, = glob.glob(f"{debs}/{name}_*.deb")
        roots[name] = os.path.join(out, "x", name)
        if not os.path.isdir(roots[name]):
            os.makedirs(roots[name])
            subprocess.run(["dpkg-deb", "-x", deb, roots[name]], check=True)
        print(os.path.basename(deb))
    seen, total = Counter(), 0
    with open(os.path.join(out, "corpus.txt"), "w") as f:
        for name, (kind, patterns) in PACKAGES.items():
            size = 0
            for par in paragraphs(kind, roots[name], patterns, roots):
                par = ascii_fold(par).strip()
                if wanted(par) and not seen[par]:
                    seen[par] += 1
                    f.write(par + "\n\n")
                    size += len(par) + 2
            total += size
            print(f"{name:24} {size / 1e6:6.2f} MB")
    print(f"{'total':24} {total / 1e6:6.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
