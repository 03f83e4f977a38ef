// The delay line; see line.h. Memory is malloc's: lines live in processes of our own.
#include "link/line.h"

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <new>

namespace mishap::link {
namespace {

constexpr u32 kFirstCapacity = 16;

bool leaves_later(const Unit* a, const Unit* b) {
  if (a->turn_ns != b->turn_ns) return a->turn_ns > b->turn_ns;
  if (a->rank_ns != b->rank_ns) return a->rank_ns > b->rank_ns;
  return a->order > b->order;
}

}  // namespace

DelayLine::~DelayLine() {
  clear();
  free(units_);
}

bool DelayLine::push(const Parcel& parcel, const u8* data, u32 bytes, u64 sender, const std::shared_ptr<Outbox>& outbox) {
  const u64 size = cost(outbox ? 0 : bytes);
  if (size > budget_->limit_bytes - std::min(budget_->limit_bytes, budget_->used_bytes)) return false;
  if (count_ == capacity_) {
    u32 wanted = capacity_ ? capacity_ * 2 : kFirstCapacity;
    void* grown = realloc(units_, wanted * sizeof(Unit*));
    if (!grown) return false;
    units_ = static_cast<Unit**>(grown);
    capacity_ = wanted;
  }
  void* memory = malloc(size);
  if (!memory) return false;
  Unit* unit = new (memory) Unit{};
  unit->parcel = parcel;
  unit->outbox = outbox;
  unit->data = outbox ? data : unit->copied;
  if (bytes && !outbox) memcpy(unit->copied, data, bytes);
  unit->bytes = bytes;
  unit->order = pushed_++;
  if (stream_) {
    unit->rank_ns = parcel.sent_ns;
    if (unit->order > 0 && sender == last_sender_) {
      unit->parcel.due_ns = std::max(parcel.due_ns, last_due_ns_);
      if (unit->parcel.due_ns == last_due_ns_) unit->rank_ns = std::max(parcel.sent_ns, last_rank_ns_);
    }
    last_sender_ = sender;
    last_due_ns_ = unit->parcel.due_ns;
    last_rank_ns_ = unit->rank_ns;
  }
  unit->turn_ns = std::max(unit->parcel.due_ns, u64{1});
  units_[count_++] = unit;
  std::push_heap(units_, units_ + count_, leaves_later);
  bytes_ += bytes;
  budget_->used_bytes += size;
  return true;
}

u64 DelayLine::unsent(const Unit& unit) {
  if (unit.parcel.kind != ParcelKind::Data) return 0;  // a connect has a byte that is nobody's
  return unit.bytes - unit.gone + u64{unit.parcel.copies} * unit.bytes;
}

u64 DelayLine::unsent_bytes() const {
  u64 total = 0;
  for (u32 i = 0; i < count_; i++) total += unsent(*units_[i]);
  return total;
}

bool DelayLine::left(u32 bytes) {
  Unit* unit = units_[0];
  unit->gone += bytes;
  if (bytes) unit->turn_ns = 0;
  if (unit->gone < unit->bytes) return false;
  if (unit->parcel.copies == 0) return true;
  unit->parcel.copies--;
  unit->gone = 0;
  unit->turn_ns = 0;
  return false;
}

void DelayLine::drop_head() {
  Unit* unit = units_[0];
  std::pop_heap(units_, units_ + count_, leaves_later);
  count_--;
  bytes_ -= unit->bytes;
  budget_->used_bytes -= cost(unit->outbox ? 0 : unit->bytes);
  if (unit->outbox) give_back_block(unit->outbox.get(), unit->parcel.block);
  unit->~Unit();
  free(unit);
}

void DelayLine::clear() {
  while (count_) drop_head();
}

}  // namespace mishap::link
