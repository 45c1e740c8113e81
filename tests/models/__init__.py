"""Tests of prithvi_hf.models."""
