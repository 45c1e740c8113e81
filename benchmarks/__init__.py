# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Benchmarks: medians and ratios of one run on one machine, each against a named alternative."""
