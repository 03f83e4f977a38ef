// class Mailbox: the worker's side of a run's mailbox (native/mailbox), and making one. A process maps the mailbox that it was
// handed once, for all its threads, and then closes the descriptor: what has no descriptor cannot be cut short under the
// programs that have it mapped, whatever a script does.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <string.h>

#include "exports.h"
#include "mailbox/mailbox.h"

namespace mishap {
namespace {

// Mapped once, read by every thread from then on.
mailbox::Mailbox shared;

u64 clock_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<u64>(t.tv_sec) * 1'000'000'000 + static_cast<u64>(t.tv_nsec);
}

// What next() writes for JavaScript, a double each.
enum Given : u32 { kAsking, kOp, kDirection, kKey, kAtMs, kUnit, kBytes, kHasSni, kGivenCount };
// Doubles are exact to 53 bits, which are enough to tell flows from each other.
double number_of(u64 key) { return static_cast<double>(key & ((1ull << 53) - 1)); }

class Mailbox : public Napi::ObjectWrap<Mailbox> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Mailbox",
                       {
                           InstanceMethod<&Mailbox::leave>("leave"),
                           InstanceMethod<&Mailbox::next>("next"),
                           InstanceMethod<&Mailbox::question>("question"),
                           InstanceMethod<&Mailbox::answer>("answer"),
                           InstanceMethod<&Mailbox::publish>("publish"),
                           InstanceMethod<&Mailbox::serving_for_ms>("servingForMs"),
                       });
  }

  // new Mailbox(fd) maps for the process and closes the descriptor; new Mailbox() is what it mapped.
  explicit Mailbox(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Mailbox>(info) {
    if (info[0].IsNumber()) {
      const int fd = info[0].As<Napi::Number>().Int32Value();
      const AttachError error = shared.base ? AttachError::None : mailbox::map(fd, &shared);
      close(fd);
      if (error != AttachError::None) throw Napi::Error::New(info.Env(), std::string("this is no mailbox: ") + describe(error));
    }
    if (!shared.base) throw Napi::Error::New(info.Env(), "this process has no mailbox");
  }

 private:
  static u32 lane_of(const Napi::CallbackInfo& info) {
    const u32 lane = info[0].As<Napi::Number>().Uint32Value();
    if (lane >= shared.lane_count) throw Napi::RangeError::New(info.Env(), "the mailbox has no lane " + std::to_string(lane));
    return lane;
  }

  void leave(const Napi::CallbackInfo& info) { mailbox::leave(shared, lane_of(info)); }

  // next(lane, timeoutMs, given): whether there was a question; `given` is filled in.
  Napi::Value next(const Napi::CallbackInfo& info) {
    const u32 lane = lane_of(info);
    const double timeout_ms = info[1].As<Napi::Number>().DoubleValue();
    Napi::Float64Array given = info[2].As<Napi::Float64Array>();
    if (given.ElementLength() < kGivenCount) throw Napi::RangeError::New(info.Env(), "argument 3 is too short");
    const u64 until_ns = clock_ns() + static_cast<u64>(timeout_ms > 0 && timeout_ms < 1e6 ? timeout_ms * 1e6 : 0);
    if (!mailbox::next(shared, lane, until_ns, &question_)) return Napi::Boolean::New(info.Env(), false);
    double* to = given.Data();
    to[kAsking] = question_.asking;
    to[kOp] = question_.op;
    to[kDirection] = question_.direction;
    to[kKey] = number_of(question_.key);
    to[kAtMs] = static_cast<double>(question_.at_ns) / 1e6;
    to[kUnit] = static_cast<double>(question_.unit);
    to[kBytes] = static_cast<double>(question_.bytes);
    to[kHasSni] = question_.sni[0] != 0;
    return Napi::Boolean::New(info.Env(), true);
  }

  // The whole of the question that next() took, as the contract's ScriptQuestion.
  Napi::Value question(const Napi::CallbackInfo& info) {
    return Napi::Buffer<u8>::Copy(info.Env(), reinterpret_cast<const u8*>(&question_), sizeof(question_));
  }

  // answer(lane, row, generation, standing, amount)
  void answer(const Napi::CallbackInfo& info) {
    ScriptAnswer answer = {};
    answer.row = info[1].As<Napi::Number>().Uint32Value();
    answer.generation = info[2].As<Napi::Number>().Uint32Value();
    answer.standing = static_cast<u8>(info[3].As<Napi::Number>().Uint32Value());
    const double amount = info[4].As<Napi::Number>().DoubleValue();
    answer.amount = amount > 0 && amount < 1e15 ? static_cast<u64>(amount) : 0;
    mailbox::answer(shared, lane_of(info), answer);
  }

  // publish(index, row): the row's generation.
  Napi::Value publish(const Napi::CallbackInfo& info) {
    Napi::Uint8Array bytes = info[1].As<Napi::Uint8Array>();
    const u32 index = info[0].As<Napi::Number>().Uint32Value();
    if (bytes.ByteLength() != sizeof(Row) || index == 0 || index >= kAnswers)
      throw Napi::RangeError::New(info.Env(), "publish takes the number of a row, from 1, and a row");
    Row row;
    memcpy(static_cast<void*>(&row), bytes.Data(), sizeof(row));
    return Napi::Number::New(info.Env(), mailbox::publish(shared, index, row));
  }

  Napi::Value serving_for_ms(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(mailbox::serving_for_ns(shared, lane_of(info))) / 1e6);
  }

  ScriptQuestion question_ = {};
};

}  // namespace

Napi::Function export_mailbox_class(Napi::Env env) { return Mailbox::define(env); }

// createMailbox(path, lanes): a descriptor of a fresh one, which is the caller's to close.
Napi::Value create_mailbox(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>().Utf8Value();
  const u32 lanes = info[1].As<Napi::Number>().Uint32Value();
  if (lanes == 0 || lanes > kMaxLanes) throw Napi::RangeError::New(info.Env(), "a mailbox has 1 to " + std::to_string(kMaxLanes) + " lanes");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) throw system_error(info.Env(), errno, "open", "could not create the mailbox " + path);
  auto fail = [&](int error, const char* call) {
    close(fd);
    unlink(path.c_str());
    return system_error(info.Env(), error, call, "could not make room for the mailbox " + path);
  };
  const u64 size = mailbox::size_of(lanes);
  if (fchmod(fd, 0600) != 0) throw fail(errno, "fchmod");
  if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(size))) throw fail(error, "posix_fallocate");
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) throw fail(errno, "mmap");
  mailbox::format(static_cast<u8*>(base), lanes);
  munmap(base, size);
  return Napi::Number::New(info.Env(), fd);
}

}  // namespace mishap
