#!/usr/bin/env bash
# Installs the servers that are not on PyPI: azurite with npm into VENV/services, and as root nginx, Slurm and a browser
# with apt.
# What cannot be installed is named; its tests are then skipped.
set -euo pipefail
venv=${1:?the virtual environment}

need=()
command -v npm >/dev/null || need+=(npm)
PATH=$PATH:/usr/sbin:/sbin
command -v nginx >/dev/null || need+=(nginx-light)
command -v slurmctld >/dev/null || need+=(slurmctld)
command -v slurmd >/dev/null || need+=(slurmd)
command -v sbatch >/dev/null || need+=(slurm-client)
command -v munged >/dev/null || need+=(munge)
command -v ip >/dev/null || need+=(iproute2)
command -v chromium >/dev/null || command -v google-chrome >/dev/null || need+=(chromium)
if [ ${#need[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # Only the programs: the system's own services are left off.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    (apt-get update -qq && apt-get install -y -qq --no-install-recommends "${need[@]}") >"$venv/services.log" 2>&1 ||
      { tail -n 5 "$venv/services.log" >&2; echo "could not install ${need[*]}" >&2; }
  else
    echo "not installed, so some tests will be skipped: ${need[*]} (apt-get install ${need[*]}, as root)" >&2
  fi
fi
if command -v npm >/dev/null; then
  npm install --silent --no-fund --no-audit --prefix "$venv/services" azurite@3 ||
    echo "could not install azurite with npm" >&2
fi
