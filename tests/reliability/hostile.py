"""Files made to break parsers: mutations of good ones, bombs, loops, lies and requests for other people's files."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from pathlib import Path

SUFFIXES = ("csv", "docx", "eml", "epub", "html", "json", "md", "pdf", "pptx", "txt", "xlsx")
_SAMPLES = 4
_SAMPLE_BYTES = 40_000
_MORE_OF_ONE_KIND = {"jsonl": "json/*.ndjson", "tsv": "csv/*.tsv"}
_TOKENS = (
    b"\0", b"\xff\xff\xff\xff", b"-1", b"99999999999999999999", b"<", b"</", b"<![CDATA[", b"&#x110000;", b"\r", b'"',
    b"\xed\xa0\x80", b"{", b"[" * 64, b"(" * 64, b"<<" * 32, b" obj", b"endstream", b"1 0 R", b"\\u0000",
    b"\\bin999999999 ", b"%PDF-", b"PK\x03\x04", b"\xfe\xff", b"<w:p>" * 16,
)  # fmt: skip

Zipped = dict[str, bytes]


def zipped(parts: Zipped, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def samples(documents: Path, kind: str) -> list[tuple[str, bytes]]:
    """The smallest files of one kind in the test set; where it has none, one made here."""
    if kind in MADE:
        return [(f"sample.{kind}", MADE[kind])]
    files = sorted(
        documents.glob(_MORE_OF_ONE_KIND.get(kind, f"{kind}/*.{kind}")), key=lambda path: path.stat().st_size
    )
    fitting = [path for path in files if 60 < path.stat().st_size < _SAMPLE_BYTES][:_SAMPLES]
    return [(path.name, path.read_bytes()) for path in fitting]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The file with one to four things done to it; of a container every other time to a part, and it still opens."""
    if data.startswith(b"PK\x03\x04") and chance.random() < 0.5:
        return _with_a_part_mutated(data, chance)
    for _ in range(chance.randint(1, 4)):
        data = chance.choice(_MUTATIONS)(data, chance)
    return data


def _with_a_part_mutated(data: bytes, chance: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    texts = [name for name in parts if name.endswith(("xml", "rels", "html", "ncx", "opf", "mimetype"))]
    name = chance.choice(texts)
    for _ in range(chance.randint(1, 4)):
        parts[name] = chance.choice(_MUTATIONS)(parts[name], chance)
    return zipped(parts, zipfile.ZIP_STORED)


def _bits_flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 16) if data else 0):
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _truncated(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randint(0, len(data))]


def _piece(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randint(0, len(data))
    return start, min(len(data), start + chance.randint(1, max(1, len(data) // 4)))


def _spliced(data: bytes, chance: random.Random) -> bytes:
    (start, end), at = _piece(data, chance), chance.randint(0, len(data))
    return data[:at] + data[start:end] + data[at:]


def _cut(data: bytes, chance: random.Random) -> bytes:
    start, end = _piece(data, chance)
    return data[:start] + data[end:]


def _repeated(data: bytes, chance: random.Random) -> bytes:
    start, end = _piece(data, chance)
    end = min(end, start + 200)
    return data[:end] + data[start:end] * chance.randint(1, 50) + data[end:]


def _with_a_token(data: bytes, chance: random.Random) -> bytes:
    at, token = chance.randint(0, len(data)), chance.choice(_TOKENS)
    return data[:at] + token + data[at + chance.choice((0, len(token))) :]


_MUTATIONS = (_bits_flipped, _truncated, _spliced, _cut, _repeated, _with_a_token)

_OFFICE = '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
_TEXT = 'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" '
_TABLE = 'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"'


def _open_document(kind: str, body: str) -> bytes:
    media_type = f"application/vnd.oasis.opendocument.{kind}"
    content = f"{_OFFICE}{_TEXT}{_TABLE}><office:body>{body}</office:body></office:document-content>"
    return zipped({"mimetype": media_type.encode(), "content.xml": content.encode()}, zipfile.ZIP_STORED)


_CELLS = "".join(f"<table:table-cell><text:p>{word}</text:p></table:table-cell>" for word in ("Bergen", "12", "rain"))
MADE = {
    "rtf": rb"{\rtf1\ansi{\fonttbl{\f0 Arial;}}\b Rivers\b0  run \'e9t\'e9.\par{\*\bin3 abc}\u8364? Always.\cell\row}",
    "odt": _open_document(
        "text", '<office:text><text:h text:outline-level="1">Rivers</text:h><text:p>They run.</text:p></office:text>'
    ),
    "ods": _open_document(
        "spreadsheet",
        '<office:spreadsheet><table:table table:name="Rain">'
        + f"<table:table-row>{_CELLS}</table:table-row>" * 5
        + "</table:table></office:spreadsheet>",
    ),
}

# Office files with one part that matters.

_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override PartName="/{part}" '
    'ContentType="application/vnd.openxmlformats-officedocument.{kind}.main+xml"/></Types>'
)
_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def docx(body: str = "", prolog: str = "", parts: Zipped | None = None) -> bytes:
    types = _TYPES.format(part="word/document.xml", kind="wordprocessingml.document").encode()
    document = f"{prolog}<w:document {_W}><w:body>{body}</w:body></w:document>".encode()
    return zipped({"[Content_Types].xml": types, "word/document.xml": document} | (parts or {}))


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def overlapping() -> bytes:
    """A container whose many entries are the same compressed bytes (David Fifield, "A better zip bomb", WOOT 2019)."""
    body = zlib.compress(b" " * 1_000_000, 9)[2:-4]
    crc = zlib.crc32(b" " * 1_000_000)
    name = b"word/document.xml"
    local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 8, 0, 0, crc, len(body), 1_000_000, len(name), 0) + name
    central = b"".join(
        struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            b"PK\x01\x02", 20, 20, 0, 8, 0, 0, crc, len(body), 1_000_000, len(each), 0, 0, 0, 0, 0, 0,
        )
        + each
        for each in (name if number == 0 else b"word/%010d.xml" % number for number in range(300))
    )  # fmt: skip
    data = local + body
    return data + central + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 300, 300, len(central), len(data), 0)


# PDF


def pdf(*objects: bytes, root: bytes = b"1 0 R", trailer: bytes = b"") -> bytes:
    """Numbered from 1, without a table of objects, which readers then make themselves."""
    body = b"\n".join(b"%d 0 obj\n%b\nendobj" % (number, content) for number, content in enumerate(objects, 1))
    return b"%PDF-1.7\n" + body + b"\ntrailer<</Root " + root + trailer + b">>\n%%EOF"


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<<" + entries + b"/Length %d>>stream\n" % len(data) + data + b"\nendstream"


_CATALOG = b"<</Type/Catalog/Pages 2 0 R>>"
_FONT = b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>"
_PAGE = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R" + _FONT + b">>"


def pdf_of(content: bytes) -> bytes:
    """One page with this content stream."""
    return pdf(_CATALOG, b"<</Type/Pages/Kids[3 0 R]/Count 1>>", _PAGE, content)


def pdf_of_pages(count: int) -> bytes:
    kids = b" ".join(b"%d 0 R" % number for number in range(4, count + 4))
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 3 0 R" + _FONT + b">>"
    shown = stream(b"BT /F 12 Tf 72 720 Td (Page) Tj ET")
    return pdf(_CATALOG, b"<</Type/Pages/Kids[" + kids + b"]/Count %d>>" % count, shown, *[page] * count)


def twice_deflated(size: int) -> bytes:
    return stream(zlib.compress(zlib.compress(b" " * size, 1), 9), b"/Filter[/FlateDecode/FlateDecode]")


def xlsx(sheet: str, prolog: str = "") -> bytes:
    types = _TYPES.format(part="xl/workbook.xml", kind="spreadsheetml.sheet").encode()
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    workbook = (
        f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets><sheet name="S" sheetId="1" r:id="r1"/></sheets>'
        "</workbook>"
    )
    related = (
        f'<Relationships xmlns="{package}"><Relationship Id="r1" Type="{relations}/worksheet" '
        'Target="worksheets/sheet1.xml"/></Relationships>'
    )
    rows = f'{prolog}<worksheet xmlns="{main}"><sheetData>{sheet}</sheetData></worksheet>'
    return zipped(
        {
            "[Content_Types].xml": types,
            "xl/workbook.xml": workbook.encode(),
            "xl/_rels/workbook.xml.rels": related.encode(),
            "xl/worksheets/sheet1.xml": rows.encode(),
        }
    )


LAUGHS = "<!DOCTYPE x [<!ENTITY a0 'ha'>" + "".join(
    f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10)
) + "]>"  # fmt: skip
FOREIGN = "<!DOCTYPE x [<!ENTITY secret SYSTEM 'file:///etc/passwd'>]>"


def docx_of_spaces(megabytes: int) -> bytes:
    buffer = io.BytesIO(docx())
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("word/header1.xml", "w") as part:
        for _ in range(megabytes):
            part.write(b" " * 1_000_000)
    return buffer.getvalue()


Attack = tuple[str, bytes, set[str]]


def bombs() -> list[Attack]:
    """J1: what would be far larger unpacked; and what of it is refused for which reason."""
    small = docx(paragraph("Small."))
    return [
        ("610 MB of XML.docx", docx_of_spaces(610), {"UNPACKS_TOO_LARGE"}),
        ("ratio.docx", docx(" " * 60_000_000), {"COMPRESSED_TOO_FAR"}),
        ("many parts.docx", docx(parts={f"word/{n}.bin": b"" for n in range(20_001)}), {"TOO_MANY_PARTS"}),
        ("overlapping.docx", overlapping(), {"CORRUPT", "UNSUPPORTED"}),
        ("nested.zip", zipped({"a.zip": zipped({"b.zip": zipped({"c.txt": b" " * 9_000_000})})}), {"UNSUPPORTED"}),
        ("bomb embedded.docx", docx(paragraph("Hi."), parts={"word/x.docx": docx(" " * 60_000_000)}), {"ready"}),
        ("lies about sizes.docx", small.replace(struct.pack("<I", 0x3C), b"\xff\xff\xff\x0f"), {"CORRUPT", "ready"}),
        ("rows.xlsx", xlsx("<row><c t='inlineStr'><is><t>x</t></is></c></row>" * 1_500_000), {"COMPRESSED_TOO_FAR"}),
    ]


def broken_pdfs() -> list[Attack]:
    """J2."""
    loop = pdf(_CATALOG, b"<</Type/Pages/Kids[2 0 R]/Count 1>>")
    xref = b"%PDF-1.4\nxref\n0 1\n0000000000 65535 f \ntrailer<</Prev 9/Root 1 0 R>>\nstartxref\n9\n%%EOF"
    text = b"BT /F 12 Tf 72 720 Td (Page) Tj ET "
    lzw = stream(b"\x80\x0b\x60\x50\x22\x0c\x0c\x85\x01" * 100_000, b"/Filter/LZWDecode")
    refused = {"CORRUPT", "NO_TEXT", "PARSE_MEMORY", "PARSE_TIMEOUT"}
    return [
        ("deflated twice.pdf", pdf_of(twice_deflated(400_000_000)), refused),
        ("lzw.pdf", pdf_of(lzw), refused | {"ready"}),
        ("two million operators.pdf", pdf_of(stream(zlib.compress(b"0 0 m 1 1 l S " * 500_000 + text, 9),
                                                    b"/Filter/FlateDecode")), refused | {"ready"}),
        ("tree of pages in a loop.pdf", loop, {"CORRUPT", "NO_TEXT"}),
        ("table of objects in a loop.pdf", xref, {"CORRUPT", "NO_TEXT"}),
        ("100,000 pages.pdf", pdf_of_pages(100_000), {"TOO_MANY_PAGES", "PARSE_TIMEOUT", "PARSE_MEMORY"}),
        ("encrypted.pdf", pdf(_CATALOG, b"<</Type/Pages/Kids[3 0 R]/Count 1>>", _PAGE, stream(text),
                              b"<</Filter/Standard/V 2/R 3/Length 128/P -4/O<" + b"41" * 32 + b">/U<" + b"42" * 32
                              + b">>>", trailer=b"/Encrypt 5 0 R/ID[<41><41>]"), {"ENCRYPTED"}),
        ("no text.pdf", pdf_of(stream(b"0 0 m 100 100 l S")), {"NO_TEXT"}),
        ("nested arrays.pdf", pdf_of(stream(b"[" * 500_000)), {"NO_TEXT", "CORRUPT"}),
        ("header only.pdf", b"%PDF-1.7\n", {"CORRUPT"}),
    ]  # fmt: skip


def entities() -> list[Attack]:
    """J3: nothing is fetched or expanded, and what is refused says so."""
    inlined = '<row><c t="inlineStr"><is><t>&a9;</t></is></c></row>'
    included = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd" parse="text"/>'
    return [
        ("laughs.docx", docx(paragraph("&a9;"), LAUGHS), {"CORRUPT"}),
        ("laughs.xlsx", xlsx(inlined, LAUGHS), {"CORRUPT"}),
        ("laughs.html", (LAUGHS + "<html><p>&a9; hello</p></html>").encode(), {"ready", "UNSUPPORTED"}),
        ("laughs.xml", (LAUGHS + "<x>&a9;</x>").encode(), {"UNSUPPORTED"}),
        ("foreign.docx", docx(paragraph("&secret;"), FOREIGN), {"CORRUPT"}),
        ("foreign.xlsx", xlsx(inlined.replace("a9", "secret"), FOREIGN), {"CORRUPT"}),
        ("foreign.svg", (FOREIGN + "<svg>&secret;</svg>").encode(), {"UNSUPPORTED"}),
        ("dtd.docx", docx(paragraph("Hi."), '<!DOCTYPE x SYSTEM "file:///etc/passwd">'), {"ready", "CORRUPT"}),
        ("included.docx", docx(included + paragraph("Hi.")), {"ready"}),
        ("included.html", f"<html><p>Hi.{included}</p><iframe src='file:///etc/passwd'>".encode(), {"ready"}),
    ]


def fetchers(url: str) -> list[Attack]:
    """J4: documents that would have their reader fetch `url`, this machine's files or AWS's metadata."""
    urls = (url, "file:///etc/passwd", "http://169.254.169.254/latest/meta-data/", "//rebound.example/x", "gopher://x")
    links = " ".join(f"<img src='{each}'><link rel=stylesheet href='{each}'><iframe src='{each}'>" for each in urls)
    marks = "\n\n".join(f"![picture]({each}) [link]({each}) <{each}>" for each in urls)
    relation = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    relations = "".join(
        f'<Relationship Id="r{n}" Type="{relation}/{kind}" TargetMode="External" Target="{each}"/>'
        for n, each in enumerate(urls)
        for kind in ("image", "attachedTemplate", "oleObject")
    )
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    related = {"word/_rels/document.xml.rels": f'<Relationships xmlns="{package}">{relations}</Relationships>'.encode()}
    action = f"<</Type/Catalog/Pages 2 0 R/OpenAction<</S/URI/URI({url})>>/AA<</O<</S/GoToR/F({url})>>>>>>".encode()
    page = stream(b"BT /F 12 Tf 72 720 Td (Page) Tj ET")
    remote = f"<</Length 0/F<</FS/URL/F({url})>>>>stream\n\nendstream".encode()
    kids = b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
    return [
        ("links.html", f"<html><base href='{url}'><meta http-equiv=refresh content='0;{url}'><p>Hi.{links}".encode(),
         {"ready"}),
        ("links.md", f"# Hi\n\n{marks}".encode(), {"ready"}),
        ("links.docx", docx(paragraph("Hi."), parts=related), {"ready"}),
        ("action.pdf", pdf(action, kids, _PAGE, page), {"ready"}),
        ("remote stream.pdf", pdf(_CATALOG, kids, _PAGE, remote), {"NO_TEXT", "CORRUPT"}),
        ("body.eml", f'From: a@b.c\nTo: d@e.f\nSubject: Hi\nContent-Type: message/external-body; URL="{url}"\n\nHi.'
         .encode(), {"ready", "EMPTY", "NO_TEXT"}),
        ("linked.rtf", rb"{\rtf1 Hi. {\field{\*\fldinst INCLUDEPICTURE " + f'"{url}"'.encode() + rb"}}}", {"ready"}),
        ("sheet.csv", f'name,value\n=WEBSERVICE("{url}"),=cmd|/c calc\n'.encode(), {"ready"}),
    ]  # fmt: skip


def travellers(outside: Path) -> list[Attack]:
    """J5: parts whose names lead out of wherever they are unpacked to."""
    names = [
        "../../../../../../" + str(outside)[1:] + "/up",
        str(outside) + "/absolute",
        "..\\..\\windows",
        "word/../../x",
    ]
    parts = dict.fromkeys(names, b"Out!")
    link = zipfile.ZipInfo("word/link")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO(docx(paragraph("Hi."), parts=parts))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(link, str(outside))
    image = '<html><body><img src="../../../../../../etc/passwd"/><p>Hi.</p></body></html>'
    container = '<container><rootfiles><x xmlns="" /></rootfiles></container>'
    return [
        ("travelling.docx", buffer.getvalue(), {"ready"}),
        ("travelling.zip", zipped(parts), {"UNSUPPORTED"}),
        ("travelling.epub", zipped({"mimetype": b"application/epub+zip", "META-INF/container.xml": container.encode(),
                                    "x.html": image.encode()} | parts), {"CORRUPT"}),
        (f"../../{outside}/name.txt", b"A name that leads elsewhere.", {"ready"}),
    ]  # fmt: skip


def confusions() -> list[Attack]:
    """J6: files that are not what they are called."""
    text = "Ein schöner Tag kostet 3 Gulden, così è la vita."
    return [
        ("program.pdf", b"MZ\x90\0\3\0\0\0" + bytes(range(256)) * 8, {"UNSUPPORTED", "CORRUPT"}),
        ("elf.txt", b"\x7fELF\2\1\1\0" + bytes(range(256)) * 8, {"UNSUPPORTED"}),
        ("both.pdf", pdf_of(stream(b"BT /F 12 Tf 72 720 Td (Page) Tj ET")) + docx(paragraph("Hi.")), {"ready"}),
        ("page.pdf", b"<!doctype html><html><p>A page.</p></html>", {"ready"}),
        ("picture.txt", b"\x89PNG\r\n\x1a\n" + bytes(64), {"UNSUPPORTED"}),
        ("nothing.docx", b"", {"EMPTY"}),
        ("blank.json", b" \n\n ", {"EMPTY"}),
        *((f"{encoding}.txt", text.encode(encoding), {"ready"}) for encoding in
          ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "iso-8859-15")),
    ]  # fmt: skip


def giants(quarters: int = 4) -> list[Attack]:
    """J7, also smaller: nothing of them may cost more than in proportion to its size."""
    words = b"So many words that nobody reads them all. "
    return [
        ("50 MB.txt", (words * 20 + b"\n") * 15_000 * quarters, {"ready"}),
        ("one line.txt", words * 300_000 * quarters, {"ready"}),
        ("a word.txt", b"x" * 2_500_000 * quarters, {"ready"}),
        ("a million paragraphs.txt", b"Tiny.\n\n" * 250_000 * quarters, {"ready"}),
        ("nested tags.html", b"<html><p>Hi." + b"<div>" * 50_000 * quarters, {"ready"}),
        ("brackets.md", b"[" * 250_000 * quarters + b" hi", {"ready"}),
        ("quotes.csv", b'a,b\n"' + b"x," * 500_000 * quarters, {"ready"}),
        ("nested.json", b"[" * 250_000 * quarters + b"1" + b"]" * 250_000 * quarters, {"TOO_DEEP"}),
    ]


def bad_texts() -> list[Attack]:
    """C9: cleaned, or refused where hardly anything but it is there."""
    return [
        ("nul.txt", b"One\0two\0 words and more of them.", {"UNSUPPORTED"}),
        ("surrogates.json", b'{"text": "lone \\ud800 and \\udfff here", "nul": "a\\u0000b"}', {"ready"}),
        ("surrogates.txt", b"Lone \xed\xa0\x80 surrogates in UTF-8.", {"ready", "UNSUPPORTED"}),
        ("nul.jsonl", b'{"a": "x\\u0000y"}\n{"b": "\\udc00"}\n', {"ready"}),
        ("line.txt", b"word " * 2_000_000, {"ready"}),
        ("right to left.txt", "\u202eسلام\u202c \u200bzero\u200dwidth\ufeff text".encode(), {"ready"}),
        ("controls.csv", b"a,b\n\x01\x02,\x1b[31mred\n", {"UNSUPPORTED"}),
        ("noncharacters.md", "# \ufffe\uffff heading\n\n\U0010ffff text".encode(), {"ready"}),
        ("overlong.txt", b"Overlong \xc0\xaf and cut \xe2\x82", {"ready"}),
        ("combining.txt", ("e" + "\u0301" * 10_000 + " text").encode(), {"ready"}),
        ("nul.html", b"<html><p>a\0b &#0; &#xD800; &#x110000; c", {"UNSUPPORTED"}),
        ("nul.eml", b"From: a@b.c\nTo: d\0@e.f\nSubject: =?utf-8?b?AAEC?=\n\nHi\0 there", {"UNSUPPORTED"}),
    ]
