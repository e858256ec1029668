// Small bases of the published families and tasks for them, for tests of whole commands.
#pragma once

#include "tests/experiments/program.h"
#include "tests/experiments/small_language.h"

namespace graft::testing {

inline const char* const kEncoders[] = {"bert", "roberta", "roberta-prelayernorm", "esm"};
inline const char* const kDecoders[] = {"gpt2", "opt", "llama"};

// A base of a published family, shrunk, with the dropouts that it was published with.
inline Arch small(const std::string& family) {
  const bool encoder = std::ranges::find(kEncoders, family) != std::end(kEncoders);
  Arch a = arch_named(family == "esm"                    ? "graft-encoder"
                      : family == "roberta-prelayernorm" ? "roberta-base"
                      : family == "opt"                  ? "opt-125m"
                      : family == "llama"                ? "llama-7b"
                      : encoder                          ? family + "-base"
                                                         : family);
  if (family == "roberta-prelayernorm") a.family = family, a.pre_norm = a.final_norm = true;
  a.layers = 2, a.width = 32, a.heads = a.kv_heads = 4, a.hidden = 48;
  a.vocab = tokenizer().size(), a.positions = 40;
  a.pad = family == "gpt2" ? -1 : 0, a.cls = 2, a.sep = 3, a.mask = encoder ? 4 : -1;
  if (family.starts_with("roberta")) a.position_offset = a.pad + 1;
  return a;
}

// Bases of these families, the task of beasts with single texts and pairs, and stories.
struct Bases {
  Folder folder;
  explicit Bases(const std::vector<std::string>& families) {
    for (const std::string& family : families) {
      SmallModel model(small(family), Dtype::f32, 0.05);
      save_model(model, folder.path / family, FileDtype::f32, &tokenizer());
    }
    write_tsv_task(data(), folder.path / "beasts");
    write_tsv_task(stories(), folder.path / "stories");
  }
  std::string task(const std::string& name) const {
    return "'" + (folder.path / name).string() + "'";
  }
  std::string out(const std::string& name) const {
    return "'" + (folder.path / name).string() + "'";
  }
  Said says(const std::string& arguments) const { return graft_says(folder.path, arguments); }
  // Says it or fails.
  std::string hears(const std::string& arguments) const {
    const Said s = says(arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    REQUIRE(s.status == 0);
    return s.text;
  }
};

inline const std::string kShort = " --epochs 1 --lr 3e-3 --batch 4 ";

}  // namespace graft::testing
