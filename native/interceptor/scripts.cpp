// Asking a run's script: about a flow when its policy is settled, about an op before the engine decides it. The answer is kept
// with the flow, where the engine looks (engine/answers.cpp); one that does not come in time leaves the policy's own fields.
#include <string.h>

#include "interceptor.h"
#include "mailbox/mailbox.h"

namespace mishap {
namespace {

mailbox::Mailbox box;

void copy_name(char* to, u32 capacity, const char* from) {
  const size_t n = strlen(from);
  if (n < capacity) memcpy(to, from, n + 1);
}

// The question's answer, or that of a script without an opinion.
ScriptAnswer ask(ScriptQuestion* question) {
  Header* header = self.segment.header;
  ScriptAnswer answer = {};
  const u64 now = now_ns(), epoch = load(&header->epoch_ns);
  question->at_ns = now > epoch ? now - epoch : 0;
  question->deadline_ns = now + load(&header->script_patience_ns);
  const mailbox::Asked asked = box.base ? mailbox::ask(box, *question, &answer) : mailbox::Asked::Unserved;
  if (asked == mailbox::Asked::Unserved) {
    add(&header->script_unserved, u64{1});
    return {};
  }
  add(&header->script_asked, u64{1});
  if (asked == mailbox::Asked::Answered) return answer;
  add(&header->script_late, u64{1});
  return {};
}

ScriptQuestion about(Flow* flow, const char* words, const char* host, const char* sni) {
  ScriptQuestion question = {};
  question.key = load(&flow->key);
  question.protocol = load(&flow->protocol);
  question.role = load(&flow->role);
  question.peer_port = load(&flow->peer_port);
  memcpy(question.peer, flow->peer, sizeof(question.peer));
  copy_name(question.flow, sizeof(question.flow), words);
  copy_name(question.host, sizeof(question.host), host);
  copy_name(question.sni, sizeof(question.sni), sni);
  return question;
}

ScriptQuestion about(const Socket& socket) {
  char host[256] = "";
  if (socket.family == AF_UNIX) memcpy(host, socket.path, sizeof(socket.path));
  else name_of(socket.flow->peer, host, sizeof(host));
  return about(socket.flow, socket.identity, host, socket.sni);
}

void ask_op(Flow* flow, OpKind kind, Direction direction, u64 ahead, u64 bytes, ScriptQuestion* question) {
  question->asking = static_cast<u8>(Asking::Op);
  question->op = static_cast<u8>(kind);
  question->direction = static_cast<u8>(direction);
  question->unit = units_begun(load(&side_of(flow, direction)->progress));
  question->bytes = kind == OpKind::Send || kind == OpKind::Recv ? ahead + bytes : 0;
  const ScriptAnswer answer = ask(question);
  engine::answer_op(self.segment, flow, kind, direction, ahead + bytes, now_ns(), answer);
}

}  // namespace

void meet_script() {
  char path[160] = "";
  const size_t n = strlen(segment_path());
  if (!(load(&self.segment.header->flags) & kHeaderScript) || n + sizeof(".mailbox") > sizeof(path)) return;
  memcpy(path, segment_path(), n);
  memcpy(path + n, ".mailbox", sizeof(".mailbox"));
  if (mailbox::attach(path, &box) == AttachError::None) self.segment.answers = box.answers;
  self.scripted = true;
}

void ask_about_flow(Socket* socket) {
  if (!engine::must_ask_about_flow(self.segment, socket->flow)) return;
  ScriptQuestion question = about(*socket);
  engine::answer_flow(socket->flow, ask(&question));
}

void ask_about_op(Socket* socket, OpKind kind, Direction direction, u64 ahead, u64 bytes) {
  if (!engine::must_ask_about_op(self.segment, socket->flow, kind, direction, ahead, bytes, now_ns())) return;
  ScriptQuestion question = about(*socket);
  ask_op(socket->flow, kind, direction, ahead, bytes, &question);
  // From now on it wants what was answered, and not anything.
  if (engine::answered_for_good(self.segment, socket->flow)) socket->generation = socket->settled_generation = 0;
}

void ask_about_lookup(Flow* flow, const char* words, const char* host) {
  if (!engine::must_ask_about_op(self.segment, flow, OpKind::Dns, Direction::Uplink, 0, 1, now_ns())) return;
  ScriptQuestion question = about(flow, words, host, "");
  ask_op(flow, OpKind::Dns, Direction::Uplink, 0, 1, &question);
}

}  // namespace mishap
