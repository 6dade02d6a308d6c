#!/bin/bash
# Try the job files on a real Slurm of one machine:  sudo scripts/slurm/try.sh
# Installs slurmctld, slurmd and munge from the distribution (Debian, Ubuntu) where they are missing, starts them with two
# small nodes on loopback, runs each job file on CPUs, requeues one in the middle, and compares the models' digests with
# that of a training in one process. Run it where lmeraser is on the PATH, with the extra 'ray'. Stops everything it started.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
command -v slurmctld munged > /dev/null || apt-get install --yes --quiet slurmctld slurmd slurm-client munge > "$work/apt.log"
export SLURM_CONF=$work/slurm.conf
cpus=$(nproc)

cat > "$SLURM_CONF" <<CONF
ClusterName=try
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=requeue_delay=1
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
NodeName=n1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=17001 CPUs=$cpus RealMemory=1000
NodeName=n2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=17002 CPUs=$cpus RealMemory=1000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
CONF

started=()
stop() { [ "$?" = 0 ] || tail -n 30 "$work"/*.out "$work"/ray-*.log || true; kill "${started[@]}" 2> /dev/null || true; wait 2> /dev/null || true; rm -rf "$work"; }
trap stop EXIT
mkdir -p "$work/state" /run/munge
chown munge: /run/munge
munge -n > /dev/null 2>&1 || { runuser -u munge -- munged --foreground --force > /dev/null 2>&1 & started+=($!); sleep 2; }
slurmctld -D > /dev/null 2>&1 & started+=($!)
for node in n1 n2; do mkdir -p "$work/spool-$node"; slurmd -D -N "$node" > /dev/null 2>&1 & started+=($!); done
until [ "$(sinfo --noheader --format=%T | sort -u)" = idle ]; do sleep 1; done
sinfo --version
sinfo

digest() { lmeraser -w "$1" status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["model_digest"])'; }
submit() { sbatch --parsable --gres=none --mem=0 --output="$work/%j.out" "$@"; }
state() { scontrol show job "$1" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
finish() { until state "$1" | grep -qE 'COMPLETED|FAILED|CANCELLED|TIMEOUT'; do sleep 1; done; cat "$work/$1.out"; echo "job $1: $(state "$1")"; }

python3 -c "from lmeraser.cli.demo import handwritten_digits as d; d()[0].select(range(400)).to_parquet('$work/digits.parquet')"
cat > "$work/settings.toml" <<TOML
[backbone]
image_size = 32
[partition]
clusters = 8
sample_size = 100
[tuning]
epochs = 4
TOML
for name in process one_gpu one_node several_nodes requeued; do
  lmeraser -w "$work/$name" init --preset prompts --config "$work/settings.toml" > /dev/null
  lmeraser -w "$work/$name" add "$work/digits.parquet" > /dev/null 2>&1
done

lmeraser -w "$work/process" train > /dev/null 2>&1
cd "$work"
finish "$(submit --cpus-per-task="$cpus" "$here/one_gpu.sbatch" -w "$work/one_gpu" train)"
finish "$(submit --cpus-per-task="$cpus" "$here/one_node.sbatch" -w "$work/one_node" train)"
finish "$(submit --cpus-per-task=1 "$here/several_nodes.sbatch" -w "$work/several_nodes" train)"
job=$(submit --cpus-per-task="$cpus" "$here/one_node.sbatch" -w "$work/requeued" train)
until [ -n "$(find "$work/requeued/artifacts" -name '*.safetensors' 2> /dev/null | sed -n 3p)" ]; do sleep 0.2; done
echo "requeued with $(find "$work/requeued/artifacts" -name '*.safetensors' | wc -l) artifacts"
scontrol requeue "$job"
sleep 5
scontrol update "jobid=$job" StartTime=now  # else it waits two minutes
finish "$job"

wanted=$(digest "$work/process")
for name in process one_gpu one_node several_nodes requeued; do
  found=$(digest "$work/$name")
  echo "$name: $found"
  [ "$found" = "$wanted" ]
done
echo "all of them gave the same model"
