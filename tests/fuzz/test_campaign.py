"""Damaged files are read as they were, read differently, or an error that names the file, and nothing else."""

import os
import subprocess
import sys

import pytest

from tests.fuzz import campaign as campaigns
from tests.fuzz.campaign import SOUND, Campaign
from tests.fuzz.mutants import make_mutant, make_seeds


def test_mutants_are_made_again_by_their_number(tmp_path):
    seeds = make_seeds(tmp_path)
    mutants = [make_mutant(seeds, 0, number) for number in range(120)]
    assert mutants == [make_mutant(seeds, 0, number) for number in range(120)]
    assert [mutant.content for mutant in mutants] != [make_mutant(seeds, 1, number).content for number in range(120)]
    assert sum(mutant.content != mutant.seed.content for mutant in mutants) > 100
    assert {mutant.place for mutant in mutants} == {"pixels", "header", "end"}
    assert len({mutant.seed.name for mutant in mutants}) == 12


@pytest.mark.parametrize(("program", "verdict"), [("import os; os.abort()", "crash"), ("input()", "hang")])
def test_a_child_that_dies_or_sleeps_is_a_finding(tmp_path, monkeypatch, program, verdict):
    monkeypatch.setattr(campaigns, "MUTANT_SECONDS", 1)
    (tmp_path / "target").write_text("audit")
    (tmp_path / "log").write_text("what it said at last")
    campaign = Campaign(tmp_path)
    campaign._todo.put(7)
    command = [sys.executable, "-c", f"input(); {program}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert not campaign._ask(child, tmp_path)
        child.kill()
    assert campaign.results == [{"number": 7, "verdicts": {"audit": verdict}}]
    assert sorted(os.listdir(tmp_path / "000007")) == ["log.txt", "mutant.tif", "verdict.json"]


@pytest.mark.slow
def test_a_small_campaign_has_no_findings(tmp_path):
    campaign = Campaign(tmp_path / "findings", seed=1)
    campaign.run(range(180), processes=2)
    assert len(campaign.results) == 180
    assert [one for one in campaign.results if set(one["verdicts"].values()) - set(SOUND)] == []
    deflate = [one for one in campaign.results if (one["place"], one["codec"]) == ("pixels", "deflate")]
    assert [one for one in deflate if one["verdicts"]["audit"] == "different"] == [], "their checksums show it"
    assert [one for one in deflate if one["verdicts"]["decode"] == "different"]
