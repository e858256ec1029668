// graft eval, merge: adapters that were trained, and models with a head.
#include <numeric>

#include "experiments/cli/cli.h"
#include "experiments/cli/loaded.h"
#include "experiments/cli/on_device.h"
#include "experiments/data/metrics.h"
#include "experiments/harness/progress.h"
#include "experiments/runs/exact_match.h"
#include "experiments/runs/finetune.h"
#include "experiments/runs/named_task.h"
#include "experiments/runs/out_folder.h"
#include "experiments/runs/run_parts.h"
#include "nn/lm_batch.h"
#include "nn/models/folder.h"
#include "nn/models/heads.h"
#include "peft/files.h"
#include "peft/folder.h"
#include "peft/merge_report.h"
#include "peft/routed.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;

struct EvalOptions {
  std::string adapter, model, task, split = "test";
  std::vector<std::string> adapters;  // NAME=FOLDER
  bool write = false;
  int max_tokens = EncodeSpec{}.max_tokens;
  Computing computing;
};

struct MergeOptions {
  std::string adapter, out, task, rows, dtype = "f32";
  bool without_head = false;
};

// Another model is never written over: it may be a base that adapters need.
void check_free(const MergeOptions& o) {
  check(!fs::exists(fs::path(o.out) / "config.json"),
        "merge: '{}' holds a model already; give another --out", o.out);
}

void save_merged(Model& model, const fs::path& base, const MergeOptions& o) {
  const Tokenizer tokenizer = Tokenizer::load(base);
  const FileDtype dtype = o.dtype == "f16"    ? FileDtype::f16
                          : o.dtype == "bf16" ? FileDtype::bf16
                                              : FileDtype::f32;
  save_model(model, o.out, dtype, &tokenizer, base);
}

// Its own task, or another with its labels.
TaskFor with_task(const std::string& other) {
  return [other](const AdapterFile& file, const Model& model, const fs::path& base) {
    return task_of(file, other, model, base);
  };
}

// Several adapters of one base, each with its head and its task's rows, in mixed batches.
struct Several {
  std::unique_ptr<Model> model;
  std::vector<TaskOf> tasks;
  std::unique_ptr<Routed> routed;
};

Several load_several(const std::vector<std::string>& given, const Methods& methods, Device device) {
  Several l;
  std::vector<Routed::Route> routes;
  std::vector<std::string> folders;
  std::uint64_t hash = 0;
  fs::path base;
  for (const std::string& one : given) {
    const std::size_t at = one.find('=');
    check(at != std::string::npos && at > 0,
          "eval: --adapter {}; each has a name: --adapter NAME=FOLDER", one);
    folders.push_back(one.substr(at + 1));
    const AdapterFile file = read_whole_config(folders.back());
    if (!l.model) {
      base = base_folder(file.more.at("model"));
      l.model = load_model(base);
      hash = l.model->hash();
      l.model->move_to(device);
    }
    check_base(file, folders.back(), hash, base);
    l.tasks.push_back(task_of(file, "", *l.model, base));
    const EncodedTask& task = l.tasks.back().task;
    check(task.goal != Goal::language && !task.text(),
          "eval: adapter '{}' writes text; several go together that have a head each", one);
    routes.push_back({one.substr(0, at), file.spec});
  }
  l.routed = std::make_unique<Routed>(methods, routes, *l.model);
  for (int i = 0; i < l.routed->size(); ++i) {
    const TaskOf& t = l.tasks[static_cast<std::size_t>(i)];
    l.routed->set_head(i, make_head(t.task, t.run, *l.model));
    Parameters all = l.routed->at(i).stored();  // constants, too
    const Parameters with_head = l.routed->parameters(i);
    const auto own = static_cast<std::ptrdiff_t>(l.routed->at(i).parameters().size());
    all.insert(all.end(), with_head.begin() + own, with_head.end());
    load_adapter_values(folders[static_cast<std::size_t>(i)], all);
  }
  return l;
}

// "; f1 0.8512, matthews 0.5120"
std::string also(const Score& s) {
  std::string text;
  for (const auto& [name, value] : s.also)
    text += fmt::format("{} {} {:.4f}", text.empty() ? ";" : ",", name, value);
  return text;
}

void eval_several(const EvalOptions& o, const Methods& methods) {
  constexpr std::size_t kAtOnce = 64;
  const Several l = load_several(o.adapters, methods, device_of(o.computing));
  const auto half = computing_in(*l.model, o.computing.compute, l.routed->stored());
  std::vector<EncodedExample> rows;  // of all tasks in turn
  std::vector<std::int32_t> adapter, order;
  const auto split = [&](std::size_t i) -> const std::vector<EncodedExample>& {
    return o.split == "dev" ? l.tasks[i].task.dev : l.tasks[i].task.test;
  };
  std::size_t most = 0;
  for (std::size_t i = 0; i < l.tasks.size(); ++i) most = std::max(most, split(i).size());
  for (std::size_t row = 0; row < most; ++row)
    for (std::size_t i = 0; i < l.tasks.size(); ++i)
      if (row < split(i).size()) {
        order.push_back(static_cast<std::int32_t>(rows.size()));
        rows.push_back(split(i)[row]);
        adapter.push_back(static_cast<std::int32_t>(i));
      }
  NoRecord off;
  std::vector<std::vector<float>> predictions(l.tasks.size());
  RowProgress progress(stderr, rows.size());
  for (std::size_t at = 0; at < rows.size(); at += kAtOnce) {
    const std::size_t count = std::min(kAtOnce, rows.size() - at);
    progress.at(at);
    Batch batch = make_batch(l.tasks[0].task, rows, order, at, count);
    const auto first = adapter.begin() + static_cast<std::ptrdiff_t>(at);
    batch.adapter.assign(first, first + static_cast<std::ptrdiff_t>(count));
    Ctx ctx;
    const auto scores = l.routed->scores(l.routed->forward(batch, ctx), batch, ctx);
    for (std::size_t j = 0; j < count; ++j) {
      const auto which = static_cast<std::size_t>(batch.adapter[j]);
      const Tensor one(Array::of(scores[j], {1, static_cast<std::int64_t>(scores[j].size())}));
      append_predictions(l.tasks[which].task, one, predictions[which]);
    }
  }
  progress.end();
  for (std::size_t i = 0; i < l.tasks.size(); ++i) {
    const EncodedTask& task = l.tasks[i].task;
    const Score s = score_predictions(task, split(i), predictions[i]);
    fmt::print("{}: {} {} {:.4f} on {} examples{}\n", l.routed->name(static_cast<int>(i)), o.split,
               task.metric, turned(task.metric, s.metric), s.rows.size(), also(s));
  }
}

void eval_command(const EvalOptions& o, const Methods& methods) {
  if (!o.adapters.empty()) {
    check(o.adapter.empty() && o.model.empty() && o.task.empty() && !o.write,
          "eval: --adapter NAME=FOLDER, given several times, goes with --split, --device and "
          "--compute alone");
    check(o.split == "dev" || o.split == "test", "eval: split '{}'; there are dev and test",
          o.split);
    return eval_several(o, methods);
  }
  check(o.adapter.empty() != o.model.empty(), "eval: give an adapter's folder, or --model FOLDER");
  check(o.split == "dev" || o.split == "test", "eval: split '{}'; there are dev and test", o.split);
  const Device device = device_of(o.computing);
  check(o.model.empty() || !o.task.empty(), "eval: --model {} needs --task", o.model);
  Loaded l = o.model.empty() ? load_adapted(o.adapter, methods, device, with_task(o.task))
                             : load_model_alone(o.model, device, o.max_tokens, false,
                                                [&](const Model&) { return task_named(o.task); });
  const auto half = computing_in(*l.model, o.computing.compute,
                                 l.adaptation ? l.adaptation->stored() : Parameters{});
  if (o.write) check_writes(*l.model, l.task);
  const auto& examples = o.split == "dev" ? l.task.dev : l.task.test;
  const Score s = with_progress(examples.size(), [&](const RowsDone& done) {
    return evaluate(*l.model, l.task, examples, nullptr, done);
  });
  fmt::print("{} {} {:.4f} on {} examples{}\n", o.split, l.task.metric,
             turned(l.task.metric, s.metric), s.rows.size(), also(s));
  if (!o.write) return;
  const ExactMatch m = with_progress(examples.size(), [&](const RowsDone& done) {
    return exact_match(*l.model, l.task, examples, done);
  });
  fmt::print("{} exact match {:.4f}: {} of {} written answers\n", o.split, m.share(), m.right,
             m.of);
}

constexpr int kCompared = 32;  // rows, before and after merging

// What the model gives for the first rows of dev: its head's scores or, of a language task, the
// vocabulary's at every token that is predicted.
Array outputs(const Loaded& l) {
  const std::size_t rows = std::min<std::size_t>(kCompared, l.task.dev.size());
  const std::vector<EncodedExample> some(l.task.dev.begin(),
                                         l.task.dev.begin() + static_cast<std::ptrdiff_t>(rows));
  std::vector<std::int32_t> order(rows);
  std::iota(order.begin(), order.end(), 0);
  NoRecord off;
  const Batch batch = make_batch(l.task, some, order, 0, rows);
  if (l.task.goal != Goal::language) {
    std::vector<double> all;
    for (const auto& row : output_rows(*l.model, l.task, batch))
      all.insert(all.end(), row.begin(), row.end());
    return Array::of(all);
  }
  Ctx ctx;
  const Sequence s = l.model->forward(batch, ctx);
  return l.model->lm_logits(s, labelled_rows(s, batch), ctx).value();
}

void print_asking(const AdapterFile& file, const Arch& arch, const fs::path& base) {
  check_told("its configuration", file.more);
  const std::string note = how_to_ask(file, arch, Tokenizer::load(base));
  if (!note.empty()) fmt::print("{}\n", note);
}

// An adapter that knows no task, or other texts to compare on: its model writes text.
void merge_alone(const MergeOptions& o, const AdapterFile& file, const Methods& methods) {
  check(file.more.contains("model"), "adapter: '{}' lacks 'model' in its configuration", o.adapter);
  const fs::path base = base_folder(file.more.at("model"));
  const auto model = load_model(base);
  const auto adaptation = load_adapter(o.adapter, methods, *model);
  if (o.rows.empty()) {
    adaptation->merge();
    fmt::print(stderr, "graft: merged without a comparison; --rows FILE, a text on each line\n");
  } else {
    const auto texts = read_texts(o.rows, Tokenizer::load(base), model->arch());
    const auto report = merge_reported(*adaptation, *model, [&] {
      NoRecord off;
      const Batch batch = lm_batch(texts, 0, std::min<int>(kCompared, int(texts.size())));
      Ctx ctx;
      const Sequence s = model->forward(batch, ctx);
      return model->lm_logits(s, labelled_rows(s, batch), ctx).value();
    });
    fmt::print("{}\n", to_string(report));
  }
  save_merged(*model, base, o);
  fmt::print("merged model in {}\n", o.out);
  print_asking(file, model->arch(), base);
}

// The adapter with its task's rows or, where those cannot be read, without any: merging needs none,
// and `no_rows` says why there are none to compare on.
Loaded load_to_merge(const MergeOptions& o, const Methods& methods, std::string& no_rows) {
  return load_adapted(o.adapter, methods, Device::cpu,
                      [&](const AdapterFile& file, const Model& model, const fs::path& base) {
                        if (!o.task.empty()) return task_of(file, o.task, model, base);
                        try {
                          return task_of(file, "", model, base);
                        } catch (const Error& error) {
                          no_rows = error.what();
                          return task_alone(file, model, base);
                        }
                      });
}

void merge_command(const MergeOptions& o, const Methods& methods) {
  check_free(o);
  const AdapterFile file = read_adapter_config(o.adapter);
  const OutFolder out("merge", o.out);  // what cannot be written is found before the work
  if (!file.more.contains("task") || (file.more.value("language", false) && !o.rows.empty())) {
    check(
        o.task.empty(), "merge: --task {}, but {}", o.task,
        o.rows.empty() ? "the adapter knows no task; compare on --rows FILE" : "there are --rows");
    return merge_alone(o, file, methods);
  }
  std::string no_rows;
  Loaded l = load_to_merge(o, methods, no_rows);
  const std::string why = why_not_handed_back(l.run, l.task.goal);
  check(o.without_head || why.empty(),
        "merge: {}, or --without-head saves the model alone (the head stays in the adapter)", why);
  check(o.rows.empty(),
        "merge: --rows is of adapters that write text; the rows of this one's task come by --task");
  const fs::path base = base_folder(file.more.at("model"));
  std::string scores;
  if (no_rows.empty()) {
    const Score before = evaluate(*l.model, l.task, l.task.dev);
    const auto report = merge_reported(*l.adaptation, *l.model, [&] { return outputs(l); });
    fmt::print("{}\n", to_string(report));
    const Score after = evaluate(*l.model, l.task, l.task.dev);
    scores = fmt::format("; dev {} {:.4f} unmerged, {:.4f} merged", l.task.metric,
                         turned(l.task.metric, before.metric), turned(l.task.metric, after.metric));
  } else {
    l.adaptation->merge();
    fmt::print(stderr, "graft: merged without a comparison, for which --task gives rows: {}\n",
               no_rows);
  }
  if (o.without_head) l.model->set_head(nullptr);
  save_merged(*l.model, base, o);
  fmt::print("merged model in {}{}\n", o.out, scores);
  print_asking(file, l.model->arch(), base);
}

}  // namespace

void add_adapter_commands(const Command& app, const Methods& methods) {
  static EvalOptions e;
  static MergeOptions m;
  const Command eval = app.add_subcommand("eval", "Score a saved adapter, or a model with a head");
  eval.add_option("adapter", e.adapter, "the adapter's folder");
  const Option model = eval.add_option("--model", e.model, "a model folder or a base, by itself");
  eval.add_option("--adapter", e.adapters,
                  "NAME=FOLDER, several times: each adapter on its own task's rows, side by side "
                  "in one batch");
  eval.add_option("--task", e.task, "of the model; of an adapter: other rows, the same labels");
  eval.add_option("--split", e.split, "dev or test").capture_default_str();
  eval.add_option("--max-tokens", e.max_tokens, "of the model's texts; an adapter has its own")
      .needs(model)
      .capture_default_str();
  eval.add_flag("--generate", e.write, "of a language task: also count answers written exactly");
  add_computing(eval, e.computing);
  eval.callback([&] { eval_command(e, methods); });

  const Command merge =
      app.add_subcommand("merge", "Fold an adapter into its base; save a model folder");
  merge.add_option("adapter", m.adapter, "the adapter's folder").required();
  merge.add_option("--out", m.out).required();
  merge.add_option("--task", m.task, "where the rows to compare on are; else as in training");
  merge.add_option("--rows", m.rows, "texts to compare on, of an adapter that writes text");
  merge.add_option("--dtype", m.dtype, "of the file")
      .one_of({"f32", "f16", "bf16"})
      .capture_default_str();
  merge.add_flag("--without-head", m.without_head, "leave the task's head out");
  merge.callback([&] { merge_command(m, methods); });
}

}  // namespace graft::cli
