# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""A page on which people map their scenes in a browser: `prithvi-hf demo`, and a Space of the Hub."""
