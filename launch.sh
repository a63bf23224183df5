#!/usr/bin/env bash
# One command for a fresh machine:
#   ./launch.sh configs/pfnet.py:synthetic [flags]   install, prepare data, train, evaluate
#   ./launch.sh table pfnet 2a [flags]               install, run the rows of a paper's table
#   ./launch.sh test [pytest arguments]              install, check style, run the tests
#   ./launch.sh install                              only make .venv
# PYTHON picks the interpreter (3.11 or 3.12); UHRJAX_EXTRAS adds pip extras, e.g. cuda.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  sed -n '2,7s/^# \{0,1\}//p' launch.sh
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.12 python3.11 python3 python}; do
    if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info[:2] < (3, 11))' \
        >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  echo "launch.sh: no Python 3.11 or newer found; install one, or name it: PYTHON=... ./launch.sh" >&2
  exit 2
}

extras() {
  local list="geo"
  [ "$1" = test ] && list="$list,test"
  if [ -n "${UHRJAX_EXTRAS:-}" ]; then
    list="$list,$UHRJAX_EXTRAS"
  elif command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then
    list="$list,cuda"
  elif [ -e /dev/accel0 ] || [ -e /dev/vfio/0 ]; then
    list="$list,tpu"
  fi
  echo "$list"
}

install() {
  local want stamp=.venv/uhrjax-installed
  want="$(extras "$1") $(cksum <pyproject.toml)"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
    return
  fi
  [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
  echo "installing uhrjax[$(extras "$1")] into .venv"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$(extras "$1")]"
  echo "$want" >"$stamp"
}

case "${1:-}" in
  "" | -h | --help) usage ;;
  install) install run ;;
  test)
    shift
    install test
    .venv/bin/ruff format --check .
    .venv/bin/ruff check .
    .venv/bin/python -m pytest "$@"
    ;;
  table)
    shift
    install run
    export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
    exec .venv/bin/python -m uhrjax.tables "$@" --run
    ;;
  -*)
    echo "launch.sh: the config comes first, e.g. ./launch.sh configs/pfnet.py:synthetic $*" >&2
    exit 2
    ;;
  *)
    config="$1"
    shift
    install run
    # Large pages for large arrays: glibc on Linux leaves them out unless asked.
    export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
    exec .venv/bin/python -m uhrjax.main --config="$config" "$@"
    ;;
esac
