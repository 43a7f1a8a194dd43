"""Every document reader fed damaged files: small sound ones, changed by a seeded generator, then read as
`escultor trinity` reads them, in processes of their own. Prints one JSON object: for each kind how many were
read, refused with a reason in one line, and ended a process; the slowest by the clock, and the processor time
of all (a file may take CPU_LIMIT_S of it).

    python experiments/mutated_files.py [--files 1000] [--seed 0]
"""

import argparse
import io
import json
import os
import random
import tempfile
import time
import zipfile
from email.message import EmailMessage
from pathlib import Path

from escultor.errors import DataError
from escultor.skills.document_processes import CPU_LIMIT_S, read_documents

TEXT = "# Title\n\ndate: 2024-01-02\n\nA paragraph of café, naïve and 東京.\n\n* one\n* two\n\n    code = 1\n"
HTML = (
    "<html><head><meta charset=utf-8><title>Title &amp; more</title><style>p {}</style></head><body>"
    "<h1>Head</h1><p>Some <b>bold</b> text<br>and <a href='x'>more</a>.</p><table><tr><td>1<td>2</table>"
    "<ul><li>a<li>b</ul><script>var a = '<p>';</script><!-- note --></body></html>"
)
PDF_OBJECTS = (
    "<< /Type /Catalog /Pages 2 0 R >>",
    "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
    "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Contents 4 0 R"
    " /Resources << /Font << /F1 5 0 R >> >> >>",
    "<< /Length {length} >>\nstream\n{stream}\nendstream",
    "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    "<< /Title (A title) /CreationDate (D:20240102030405Z) >>",
)
PDF_STREAM = "BT /F1 12 Tf 20 100 Td (Hello there) Tj T* [(more) -20 (text)] TJ ET"


def pdf() -> bytes:
    """A page of text, as a writer makes it."""
    data, places = io.BytesIO(), []
    data.write(b"%PDF-1.4\n")
    for number, content in enumerate(PDF_OBJECTS, 1):
        places.append(data.tell())
        body = content.replace("{length}", str(len(PDF_STREAM))).replace("{stream}", PDF_STREAM)
        data.write(f"{number} 0 obj\n{body}\nendobj\n".encode())
    start = data.tell()
    data.write(f"xref\n0 {len(places) + 1}\n0000000000 65535 f \n".encode())
    data.write("".join(f"{at:010} 00000 n \n" for at in places).encode())
    data.write(
        f"trailer << /Size {len(places) + 1} /Root 1 0 R /Info 6 0 R >>\nstartxref\n{start}\n%%EOF".encode()
    )
    return data.getvalue()


def docx() -> bytes:
    """A heading, a paragraph and a table."""
    import docx as library

    document = library.Document()
    document.add_heading("Title", 1)
    document.add_paragraph("A paragraph.")
    table = document.add_table(2, 2)
    table.cell(0, 0).text = "one"
    data = io.BytesIO()
    document.save(data)
    return data.getvalue()


def email() -> bytes:
    """Two forms of a text and an attachment."""
    message = EmailMessage()
    message["From"], message["To"] = "Ann <ann@example.org>", "bob@example.org"
    message["Subject"], message["Date"] = "Café", "Tue, 02 Jan 2024 03:04:05 +0100"
    message.set_content("Hello, naïve text.\n")
    message.add_alternative(HTML, subtype="html")
    message.add_attachment(b"\x00\x01", maintype="application", subtype="x-data", filename="a.bin")
    return message.as_bytes()


SOUND = {
    "txt": TEXT.encode,
    "md": TEXT.encode,
    "rst": TEXT.encode,
    "py": TEXT.encode,
    "html": HTML.encode,
    "eml": email,
    "docx": docx,
    "pdf": pdf,
}


def mutate(data: bytes, draw: random.Random) -> bytes:
    """One to eight changes: bytes, pieces repeated, moved or lost, numbers grown, the end cut off."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(changed) + 1)
        end = min(len(changed), at + draw.choice((1, 1, 4, 16, 64, 256)))
        kind = draw.randrange(7)
        if kind == 0:
            changed[at:end] = draw.randbytes(end - at)
        elif kind == 1:
            changed[at:at] = bytes(changed[at:end]) * draw.choice((2, 10, 1000))
        elif kind == 2:
            del changed[at:end]
        elif kind == 3:
            changed[at:end] = draw.choice((b"\xff", b"\0", b"<", b"(", b"[", b"=?utf-8?", b"&#x110000;")) * 50
        elif kind == 4:
            digits = [i for i, byte in enumerate(changed) if 48 <= byte <= 57]
            if digits:
                changed[(at := draw.choice(digits)) : at + 1] = draw.choice(
                    (b"0", b"-1", b"9" * 12, b"4294967295")
                )
        elif kind == 5:
            other = draw.randrange(len(changed) + 1)
            changed[other:other] = changed[at:end]
        else:
            del changed[max(1, at) :]
    return bytes(changed)


def mutated(kind: str, draw: random.Random) -> bytes:
    """A damaged file; of an archive often a member of it, packed again."""
    data = SOUND[kind]()
    if kind != "docx" or draw.random() < 0.3:
        return mutate(data, draw)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        chosen = draw.choice(old.namelist()) if draw.random() < 0.5 else "word/document.xml"
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, mutate(content, draw) if name == chosen else content)
    return packed.getvalue()


def measure(kind: str, files: int, seed: int, folder: Path) -> dict[str, object]:
    """Read this many mutated files of a kind, one after another."""
    draw, counts, slowest, bad = random.Random(f"{seed} {kind}"), {"read": 0, "refused": 0}, 0.0, []
    paths = [folder / f"{at}.{kind}" for at in range(files)]
    for path in paths:
        path.write_bytes(mutated(kind, draw))
    used = children_cpu_s()
    began = time.monotonic()
    for path, found in read_documents(paths, workers=1):
        now = time.monotonic()
        slowest, began = max(slowest, now - began), now
        refused = isinstance(found, DataError)
        counts["refused" if refused else "read"] += 1
        if refused and any(sign in str(found) for sign in ("crashed", "took more", "\n", "GiB")):
            bad.append(f"{path.name}: {found}"[:300])
    times = {"slowest_s": round(slowest, 2), "cpu_s": round(children_cpu_s() - used, 2)}
    return counts | {"ended a process": len(bad), "such as": bad[:3], **times}


def children_cpu_s() -> float:
    """Processor time of the processes that were ended so far."""
    spent = os.times()
    return spent.children_user + spent.children_system


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {kind: measure(kind, options.files, options.seed, Path(folder)) for kind in SOUND}
    print(json.dumps({"files": options.files, "cpu_limit_s": CPU_LIMIT_S, "kinds": found}))


if __name__ == "__main__":
    main()
