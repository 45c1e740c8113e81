"""Reading the reference values of the original code."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open


TOLERANCE = 1e-5
"""Largest difference over the largest expected magnitude at which two tensors count as equal."""


@dataclass
class Golden:
    """One reference file: tensors by group, and its metadata."""

    tensors: dict[str, torch.Tensor]
    config: dict
    metadata: dict[str, str]

    def group(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors whose name begins with `name.`, without it."""
        prefix = f"{name}."
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]


def read_golden(folder: Path, name: str) -> Golden:
    with safe_open(folder / f"{name}.safetensors", "pt") as handle:
        metadata = handle.metadata() or {}
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 - not a mapping
    return Golden(tensors, json.loads(metadata.get("config", "{}")), metadata)


def assert_matches(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    """The project's meaning of equal: max|a - b| <= tolerance * max|b|."""
    assert actual.shape == expected.shape
    difference = (actual.detach().double() - expected.double()).abs().max().item()
    bound = tolerance * expected.double().abs().max().item()
    assert difference <= bound, f"largest difference {difference:.3g}, allowed {bound:.3g}"
