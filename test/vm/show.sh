#!/bin/bash
# Shows whether this kernel has what Debian's has and many containers' have not: BPF programs at the beginning of functions
# (fentry), and the queues netem and fq. Each is tried, and gone afterwards; a line each, and 1 where one is not available.
# Needs root, iproute2, and what compiles fentry.c and fentry.bpf.c, which compile.sh does, or their folder as its argument.
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
compiled=$1
if [ -z "$compiled" ]; then
  compiled=$scratch
  "$here/compile.sh" "$compiled" || exit
fi
failed=0

tell() { # NAME COMMAND…
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "$name: available${said:+: $said}"
  else
    echo "$name: not available: ${said//$'\n'/; }"
    failed=1
  fi
}
# In a network namespace that goes with the command.
queue() { unshare --net sh -c 'ip link set lo up && tc qdisc add dev lo root "$@"' sh "$@"; }

echo "kernel: $(uname -r)"
tell fentry "$compiled/fentry" "$compiled/fentry.bpf.o"
tell netem queue netem delay 20ms
tell fq queue fq
exit $failed
