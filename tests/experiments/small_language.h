// A small language task, and a shelf with a tiny encoder, decoder and encoder-decoder, for tests.
#pragma once

#include <functional>

#include "experiments/data/task_files.h"
#include "nn/models/folder.h"
#include "nn/models/presets.h"
#include "tests/experiments/program.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

namespace graft::testing {

// "wolf" -> a sentence about it.
inline TaskData stories() {
  TaskData t;
  t.name = "stories", t.kind = TaskData::Kind::language, t.pair = true, t.metric = "loss";
  std::uint32_t id = 0;
  for (auto* split : {&t.train, &t.dev, &t.test})
    for (int i = 0; i < (split == &t.train ? 24 : 7); ++i, ++id) {
      const std::string text = sentence(id);
      split->push_back({text.substr(4, text.find(' ', 4) - 4), text, -1, 0, id});
    }
  return t;
}

// A folder with a tiny encoder, decoder and encoder-decoder, and a language task; gone after the
// test.
struct Shelf {
  Folder folder;
  Shelf() {
    for (const char* name : {"encoder", "decoder"}) {
      Arch arch = arch_named(std::string("graft-") + name);
      arch.layers = 2, arch.width = 64, arch.heads = arch.kv_heads = 2, arch.hidden = 64;
      arch.positions = 40, arch.vocab = tokenizer().size();
      Model model(arch, Build{.seed = 5});
      save_model(model, folder / name, FileDtype::f32, &tokenizer());
    }
    Arch text = text_arch();
    text.width = 64, text.head_size = 32;
    Model both(text, Build{.seed = 5});
    save_model(both, folder / "t5", FileDtype::f32, &tokenizer());
    write_tsv_task(stories(), folder / "stories");
  }
  std::function<std::filesystem::path(const std::string&)> bases() const {
    return [this](const std::string& name) { return folder.path / name; };
  }
  std::string task() const { return (folder / "stories").string(); }
};

inline Said graft_says(const Shelf& shelf, const std::string& arguments) {
  return graft_says(shelf.folder.path, arguments);
}

}  // namespace graft::testing
