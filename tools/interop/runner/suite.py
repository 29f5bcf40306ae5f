"""Runs the cases: several at a time, those that restart the brokers last and all together."""
import os
import shutil
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from . import admin, cases, cluster, cross, restarts
from . import deletion, groups, limits, once  # noqa: F401 (they add to the cases)
from . import raw_consumers, raw_messages, raw_tools, semantics  # noqa: F401
from .clients import ADMIN, ALL, CLIENTS, Client
from .context import CASE_SECONDS, Context
from .install import place
from .processes import Failure, Group
from .raw import CASES as RAW_CASES, RAW

JAVA, MIXED, RINGMQ = "java", "mixed", "ringmq"
WAITING_JOBS = 3  # cases that wait for delays, beside the others
WAITING_SECONDS = 120  # what such a case may take
# What brokers must have been started with (`--set`) for a case to be served.
SETTINGS = {"legacy-reset": {"useServerSideResetOffset": "false"}}
JAVA_SETTINGS = {"deletion": {"fileReservedTime": "0"}}  # for RingMQ a topic's attribute does it
MOST_REPEATED = 2  # cases that may fail once: a busy machine delays one or two, a fault of ours more


class Suite:
    def __init__(self, peer, brokers, cores, jobs, only, settings, binary):
        self.peer, self.jobs, self.only = peer, jobs, only
        self.settings, self.binary = settings, binary
        self.group = Group()
        self.tag = "%x" % (time.time_ns() // 1_000_000)
        self.directory = place("run-%s-%d" % (peer, os.getpid()))
        shutil.rmtree(self.directory, ignore_errors=True)
        os.makedirs(self.directory)
        self.brokers, self.cores = brokers, cores
        self.cluster = None
        self.printing = threading.Lock()
        self.passed = self.failed = self.repeated = 0

    def say(self, text):
        with self.printing:
            print(text, flush=True)

    def start_cluster(self, binary, libraries):
        if self.peer == RINGMQ:
            self.cluster = cluster.RingMQ(self.group, self.directory, self.brokers, binary, self.cores)
        elif self.peer == MIXED:
            self.cluster = cluster.Mixed(self.group, self.directory, self.brokers, libraries, binary)
        else:
            self.cluster = cluster.Java(self.group, self.directory, self.brokers, libraries)
        self.cluster.settings = self.settings
        self.say("%s: %d broker(s) ready after %.2f s, name server %s, logs in %s" % (
            self.peer, self.brokers, self.cluster.start(), self.cluster.namesrv,
            os.path.relpath(self.directory)))

    def wanted(self, client, case):
        return not self.only or any(only in (client, "%s/%s" % (client, case), "*/" + case) for only in self.only)

    def deletes_files(self):
        """Whether this run is one in which messages are deleted with their files: then those of other cases go, too."""
        return "retention-size" in self.settings if self.peer == RINGMQ else self.serves("deletion")

    def serves(self, needs):
        """What this run's brokers have."""
        settings = SETTINGS if self.peer == RINGMQ else {**SETTINGS, **JAVA_SETTINGS}
        if needs in settings:
            return set(settings[needs].items()) <= set(self.settings.items())
        if needs == "limits":  # Java's brokers have no quotas, and check no types
            return self.peer == RINGMQ
        if needs == "dlq":
            return self.binary is not None
        return True

    def run(self):
        chosen = {waits: [(client, name, function) for name, needs, function, slow in cases.CASES
                          for client in CLIENTS.values()
                          if slow == waits and needs in client.can and self.wanted(client.name, name)
                          and self.serves(needs)]
                  for waits in (True, False)}
        waiting, steady = chosen[True], chosen[False]
        steady += [(CLIENTS["java-5.5.0"], name, function, ADMIN) for name, function in admin.CASES if self.wanted(ADMIN, name)]
        steady += [(Client(ALL, set()), name, function) for name, function in cross.CASES if self.wanted(ALL, name)]
        steady += [(Client(RAW, set()), name, function) for name, function in RAW_CASES if self.wanted(RAW, name)]
        beside = 1 if self.deletes_files() else WAITING_JOBS
        with ThreadPoolExecutor(self.jobs) as pool, ThreadPoolExecutor(beside) as aside:
            slow = [aside.submit(self.one, *chosen, seconds=WAITING_SECONDS) for chosen in waiting]
            good = list(pool.map(lambda chosen: self.one(*chosen), steady))
            good += [result.result() for result in slow]
        self.repeat([chosen for chosen, passed in zip(steady + waiting, good) if not passed])
        self.together(restarts.CASES)
        if self.brokers > 1:
            self.together(restarts.OUTAGES)
        return self.failed == 0

    def together(self, listed):
        """Runs cases that restart brokers, all at the same time."""
        chosen = [(client, name, function) for name, needs, function in listed for client in CLIENTS.values()
                  if needs in client.can and self.wanted(client.name, name) and self.serves(needs)]
        if chosen:
            gate = restarts.Gate(self.cluster, len(chosen), self.say)
            with ThreadPoolExecutor(len(chosen)) as pool:
                list(pool.map(lambda case: self.restarting(gate, *case), chosen))

    def repeat(self, failed):
        """Runs what failed once more, one case at a time: what passes now was short of time, and is counted apart."""
        if len(failed) > MOST_REPEATED:
            return
        for client, name, function, *shown in failed:
            self.failed -= 1
            self.repeated += self.one(client, name, function, *shown, seconds=WAITING_SECONDS, attempt="again")

    def restarting(self, gate, client, name, function):
        try:
            self.one(client, name, lambda t: function(t, gate), seconds=restarts.SECONDS[self.peer])
        finally:
            gate.leave()

    def one(self, client, name, function, shown=None, seconds=CASE_SECONDS, attempt=""):
        """Runs one case, prints its line, and returns whether it passed."""
        begun = time.monotonic()
        label = " ".join(filter(None, ("%s/%s" % (shown or client.name, name), attempt)))
        name += attempt
        context, reason = None, None
        try:
            context = Context(self, client, name, seconds)
            function(context)
        except Failure as failure:
            reason = str(failure)
        except Exception:  # a bug of the runner, or a broken answer: this case fails, the others go on
            reason = traceback.format_exc()
        finally:
            if context:
                context.close()
        with self.printing:
            self.passed += reason is None
            self.failed += reason is not None
        self.say("%-6s %-34s %6.1f s%s" % (
            "FAIL" if reason else "ok", label, time.monotonic() - begun, ": " + reason if reason else ""))
        return reason is None

    def stop(self):
        """Ends all processes; logs and data are kept for a look when something failed."""
        self.group.kill_all()
        if not self.failed and not self.repeated:
            shutil.rmtree(self.directory, ignore_errors=True)
