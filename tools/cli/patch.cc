#include "tools/cli/patch.h"

#include <fmt/format.h>
#include <sha1.h>
#include <zlib.h>

#include <algorithm>
#include <dtl/dtl.hpp>
#include <iterator>
#include <vector>

#include "base/check.h"

namespace reprise::cli {
namespace {

constexpr size_t kLooksLikeText = 8000;      // bytes in which git looks for a NUL
constexpr size_t kTextMax = 8 << 20;         // bytes of one side that are compared line by line
constexpr size_t kChangedLinesMax = 20'000;  // between the first and the last line that differ, both sides
constexpr size_t kContext = 3;               // lines before and after a change

using Lines = std::vector<std::string_view>;

bool is_text(ByteView bytes) {
  if (bytes.size() > kTextMax) return false;
  ByteView looked_at = bytes.first(std::min(bytes.size(), kLooksLikeText));
  return std::ranges::find(looked_at, std::byte{0}) == looked_at.end();
}

Lines lines_of(ByteView bytes) {
  Lines lines;
  for (std::string_view rest = as_text(bytes); !rest.empty();) {
    size_t end = rest.find('\n');
    size_t length = end == std::string_view::npos ? rest.size() : end + 1;
    lines.push_back(rest.substr(0, length));
    rest.remove_prefix(length);
  }
  return lines;
}

// --- text

struct Line {
  char sign;  // ' ', '-' or '+'
  std::string_view text;
};

// What turns a into b, line by line. Empty if that would take too long to find.
std::vector<Line> edit_script(const Lines& a, const Lines& b) {
  size_t head = 0, tail = 0, shorter = std::min(a.size(), b.size());
  while (head < shorter && a[head] == b[head]) head++;
  while (tail < shorter - head && a[a.size() - 1 - tail] == b[b.size() - 1 - tail]) tail++;
  auto middle = [&](const Lines& lines) {
    return Lines(lines.begin() + static_cast<long>(head), lines.end() - static_cast<long>(tail));
  };
  Lines middle_a = middle(a), middle_b = middle(b);
  if (middle_a.size() + middle_b.size() > kChangedLinesMax) return {};

  std::vector<Line> script;
  script.reserve(a.size() + middle_b.size());
  for (size_t i = 0; i < head; i++) script.push_back({' ', a[i]});
  dtl::Diff<std::string_view, Lines> diff(middle_a, middle_b, true);
  diff.compose();
  for (const auto& [text, info] : diff.getSes().getSequence()) {
    script.push_back({info.type == dtl::SES_ADD ? '+' : info.type == dtl::SES_DELETE ? '-' : ' ', text});
  }
  for (size_t i = a.size() - tail; i < a.size(); i++) script.push_back({' ', a[i]});
  return script;
}

std::string range_text(size_t begin, size_t count) {
  size_t shown = count == 0 ? begin : begin + 1;  // a range of nothing is named by the line before it
  return count == 1 ? fmt::format("{}", shown) : fmt::format("{},{}", shown, count);
}

void append_line(std::string& out, const Line& line) {
  out += line.sign;
  out += line.text;
  if (!line.text.ends_with('\n')) out += "\n\\ No newline at end of file\n";
}

std::string hunks(const std::vector<Line>& script) {
  std::string out;
  size_t line_a = 0, line_b = 0;  // of script[at]
  size_t at = 0;
  auto pass = [&](size_t to) {
    for (; at < to; at++) {
      line_a += script[at].sign != '+';
      line_b += script[at].sign != '-';
    }
  };
  auto is_change = [](const Line& line) { return line.sign != ' '; };
  for (;;) {
    auto first = std::find_if(script.begin() + static_cast<long>(at), script.end(), is_change);
    if (first == script.end()) return out;
    size_t change = static_cast<size_t>(first - script.begin());
    pass(change - std::min(kContext, change - at));
    // To the last change that is followed by a gap longer than two contexts.
    size_t last = change, end = change;
    for (; end < script.size() && end - last <= 2 * kContext; end++) {
      if (is_change(script[end])) last = end;
    }
    end = std::min(last + 1 + kContext, script.size());
    size_t begin = at, begin_a = line_a, begin_b = line_b;
    pass(end);
    out += fmt::format("@@ -{} +{} @@\n", range_text(begin_a, line_a - begin_a),
                       range_text(begin_b, line_b - begin_b));
    for (size_t i = begin; i < end; i++) append_line(out, script[i]);
  }
}

// --- bytes

std::string blob_name(const PatchSide& side) {
  if (side.mode == 0) return std::string(40, '0');
  std::string header = fmt::format("blob {}", side.bytes.size());
  SHA1_CTX sha;
  SHA1Init(&sha);
  SHA1Update(&sha, reinterpret_cast<const uint8_t*>(header.c_str()), header.size() + 1);
  SHA1Update(&sha, reinterpret_cast<const uint8_t*>(side.bytes.data()), side.bytes.size());
  uint8_t digest[SHA1_DIGEST_LENGTH];
  SHA1Final(digest, &sha);
  std::string name;
  for (uint8_t byte : digest) fmt::format_to(std::back_inserter(name), "{:02x}", byte);
  return name;
}

// Deflated, 52 bytes a line, four bytes as five digits of base 85; each line begins with its length.
std::string literal(ByteView bytes) {
  constexpr char kDigits[] =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
  uLongf size = compressBound(bytes.size());
  std::vector<uint8_t> deflated(size);
  int status = compress2(deflated.data(), &size, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size(),
                         Z_BEST_COMPRESSION);
  CHECK(status == Z_OK);
  std::string out = fmt::format("literal {}\n", bytes.size());
  constexpr size_t kLineBytes = 52;
  for (size_t at = 0; at < size; at += kLineBytes) {
    size_t length = std::min<size_t>(kLineBytes, size - at);
    out += static_cast<char>(length <= 26 ? 'A' + length - 1 : 'a' + length - 27);
    for (size_t i = 0; i < length; i += 4) {
      uint32_t word = 0;
      for (size_t j = 0; j < 4; j++) word = word << 8 | (i + j < length ? deflated[at + i + j] : 0);
      char digits[5];
      for (int j = 4; j >= 0; j--) {
        digits[j] = kDigits[word % 85];
        word /= 85;
      }
      out.append(digits, sizeof digits);
    }
    out += '\n';
  }
  return out + '\n';
}

// --- headers

// As git quotes what is not plain.
std::string quoted(const std::string& path) {
  std::string out;
  bool plain = true;
  for (char c : path) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
      plain = false;
    } else if (byte < 0x20 || byte >= 0x7f) {
      fmt::format_to(std::back_inserter(out), "\\{:03o}", byte);
      plain = false;
    } else {
      out += c;
    }
  }
  return plain ? out : '"' + out + '"';
}

std::string header(const PatchSide& before, const PatchSide& after) {
  std::string out = fmt::format("diff --git {} {}\n", quoted("a/" + before.path), quoted("b/" + after.path));
  if (before.mode == 0) {
    out += fmt::format("new file mode {:06o}\n", after.mode);
  } else if (after.mode == 0) {
    out += fmt::format("deleted file mode {:06o}\n", before.mode);
  } else if (before.mode != after.mode) {
    out += fmt::format("old mode {:06o}\nnew mode {:06o}\n", before.mode, after.mode);
  }
  if (before.path != after.path)
    out += fmt::format("rename from {}\nrename to {}\n", quoted(before.path), quoted(after.path));
  return out;
}

// patch(1) takes a name up to the first blank unless a tab follows it.
std::string file_line(const char* sign, const char* prefix, const PatchSide& side) {
  std::string path = side.mode == 0 ? "/dev/null" : quoted(prefix + side.path);
  return fmt::format("{} {}{}\n", sign, path, path.find(' ') == std::string::npos ? "" : "\t");
}

bool same_bytes(ByteView a, ByteView b) {
  return std::ranges::equal(a, b);
}

}  // namespace

std::string patch_of(const PatchSide& before, const PatchSide& after) {
  bool same = same_bytes(before.bytes, after.bytes);
  bool both = before.mode != 0 && after.mode != 0;
  if (same && both && before.mode == after.mode && before.path == after.path) return {};
  std::string out = header(before, after);
  if (same && (both || before.bytes.empty())) {
    if (!both) out += fmt::format("index {}..{}\n", blob_name(before), blob_name(after));
    return out;
  }
  if (is_text(before.bytes) && is_text(after.bytes)) {
    std::vector<Line> script = edit_script(lines_of(before.bytes), lines_of(after.bytes));
    if (!script.empty())
      return out + file_line("---", "a/", before) + file_line("+++", "b/", after) + hunks(script);
  }
  out += fmt::format("index {}..{}\nGIT binary patch\n", blob_name(before), blob_name(after));
  return out + literal(after.bytes) + literal(before.bytes);
}

}  // namespace reprise::cli
