// The smallest program that a kernel runs at the beginning of one of its functions: whether it does is what show.sh asks.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

unsigned long long calls;

SEC("fentry/tcp_sendmsg")
int mishap_calls(void *arguments) {
  (void)arguments;
  __sync_fetch_and_add(&calls, 1);
  return 0;
}
