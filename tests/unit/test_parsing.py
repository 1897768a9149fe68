"""Each format by a small file made here; the documents of the test set are read in tests/integration."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import parsing
from rag.errors import DocumentError
from rag.limits import USUAL, Limits
from rag.types import Parsed

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_CONTENT_TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override PartName="/{part}" '
    'ContentType="application/vnd.openxmlformats-officedocument.{kind}.main+xml"/></Types>'
)


def _zipped(**parts: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _docx(body: str, prolog: str = "", **parts: str) -> bytes:
    types = _CONTENT_TYPES.format(part="word/document.xml", kind="wordprocessingml.document")
    document = f"{prolog}<w:document {_W}><w:body>{body}</w:body></w:document>"
    return _zipped(**{"[Content_Types].xml": types, "word/document.xml": document, **parts})


def _paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def _text(parsed: Parsed) -> str:
    return "\n".join(section.text for section in parsed.sections)


def _refusal(data: bytes, name: str = "file", limits: Limits = USUAL) -> tuple[str, str]:
    with pytest.raises(DocumentError) as caught:
        parsing.parse(data, name, limits)
    return caught.value.code, str(caught.value)


# HTML


def test_html_is_read_by_its_headings_without_scripts_styles_or_hidden_parts() -> None:
    page = """<!doctype html><html><head><title>Rivers</title><style>p{color:red}</style></head><body>
      <script>let secret = 1;</script><nav>Home</nav><h1>Rivers</h1><p>They   run <b>down</b>hill.<p>Always.
      <div style="display: none">unseen</div><p hidden>unseen</p><h2>Floods</h2><ul><li>Spring<li>Autumn</ul>
      <ol><li>First</li><li>Second</li></ol><noscript>unseen</noscript></body></html>"""

    parsed = parsing.parse(page.encode(), "x")

    assert parsed.title == "Rivers"
    assert [(section.heading, section.text) for section in parsed.sections] == [
        ("Rivers", "Rivers\n\nThey run downhill.\n\nAlways."),
        ("Rivers › Floods", "Floods\n\n- Spring\n- Autumn\n1. First\n2. Second"),
    ]


def test_html_table_rows_keep_their_cells_on_one_line_and_layout_tables_do_not_swallow_the_page() -> None:
    page = """<html><body><table><tr><td>menu</td><td><h1>News</h1><p>Rain fell.</p>
      <table><tr><th>City</th><th>Rain</th></tr><tr><td>Bergen</td><td>12<br>mm</td></tr></table></td></tr></table>"""

    assert _text(parsing.parse(page.encode(), "x.html")).split("\n") == [
        "menu", "News", "", "Rain fell.", "", "City | Rain", "Bergen | 12 mm",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "page",
    [
        "<html><p>a" + "<div>" * 50_000,
        "<html>" + "<div>" * 2000 + "</p>a" * 2000,
        "<html><p>a" + "<!--" * 20_000,
        "<html><p>a</x></b>",
    ],
)
def test_html_that_is_broken_is_still_read(page: str) -> None:
    assert "a" in _text(parsing.parse(page.encode(), "x.html"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252", "iso-8859-15"])
def test_html_is_decoded_as_it_declares_or_marks(encoding: str) -> None:
    page = f'<html><meta charset="{encoding}"><p>Ein schöner Tag kostet 3 Gulden, così è.</p></html>'

    assert _text(parsing.parse(page.encode(encoding), "x.html")) == "Ein schöner Tag kostet 3 Gulden, così è."


# Tables


def test_csv_lines_carry_the_names_of_their_columns() -> None:
    parsed = parsing.parse(b'Team;City;Cups\n"Maple; Leafs";Toronto;13\nBlues;"St.\nLouis";1\n', "cups.csv")

    assert parsed.media_type == "text/csv"
    assert _text(parsed).split("\n") == [
        "Team | City | Cups",
        "Team: Maple; Leafs | City: Toronto | Cups: 13",
        "Team: Blues | City: St. Louis | Cups: 1",
    ]


def test_csv_without_a_header_gets_none() -> None:
    assert _text(parsing.parse(b"1,2,3\n4,5,6\n", "x.csv")) == "1 | 2 | 3\n4 | 5 | 6"


def test_pairs_of_name_and_value_in_a_document_are_not_taken_for_a_header() -> None:
    def row(*cells: str) -> str:
        return "<w:tr>" + "".join(f"<w:tc>{_paragraph(cell)}</w:tc>" for cell in cells) + "</w:tr>"

    body = f"<w:tbl>{row('Name', 'Ada')}{row('City', 'London')}</w:tbl>"

    assert _text(parsing.parse(_docx(body), "x.docx")) == "Name | Ada\nCity | London"


def test_tsv_fields_may_hold_commas() -> None:
    assert "Place: Bergen, Norway" in _text(parsing.parse(b"Place\tRain\nBergen, Norway\t12\n", "x.tsv"))


# JSON


def test_json_leaves_keep_their_paths() -> None:
    data = json.dumps(
        [{"name": "Ada", "born": {"year": 1815}, "tags": ["maths", "poetry"], "gone": None}, {"name": "Bob"}]
    )

    assert (
        _text(parsing.parse(data.encode(), "x.json"))
        == "name: Ada\nborn.year: 1815\ntags: maths\ntags: poetry\n\nname: Bob"
    )


def test_json_that_is_broken_is_read_as_text() -> None:
    parsed = parsing.parse(b'{"name": "Ada", "born"', "x.json")

    assert (parsed.media_type, _text(parsed)) == ("text/plain", '{"name": "Ada", "born"')


def test_json_lines_keep_lines_that_are_not_json() -> None:
    assert _text(parsing.parse(b'{"a": 1}\nnot json\n', "x.jsonl")) == "a: 1\n\nnot json"


# Markdown and plain text


def test_markdown_keeps_code_and_tables_and_joins_wrapped_lines() -> None:
    code = "```python\n# no heading\nif x:\n    run()\n```"
    source = f"Title\n=====\nOne line\nand its rest.\n\n## Use\n{code}\n\nA | B\n--|--\n1 | 2\n"

    parsed = parsing.parse(source.encode(), "x.md")

    assert parsed.title == "Title"
    assert [(section.heading, section.text) for section in parsed.sections] == [
        ("Title", "Title\n\nOne line and its rest."),
        ("Title › Use", "Use\n\n```python\n# no heading\nif x:\n    run()\n```\n\nA | B\n--|--\n1 | 2"),
    ]


def test_front_matter_names_the_document() -> None:
    assert parsing.parse(b'---\ntitle: "On Rivers"\ndate: 1\n---\n# One\ntext\n', "x.md").title == "On Rivers"


@given(st.text(max_size=300))
def test_whatever_text_comes_in_what_comes_out_can_be_stored(text: str) -> None:
    try:
        parsed = parsing.parse(text.encode("utf-8", "surrogatepass"), "x.txt")
    except DocumentError:
        return

    stored = _text(parsed)
    assert stored.encode().decode() == stored
    assert not set(stored) & {chr(code) for code in (*range(9), 0x7F, 0xFEFF)}


# Office


def test_docx_headings_lists_hyphens_and_text_boxes_are_read_in_order() -> None:
    styles = f'<w:styles {_W}><w:style w:styleId="H"><w:name w:val="heading 2"/></w:style></w:styles>'
    box = f"<w:p><w:r><w:pict><w:txbxContent>{_paragraph('In a box.')}</w:txbxContent></w:pict></w:r></w:p>"
    body = (
        _paragraph("Duties", '<w:pStyle w:val="H"/>')
        + "<w:p><w:r><w:t>day</w:t><w:noBreakHyphen/><w:t>to</w:t><w:tab/><w:t>day</w:t></w:r>"
        + "<w:del><w:r><w:t>gone</w:t></w:r></w:del></w:p>"
        + _paragraph("Milk", '<w:numPr><w:numId w:val="1"/></w:numPr>')
        + _paragraph("Eggs", '<w:numPr><w:numId w:val="1"/></w:numPr>')
        + box
    )

    (section,) = parsing.parse(_docx(body, **{"word/styles.xml": styles}), "x.docx").sections

    assert section.heading == "Duties"
    assert section.text == "Duties\n\nday-to day\n\n- Milk\n- Eggs\n\nIn a box."


def test_docx_that_declares_entities_is_refused_and_says_so() -> None:
    prolog = '<!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/passwd">]>'

    code, message = _refusal(_docx(_paragraph("&secret;"), prolog), "x.docx")

    assert code == "CORRUPT"
    assert "entities" in message


def test_docx_nested_too_deeply_does_not_end_the_process() -> None:
    with pytest.raises((DocumentError, RecursionError)):
        parsing.parse(_docx("<w:p>" * 20_000 + "</w:p>" * 20_000), "x.docx")


def _xlsx(*sheets: tuple[str, str, str]) -> bytes:
    """A workbook of (name, state, rows)."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    relations = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    listed = "".join(
        f'<sheet name="{name}" state="{state}" sheetId="{n}" r:id="r{n}"/>'
        for n, (name, state, _) in enumerate(sheets, 1)
    )
    related = "".join(
        f'<Relationship Id="r{n}" Type="{relations}/worksheet" Target="worksheets/sheet{n}.xml"/>'
        for n in range(1, len(sheets) + 1)
    )
    parts = {
        "[Content_Types].xml": _CONTENT_TYPES.format(part="xl/workbook.xml", kind="spreadsheetml.sheet"),
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{relations}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}">{related}</Relationships>',
        "_rels/.rels": f'<Relationships xmlns="{package}"><Relationship Id="r" Type="{relations}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
    }
    for n, (_, _, rows) in enumerate(sheets, 1):
        parts[f"xl/worksheets/sheet{n}.xml"] = f'<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>'
    return _zipped(**parts)


def _row(number: int, *cells: str) -> str:
    texts = (f'<c r="{chr(65 + i)}{number}" t="inlineStr"><is><t>{cell}</t></is></c>' for i, cell in enumerate(cells))
    return f'<row r="{number}">{"".join(texts)}</row>'


def test_sheets_are_sections_and_hidden_ones_are_not_indexed() -> None:
    visible = _row(1, "Team", "Cups") + _row(2, "Blues", "1")

    (section,) = parsing.parse(
        _xlsx(("Teams", "visible", visible), ("Pay", "hidden", _row(1, "secret"))), "x.xlsx"
    ).sections

    assert (section.heading, section.text) == ("Teams", "Teams\n\nTeam | Cups\nTeam: Blues | Cups: 1")


def test_a_workbook_whose_only_cells_are_hidden_is_empty() -> None:
    assert _refusal(_xlsx(("A", "visible", ""), ("B", "hidden", _row(1, "secret"))), "x.xlsx")[0] == "EMPTY"


def test_odt_is_read_by_its_headings() -> None:
    names = {"office": "office", "text": "text", "table": "table"}
    spaces = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{of}:1.0"' for name, of in names.items())
    body = '<text:h text:outline-level="1">Rivers</text:h><text:p>They run downhill.</text:p>'
    text = f"<office:body><office:text>{body}</office:text></office:body>"
    content = f"<office:document-content {spaces}>{text}</office:document-content>"
    data = _zipped(mimetype="application/vnd.oasis.opendocument.text", **{"content.xml": content})

    (section,) = parsing.parse(data, "x.odt").sections

    assert (section.heading, section.text) == ("Rivers", "Rivers\n\nThey run downhill.")


def test_an_encrypted_odt_is_refused_as_such() -> None:
    manifest = "<manifest:manifest xmlns:manifest='m'><manifest:encryption-data/></manifest:manifest>"
    data = _zipped(mimetype="application/vnd.oasis.opendocument.text", **{"META-INF/manifest.xml": manifest})

    assert _refusal(data, "x.odt")[0] == "ENCRYPTED"


def test_rtf_is_read_without_its_marks() -> None:
    parsed = parsing.parse(rb"{\rtf1\ansi{\fonttbl{\f0 Arial;}}\b Rivers\b0  run \'e9t\'e9.\par Always.}", "x.txt")

    assert parsed.media_type == "application/rtf"
    assert _text(parsed).split() == ["Rivers", "run", "été.", "Always."]


def test_slides_are_pages_with_their_notes_and_tables() -> None:
    a = "http://schemas.openxmlformats.org/drawingml/2006/main"
    p = "http://schemas.openxmlformats.org/presentationml/2006/main"
    r = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    space = f'xmlns:a="{a}" xmlns:p="{p}" xmlns:r="{r}"'

    def related(**targets: str) -> str:
        listed = (
            f'<Relationship Id="{name}" Type="{r}/{name.rstrip("_")}" Target="{target}"/>'
            for name, target in targets.items()
        )
        return f'<Relationships xmlns="{package}">{"".join(listed)}</Relationships>'

    def shape(text: str, kind: str) -> str:
        run = f"<p:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:txBody>"
        return f'<p:sp><p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr>{run}</p:sp>'

    def cells(*texts: str) -> str:
        row = "".join(f"<a:tc><a:p><a:r><a:t>{text}</a:t></a:r></a:p></a:tc>" for text in texts)
        return f"<a:tr>{row}</a:tr>"

    table = f"<p:graphicFrame><a:tbl>{cells('City', 'Rain')}{cells('Bergen', '12')}</a:tbl></p:graphicFrame>"
    data = _zipped(
        **{
            "[Content_Types].xml": _CONTENT_TYPES.format(
                part="ppt/presentation.xml", kind="presentationml.presentation"
            ),
            "ppt/presentation.xml": f'<p:presentation {space}><p:sldIdLst><p:sldId r:id="slide_"/>'
            '<p:sldId r:id="slide"/></p:sldIdLst></p:presentation>',
            "ppt/_rels/presentation.xml.rels": related(slide="slides/b.xml", slide_="/ppt/slides/a.xml"),
            "ppt/slides/a.xml": f"<p:sld {space}>{shape('7', 'sldNum')}{table}{shape('Rain', 'title')}</p:sld>",
            "ppt/slides/_rels/a.xml.rels": related(notesSlide="../notes/n.xml"),
            "ppt/notes/n.xml": f"<p:notes {space}>{shape('Speak slowly.', 'body')}</p:notes>",
            "ppt/slides/b.xml": f"<p:sld {space}>{shape('The end', 'body')}</p:sld>",
        }
    )

    assert [(section.page, section.heading, section.text) for section in parsing.parse(data, "x").sections] == [
        (1, "Rain", "Rain\n\nCity | Rain\nCity: Bergen | Rain: 12\n\nNotes: Speak slowly."),
        (2, None, "The end"),
    ]


# E-mail


def test_email_headers_and_html_only_body_are_text() -> None:
    message = (
        "From: =?utf-8?q?Zo=C3=AB?= <zoe@example.org>\r\nTo: team@example.org\r\nSubject: =?utf-8?b?UsOpc3Vtw6k=?=\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/html; charset=iso-8859-1\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
        "<p>Un caf=E9.</p><script>bad()</script>"
    )

    parsed = parsing.parse(message.encode(), "note.txt")

    assert (parsed.media_type, parsed.title) == ("message/rfc822", "Résumé")
    assert _text(parsed) == "Subject: Résumé\nFrom: Zoë <zoe@example.org>\nTo: team@example.org\n\nUn café."


def test_an_encrypted_email_is_refused_as_such() -> None:
    message = (
        b"From: a@b.c\nTo: d@e.f\nSubject: x\nContent-Type: multipart/encrypted; boundary=b\n\n--b\n\nxyz\n--b--\n"
    )

    assert _refusal(message, "x.eml")[0] == "ENCRYPTED"


# What fuzzing found


def test_a_container_whose_directory_points_before_its_start_is_damaged() -> None:
    data = bytearray(_docx(_paragraph("Hello there.")))
    end = data.rindex(b"PK\x05\x06")
    data[end + 16 : end + 20] = (len(data) * 2).to_bytes(4, "little")

    assert _refusal(bytes(data), "x.docx")[0] == "CORRUPT"


def test_xml_in_an_encoding_that_does_not_exist_is_damaged() -> None:
    assert _refusal(_docx(_paragraph("Hello."), '<?xml version="1.0" encoding="UTF-9"?>'), "x.docx")[0] == "CORRUPT"


# Limits


def _nested_mail(levels: int) -> bytes:
    message = b"Content-Type: text/plain\n\nAt last.\n"
    for level in range(levels):
        mark = b"b%d" % level
        message = b'Content-Type: multipart/mixed; boundary="%b"\n\n--%b\n%b\n--%b--\n' % (mark, mark, message, mark)
    return b"From: a@b.c\nTo: d@e.f\nSubject: x\n" + message


def _pdf(pages: int) -> bytes:
    """As many pages, each with the word Page and its number; without a table of objects, which readers rebuild."""
    objects = [b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj"]
    kids = b" ".join(b"%d 0 R" % (4 + 2 * page) for page in range(pages))
    objects.append(b"2 0 obj<</Type/Pages/Kids[%b]/Count %d>>endobj" % (kids, pages))
    objects.append(b"3 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj")
    for page in range(pages):
        stream = b"BT /F 12 Tf 72 720 Td (Page %d) Tj ET" % (page + 1)
        objects.append(
            b"%d 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents %d 0 R/Resources<</Font<</F 3 0 R>>>>>>"
            b"endobj" % (4 + 2 * page, 5 + 2 * page)
        )
        objects.append(b"%d 0 obj<</Length %d>>stream\n%b\nendstream endobj" % (5 + 2 * page, len(stream), stream))
    return b"%PDF-1.4\n" + b"\n".join(objects) + b"\ntrailer<</Root 1 0 R>>"


@pytest.mark.parametrize(
    ("data", "name", "limits", "code"),
    [
        (b"many words " * 100, "x.txt", Limits(characters=1000), "TOO_MUCH_TEXT"),
        (_pdf(3), "x.pdf", Limits(pages=2), "TOO_MANY_PAGES"),
        (_docx(" " * 3_000_000), "x.docx", Limits(unpacked_bytes=2_000_000), "UNPACKS_TOO_LARGE"),
        (_docx(" " * 40_000_000), "x.docx", USUAL, "COMPRESSED_TOO_FAR"),
        (
            _docx("", **{f"word/{n}.bin": "" for n in range(100)}),
            "x.docx",
            Limits(archive_entries=100),
            "TOO_MANY_PARTS",
        ),
        (_docx("<w:sdt>" * 30 + "</w:sdt>" * 30), "x.docx", Limits(nesting_depth=20), "TOO_DEEP"),
        (_docx("<w:sdt>" * 50_000 + "</w:sdt>" * 50_000), "x.docx", USUAL, "TOO_DEEP"),
        (b"[" * 30 + b'"deep"' + b"]" * 30, "x.json", Limits(nesting_depth=20), "TOO_DEEP"),
        (b'["a",' + b"[" * 100_000, "x.json", USUAL, "TOO_DEEP"),
        (_nested_mail(30), "x.eml", Limits(nesting_depth=20), "TOO_DEEP"),
        (_nested_mail(3000), "x.eml", USUAL, "TOO_DEEP"),
    ],
)
def test_each_limit_has_a_code_of_its_own_and_its_message_says_what_is_allowed(
    data: bytes, name: str, limits: Limits, code: str
) -> None:
    found, message = _refusal(data, name, limits)

    assert found == code
    assert any(character.isdigit() for character in message), message


@pytest.mark.parametrize(
    ("data", "name", "limits"),
    [
        (b"many words", "x.txt", Limits(characters=10)),
        (_pdf(3), "x.pdf", Limits(pages=3)),
        (b"[" * 19 + b'"deep"' + b"]" * 19, "x.json", Limits(nesting_depth=20)),
        (_nested_mail(19), "x.eml", Limits(nesting_depth=20)),
        (_docx(_paragraph("Small."), **{"word/big.bin": "x" * 900_000}), "x.docx", Limits(unpacked_bytes=1_000_000)),
        (_docx(_paragraph("Few.")), "x.docx", Limits(archive_entries=2)),
    ],
)
def test_what_just_keeps_within_a_limit_is_read(data: bytes, name: str, limits: Limits) -> None:
    assert _text(parsing.parse(data, name, limits))


# What is refused


@pytest.mark.parametrize(
    ("data", "name", "code"),
    [
        (b"", "x.txt", "EMPTY"),
        (b" \n\t\r\n", "x.pdf", "EMPTY"),
        (b"\xff\xfe \0\n\0", "x.txt", "EMPTY"),
        (b"...---...", "x.txt", "EMPTY"),
        (bytes(range(256)) * 8, "x.bin", "UNSUPPORTED"),
        (bytes(range(256)) * 8, "x.docx", "CORRUPT"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "x.txt", "UNSUPPORTED"),
        (b"\x7fELF\x02\x01\x01" + b"\0" * 64, "x", "UNSUPPORTED"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "x.xls", "UNSUPPORTED"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "x.xlsx", "ENCRYPTED"),
        (b"PK\x03\x04" + b"\0" * 100, "x.docx", "CORRUPT"),
        (_zipped(**{"a.txt": "hello"}), "x.docx", "UNSUPPORTED"),
        (b"%PDF-1.7\nnothing else", "x.pdf", "CORRUPT"),
        (b'<?xml version="1.0"?><note>hi</note>', "x.xml", "UNSUPPORTED"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "x.svg", "UNSUPPORTED"),
    ],
)
def test_what_cannot_be_indexed_is_refused_with_its_reason(data: bytes, name: str, code: str) -> None:
    assert _refusal(data, name)[0] == code


def test_content_decides_and_not_the_name() -> None:
    assert parsing.parse(_docx(_paragraph("Hello there.")), "x.pdf").media_type.endswith("wordprocessingml.document")
    assert parsing.parse(b"<!DOCTYPE html><html><p>Hello</p></html>", "x.txt").media_type == "text/html"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("x.txt", "The {} of the café is long enough to be a line of a paragraph that\n{}was wrapped.\n\n"),
        ("x.csv", 'name{},"a ""café""\nand more"\r\n'),
        ("x.jsonl", '{{"name": "café {}", "size": {}}}\n'),
    ],
)
def test_a_large_text_read_piece_by_piece_is_what_it_is_when_read_whole(
    monkeypatch: pytest.MonkeyPatch, name: str, line: str, encoding: str
) -> None:
    data = "".join(line.format(number, number) for number in range(8_000)).encode(encoding)
    whole = parsing.parse(data, name)
    monkeypatch.setattr("rag.parsing.streaming.WHOLE_BYTES", 1000)
    pieces = parsing.parse(data, name)

    def words(parsed: Parsed) -> list[str]:
        return " ".join(section.text for section in parsed.sections).split()

    assert (pieces.media_type, words(pieces)) == (whole.media_type, words(whole))
    assert max(len(section.text) for section in pieces.sections) <= 1_000_000


def test_a_large_text_is_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.parsing.streaming.WHOLE_BYTES", 1000)
    path = tmp_path / "large.jsonl"
    with path.open("w") as file:
        file.writelines(
            json.dumps({"name": f"river {number}", "text": "water " * 50}) + "\n" for number in range(25_000)
        )
    tracemalloc.start()
    with path.open("rb") as file:
        characters = sum(len(section.text) for section in parsing.read(file, path.name).sections)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert characters > 7_000_000
    assert peak < 20_000_000  # of a whole one it is 50
