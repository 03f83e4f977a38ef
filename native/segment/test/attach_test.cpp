// What claims to be a segment is checked before anything in it is used.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "image.h"

using namespace mishap;

TEST_CASE("a fresh segment checks out, with every region of the capacity asked for") {
  Image image({3, 64, 40, 100, 70, 65, 30, 5});
  CHECK(image.checked() == AttachError::None);
  CHECK(image.segment.count.policies == 3);
  CHECK(image.segment.count.processes == 40);
  CHECK(image.segment.count.owners == 100);
  CHECK(image.segment.count.flows == 70);
  CHECK(image.segment.count.events == 65);
  CHECK(image.segment.count.decided == 5);
  CHECK(reinterpret_cast<const u8*>(image.segment.decided + 5) <= image.bytes() + image.size);
}

TEST_CASE("each kind of damage is refused by its name") {
  struct Damage {
    const char* what;
    AttachError error;
    std::function<void(Header*)> inflict;
  } const damages[] = {
      {"magic", AttachError::BadMagic, [](Header* h) { h->magic ^= 1; }},
      {"version", AttachError::BadVersion, [](Header* h) { h->abi_version++; }},
      {"hash", AttachError::BadLayout, [](Header* h) { h->layout_hash++; }},
      {"size", AttachError::Truncated, [](Header* h) { h->total_size++; }},
      {"stride", AttachError::BadRegion, [](Header* h) { h->regions[5].stride -= 8; }},
      {"misaligned", AttachError::BadRegion, [](Header* h) { h->regions[0].offset += 4; }},
      {"inside the header", AttachError::BadRegion, [](Header* h) { h->regions[0].offset = 64; }},
      {"past the end", AttachError::BadRegion, [](Header* h) { h->regions[9].offset = h->total_size; }},
      {"offset that wraps", AttachError::BadRegion, [](Header* h) { h->regions[9].offset = ~u64{7}; }},
      {"no rows", AttachError::BadRegion, [](Header* h) { h->regions[5].count = 0; }},
      {"rows past the end", AttachError::BadRegion, [](Header* h) { h->regions[10].count += 2; }},
      {"too many rows", AttachError::BadRegion, [](Header* h) { h->regions[5].count = ~0u; }},
      {"no histograms", AttachError::BadRegion, [](Header* h) { h->regions[8].count = 0; }},
      {"more policies than stats", AttachError::BadRegion, [](Header* h) { h->regions[7].count--; }},
  };
  for (const Damage& damage : damages) {
    CAPTURE(damage.what);
    Image image;
    damage.inflict(image.header());
    CHECK(image.checked() == damage.error);
  }
}

TEST_CASE("a segment cut short is refused wherever it is cut") {
  Image image;
  Segment scratch;
  for (u64 size : {u64{0}, u64{7}, u64{sizeof(Header)} - 1, u64{sizeof(Header)}, image.size / 2, image.size - 1})
    CHECK(check(image.bytes(), size, &scratch) == AttachError::Truncated);
}

TEST_CASE("attach takes only this user's own private regular file") {
  char folder[] = "/tmp/mishap-attach-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  const std::string path = std::string(folder) + "/segment", link = std::string(folder) + "/link";
  Image image;
  Segment segment;
  CHECK(attach(path.c_str(), &segment) == AttachError::Missing);

  int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  REQUIRE(write(fd, image.bytes(), image.size) == static_cast<ssize_t>(image.size));
  CHECK(attach(path.c_str(), &segment) == AttachError::None);
  CHECK(segment.size == image.size);
  detach(&segment);

  CHECK(symlink(path.c_str(), link.c_str()) == 0);
  CHECK(attach(link.c_str(), &segment) == AttachError::Missing);
  CHECK(fchmod(fd, 0644) == 0);
  CHECK(attach(path.c_str(), &segment) == AttachError::Foreign);
  CHECK(attach(folder, &segment) != AttachError::None);
  CHECK(fchmod(fd, 0600) == 0);
  CHECK(ftruncate(fd, 100) == 0);
  CHECK(attach(path.c_str(), &segment) == AttachError::Truncated);
  CHECK(ftruncate(fd, static_cast<off_t>(image.size)) == 0);
  CHECK(attach(path.c_str(), &segment) == AttachError::BadRegion);  // its region table went with the cut
  CHECK(segment.base == nullptr);

  close(fd);
  unlink(link.c_str());
  unlink(path.c_str());
  rmdir(folder);
}
