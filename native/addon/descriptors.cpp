// One line out and one line back over a stream socket, with at most one descriptor beside the line that comes back: how
// a jailed process asks the broker outside for what it may not open itself. What the other end says is never trusted:
// sizes are bounded, and more descriptors than one are closed.
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mutex>
#include <string>

#include "contract/types.h"
#include "exports.h"

namespace mishap {
namespace {

constexpr size_t kLineMax = 65536;  // bytes, its end included
constexpr int kDescriptorsMax = 4;  // that a message is read with; all but the first are closed

// One question at a time, whichever thread asks: the threads of a process share the socket.
std::mutex asking;

// A line with its end, or an empty text for what cannot be one.
std::string line_of(const Napi::Value& value) {
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.size() >= kLineMax || text.find('\n') != std::string::npos) return {};
  return text + '\n';
}

// Sends all of a line, a descriptor with its first byte. Waits for room only if asked to. Returns errno.
int send_line(int fd, const std::string& line, int descriptor, bool waits) {
  for (size_t at = 0; at < line.size();) {
    iovec part = {const_cast<char*>(line.data()) + at, line.size() - at};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    if (descriptor >= 0 && at == 0) {
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    }
    const ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL | (waits ? 0 : MSG_DONTWAIT));
    if (sent >= 0) {
      at += static_cast<size_t>(sent);
    } else if (errno == EAGAIN && waits) {
      pollfd room = {fd, POLLOUT, 0};
      poll(&room, 1, -1);
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

// Keeps the first descriptor of a message and closes all others.
void take_descriptors(msghdr& message, int& kept) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t at = 0; at < count; at++) {
      int descriptor;
      memcpy(&descriptor, CMSG_DATA(header) + at * sizeof(int), sizeof(int));
      if (kept < 0) {
        kept = descriptor;
      } else {
        close(descriptor);
      }
    }
  }
}

// Receives one line without its end, and the descriptor beside it. Returns errno; EPIPE at the socket's end.
int receive_line(int fd, std::string& line, int& descriptor) {
  char bytes[4096];
  for (;;) {
    iovec part = {bytes, sizeof(bytes)};
    alignas(cmsghdr) char control[CMSG_SPACE(kDescriptorsMax * sizeof(int))];
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (received < 0 && errno == EINTR) continue;
    if (received < 0 && errno == EAGAIN) {
      pollfd more = {fd, POLLIN, 0};
      poll(&more, 1, -1);
      continue;
    }
    if (received < 0) return errno;
    take_descriptors(message, descriptor);
    if (received == 0) return EPIPE;
    line.append(bytes, static_cast<size_t>(received));
    if (line.size() > kLineMax) return EMSGSIZE;
    if (line.back() == '\n') break;
  }
  line.pop_back();
  return line.find('\n') == std::string::npos ? 0 : EPROTO;
}

}  // namespace

// request(fd, text): {text, descriptor}. Blocks this thread until the answer is there.
Napi::Value request(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const int fd = info[0].As<Napi::Number>().Int32Value();
  const std::string question = line_of(info[1]);
  std::string answer;
  int descriptor = -1;
  int error = question.empty() ? EMSGSIZE : 0;
  if (!error) {
    const std::lock_guard<std::mutex> only(asking);
    error = send_line(fd, question, -1, true);
    if (!error) error = receive_line(fd, answer, descriptor);
  }
  if (error) {
    if (descriptor >= 0) close(descriptor);
    throw system_error(env, error, "sendmsg", "the broker could not be asked");
  }
  Napi::Object result = Napi::Object::New(env);
  result["text"] = Napi::String::New(env, answer);
  result["descriptor"] = descriptor < 0 ? env.Undefined() : Napi::Number::New(env, descriptor);
  return result;
}

// reply(fd, text, descriptor?): never waits, because who does not read its answers must not hold up the one who gives
// them.
void reply(const Napi::CallbackInfo& info) {
  const int fd = info[0].As<Napi::Number>().Int32Value();
  const std::string answer = line_of(info[1]);
  const int descriptor = info[2].IsNumber() ? info[2].As<Napi::Number>().Int32Value() : -1;
  const int error = answer.empty() ? EMSGSIZE : send_line(fd, answer, descriptor, false);
  if (error) throw system_error(info.Env(), error, "sendmsg", "the answer could not be sent");
}

}  // namespace mishap
