"""Tests of prithvi_hf.conversion."""
