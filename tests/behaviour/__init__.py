"""Tests of what crosses modules."""
