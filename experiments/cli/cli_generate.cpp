// graft generate: text from a decoder or an encoder-decoder, with or without an adapter.
#include <string_view>

#include "experiments/cli/cli.h"
#include "experiments/cli/loaded.h"
#include "experiments/cli/on_device.h"
#include "experiments/data/task_folders.h"
#include "nn/generate.h"
#include "nn/models/folder.h"
#include "nn/models/generation.h"
#include "peft/files.h"
#include "peft/folder.h"
#include "peft/routed.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;

struct GenerateOptions {
  std::string model = "decoder", prompt_file;
  std::vector<std::string> adapters, prompts, stop;
  std::string until = "no_better";
  bool alpaca = false;
  GenerateSpec spec;
  Computing computing;
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
  std::unique_ptr<Adaptation> adaptation;  // one for all prompts
  std::unique_ptr<Routed> routed;          // or one for each
  std::unique_ptr<HalfPrecision> half;
  std::unique_ptr<Tokenizer> tokenizer;
  // The prompt ends with the end token: an adapter was trained to answer such, and an encoder reads
  // all its texts so. By adapter; the base's last.
  std::vector<bool> asks;
  bool asks_at(std::int32_t adapter) const {
    return asks[adapter < 0 ? asks.size() - 1 : static_cast<std::size_t>(adapter)];
  }
};

AdapterFile text_adapter(const std::string& folder) {
  AdapterFile file = read_adapter_config(folder);
  check(file.more.value("language", false) || file.more.value("text", false),
        "generate: adapter '{}' was trained for labels, not for text; graft eval scores it",
        folder);
  for (const char* key : {"model", "base_hash"})
    check(file.more.contains(key), "generate: adapter '{}' lacks '{}'", folder, key);
  return file;
}

// Of --adapter NAME=FOLDER, given several times: the names, specs and folders.
void load_routed(Writer& w, const std::vector<std::string>& given, const Methods& methods) {
  std::vector<Routed::Route> routes;
  std::vector<std::string> folders;
  const std::string hash = fmt::format("{:016x}", w.model->hash());
  for (const std::string& one : given) {
    const std::size_t at = one.find('=');
    check(at != std::string::npos && at > 0,
          "generate: --adapter {}; of several each has a name: --adapter NAME=FOLDER", one);
    folders.push_back(one.substr(at + 1));
    const AdapterFile file = text_adapter(folders.back());
    check(file.more.at("base_hash") == hash,
          "generate: adapter '{}' was trained on another base than '{}'", folders.back(),
          w.folder.string());
    routes.push_back({one.substr(0, at), file.spec});
    w.asks.push_back(w.model->arch().crosses() || !file.more.value("joined", false));
  }
  w.routed = std::make_unique<Routed>(methods, routes, *w.model);
  for (int i = 0; i < w.routed->size(); ++i)
    load_adapter_values(folders[static_cast<std::size_t>(i)], w.routed->at(i).stored());
}

// One adapter for all prompts is given as its folder alone.
bool names_one(const std::vector<std::string>& adapters) {
  return adapters.size() == 1 &&
         (adapters[0].find('=') == std::string::npos || fs::exists(adapters[0]));
}

Writer load(const GenerateOptions& o, const Methods& methods) {
  const Device device = device_of(o.computing);
  Writer w;
  std::string base = o.model;
  AdapterFile file;
  if (!o.adapters.empty()) {
    const std::string& first = o.adapters[0];
    file = text_adapter(names_one(o.adapters) ? first : first.substr(first.find('=') + 1));
    base = file.more.at("model");
  }
  const fs::path folder = w.folder = base_folder(base);
  w.model = load_model(folder);
  w.model->move_to(device);
  w.tokenizer = std::make_unique<Tokenizer>(Tokenizer::load(folder));
  const bool crosses = w.model->arch().crosses();
  if (names_one(o.adapters)) {
    w.adaptation = load_adapter(o.adapters[0], methods, *w.model);
    w.half = computing_in(*w.model, o.computing.compute, w.adaptation->stored());
    w.asks = {crosses || !file.more.value("joined", false)};
    return w;
  }
  if (!o.adapters.empty()) load_routed(w, o.adapters, methods);
  w.half =
      computing_in(*w.model, o.computing.compute, w.routed ? w.routed->stored() : Parameters{});
  w.asks.push_back(crosses);
  return w;
}

// NAME<tab>prompt, where there are several adapters: takes the name off.
std::int32_t adapter_of(const Routed& routed, std::string& prompt) {
  const std::size_t tab = prompt.find('\t');
  check(tab != std::string::npos,
        "generate: prompt '{}' names no adapter; of several, a prompt is the adapter's name (or "
        "base), a tab, and its text",
        prompt);
  const std::int32_t index = routed.index(prompt.substr(0, tab));
  prompt.erase(0, tab + 1);
  return index;
}

std::vector<std::string> prompts_of(const GenerateOptions& o) {
  std::vector<std::string> all = o.prompts;
  if (!o.prompt_file.empty()) {
    for (auto& [line, number] : read_text_lines("generate", o.prompt_file))
      if (!line.empty()) all.push_back(std::move(line));
    check(all.size() > o.prompts.size(), "generate: '{}' has no prompt; one stands on each line",
          o.prompt_file);
  }
  check(!all.empty(), "generate: no prompt; give --prompt or --prompt-file");
  return all;
}

// INSTRUCTION or INSTRUCTION<tab>INPUT, as training on a task in Alpaca's format shows it.
std::string in_alpaca_form(const std::string& prompt) {
  const std::size_t tab = prompt.find('\t');
  const std::string instruction = prompt.substr(0, tab);
  check(!instruction.empty(), "generate: prompt '{}' has no instruction before its tab", prompt);
  return alpaca_prompt(instruction, tab == std::string::npos ? "" : prompt.substr(tab + 1));
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
  std::vector<std::string> prompts = prompts_of(o);
  const int end = end_token(arch, *w.tokenizer);
  for (std::string& prompt : prompts) {
    std::string text = prompt;
    const std::int32_t adapter = w.routed ? adapter_of(*w.routed, text) : -1;
    if (w.routed) o.spec.adapter.push_back(adapter);
    ids.push_back(prompt_tokens(arch, *w.tokenizer, o.alpaca ? in_alpaca_form(text) : text));
    if (w.asks_at(adapter)) {
      check(end >= 0, "generate: the adapter was asked with an end token, which '{}' lacks",
            w.folder.string());
      ids.back().push_back(end);
    }
    // Shown with its adapter's name: one text may be put to several.
    if (w.routed) prompt.replace(prompt.find('\t'), 1, ": ");
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

void add_generate(const Command& app, const Methods& methods) {
  static GenerateOptions o;
  const Command c = app.add_subcommand(
      "generate", "Text from a decoder or an encoder-decoder, with or without an adapter");
  const Option model =
      c.add_option("--model", o.model, "a base's name or a model folder").capture_default_str();
  c.add_option(
       "--adapter", o.adapters,
       "an adapter of a language task, or of any for an encoder-decoder; it names its model. Or "
       "several, NAME=FOLDER each: a prompt is then NAME, a tab, and its text")
      .excludes(model);
  c.add_option("--prompt", o.prompts, "may be given several times");
  c.add_option("--prompt-file", o.prompt_file, "one prompt on each line");
  c.add_flag("--alpaca", o.alpaca,
             "prompts are instructions, each with a tab and its input behind it if it has one; put "
             "into Alpaca's form, in which training on such a task saw them");
  c.add_option("--max-tokens", o.spec.max_tokens, "new ones").capture_default_str();
  c.add_option("--min-tokens", o.spec.min_tokens).capture_default_str();
  c.add_option("--stop", o.stop, "tokens that end an answer; else the model's end token");
  c.add_flag("--sample", o.spec.sample, "draw tokens; else the likeliest is taken");
  c.add_option("--temperature", o.spec.temperature).capture_default_str();
  c.add_option("--top-k", o.spec.top_k, "0 for all").capture_default_str();
  c.add_option("--top-p", o.spec.top_p).capture_default_str();
  c.add_option("--seed", o.spec.seed).capture_default_str();
  c.add_option("--beams", o.spec.beams).capture_default_str();
  c.add_option("--length-penalty", o.spec.length_penalty).capture_default_str();
  c.add_option("--until", o.until,
               "beam search ends when: no_better (guessed), beams_full, never_better (sure)")
      .one_of({"no_better", "beams_full", "never_better"})
      .capture_default_str();
  c.add_option("--no-repeat-ngram", o.spec.no_repeat_ngram, "0 to allow all").capture_default_str();
  c.add_option("--repetition-penalty", o.spec.repetition_penalty).capture_default_str();
  add_computing(c, o.computing);
  c.callback([&] {
    using Until = GenerateSpec::Until;
    o.spec.until = o.until == "no_better"    ? Until::no_better
                   : o.until == "beams_full" ? Until::beams_full
                                             : Until::never_better;
    generate_command(o, methods);
  });
}

}  // namespace graft::cli
