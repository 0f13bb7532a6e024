"""Which versions of a job are put into this device's model slot, and when one is tried again (laws 6 and 8). Pure."""

from __future__ import annotations

from msgspec import Struct

from broker.messages import Version
from models.job import JobSpec

FIRST_REDEPLOY_S = 60.0
LAST_REDEPLOY_S = 3600.0


class Policy(Struct, frozen=True):
    """Which versions a device with a model slot deploys. every: each so many-th one; 0: none on the way."""

    every: int = 0
    last: bool = False
    """Whether the one is deployed that the job ends with."""

    def covers(self, version: Version, over: Version | None) -> bool:
        """Return whether a version is to be deployed. over: the last one of the job, if that has ended."""
        if version == over:
            return self.last
        return self.every > 0 and version.number > 0 and version.number % self.every == 0


_NEVER = Policy()


def policy(spec: JobSpec, *, has_slot: bool) -> Policy:
    """Return what a device deploys of a job: `deploy` of the job is read here, and nowhere else."""
    if not has_slot or spec.deploy == "never":
        return _NEVER
    return Policy(0 if spec.deploy == "final" else int(spec.deploy.removeprefix("every ")), last=True)


class Deployment:
    """What is in the model slot, and what is about to be. deployed: the version in it."""

    __slots__ = ("_again_at", "_deploying", "_pause_s", "deployed", "policy")

    def __init__(self, policy: Policy, deployed: Version | None) -> None:
        self.policy = policy
        self.deployed = deployed
        self._deploying: Version | None = None
        self._again_at: float | None = None
        self._pause_s = FIRST_REDEPLOY_S

    @property
    def deadline(self) -> float | None:
        """When one that failed is tried again."""
        return self._again_at

    def wants(self, latest: Version, over: Version | None) -> bool:
        """Return whether the newest version is to be put into the slot. over: see `Policy`."""
        if latest in (self.deployed, self._deploying) or self._again_at is not None:
            return False
        if self.deployed is not None and latest < self.deployed:
            return False  # words of former times: a backup that is restored has a generation of its own
        return self.policy.covers(latest, over)

    def begin(self, version: Version) -> None:
        """Note that a version is being put into the slot."""
        self._deploying = version

    def end(self, version: Version) -> None:
        """Note that a version is in the slot."""
        self.deployed = version
        if version == self._deploying:
            self._deploying, self._again_at, self._pause_s = None, None, FIRST_REDEPLOY_S

    def fail(self, version: Version, now: float) -> None:
        """Note that a version could not be put into the slot: it is tried again, with growing pauses."""
        if version == self._deploying:
            self._deploying, self._again_at = None, now + self._pause_s
            self._pause_s = min(2 * self._pause_s, LAST_REDEPLOY_S)

    def pass_time(self, now: float) -> None:
        """Let a pause end."""
        if self._again_at is not None and now >= self._again_at:
            self._again_at = None
