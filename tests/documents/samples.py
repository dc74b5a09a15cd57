"""Small files of each kind for the tests of this folder, and PDFs that mean harm. All made here."""

from __future__ import annotations

import io
import zlib

import pikepdf

SIGNATURES = {
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "gif": b"GIF89a\x01\0\x01\0",
    "jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0",
    "jpeg": b"\xff\xd8\xff\xdb\0\x43",
    "tif": b"II*\0\x08\0\0\0",
    "tiff": b"MM\0*\0\0\0\x08",
    "bmp": b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "heif": b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic",
    "webp": b"RIFF\x1a\0\0\0WEBPVP8 ",
    "docx": b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0",
    "doc": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504),
    "rtf": b"{\\rtf1\\ansi hello}",
}


def pdf(*, pages: int = 1, user: str | None = None, owner: str = "") -> bytes:
    """A PDF; locked where a password is given (`user` "" opens without one, but restricted)."""
    made, out = pikepdf.new(), io.BytesIO()
    for _ in range(pages):
        made.add_blank_page()
    encryption = pikepdf.Encryption(user=user, owner=owner or "owner") if user is not None else False
    made.save(out, encryption=encryption)
    return out.getvalue()


def written(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A PDF of these objects, the first its root, with a right table."""
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table, count = len(out), len(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % count + b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(out + b"trailer << /Root 1 0 R /Size %d %s>>\nstartxref\n%d\n%%%%EOF\n" % (count, trailer, table))


def many_pages(count: int) -> bytes:
    """A file of ordinary size that unfolds into very much memory."""
    kids = b" ".join(b"%d 0 R" % number for number in range(3, count + 3))
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Resources<<>>/A[" + b"[]" * 20 + b"]>>"
    pages = b"<</Type/Pages/Count %d/Kids[%s]>>" % (count, kids)
    return written(b"<</Type/Catalog/Pages 2 0 R>>", pages, *[page] * count)


def bomb(megabytes: int) -> bytes:
    """The table of objects as a stream that is a thousand times as large unpacked."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()
    head = b"%PDF-1.5\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n"
    about = b"<</Type/XRef/W[1 4 2]/Size 4/Root 1 0 R/Filter/FlateDecode/Length %d>>" % len(packed)
    stream = b"3 0 obj\n" + about + b"\nstream\n" + packed + b"\nendstream\nendobj\n"
    return head + stream + b"startxref\n%d\n%%%%EOF\n" % len(head)


def slow(megabytes: int) -> bytes:
    """Nothing but beginnings of objects, all of which a reader tries when it looks for what can be saved."""
    return b"%PDF-1.4\n" + b"1 0 obj\n" * (megabytes * 2**17) + b"\n%%EOF\n"
