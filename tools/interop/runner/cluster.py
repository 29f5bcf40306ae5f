"""The name server and brokers under test: RingMQ's, or the Java ones to compare with."""
import os
import random
import signal
import socket
import subprocess
import time

from . import remoting
from .processes import Failure

READY_SECONDS = 90
STOP_SECONDS = 20
BROKERS = ["broker-a", "broker-b", "broker-c"]


def free_port():
    """A port below the ephemeral range whose neighbours (VIP port − 2, replication + 1) are free too."""
    while True:
        port = random.randrange(15000, 32000)
        try:
            for neighbour in (port - 2, port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", neighbour))
            return port
        except OSError:
            continue


class Cluster:
    """What both kinds share. `commands` says how to start each process, by name, in starting order."""

    def __init__(self, group, directory, brokers):
        self.group, self.directory = group, directory
        self.namesrv_port = free_port()
        self.namesrv = "127.0.0.1:%d" % self.namesrv_port
        self.names = BROKERS[:brokers]
        self.ports = {name: free_port() for name in self.names}
        self.processes = {}
        self.settings = {}  # more settings of the brokers, by name

    def start(self):
        begun = time.monotonic()
        for name, command in self.commands().items():
            if name not in self.processes:
                os.makedirs(os.path.join(self.directory, name), exist_ok=True)
                with open(os.path.join(self.directory, name + ".log"), "ab") as log:
                    self.processes[name] = self.group.start(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment())
                if name == "namesrv":
                    self.wait(lambda: port_open(self.namesrv_port), "the name server")
        self.wait(self.ready, "the brokers")
        return time.monotonic() - begun

    def ready(self):
        known = remoting.masters(self.namesrv)
        return set(known) == set(self.names) and set(remoting.route(self.namesrv, "TBW102")) == set(self.names) \
            and all(port_open(port) for port in self.ports.values())

    def wait(self, condition, what):
        limit = time.monotonic() + READY_SECONDS
        while True:
            try:
                if condition():
                    return
            except (OSError, remoting.RemotingError, ValueError):
                pass
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise Failure("%s ended with status %s: see %s.log" % (
                        name, process.returncode, os.path.join(self.directory, name)))
            if time.monotonic() > limit:
                raise Failure("%s not ready after %d s: see %s" % (what, READY_SECONDS, self.directory))
            time.sleep(0.05)

    def restart(self, how):
        """Ends the brokers with the signal and starts them again; returns (seconds to end, seconds to be ready)."""
        return self.end(how, self.brokers()), self.start()

    def end(self, how, victims):
        """Ends brokers with the signal, until a name server that stays knows them no more; returns how long that took."""
        begun = time.monotonic()
        for name in victims:
            self.processes[name].send_signal(how)
        for name in victims:
            process = self.processes.pop(name)
            try:
                status = process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise Failure("%s still runs %d s after signal %d" % (name, STOP_SECONDS, how)) from None
            self.group.forget(process)
            if how == signal.SIGTERM and status not in self.clean_statuses:
                raise Failure("%s ended with status %d on SIGTERM" % (name, status))
        if "namesrv" in self.processes:
            self.wait(lambda: not set(victims) & set(self.addresses()), "a name server without them")
        return time.monotonic() - begun

    def addresses(self):
        return remoting.masters(self.namesrv)

    def environment(self):
        return dict(os.environ)


def port_open(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def namesrv_command(cluster):
    return [cluster.binary, "namesrv", "--namesrv-port", str(cluster.namesrv_port),
            "--data", os.path.join(cluster.directory, "namesrv", "data")]


class RingMQ(Cluster):
    clean_statuses = (0,)

    def __init__(self, group, directory, brokers, binary, cores):
        super().__init__(group, directory, brokers)
        self.binary, self.cores = binary, cores

    def commands(self):
        if len(self.names) == 1:
            return {self.names[0]: [self.binary, "server", "--namesrv-port", str(self.namesrv_port)]
                    + self.options(self.names[0])}
        commands = {"namesrv": namesrv_command(self)}
        for name in self.names:
            commands[name] = [self.binary, "broker", "--namesrv", self.namesrv] + self.options(name)
        return commands

    def options(self, name):
        options = ["--name", name, "--port", str(self.ports[name]), "--recall", "true", "--message-type-check", "true",
                   "--data", os.path.join(self.directory, name, "data")]
        for setting in self.settings.items():
            options += ["--set", "%s=%s" % setting]
        options += ["--lmq", "true", "--multi-dispatch", "true", "--retention-interval", "500ms"]
        return options + (["--cores", str(self.cores), "--shards", str(self.cores)] if self.cores else [])

    def brokers(self):
        return self.names


class Java(Cluster):
    """The released Java broker in SYNC_FLUSH, with a small heap and offsets flushed each second."""

    clean_statuses = (0, 143)

    def __init__(self, group, directory, brokers, libraries):
        super().__init__(group, directory, brokers)
        self.libraries = libraries

    def commands(self):
        commands = {"namesrv": self.java("256m", "namesrv.NamesrvStartup", "namesrv", {
            "listenPort": self.namesrv_port, "bindAddress": "127.0.0.1"})}
        for name in self.names:
            store = os.path.join(self.directory, name, "store")
            commands[name] = self.java("512m", "broker.BrokerStartup", name, {
                "brokerClusterName": "DefaultCluster", "brokerName": name, "brokerId": 0, "brokerIP1": "127.0.0.1",
                "namesrvAddr": self.namesrv, "listenPort": self.ports[name], "brokerRole": "ASYNC_MASTER",
                "haListenPort": self.ports[name] + 1, "flushDiskType": "SYNC_FLUSH", "storePathRootDir": store,
                "storePathCommitLog": os.path.join(store, "commitlog"), "mappedFileSizeCommitLog": 64 << 20,
                "autoCreateTopicEnable": "true", "enablePropertyFilter": "true", "flushConsumerOffsetInterval": 1000,
                "recallMessageEnable": "true", "enableLmq": "true", "enableMultiDispatch": "true",
                "waitTimeMillsInSendQueue": 10000,  # on a busy machine 200 ms are soon over
                **self.settings})
        return commands

    def java(self, heap, main, name, properties):
        path = os.path.join(self.directory, name + ".conf")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines("%s=%s\n" % item for item in properties.items())
        return ["java", "-Xms" + heap, "-Xmx" + heap, "-XX:+UseSerialGC", "-Duser.home=" + self.directory,
                "-cp", os.path.join(self.libraries, "*"), "org.apache.rocketmq." + main, "-c", path]

    def brokers(self):
        return self.names

    def environment(self):
        return dict(os.environ, ROCKETMQ_HOME=self.directory)


class Mixed(Java):
    """Java brokers behind RingMQ's name server."""

    def __init__(self, group, directory, brokers, libraries, binary):
        super().__init__(group, directory, brokers, libraries)
        self.binary = binary

    def commands(self):
        return dict(super().commands(), namesrv=namesrv_command(self))
