"""Installs the clients, each at its pinned version, under .tools/ of the checkout: nothing is written elsewhere."""
import hashlib
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(os.path.dirname(HERE))
TOOLS = os.path.join(ROOT, ".tools", "interop")
JAVA_VERSIONS = {"java-5.5.0": "5.5.0", "java-4.9.8": "4.9.8"}
MAVEN = ["mvn", "-q", "-B", "-Dmaven.repo.local=" + os.path.join(TOOLS, "m2")]


class InstallError(Exception):
    pass


def place(*parts):
    return os.path.join(TOOLS, *parts)


def once(name, sources, build):
    """Runs `build` unless it has been run before for the same sources."""
    digest = hashlib.sha256()
    for source in sorted(sources):
        with open(source, "rb") as file:
            digest.update(file.read())
    stamp = place(name + ".stamp")
    if os.path.exists(stamp) and open(stamp, encoding="utf-8").read() == digest.hexdigest():
        return
    os.makedirs(TOOLS, exist_ok=True)
    build()
    with open(stamp, "w", encoding="utf-8") as file:
        file.write(digest.hexdigest())


def run(command, cwd, **environment):
    log = place("install.log")
    with open(log, "ab") as out:
        done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
                              env=dict(os.environ, **environment))
    if done.returncode:
        with open(log, "rb") as out:
            sys.stderr.write(out.read()[-4000:].decode(errors="replace"))
        raise InstallError("%s failed in %s" % (" ".join(command), cwd))


def files(directory, suffix):
    return [os.path.join(where, name) for where, _, names in os.walk(os.path.join(HERE, directory))
            for name in names if name.endswith(suffix)]


def java(client):
    command = MAVEN + ["-Drocketmq.version=" + JAVA_VERSIONS[client], "-Dout=" + place(client), "compile"]
    sources = files("java", ".java") + files("java", "pom.xml")
    once(client, sources, lambda: run(command, os.path.join(HERE, "java")))


def peer(version="5.5.0"):
    name = "peer" if version == "5.5.0" else "peer-" + version
    command = MAVEN + ["dependency:copy-dependencies", "-Drocketmq.version=" + version,
                       "-DoutputDirectory=" + place(name)]
    once(name, files("peer", "pom.xml"), lambda: run(command, os.path.join(HERE, "peer")))
    return place(name)


def go():
    environment = {"GOMODCACHE": place("gomod"), "GOFLAGS": "-modcacherw -buildvcs=false"}
    sources = files("go", ".go") + files("go", "go.mod")
    once("go", sources, lambda: run(["go", "build", "-o", place("go-interop"), "."], os.path.join(HERE, "go"),
                                    **environment))


def node():
    def build():
        os.makedirs(place("node"), exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(os.path.join(HERE, "node", name), place("node", name))
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", place("npm")], place("node"))

    once("node", files("node", "package-lock.json"), build)


def python():
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--upgrade",
               "--require-hashes", "--target", place("python"), "-r", "requirements.txt"]
    once("python", files("python", "requirements.txt"), lambda: run(command, os.path.join(HERE, "python"),
                                                                   PIP_CACHE_DIR=place("pip")))


def ringmq():
    """Builds the release binary and returns its path."""
    done = subprocess.run(["cargo", "build", "--release", "--quiet", "--bin", "ringmq"], cwd=ROOT, check=False)
    if done.returncode:
        raise InstallError("cargo build --release --bin ringmq failed")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return os.path.join(target, "release", "ringmq")


def client(name):
    {"java-5.5.0": lambda: java("java-5.5.0"), "java-4.9.8": lambda: java("java-4.9.8"),
     "mqadmin": lambda: java("java-5.5.0"), "go": go, "node": node, "cpp": python}[name]()
