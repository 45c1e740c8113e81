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
