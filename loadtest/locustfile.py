"""Load on a running server with every answer checked; docs/loadtest.md describes its use.

    TOKEN=… locust --config loadtest/locust.conf --host http://127.0.0.1:8787 [--rate 300 …]

Two kinds of users: ``ClosedLoop`` asks again when it has its answer, ``OpenLoop`` sends at set times
regardless of the answers. Either asks over HTTP or gRPC (``--protocol``). It runs in an environment of its
own, so it imports nothing of the server.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from locust import FastHttpUser, LoadTestShape, constant, events, task
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from loadtest.arrivals import users_at
from loadtest.generator import Run, send_at_set_times
from loadtest.options import LoadOptions, add_arguments
from loadtest.reference import NoReferenceError
from loadtest.report import remove_report, write_report
from loadtest.stopping import Stopping

events.init_command_line_parser.add_listener(add_arguments)
_NEVER_S = 1e6


def _stop_preparing(_number: int, _frame: object) -> None:
    # gevent prints a KeyboardInterrupt by itself, and a SystemExit not.
    raise SystemExit("No load: stopped while asking each text alone")


@events.init.add_listener
def _prepare(environment: Any, runner: Any, **_: Any) -> None:
    """References are asked for once, where there is one process: here, or on the master."""
    if not isinstance(runner, WorkerRunner):
        remove_report(LoadOptions.of(environment.parsed_options).output, _page(environment))
    environment.loadtest = run = Run(environment)
    environment.stopping = Stopping(run, runner)
    if isinstance(runner, WorkerRunner):
        runner.register_message("plan", lambda msg, **_: run.follow(msg.data))
        runner.register_message("stop_sending", lambda **_: run.stop_sending())
        environment.events.report_to_master.add_listener(
            lambda data, **_: data.update(record=run.record.take())
        )
        return
    # Locust takes SIGTERM over when all is done.
    before = {number: signal.signal(number, _stop_preparing) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        run.prepare()
    except NoReferenceError as exc:
        raise SystemExit(f"No load: {exc}") from exc
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    environment.events.worker_report.add_listener(lambda data, **_: run.record.merge(data["record"]))


@events.test_start.add_listener
def _begin(environment: Any, **_: Any) -> None:
    run, runner = environment.loadtest, environment.runner
    environment.stopping.listen()
    if isinstance(runner, MasterRunner):
        runner.send_message("plan", run.plan())
    else:
        run.begin(getattr(runner, "worker_index", 0))


@events.test_stopping.add_listener
def _ignore_late_signals(environment: Any, **_: Any) -> None:
    """What ends now has run to its end: Compose sends the master a SIGTERM as soon as a worker has ended."""
    if isinstance(environment.runner, MasterRunner):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@events.quitting.add_listener
def _judge(environment: Any, **_: Any) -> None:
    """The exit code is ours alone: errors that the thresholds allow are none."""
    if isinstance(environment.runner, WorkerRunner):
        environment.process_exit_code = 0
        return
    passed = write_report(environment.loadtest, _page(environment))
    environment.process_exit_code = 0 if passed else 1


def _page(environment: Any) -> Path | None:
    """Locust's own report, if it writes one."""
    html = environment.parsed_options.html_file
    return Path(html) if html else None


class _Caller(FastHttpUser):
    abstract = True

    def __init__(self, environment: Any) -> None:
        self.load_run: Run = environment.loadtest
        options = self.load_run.options
        self.network_timeout = self.connection_timeout = options.timeout
        self.insecure = options.insecure
        self.concurrency = options.max_in_flight
        super().__init__(environment)
        self.connection = self.load_run.protocol.connect(self.client, self.calls_at_once)

    @property
    def calls_at_once(self) -> int:
        """How many calls of this user are under way at once, at most."""
        return 1


class ClosedLoop(_Caller):
    """Asks one thing after the other; a slow server gets fewer requests."""

    wait_time = constant(0)

    @task
    def ask(self) -> None:
        """One call, sent when it is due."""
        if self.load_run.stopping.is_set():
            raise StopUser
        self.load_run.ask_now(self.connection)


class OpenLoop(_Caller):
    """All arrivals of one process; a slow server gets as many requests as a fast one."""

    wait_time = constant(_NEVER_S)

    @property
    def calls_at_once(self) -> int:
        """All that one process may have under way."""
        return self.load_run.options.max_in_flight

    @task
    def ask(self) -> None:
        """The whole run, once."""
        send_at_set_times(self.load_run, self.connection)


class Shape(LoadTestShape):
    """Users over time: those of the closed loop by its shape, one for each process of the open loop."""

    use_common_options = True

    def tick(self) -> tuple[int, int, list[type[FastHttpUser]]] | None:
        """Users, how many to start a second, and of which kind; None ends the run."""
        environment = self.runner.environment
        run: Run = environment.loadtest
        options, time = run.options, self.get_run_time()
        # Counted once, before the first of them starts.
        run.generators = run.generators or max(1, getattr(self.runner, "worker_count", 1))
        if environment.stopping.over(waited_for_all=options.loop == "closed" or run.all_finished):
            return None
        if options.loop == "open":
            over = run.all_finished or time > options.calibration_s + options.duration + options.timeout
            return None if over else (run.generators, run.generators, [OpenLoop])
        if time >= options.duration:
            return None
        users = users_at(options.shape, environment.parsed_options.num_users or 1, options.duration, time)
        return users, users, [ClosedLoop]
