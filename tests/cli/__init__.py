"""Tests of prithvi_hf.cli."""
