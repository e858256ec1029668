// What a run over several tasks is asked for, as text and JSON.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/runs/multitask.h"
#include "experiments/runs/multitask_parts.h"

namespace graft {
namespace {

double standard_rate(WeightSpec::Kind kind) {
  return kind == WeightSpec::Kind::metaweighting ? 0.1 : 0.025;
}

// What a way of weighing does not read may be what is standard, as records have it, but nothing
// else.
void check_read(const MultitaskSpec& s, WeightSpec::Kind kind) {
  const MultitaskSpec standard;
  const auto idle = [&](const char* key, double value) {
    check(reads(s.weights, key),
          "multitask: {} {} with weights {}, which do not read it; it is of {}", key, value,
          s.weights, readers_of(key));
  };
  if (s.weight_rate != 0 && s.weight_rate != standard_rate(kind))
    idle("weight_rate", s.weight_rate);
  if (s.gradnorm_alpha != standard.gradnorm_alpha) idle("gradnorm_alpha", s.gradnorm_alpha);
  if (s.query != standard.query) idle("query", s.query);
}

}  // namespace

std::string readers_of(const std::string& key) {
  if (key == "query") return "metaweighting";
  if (key == "gradnorm_alpha") return "gradnorm";
  check(key == "weight_rate", "multitask: '{}' is a setting of no way of weighing", key);
  return "uncertainty, gradnorm and metaweighting";
}

bool reads(const std::string& weights, const std::string& key) {
  return readers_of(key).find(weights) != std::string::npos;
}

MultitaskSpec MultitaskSpec::settled() const {
  check(run.compute != "f16",
        "multitask: compute f16; there are f32 and bf16: f16's loss is scaled, and the rules would "
        "see scaled gradients");
  MultitaskSpec s = *this;
  const WeightSpec::Kind kind = weights_named(weights);
  const bool uniform = kind == WeightSpec::Kind::uniform;
  if (sampling.empty()) s.sampling = uniform ? "one" : "all";
  check(s.sampling == "one" || s.sampling == "all", "multitask: sampling={}; there are one and all",
        sampling);
  check(uniform || s.sampling == "all",
        "multitask: weights {} compare the tasks' gradients, so a step is of all of them; "
        "sampling=one goes with uniform alone",
        weights);
  check_read(*this, kind);
  if (weight_rate == 0) s.weight_rate = standard_rate(kind);
  check(s.weight_rate > 0 && gradnorm_alpha >= 0 && std::isfinite(s.weight_rate + gradnorm_alpha),
        "multitask: weight rate {}, gradnorm alpha {}; need above 0, and at least 0", weight_rate,
        gradnorm_alpha);
  check(temperature > 0 && std::isfinite(temperature), "multitask: temperature {}; need above 0",
        temperature);
  check(query > 0 && query < 1, "multitask: query {}; need a part between 0 and 1", query);
  return s;
}

nlohmann::json MultitaskSpec::json() const {
  return {{"weights", weights},   {"weight_rate", weight_rate}, {"gradnorm_alpha", gradnorm_alpha},
          {"sampling", sampling}, {"temperature", temperature}, {"query", query},
          {"rules", rules}};
}

MultitaskSpec MultitaskSpec::from(const nlohmann::json& more, const nlohmann::json& run) {
  MultitaskSpec s;
  s.run = RunSpec::from(run);
  check(more.is_object(), "multitask: the configuration is not a JSON object");
  const nlohmann::json known = s.json();
  for (const auto& [key, value] : more.items())
    check(known.contains(key), "multitask: unknown key '{}'; there are {}", key, known.dump());
  const auto get = [&](const char* key, auto& value, bool fits) {
    if (!more.contains(key)) return;
    check(fits, "multitask: key '{}' has the wrong type: {}", key, more.at(key).dump());
    more.at(key).get_to(value);
  };
  const auto is_text = [&](const char* key) { return more.contains(key) && more[key].is_string(); };
  const auto is_number = [&](const char* key) {
    return more.contains(key) && more[key].is_number();
  };
  for (const auto& [key, value] :
       {std::pair{"weights", &s.weights}, std::pair{"sampling", &s.sampling}})
    get(key, *value, is_text(key));
  for (const auto& [key, value] : {std::pair{"weight_rate", &s.weight_rate},
                                   {"gradnorm_alpha", &s.gradnorm_alpha},
                                   {"temperature", &s.temperature},
                                   {"query", &s.query}})
    get(key, *value, is_number(key));
  const bool texts =
      more.contains("rules") && more["rules"].is_array() &&
      std::ranges::all_of(more["rules"], [](const auto& r) { return r.is_string(); });
  get("rules", s.rules, texts);
  return s.settled();
}

std::string spec_for_tasks(const std::string& method, const Methods& methods, int tasks) {
  std::string out;
  for (Options& o : parse_spec(method)) {
    std::string one = o.to_string();
    const auto row = std::ranges::find(methods, o.method(), &Method::name);
    const bool takes = row != methods.end() && row->options.starts_with("tasks=");
    if (takes && !o.has("tasks"))
      one += fmt::format("{}tasks={}", one == o.method() ? ":" : ",", tasks);
    else if (takes)
      check(o.integer("tasks", 1) == tasks, "multitask: {}, but there are {} tasks", one, tasks);
    check(!takes || !o.has("use"), "multitask: {}: batches say their task; leave use= out", one);
    out += (out.empty() ? "" : "|") + one;
  }
  return out;
}

std::string spec_alone(const std::string& method) {
  std::string out;
  for (const Options& o : parse_spec(method)) {
    std::string one = o.method(), keys = o.to_string().substr(one.size());
    // the first key follows a colon, the others commas
    const std::size_t at = std::min(keys.find(":tasks="), keys.find(",tasks="));
    if (at != std::string::npos) {
      const std::size_t end = keys.find(',', at + 1);
      const bool last = end == std::string::npos;
      keys = keys.substr(0, at) + (last ? "" : keys[at] + keys.substr(end + 1));
    }
    out += (out.empty() ? "" : "|") + one + keys;
  }
  return out;
}

std::string spec_of_task(const std::string& method, int task) {
  std::string out;
  for (const Options& o : parse_spec(method)) {
    out += (out.empty() ? "" : "|") + o.to_string();
    if (o.has("tasks")) out += fmt::format(",use={}", task);
  }
  return out;
}

TaskRules rules_of(const MultitaskSpec& spec, const std::vector<EncodedTask>& tasks,
                   const Arch& arch) {
  std::vector<TaskRule> rules;
  for (const std::string& text : spec.rules) {
    std::vector<Options> parsed = parse_spec("rule:" + text);
    check(parsed.size() == 1, "rule '{}': one at a time; give --rule again", text);
    Options& o = parsed[0];
    TaskRule rule;
    // Every key is asked for, given or not, so that finish() can list them.
    if (const std::string name = o.text("task", ""); o.has("task")) {
      const auto at = std::ranges::find(tasks, name, &EncodedTask::name);
      std::vector<std::string> names;
      for (const EncodedTask& t : tasks) names.push_back(t.name);
      check(at != tasks.end(), "rule '{}': no task is called '{}'; there are {}", text, name,
            fmt::join(names, ", "));
      rule.task = static_cast<int>(at - tasks.begin());
    }
    if (const Where where = o.layers(arch); o.has("layers")) {
      rule.first = where.first, rule.last = where.last;
    }
    for (const auto& [key, value] : {std::pair{"lr", &rule.lr},
                                     {"decay", &rule.decay},
                                     {"dropout", &rule.dropout},
                                     {"pull", &rule.pull}})
      if (const double given = o.real(key, 0); o.has(key)) *value = given;
    o.finish();
    // SGD's own decay goes through its momentum, a rule's would not.
    check(!rule.decay || spec.run.optimizer != "sgd",
          "rule '{}': decay= goes with adamw and adafactor, whose decay is apart from the gradient",
          text);
    rules.push_back(rule);
  }
  return TaskRules(std::move(rules));
}

}  // namespace graft
