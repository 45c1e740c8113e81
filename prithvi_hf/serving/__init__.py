# Copyright 2026 The prithvi_hf authors. Licensed under the Apache License, Version 2.0.
"""Maps over HTTP: jobs, the process that makes maps, and the application, see `prithvi-hf serve`."""
