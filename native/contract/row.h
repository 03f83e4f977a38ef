// A policy in the contract's fixed-size form. Only the engine and the addon include this file: the
// interceptor holds no policy logic, and a test checks its includes.
#pragma once

#include "fields.h"

namespace mishap {

#define MISHAP_ROW_DIRECTION(FIELD, ARRAY)                                                       \
  FIELD(u64, latency_ns, "one way")                                                              \
  FIELD(u64, jitter_ns, "half width (uniform) or standard deviation (normal, pareto)")           \
  FIELD(u64, rate_bps, "bits a second; 0 no limit")                                              \
  FIELD(u64, rate_burst_bytes, "what the line takes at once after being idle")                   \
  FIELD(u32, loss_ppm, "random loss, parts per million")                                         \
  FIELD(u32, burst_length, "consecutive losses once one happens; 0 or 1 none")                   \
  FIELD(u32, only_mask, "bits of Fault asked for in this direction only")                        \
  FIELD(u32, reserved, "zero")
MISHAP_STRUCT(RowDirection, 48, "What holds in one direction: the common field, or its override.", MISHAP_ROW_DIRECTION)

#define MISHAP_ROW(FIELD, ARRAY)                                                                 \
  FIELD(u32, seq, "sequence lock: odd while written; 0 never written")                           \
  FIELD(u32, faults, "bits of Fault: what this policy asks for at all")                          \
  FIELD(u64, holder, "process that holds this slot: pid << 32 | low half of its start time; 0 nobody") \
  ARRAY(char, name, 64, "policy name, NUL-terminated, cut to fit")                               \
  FIELD(u64, seed, "of every draw")                                                              \
  FIELD(RowDirection, up, "uplink")                                                              \
  FIELD(RowDirection, down, "downlink")                                                          \
  FIELD(u32, p_good_to_bad_ppm, "Gilbert-Elliott: good to bad, per unit")                        \
  FIELD(u32, p_bad_to_good_ppm, "Gilbert-Elliott: bad to good, per unit")                        \
  FIELD(u32, loss_good_ppm, "Gilbert-Elliott: loss in the good state")                           \
  FIELD(u32, loss_bad_ppm, "Gilbert-Elliott: loss in the bad state")                             \
  FIELD(u8, loss_mode, "LossMode, on streams")                                                   \
  FIELD(u8, rate_scope, "RateScope")                                                             \
  FIELD(u8, jitter_distribution, "JitterDistribution")                                           \
  FIELD(u8, error_kind, "ErrorKind of connection_error")                                         \
  FIELD(u32, error_ppm, "connection_error probability")                                          \
  FIELD(u64, connect_timeout_ns, "0 none")                                                       \
  FIELD(u64, recv_timeout_ns, "0 none")                                                          \
  FIELD(u64, half_open_bytes, "0 none")                                                          \
  FIELD(u8, half_open_error, "ErrorKind")                                                        \
  FIELD(u8, budget_action, "BudgetAction")                                                       \
  FIELD(u8, budget_error, "ErrorKind")                                                           \
  FIELD(u8, schedule_kind, "ScheduleKind")                                                       \
  FIELD(u32, target_count, "rules of this policy in the targets region; 0: every flow")          \
  FIELD(u32, duplicate_ppm, "probability of each extra copy")                                    \
  FIELD(u32, duplicate_max_extra, "extra copies at most")                                        \
  FIELD(u32, reorder_ppm, "probability that a unit is held")                                     \
  FIELD(u32, reorder_window, "later units that may overtake it")                                 \
  FIELD(u64, reorder_max_delay_ns, "0 no time bound")                                            \
  FIELD(u64, dns_delay_ns, "0 none")                                                             \
  FIELD(u64, dns_timeout_ns, "0 none")                                                           \
  FIELD(u32, dns_nxdomain_ppm, "probability a lookup")                                           \
  FIELD(u32, mutation_ppm, "payload_mutation.prob")                                              \
  FIELD(u64, budget_max_tx, "bytes; 0 none")                                                     \
  FIELD(u64, budget_max_rx, "bytes; 0 none")                                                     \
  FIELD(u64, budget_max_ops, "ops; 0 none")                                                      \
  FIELD(u64, budget_max_duration_ns, "since the flow's first op; 0 none")                        \
  FIELD(u64, budget_timeout_ns, "wait of the timeout action")                                    \
  FIELD(u64, schedule_first_ns, "ramp: its length; spike: every; flapping: on")                  \
  FIELD(u64, schedule_second_ns, "spike: duration; flapping: off")                               \
  FIELD(u8, mutation_type, "MutationType")                                                       \
  FIELD(u8, mutation_target, "MutationTarget")                                                   \
  FIELD(u8, mutation_dry_run, "1: decide, leave the bytes")                                      \
  FIELD(u8, inject_length, "bytes of inject_data, at most 64")                                   \
  FIELD(u8, find_length, "bytes of replace_find, at most 32")                                    \
  FIELD(u8, replace_length, "bytes of replace_with, at most 32")                                 \
  FIELD(u8, withdrawn, "1: unregistered; kept for evidence, in nobody's force")                  \
  FIELD(u8, script_asks, "bits: 1 a script is asked about flows, 2 connects, 4 sends, 8 recvs, 16 dns")  \
  FIELD(u32, mutation_every_n, "cadence: every n-th call of a direction; 1 each")                \
  FIELD(u32, corrupt_count, "bytes to corrupt")                                                  \
  FIELD(u64, corrupt_seed, "0: the row's seed")                                                  \
  FIELD(u64, truncate_size, "bytes kept")                                                        \
  FIELD(u64, inject_position, "byte offset; past the end: at the end")                           \
  FIELD(u64, swap_first, "byte offset")                                                          \
  FIELD(u64, swap_second, "byte offset")                                                         \
  FIELD(u64, mutation_min_size, "smaller calls are left alone")                                  \
  FIELD(u64, mutation_max_size, "larger calls are left alone; 0 no limit")                       \
  FIELD(u64, mutation_max_buffer, "bytes a mutated call may hold")                               \
  ARRAY(u8, inject_data, 64, "payload_mutation.inject_data")                                     \
  ARRAY(u8, replace_find, 32, "payload_mutation.replace_find")                                   \
  ARRAY(u8, replace_with, 32, "payload_mutation.replace_with")
MISHAP_STRUCT(Row, 552, "A policy, compiled.", MISHAP_ROW)

}  // namespace mishap
