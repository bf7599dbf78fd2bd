#!/usr/bin/env python3
"""Whether the Helm chart, docker-compose.yaml and the Dockerfile fit Kubernetes and the command line of `vst`.

Renders the chart with its default values and with every file in helm/vst/ci, and holds each manifest against the
schemas of Kubernetes, against the laws below, and against the real program: every command line is parsed by the `vst`
that was built, so that chart and program cannot drift apart. Nothing is started and nothing is reached.

    scripts/check-helm.py --vst target/debug/vst

Law: a fault is a line that names the case, the object and what is wrong; all faults are told, not only the first.
"""

import argparse
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".local" / "helm"
CHART = ROOT / "helm" / "vst"
sys.path.insert(0, str(TOOLS / "python"))

import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402

KUBERNETES = "1.33"
PROGRAM = "/usr/local/bin/vst"
IN_IMAGE = "/usr/share/vst"
# Objects that are not Kubernetes' own have no schema there.
FOREIGN = {"ServiceMonitor"}
# No command of a fleet goes on with this, and each looks at it as soon as its command line is understood.
UNSENDABLE = {"VST_TOKEN": "cannot be sent"}
# What a manifest may name without making it: Secrets, claims and accounts of the user.
USERS_OWN = {
    "valkey-loader", "vst-token", "vst-tls", "etcd-login", "s3-access", "soak-results", "vectors", "registry",
}

# Values that must be refused, and a word of the reason.
REFUSED = [
    (["workers.repicas=3"], "repicas"),
    (["workers.replicas=0"], "replicas"),
    (["workers.cpu=1.5"], "whole CPUs"),
    (["coordinator.waitForWorkers=3"], "would never begin"),
    (["coordinator.kind=Deployment"], "kind"),
    (["coordinator.run=Not_A_Name"], "run"),
    (["target.url=redis://valkey:6379"], "url"),
    (["target.url=valkey://me:secret@valkey:6379"], "holds a password"),
    (["target.password=a", "target.existingSecret=b"], "exclude each other"),
    (["auth.token=a", "auth.existingSecret=b"], "exclude each other"),
    (["auth.token=two words"], "token"),
    (["etcd.endpoints={http://etcd:2379}"], "exclude each other"),
    (["coordinator.replicas=2"], "ReadWriteMany"),
    (["results.url=/a/folder"], "url"),
    (["image.fleet.tag=latest"], "tag"),
    (["podSecurityContext.runAsUser=0"], "runAsUser"),
    (["scenario.files.Grow=x"], "Grow"),
    (["networkPolicy.egres=[]"], "egres"),
]


class Faults:
    def __init__(self):
        self.lines, self.looked_at = [], 0

    def want(self, holds, case, thing, what):
        self.looked_at += 1
        if not holds:
            self.lines.append(f"{case}: {thing}: {what}")
        return bool(holds)


def title(manifest):
    return f"{manifest.get('kind')}/{(manifest.get('metadata') or {}).get('name')}"


def helm(*arguments):
    return subprocess.run([TOOLS / "helm", *map(str, arguments)], capture_output=True, text=True)


def rendered(case, values, faults, *options):
    """The manifests of a case; none where the chart does not render."""
    files = ["--values", values] if values else []
    lint = helm("lint", "--strict", "--quiet", *files, *options, CHART)
    faults.want(lint.returncode == 0, case, "helm lint", (lint.stdout + lint.stderr).strip())
    out = helm("template", "load", CHART, "--namespace", "stress", "--kube-version", KUBERNETES, *files, *options)
    if not faults.want(out.returncode == 0, case, "helm template", out.stderr.strip()):
        return []
    return [m for m in yaml.safe_load_all(out.stdout) if m]


def pod_of(manifest):
    """Metadata and spec of the pods that a manifest makes."""
    spec = manifest.get("spec") or {}
    if manifest["kind"] == "Pod":
        return manifest["metadata"], spec
    if "template" in spec:
        return spec["template"].get("metadata", {}), spec["template"]["spec"]
    return None


def containers_of(pod):
    return [*pod.get("initContainers", []), *pod["containers"]]


def fits_schema(case, manifest, faults):
    if manifest["kind"] in FOREIGN:
        return
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as e:
        faults.want(False, case, title(manifest), f"{getattr(e, 'message', e)}")
    else:
        faults.want(True, case, title(manifest), "")


def is_hardened(case, manifest, pod, faults):
    name = title(manifest)
    context = pod.get("securityContext", {})
    faults.want(pod.get("automountServiceAccountToken") is False, case, name, "mounts a service account's token")
    faults.want(pod.get("enableServiceLinks") is False, case, name, "services may set variables that begin with VST_")
    faults.want(context.get("runAsNonRoot") is True, case, name, "may run as root")
    faults.want(context.get("seccompProfile") == {"type": "RuntimeDefault"}, case, name, "has no seccomp profile")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        faults.want(not pod.get(key), case, name, f"has {key}")
    for container in containers_of(pod):
        own = f"{name} {container['name']}"
        context = container.get("securityContext", {})
        faults.want(context.get("readOnlyRootFilesystem") is True, case, own, "can write to its root")
        faults.want(context.get("allowPrivilegeEscalation") is False, case, own, "can gain privileges")
        faults.want(context.get("capabilities") == {"drop": ["ALL"]}, case, own, "keeps capabilities")
        image = container["image"]
        faults.want("@sha256:" in image or re.search(r":[\w][\w.-]*$", image), case, own, f"`{image}` has no version")
        resources = container.get("resources", {})
        faults.want("memory" in resources.get("limits", {}), case, own, "has no limit of memory")
        faults.want({"cpu", "memory"} <= resources.get("requests", {}).keys(), case, own, "requests nothing")


def is_guaranteed(pod):
    for container in containers_of(pod):
        resources = container.get("resources", {})
        if resources.get("requests") != resources.get("limits"):
            return False
        if not re.fullmatch(r"[1-9][0-9]*", str(resources["requests"]["cpu"])):
            return False
    return True


def matches(selector, labels):
    return all(labels.get(key) == value for key, value in selector.items())


def names_hold(case, manifests, faults):
    """Every name in a manifest means something: volumes, ports, Secrets, ConfigMaps, claims, accounts, selectors."""
    made = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    pods = [(m, *pod_of(m)) for m in manifests if pod_of(m)]

    def known(kind, name):
        return (kind, name) in made or name in USERS_OWN

    for manifest, _, pod in pods:
        name = title(manifest)
        account = pod.get("serviceAccountName")
        faults.want(known("ServiceAccount", account), case, name, f"nobody makes the service account {account}")
        volumes = {v["name"]: v for v in pod.get("volumes", [])}
        used = set()
        for container in containers_of(pod):
            own = f"{name} {container['name']}"
            for mount in container.get("volumeMounts", []):
                used.add(mount["name"])
                faults.want(mount["name"] in volumes, case, own, f"mounts {mount['name']}, which is no volume")
            paths = [m["mountPath"] for m in container.get("volumeMounts", [])]
            faults.want(len(paths) == len(set(paths)), case, own, "mounts two volumes at one place")
            ports = {p["name"] for p in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    port = container[probe]["httpGet"]["port"]
                    faults.want(port in ports, case, own, f"{probe} asks port {port}, which it has not")
            sources = [e.get("valueFrom", {}).get("secretKeyRef") for e in container.get("env", [])]
            sources += [e.get("secretRef") for e in container.get("envFrom", [])]
            for source in filter(None, sources):
                faults.want(known("Secret", source["name"]), case, own, f"nobody makes the Secret {source['name']}")
                held = next((m for m in manifests if title(m) == f"Secret/{source['name']}"), None)
                if held and "key" in source:
                    faults.want(source["key"] in held["data"], case, own, f"the Secret has no key {source['key']}")
            seen = [e["name"] for e in container.get("env", [])]
            faults.want(len(seen) == len(set(seen)), case, own, "sets a variable twice")
        faults.want(used == volumes.keys(), case, name, f"volumes that nobody mounts: {volumes.keys() - used}")
        for volume in volumes.values():
            for kind, source, key in [("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName"),
                                      ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName")]:
                if source in volume:
                    who = volume[source][key]
                    faults.want(known(kind, who), case, name, f"nobody makes the {kind} {who}")

    def chosen(selector):
        return [pod for _, metadata, pod in pods if matches(selector, metadata.get("labels", {}))]

    def ports_of(found):
        return {p["name"] for pod in found for c in containers_of(pod) for p in c.get("ports", [])}

    for manifest in manifests:
        name, spec = title(manifest), manifest.get("spec") or {}
        kind = manifest["kind"]
        if kind == "Service":
            found = chosen(spec["selector"])
            faults.want(len(found) == 1, case, name, f"selects {len(found)} of the chart's workloads, not one")
            for port in spec["ports"]:
                target = port["targetPort"]
                faults.want(target in ports_of(found), case, name, f"no container has the port {target}")
        if kind in ("StatefulSet", "PodDisruptionBudget"):
            found = chosen(spec["selector"]["matchLabels"])
            faults.want(len(found) == 1, case, name, f"selects {len(found)} of the chart's workloads, not one")
        if kind == "StatefulSet":
            faults.want(("Service", spec["serviceName"]) in made, case, name, "has no Service")
        if kind == "NetworkPolicy":
            found = chosen(spec["podSelector"]["matchLabels"])
            faults.want(len(found) == 1, case, name, f"selects {len(found)} of the chart's workloads, not one")
            for rule in spec.get("ingress", []):
                for port in rule.get("ports", []):
                    faults.want(port["port"] in ports_of(found), case, name, f"no container has {port['port']}")
        if kind == "ServiceMonitor":
            found = [m for m in manifests if m["kind"] == "Service"
                     and matches(spec["selector"]["matchLabels"], m["metadata"]["labels"])
                     and m["metadata"]["labels"]["app.kubernetes.io/component"]
                     in spec["selector"]["matchExpressions"][0]["values"]]
            faults.want(len(found) == 2, case, name, f"finds {len(found)} services, not coordinator and workers")
            for service in found:
                ports = {p["name"] for p in service["spec"]["ports"]}
                wanted = {e["port"] for e in spec["endpoints"]}
                faults.want(wanted <= ports, case, name, f"{title(service)} has no port {wanted - ports}")


def secrets_stay(case, manifests, faults):
    """What is secret stands in Secrets and nowhere else."""
    import base64

    hidden = {base64.b64decode(v).decode() for m in manifests if m["kind"] == "Secret" for v in m["data"].values()}
    for manifest in manifests:
        if manifest["kind"] != "Secret":
            text = json.dumps(manifest)
            faults.want(not any(secret in text for secret in hidden), case, title(manifest), "shows a secret")


def policies_cover(case, manifests, faults):
    """With policies every workload of the chart but the test has one."""
    policies = [m["spec"]["podSelector"]["matchLabels"] for m in manifests if m["kind"] == "NetworkPolicy"]
    if not policies:
        return
    for manifest in manifests:
        pod = pod_of(manifest)
        if pod and manifest["kind"] != "Pod":
            covered = any(matches(selector, pod[0]["labels"]) for selector in policies)
            faults.want(covered, case, title(manifest), "has no NetworkPolicy")


def environment_of(container, pod_name):
    """What the container's process would see, as far as a manifest says it; secrets have a value of their own."""
    fields = {"metadata.name": pod_name, "status.podIP": "127.0.0.1"}
    seen = {}
    for entry in container.get("env", []):
        source = entry.get("valueFrom", {})
        if "fieldRef" in source:
            seen[entry["name"]] = fields[source["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in source:
            seen[entry["name"]] = "secret"
        else:
            seen[entry["name"]] = entry.get("value", "")
    return seen


def expanded(text, seen):
    """$(NAME) as the kubelet replaces it: what is not known stays."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda m: seen.get(m[1], m[0]), text)


def is_understood(case, thing, vst, arguments, faults):
    """The program takes the command line: its options and values by --help, the whole by what it says next."""
    shown = f"`vst {' '.join(arguments)}`"
    help_ = run(vst, [*arguments, "--help"], {})
    if not faults.want(help_.returncode == 0, case, thing, f"{shown}: {help_.stderr.strip()}"):
        return
    if arguments[0] in ("coordinator", "worker", "info"):
        asked = run(vst, arguments, {name: "two words" for name in UNSENDABLE})
        word = UNSENDABLE["VST_TOKEN"]
        faults.want(word in asked.stderr, case, thing, f"{shown}: {asked.stderr.strip()}")


def run(program, arguments, variables):
    return once(str(program), tuple(arguments), tuple(variables.items()))


@functools.cache
def once(program, arguments, variables):
    """Cases share most of their command lines."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("VST_")}
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, cwd=folder,
                              env={**clean, **dict(variables)})


def commands_hold(case, manifests, vst, faults):
    for manifest in manifests:
        pod = pod_of(manifest)
        if not pod:
            continue
        for container in containers_of(pod[1]):
            thing = f"{title(manifest)} {container['name']}"
            if container["command"] != [PROGRAM]:
                faults.want(container["command"] == ["etcd"], case, thing, f"starts {container['command']}")
                continue
            seen = environment_of(container, f"{manifest['metadata']['name']}-0")
            arguments = [expanded(a, seen) for a in container["args"]]
            faults.want(not any("$(" in a for a in arguments), case, thing, "names a variable that it has not")
            is_understood(case, thing, vst, arguments, faults)
            files_are_mounted(case, thing, container, arguments, manifests, faults)


def files_are_mounted(case, thing, container, arguments, manifests, faults):
    """Paths on the command line lie in the image or on a volume, and what is written lies on one that is writable."""
    mounts = {m["mountPath"]: m.get("readOnly", False) for m in container.get("volumeMounts", [])}
    given = dict(zip(arguments, arguments[1:]))
    scenario = given.get("--scenario")
    if scenario and scenario.startswith(IN_IMAGE):
        here = ROOT / pathlib.PurePosixPath(scenario).relative_to(IN_IMAGE)
        faults.want(here.is_file(), case, thing, f"the image has no {scenario}")
    elif scenario:
        maps = [m["data"] for m in manifests if m["kind"] == "ConfigMap"]
        folder, name = os.path.split(scenario)
        faults.want(folder in mounts and any(name in data for data in maps), case, thing, f"nobody mounts {scenario}")
    for option in ("--results", "--output"):
        path = given.get(option)
        if path and "://" not in path:
            places = [m for m in mounts if path == m or path.startswith(m + "/")]
            faults.want(places and not mounts[max(places, key=len)], case, thing, f"cannot write {path}")


def scenarios_hold(case, manifests, vst, faults):
    """Scenarios of the ConfigMap are valid, as far as their data are in this repository."""
    for manifest in manifests:
        if manifest["kind"] != "ConfigMap" or not manifest["metadata"]["name"].endswith("-scenarios"):
            continue
        for name, text in manifest["data"].items():
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / name
                path.write_text(text.replace(IN_IMAGE, str(ROOT)))
                said = run(vst, ["validate", "scenario", str(path)], {})
            # A data set on a volume is not here; everything else about such a file must hold.
            others = [line for line in re.findall(r"^  × (.*)$", said.stderr, re.M)
                      if "does not exist" not in line and not re.search(r" has (a|\d+) faults?$", line)]
            elsewhere = "file:///data/" in said.stderr and not others
            faults.want(said.returncode == 0 or elsewhere, case, f"{title(manifest)} {name}", said.stderr.strip())


def metric_names():
    """Names of the metrics that the program's sources give out."""
    names = set()
    for folder in ("coordinator", "worker", "http"):
        for source in sorted((ROOT / folder / "src").rglob("*.rs")) if (ROOT / folder).is_dir() else []:
            text = source.read_text().split("#[cfg(test)]")[0]
            names |= set(re.findall(r'"((?:vst|process)_[a-z_]+)"', text))
    return names


def dashboard_holds(faults):
    case, thing = "dashboard", "files/dashboard.json"
    board = json.loads((CHART / "files" / "dashboard.json").read_text())
    known = metric_names()
    panels = board["panels"]
    faults.want(len({p["id"] for p in panels}) == len(panels), case, thing, "panels share a number")
    cells = {}
    for panel in panels:
        place = panel["gridPos"]
        faults.want(place["x"] + place["w"] <= 24, case, thing, f"`{panel['title']}` is wider than the board")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                other = cells.setdefault((x, y), panel["title"])
                if other != panel["title"]:
                    faults.want(False, case, thing, f"`{panel['title']}` lies over `{other}`")
    used = set()
    texts = [t["expr"] for p in panels for t in p.get("targets", [])]
    texts += [v["query"]["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    texts += [a["expr"] for a in board["annotations"]["list"]]
    for text in texts:
        used |= set(re.findall(r"\b(?:vst|process)_[a-z_]+", text))
    for name in sorted(used):
        faults.want(name in known, case, thing, f"no part of vst gives out {name}")


def compose_holds(vst, faults):
    case = "docker-compose.yaml"
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            faults.want(other in services, case, name, f"waits for {other}, which is no service")
            faults.want("healthcheck" in services.get(other, {}), case, name, f"{other} has no health check")
        target = service.get("build", {}).get("target")
        faults.want(not target or target in targets, case, name, f"the Dockerfile has no stage {target}")
        if service["image"].split(":")[0] in ("vst", "vst-fleet"):
            given = [re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", word) for word in service["command"]]
            is_understood(case, name, vst, [w for w in given if w != "--help"], faults) if "--help" not in given else None
            faults.want(service.get("read_only") and service.get("cap_drop") == ["ALL"], case, name, "is not hardened")
            written = {m.split(":")[1] for m in service.get("volumes", [])}
            results = dict(zip(given, given[1:])).get("--results")
            faults.want(not results or results in written, case, name, f"cannot write {results}")


def images_hold(faults):
    """The builder is sent every package of the workspace, and the images end without a shell."""
    case = "Dockerfile"
    text = (ROOT / "Dockerfile").read_text()
    members = re.search(r"^members = \[(.*?)\]", (ROOT / "Cargo.toml").read_text(), re.M | re.S)[1]
    sent = set((ROOT / ".dockerignore").read_text().split())
    for folder in [*re.findall(r'"([^"]+)"', members), "scenarios", "data", "Cargo.lock"]:
        faults.want(f"!{folder}" in sent, case, ".dockerignore", f"keeps {folder} from the builder")
    version = re.search(r'^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    faults.want(chart["appVersion"] == version, case, "Chart.yaml", f"appVersion is not {version}, that of vst")
    based = {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", text, re.M)}
    for image in ("fleet", "vst"):
        faults.want(based.get(image) == "base", case, image, "is not made from the base without a shell")
    faults.want("distroless" in based.get("base", ""), case, "base", "has a shell")
    after = text.split(" AS base")[1]
    faults.want("\nRUN " not in after, case, "base", "runs something that it does not have")
    faults.want(PROGRAM in after, case, "base", f"has no {PROGRAM}")


def refuses(faults):
    for sets, word in REFUSED:
        options = [part for pair in sets for part in ("--set", pair)]
        out = helm("template", "load", CHART, *options)
        shown = " ".join(sets)
        refused = out.returncode != 0 and word in out.stderr
        faults.want(refused, "refused values", shown, f"is not refused for `{word}`: {out.stderr.strip()}")
        faults.want("secret@" not in out.stderr, "refused values", shown, "the message shows a password")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vst", type=pathlib.Path, default=ROOT / "target" / "debug" / "vst",
                        help="the program that must understand the commands")
    vst = parser.parse_args().vst.resolve()
    if not vst.is_file():
        sys.exit(f"check-helm: {vst} is not there: run `cargo build -p vst`, or name one with --vst")
    faults = Faults()
    cases = [("default values", None), *((f"ci/{f.name}", f) for f in sorted((CHART / "ci").glob("*.yaml")))]
    faults.want(len(cases) > 6, "ci", "helm/vst/ci", "has fewer than six value files")
    count, guaranteed = 0, 0
    for case, values in cases:
        manifests = rendered(case, values, faults)
        count += len(manifests)
        for manifest in manifests:
            fits_schema(case, manifest, faults)
            pod = pod_of(manifest)
            if pod:
                is_hardened(case, manifest, pod[1], faults)
                if manifest["metadata"]["name"].endswith("-worker") and is_guaranteed(pod[1]):
                    guaranteed += 1
        names_hold(case, manifests, faults)
        secrets_stay(case, manifests, faults)
        policies_cover(case, manifests, faults)
        commands_hold(case, manifests, vst, faults)
        scenarios_hold(case, manifests, vst, faults)
    faults.want(guaranteed >= 2, "ci", "workers", "no case has QoS Guaranteed")
    refuses(faults)
    dashboard_holds(faults)
    compose_holds(vst, faults)
    images_hold(faults)
    for line in faults.lines:
        print(line, file=sys.stderr)
    failed = len(faults.lines)
    print(f"{len(cases)} cases, {count} manifests: {faults.looked_at - failed} checks hold, {failed} do not")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
