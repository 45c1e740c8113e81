"""Tests of prithvi_hf.training."""
