"""Tests of prithvi_hf.data.builders."""
