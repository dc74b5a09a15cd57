"""What the flow files can't say: forms that are made when they are sent."""

from io import BytesIO
from textwrap import wrap

import pikepdf

LINES = 60


def form_0781(item):
    """Statement in support of a claim: one page, from the claim and the statement handed in."""
    return _page("Form 0781", item, "Statement about an in-service event")


def form_0781a(item):
    return _page("Form 0781a", item, "Statement about a personal assault")


def _page(title, item, subject):
    claim = item.parent.payload
    text = [title, subject, "", f"Claim {claim['claim_id']}", "", *wrap(str(item.payload.get("statement", "")), 90)]
    return _pdf(text[:LINES])


def _pdf(lines):
    """A PDF of plain lines, the same bytes for the same text."""
    pdf = pikepdf.new()
    pdf.add_blank_page(page_size=(612, 792))
    page = pdf.pages[0]
    font = pikepdf.Dictionary(Type=pikepdf.Name.Font, Subtype=pikepdf.Name.Type1, BaseFont=pikepdf.Name.Helvetica)
    page.Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F1=font))
    shown = "".join(f"({_escaped(line)}) Tj T* " for line in lines)
    page.Contents = pdf.make_stream(f"BT /F1 11 Tf 14 TL 56 740 Td {shown}ET".encode("latin-1", "replace"))
    out = BytesIO()
    pdf.save(out, deterministic_id=True)
    return out.getvalue()


def _escaped(text):
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
