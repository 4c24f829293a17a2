"""The workers' metric files, with processes that are really killed: every count is in a scrape once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.telemetry.metrics.files import MetricFiles
from tests.support.gateway_process import REPOSITORY
from tests.support.metric_worker import COUNTER, GAUGE, HISTOGRAM, OBSERVED_SECONDS, MetricWorker
from tests.support.waiting import wait_until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
COUNTS = (COUNTER, (("who", "worker"),))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[MetricFiles]:
    """Those of a run of its own."""
    made = MetricFiles.create(tmp_path)
    yield made
    made.remove()


def scraped(files: MetricFiles) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in files.collect()
        for sample in metric.samples
    }


def counted(files: MetricFiles) -> float:
    return scraped(files).get(COUNTS, 0.0)


def paths(files: MetricFiles) -> list[Path]:
    return [path for path in files.root.rglob("*") if path.is_file()]


# -- what a scrape tells --------------------------------------------------------------------------------


def test_counts_of_the_living_and_the_dead_add_up(files: MetricFiles) -> None:
    with MetricWorker(files, 1) as first, MetricWorker(files, 2) as second:
        first.count(30)
        second.count(12)
        assert counted(files) == 42
        first.kill()
        assert counted(files) == 42, "before the master has noticed"
        files.fold({2})
        assert counted(files) == 42, "after it"
        second.count(8)
        assert counted(files) == 50


def test_a_histogram_keeps_its_buckets_sum_and_count(files: MetricFiles) -> None:
    for age in (1, 2, 3):
        with MetricWorker(files, age) as worker:
            worker.count(10)
        files.fold(set())
    found = scraped(files)
    assert found[f"{HISTOGRAM}_bucket", (("le", "0.1"),)] == 0
    assert found[f"{HISTOGRAM}_bucket", (("le", "1.0"),)] == 30
    assert found[f"{HISTOGRAM}_bucket", (("le", "+Inf"),)] == 30
    assert found[f"{HISTOGRAM}_count", ()] == 30
    assert found[f"{HISTOGRAM}_sum", ()] == 30 * OBSERVED_SECONDS


def test_a_gauge_is_of_the_living_only(files: MetricFiles) -> None:
    with MetricWorker(files, 1), MetricWorker(files, 2) as second:
        assert scraped(files)[GAUGE, ()] == 2
        second.kill()
        files.fold({1})
        assert scraped(files)[GAUGE, ()] == 1


def test_without_any_worker_what_was_counted_stays(files: MetricFiles) -> None:
    with MetricWorker(files, 1) as worker:
        worker.count(7)
    files.fold(set())
    files.fold(set())
    assert counted(files) == 7
    assert (GAUGE, ()) not in scraped(files)


def test_before_the_first_worker_there_is_nothing_and_no_error(files: MetricFiles) -> None:
    files.fold(set())
    assert scraped(files) == {}


# -- while workers come and go --------------------------------------------------------------------------


def test_scrapes_meanwhile_see_each_count_once(files: MetricFiles) -> None:
    """Workers die and are folded as fast as it goes; a scrape that ran meanwhile is between what was counted when it
    began and what was counted when it ended. One that missed a file, or read one twice, is off by a hundred."""
    with MetricWorker(files, 0) as worker:
        worker.count(100)
    template = shutil.copytree(files.root / "worker-0", files.root.parent / "template")
    shutil.rmtree(files.root / "worker-0")
    rounds = 400
    born = 0
    over = threading.Event()
    wrong: list[str] = []
    scrapes = [0] * 4

    def scrape(number: int) -> None:
        last = 0.0
        while not over.is_set():
            least = born
            found = counted(files)
            most = born + 1  # one may be born, and not be counted as such yet
            if not 100 * least <= found <= 100 * most or found < last or found % 100:
                wrong.append(f"{found} between {100 * least} and {100 * most}, after {last}")
            last = found
            scrapes[number] += 1

    threads = [threading.Thread(target=scrape, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for age in range(1, rounds + 1):
            unborn = shutil.copytree(template, files.root / f"unborn-{age}")
            unborn.rename(files.root / f"worker-{age}")
            born += 1
            if age % 3 == 0:  # now and then several at once
                files.fold(set())
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:5]
    assert sum(scrapes) > 20, "they did not run meanwhile"
    files.fold(set())
    assert counted(files) == 100 * rounds


def test_a_scrape_costs_no_more_after_two_hundred_workers(files: MetricFiles) -> None:
    with MetricWorker(files, 0) as worker:
        worker.count(3)

        def cost() -> float:
            def once() -> float:
                began = time.perf_counter()
                counted(files)
                return time.perf_counter() - began

            return min(once() for _ in range(30))

        first, held = cost(), len(paths(files))
        template = shutil.copytree(files.root / "worker-0", files.root.parent / "template")
        for age in range(1, 201):
            shutil.copytree(template, files.root / f"worker-{age}")
            files.fold({0})
        assert counted(files) == 3 * 201
        assert len(paths(files)) == held + 3, "an archive of two files, and its list"
        assert cost() <= 2 * first


# -- what can go wrong ----------------------------------------------------------------------------------


def test_a_folder_that_could_not_be_removed_counts_once(files: MetricFiles) -> None:
    """As when the master dies between the new archive and the removal, or the removal fails."""
    with MetricWorker(files, 1) as worker:
        worker.count(5)
    left = shutil.copytree(files.root / "worker-1", files.root.parent / "left")
    files.fold(set())
    shutil.copytree(left, files.root / "worker-1")
    assert counted(files) == 5
    with MetricWorker(files, 2) as worker:
        worker.count(1)
    files.fold(set())
    assert counted(files) == 6
    assert not (files.root / "worker-1").exists()


def test_an_archive_that_could_not_be_written_leaves_everything_as_it_was(
    files: MetricFiles,
) -> None:
    with MetricWorker(files, 1) as worker:
        worker.count(5)
    files.fold(set())
    with MetricWorker(files, 2) as worker:
        worker.count(5)
    in_the_way = files.root / "archive.new"
    in_the_way.mkdir()  # where the new link would be made
    with pytest.raises(IsADirectoryError):
        files.fold(set())
    assert counted(files) == 10
    in_the_way.rmdir()
    files.fold(set())
    assert counted(files) == 10
    assert not (files.root / "worker-2").exists()


def test_a_worker_whose_files_cannot_be_made_serves_and_counts_for_itself(
    files: MetricFiles,
) -> None:
    (files.root / "worker-1").mkdir()
    (files.root / "worker-1" / "in-the-way").touch()
    program = (
        "import sys; from pathlib import Path; from gateway.telemetry.metrics.files import MetricFiles\n"
        "import prometheus_client\n"  # as the master may have done
        "try: MetricFiles(Path(sys.argv[1])).adopt(1)\n"
        "except OSError as error: print(type(error).__name__)\n"
        "counter = prometheus_client.Counter('c', 'c'); counter.inc(); print(counter.collect()[0].samples[0].value)"
    )
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(files.root)}
    ended = subprocess.run(
        [sys.executable, "-c", program, str(files.root)],
        env=environ, cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stdout.split() == ["OSError", "1.0"]
    assert [path.name for path in paths(files)] == ["in-the-way"]


def test_a_worker_that_was_killed_before_it_counted_leaves_nothing(files: MetricFiles) -> None:
    for age in (1, 2):
        (files.root / f"unborn-{age}").mkdir()
        (files.root / f"unborn-{age}" / "counter_1.db").touch()
    assert scraped(files) == {}
    files.fold({2})
    assert [path.parent.name for path in paths(files)] == ["unborn-2"], "this one is being born"


def test_files_are_on_the_disk_before_they_are_mapped(files: MetricFiles) -> None:
    """A hole in a mapped file that cannot be filled, because the disk is full, ends a process with SIGBUS."""
    with MetricWorker(files, 1) as worker:
        worker.count(1)
        files.fold({1})
        made = paths(files)
        assert made
        for path in made:
            status = path.stat()
            assert status.st_blocks * 512 >= status.st_size, path


# -- the folder -----------------------------------------------------------------------------------------


def test_what_runs_that_are_over_left_is_removed_and_what_runs_is_not(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from gateway.telemetry.metrics.files import MetricFiles\n"
        "print(MetricFiles.create(Path(sys.argv[1])).root, flush=True); sys.stdin.read()"
    )

    def master() -> tuple[subprocess.Popen[str], Path]:
        started = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True,
        )  # fmt: skip
        assert started.stdout is not None
        return started, Path(started.stdout.readline().strip())

    (killed, left), (alive, used) = master(), master()
    with killed, alive:
        killed.kill()
        killed.wait()
        assert left.is_dir() and used.is_dir()
        other = tmp_path / "somebody-elses"
        other.mkdir()
        mine = MetricFiles.create(tmp_path)
        assert not left.exists()
        assert used.is_dir() and other.is_dir()
        assert mine.root != used
        mine.remove()
        assert not mine.root.exists() and used.is_dir()


def test_a_run_lives_as_long_as_any_of_its_workers(tmp_path: Path) -> None:
    """The master may be killed first; its workers go on for a moment, and count."""
    program = (
        "import os, sys; from pathlib import Path; from gateway.telemetry.metrics.files import MetricFiles\n"
        "files = MetricFiles.create(Path(sys.argv[1]))\n"
        "if os.fork() == 0: print(files.root, flush=True); sys.stdin.read(); os._exit(0)\n"
        "os._exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True,
    ) as master:  # fmt: skip
        assert master.stdout is not None and master.stdin is not None
        root = Path(master.stdout.readline().strip())
        master.wait()
        MetricFiles.create(tmp_path).remove()
        assert root.is_dir()
        master.stdin.close()

        def gone() -> bool:
            MetricFiles.create(tmp_path).remove()
            return not root.exists()

        wait_until(gone)


def test_masters_that_start_at_once_have_a_folder_each(tmp_path: Path) -> None:
    made: list[MetricFiles] = []
    threads = [
        threading.Thread(target=lambda: made.append(MetricFiles.create(tmp_path)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({files.root for files in made}) == 16
    assert all(files.root.is_dir() for files in made)
    for files in made:
        files.remove()
