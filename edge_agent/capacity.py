"""What a device has for its jobs: its budget, and what a job takes of a device (models/needs.py)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from edge_agent.config import AgentConfig
from models.budget import Capacity
from models.job import JobSpec
from models.needs import AGENT_BYTES, Needs, of_device
from models.nets.size import Size
from models.nets.table import framework_of


def capacity_of(config: AgentConfig) -> Capacity:
    """Return the capacity of the agent with this configuration, by what this machine has.

    Where there is neither onnx nor onnxruntime its own nets serve models, and no process beside it is begun.
    """
    child = any(find_spec(name) is not None for name in ("onnx", "onnxruntime"))

    def needs(spec: JobSpec, size: Size, rows: int | None) -> Needs:
        torch = framework_of(spec.model, config.models.framework) == "torch"
        return of_device(spec, size, torch=torch, serves=config.models.inference, child=child, rows=rows)

    return Capacity(config.limits, Path(config.state_dir), needs, AGENT_BYTES)
