#include "nn/models/heads.h"

#include <algorithm>
#include <set>

#include "nn/models/config.h"
#include "nn/models/family.h"

namespace graft {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kSuffix = "ForSequenceClassification";
constexpr std::size_t kMostLabels = 1 << 20;

std::string default_label(std::size_t i) { return fmt::format("LABEL_{}", i); }

// A key's value, where it is there and not null.
const ordered_json* find(const ordered_json& values, const char* key) {
  const auto at = values.find(key);
  return at == values.end() || at->is_null() ? nullptr : &*at;
}

// The names of id2label in the order of their ids.
std::vector<std::string> names_of(const std::string& file, const json& ids) {
  check(ids.is_object() && !ids.empty(), "{}: id2label is {}; need an object of names by id", file,
        ids.dump());
  check(ids.size() <= kMostLabels, "{}: id2label has {} names; need {} at most", file, ids.size(),
        kMostLabels);
  std::vector<std::string> names(ids.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto at = ids.find(std::to_string(i));
    check(at != ids.end() && at->is_string(), "{}: id2label has {} entries but no name for id {}",
          file, names.size(), i);
    names[i] = *at;
  }
  return names;
}

// transformers takes 2 where neither id2label nor num_labels is there.
std::vector<std::string> labels_of(const std::string& file, const ordered_json& values) {
  const ordered_json *number = find(values, "num_labels"), *ids = find(values, "id2label");
  check(!number || (number->is_number_integer() && *number > 0 && *number <= kMostLabels),
        "{}: num_labels is {}; need 1 to {}", file, number ? number->dump() : "", kMostLabels);
  std::vector<std::string> labels;
  if (ids) {
    labels = names_of(file, *ids);
  } else {
    for (std::size_t i = 0; i < (number ? number->get<std::size_t>() : 2); ++i)
      labels.push_back(default_label(i));
  }
  check(!number || labels.size() == number->get<std::size_t>(),
        "{}: num_labels is {}, id2label has {} names", file, number ? number->dump() : "",
        labels.size());
  check(std::set(labels.begin(), labels.end()).size() == labels.size(),
        "{}: id2label has one name twice: {}", file, fmt::join(labels, ", "));
  const ordered_json* found = find(values, "label2id");
  if (!found) return labels;
  const json back = *found;  // in which a name is found without going through all
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto at = back.is_object() ? back.find(labels[i]) : back.end();
    check(back.is_object() && (at == back.end() || *at == i),
          "{}: id2label gives '{}' id {}, label2id does not", file, labels[i], i);
  }
  return labels;
}

Array& numbers(Weight& w) { return w.parameter().value.value(); }

void copy(const Weight& from, Weight& to) { numbers(to).copy_from(from.value().value()); }

// Row i of `to` becomes the row of the class that has the same name.
void copy_rows(const Weight& from, Weight& to, const std::vector<std::int32_t>& row) {
  const Array& all = from.value().value();
  for (std::size_t i = 0; i < row.size(); ++i) {
    const auto at = static_cast<std::int64_t>(i);
    Array one = numbers(to).slice(0, at, at + 1);
    one.copy_from(all.slice(0, row[i], row[i] + 1));
  }
}

const LinearHead* linear_of(const Model& model) {
  return model.has_head() ? dynamic_cast<const LinearHead*>(&model.head()) : nullptr;
}

// Whether they compute the same when nothing is dropped.
bool same(const HeadForm& a, const HeadForm& b) {
  return a.pool == b.pool && a.dense == b.dense && a.bias == b.bias &&
         (!a.dense || a.activation == b.activation) &&
         (a.pool != Pool::last || a.skip_pad == b.skip_pad);
}

void take_over(const LinearHead& from, LinearHead& to) {
  if (to.dense) {
    copy(from.dense->w, to.dense->w);
    copy(from.dense->b, to.dense->b);
  }
  std::vector<std::int32_t> row{0};
  if (!to.labels.empty()) row.clear();
  for (const std::string& label : to.labels)
    row.push_back(
        static_cast<std::int32_t>(std::ranges::find(from.labels, label) - from.labels.begin()));
  copy_rows(from.out.w, to.out.w, row);
  if (to.out.b) copy_rows(from.out.b, to.out.b, row);
}

}  // namespace

bool is_heads(const Site& site) { return site.part == Part::head || site.part == Part::head_dense; }

bool is_heads(std::string_view label) {
  return label.find(" head ") != std::string_view::npos ||
         label.find(" head_dense ") != std::string_view::npos;
}

std::string labels_in_words(const std::vector<std::string>& labels) {
  if (labels.empty()) return "one value";
  const std::size_t most = std::min<std::size_t>(labels.size(), 8);
  return fmt::format("{}{}", fmt::join(labels.begin(), labels.begin() + std::ptrdiff_t(most), ", "),
                     labels.size() > most ? fmt::format(" and {} more", labels.size() - most) : "");
}

bool has_family_head(const std::string& file, const Family& family, const ordered_json& values) {
  const ordered_json* all = find(values, "architectures");
  if (!all || !all->is_array() || all->empty() || !all->front().is_string()) return false;
  const std::string name = all->front();
  if (!name.ends_with(kSuffix)) return false;
  check(!family.head.architecture.empty(),
        "{}: architectures is {}; of family {} this version reads no head for whole texts: save "
        "it as {}",
        file, name, family.name, family.architecture);
  check(name == family.head.architecture, "{}: architectures is {}; family {} has {}", file, name,
        family.name, family.head.architecture);
  return true;
}

std::optional<HeadConfig> read_head(const std::filesystem::path& config_json) {
  const ordered_json values = config_values(config_json);
  const std::string file = config_json.string();
  const auto type = values.find("model_type");
  check(type != values.end() && type->is_string(), "{}: model_type is missing", file);
  if (!has_family_head(file, family_named(type->get<std::string>()), values)) return std::nullopt;
  HeadConfig head{labels_of(file, values)};
  const ordered_json* problem = find(values, "problem_type");
  const std::string kind = !problem               ? ""
                           : problem->is_string() ? problem->get<std::string>()
                                                  : problem->dump();
  const std::size_t n = head.labels.size();
  check(kind.empty() || (kind == "single_label_classification" && n > 1) ||
            (kind == "regression" && n == 1),
        "{}: problem_type is {} with {} labels; this version follows single_label_classification "
        "of two and more, and regression of one",
        file, kind, n);
  if (n == 1) head.labels.clear();  // transformers takes one label for a value, too
  return head;
}

void write_head(ordered_json& values, const HeadConfig& head) {
  ordered_json names = ordered_json::object(), ids = ordered_json::object();
  std::vector<std::string> labels = head.labels;
  if (labels.empty()) labels.push_back(default_label(0));
  check(labels.size() <= kMostLabels, "config.json: {} classes; need {} at most", labels.size(),
        kMostLabels);
  std::set<std::string> known;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    check(known.insert(labels[i]).second, "config.json: two classes are called '{}'", labels[i]);
    // Behind the others; an insertion by key would go through them all.
    names.get_ref<ordered_json::object_t&>().emplace_back(std::to_string(i), labels[i]);
    ids.get_ref<ordered_json::object_t&>().emplace_back(labels[i], i);
  }
  values["id2label"] = names;
  values["label2id"] = ids;
  values["problem_type"] = head.labels.empty() ? "regression" : "single_label_classification";
}

HeadForm head_form(const Arch& arch) {
  const FamilyHead& head = family_named(arch.family).head;
  check(!head.architecture.empty(),
        "models: family {} has no head of its own for whole texts in this version", arch.family);
  HeadForm form = head.form;
  const double rate = head.dropout ? arch.*head.dropout : 0;
  form.dropout_in *= rate;
  form.dropout *= rate;
  return form;
}

bool head_begins_with_pooler(const Arch& a) {
  const Family& family = family_named(a.family);
  return family.head.form.dense && family.has(Part::pooler) &&
         hf_name(a, {a.stack, -1, Part::pooler}, "weight") ==
             hf_name(a, {a.stack, -1, Part::head_dense}, "weight");
}

const Linear* saved_pooler(const Model& model) {
  if (!head_begins_with_pooler(model.arch())) return nullptr;
  if (model.pooler) return &*model.pooler;
  const LinearHead* head = linear_of(model);
  return head && same(head->form(), head_form(model.arch())) ? &*head->dense : nullptr;
}

void add_saved_head(Model& model, const std::filesystem::path& config_json) {
  const auto saved = read_head(config_json);
  if (!saved) return;
  auto head = std::make_unique<LinearHead>(
      model.build(), model.arch(), static_cast<int>(saved->labels.size()), head_form(model.arch()));
  head->labels = saved->labels;
  model.set_head(std::move(head));
}

std::optional<HeadConfig> head_to_save(const Model& model) {
  if (!model.has_head() || model.head().parameters() == 0) return std::nullopt;
  const LinearHead* head = linear_of(model);
  const Arch& a = model.arch();
  check(head && same(head->form(), head_form(a)),
        "save_model: transformers has no class for this head on family {}; only the family's own "
        "can be saved, or take the head off",
        a.family);
  HeadConfig config{head->labels};
  while (static_cast<int>(config.labels.size()) < head->classes())
    config.labels.push_back(default_label(config.labels.size()));
  return config;
}

bool tells(const Head& head, const std::vector<std::string>& labels) {
  const std::set<std::string> a(head.labels.begin(), head.labels.end()),
      b(labels.begin(), labels.end());
  return a == b && head.labels.size() == labels.size();
}

StartedHead start_family_head(const Build& build, const Model& model,
                              const std::vector<std::string>& labels) {
  const HeadForm form = head_form(model.arch());
  StartedHead made{
      std::make_unique<LinearHead>(build, model.arch(), static_cast<int>(labels.size()), form), ""};
  made.head->labels = labels;
  const LinearHead* saved = linear_of(model);
  const bool alike = saved && same(saved->form(), form);
  if (alike && tells(*saved, labels)) {
    take_over(*saved, *made.head);
    made.from = fmt::format("the checkpoint's own, for {}{}", labels_in_words(labels),
                            saved->labels == labels ? "" : "; there in another order");
    return made;
  }
  made.from =
      fmt::format("a new one as {} has it, for {}",
                  family_named(model.arch().family).head.architecture, labels_in_words(labels));
  if (alike)
    made.from += fmt::format("; the checkpoint's is for {}", labels_in_words(saved->labels));
  if (const Linear* pooler = saved_pooler(model)) {
    copy(pooler->w, made.head->dense->w);
    copy(pooler->b, made.head->dense->b);
    made.from += "; its first matrix is the checkpoint's for pooling";
  }
  return made;
}

}  // namespace graft
