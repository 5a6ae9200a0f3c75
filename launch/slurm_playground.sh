#!/usr/bin/env bash
# A real Slurm of four nodes (n1..n4) on this one machine, in a scratch folder: to try recipes under srun and sbatch, and for
# the tests. Its own munge, ports and configuration: a Slurm that the machine already has is left alone. Needs root for
# nothing but the installation (launch/setup.sh slurm).
#
#   launch/slurm_playground.sh start            about 5 s
#   launch/slurm_playground.sh run srun -N4 -n4 hostname
#   launch/slurm_playground.sh run srun -N4 -n5 --overcommit --kill-on-bad-exit tessera run RECIPE --out DIR
#   launch/slurm_playground.sh env              prints the line that makes srun, sinfo, squeue of this shell talk to it
#   launch/slurm_playground.sh status
#   launch/slurm_playground.sh stop             ends its jobs and daemons, removes the folder
#
# The folder: $TESSERA_SLURM, or /tmp/tessera-slurm-UID.
set -euo pipefail

folder=${TESSERA_SLURM:-/tmp/tessera-slurm-$EUID}
nodes=(n1 n2 n3 n4)
export SLURM_CONF=$folder/slurm.conf
PATH=$PATH:/usr/sbin

say() { printf 'slurm: %s\n' "$*"; }
die() { printf 'slurm: %s\n' "$*" >&2; exit 1; }

# A number may be another process's by now.
is_daemon() { [[ $(cat "/proc/$1/comm" 2>/dev/null) =~ ^(munged|slurmd|slurmctld) ]]; }
alive() { [[ -s $1 ]] && is_daemon "$(<"$1")"; }
running() { alive "$folder/slurmctld.pid"; }

# Five ports in a row that nobody listens on.
free_ports() {
  local base port
  for ((base = 17000 + (EUID % 100) * 10; base < 30000; base += 10)); do
    for ((port = base; port < base + 5; ++port)); do
      if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
    done
    echo "$base"
    return
  done
  die "no free ports between 17000 and 30000"
}

write_configuration() {
  local host user base
  host=$(hostname -s)
  user=$(id -un)
  base=$(free_ports)
  # TmpFS with %n: without it the PMIx folders of the four nodes collide and every step fails.
  cat >"$SLURM_CONF" <<EOF
ClusterName=tessera
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
MpiDefault=pmix
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
CommunicationParameters=NoInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdLogFile=$folder/log/%n.log
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
TmpFS=$folder/tmp-%n
KillWait=2
NodeName=n[1-4] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((base + 1))-$((base + 4))] CPUs=4 RealMemory=1000 State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
EOF
}

start_munge() {
  (umask 077; head -c 1024 /dev/urandom >"$folder/munge.key")
  chmod 400 "$folder/munge.key"
  munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed" ||
    die "munged did not start; see $folder/log/munged.log"
}

# A node can be idle and yet lose its first step, which then waits for ever.
job_runs() { timeout --kill-after=2 10 srun --quiet --nodes="${#nodes[@]}" --ntasks="${#nodes[@]}" --time=1 true >>"$folder/log/probe.out" 2>&1; }

nodes_idle() { [[ $(sinfo --noheader --Node --format=%T 2>/dev/null | grep -c '^idle$') == "${#nodes[@]}" ]]; }

wait_for() {  # seconds, command...
  local tries=$(($1 * 10))
  shift
  until "$@"; do
    ((tries-- > 0)) || return 1
    sleep 0.1
  done
}

start() {
  local node program
  for program in munged slurmctld slurmd srun; do
    command -v "$program" >/dev/null || die "$program is missing. Run: launch/setup.sh slurm"
  done
  if running; then
    say "already running in $folder"
    return
  fi
  [[ ! -e $folder ]] || stop
  mkdir -m 755 "$folder" || die "cannot make $folder; choose another with TESSERA_SLURM"
  mkdir -p "$folder"/{log,state,spool}
  for node in "${nodes[@]}"; do mkdir -p "$folder/spool/$node" "$folder/tmp-$node"; done
  write_configuration
  start_munge
  # Daemons keep nothing of this script open, so that whoever waits for its output is not kept waiting.
  slurmctld </dev/null >"$folder/log/slurmctld.out" 2>&1 || die "slurmctld did not start; see $folder/log"
  for node in "${nodes[@]}"; do
    slurmd -N "$node" </dev/null >"$folder/log/$node.out" 2>&1 || die "slurmd of $node did not start; see $folder/log"
  done
  if ! wait_for 30 nodes_idle; then
    tail -n 5 "$folder"/log/*.log >&2
    die "the nodes did not become idle in 30 s; logs: $folder/log; to clean up: $0 stop"
  fi
  job_runs || job_runs || die "a job over all nodes did not end in 10 s; logs: $folder/log; to clean up: $0 stop"
  say "four nodes are idle, partition p; logs in $folder/log"
  say "try: $0 run srun -N4 -n4 hostname"
}

none_left() {  # pids
  local pid
  for pid in "$@"; do ! is_daemon "$pid" || return 1; done
}
end_daemons() {  # pid files: all are told at once, since a slurmd takes seconds
  local file pid pids=()
  for file in "$@"; do ! alive "$file" || pids+=("$(<"$file")"); done  # they remove their files first and end later
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait_for 10 none_left "${pids[@]}" && return
  for pid in "${pids[@]}"; do ! is_daemon "$pid" || kill -KILL "$pid" 2>/dev/null || true; done
}

no_jobs() { [[ -z $(squeue --noheader 2>/dev/null) ]]; }

stop() {
  local node
  [[ -e $folder ]] || { say "nothing in $folder"; return; }
  [[ -e $SLURM_CONF ]] || die "$folder is no playground of this script; not touched"
  if running && ! no_jobs; then
    timeout 5 scancel --user="$(id -un)" >/dev/null 2>&1 || true
    wait_for 8 no_jobs || true
  fi
  local files=("$folder/slurmctld.pid")
  for node in "${nodes[@]}"; do files+=("$folder/slurmd-$node.pid"); done
  end_daemons "${files[@]}"
  end_daemons "$folder/munged.pid"
  rm -rf "$folder"
  say "stopped, $folder removed"
}

case ${1:-} in
  start) start ;;
  stop) stop ;;
  status)
    running || { say "not running"; exit 1; }
    sinfo --Node --long
    squeue
    ;;
  env) running || die "not running"; echo "export SLURM_CONF=$SLURM_CONF" ;;
  run)
    shift
    running || die "not running; first: $0 start"
    (($# > 0)) || die "run what? For example: $0 run srun -N4 -n4 hostname"
    exec "$@"
    ;;
  *)
    sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"
    [[ ${1:-} == -h || ${1:-} == --help ]] || exit 2
    ;;
esac
