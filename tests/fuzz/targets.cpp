#include "tests/fuzz/targets.h"

#include <unistd.h>

#include <exception>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <typeinfo>

#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestMessage = 40'100;  // 10,000 bytes and a note, each byte as \x00

void check_message(const std::string& message) {
  const bool printable = find_invalid_utf8(message) == std::string::npos &&
                         message.find('\0') == std::string::npos &&
                         message.find('\x1b') == std::string::npos;
  if (message.empty() || message.size() > kLongestMessage || !printable)
    throw std::logic_error("a message of " + std::to_string(message.size()) +
                           " bytes that is no message: " + message);
}

}  // namespace

std::span<const Target> targets() {
  static constexpr Target all[] = {{"safetensors", read_safetensors},
                                   {"tokenizer", read_tokenizer},
                                   {"older_tokenizer", read_older_tokenizer},
                                   {"config", read_config},
                                   {"folder", read_folder},
                                   {"rows", read_rows},
                                   {"task", read_task},
                                   {"adapter", read_adapter},
                                   {"peft", read_peft},
                                   {"adapterhub", read_adapterhub}};
  return all;
}

void run(const Target& target, std::string_view bytes) {
  try {
    target.read(bytes);
  } catch (const Error& error) {
    check_message(error.what());
  } catch (const std::exception& error) {
    throw std::logic_error(std::string("no Error, but ") + typeid(error).name() + ": " +
                           error.what());
  }
}

std::vector<std::string_view> parts(std::string_view bytes, std::size_t count) {
  constexpr std::string_view kBetween = "\n===\n";
  std::vector<std::string_view> all;
  while (all.size() + 1 < count) {
    const std::size_t at = bytes.find(kBetween);
    all.push_back(bytes.substr(0, at));
    bytes = at == std::string_view::npos ? "" : bytes.substr(at + kBetween.size());
  }
  all.push_back(bytes);
  return all;
}

Scratch::Scratch() {
  static const fs::path memory = fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
  static const std::string path = (memory / ("graft_fuzz_" + std::to_string(::getpid()))).string();
  path_ = path;
  fs::remove_all(path_);
  fs::create_directory(path_);
}

Scratch::~Scratch() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void Scratch::put(const char* name, std::string_view bytes) const {
  if (!bytes.empty()) std::ofstream(*this / name, std::ios::binary) << bytes;
}

}  // namespace graft::fuzz
