"""A small platform whose parts fail as they are told, its alert sensor, and a webhook that does too."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from pydantic import SecretStr

from resources.alert_log import AlertLog
from tests.conftest import QUIET
from tilth.observability.alerts import alert_sensor

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
BEGUN = dg.DagsterRunStatus.STARTED
SECRET = "B00/vErYsEcReT"  # noqa: S105 (of a server that lives as long as a test)


@dataclass
class Webhook:
    """An HTTP server that keeps what it is sent, and takes it or not as `answer` says: a status, headers, a pause."""

    texts: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    requests: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    port: int = 0
    refuses: Callable[[str], bool] = field(default=lambda _: False)
    refusal: int = 500

    @property
    def address(self) -> SecretStr:
        return SecretStr(f"http://127.0.0.1:{self.port}/services/{SECRET}")

    @contextmanager
    def up(self) -> Iterator[None]:
        """Listen, each time at the same port."""
        webhook, over = self, threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.requests += 1
                over.wait(webhook.pause)
                text = json.loads(body)["text"]
                taken = webhook.status == 200 and not webhook.refuses(text)
                if taken and not over.is_set():
                    webhook.texts.append(text)
                    webhook.bodies.append(body)
                self.send_response(200 if taken else webhook.status if webhook.status != 200 else webhook.refusal)
                for name, value in webhook.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None: ...

        with Server(("127.0.0.1", self.port), Handler) as server:
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield
            finally:
                over.set()
                server.shutdown()
                thread.join()


@dataclass
class Shop:
    """`orders` by day → `revenue` by day; `prices` with a freshness policy; a check of `orders` and one
    of `prices`; `stock` with a check in its step; the job `tidy`.

    `broken` names what fails: assets, days, checks, jobs.
    """

    instance: dg.DagsterInstance
    outbox: AlertLog
    webhook: SecretStr
    broken: set[str] = field(default_factory=set)
    cursor: str | None = None
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    more: int = 0

    def __post_init__(self) -> None:
        shop = self
        by_day: dict[str, Any] = {"partitions_def": DAYS, "backfill_policy": dg.BackfillPolicy.multi_run(1)}

        def body(*names: str) -> None:
            if found := shop.broken & set(names):
                raise ValueError(f"{sorted(found)[0]} is broken\nand that is that")

        @dg.asset(owners=["team:shop", "ada@example.com"], **by_day)
        def orders(context: dg.AssetExecutionContext) -> None:
            body("orders", context.partition_key)

        @dg.asset(deps=[orders], owners=["team:finance"], **by_day)
        def revenue() -> None:
            body("revenue")

        policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=48), warn_window=timedelta(hours=26))

        @dg.asset(freshness_policy=policy, owners=["team:shop"])
        def prices() -> None:
            body("prices")

        @dg.asset_check(asset=prices)
        def positive() -> dg.AssetCheckResult:
            body("positive itself")
            failed = "positive" in shop.broken
            return dg.AssetCheckResult(
                passed=not failed, severity=shop.severity, description="3 prices are < 0 & wrong" if failed else None
            )

        @dg.asset_check(asset=orders, partitions_def=DAYS)
        def complete(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=f"complete {context.partition_key}" not in shop.broken)

        @dg.asset(check_specs=[dg.AssetCheckSpec("filled", asset="stock")])
        def stock() -> dg.MaterializeResult:
            body("stock")
            return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])

        def another(number: int) -> dg.AssetsDefinition:
            @dg.asset(name=f"extra_{number:02}")
            def extra() -> None:
                body("extras")

            return extra

        @dg.op
        def sweep() -> None:
            body("tidy")

        @dg.job
        def tidy() -> None:
            sweep()

        self.definitions = dg.Definitions(
            assets=[orders, revenue, prices, stock, *map(another, range(self.more))],
            asset_checks=[positive, complete],
            jobs=[tidy],
            sensors=[alert_sensor(self.outbox, self.webhook)],
            executor=dg.in_process_executor,
        )

    def without(self, *names: str) -> None:
        """These assets are not defined any more."""
        kept = [asset for asset in self.definitions.assets or [] if asset.key.to_user_string() not in names]
        self.definitions = dg.Definitions(assets=kept, sensors=self.definitions.sensors)

    def run(self, *assets: str, day: str | None = None, job: str = "__ASSET_JOB") -> str:
        """Run these assets in one run, or a job; the run's id."""
        made = self.definitions.resolve_job_def(job).execute_in_process(
            QUIET,
            instance=self.instance,
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            partition_key=day,
            raise_on_error=False,
        )
        return made.run_id

    def start(self, *assets: str, day: str | None = None) -> dg.DagsterRun:
        """A run of these assets that has begun and goes on."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        keys = frozenset(dg.AssetKey(name) for name in assets)
        tags = {"dagster/partition": day} if day else {}
        return self.instance.create_run_for_job(
            job.get_subset(asset_selection=keys), asset_selection=keys, tags=tags, status=BEGUN
        )

    def dies(self, run: dg.DagsterRun) -> None:
        self.instance.report_run_failed(run, "The run's process was killed: out of memory.")

    def writes_its_failure(self, run: dg.DagsterRun) -> Callable[[], object]:
        """The first half of a failure, its event; the second, the run's status, comes when it is called."""
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_FAILURE.value, run.job_name, message="It was killed.")
        entry = dg.EventLogEntry(
            error_info=None,
            level="debug",
            user_message="",
            run_id=run.run_id,
            timestamp=time.time(),
            dagster_event=event,
        )
        self.instance.event_log_storage.store_event(entry)
        at = datetime.fromtimestamp(entry.timestamp, UTC)
        return lambda: self.instance.run_storage.handle_run_event(run.run_id, event, at)

    def check(self, name: str, passed: bool, **options: Any) -> None:
        """An evaluation outside of any run."""
        evaluation = dg.AssetCheckEvaluation(asset_key=dg.AssetKey("prices"), check_name=name, passed=passed, **options)
        self.instance.report_runless_asset_event(evaluation)

    def freshness(self, state: str, before: str = "UNKNOWN") -> None:
        """What the freshness daemon says of `prices`."""
        change = FreshnessStateChange(
            key=dg.AssetKey("prices"),
            new_state=FreshnessState(state),
            previous_state=FreshnessState(before),
            state_change_timestamp=time.time(),
        )
        self.instance._report_runless_asset_event(change)

    def tick(self, keep_cursor: bool = True) -> str:
        """A look of the sensor; what it says."""
        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, repository_def=repository)
        result = repository.get_sensor_def("alerts").evaluate_tick(context)
        if keep_cursor:
            self.cursor = result.cursor
        return result.skip_message or ""
