"""Tests of prithvi_hf.rasters."""
