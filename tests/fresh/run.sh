#!/usr/bin/env bash
# run.sh [--suite trixie|bookworm] [--at FOLDER] [--keep] COMMAND...: a command in a fresh clone of this checkout's last
# commit, on a Debian that has what the README asks for and nothing else: python3, pip, make and git.
#
#   tests/fresh/run.sh make demo
#   tests/fresh/run.sh --suite bookworm make test       # Python 3.11 instead of 3.13
#   tests/fresh/run.sh --keep bash                      # go on in the clone that the last --keep left, and leave it
#
# It needs root and debootstrap. The Debian is made once, below FOLDER (/var/cache/maskstream-fresh), and copied for each
# run; a run's copy, its processes and its mounts end with it. What pip has downloaded is kept beside it. This
# machine's names, proxies, certificates, package index and mirror are handed in, since no network may be without them;
# its local builds (pip's find-links, constraints) are not. The exit code is the command's, or 77 if none can be run here.
set -euo pipefail

suite=trixie at=/var/cache/maskstream-fresh keep=
usage() { echo "usage: run.sh [--suite trixie|bookworm] [--at FOLDER] [--keep] COMMAND..." >&2; exit 2; }
while [[ ${1:-} == --* ]]; do
  case $1 in
    --suite) suite=${2:-}; shift 2 || usage ;;
    --at) at=${2:-}; shift 2 || usage ;;
    --keep) keep=1; shift ;;
    *) usage ;;
  esac
done
[[ $# -gt 0 && ($suite == trixie || $suite == bookworm) ]] || usage

cannot() { echo "not run in a fresh Debian: $*" >&2; exit 77; }
export PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || cannot "only root can chroot"
command -v debootstrap >/dev/null || cannot "debootstrap is not installed (apt-get install debootstrap)"
unshare --mount --pid --fork --kill-child true 2>/dev/null || cannot "this machine lets nobody mount (unshare --mount --pid)"

checkout=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
[ -z "$(git -C "$checkout" status --porcelain)" ] || echo "what is not committed is not in the clone" >&2
mkdir -p "$at/pip"
exec 9>"$at/$suite.lock"
flock --nonblock 9 || { echo "waiting for another run in $at/$suite"; flock 9; }

base=$at/$suite run=$at/$suite.run
if [ ! -d "$base" ]; then
  echo "making a minimal Debian ($suite) in $base"
  rm -rf "$base.new"
  # shellcheck disable=SC2016  # apt-get expands it
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1)
  debootstrap --variant=minbase --include=ca-certificates,git,make,python3,python3-pip "$suite" "$base.new" \
    "${mirror:-http://deb.debian.org/debian}" >"$at/$suite.log" 2>&1 || { tail -n 5 "$at/$suite.log" >&2; cannot "debootstrap failed"; }
  mv "$base.new" "$base"
fi

[ -n "$keep" ] || rm -rf "$run"
if [ ! -d "$run" ]; then
  rm -rf "$run.new"
  cp -a "$base" "$run.new"
  git clone --quiet "$checkout" "$run.new/root/maskstream"
  mv "$run.new" "$run"
else
  git -C "$run/root/maskstream" fetch --quiet "$checkout" HEAD
  git -C "$run/root/maskstream" checkout --quiet --detach FETCH_HEAD
fi

# The way to the network, as this machine has it.
cp /etc/resolv.conf /etc/hosts "$run/etc/"
bundle=/etc/ssl/certs/ca-certificates.crt
cp "${SSL_CERT_FILE:-$bundle}" "$run$bundle"
apt-config dump | grep -E '^Acquire::(http|https|Check)' >"$run/etc/apt/apt.conf.d/90machine" || true
{ echo "[global]"
  python3 -m pip config list 2>/dev/null | sed -n "s/^\(global\|:env:\)\.\(index-url\|extra-index-url\|proxy\|trusted-host\|default-timeout\|timeout\)='\(.*\)'$/\2 = \3/p"
} >"$run/etc/pip.conf"
kept=(HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "TERM=${TERM:-dumb}")
kept+=("SSL_CERT_FILE=$bundle" "PIP_CERT=$bundle" "REQUESTS_CA_BUNDLE=$bundle")
while read -r name; do kept+=("$name=${!name}"); done < <(compgen -e | grep -iE '^((http|https|ftp|no|all)_proxy)$' || true)

# shellcheck disable=SC2016  # the inner shell expands it
env -i "${kept[@]}" unshare --mount --pid --fork --kill-child bash -euo pipefail -c '
  run=$1 pip=$2; shift 2
  mount -t proc proc "$run/proc"
  mount --rbind /sys "$run/sys"
  mount --rbind /dev "$run/dev"
  mkdir -p "$run/root/.cache/pip" "$run/tmp"
  mount --bind "$pip" "$run/root/.cache/pip"
  TIMEFORMAT="in a fresh Debian: wall %0R s, CPU %0U s and %0S s of the system"
  time chroot "$run" bash -c "cd /root/maskstream && exec \"\$@\"" run "$@"
' run "$run" "$at/pip" "$@" 9>&- && code=0 || code=$?
[ -n "$keep" ] || rm -rf "$run"
exit "$code"
