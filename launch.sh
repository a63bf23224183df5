#!/usr/bin/env bash
# One command for a fresh machine:
#   ./launch.sh configs/pfnet.py:synthetic [flags]   install, prepare data, train, evaluate
#     --devices=8                                    on so many devices of this machine
#     --slurm --nodes=4 --gpus-per-node=8 [sbatch flags: --partition=gpu --time=24:00:00]
#     --tpu=NAME --zone=ZONE                         on all workers of a TPU pod slice
#     --coordinator=HOST:PORT --processes=N --process=I   anywhere; on every host its own I
#   ./launch.sh table pfnet 2a [flags]               install, run the rows of a paper's table
#   ./launch.sh test [pytest arguments]              install, check style, run the tests
#   ./launch.sh install                              only make .venv
# PYTHON picks the interpreter (3.11 or 3.12); UHRJAX_EXTRAS adds pip extras, e.g. cuda.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  sed -n '2,/^set -/s/^# \{0,1\}//p' launch.sh
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

# Prints a command line that bash reads back as it is.
quoted() {
  local line
  printf -v line '%q ' "$@"
  echo "${line% }"
}

# Writes a batch script for `config flags` and submits it: one process per node, which
# takes all of the node's devices. What sbatch knows goes to sbatch.
slurm() {
  local config="$1" nodes=1 word script name
  local -a ours=() theirs=()
  shift
  for word in "$@"; do
    case "$word" in
      --slurm) ;;
      --nodes=*) nodes="${word#*=}" ;;
      --partition=* | --time=* | --account=* | --qos=* | --gpus-per-node=* | --gres=* | \
        --constraint=* | --cpus-per-task=* | --mem=* | --reservation=* | --exclusive | \
        --nodelist=* | --exclude=* | --mail-type=* | --mail-user=* | --dependency=*)
        theirs+=("$word")
        ;;
      *) ours+=("$word") ;;
    esac
  done
  case "$nodes" in
    "" | *[!0-9]* | 0) fail "--nodes=$nodes; use a number of nodes, 1 or more" ;;
  esac
  name="$(basename "${config%%:*}" .py)"
  mkdir -p runs/slurm
  script="runs/slurm/$name-$(date +%Y%m%d-%H%M%S)-$$.sh"
  {
    echo "#!/usr/bin/env bash"
    echo "#SBATCH --job-name=uhrjax-$name"
    echo "#SBATCH --nodes=$nodes"
    echo "#SBATCH --ntasks-per-node=1"
    echo "#SBATCH --output=runs/slurm/%x-%j.log"
    # Before its time is up the run saves and ends; the same script goes on with it.
    echo "#SBATCH --signal=TERM@120"
    echo "#SBATCH --requeue"
    for word in ${theirs[@]+"${theirs[@]}"}; do echo "#SBATCH $word"; done
    echo "set -euo pipefail"
    echo "cd $(quoted "$PWD")"
    echo "export GLIBC_TUNABLES=\"\${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}\""
    echo "exec srun --kill-on-bad-exit=1 $(
      quoted .venv/bin/python -m uhrjax.main "--config=$config" ${ours[@]+"${ours[@]}"}
    )"
  } >"$script"
  echo "wrote $script"
  if command -v sbatch >/dev/null 2>&1; then
    exec sbatch "$script"
  fi
  echo "launch.sh: no sbatch here, so nothing was submitted; on the cluster's login node: sbatch $script" >&2
  exit 2
}

# Runs `config flags` on every worker of a TPU slice, in the folder of this name there.
tpu() {
  local config="$1" name="" zone="" project="" word
  local -a ours=()
  shift
  for word in "$@"; do
    case "$word" in
      --tpu=*) name="${word#*=}" ;;
      --zone=*) zone="${word#*=}" ;;
      --project=*) project="${word#*=}" ;;
      *) ours+=("$word") ;;
    esac
  done
  [ -n "$name" ] || fail "--tpu needs a name: --tpu=NAME --zone=ZONE"
  [ -n "$zone" ] || fail "--tpu=$name needs its --zone=ZONE (gcloud compute tpus tpu-vm list --zone=-)"
  local there="./launch.sh $(
    quoted "$config" --coordinator=auto ${ours[@]+"${ours[@]}"}
  )"
  local -a ssh=(
    gcloud compute tpus tpu-vm ssh "$name" "--zone=$zone" ${project:+"--project=$project"}
    --worker=all "--command=cd $(quoted "$(basename "$PWD")") && $there"
  )
  if ! command -v gcloud >/dev/null 2>&1; then
    echo "launch.sh: no gcloud here; where it is, and with this folder copied to all workers:" >&2
    quoted "${ssh[@]}" >&2
    exit 2
  fi
  echo "on all workers of $name, in ~/$(basename "$PWD") (copy it there first: gcloud compute tpus tpu-vm scp --recurse --worker=all)"
  exec "${ssh[@]}"
}

fail() {
  echo "launch.sh: $1" >&2
  exit 2
}

case "${1:-}" in
  "" | -h | --help) usage ;;
  install) install run ;;
  test)
    shift
    install test
    .venv/bin/ruff format --check .
    .venv/bin/ruff check .
    # A file's tests stay together and in order: they share what they trained.
    .venv/bin/python -m pytest -n auto --maxprocesses=4 --dist loadfile \
      --no-loadscope-reorder "$@"
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
    for word in "$@"; do
      case "$word" in
        --slurm) cluster=slurm ;;
        --tpu | --tpu=*) tpu "$config" "$@" ;;
        --nodes=*) nodes="$word" ;;
        # Nodes with GPUs are started from one without.
        --gpus-per-node=* | --gres=gpu*) export UHRJAX_EXTRAS="${UHRJAX_EXTRAS:-cuda}" ;;
      esac
    done
    [ -n "${cluster:-}" ] || [ -z "${nodes:-}" ] || fail "$nodes is for a Slurm cluster: add --slurm"
    install run
    [ -z "${cluster:-}" ] || slurm "$config" "$@"
    # Large pages for large arrays: glibc on Linux leaves them out unless asked.
    export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
    exec .venv/bin/python -m uhrjax.main --config="$config" "$@"
    ;;
esac
