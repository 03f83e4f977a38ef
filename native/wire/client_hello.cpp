#include "client_hello.h"

#include "ascii.h"

namespace mishap::wire {

namespace {

constexpr u8 kRecordHandshake = 22;
constexpr u8 kVersionMajor = 3;  // SSL 3.0 to TLS 1.3
constexpr u32 kMaxRecord = 1 << 14;
constexpr u8 kClientHello = 1;
constexpr u32 kMaxSessionId = 32;
constexpr u16 kExtensionServerName = 0;
constexpr u8 kNameTypeHost = 0;
constexpr u32 kMaxHostName = 255;

// Reads the handshake messages as one stream of bytes: a ClientHello may be cut into several records at any
// byte. Once the bytes end or a record header is wrong, `stopped` says why and every read gives zero.
class Handshake {
 public:
  Handshake(const u8* data, size_t size) : data_(data), size_(size) {}

  bool stopped = false;
  SniResult reason = SniResult::None;

  u32 read(u32 bytes) {
    u32 value = 0;
    for (u32 i = 0; i < bytes; i++) {
      if (!ready()) return 0;
      value = value << 8 | data_[at_];
      at_++;
      record_left_--;
    }
    return value;
  }

  void skip(u32 bytes) {
    while (bytes > 0 && ready()) {
      size_t step = bytes < record_left_ ? bytes : record_left_;
      if (step > size_ - at_) step = size_ - at_;
      at_ += step;
      record_left_ -= static_cast<u32>(step);
      bytes -= static_cast<u32>(step);
    }
  }

 private:
  const u8* data_;
  size_t size_;
  size_t at_ = 0;
  u32 record_left_ = 0;

  bool stop(SniResult why) {
    stopped = true;
    reason = why;
    return false;
  }

  // Whether there is a byte to read, past the next record's header where one is due.
  bool ready() {
    if (stopped) return false;
    if (record_left_ == 0 && !open_record()) return false;
    return at_ < size_ || stop(SniResult::NeedMore);
  }

  // The header is judged as far as it is there, so that other protocols are told apart at their first byte.
  bool open_record() {
    size_t left = size_ - at_;
    const u8* header = data_ + at_;
    if (left > 0 && header[0] != kRecordHandshake) return stop(SniResult::None);
    if (left > 1 && header[1] != kVersionMajor) return stop(SniResult::None);
    if (left < 5) return stop(SniResult::NeedMore);
    record_left_ = static_cast<u32>(header[3] << 8 | header[4]);
    if (record_left_ == 0 || record_left_ > kMaxRecord) return stop(SniResult::None);
    at_ += 5;
    return true;
  }
};

// A part of the ClientHello with a length of its own: nothing read through it leaves that length. One that
// tries stops the whole reading, as malformed.
class Part {
 public:
  Part(Handshake& stream, u32 length) : stream_(stream), left_(length) {}

  bool ok() const { return !overrun_ && !stream_.stopped; }
  bool empty() const { return left_ == 0; }
  SniResult reason() const { return overrun_ ? SniResult::None : stream_.reason; }

  u32 read(u32 bytes) { return take(bytes) ? stream_.read(bytes) : 0; }
  void skip(u32 bytes) {
    if (take(bytes)) stream_.skip(bytes);
  }
  void skip_rest() { skip(left_); }
  // A vector inside this part: `bytes` of length, then that many bytes, charged to this part at once.
  Part vector(u32 bytes) {
    u32 length = read(bytes);
    return Part(stream_, take(length) ? length : 0);
  }

 private:
  Handshake& stream_;
  u32 left_;
  bool overrun_ = false;

  bool take(u32 bytes) {
    if (!ok()) return false;
    overrun_ = bytes > left_;
    if (overrun_) return false;
    left_ -= bytes;
    return true;
  }
};

// The server_name extension: a list whose first entry is the host name, the only kind ever defined.
SniResult read_server_name(Part& extension, char* name, size_t capacity) {
  Part list = extension.vector(2);
  if (!extension.ok()) return extension.reason();
  u32 type = list.read(1);
  u32 length = list.read(2);
  if (!list.ok()) return list.reason();
  if (type != kNameTypeHost || length == 0 || length > kMaxHostName) return SniResult::None;
  bool fits = length < capacity;
#ifdef MISHAP_FUZZ_PLANTED_BUG
  fits = true;
#endif
  if (!fits) return SniResult::None;
  for (u32 i = 0; i < length; i++) {
    u32 c = list.read(1);
    if (!list.ok()) return list.reason();
    if (c <= 0x20 || c >= 0x7f) return SniResult::None;  // host names are printable ASCII
    name[i] = to_lower(static_cast<char>(c));
  }
  name[length] = '\0';
  return SniResult::Found;
}

SniResult walk(const u8* data, size_t size, char* name, size_t capacity) {
  Handshake stream(data, size);
  u32 type = stream.read(1);
  if (stream.stopped) return stream.reason;
  if (type != kClientHello) return SniResult::None;
  u32 length = stream.read(3);
  if (stream.stopped) return stream.reason;
  Part hello(stream, length);

  hello.skip(2 + 32);  // legacy_version, random
  u32 session_id = hello.read(1);
  if (session_id > kMaxSessionId) return SniResult::None;
  hello.skip(session_id);
  hello.skip(hello.read(2));  // cipher_suites
  hello.skip(hello.read(1));  // legacy_compression_methods
  if (!hello.ok()) return hello.reason();
  if (hello.empty()) return SniResult::None;  // extensions are optional before TLS 1.3
  Part extensions = hello.vector(2);
  if (!hello.ok()) return hello.reason();

  while (!extensions.empty()) {
    u32 kind = extensions.read(2);
    Part extension = extensions.vector(2);
    if (!extensions.ok()) return extensions.reason();
    if (kind == kExtensionServerName) return read_server_name(extension, name, capacity);
    extension.skip_rest();
  }
  return extensions.ok() ? SniResult::None : extensions.reason();
}

}  // namespace

SniResult find_sni(const u8* data, size_t size, char* name, size_t capacity) {
  SniResult result = walk(data, size, name, capacity);
  if (result != SniResult::Found && capacity > 0) name[0] = '\0';
  return result;
}

}  // namespace mishap::wire
