// The owner's side of being in force: a thread that holds the segment's robust lock and renews its lease.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "segment/segment.h"

namespace mishap {

u64 monotonic_ns();

// Prepares the robust, process-shared mutex in a fresh segment's header, before anybody else can see the segment.
void initialise_owner_lock(Header* header);

class Lease {
 public:
  // The segment stays mapped, and `fd` open on its file, for as long as this object lives. `dates_arrivals`: the kernel
  // dates what arrives on this host, as long as well, which every packet pays for.
  Lease(const Segment& segment, int fd, bool dates_arrivals);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  // False when there was nothing to change.
  bool pause();
  bool resume();

 private:
  void run(std::mutex* started_lock, std::condition_variable* started, bool* holds);
  void renew();

  Segment segment_;
  int fd_;
  int stamping_socket_;
  std::mutex lock_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread thread_;
};

// Ends all faults for good and wakes every wait that depends on the segment. Anybody who may write it may do so.
void retire(const Segment& segment);

// For when the run itself is suspended: pauses every segment this process holds in force, and resumes exactly those.
void suspend_all();
void continue_all();

// Puts zeroed private memory in place of what a shrunk file no longer backs, so that reading it is not a SIGBUS.
// False when the file is shorter than its mapping.
bool still_backed(const Segment& segment, int fd);

}  // namespace mishap
