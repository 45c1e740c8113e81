# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Folder of the `classification_metrics` metric: `evaluate.load` takes the path of this folder."""
