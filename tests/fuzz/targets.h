// What is fuzzed: one function for each kind of file that comes from elsewhere.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace graft::fuzz {

// Reads the bytes as its kind of file and uses what it got. Returns, or throws graft::Error.
struct Target {
  const char* name;
  void (*read)(std::string_view bytes);
};

std::span<const Target> targets();

// Runs a target and holds it to the contract: it returns, or throws an Error whose message says
// something and can be printed. Anything else comes out as std::logic_error, which says what.
void run(const Target& target, std::string_view bytes);

// Inputs of several files are one text; a line "===" alone stands between two of them. The last
// part goes to the end, whatever it holds; parts that are missing are empty.
std::vector<std::string_view> parts(std::string_view bytes, std::size_t count);

// A folder in memory, the same for every input, emptied before each.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  // A file; none where `bytes` is empty.
  void put(const char* name, std::string_view bytes) const;
  const std::string& path() const { return path_; }
  std::string operator/(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

void read_safetensors(std::string_view);
void read_tokenizer(std::string_view);
void read_older_tokenizer(std::string_view);
void read_config(std::string_view);
void read_folder(std::string_view);
void read_rows(std::string_view);
void read_task(std::string_view);
void read_adapter(std::string_view);
void read_peft(std::string_view);
void read_adapterhub(std::string_view);

}  // namespace graft::fuzz
