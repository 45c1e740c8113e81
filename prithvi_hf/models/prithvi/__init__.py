# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Prithvi: configuration, models, image processor and pipeline. All files of this folder travel to the Hub."""
