// RunSpec as JSON, and what it means on one kind of model.
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/runs/computing.h"
#include "experiments/runs/finetune.h"

namespace graft {

RunSpec RunSpec::on(const Arch& arch) const {
  RunSpec s = *this;
  (void)checkpoint_named(checkpoint);
  check_compute({s.device, s.compute});
  if (!arch.crosses()) {
    check(head != "text",
          "head=text: a model of family {} has no encoder to read and decoder to "
          "answer; there are linear, dense, cloze and family",
          arch.family);
    if (head.empty()) s.head = "linear";
    return s;
  }
  check(head.empty() || head == "text",
        "head={}: an encoder-decoder ({}) answers in text, so head=text is all there is; leave it "
        "out",
        head, arch.family);
  check(pool == "mean",
        "pool={}: an encoder-decoder ({}) answers in text, and pools no rows; leave "
        "it out",
        pool, arch.family);
  s.head = "text";
  return s;
}

nlohmann::json RunSpec::json() const {
  nlohmann::json j{{"method", method},
                   {"head", head},
                   {"pool", pool},
                   {"optimizer", optimizer},
                   {"schedule", schedule},
                   {"lr", lr},
                   {"decay", decay},
                   {"clip", clip},
                   {"warmup", warmup},
                   {"eps", eps},
                   {"epochs", epochs},
                   {"batch", batch},
                   {"micro", micro},
                   {"seed", seed},
                   {"checkpoint_blocks", checkpoint == "blocks"}};
  // Records are known by their text: what has the standard is left out of it.
  if (checkpoint != "none" && checkpoint != "blocks") j["checkpoint"] = checkpoint;
  if (device != "cpu") j["device"] = device;  // a record without it is of the host
  if (compute != "f32") j["compute"] = compute;
  return j;
}

RunSpec RunSpec::from(const nlohmann::json& j) {
  RunSpec s;
  check(j.is_object(), "run: the configuration is not a JSON object");
  nlohmann::json known = s.json();
  known["device"] = s.device, known["checkpoint"] = s.checkpoint, known["compute"] = s.compute;
  for (const auto& [key, value] : j.items())
    check(known.contains(key), "run: unknown key '{}'; there are {}", key, known.dump());
  const auto get = [&](const char* key, auto& value) {
    if (!j.contains(key)) return;
    using T = std::decay_t<decltype(value)>;
    const nlohmann::json& given = j.at(key);
    bool fits = given.is_number();
    if constexpr (std::is_same_v<T, bool>) fits = given.is_boolean();
    if constexpr (std::is_same_v<T, std::string>) fits = given.is_string();
    if constexpr (std::is_same_v<T, std::uint32_t> || std::is_same_v<T, int>) {
      fits = given.is_number_unsigned()
                 ? std::in_range<T>(given.get<std::uint64_t>())
                 : given.is_number_integer() && std::in_range<T>(given.get<std::int64_t>());
    }
    check(fits, "run: key '{}' has the wrong type or size: {}", key, given.dump());
    given.get_to(value);
  };
  get("method", s.method), get("head", s.head), get("pool", s.pool);
  get("optimizer", s.optimizer), get("schedule", s.schedule);
  get("lr", s.lr), get("decay", s.decay), get("clip", s.clip), get("warmup", s.warmup);
  get("eps", s.eps), get("epochs", s.epochs), get("batch", s.batch), get("micro", s.micro);
  get("seed", s.seed), get("device", s.device);
  get("compute", s.compute);
  check_compute({s.device, s.compute});
  bool blocks = false;
  get("checkpoint_blocks", blocks);
  if (blocks) s.checkpoint = "blocks";
  const std::string before = s.checkpoint;
  get("checkpoint", s.checkpoint);
  check(!blocks || s.checkpoint == before,
        "run: checkpoint_blocks is true and checkpoint '{}'; give one of them", s.checkpoint);
  (void)checkpoint_named(s.checkpoint);
  check(
      s.warmup >= 0 && s.warmup < 1 && s.clip >= 0 && s.decay >= 0 && s.eps > 0 &&
          std::isfinite(s.clip + s.decay + s.eps),
      "run: warmup {}, clip {}, decay {}, eps {}; need 0 <= warmup < 1, clip and decay of at least "
      "0, eps above 0",
      s.warmup, s.clip, s.decay, s.eps);
  check(s.lr > 0 && std::isfinite(s.lr) && s.epochs > 0 && s.batch > 0 && s.micro >= 0,
        "run: lr {}, epochs {}, batch {}, micro {}; rates and counts must be above 0", s.lr,
        s.epochs, s.batch, s.micro);
  return s;
}

}  // namespace graft
