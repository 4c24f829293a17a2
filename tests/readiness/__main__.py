"""`make readiness`: does the run bear out what the readiness document claims, and does the document say so?

Ends with 0 if it is ready and the document is as it should be, 1 if it is not ready, 3 if the document is not what it
would be now, 4 if it contradicts itself. ``--run`` first runs the tests that are named, ``--write`` puts into the
document what the run says, and ``--complete`` does the same with all but the status, without a run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from tests.readiness.document import DOCUMENT, ROOT, Claim, Unsound, claims, complete, status
from tests.readiness.results import collected, newest_change, of_reports
from tests.readiness.verdict import Finding, judge, sentence

NOT_READY: Final = 1
OUT_OF_DATE: Final = 3
UNSOUND: Final = 4
PRODUCT: Final = ("bridge", "gateway")


@click.command()
@click.option("--reports", type=click.Path(path_type=Path), default=ROOT / "reports")
@click.option("--document", type=click.Path(path_type=Path), default=DOCUMENT)
@click.option("--run", is_flag=True, help="Run the tests that are named, and nothing else, first.")
@click.option("--write", is_flag=True, help="Write what the run says into the document.")
@click.option("--complete", "only_complete", is_flag=True, help="Write tables and lines alone.")
def main(reports: Path, document: Path, run: bool, write: bool, only_complete: bool) -> None:
    """Compare the readiness document with the JUnit files of the last run."""
    try:
        if run:
            _run(claims(document.read_text(encoding="utf-8")), reports)
        text = document.read_text(encoding="utf-8")
        claimed = claims(text)
        completed = complete(text)
        if only_complete:
            document.write_text(completed, encoding="utf-8")
            return
        said = status(text)
        findings = _findings(claimed, reports)
        now = sentence(claimed, findings)
        made = complete(text, said=now)
    except Unsound as error:
        click.echo(f"readiness: {document.name}: {error}", err=True)
        sys.exit(UNSOUND)
    for finding in findings:
        click.echo(f"readiness: {finding}", err=True)
    if write:
        document.write_text(made, encoding="utf-8")
    elif made != text:
        old = "its status is not that of the run" if said != now else "tables or lines are old"
        click.echo(f"readiness: {document.name}: {old}; make readiness ARGS=--write", err=True)
    if findings:
        sys.exit(NOT_READY)
    if made != text and not write:
        sys.exit(OUT_OF_DATE)
    click.echo(f"readiness: ready: {len(claimed)} claims, {len(_tests(claimed))} tests")


def _tests(claimed: list[Claim]) -> set[str]:
    return {test for claim in claimed for test in claim.tests}


def _findings(claimed: list[Claim], reports: Path) -> list[Finding]:
    items = collected(_tests(claimed))
    product = newest_change(*PRODUCT)
    changed = {
        test: max(product, newest_change(test.partition("::")[0]))
        for test, there in items.items()
        if there
    }
    return judge(claimed, items, of_reports(reports), changed)


def _run(claimed: list[Claim], reports: Path) -> None:
    """Of what is named what there is: a test that is gone is told as such afterwards."""
    there = [test for test, items in collected(_tests(claimed)).items() if items]
    for old in reports.glob("junit-*.xml"):
        old.unlink()
    subprocess.run(
        [
            sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-q",
            f"--junit-xml={reports / 'junit-readiness.xml'}", *sorted(there),
        ],
        cwd=ROOT,
        check=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
