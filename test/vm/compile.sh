#!/bin/bash
# Compiles what the machine is shown and measured with, into the folder that is its argument.
set -e
here=$(cd "$(dirname "$0")" && pwd)
clang-14 -O2 -g -target bpf -mcpu=v3 -I"/usr/include/$(uname -m)-linux-gnu" -c "$here/fentry.bpf.c" -o "$1/fentry.bpf.o"
gcc -std=gnu17 -O2 -Wall -Wextra -Werror -o "$1/fentry" "$here/fentry.c" -lbpf
gcc -std=gnu17 -O2 -Wall -Wextra -Werror -pthread -o "$1/relay" "$here/../bench/relay.c"
