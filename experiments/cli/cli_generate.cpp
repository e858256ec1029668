// graft generate: text from a decoder or an encoder-decoder, with or without an adapter.
#include <fstream>
#include <string_view>

#include "experiments/cli/cli.h"
#include "nn/generate.h"
#include "nn/models/folder.h"
#include "nn/models/generation.h"
#include "peft/files.h"
#include "peft/folder.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;

struct GenerateOptions {
  std::string model = "decoder", adapter, prompt_file;
  std::vector<std::string> prompts, stop;
  std::string until = "no_better";
  GenerateSpec spec;
};

// Prints text as it comes; bytes of a character that is not whole yet wait.
class Printer {
 public:
  explicit Printer(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  void token(std::int32_t id) {
    ids_.push_back(id);
    const std::string text = tokenizer_.decode(ids_, true);
    const std::size_t end = whole(text);
    if (end <= shown_) return;
    fmt::print("{}", text.substr(shown_, end - shown_));
    std::fflush(stdout);
    shown_ = end;
  }
  void end() {
    fmt::print("{}\n", tokenizer_.decode(ids_, true).substr(shown_));
    std::fflush(stdout);
  }

 private:
  // How much of a text stands before the unfinished character at its end, which decode shows as
  // U+FFFD.
  static std::size_t whole(std::string_view text) {
    while (text.ends_with("\xef\xbf\xbd")) text.remove_suffix(3);
    return text.size();
  }

  const Tokenizer& tokenizer_;
  std::vector<int> ids_;
  std::size_t shown_ = 0;
};

struct Writer {
  fs::path folder;  // of the model
  std::unique_ptr<Model> model;
  std::unique_ptr<Adaptation> adaptation;
  std::unique_ptr<Tokenizer> tokenizer;
  // The prompt ends with the end token: an adapter was trained to answer such, and an encoder reads
  // all its texts so.
  bool asks = false;
};

Writer load(const GenerateOptions& o, const Methods& methods) {
  Writer w;
  std::string base = o.model;
  AdapterFile file;
  if (!o.adapter.empty()) {
    file = read_adapter_config(o.adapter);
    check(file.more.value("language", false) || file.more.value("text", false),
          "generate: adapter '{}' was trained for labels, not for text; graft eval scores it",
          o.adapter);
    for (const char* key : {"model", "base_hash"})
      check(file.more.contains(key), "generate: adapter '{}' lacks '{}'", o.adapter, key);
    base = file.more.at("model");
    w.asks = !file.more.value("joined", false);
  }
  const fs::path folder = w.folder = base_folder(base);
  w.model = load_model(folder);
  w.asks |= w.model->arch().crosses();
  w.tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(folder));
  if (o.adapter.empty()) return w;
  w.adaptation = load_adapter(o.adapter, methods, *w.model);
  return w;
}

std::vector<std::string> prompts_of(const GenerateOptions& o) {
  std::vector<std::string> all = o.prompts;
  if (!o.prompt_file.empty()) {
    std::ifstream file(o.prompt_file);
    check(file.good(), "generate: cannot read '{}'", o.prompt_file);
    for (std::string line; std::getline(file, line);)
      if (!line.empty()) all.push_back(line);
    check(all.size() > o.prompts.size(), "generate: '{}' has no prompt; one stands on each line",
          o.prompt_file);
  }
  check(!all.empty(), "generate: no prompt; give --prompt or --prompt-file");
  return all;
}

const char* why(Generated::End end) {
  return end == Generated::End::positions ? " [the model has no more positions]" : "";
}

void generate_command(GenerateOptions o, const Methods& methods) {
  const Writer w = load(o, methods);
  const Arch& arch = w.model->arch();
  for (const std::string& text : o.stop) o.spec.stop.push_back(w.tokenizer->id(text));
  const GenerationFile says = read_generation(w.folder);
  if (o.stop.empty()) o.spec.stop.insert(o.spec.stop.end(), says.stop.begin(), says.stop.end());
  if (o.spec.stop.empty() && arch.sep >= 0) o.spec.stop.push_back(arch.sep);
  if (!says.settings.empty())
    fmt::print(stderr, "graft: the folder asks for {}; only options count here, see --help\n",
               fmt::join(says.settings, ", "));
  std::vector<std::vector<std::int32_t>> ids;
  const std::vector<std::string> prompts = prompts_of(o);
  for (const std::string& prompt : prompts) {
    ids.push_back(prompt_tokens(arch, *w.tokenizer, prompt));
    if (w.asks) ids.back().push_back(arch.sep);
  }
  const bool streams = prompts.size() == 1 && o.spec.beams == 1;
  Printer printer(*w.tokenizer);
  const auto answers = generate(*w.model, ids, o.spec, [&](int, std::int32_t token) {
    if (streams) printer.token(token);
  });
  if (streams) {
    printer.end();
    if (*why(answers[0].end)) fmt::print(stderr, "graft:{}\n", why(answers[0].end));
    return;
  }
  for (std::size_t i = 0; i < answers.size(); ++i)
    fmt::print("{}\n  -> {}{}\n", prompts[i],
               w.tokenizer->decode(
                   std::vector<int>(answers[i].tokens.begin(), answers[i].tokens.end()), true),
               why(answers[i].end));
}

}  // namespace

void add_generate(CLI::App& app, const Methods& methods) {
  static GenerateOptions o;
  CLI::App* c = app.add_subcommand(
      "generate", "Text from a decoder or an encoder-decoder, with or without an adapter");
  auto* model =
      c->add_option("--model", o.model, "a base's name or a model folder")->capture_default_str();
  c->add_option(
       "--adapter", o.adapter,
       "an adapter of a language task, or of any for an encoder-decoder; it names its model")
      ->excludes(model);
  c->add_option("--prompt", o.prompts, "may be given several times");
  c->add_option("--prompt-file", o.prompt_file, "one prompt on each line");
  c->add_option("--max-tokens", o.spec.max_tokens, "new ones")->capture_default_str();
  c->add_option("--min-tokens", o.spec.min_tokens)->capture_default_str();
  c->add_option("--stop", o.stop, "tokens that end an answer; else the model's end token");
  c->add_flag("--sample", o.spec.sample, "draw tokens; else the likeliest is taken");
  c->add_option("--temperature", o.spec.temperature)->capture_default_str();
  c->add_option("--top-k", o.spec.top_k, "0 for all")->capture_default_str();
  c->add_option("--top-p", o.spec.top_p)->capture_default_str();
  c->add_option("--seed", o.spec.seed)->capture_default_str();
  c->add_option("--beams", o.spec.beams)->capture_default_str();
  c->add_option("--length-penalty", o.spec.length_penalty)->capture_default_str();
  c->add_option("--until", o.until,
                "beam search ends when: no_better (guessed), beams_full, never_better (sure)")
      ->check(CLI::IsMember({"no_better", "beams_full", "never_better"}))
      ->capture_default_str();
  c->add_option("--no-repeat-ngram", o.spec.no_repeat_ngram, "0 to allow all")
      ->capture_default_str();
  c->add_option("--repetition-penalty", o.spec.repetition_penalty)->capture_default_str();
  c->callback([&] {
    using Until = GenerateSpec::Until;
    o.spec.until = o.until == "no_better"    ? Until::no_better
                   : o.until == "beams_full" ? Until::beams_full
                                             : Until::never_better;
    generate_command(o, methods);
  });
}

}  // namespace graft::cli
