# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""What a scene's prediction writes: maps, probabilities, polygons, pictures."""
