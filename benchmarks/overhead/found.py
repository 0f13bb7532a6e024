"""What one run of one system has shown."""

from __future__ import annotations

from msgspec import Struct


class Found(Struct, frozen=True):
    """Rounds of one system in its steady state. CPU in seconds, a round unless said otherwise."""

    name: str
    agents: int
    wall_s: float
    """A round, from one version to the next."""
    server_cpu_s: float
    broker_cpu_s: float
    agent_cpu_s: float
    """Of one agent, the mean over all."""
    server_peak_mb: float
    agent_peak_mb: float
    """Of the agent that held most."""
    start_s: float
    """From the start of the first process to the first version that was trained."""
    up_bytes: float = 0.0
    """Payload of one agent and round."""
    down_bytes: float = 0.0
    lag_s: float = 0.0
    """From the last update that the server took up to the next round's leaving it, the median."""

    @property
    def cpu_s(self) -> float:
        """Of all processes together."""
        return self.server_cpu_s + self.broker_cpu_s + self.agents * self.agent_cpu_s
