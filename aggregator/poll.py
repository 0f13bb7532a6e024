"""What the devices of one job say of its current version, from the store: read when that is left, or the job ends."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from aggregator import federated
from aggregator.contributions import Contribution, Evaluation
from aggregator.convergence import UNSCORED
from aggregator.federated import TallyError, Voice
from aggregator.refusals import BARRED
from aggregator.store import Scored, Store
from broker.ceilings import MOST_ROWS
from broker.messages import Offer, Verdict, Version, echo
from models.job import JobSpec
from models.measures import anomalies, tally
from models.measures.scores import scores
from models.measures.table import THRESHOLD, THRESHOLD_DEVICES
from models.nets.table import normal_share_of
from models.sections import EVALUATION, SectionError, scores_versions, split

log = logging.getLogger(__name__)

NOTHING: Mapping[str, float] = {}


class Poll:
    """The devices of one job, asked how good its versions are.

    has_test: versions are scored on a test split here, so that what devices say stands beside that ("federated_…"), and
    not in its place. share: what one of them may weigh. stated_rows: of each device, as its operator stated them.
    """

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        store: Store,
        *,
        has_test: bool,
        share: float | None,
        stated_rows: Mapping[str, int] | None = None,
    ) -> None:
        self._job = job
        self._spec = spec
        self._store = store
        self._has_test = has_test
        self._share = federated.limit_of(share)
        self._stated_rows = stated_rows
        self._limits = {EVALUATION: tally.max_bytes(spec.model)}
        self._normal_share = normal_share_of(spec.model)
        self.is_on = scores_versions(spec)
        """Whether devices score versions on rows of theirs."""

    def note(self, metrics: Mapping[str, float], before: Mapping[str, float] = NOTHING) -> dict[str, float]:
        """Return the metrics of a new version, of which nothing is known by its devices yet.

        before: of the version before; its threshold stands until the new one has its own.
        """
        waits = self.is_on and not self._has_test and self._spec.rounds.stop.metric not in metrics
        known = dict(metrics) | ({UNSCORED: 1.0} if waits else {})
        if THRESHOLD not in before:
            return known
        return self._calibrated(known, before[THRESHOLD], before.get(THRESHOLD_DEVICES, 0.0))

    def _calibrated(self, metrics: Mapping[str, float], threshold: float, devices: float) -> dict[str, float]:
        """Return the metrics of a version with a threshold, and what that is worth on the test split here.

        It stays as it is where it is by more than twice as many devices: by few of them, of the last version the first
        ones to speak, it would be their own.
        """
        if 2 * devices < metrics.get(THRESHOLD_DEVICES, 0.0):
            return dict(metrics)
        counts = anomalies.of_named(metrics) if self._has_test else None
        worth = {} if counts is None else anomalies.at_threshold(counts, threshold)
        return {**metrics, **worth, THRESHOLD: threshold, THRESHOLD_DEVICES: devices}

    def scored(self, version: Version, metrics: Mapping[str, float]) -> Scored | None:
        """Return how good the current version is, now that its devices have said so; None where none has.

        metrics: what is known of it. Raises StoreError.
        """
        said = self._store.evaluations(self._job, version) if self.is_on else []
        voices = [voice for one in said if (voice := self._voice(one)) is not None]
        found = federated.together(voices, self._share, self._normal_share)
        if found is None:
            return None
        prefix = "federated_" if self._has_test else ""
        by_devices = {f"{prefix}{name}": value for name, value in found.metrics.items()}
        by_devices |= {"federated_devices": float(found.told["devices"]), "federated_rows": float(found.told["rows"])}
        if (threshold := by_devices.pop(f"{prefix}{THRESHOLD}", None)) is not None:
            metrics = self._calibrated(metrics, threshold, float(found.told["devices"]))
        known = {name: value for name, value in metrics.items() if name != UNSCORED}
        told = " ".join(f"{name}={value:.4g}" for name, value in found.metrics.items() if ":" not in name)
        log.info(
            "version job=%s version=%s by %d devices on %d rows: %s",
            *(self._job, version, found.told["devices"], found.told["rows"], told),
        )
        return self.note(known | by_devices), found.told

    def is_behind(self, version: Version, metrics: Mapping[str, float]) -> bool:
        """Return whether more devices have said what the last version is worth than its metrics know of."""
        return self.is_on and self._store.n_evaluations(self._job, version) > metrics.get("federated_devices", 0)

    def hear_last(
        self, offer: Offer, version: Version, *, has_taken_part: bool, barred: str = ""
    ) -> tuple[Verdict, bool]:
        """Make durable what a device says of the last version of a job that has ended.

        Return the verdict on it, and whether it is news. It is said once: who says it again is answered as before, and
        who says something else is refused. has_taken_part: there is a verdict on an update of this device. barred: why
        nothing of it is counted, if that is so. Raises StoreError.
        """
        why, is_news = "", False
        try:
            content = split(offer.body, self._limits).get(EVALUATION, b"")
            federated.heard(self._spec, offer.device, offer.n_examples, content)
        except (SectionError, TallyError) as error:
            why, content = f"its body is not as the job has it: {error}", b""
        if not why:
            known = self._store.evaluations(self._job, version, offer.device)
            is_news = not known
            if barred and is_news:
                why = f"{BARRED}: {barred}"
            elif not has_taken_part:
                why = "this device has not taken part in the job"
            elif offer.n_examples > (self._spec.aggregate.max_examples or MOST_ROWS):
                why = "it claims more examples than a device of this job may have"
            elif known and known[0].content != content:
                why = "this device has said before what the last version is worth, and something else"
        if is_news and not why:
            self._store.add_last_evaluation(self._job, version, Evaluation(offer.device, offer.n_examples, content))
        return Verdict(offer.device, offer.job, offer.base, echo(offer), refused=why[:500]), is_news and not why

    def _voice(self, one: Evaluation) -> Voice | None:
        rows = one.rows if self._stated_rows is None else min(one.rows, self._stated_rows.get(one.device, one.rows))
        try:
            return federated.heard(self._spec, one.device, rows, one.content)
        except TallyError as error:
            log.warning("job=%s device=%s: its evaluation is passed over: %s", self._job, one.device, error)
            return None

    def scores_of(self, brought: Contribution) -> dict[str, float]:
        """Return what a device says of a version, by measure; nothing where it said nothing."""
        try:
            one = tally.from_bytes(brought.evaluation, self._spec.model) if brought.evaluation else None
        except TallyError:
            return {}
        return {} if one is None else {"n": float(one.n)} | scores(one, self._spec.contract.class_names)
