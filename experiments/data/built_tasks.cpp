#include "experiments/data/built_tasks.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "nn/files/atomic.h"
#include "tensor/error.h"
#include "tensor/hash.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

// A task as bytes: numbers as the machine has them, since a file does not leave it, and texts after
// their lengths.
struct Writer {
  std::string out;
  template <class T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void operator()(const T& x) { out.append(reinterpret_cast<const char*>(&x), sizeof x); }
  void operator()(const std::string& text) {
    (*this)(std::uint64_t{text.size()});
    out += text;
  }
  template <class T>
  void operator()(const std::vector<T>& all) {
    (*this)(std::uint64_t{all.size()});
    for (const T& x : all) (*this)(x);
  }
  void operator()(const Example& e) { each(*this, e); }
  template <class F, class E>
  static void each(F& f, E& e) {
    f(e.a), f(e.b), f(e.label), f(e.score), f(e.id);
  }
};

// Throws nothing: what ends too soon is not `whole`.
struct Reader {
  std::string_view in;
  bool whole = true;
  std::string_view take(std::uint64_t n) {
    if (n > in.size()) whole = false, n = 0;
    const std::string_view taken = in.substr(0, n);
    in.remove_prefix(n);
    return taken;
  }
  template <class T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void operator()(T& x) {
    const std::string_view from = take(sizeof x);
    if (!from.empty()) std::memcpy(&x, from.data(), sizeof x);
  }
  void operator()(std::string& text) {
    std::uint64_t size = 0;
    (*this)(size);
    text = take(size);
  }
  template <class T>
  void operator()(std::vector<T>& all) {
    std::uint64_t size = 0;
    (*this)(size);
    for (; whole && size > 0; --size) (*this)(all.emplace_back());
  }
  void operator()(Example& e) { Writer::each(*this, e); }
};

template <class F, class Task>
void each_part(F& f, Task& task) {
  f(task.name), f(task.kind), f(task.pair), f(task.joined), f(task.labels), f(task.train);
  f(task.dev), f(task.test), f(task.metric), f(task.note), f(task.prefix), f(task.fields);
  f(task.words);
}

std::uint64_t hash_of(std::string_view bytes) {
  Hash h;
  h.bytes(bytes.data(), bytes.size());
  return h.value();
}

// What a kept file must have been made of.
std::string sources(const std::string& name, const fs::path& wordnet, const fs::path& packages) {
  std::vector<std::string> files;
  for (const fs::path& folder : {wordnet, packages}) {
    std::error_code missing;
    for (auto at = fs::recursive_directory_iterator(folder, missing);
         !missing && at != fs::recursive_directory_iterator(); at.increment(missing))
      if (at->is_regular_file(missing))
        files.push_back(fmt::format("{} {} {}", at->path().string(), at->file_size(missing),
                                    at->last_write_time(missing).time_since_epoch().count()));
  }
  std::ranges::sort(files);
  return fmt::format("graft task {} {}\n{}\n", kTasksVersion, name, fmt::join(files, "\n"));
}

std::optional<TaskData> kept(const fs::path& file, const std::string& head) {
  std::error_code ignored;
  if (!fs::is_regular_file(file, ignored)) return std::nullopt;
  std::string all;
  try {
    all = read_file(file);
  } catch (const Error&) {
    return std::nullopt;
  }
  if (!all.starts_with(head)) return std::nullopt;
  Reader reader{std::string_view(all).substr(head.size())};
  std::uint64_t hash = 0;
  reader(hash);
  if (!reader.whole || hash != hash_of(reader.in)) return std::nullopt;
  TaskData task;
  each_part(reader, task);
  if (!reader.whole || !reader.in.empty()) return std::nullopt;
  return task;
}

}  // namespace

std::uint64_t hash_of(const TaskData& task) {
  Writer writer;
  each_part(writer, task);
  return hash_of(std::string_view(writer.out));
}

TaskData built_task(const std::string& name, const fs::path& wordnet, const fs::path& packages,
                    const fs::path& folder) {
  const std::string head = sources(name, wordnet, packages);
  const fs::path file = folder / (name + ".task");
  if (std::optional<TaskData> task = kept(file, head)) return *std::move(task);
  TaskData task = build_task(name, WordNet::load(wordnet), packages);
  Writer writer;
  each_part(writer, task);
  Writer hash;
  hash(hash_of(std::string_view(writer.out)));
  try {
    fs::create_directories(folder);
    write_file_atomically(file, head + hash.out + writer.out);
  } catch (
      const std::exception&) {  // no room, or not ours to write: the task is there all the same
  }
  return task;
}

}  // namespace graft
