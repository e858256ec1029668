// graft pretrain, ngram: train a base model on the corpus, and what its loss stands beside.
#include <algorithm>

#include "experiments/cli/cli.h"
#include "experiments/data/wordnet.h"
#include "experiments/pretrain/ngram.h"
#include "experiments/pretrain/pretrain.h"
#include "nn/models/folder.h"
#include "nn/models/presets.h"

namespace graft::cli {
namespace {

// A base's loss on all of the held-out text. An encoder sees none of the tokens that it predicts,
// unlike while it learns.
void base_loss(const std::filesystem::path& folder, const std::filesystem::path& text,
               double masking) {
  check(masking > 0 && masking <= 1, "ngram: masking {}; need 0 < masking <= 1", masking);
  const auto model = load_model(folder);
  const Arch& arch = model->arch();
  const Objective objective = objective_of(arch);
  const int length = arch.learned_positions ? std::min(128, arch.positions) : 128;
  const CorpusWindows windows(text, Tokenizer::load(folder), length, objective);
  const double loss =
      heldout_loss(*model, windows, windows.windows(0, 0), {.rate = masking, .all_masked = true});
  fmt::print("{}  {:.4f} nats per {} token, {} windows of {} tokens\n", folder.string(), loss,
             name(objective), windows.windows(0, 0), length);
}

}  // namespace

void add_pretrain(const Command& app, const Methods& methods) {
  const Command command = app.add_subcommand(
      "pretrain",
      "Train a base model on the corpus: masked (encoder), causal (decoder) or span "
      "(encoder-decoder)");
  static PretrainSpec spec;
  static std::string arch = "graft-encoder", schedule = "trapezoid";
  static std::optional<int> layers;
  const std::filesystem::path data = default_data_dir();
  spec.train = data / "corpus.train.txt";
  spec.heldout = data / "corpus.heldout.txt";
  spec.tokenizer = data / "tokenizer.json";
  command.add_option("--arch", arch, "graft-encoder, graft-decoder, graft-t5, or another preset")
      .capture_default_str();
  command.add_option("--objective", spec.objective,
                     "masked, causal or span; by standard what goes with the architecture");
  command.add_option("--layers", layers,
                     "another depth than the preset's; of an encoder-decoder, of each stack");
  command.add_option("--out", spec.out, "folder of the run; an unfinished run there is resumed")
      .required();
  command.add_option("--train", spec.train).capture_default_str();
  command.add_option("--heldout", spec.heldout).capture_default_str();
  command.add_option("--tokenizer", spec.tokenizer).capture_default_str();
  command.add_option("--start-from", spec.start_from,
                     "model folder of a shallower model: its blocks are stacked");
  command.add_option("--seed", spec.seed).capture_default_str();
  command.add_option("--length", spec.length, "tokens per window").capture_default_str();
  command.add_option("--batch", spec.batch, "windows per step").capture_default_str();
  command
      .add_option("--steps", spec.steps,
                  "more than a run had make it longer: from where its rate had not begun to fall")
      .capture_default_str();
  command.add_option("--lr", spec.lr).capture_default_str();
  command.add_option("--decay", spec.decay).capture_default_str();
  command.add_option("--masking", spec.masking, "part of the tokens that is predicted")
      .capture_default_str();
  command.add_option("--span", spec.span, "tokens in a dropped span, on average")
      .capture_default_str();
  command.add_option("--warmup", spec.warmup, "steps").capture_default_str();
  command.add_option("--schedule", schedule, "trapezoid, linear, cosine or constant")
      .capture_default_str();
  command.add_option("--cooldown", spec.cooldown, "trapezoid: steps of the final fall to 0")
      .capture_default_str();
  command.add_option("--eval-every", spec.eval_every, "steps").capture_default_str();
  command.add_option("--save-minutes", spec.save_minutes).capture_default_str();
  command.add_option("--stop-after", spec.stop_after, "stop, checkpointed, after this step");
  spec.methods = methods;
  command.add_option("--method", spec.method,
                     "edits to learn with from the first step, e.g. qknorm:gate=one; saved as "
                     "OUT/adapter");
  command.callback([] {
    spec.arch = arch_named(arch);
    if (layers) {
      check(*layers >= 1, "pretrain: layers {}; need at least 1", *layers);
      spec.arch.layers = *layers;
      if (spec.arch.crosses()) spec.arch.encoder_layers = *layers;
    }
    spec.schedule = schedule_named(schedule);
    const PretrainResult r = pretrain(spec);
    fmt::print("step {}, held-out loss {:.4f}, weights {:016x}, in {}\n", r.step, r.heldout_loss,
               r.weights_hash, (spec.out / "model").string());
  });
}

void add_ngram(const Command& app) {
  const Command command = app.add_subcommand(
      "ngram", "Held-out loss of unigram to 5-gram models of the corpus, per token");
  static std::filesystem::path data = default_data_dir(), model;
  static double masking = 0.2;
  command.add_option("--data", data).capture_default_str();
  command.add_option("--model", model,
                     "the loss of this base instead, a name or a folder, with its own tokenizer");
  command.add_option("--masking", masking, "part of the tokens that is masked or dropped")
      .capture_default_str();
  command.callback([] {
    if (!model.empty())
      return base_loss(base_folder(model.string()), data / "corpus.heldout.txt", masking);
    const Tokenizer tokenizer = Tokenizer::load(data / "tokenizer.json");
    const CorpusWindows train(data / "corpus.train.txt", tokenizer, 128, Objective::causal);
    const CorpusWindows heldout(data / "corpus.heldout.txt", tokenizer, 128, Objective::causal);
    for (int order = 1; order <= 5; ++order)
      fmt::print("{}-gram  {:.4f} nats per token\n", order,
                 ngram_loss(train.stream(), heldout.stream(), order, tokenizer.size()));
  });
}

}  // namespace graft::cli
