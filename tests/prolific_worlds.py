"""Exports as Prolific writes them."""

import csv
import io

from aggregation.services.demographics import clean, parse

HEADER = [
    "Submission id",
    "Participant id",
    "Status",
    "Custom study tncs accepted at",
    "Started at",
    "Completed at",
    "Reviewed at",
    "Archived at",
    "Time taken",
    "Completion code",
    "Total approvals",
    "Vegetarian",
    "Fluent languages",
    "Age",
    "Sex",
    "Ethnicity simplified",
    "Country of birth",
    "Country of residence",
    "Nationality",
    "Language",
    "Student status",
    "Employment status",
]
HOMEMAKER = "Not in paid work (e.g. homemaker', 'retired or disabled)"
TYPICAL = {
    "Status": "APPROVED",
    "Custom study tncs accepted at": "Not Applicable",
    "Started at": "2023-06-20T11:50:00.000000Z",
    "Completed at": "2023-06-20T12:00:00.123000Z",
    "Time taken": "600",
    "Completion code": "C0DE",
    "Total approvals": "7",
    "Vegetarian": "No",
    "Fluent languages": "English, Dutch",
    "Age": "34",
    "Sex": "Female",
    "Ethnicity simplified": "White",
    "Country of birth": "Ireland",
    "Country of residence": "United Kingdom",
    "Nationality": "Ireland",
    "Language": "English",
    "Student status": "No",
    "Employment status": HOMEMAKER,
}


def person(number):
    """A participant's id, of the length that Prolific's have."""
    return f"5f{number:06d}c0ffee0123456789"


def row(number, **changes):
    """A submission of that participant; keys are columns with `_` for blanks."""
    named = {name.replace("_", " "): value for name, value in changes.items()}
    ids = {"Submission id": f"60{number:06d}badcafe987654321", "Participant id": person(number)}
    return dict.fromkeys(HEADER, "") | TYPICAL | ids | named


def export(rows, *, mark=False, end="\n", header=HEADER):
    """The rows as CSV, with a byte-order mark and line ends as asked."""
    out = io.StringIO(newline="")
    table = csv.DictWriter(out, header, lineterminator=end, extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    return out.getvalue().encode("utf-8-sig" if mark else "utf-8")


def cleaned(**studies):
    """What may be used of the rows of these studies, after they have been CSV."""
    return clean({study: parse(export(rows), study) for study, rows in studies.items()})


def crowd():
    """Two studies: 60 people, 20 of them in both, one of each kind that must not be passed on."""
    first = [
        row(
            k,
            Age=str(20 + k),
            Sex="Male" if k % 2 else "Female",
            Nationality="Ireland" if k < 36 else "Tuvalu",
        )
        for k in range(40)
    ]
    second = [row(k, Sex="Male" if k % 2 else "Female") for k in range(20, 60)]
    second += [
        row(70, Age="CONSENT_REVOKED"),
        row(71, Status="RETURNED", Completed_at=""),
        row(72, Status="TIMED-OUT", Completed_at=""),
        row(73, Status="REJECTED"),
    ]
    return {"a1": first, "b2": second}
