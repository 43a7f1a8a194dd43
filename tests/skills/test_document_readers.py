"""Documents of every kind are read as text, and no file, however broken, costs more than a line."""

import random
import zipfile
from email.message import EmailMessage
from io import BytesIO

import pytest

from escultor.errors import DataError
from escultor.skills import documents
from escultor.skills.document_processes import read_documents
from escultor.skills.documents import READERS, ReadDocument, read_document
from escultor.skills.sections import sections

HTML = (
    '<html><head><title>The  cats</title><meta name="date" content="2024-03-05">'
    "<style>p {}</style><script>no()</script></head><body><h1>Cats</h1><p>They run &amp; sing.</p>"
    "<ul><li>red<li>green</ul></body></html>"
)


def pdf_bytes(text: str = "The cat runs.") -> bytes:
    """A PDF of one page, by hand."""
    stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Title(On cats)/CreationDate(D:20240102030405Z)>>",
    ]
    made, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer<</Size 7/Root 1 0 R/Info 6 0 R>>\nstartxref\n%d\n%%%%EOF" % len(made)
    return made + b"xref\n0 7\n0000000000 65535 f \n" + table + end


def docx_bytes() -> bytes:
    docx = pytest.importorskip("docx")
    made, file = docx.Document(), BytesIO()
    made.core_properties.title = "On cats"
    made.add_heading("Cats", 1)
    made.add_paragraph("The cat runs.")
    made.add_table(1, 2).rows[0].cells[1].text = "fast"
    made.save(file)
    return file.getvalue()


def email_bytes() -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = "Cats", "ana@example.org", "rui@example.org"
    message["Date"] = "Tue, 05 Mar 2024 10:00:00 +0100"
    message.set_content("The cat runs.")
    message.add_attachment(b"x", maintype="application", subtype="octet-stream", filename="cat.bin")
    return message.as_bytes()


def written(folder, name, data):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_each_kind_is_read_with_its_title_and_its_time(tmp_path):
    pytest.importorskip("pypdf")
    found = read_document(written(tmp_path, "a.html", HTML))
    assert found == ReadDocument(
        "# Cats\n\nThey run & sing.\n\n- red\n- green", "The cats", "2024-03-05T00:00:00+00:00"
    )
    markdown = "---\ndate: 2024-03-05T10:00:00+01:00\n---\n# Cats\n\nThe cat runs."
    assert read_document(written(tmp_path, "a.md", markdown)).time == "2024-03-05T10:00:00+01:00"
    rst = read_document(written(tmp_path, "a.rst", "Cats\n====\n\n:Date: 2024-03-05\n\nThe cat runs."))
    assert rst.time == "2024-03-05T00:00:00+00:00"
    source = read_document(written(tmp_path, "a.py", '"""Cats."""\n\n\ndef run():\n    ...\n'))
    assert source == ReadDocument('"""Cats."""\n\n\ndef run():\n    ...')
    mail = read_document(written(tmp_path, "a.eml", email_bytes()))
    assert (mail.title, mail.time) == ("Cats", "2024-03-05T10:00:00+01:00")
    assert "The cat runs." in mail.text
    assert "Attachment (not read): cat.bin" in mail.text
    word = read_document(written(tmp_path, "a.docx", docx_bytes()))
    assert word.text.splitlines()[::2] == ["# Cats", "The cat runs.", " | fast"]
    assert word.title == "On cats"
    pdf = read_document(written(tmp_path, "a.pdf", pdf_bytes()))
    assert pdf == ReadDocument("The cat runs.", "On cats", "2024-01-02T03:04:05+00:00")
    utf16 = read_document(written(tmp_path, "a.txt", "\ufeffO gato dorme".encode("utf-16-le")))
    assert utf16.text == "O gato dorme"


def test_what_cannot_be_read_is_said_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_UNZIPPED", 1 << 20)
    bomb = BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"0" * (2 << 20))
    for name, data, why in (
        ("a.txt", b"caf\xe9", "not utf-8"),
        ("b.txt", b"a\0b", "binary"),
        ("c.txt", b" \n", "holds no text"),
        ("d.xyz", b"a", "no known kind"),
        ("e.eml", b"hello there", "no e-mail"),
        ("f.docx", bomb.getvalue(), "too large"),
        ("g.pdf", b"%PDF-1.4 nothing", "cannot be read"),
        ("h.html", b"<p></p>", "no text"),
    ):
        with pytest.raises(DataError, match=why):
            read_document(written(tmp_path, name, data))


def test_mutated_files_cost_a_line_each_and_none_of_the_others(tmp_path):
    """Bytes are turned, cut, doubled and removed; a bench feeds each reader a thousand."""
    pytest.importorskip("pypdf")
    draw = random.Random(7)
    seeds = {"html": HTML.encode(), "eml": email_bytes(), "docx": docx_bytes(), "pdf": pdf_bytes()}
    paths = []
    for kind, data in seeds.items():
        for number in range(12):
            broken = bytearray(data + b"\n")
            for _ in range(draw.randint(1, 12)):
                at = draw.randint(0, len(broken))
                broken[at : at + draw.randint(0, 9)] = draw.randbytes(draw.randint(0, 9))
            paths.append(written(tmp_path, f"{number}.{kind}", bytes(broken) or b"x"))
        paths.append(written(tmp_path, f"good.{kind}", data))
    found = dict(read_documents(paths, 2))
    assert list(found) == paths
    assert all(isinstance(found[tmp_path / f"good.{kind}"], ReadDocument) for kind in seeds)
    assert all(isinstance(each, ReadDocument | DataError) for each in found.values())
    assert all(str(each) for each in found.values() if isinstance(each, DataError))


def test_a_file_that_takes_too_long_is_given_up_and_the_next_is_read(tmp_path):
    good = written(tmp_path, "b.txt", "The cat runs.")
    slow = written(tmp_path, "a.html", "<" * 3_000_000 + "&" * 3_000_000)
    first = dict(read_documents([slow, good], 1, time_limit_s=0.001))
    assert "took more than" in str(first[slow])
    assert dict(read_documents([good], 1))[good] == ReadDocument("The cat runs.")


def test_what_computes_too_long_is_ended_by_processor_time_and_the_next_is_read(tmp_path):
    """Whatever else the machine does: a loaded one costs no document."""
    pytest.importorskip("resource")
    slow = written(tmp_path, "a.pdf", pdf_bytes("The cat runs.) Tj (" * 200_000))
    good = written(tmp_path, "b.txt", "The cat runs.")
    found = dict(read_documents([slow, good], 1, cpu_limit_s=1))
    assert "more than 1 s of processor time" in str(found[slow])
    assert found[good] == ReadDocument("The cat runs.")


@pytest.mark.parametrize("kind", ["html", "md", "eml"])
def test_hostile_texts_take_linear_time(tmp_path, kind):
    head = {"eml": "Subject: a\n\n", "html": "", "md": ""}[kind]
    for part in ("<!--", "<p", "&#", "# ", "date:", " \t", "<li>", "=?utf-8?q?"):
        path = written(tmp_path, f"a.{kind}", head + part * 200_000)
        ((_, found),) = read_documents([path], 1)
        assert "took more than" not in str(found), part


def test_sections_hold_all_of_a_text_and_each_fits():
    text = "\n\n".join(f"## Part {n}\n\n" + "The cat runs. " * n for n in range(1, 30))
    parts = list(sections(text, 40, lambda each: len(each.split())))
    assert " ".join(" ".join(parts).split()) == " ".join(text.split())
    assert max(len(part.split()) for part in parts) <= 40
    assert sum(part.startswith("## ") for part in parts) > len(parts) / 4
    assert list(sections("x" * 100, 30, len)) == ["x" * 25] * 4
    assert list(sections("  ", 30, len)) == []


def test_every_ending_has_one_reader():
    assert {"txt", "md", "rst", "html", "docx", "pdf", "eml", "py", "rs", "go"} <= set(READERS)
