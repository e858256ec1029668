// Prompts in PEFT's folders. Of all but ADAPTION_PROMPT a folder holds what the method comes to and
// not what it trained, as `prompt_embeddings`:
//
//   PROMPT_TUNING    [V, d]           the rows. In SEQ_2_SEQ_LM [2 V, d], of which PEFT 0.21 reads
//   P_TUNING         [V, d]           the first V, in the encoder; so do we
//   PREFIX_TUNING    [V, 2 L d_kv]    of layer l the columns from 2 l d_kv on: keys, then values
//   ADAPTION_PROMPT  layers.N.self_attn.adaption_prompt [1, K, d] and .adaption_gate [1]
//
// V = num_virtual_tokens. A head of an encoder's SEQ_CLS class reads the first row, which is the
// prompt's own: pooled=yes here.
#include <algorithm>

#include "nn/models/family.h"
#include "nn/models/heads.h"
#include "peft/peft_folder.h"
#include "peft/prefix.h"
#include "peft/prompt.h"
#include "peft/ptuning.h"

namespace graft {
namespace {

constexpr const char* kRows = "prompt_embeddings";

std::string label(const Site& site, const std::string& name) {
  return to_string(site) + " " + name;
}

Stack first_stack(const Arch& a) { return a.crosses() ? Stack::encoder : a.stack; }

// Its model reads no past.
bool takes_no_prefix(const Arch& a) { return a.family == "esm" || a.family == "distilbert"; }

std::int64_t key_width(const Arch& a) { return std::int64_t{a.kv_heads} * a.head_width(); }

bool pools_first(const Arch& a, const std::string& task) {
  return task == "SEQ_CLS" && head_form(a).pool == Pool::cls;
}

// --- reading ------------------------------------------------------------------------------------

// `prompt_embeddings` of V rows (for each transformer) and this many columns; V is 0 and there is a
// problem where it is not so.
struct Rows {
  Array value;
  int count = 0;
};

Rows take_rows(PeftReading& r, std::int64_t width, std::int64_t token_dim, int copies) {
  const int count = r.get("num_virtual_tokens", 0), dim = r.get("token_dim", 0);
  const auto at = r.tensors.find(kRows);
  if (count < 1 || dim != token_dim)
    r.problem(fmt::format("num_virtual_tokens = {}, token_dim = {}; need at least 1, and {}", count,
                          dim, token_dim));
  if (at == r.tensors.end() || at->second.shape() != Shape{std::int64_t{copies} * count, width}) {
    r.problem(fmt::format("need {} [{}, {}]; the file has {}", kRows, copies * count, width,
                          at == r.tensors.end() ? "none" : fmt::format("{}", at->second.shape())));
    r.tensors.erase(kRows);
    return {};
  }
  Rows rows{at->second, count};
  r.tensors.erase(at);
  return rows;
}

int transformers_of(PeftReading& r) {
  const int standard = r.arch.crosses() ? 2 : 1, n = r.get("num_transformer_submodules", standard);
  if (n < 1 || n > standard)
    r.problem(fmt::format("num_transformer_submodules = {}; the model has {}", n, standard));
  return std::clamp(n, 1, standard);
}

// The rows of an input's prompt, with what PROMPT_TUNING and P_TUNING share.
Rows take_input_rows(PeftReading& r) {
  const int transformers = transformers_of(r);
  r.unused("num_attention_heads num_layers");
  Rows rows = take_rows(r, r.arch.width, r.arch.width, transformers);
  if (rows.count > 0 && transformers == 2) {
    rows.value = rows.value.slice(0, 0, rows.count).clone();
    r.out.notes.push_back(
        "the folder has rows for the decoder, too, which PEFT 0.21 does not read: left out");
  }
  return rows;
}

std::string pooled_option(const PeftReading& r) {
  return pools_first(r.arch, r.out.task_type) ? ",pooled=yes" : "";
}

}  // namespace

void read_peft_prompt(PeftReading& r) {
  r.unused("prompt_tuning_init prompt_tuning_init_text tokenizer_name_or_path tokenizer_kwargs");
  const Rows rows = take_input_rows(r);
  r.out.values[label({first_stack(r.arch), -1, Part::embed}, "prompt")] = rows.value;
  r.out.spec = fmt::format("prompt:length={}{}", rows.count, pooled_option(r));
}

void read_peft_ptuning(PeftReading& r) {
  r.unused(
      "encoder_reparameterization_type encoder_hidden_size encoder_num_layers encoder_dropout");
  const Rows rows = take_input_rows(r);
  r.out.values[label({first_stack(r.arch), -1, Part::embed}, "ptuning.prompt")] = rows.value;
  r.out.spec = fmt::format("ptuning:template={}+a,encoder=none{}", rows.count, pooled_option(r));
  r.out.notes.push_back("the folder has the rows alone, without the encoder that made them");
}

void read_peft_prefix(PeftReading& r) {
  const Arch& a = r.arch;
  r.unused("encoder_hidden_size prefix_projection init_weights");
  if (a.crosses())
    return r.problem(
        "PEFT gives a prefix of an encoder-decoder to its decoder alone, layer i what was made for "
        "layer 2 i, with relative biases: not followed here");
  if (takes_no_prefix(a))
    return r.problem(fmt::format("transformers' {} takes no prefix", a.family));
  const std::int64_t kv = key_width(a);
  transformers_of(r);
  if (r.get("num_layers", a.layers) != a.layers || r.get("num_attention_heads", a.kv_heads) < 1)
    r.problem(
        fmt::format("num_layers = {}; the model has {}", r.get("num_layers", a.layers), a.layers));
  const Rows rows = take_rows(r, 2 * a.layers * kv, kv, 1);
  for (int l = 0; l < a.layers && rows.count > 0; ++l)
    for (const int which : {0, 1}) {
      const std::int64_t from = (2 * l + which) * kv;
      r.out.values[label({a.stack, l, Part::attn}, which == 0 ? "prefix.k" : "prefix.v")] =
          rows.value.slice(1, from, from + kv).clone();
    }
  r.out.spec = fmt::format("prefix:length={}", rows.count);
}

namespace {

constexpr const char* kAttention = "self_attn";

// "model.layers.1.self_attn."
std::string attention_module(const Arch& a, int layer) {
  const std::string q = place_of(a, {a.stack, layer, Part::q}, "weight").module;
  return q.substr(0, q.rfind('.') + 1);
}

constexpr const char* kWhyNotAdaption =
    "PEFT has ADAPTION_PROMPT for LLaMA and GPT-2, and leaves GPT-2's output matrix out: only "
    "LLaMA's is followed here";

}  // namespace

void read_peft_llama_adapter(PeftReading& r) {
  const Arch& a = r.arch;
  if (a.family != "llama") return r.problem(kWhyNotAdaption);
  if (r.out.task_type == "SEQ_CLS")
    r.problem("task_type SEQ_CLS: PEFT saves no head with ADAPTION_PROMPT");
  const int length = r.get("adapter_len", 0), layers = r.get("adapter_layers", 0);
  const std::string target = r.get("target_modules", std::string(kAttention));
  if (length < 1 || layers < 1 || layers > a.layers || target != kAttention)
    return r.problem(fmt::format(
        "adapter_len = {}, adapter_layers = {}, target_modules = {}; need 1 or more, 1..{}, {}",
        length, layers, target, a.layers, kAttention));
  for (int l = a.layers - layers; l < a.layers; ++l) {
    const std::string module = attention_module(a, l);
    const auto prompt = r.tensors.find(module + "adaption_prompt"),
               gate = r.tensors.find(module + "adaption_gate"), none = r.tensors.end();
    if (prompt == none || gate == none || prompt->second.shape() != Shape{1, length, a.width} ||
        gate->second.shape() != Shape{1}) {
      r.problem(fmt::format("{} needs adaption_prompt [1, {}, {}] and adaption_gate [1]", module,
                            length, a.width));
      continue;
    }
    const Site site{a.stack, l, Part::attn};
    r.out.values[label(site, "prompt")] = prompt->second.reshape({length, a.width});
    r.out.values[label(site, "gate")] = gate->second;
    r.tensors.erase(prompt);
    r.tensors.erase(module + "adaption_gate");
  }
  r.out.spec = fmt::format("llama_adapter:length={},gate=linear,layers=top{}", length, layers);
}

// --- writing ------------------------------------------------------------------------------------

namespace {

// The options of a spec of one method, read to the end.
template <class T>
T only_options(const PeftWriting& w) {
  std::vector<Options> all = parse_spec(w.source.spec);
  check(all.size() == 1, "export: '{}' has {} prompts; a folder of PEFT's has one", w.source.spec,
        all.size());
  T options(all[0], w.source.arch);
  all[0].finish();
  return options;
}

Tensor value_at(const PeftWriting& w, const std::string& at) {
  for (const auto& p : w.source.parameters)
    if (p->label() == at) return Tensor(p->value.value());
  fail("export: the adapter has no '{}'", at);
}

Array as_file(const Array& a) { return a.to(Dtype::f32).as_contiguous(); }

void write_sizes(PeftWriting& w, int count, std::int64_t token_dim, int heads) {
  w.config["num_virtual_tokens"] = count;
  w.config["token_dim"] = token_dim;
  w.config["num_attention_heads"] = heads;
  w.config["num_layers"] = w.source.arch.layers;
  w.config["num_transformer_submodules"] = 1;
}

// What PEFT cannot say of rows in a text.
void check_input(const PeftWriting& w, const std::vector<Stack>& stacks, bool pooled) {
  const PeftSource& s = w.source;
  check(stacks == std::vector{first_stack(s.arch)},
        "export: '{}' has rows in the decoder; PEFT has them in the encoder alone", s.spec);
  const bool first = s.head == "family" && pools_first(s.arch, "SEQ_CLS");
  check(!first || pooled,
        "export: '{}': PEFT's head reads the first row, which is the prompt's; need pooled=yes",
        s.spec);
}

}  // namespace

void write_peft_prompt(PeftWriting& w) {
  const auto o = only_options<PromptOptions>(w);
  check_input(w, o.stacks, o.pooled);
  write_sizes(w, o.length, w.source.arch.width, w.source.arch.heads);
  w.config["prompt_tuning_init"] = "RANDOM";
  w.tensors[kRows] = as_file(value_at(w, label({o.stacks[0], -1, Part::embed}, "prompt")).value());
}

void write_peft_ptuning(PeftWriting& w) {
  const auto o = only_options<PtuningOptions>(w);
  check_input(w, o.stacks, o.pooled);
  check(o.place.at_start(),
        "export: template={}; PEFT has rows at the start alone, as in template={}+a", o.place.text,
        o.place.rows());
  write_sizes(w, o.place.rows(), w.source.arch.width, w.source.arch.heads);
  w.config["encoder_reparameterization_type"] = o.encoder == "lstm" ? "LSTM" : "MLP";
  w.config["encoder_hidden_size"] = o.hidden;
  const NoRecord off;
  const Site site{o.stacks[0], -1, Part::embed};
  w.tensors[kRows] = as_file(encoded_rows(o, [&](const std::string& name) {
                               return value_at(w, label(site, "ptuning." + name));
                             }).value());
  if (o.encoder != "none")
    w.notes.push_back("PEFT's folder has the rows alone, without the encoder that made them");
}

void write_peft_prefix(PeftWriting& w) {
  const auto o = only_options<PrefixOptions>(w);
  const Arch& a = w.source.arch;
  check(!a.crosses(), "export: PEFT's prefix of an encoder-decoder is another function");
  check(!takes_no_prefix(a), "export: transformers' {} takes no prefix", a.family);
  check(o.where.count(a.layers) == a.layers && o.shift && !o.infix,
        "export: '{}'; PEFT has a prefix in all layers, with positions=shift, and no infix",
        w.source.spec);
  const std::int64_t kv = key_width(a);
  write_sizes(w, o.length, kv, a.kv_heads);
  w.config["prefix_projection"] = false;
  w.config["encoder_hidden_size"] = kv;
  const NoRecord off;
  Array rows = Array::zeros({o.length, 2 * a.layers * kv});
  for (int l = 0; l < a.layers; ++l) {
    const PrefixWeights p = prefix_weights(o, {a.stack, l, Part::attn},
                                           [&](const std::string& at) { return value_at(w, at); });
    const std::int64_t from = 2 * l * kv;
    rows.slice(1, from, from + kv).copy_from(as_file(p.keys().value()));
    rows.slice(1, from + kv, from + 2 * kv).copy_from(as_file(p.values().value()));
  }
  w.tensors[kRows] = rows;
  if (o.mlp) w.notes.push_back("the MLP is left out: PEFT's folder has what it came to");
}

void write_peft_llama_adapter(PeftWriting& w) {
  const Arch& a = w.source.arch;
  check(a.family == "llama", "export: {}", kWhyNotAdaption);
  std::vector<Options> all = parse_spec(w.source.spec);
  check(all.size() == 1, "export: '{}' has {} prompts; a folder of PEFT's has one", w.source.spec,
        all.size());
  Options& o = all[0];
  const Where layers = o.layers(a);
  const int length = o.integer("length", 10);
  check(o.text("gate", "tanh") == "linear" && layers.last == a.layers - 1,
        "export: '{}'; PEFT has gate=linear, and the uppermost layers", w.source.spec);
  check(w.source.head.empty(), "export: PEFT saves no head with ADAPTION_PROMPT");
  w.config.erase("modules_to_save");  // its configuration has none
  w.config["adapter_len"] = length;
  w.config["adapter_layers"] = layers.count(a.layers);
  w.config["target_modules"] = kAttention;
  for (int l = layers.first; l < a.layers; ++l) {
    const Site site{a.stack, l, Part::attn};
    const std::string module = attention_module(a, l);
    w.tensors[module + "adaption_prompt"] =
        as_file(value_at(w, label(site, "prompt")).value()).reshape({1, length, a.width});
    w.tensors[module + "adaption_gate"] = as_file(value_at(w, label(site, "gate")).value());
  }
}

}  // namespace graft
