// Files of the host, in and out, through the C interface.
#include <cerrno>
#include <fstream>

#include "tests/capi/host.h"

namespace {

using reprise::ExportOptions;
using reprise::Guest;
using reprise::ImportOptions;
using reprise::Instance;
using reprise::InstanceOptions;
using reprise::host::error_of;

struct Transfer : reprise::host::Capi {
  Transfer() {
    std::filesystem::create_directories(path("from/d"));
    std::ofstream(path("from/f")) << "file";
    std::ofstream(path("from/d/g")) << "deep";
    std::filesystem::create_symlink("f", path("from/l"));
  }
  std::string host_file(const std::string& name) const {
    std::ifstream in(path(name));
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

TEST_F(Transfer, WhatComesInGoesOutAndComesInAgain) {
  for (bool on_disk : {true, false}) {
    Instance first = on_disk ? Instance(path("s")) : Instance();
    EXPECT_EQ(first.import_from(path("from")), 4);
    EXPECT_EQ(Guest(first).read_file("/d/g"), "deep");
    for (std::string name : {"out.zip", "out.tar", "out"}) {
      std::string to = path(name) + (on_disk && name == "out" ? "2" : "");
      EXPECT_EQ(first.export_to(to), 4) << name;
      Instance again;
      EXPECT_EQ(again.import_from(to), 4) << name;
      Guest guest(again);
      EXPECT_EQ(guest.read_file("/f") + guest.read_file("/d/g") + guest.readlink("/l"), "filedeepf") << name;
      EXPECT_TRUE(diff(first, again).empty()) << name;
    }
  }
  EXPECT_EQ(host_file("out/d/g"), "deep");
}

TEST_F(Transfer, OfAPastStateAndAPart) {
  Instance site(path("s"));
  site.import_from(path("from"));
  site.mark("imported");
  Guest(site).write_file("/d/g", "newer");
  ExportOptions part;
  part.position = "imported";
  part.from = "/d";
  EXPECT_EQ(site.export_to(path("part"), part), 1);
  EXPECT_EQ(host_file("part/g"), "deep");
  part.position = "never";
  EXPECT_EQ(error_of([&] { site.export_to(path("none"), part); }), ENOENT);
  part.position = "";
  part.from = "/none";
  EXPECT_EQ(error_of([&] { site.export_to(path("none"), part); }), ENOENT);
  part.from = "/f";
  EXPECT_EQ(error_of([&] { site.export_to(path("none"), part); }), ENOTDIR);
  EXPECT_FALSE(std::filesystem::exists(path("none")));
}

TEST_F(Transfer, NothingIsReplacedUnlessAskedFor) {
  Instance site;
  Guest guest(site);
  guest.write_file("/f", "mine");
  EXPECT_EQ(error_of([&] { site.import_from(path("from")); }), EEXIST);
  EXPECT_EQ(guest.read_file("/f"), "mine");
  ImportOptions options;
  options.into = "/below/it";
  EXPECT_EQ(site.import_from(path("from"), options), 6) << "with the two directories that were missing";
  EXPECT_EQ(guest.read_file("/below/it/f"), "file");
  options.into = "";
  options.over = true;
  site.import_from(path("from"), options);
  EXPECT_EQ(guest.read_file("/f"), "file");

  EXPECT_EQ(error_of([&] { site.export_to(path("from")); }), EEXIST);
  ExportOptions over;
  over.over = true;
  guest.write_file("/f", "over");
  site.export_to(path("from"), over);
  EXPECT_EQ(host_file("from/f"), "over");
}

TEST_F(Transfer, WhatCannotBeIsRefusedAndChangesNothing) {
  Instance site;
  Guest guest(site);
  reprise_instance* s = site.handle();
  for (const char* nothing : {static_cast<const char*>(nullptr), ""}) {
    EXPECT_EQ(reprise_import(s, nothing, nullptr), -EINVAL);
    EXPECT_EQ(reprise_export(s, nothing, nullptr), -EINVAL);
  }
  reprise_import_options import_options = REPRISE_IMPORT_OPTIONS_INIT;
  reprise_export_options export_options = REPRISE_EXPORT_OPTIONS_INIT;
  import_options.into = "x";
  export_options.from = "x";
  for (size_t size = 0; size < sizeof import_options; ++size) {
    import_options.size = export_options.size = size;
    EXPECT_EQ(reprise_import(s, path("from").c_str(), &import_options), -EINVAL);
    if (size < sizeof export_options) {
      EXPECT_EQ(reprise_export(s, path("none").c_str(), &export_options), -EINVAL);
    }
  }
  EXPECT_EQ(error_of([&] { site.import_from(path("missing")); }), ENOENT);
  std::ofstream(path("broken.zip")) << "PK\x03\x04 this is no archive";
  EXPECT_EQ(error_of([&] { site.import_from(path("broken.zip")); }), EBADMSG);
  ImportOptions small;
  small.max_entries = 2;
  EXPECT_NE(error_of([&] { site.import_from(path("from"), small); }), 0);
  small.max_entries = 0;
  small.label = std::string(256, 'x');
  EXPECT_EQ(error_of([&] { site.import_from(path("from"), small); }), EINVAL);
  for (const char* outside : {"..", "/../x", "d/../../x"}) {
    ImportOptions options;
    options.into = outside;
    EXPECT_NE(error_of([&] { site.import_from(path("from"), options); }), 0) << outside;
  }
  EXPECT_EQ(error_of([&] { site.export_to("/dev/null/none"); }), ENOTDIR);
  EXPECT_EQ(guest.list("/").size(), 0u);

  InstanceOptions leading, following;
  leading.listen = following.follow = "unix:" + path("socket");
  Instance leader(path("s"), leading), follower(following);
  EXPECT_EQ(error_of([&] { follower.import_from(path("from")); }), EROFS);
  EXPECT_EQ(reprise_import(nullptr, "x", nullptr), -EBADF);
  EXPECT_EQ(reprise_export(nullptr, "x", nullptr), -EBADF);
}

}  // namespace
