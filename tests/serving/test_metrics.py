# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Figures for Prometheus."""

from prometheus_client.parser import text_string_to_metric_families

from prithvi_hf.serving.metrics import Metrics


def test_figures_are_those_of_one_server_and_can_be_read():
    metrics, other = Metrics(), Metrics()
    metrics.requests.labels("GET", "/v1/jobs/{job_id}", "200").inc()
    metrics.finish("succeeded", 3.0)
    metrics.finish("failed", 5.0)
    metrics.watch("prithvi_jobs_waiting", "Jobs that wait.", lambda: 4)
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }
    assert found["prithvi_http_requests_total", "GET", "/v1/jobs/{job_id}", "200"] == 1
    assert found["prithvi_jobs_total", "succeeded"] == found["prithvi_jobs_total", "failed"] == 1
    assert found["prithvi_job_seconds_sum",] == 3.0
    assert found["prithvi_jobs_waiting",] == 4
    assert b'prithvi_jobs_total{status="succeeded"} 0.0' in other.text()


def test_the_text_is_of_prometheus_with_help_and_types():
    metrics = Metrics()
    metrics.finish("succeeded", 2.0)
    metrics.finish("cancelled", 9.0)
    lines = metrics.text().decode().splitlines()
    assert "# TYPE prithvi_jobs_total counter" in lines
    assert "# HELP prithvi_job_seconds Seconds that successful jobs ran." in lines
    for bound, count in (("1.0", 0), ("2.0", 1), ("5.0", 1), ("+Inf", 1)):  # a bound is in its bucket
        assert f'prithvi_job_seconds_bucket{{le="{bound}"}} {count}.0' in lines
    assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in lines)


def test_a_figure_that_is_watched_is_read_each_time():
    metrics, waiting = Metrics(), [1, 2, 3]
    metrics.watch("prithvi_jobs_waiting", "Jobs that wait.", lambda: len(waiting))
    assert b"\nprithvi_jobs_waiting 3.0\n" in metrics.text()
    waiting.pop()
    assert b"\nprithvi_jobs_waiting 2.0\n" in metrics.text()
