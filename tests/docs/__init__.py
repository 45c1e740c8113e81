"""Tests of README and docs: every command and every block of code is run, or at least parsed."""
