"""A campaign of damaged GeoTIFFs against decoding, auditing and mapping: what is wrong is written as files.

    python -m tests.fuzz.campaign --mutants 10000 --output_dir fuzz_findings
    python -m tests.fuzz.campaign --only 4711 --output_dir fuzz_findings     # one of them again

Mutants are opened by child processes with limits of time and memory; one that dies is replaced, and what it worked at
is a finding. Findings are folders with the file, the verdict and what the process wrote.
"""

import argparse
import json
import os
import queue
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutants import make_mutant, make_seeds
from tests.fuzz.worker import TARGETS


START_SECONDS, MUTANT_SECONDS = 300, 30
SOUND = ("identical", "different", "error")
COLUMNS = (*SOUND, "crash", "hang", "other")
_LOG_BYTES = 4000


@dataclass
class Campaign:
    """What is to be done, and what came of it."""

    folder: Path
    seed: int = 0
    results: list[dict] = field(default_factory=list)
    _todo: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)

    def run(self, numbers: Iterable[int], processes: int) -> None:
        """Open all mutants; returns when each has its verdict."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            self._todo.put(number)
        threads = [threading.Thread(target=self._work) for _ in range(processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.results.sort(key=lambda result: result["number"])

    def _work(self) -> None:
        """Keep one child process at work, and start another one when it has died."""
        while not self._todo.empty():
            with tempfile.TemporaryDirectory(prefix="fuzz_") as scratch, open(Path(scratch, "log"), "wb") as log:
                command = [sys.executable, "-m", "tests.fuzz.worker", scratch, str(self.seed)]
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
                with subprocess.Popen(command, **pipes, env={**os.environ, "OMP_NUM_THREADS": "1"}) as child:
                    try:
                        if read_answer(child, START_SECONDS) is None:
                            raise RuntimeError(Path(scratch, "log").read_text()[-_LOG_BYTES:])
                        while self._ask(child, Path(scratch)):
                            pass
                    finally:
                        child.kill()

    def _ask(self, child: subprocess.Popen, scratch: Path) -> bool:
        """Have one mutant opened; False when there is none, or the child is not to be asked again."""
        try:
            number = self._todo.get_nowait()
        except queue.Empty:
            return False
        child.stdin.write(f"{number}\n".encode())
        child.stdin.flush()
        answer = read_answer(child, MUTANT_SECONDS)
        if answer is None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=2)
            verdict = "hang" if child.poll() is None else "crash"
            answer = {"number": number, "verdicts": {(scratch / "target").read_text(): verdict}}
        self.results.append(answer)
        with open(self.folder / "results.jsonl", "a") as file:  # one write: whole lines, whatever thread they are of
            file.write(json.dumps(answer) + "\n")
        if set(answer["verdicts"].values()) - set(SOUND):
            self._write_finding(answer, scratch / "log")
        return not {"crash", "hang"} & set(answer["verdicts"].values())

    def _write_finding(self, answer: dict, log: Path) -> None:
        folder = self.folder / f"{answer['number']:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            mutant = make_mutant(make_seeds(Path(scratch)), self.seed, answer["number"])
        (folder / "mutant.tif").write_bytes(mutant.content)
        (folder / "verdict.json").write_text(json.dumps(answer, indent=1))
        (folder / "log.txt").write_bytes(log.read_bytes()[-_LOG_BYTES:])

    def format_counts(self) -> str:
        """A table of verdicts per target, and of what was damaged where a file was read differently."""
        lines = [f"| target | {' | '.join(COLUMNS)} |", f"|---|{'---:|' * len(COLUMNS)}"]
        for target in TARGETS:
            found = Counter(
                verdict if verdict in COLUMNS else "other"
                for result in self.results
                if (verdict := result["verdicts"].get(target))
            )
            lines.append(f"| {target} | {' | '.join(f'{found[column]:,}' for column in COLUMNS)} |")
        lines += ["", f"| read differently, by what is damaged | {' | '.join(TARGETS)} |"]
        lines.append(f"|---|{'---:|' * len(TARGETS)}")
        counts = Counter(
            (f"{result['place']}, {result['codec']}" if result["place"] == "pixels" else result["place"], target)
            for result in self.results
            for target, verdict in result["verdicts"].items()
            if verdict == "different"
        )
        for damage in sorted({damage for damage, _ in counts}):
            lines.append(f"| {damage} | {' | '.join(f'{counts[damage, target]:,}' for target in TARGETS)} |")
        return "\n".join(lines)


def read_answer(child: subprocess.Popen, seconds: float) -> dict | None:
    """Read the one line of a child; None where it has ended, or none came in time."""
    line, end = b"", time.monotonic() + seconds
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([child.stdout], [], [], max(0.0, end - time.monotonic()))
        part = os.read(child.stdout.fileno(), 2**16) if ready else b""
        if not part:
            return None
        line += part
    return json.loads(line)


def main() -> int:
    """Run a campaign; the exit status is 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the mutants to open")
    parser.add_argument("--seed", type=int, default=0, help="of the campaign: another one makes other mutants")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--output_dir", type=Path, required=True, help="where findings are written")
    options = parser.parse_args()
    campaign, begin = Campaign(options.output_dir, options.seed), time.monotonic()
    campaign.run(options.only or range(options.mutants), options.processes)
    findings = [one for one in campaign.results if set(one["verdicts"].values()) - set(SOUND)]
    print(campaign.format_counts())
    print(f"\n{len(campaign.results):,} mutants in {time.monotonic() - begin:,.0f} s, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
