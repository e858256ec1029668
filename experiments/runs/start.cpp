#include "experiments/runs/start.h"

#include <algorithm>
#include <set>
#include <sstream>

#include "nn/models/heads.h"
#include "peft/adapterhub.h"
#include "peft/files.h"
#include "tensor/hash.h"

namespace graft {
namespace {

std::string hash_of(const AdapterValues& values) {
  Hash h;
  for (const auto& [name, value] : values) h.word(value.hash());
  return fmt::format("{:016x}", h.value());
}

Start ours(const std::filesystem::path& folder) {
  const AdapterFile file = read_adapter_config(folder);
  Start s;
  s.spec = file.spec, s.values = read_adapter_values(folder);
  for (const char* key : {"head", "pool", "labels"})
    check(file.more.contains(key), "adapter: '{}' lacks '{}' in its configuration", folder.string(),
          key);
  s.labels = file.more.at("labels").get<std::vector<std::string>>();
  s.names_labels = true;
  s.base_hash = file.more.value("base_hash", "");
  for (const auto& [name, value] : s.values)
    if (is_heads(name)) s.head = file.more.at("head"), s.pool = file.more.at("pool");
  return s;
}

// The spec without what a run that adds tasks to a saved adapter may say anew.
std::string without_new_tasks(const std::string& spec) {
  static const std::set<std::string> kAnew{"new", "use", "tokens", "text", "examples"};
  std::string out;
  for (const Options& o : parse_spec(spec)) {
    std::istringstream pairs(o.to_string().substr(o.method().size()));
    out += o.method();
    if (pairs.get(); pairs)  // the colon
      for (std::string pair; std::getline(pairs, pair, ',');)
        if (!kAnew.contains(pair.substr(0, pair.find('=')))) out += "," + pair;
    out += "|";
  }
  return out;
}

bool adds_tasks(const std::string& method, const std::string& saved) {
  return std::ranges::any_of(parse_spec(method), [](const Options& o) { return o.has("new"); }) &&
         without_new_tasks(method) == without_new_tasks(saved);
}

}  // namespace

Start read_start(const std::filesystem::path& folder, const Arch& arch) {
  Start s;
  const bool hub = is_adapterhub_folder(folder);
  if (hub || is_peft_folder(folder)) {
    PeftAdapter read = hub ? read_adapterhub_folder(folder, arch) : read_peft_folder(folder, arch);
    s.spec = read.spec, s.values = std::move(read.values), s.notes = std::move(read.notes);
    s.head = read.head.head, s.rows = read.head.rows, s.base_pooler = read.head.base_pooler;
  } else {
    s = ours(folder);
  }
  s.folder = folder.string();
  s.hash = hash_of(s.values);
  return s;
}

void settle(const Start& s, RunSpec& run, const Given& given) {
  const auto take = [&](std::string& value, const std::string& saved, bool asked,
                        const char* what) {
    if (saved.empty()) return;
    check(!asked || value == saved, "train: --{} {}, but the adapter in '{}' has {}; leave it out",
          what, value, s.folder, saved);
    value = saved;
  };
  if (!given.method || !adds_tasks(run.method, s.spec))
    take(run.method, s.spec, given.method, "method");
  take(run.head, s.head, given.head, "head");
  take(run.pool, s.pool, given.pool, "pool");
}

bool keeps_head(const Start& s, const RunSpec& run, const EncodedTask& task,
                std::vector<std::string>& notes) {
  if (s.head.empty()) {
    if (task.goal != Goal::language && run.head != "cloze")
      notes.push_back("the head is new: the adapter has none");
    return false;
  }
  const std::size_t rows = task.goal == Goal::regression ? 1 : task.labels.size();
  if (task.goal == Goal::language ||
      (s.names_labels ? s.labels != task.labels : s.rows != static_cast<int>(rows))) {
    notes.push_back(fmt::format("the head is new: the adapter's is for {}",
                                s.names_labels ? fmt::format("{}", fmt::join(s.labels, ", "))
                                               : fmt::format("{} classes", s.rows)));
    return false;
  }
  if (!s.names_labels && !task.labels.empty())
    notes.push_back(fmt::format("the folder names no labels: the rows of its head are taken for {}",
                                fmt::join(task.labels, ", ")));
  if (s.pool.empty() && s.head != "family")
    notes.push_back(
        fmt::format("the folder does not say how its head pools: pool={} is taken", run.pool));
  return true;
}

void check_pooler(const Start& s, const Model& base) {
  check(!s.base_pooler || saved_pooler(base),
        "the head in '{}' begins with its base's matrix for pooling, which this base was saved "
        "without; give the base that the adapter was trained on",
        s.folder);
}

void begin_at(const Start& s, const Parameters& parameters, bool with_head) {
  AdapterValues values;
  Parameters filled;
  for (const auto& [name, value] : s.values)
    if (with_head || !is_heads(name)) values[name] = value;
  const auto fills = [&](const Site& site) {
    if (!is_heads(site)) return true;
    return with_head && !(s.base_pooler && site.part == Part::head_dense);
  };
  for (const auto& p : parameters)
    if (fills(p->site) && (!begins_anew(*p) || values.contains(p->label()))) filled.push_back(p);
  set_adapter_values(values, filled, s.folder);
}

}  // namespace graft
