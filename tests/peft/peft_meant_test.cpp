// What a folder of PEFT's says in other words than graft's: the class in place of the task, the
// order of patterns, biases that a model does not have.
#include <doctest/doctest.h>

#include "tests/peft/peft_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

// The fixture without its task type, adapted as this class.
PeftAdapter of_class(const char* name, const char* base, const char* adapted) {
  Spoilt folder(name);
  folder.set("task_type", nullptr);
  folder.set("auto_mapping", {{"base_model_class", adapted}, {"parent_library", "transformers"}});
  return read_peft_folder(folder.path, load_arch(fixture(base)));
}

}  // namespace

TEST_CASE("without a task type the class that PEFT adapted says what the head is") {
  const auto head = [](const char* name, const char* base, const char* adapted) {
    return of_class(name, base, adapted).head;
  };
  const PeftHead bert = head("bert-classifier", "bert-head", "BertForSequenceClassification");
  CHECK(bert.head == "family");
  CHECK(bert.base_pooler);
  CHECK(head("roberta-dense", "roberta", "RobertaForSequenceClassification").head == "family");
  CHECK(head("llama-score", "llama", "LlamaForSequenceClassification").head == "family");
  // A class of one's own says nothing.
  CHECK(head("roberta-dense", "roberta", "MyModel").head == "dense");
  CHECK(of_class("llama-patterns", "llama", "LlamaForCausalLM").task_type == "CAUSAL_LM");
  CHECK(of_class("t5", "t5", "T5ForConditionalGeneration").task_type == "SEQ_2_SEQ_LM");
  // PEFT opens a prompt by its task alone.
  Spoilt prompt("prompt-llama");
  prompt.set("task_type", nullptr);
  prompt.set("auto_mapping", {{"base_model_class", "LlamaForCausalLM"}});
  contains(prompt.error("llama"), "no task_type");
}

TEST_CASE("of patterns that match a module the first in the file counts") {
  const auto spec = [](const ordered_json& alphas) {
    Spoilt folder("llama-patterns");
    folder.set("alpha_pattern", alphas);
    return read_peft_folder(folder.path, load_arch(fixture("llama"))).spec;
  };
  const std::string all = spec({{"q_proj", 32}, {"layers.1.self_attn.q_proj", 7}});
  CHECK(all.find("alpha=32,on=q,layers=1") != std::string::npos);
  CHECK(all.find("alpha=7") == std::string::npos);
  const std::string one = spec({{"layers.1.self_attn.q_proj", 7}, {"q_proj", 32}});
  CHECK(one.find("alpha=7,on=q,layers=1") != std::string::npos);
  CHECK(one.find("alpha=32,on=q,layers=0") != std::string::npos);
}

TEST_CASE("biases that a model does not have are none, whatever the folder says") {
  for (const char* bias : {"all", "lora_only"}) {
    CAPTURE(bias);
    Spoilt folder("llama-patterns");
    folder.set("bias", bias);
    Adapted adapted(folder.path, "llama");
    CHECK(adapted.read.spec.find("bias") == std::string::npos);
  }
}

TEST_CASE("biases that train beside an adapted embedding are in the folder's configuration") {
  const Ours ours("gpt2", "lora:r=1,on=embed,bias=all");
  const Folder folder;
  (void)ours.write(folder.path, true);
  const auto config = nlohmann::json::parse(read_file(folder / "adapter_config.json"));
  CHECK(config.at("bias") == "all");
  const Adapted again(folder.path, "gpt2");
  for (const auto& p : ours.parameters)
    CHECK(same_bits(again.read.values.at(p->label()), p->value.value()));
}

TEST_CASE("a table that no stack of an encoder-decoder would read is not saved for PEFT") {
  for (const char* base : {"t5", "t5-gated"}) {
    const Folder folder;
    const Ours ours(base, "lora:r=1,on=q,save=embed");
    contains(error_of([&] { ours.write(folder.path, true); }), "neither stack reads");
    CHECK(folder.entries() == 0);
  }
}
