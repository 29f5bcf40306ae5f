"""Processes that the suite starts: every one in a process group of its own, all of them ended with the suite."""
import json
import os
import signal
import subprocess
import threading
import time


class Failure(Exception):
    """A case's expectation that did not hold."""


class Group:
    """All live processes of the suite."""

    def __init__(self):
        self.lock = threading.RLock()  # a signal handler may find its own thread inside `start`
        self.live = set()
        self.closed = False

    def start(self, command, **options):
        with self.lock:
            if self.closed:
                raise Failure("the suite is stopping")
            process = subprocess.Popen(command, start_new_session=True, **options)
            self.live.add(process)
        return process

    def forget(self, process):
        with self.lock:
            self.live.discard(process)

    def kill(self, process):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        self.forget(process)

    def kill_all(self):
        """Ends everything; nothing can be started any more."""
        self.closed = True
        while True:
            with self.lock:
                live = list(self.live)
            if not live:
                return
            for process in live:
                self.kill(process)


class Driver:
    """A test program of one client: writes JSON lines, stops when its standard input is closed."""

    def __init__(self, group, name, command, log, deadline, env=None, cwd=None):
        self.group, self.name, self.deadline = group, name, deadline
        self.changed = threading.Condition()
        self.events = []  # (time of arrival, event)
        self.ended = False
        self.log = open(log, "wb")
        self.process = group.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                                   env=env, cwd=cwd)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "garbage", "line": line.decode(errors="replace")}
            with self.changed:
                self.events.append((time.monotonic(), event))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def all(self, *names):
        with self.changed:
            return [event for _, event in self.events if event["event"] in names]

    def timed(self, name):
        with self.changed:
            return [(at, event) for at, event in self.events if event["event"] == name]

    def wait_for(self, name, seconds=None):
        """Waits for the first event of that name."""
        limit = self.deadline if seconds is None else min(self.deadline, time.monotonic() + seconds)
        with self.changed:
            while not any(event["event"] == name for _, event in self.events):
                left = limit - time.monotonic()
                if self.ended or left <= 0:
                    raise Failure("%s %s before its %r: see %s" % (
                        self.name, "ended" if self.ended else "ran out of time", name, self.log.name))
                self.changed.wait(left)
        return self

    def write_line(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def close_input(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass

    def stop(self, last="stopped"):
        """Asks the program to stop, and waits until it has said its last word."""
        self.close_input()
        self.wait_for(last)
        self.finish()
        return self

    def finish(self):
        try:
            self.process.wait(max(0.1, min(10, self.deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            raise Failure("%s did not exit after its last word" % self.name) from None
        self.reader.join(2)
        self.group.forget(self.process)
        return self

    def kill(self):
        self.group.kill(self.process)
        self.reader.join(2)
        self.log.close()
