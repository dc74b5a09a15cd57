"""What the flow files can't say: checklists as PDF, how a document is recognised in the case system, and what the relay files there."""

from io import BytesIO

import pikepdf

FILED_AS = {"report": "Report", "supporting_document": "Report - General", "checklist": "Report - Checklist"}


# --- the delivery -------------------------------------------------------------------------------------------------


def checklist_body(item):
    """A checklist goes inline: it is made here, and nobody else could fetch it."""
    asked = item.payload
    attributes = {
        "submission_id": asked.get("submission_id"),
        "submitter_email": asked.get("submitter_email"),
        "reporting_period_from": asked["period_from"],
        "reporting_period_to": asked["period_to"],
        "year": asked["year"],
        "type": asked["report_type"],
    }
    file = {"name": item.file.name, "mimetype": item.file.type, "source": "{file.base64}"}
    data = {"type": "checklists", "attributes": {n: v for n, v in attributes.items() if v is not None}, "file": file}
    return {"checklist": {"data": data}}


def checklist_pdf(item):
    """One page, from the answers that were handed in."""
    asked = item.payload
    answers = [f"{question}: {answer}" for question, answer in sorted((asked.get("answers") or {}).items())]
    return _page_of(
        [f"Checklist of case {asked['caseref']}", f"{asked['period_from']} to {asked['period_to']}", "", *answers]
    )


def same_document(answer, item):
    """The uuid of this very item in the case system, or None. Stored names have a prefix of 32 digits and `_` before them."""
    wanted = FILED_AS[item.kind]
    return next(
        (
            one["uuid"]
            for one in answer
            if one["type"] == wanted and one["filename"].partition("_")[2] == item.file.name
        ),
        None,
    )


def _page_of(lines):
    """A PDF of plain lines, the same bytes for the same text."""
    pdf = pikepdf.new()
    pdf.add_blank_page(page_size=(595, 842))
    page = pdf.pages[0]
    font = pikepdf.Dictionary(Type=pikepdf.Name.Font, Subtype=pikepdf.Name.Type1, BaseFont=pikepdf.Name.Helvetica)
    page.Resources = pikepdf.Dictionary(Font=pikepdf.Dictionary(F1=font))
    signs = str.maketrans({"\\": r"\\", "(": r"\(", ")": r"\)"})
    shown = "".join(f"({line.translate(signs)}) Tj T* " for line in lines)
    page.Contents = pdf.make_stream(f"BT /F1 11 Tf 14 TL 56 780 Td {shown}ET".encode("latin-1", "replace"))
    out = BytesIO()
    pdf.save(out, deterministic_id=True)
    return out.getvalue()


# --- the relay ----------------------------------------------------------------------------------------------------


def filed(request):
    """The call behind: the envelope's content under the names of the case system."""
    [(envelope, content)] = request["body"].items()
    data, path = content["data"], request["path"]
    metadata = dict(data["attributes"])
    if "id" in path:
        metadata["report_id"] = path["id"]
    file = data["file"]
    source = "{file.base64}" if "s3_reference" in file else file.get("source")
    body = {
        "type": FILED_AS[envelope],
        "caseRecNumber": path["caseref"],
        "metadata": metadata,
        "file": {"name": file["name"], "type": file["mimetype"], "source": source},
    }
    if request.get("found"):
        body["parentUuid"] = request["found"]
    return body


def first_of_submission(answer, request):
    """The first supporting document of the same submission: the new one belongs under it. None for the first itself."""
    wanted = request["body"]["supporting_document"]["data"]["attributes"]["submission_id"]
    return next(
        (
            one["uuid"]
            for one in answer
            if one["type"] == FILED_AS["supporting_document"]
            and one["metadata"].get("submission_id") == wanted
            and not one.get("parentUuid")
        ),
        None,
    )


def same_filed(answer, request):
    """The document that this very call has filed already, or None."""
    [(envelope, content)] = request["body"].items()
    name, wanted = content["data"]["file"]["name"], FILED_AS[envelope]
    return next((one for one in answer if one["type"] == wanted and one["filename"].partition("_")[2] == name), None)
