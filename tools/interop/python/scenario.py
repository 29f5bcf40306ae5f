"""What every scenario needs: arguments, JSON lines on standard output, and the runner's way to say "stop"."""
import json
import os
import sys
import time

# The C++ library prints to standard output itself: keep the real one for the report, give the library standard error.
_OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def args():
    argv = sys.argv[1:]
    return {argv[i][2:]: argv[i + 1] for i in range(0, len(argv) - 1, 2)}


def event(name, **fields):
    _OUT.write(json.dumps({"event": name, **fields}) + "\n")
    _OUT.flush()


def wait_for_end_of_input():
    while sys.stdin.read(1):
        pass


def text(value):
    return value.decode("utf-8") if isinstance(value, bytes) else value


def message(m):
    event("message", topic=m.topic, body=text(m.body), tag=text(m.tags), keys=text(m.keys),
          color=text(m.get_property("color")), id=m.id, queue=m.queue_id, offset=m.queue_offset,
          born=m.born_timestamp, due=text(m.get_property("TIMER_DELIVER_MS")), now=int(time.time() * 1000))


def leave():
    """Ends the process at once: the library's own destructors may wait for its threads."""
    _OUT.flush()
    os._exit(0)
