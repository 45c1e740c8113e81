# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Tests of the demo."""
