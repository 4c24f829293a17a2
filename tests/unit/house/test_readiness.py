"""`make readiness` cannot be talked into "ready": each way in which a run may fall short of the document is found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from click.testing import CliRunner

from tests.readiness.__main__ import NOT_READY, OUT_OF_DATE, UNSOUND, main
from tests.readiness.document import Unsound, claims, complete
from tests.readiness.results import of_reports
from tests.readiness.verdict import Fault, judge, sentence

HERE = "tests/unit/house/test_readiness.py"
#: A test without parameters and one with two: they exist, and nothing here runs them.
ONE = f"{HERE}::test_a_claim_without_a_test_is_none"
TWO = f"{HERE}::test_a_document_that_contradicts_itself_is_told"
NOBODYS = f"{HERE}::test_that_nobody_wrote"
ITEMS = {ONE: [ONE], TWO: [f"{TWO}[unsound]", f"{TWO}[lost]"], NOBODYS: []}
DOCUMENT = f"""\
# Готовность

<!-- status: -->
**Статус: не готов.**
<!-- /status -->

- **A-1.** Одно,
  в две строки.
  - `{ONE}`
- **A-2.** Другое.
  - `{TWO}`
  - `{ONE}`

| Метрика | Тип | Метки | Как читать |
|---|---|---|---|
| `sticky_hits_total` |  |  | Попадания. |

**A-1** доказано, см. [`python_requires`](setup.cfg#L1).
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A document, and the reports of a run that it is held against."""

    folder: Path

    @property
    def document(self) -> Path:
        return self.folder / "READINESS.md"

    def report(self, stage: str, *, began: datetime | None = None, **outcomes: str) -> None:
        """Everything passed, but what begins with a name given: that has this element inside, or is "absent"."""
        cases = []
        for name in (*ITEMS[ONE], *ITEMS[TWO]):
            path, _, test = name.partition("::")
            inside = next((told for begin, told in outcomes.items() if begin in test), "")
            where = quoteattr(path.removesuffix(".py").replace("/", "."))
            case = f"<testcase classname={where} name={quoteattr(test)}>{inside}</testcase>"
            cases.append("" if inside == "absent" else case)
        when = (began or datetime.now(UTC) + timedelta(minutes=1)).isoformat()
        self.folder.joinpath(f"junit-{stage}.xml").write_text(
            f"<testsuites><testsuite timestamp={quoteattr(when)}>{''.join(cases)}</testsuite></testsuites>"
        )

    def asked(self, *options: str) -> tuple[int, str]:
        given = ("--document", str(self.document), "--reports", str(self.folder), *options)
        done = CliRunner().invoke(main, given)
        return done.exit_code, done.output

    def faults(self, changed: float = 0) -> list[tuple[str, Fault]]:
        """Claims that the run does not bear out, and why; the code was last changed at ``changed``."""
        found = judge(
            claims(DOCUMENT), ITEMS, of_reports(self.folder), dict.fromkeys(ITEMS, changed)
        )
        return [(finding.claim, finding.fault) for finding in found]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    site.document.write_text(DOCUMENT)
    return site


# -- what a run bears out ---------------------------------------------------------------------------


def test_a_run_in_which_everything_passed_bears_everything_out(site: Site) -> None:
    site.report("whole")
    assert site.faults() == []


@pytest.mark.parametrize("inside", ["<failure/>", "<error/>", "<skipped/>"])
def test_a_test_that_did_not_pass_shows_nothing(site: Site, inside: str) -> None:
    site.report("whole", test_a_claim=inside)
    assert site.faults() == [("A-1", Fault.NOT_PASSED), ("A-2", Fault.NOT_PASSED)]


def test_every_case_of_a_test_has_to_pass(site: Site) -> None:
    site.report("whole", lost="<failure/>")
    assert site.faults() == [("A-2", Fault.NOT_PASSED)]
    site.report("whole", lost="absent")
    assert site.faults() == [("A-2", Fault.NOT_RUN)]


def test_without_any_run_nothing_is_shown(site: Site) -> None:
    assert {fault for _, fault in site.faults()} == {Fault.NOT_RUN}


def test_a_test_that_is_gone_shows_nothing(site: Site) -> None:
    site.report("whole")
    claimed = claims(DOCUMENT.replace(ONE, NOBODYS, 1))
    [found] = judge(claimed, ITEMS, of_reports(site.folder), {})
    assert (found.claim, found.test, found.fault) == ("A-1", NOBODYS, Fault.MISSING)


def test_a_run_from_before_the_last_change_of_the_code_shows_nothing(site: Site) -> None:
    site.report("whole", began=datetime(2020, 1, 1, tzinfo=UTC))
    changed = datetime(2020, 1, 2, tzinfo=UTC).timestamp()
    assert {fault for _, fault in site.faults(changed)} == {Fault.STALE}


def test_what_passed_at_the_second_try_of_its_stage_has_passed(site: Site) -> None:
    site.report("whole", test_a_claim="<failure/>")
    site.report("whole-again", lost="absent", unsound="absent")
    assert site.faults() == []


def test_what_failed_in_another_stage_has_failed(site: Site) -> None:
    site.report("whole")
    site.report("py312", lost="<failure/>")
    site.report("whole-again")
    assert site.faults() == [("A-2", Fault.NOT_PASSED)]


def test_a_case_that_is_told_twice_passed_if_it_passed_twice(site: Site) -> None:
    site.report("whole", lost="<error/>")
    path = site.folder / "junit-whole.xml"
    [*_, last] = re.findall(r"<testcase .*?</testcase>", path.read_text())
    path.write_text(path.read_text().replace(last, last + last.replace("<error/>", "")))
    assert site.faults() == [("A-2", Fault.NOT_PASSED)]


# -- the command ------------------------------------------------------------------------------------


def test_the_document_says_what_the_run_says_or_it_is_told(site: Site) -> None:
    site.report("whole")
    assert site.asked()[0] == OUT_OF_DATE
    assert site.asked("--write")[0] == 0
    text = site.document.read_text()
    assert "**Статус: готов.**" in text
    assert "| `sticky_hits_total` | counter | `tenant`, `subject` | Попадания. |" in text
    assert "(setup.cfg#L1)" not in text
    assert site.asked() == (0, "readiness: ready: 2 claims, 2 tests\n")

    site.report("whole", lost="<failure/>")
    code, told = site.asked()
    assert code == NOT_READY
    assert f"A-2: {TWO} не пройден" in told and "its status is not that of the run" in told


def test_what_is_not_ready_is_written_down_by_claim(site: Site) -> None:
    site.report("whole", lost="<failure/>")
    claimed = claims(DOCUMENT)
    found = judge(claimed, ITEMS, of_reports(site.folder), {})
    assert (
        sentence(claimed, found)
        == f"**Статус: не готов.** Не подтверждено: A-2 (`{TWO}` не пройден)."
    )


def test_all_but_the_status_is_completed_without_a_run(site: Site) -> None:
    assert site.asked("--complete") == (0, "")
    assert site.document.read_text() == complete(DOCUMENT) != DOCUMENT
    assert "не готов" in site.document.read_text()


def test_a_claim_without_a_test_is_none() -> None:
    with pytest.raises(Unsound, match="A-1 is shown by no test"):
        claims(DOCUMENT.replace(f"  - `{ONE}`\n", "", 1))


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        (f"  - `{TWO}`\n", "", "is named by no claim"),
        ("python_requires", "no such words", "no line of setup.cfg holds"),
    ],
    ids=["unsound", "lost"],
)
def test_a_document_that_contradicts_itself_is_told(
    site: Site, was: str, now: str, told: str
) -> None:
    site.document.write_text(DOCUMENT.replace(was, now, 1) + f"\nИ ещё `{TWO}`.\n")
    code, said = site.asked()
    assert code == UNSOUND and told in said


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("**A-2.**", "**A-1.**", "A-1 is claimed twice"),
        ("**A-1** доказано", "**A-7** доказано", "A-7 is no claim"),
        ("- **A-", "* **A-", "is no claim"),
    ],
)
def test_claims_are_named_once_and_known(was: str, now: str, told: str) -> None:
    with pytest.raises(Unsound, match=told):
        claims(DOCUMENT.replace(was, now))


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("`sticky_hits_total`", "`sticky_hit_total`", "is not declared"),
        ("setup.cfg#", "setup.toml#", "is no file"),
    ],
)
def test_tables_and_links_are_of_what_there_is(was: str, now: str, told: str) -> None:
    with pytest.raises(Unsound, match=told):
        complete(DOCUMENT.replace(was, now))


def test_there_is_one_status() -> None:
    with pytest.raises(Unsound, match="there are 0 statuses"):
        complete("# Готовность", said="**Статус: готов.**")
