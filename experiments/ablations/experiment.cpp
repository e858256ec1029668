#include "experiments/ablations/experiment.h"

#include <algorithm>

#include "experiments/ablations/adapter_layer_pruning.h"
#include "experiments/ablations/lora_rank_sweep.h"
#include "experiments/ablations/lora_weight_choice.h"
#include "experiments/ablations/method_comparison.h"
#include "experiments/data/metrics.h"
#include "experiments/runs/named_task.h"

namespace graft {

using nlohmann::json;

json Setup::json() const {
  nlohmann::json j{{"base", base},
                   {"weights", weights},
                   {"tasks", tasks},
                   {"rows", {{"train", scale.train}, {"dev", scale.dev}, {"test", scale.test}}},
                   {"epochs", scale.epochs},
                   {"batch", scale.batch},
                   {"seeds", scale.seeds},
                   {"tuning_seeds", scale.tuning_seeds},
                   {"few", few},
                   {"layers", layers},
                   {"width", width},
                   {"text", text},
                   {"decoder", decoder},
                   {"decoder_weights", decoder_weights},
                   {"decoder_width", decoder_width}};
  for (const std::string& task : tasks)
    if (scale.of_task.contains(task)) {
      const Scale::Span own = scale.span(task);
      j["of_task"][task] = {{"train", own.train}, {"epochs", own.epochs}};
    }
  if (where.device != "cpu") j["device"] = where.device;
  if (where.compute != "f32") j["compute"] = where.compute;
  if (!about.empty()) j["about"] = about;
  return j;
}

Setup Setup::from(const nlohmann::json& j) {
  Setup s;
  try {
    j.at("base").get_to(s.base);
    j.at("weights").get_to(s.weights);
    j.at("tasks").get_to(s.tasks);
    s.scale = {j.at("rows").at("train"), j.at("rows").at("dev"), j.at("rows").at("test"),
               j.at("epochs"),           j.at("batch"),          j.at("seeds"),
               j.at("tuning_seeds")};
    const nlohmann::json of_task = j.value("of_task", nlohmann::json::object());
    for (const auto& [task, own] : of_task.items())
      s.scale.of_task[task] = {own.at("train"), own.at("epochs")};
    j.at("few").get_to(s.few);
    j.at("layers").get_to(s.layers);
    j.at("width").get_to(s.width);
    s.text = j.value("text", false);
    s.decoder = j.value("decoder", "");
    s.decoder_weights = j.value("decoder_weights", "");
    s.decoder_width = j.value("decoder_width", 0);
    s.where = {j.value("device", "cpu"), j.value("compute", "f32")};
    s.about = j.value("about", "");
  } catch (const nlohmann::json::exception& error) {
    fail("set-up: {}", error.what());
  }
  return s;
}

bool Setup::is_language(const std::string& task) const {
  if (const auto at = metrics.find(task); at != metrics.end()) return !higher_is_better(at->second);
  const auto kind = kind_if_known(task);
  if (!kind && decoder.empty()) return false;  // without a causal base there was no language task
  check(kind.has_value(),
        "set-up: is task '{}' a language task? Its runs do not say, as older ones do not, and no "
        "such folder is here to tell; put it there, or run them again",
        task);
  return *kind == TaskData::Kind::language;
}

bool Setup::same_bases(const Setup& other) const {
  return weights == other.weights && (decoder_weights.empty() || other.decoder_weights.empty() ||
                                      decoder_weights == other.decoder_weights);
}

std::vector<Experiment> all_experiments() {
  return {adapter_layer_pruning(), lora_rank_sweep(), lora_weight_choice(), method_comparison()};
}

const Experiment& experiment_named(const std::vector<Experiment>& all, const std::string& name) {
  const auto at =
      std::find_if(all.begin(), all.end(), [&](const Experiment& e) { return e.name == name; });
  std::vector<std::string> names;
  for (const Experiment& e : all) names.push_back(e.name);
  check(at != all.end(), "experiment '{}' is unknown; there are {}", name, fmt::join(names, ", "));
  return *at;
}

const char* const kOnRandom = " on a random base (one draw)";
const char* const kForMnli =
    "supersense stands in for MNLI: of which of 38 kinds is what a definition defines? hyper3 (is "
    "one word above, below or beside the other?) is nearer to it, and is run by --task hyper3.";

json arm_config(const Setup& s, const std::string& task, const std::string& method) {
  const Scale::Span span = s.scale.span(task);
  return {{"base", s.base},
          {"task", task},
          {"rows", {{"train", span.train}, {"dev", s.scale.dev}, {"test", s.scale.test}}},
          {"method", method},
          {"epochs", span.epochs},
          {"batch", s.scale.batch}};
}

std::vector<PlannedArm> baseline_arms(const Setup& s, const std::string& task,
                                      const std::string& method, double middle) {
  const auto untrained = [&](const std::string& name) {
    json config = arm_config(s, task, name);
    config.erase("epochs"), config.erase("batch");
    return config;
  };
  json random = arm_config(s, task, method);
  random["base"] = s.base + "@random";
  const std::string features = fmt::format("features:layer={},pool=mean,model=linear", s.layers);
  std::vector<PlannedArm> arms;
  const auto add = [&](const std::string& label, json config, const std::string& group,
                       double centre) {
    arms.push_back({label, std::move(config), group, centre, true, "", label});
  };
  add("full fine-tuning", arm_config(s, task, "full"), "full", 3.16e-4);
  add("majority", untrained("majority"), "", 0);
  add("bag of words", untrained(kTunedWords), "", 0);
  add("features", untrained(features), "", 0);
  if (s.text)
    add(base_floor(s), untrained("frozen"), "", 0);
  else
    add(base_floor(s), arm_config(s, task, "head"), "head", 1e-2);
  add("the method on a random base", random, "random base", middle);
  arms[3].shown = fmt::format("features of layer {}, linear model", s.layers);
  if (s.text) arms[4].shown = "the base, nothing trained, by its answers' likelihood";
  arms[5].shown = method + kOnRandom;
  return arms;
}

std::string base_floor(const Setup& s) { return s.text ? "nothing trained" : "head only"; }

double margin_over_words(const std::string& task) {
  return task == "hyper3" ? 8 : task == "acceptability_wn" ? 10 : 0;
}

std::vector<Weighed> difference(const std::string& task, const std::string& a,
                                const std::string& b) {
  return {{task, a, 100}, {task, b, -100}};
}

}  // namespace graft
