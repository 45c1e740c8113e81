"""Tests of prithvi_hf.catalog."""
