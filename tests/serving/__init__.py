"""Tests of prithvi_hf.outputs."""
