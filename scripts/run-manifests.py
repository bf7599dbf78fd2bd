#!/usr/bin/env python3
"""Whether the chart's manifests, taken at their word, make a fleet that does a run.

Renders helm/vst and does with the manifests what a kubelet would: every pod is a network namespace with an address of its
own, every container a process with the declared command, arguments, environment, user, volumes and read-only root, every
Service a name that leads to the pods it selects, every probe is asked. etcd is Debian's, the target a real Valkey cluster
with a password. In mid-run the workers are scaled from two to four, the chart's test pod is run, and at the end its report.

    sudo scripts/run-manifests.py --vst target/debug/vst

Needs root (namespaces and mounts), `make servers` and `make fleet-servers`. Law: nothing is passed to a process that no
manifest declares; whatever was started or mounted is gone afterwards.
"""

import argparse
import base64
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".local" / "helm"
sys.path.insert(0, str(TOOLS / "python"))

SERVERS = ROOT / ".local" / "servers"
ETCD = ROOT / ".local" / "debian" / "etcd-server" / "usr" / "bin" / "etcd"
CHART = ROOT / "helm" / "vst"
IMAGE = "/usr/share/vst"
PASSWORD = "s3cret-of-the-target"
LIMIT_S = 300
USER = 65532
# Probes are given more time than declared: all pods share the cores of this machine with whatever else runs there.
SLOW = 5

# Short, but with an ingest that can be met in its middle.
SCENARIO = [
    "phases.load.ingest.load.closed.clients=2", "phases.load.ingest.load.closed.pipeline=1",
    "phases.settle_full.settle.window=500ms", "phases.settle_half.settle.window=500ms",
    "phases.query_full.query.warm_up=0s", "phases.query_full.query.duration=5s",
    "phases.query_half.query.warm_up=0s", "phases.query_half.query.duration=5s",
]


def say(text):
    print(f"run-manifests: {text}", file=sys.stderr, flush=True)


class Failed(Exception):
    """What does not hold."""


def until(what, holds, limit_s=LIMIT_S):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        got = holds()
        if got:
            return got
        time.sleep(0.1)
    raise Failed(f"not within {limit_s} s: {what}")


def ask(address, path):
    """Code and text of a GET; None where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()
    except OSError:
        return None


# --- inside a container -----------------------------------------------------------------------------------------------

def enter(spec):
    """Becomes the container's process; runs in its own mount namespace and its pod's network namespace."""
    root = pathlib.Path(spec["root"])
    mount = lambda *words: subprocess.run(["mount", *map(str, words)], check=True)  # noqa: E731

    def bind(source, target, read_only):
        place = root / target.lstrip("/")
        if pathlib.Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        mount("--bind", source, place)
        if read_only:
            mount("-o", "remount,bind,ro", place)

    mount("--bind", root, root)
    for source in ("/usr/lib", "/usr/lib64"):
        if os.path.isdir(source):
            bind(source, source, True)
    for link in ("lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    (root / "proc").mkdir()
    mount("-t", "proc", "proc", root / "proc")
    for source in ("/sys", "/dev/null", "/dev/urandom"):
        bind(source, source, False)
    for source, target, read_only in spec["binds"]:
        bind(source, target, read_only)
    mount("-o", "remount,bind,ro", root)
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setgid(spec["group"])
    os.setuid(spec["user"])
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    os.execve(spec["command"][0], spec["command"], spec["environment"])


# --- the cluster's part -----------------------------------------------------------------------------------------------

class Network:
    """A bridge of the test's own; addresses are given once."""

    def __init__(self, name):
        self.name, self.net, self.given, self.spaces = name, f"10.{200 + os.getpid() % 50}.{os.getpid() % 250}", 1, []

    def start(self):
        name = self.name
        self.ip("link", "add", name, "type", "bridge")
        self.ip("addr", "add", f"{self.net}.1/24", "dev", name)
        self.ip("link", "set", name, "up")

    def ip(self, *words):
        subprocess.run(["ip", *words], check=True)

    def pod(self):
        """A new network namespace: its name and address."""
        self.given += 1
        space, end = f"{self.name}-{self.given}", f"{self.name}v{self.given}"
        self.ip("netns", "add", space)
        self.spaces.append(space)
        self.ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", space)
        self.ip("link", "set", end, "master", self.name, "up")
        address = f"{self.net}.{self.given}"
        for words in (["addr", "add", f"{address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"],
                      ["link", "set", "lo", "up"]):
            self.ip("-n", space, *words)
        return space, address

    def close(self):
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], check=False)
        subprocess.run(["ip", "link", "del", self.name], check=False)


class Target:
    """Three primaries with the search module and a password."""

    def __init__(self, host, folder):
        self.host, self.folder, self.ports, self.processes = host, folder, [7001, 7002, 7003], []

    def start(self):
        host = self.host
        for port in self.ports:
            place = self.folder / f"valkey-{port}"
            place.mkdir()
            self.processes.append(subprocess.Popen(
                [SERVERS / "valkey-server", "--bind", host, "--port", str(port), "--cluster-enabled", "yes",
                 "--cluster-announce-ip", host, "--requirepass", PASSWORD, "--save", "", "--loadmodule",
                 SERVERS / "redisearch.so"], cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for port in self.ports:
            until(f"valkey answers at {port}", lambda port=port: self.try_say(port, "PING").startswith("+PONG"), 120)
        for n, port in enumerate(self.ports):
            first, last = 16384 * n // 3, 16384 * (n + 1) // 3 - 1
            self.say(port, f"CLUSTER ADDSLOTSRANGE {first} {last}")
            self.say(port, f"CLUSTER SET-CONFIG-EPOCH {n + 1}")
        for port in self.ports[1:]:
            self.say(self.ports[0], f"CLUSTER MEET {host} {port}")
        for port in self.ports:
            until("the cluster is whole", lambda port=port: self.is_whole(port), 120)

    def is_whole(self, port):
        said = self.say(port, "CLUSTER INFO")
        return "cluster_state:ok" in said and "cluster_known_nodes:3" in said

    def say(self, port, line):
        with socket.create_connection((self.host, port), timeout=5) as s:
            s.sendall(f"AUTH {PASSWORD}\r\n{line}\r\nECHO end-of-answers\r\n".encode())
            got = b""
            while b"end-of-answers" not in got:
                more = s.recv(65536)
                if not more:
                    break
                got += more
        said = got.decode().split("\r\n", 1)[1]
        if said.startswith("-"):
            raise Failed(f"valkey at {port} answers {said.splitlines()[0]} to {line}")
        return said

    def try_say(self, port, line):
        try:
            return self.say(port, line)
        except (OSError, Failed, IndexError):
            return ""

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Pod:
    """One pod: its network, its volumes, its containers one after the other."""

    def __init__(self, cluster, owner, metadata, spec, name):
        self.cluster, self.owner, self.spec, self.name = cluster, owner, spec, name
        self.labels, self.code, self.restarts = metadata.get("labels", {}), None, 0
        self.space, self.address = cluster.network.pod()
        self.folder = cluster.folder / name
        self.folder.mkdir()
        self.hosts = self.folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.volumes = {v["name"]: self.volume(v) for v in spec.get("volumes", [])}
        self.ready, self.started, self.ill, self.process = False, False, 0, None
        self.todo = [*spec.get("initContainers", []), *spec["containers"]]
        self.next()

    def volume(self, volume):
        place = self.folder / f"volume-{volume['name']}"
        if "persistentVolumeClaim" in volume:
            place = self.cluster.folder / f"claim-{volume['persistentVolumeClaim']['claimName']}"
        place.mkdir(exist_ok=True)
        if "configMap" in volume:
            for key, text in self.cluster.find("ConfigMap", volume["configMap"]["name"])["data"].items():
                (place / key).write_text(text)
        elif place.stat().st_uid == 0:
            # What fsGroup does.
            os.chown(place, 0, self.spec["securityContext"].get("fsGroup", 0))
            place.chmod(0o2775)
        return place

    def environment(self, container):
        seen = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOSTNAME": self.name}
        for source in container.get("envFrom", []):
            data = self.cluster.find("Secret", source["secretRef"]["name"])["data"]
            seen.update({k: base64.b64decode(v).decode() for k, v in data.items()})
        fields = {"metadata.name": self.name, "status.podIP": self.address}
        for entry in container.get("env", []):
            source = entry.get("valueFrom", {})
            if "fieldRef" in source:
                seen[entry["name"]] = fields[source["fieldRef"]["fieldPath"]]
            elif "secretKeyRef" in source:
                wanted = source["secretKeyRef"]
                held = self.cluster.find("Secret", wanted["name"])["data"][wanted["key"]]
                seen[entry["name"]] = base64.b64decode(held).decode()
            else:
                seen[entry["name"]] = entry.get("value", "")
        return seen

    def next(self):
        """Starts the next container, or the same again."""
        container = self.todo[0]
        self.container, seen = container, self.environment(container)
        expand = lambda text: re.sub(r"\$\((\w+)\)", lambda m: seen.get(m[1], m[0]), text)  # noqa: E731
        command = [expand(word) for word in [*container["command"], *container.get("args", [])]]
        binds = [(str(self.hosts), "/etc/hosts", True)]
        if command[0] == "etcd":
            command[0] = "/usr/local/bin/etcd"
            binds.append((str(ETCD), command[0], True))
        else:
            binds += [(str(self.cluster.vst), "/usr/local/bin/vst", True),
                      (str(ROOT / "scenarios"), f"{IMAGE}/scenarios", True), (str(ROOT / "data"), f"{IMAGE}/data", True)]
        mounts = sorted(container.get("volumeMounts", []), key=lambda m: m["mountPath"])
        binds += [(str(self.volumes[m["name"]]), m["mountPath"], m.get("readOnly", False)) for m in mounts]
        context = self.spec["securityContext"]
        root = pathlib.Path(tempfile.mkdtemp(dir=self.folder, prefix="root-"))
        root.chmod(0o755)
        spec = {"root": str(root), "binds": binds, "command": command, "environment": seen,
                "user": context["runAsUser"], "group": context["fsGroup"]}
        self.log = self.folder / f"{container['name']}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.space, "unshare", "--mount", "--propagation", "private", sys.executable,
                 __file__, "--container", json.dumps(spec)], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.ready, self.started, self.ill = False, False, 0
        self.since = self.looked = time.monotonic()

    def said(self):
        return self.log.read_text(errors="replace")

    def probe(self, kind):
        wanted = self.container.get(kind)
        if not wanted:
            return True
        port = next(p["containerPort"] for p in self.container["ports"] if p["name"] == wanted["httpGet"]["port"])
        answer = ask(f"{self.address}:{port}", wanted["httpGet"]["path"])
        return bool(answer and 200 <= answer[0] < 400)

    def is_tried_again(self, code):
        """What a Job's policy says of the exit code of its pod."""
        spec = self.owner.get("spec", {})
        for rule in spec.get("podFailurePolicy", {}).get("rules", []):
            codes = rule.get("onExitCodes")
            if codes and code != 0 and (code in codes["values"]) == (codes["operator"] == "In"):
                return False
        return code != 0 and self.restarts < spec.get("backoffLimit", 0)

    def tick(self):
        """What the kubelet does from time to time."""
        if self.code is not None:
            return
        code = self.process.poll()
        if code is not None:
            self.ready = False
            last = len(self.todo) == 1
            if self.owner["kind"] == "StatefulSet" and last:
                self.restarts += 1
                time.sleep(1)
                self.next()
            elif code == 0 and not last:
                self.todo.pop(0)
                self.next()
            elif self.is_tried_again(code):
                self.restarts += 1
                time.sleep(2)
                self.next()
            else:
                self.code = code
            return
        if time.monotonic() - self.looked < 0.5:
            return
        self.looked = time.monotonic()
        if not self.started:
            self.started = self.probe("startupProbe")
            allowed = self.container.get("startupProbe", {"periodSeconds": 1, "failureThreshold": 60})
            if not self.started and time.monotonic() - self.since > SLOW * allowed["periodSeconds"] * allowed["failureThreshold"]:
                raise Failed(f"{self.name} does not start:\n{self.said()}")
            return
        self.ready = self.probe("readinessProbe")
        self.ill = 0 if self.probe("livenessProbe") else self.ill + 1
        if self.ill > SLOW * self.container.get("livenessProbe", {}).get("failureThreshold", 1):
            raise Failed(f"{self.name} is not alive by its own word:\n{self.said()}")

    def ask(self, path, port="http"):
        number = next(p["containerPort"] for p in self.container["ports"] if p["name"] == port)
        return ask(f"{self.address}:{number}", path)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Cluster:
    """Pods, volumes and names of one release."""

    def __init__(self, vst, network, folder):
        self.vst, self.network, self.folder = vst, network, folder
        self.pods, self.manifests, self.written = {}, [], None

    def render(self, values):
        options = [part for key, value in values.items() for part in ("--set-json", f"{key}={json.dumps(value)}")]
        out = subprocess.run([TOOLS / "helm", "template", "load", CHART, *options], capture_output=True, text=True)
        if out.returncode != 0:
            raise Failed(f"helm template: {out.stderr}")
        import yaml

        return [m for m in yaml.safe_load_all(out.stdout) if m]

    def find(self, kind, name):
        for manifest in self.manifests:
            if (manifest["kind"], manifest["metadata"]["name"]) == (kind, name):
                return manifest
        raise Failed(f"no manifest makes {kind}/{name}")

    def apply(self, manifests):
        """As `helm upgrade`: what is there stays, StatefulSets grow, Jobs are new or the same."""
        for manifest in manifests:
            kind, name = manifest["kind"], manifest["metadata"]["name"]
            before = [m for m in self.manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
            if kind == "Job" and before and before[0]["spec"] != manifest["spec"]:
                raise Failed(f"Job/{name} would have to be changed, which Kubernetes refuses")
        # Where helm can look into the cluster, the Secret that is there stays.
        held = [m for m in self.manifests if m["kind"] == "Secret"]
        kept = {m["metadata"]["name"] for m in held}
        self.manifests = held + [m for m in manifests if not (m["kind"] == "Secret" and m["metadata"]["name"] in kept)]
        for manifest in self.manifests:
            kind, name, spec = manifest["kind"], manifest["metadata"]["name"], manifest.get("spec") or {}
            if kind == "StatefulSet":
                for n in range(spec["replicas"]):
                    self.start(manifest, spec["template"]["metadata"], spec["template"]["spec"], f"{name}-{n}")
            elif kind == "Job":
                self.start(manifest, spec["template"]["metadata"], spec["template"]["spec"], f"{name}-x")

    def start(self, owner, metadata, spec, name):
        if name not in self.pods:
            self.pods[name] = Pod(self, owner, metadata, spec, name)
            self.written = None

    def tick(self):
        for pod in list(self.pods.values()):
            pod.tick()
        self.name_services()

    def name_services(self):
        """Names in every pod's /etc/hosts, as the cluster's DNS would say them."""
        lines = ["127.0.0.1 localhost"]
        for service in (m for m in self.manifests if m["kind"] == "Service"):
            spec = service["spec"]
            for pod in self.pods.values():
                chosen = all(pod.labels.get(k) == v for k, v in spec["selector"].items())
                always = spec.get("publishNotReadyAddresses") or spec.get("clusterIP") != "None"
                if chosen and pod.code is None and (pod.ready or always):
                    lines.append(f"{pod.address} {service['metadata']['name']}")
        text = "\n".join(lines) + "\n"
        if text != self.written:
            for pod in self.pods.values():
                pod.hosts.write_text(text)
            self.written = text

    def of(self, component):
        return [p for p in self.pods.values() if p.labels.get("app.kubernetes.io/component") == component]

    def until(self, what, holds, limit_s=LIMIT_S):
        def look():
            self.tick()
            return holds()

        try:
            return until(what, look, limit_s)
        except Failed as e:
            raise Failed(f"{e}\n" + "".join(f"--- {p.name} ({p.code})\n{p.said()[-3000:]}" for p in self.pods.values()))

    def close(self):
        for pod in self.pods.values():
            if pod.process.poll() is None:
                pod.process.send_signal(signal.SIGTERM)
        for pod in self.pods.values():
            pod.stop()


# --- the test ---------------------------------------------------------------------------------------------------------

def holds(what, is_so, seen=""):
    if not is_so:
        raise Failed(f"{what}: {seen}")
    say(what)


def status(pod):
    answer = pod.ask("/status")
    return json.loads(answer[1]) if answer and answer[0] == 200 else {}


def test(cluster, target):
    values = {
        "target.url": f"valkey://{target.host}:{target.ports[0]}", "target.password": PASSWORD,
        "workers.replicas": 2, "coordinator.waitForWorkers": 2, "scenario.set": SCENARIO,
    }
    cluster.apply(cluster.render(values))
    (coordinator,) = cluster.of("coordinator")
    cluster.until("the coordinator leads", lambda: coordinator.ready)
    cluster.until("rows are loaded", lambda: status(coordinator).get("units_done", 0) > 500
                  and status(coordinator).get("phase_name") == "load")
    names = {m["worker"] for m in status(coordinator)["members"]}
    holds("two workers registered themselves", names == {"load-vst-worker-0", "load-vst-worker-1"}, names)
    cluster.until("workers are ready by their own word", lambda: all(p.ready for p in cluster.of("worker")))

    holds("root is read-only, the user is nobody's",
          subprocess.run(["grep", "-E", "^(Uid|CapEff|NoNewPrivs)", f"/proc/{coordinator.process.pid}/status"],
                         capture_output=True, text=True).stdout.split()
          == ["Uid:", *[str(USER)] * 4, "CapEff:", "0" * 16, "NoNewPrivs:", "1"])

    # `helm upgrade --set workers.replicas=4` in mid-run.
    cluster.apply(cluster.render({**values, "workers.replicas": 4}))
    cluster.until("four workers are here", lambda: status(coordinator).get("workers") == 4
                  or coordinator.code is not None)
    holds("scaled to four in mid-run", coordinator.code is None and status(coordinator)["phase_name"] in
          ("load", "settle_full", "query_full"), status(coordinator))

    probe = cluster.find("Pod", "load-vst-test")
    cluster.start(probe, probe["metadata"], probe["spec"], "load-vst-test")
    tester = cluster.pods["load-vst-test"]
    cluster.until("the chart's test ends", lambda: tester.code is not None)
    holds("the chart's test passes and sees the fleet", tester.code == 0 and "load-vst-worker-3" in tester.said(),
          tester.said())

    cluster.until("the run ends", lambda: coordinator.code is not None)
    said = coordinator.said()
    run = said.strip().splitlines()[-1]
    holds("the run ends well, its last line is its directory", coordinator.code == 0
          and run == "/var/lib/vst/runs/load-1", said)
    for pod in cluster.pods.values():
        holds(f"{pod.name} tells no secret", PASSWORD not in pod.said())
    directory = cluster.folder / "claim-load-vst-results" / pathlib.PurePosixPath(run).name
    query = subprocess.run(
        [cluster.vst, "analyze", "query", "--json", "--run", directory,
         "select phase, count(distinct worker) as workers, sum(ok) as ok from latency where phase in "
         "('load', 'query_full', 'query_half') group by phase order by phase"], capture_output=True, text=True)
    rows = [json.loads(line) for line in query.stdout.splitlines()]
    used = {row["phase"]: row["workers"] for row in rows}
    holds("workers that came later are used", used.get("load") == 2 and used.get("query_half") == 4, query.stdout)

    cluster.apply(cluster.render({**values, "workers.replicas": 4, "report.enabled": True}))
    (report,) = cluster.of("report")
    cluster.until("the report ends", lambda: report.code is not None)
    # Whether the figures can be believed depends on what else this machine does; that there is a verdict does not.
    holds("the report has a verdict", report.code in (0, 7) and "VALID" in report.said(), report.said())
    holds("the page lies beside the run", directory.with_name(directory.name + ".html").stat().st_size > 10_000)
    idle = all(p.code is None for p in cluster.of("worker"))
    holds("workers wait for the next run", idle, [(p.name, p.code) for p in cluster.of("worker")])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vst", type=pathlib.Path, default=ROOT / "target" / "debug" / "vst", help="the program")
    parser.add_argument("--container", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.container:
        enter(json.loads(options.container))
    vst = options.vst.resolve()
    if os.geteuid() != 0:
        sys.exit("run-manifests: network namespaces and mounts need root: run it with sudo")
    for path, how in [(vst, "cargo build -p vst"), (ETCD, "make fleet-servers"), (SERVERS / "valkey-server", "make servers"),
                      (TOOLS / "helm", "scripts/fetch-helm.sh")]:
        if not path.is_file():
            sys.exit(f"run-manifests: {path} is not there: run `{how}`")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    # In memory where possible: etcd and the run's log wait for every write.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="vst-manifests-", dir=memory))
    folder.chmod(0o755)
    network = target = cluster = None
    try:
        network = Network(f"vst{os.getpid() % 100000}")
        network.start()
        target = Target(f"{network.net}.1", folder)
        target.start()
        cluster = Cluster(vst, network, folder)
        test(cluster, target)
    except Failed as e:
        say(f"FAILED: {e}")
        return 1
    finally:
        for part in (cluster, target, network):
            if part:
                part.close()
        shutil.rmtree(folder, ignore_errors=True)
    say("the manifests do a run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
