// What specs of prompts get wrong; prompts in PEFT's folders, and what these cannot say.
#include <doctest/doctest.h>

#include "peft/ptuning.h"
#include "tests/peft/method_cases.h"
#include "tests/peft/peft_fixtures.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("a prompt that cannot be is refused in words") {
  const Arch decoder = small_arch(Stack::decoder), both = contract_arch(Body::both);
  contains(refusal("prompt:init=text"), "prompt: init=text needs tokens=");
  contains(refusal("prompt:init=text,text=a b"), "text= is made into tokens= by the command line");
  contains(refusal("prompt:tokens=3"), "tokens= with init=random");
  contains(refusal("prompt:init=text,tokens=3-99"), "tokens=3-99; need ids of 0..28");
  contains(refusal("prompt:init=text,tokens=3-"), "tokens=3-; need ids");
  contains(refusal("prompt:init=text,tokens=3..4"), "need ids");
  contains(refusal("prompt:init=text,tokens=3-4,length=1"), "2 rows for a length of 1");
  contains(refusal("prompt:top=5"), "top= with init=random");
  contains(refusal("prompt:in=decoder"), "unknown option 'in'");
  contains(refusal("prompt:in=x", both), "need one of encoder, decoder, both");
  contains(refusal("prefix:on=mlp"), "prefix: on=mlp; need attn");
  contains(refusal("prefix:on=cross"), "need attn");
  contains(refusal("prefix:on=cross,in=encoder", both), "is nowhere in these stacks");
  contains(refusal("prefix:mid=3"), "mid= without mlp=yes");
  contains(refusal("prefix:mlp=yes,init=text,tokens=1"), "the MLP is not fitted to words");
  contains(refusal("prefix:init=text,tokens=1.2"), "a row of tokens= has 2 ids");
  contains(refusal("prefix:init=text"), "init=text needs tokens=");
  contains(refusal("prefix:tokens=1"), "init=random has no use for tokens=");
  contains(refusal("prefix:init=text,tokens=1,std=2"), "need at least 0, and init=random");
  contains(refusal("prefix:positions=stay", both), "only relative ones");
  contains(refusal("prefix:place=infix"), "place=infix in an encoder; need a decoder alone");
  contains(refusal("prefix:place=infix", both), "place=infix in an encoder-decoder");
  contains(refusal("prefix:place=infix,layers=0", decoder), "place=infix takes all layers");
  contains(refusal("ptuning:template=3"), "need an a (or a and b)");
  contains(refusal("ptuning:template=a"), "no rows in it");
  contains(refusal("ptuning:template=3+x"), "'x' is no piece");
  contains(refusal("ptuning:template=3+"), "'' is no piece");
  contains(refusal("ptuning:template=0+a"), "'0' is no piece");
  contains(refusal("ptuning:template=3+a+a"), "may stand once each");
  contains(refusal("ptuning:template=3+a+t1"), "after it rows alone");
  contains(refusal("ptuning:template=3+a+1+b"), "without segments or a separator");
  contains(refusal("ptuning:template=a+3", decoder), "rows after a decoder's last token");
  contains(refusal("ptuning:template=a+3,in=both", both), "rows after a decoder's last token");
  CHECK(refusal("ptuning:template=a+3", both) == "(no error)");
  Arch maskless = decoder;
  maskless.mask = -1;
  contains(refusal("ptuning:template=m+3+a", maskless), "m in a model without a mask token");
  contains(refusal("ptuning:encoder=none,hidden=3"), "hidden= with encoder=none");
  contains(refusal("llama_adapter:gate=none,init=zero"), "init= with gate=none");
  contains(refusal("llama_adapter:layers=2"), "layers 0..1");
  contains(refusal("prompt:length=2|prompt:length=3"), "two methods make a parameter");
}

TEST_CASE("P-tuning's encoders give PEFT's rows") {
  for (const char* kind : {"lstm", "mlp"}) {
    CAPTURE(kind);
    const SafetensorsReader file(peft_fixture(fmt::format("encoder-{}.safetensors", kind)));
    const auto read = [&](const std::string& name) {
      Array value = Array::empty(file.at(name).shape);
      file.read_f32(name, value);
      return Tensor(value);
    };
    Arch arch = small_arch(Stack::encoder, 6);
    Options o = parse_spec(fmt::format("ptuning:template=3+a,encoder={},hidden=4", kind))[0];
    const PtuningOptions options(o, arch);
    std::size_t count = 1;  // the rows
    for (const EncoderWeight& w : encoder_weights(options, arch.width)) {
      CHECK(file.at(w.name).shape == w.shape);
      ++count;
    }
    CHECK(file.tensors().size() == count);
    CHECK(difference(encoded_rows(options, read).value(), read("rows").value()) < 1e-6);
  }
}

TEST_CASE("a PEFT folder of prompts that does not fit is refused by name") {
  const auto refused = [](const char* name, const char* base, const char* key,
                          const ordered_json& value, const std::string& why) {
    Spoilt folder(name);
    folder.set(key, value);
    CAPTURE(name);
    CAPTURE(key);
    contains(folder.error(base), why);
  };
  refused("prompt-roberta", "roberta", "task_type", nullptr, "no task_type: PEFT reads a prompt");
  refused("prompt-roberta", "roberta", "num_virtual_tokens", 4,
          "need prompt_embeddings [4, 16]; the file has [3, 16]");
  refused("prompt-roberta", "roberta", "token_dim", 8, "token_dim = 8; need at least 1, and 16");
  refused("prompt-roberta", "roberta", "num_transformer_submodules", 2,
          "submodules = 2; the model");
  refused("prompt-roberta", "roberta", "num_ranks", 2, "option num_ranks = 2 is not followed here");
  refused("prefix-llama", "llama", "num_layers", 3, "num_layers = 3; the model has 2");
  refused("prefix-llama", "t5", "num_layers", 2, "a prefix of an encoder-decoder");
  refused("prefix-roberta", "esm", "num_layers", 2, "esm takes no prefix");
  refused("adaption-llama", "llama", "adapter_len", 2, "needs adaption_prompt [1, 2, 16]");
  refused("adaption-llama", "llama", "adapter_layers", 2, "layers.0.self_attn. needs adaption");
  refused("adaption-llama", "llama", "adapter_layers", 3, "need 1 or more, 1..2");
  refused("adaption-llama", "llama", "target_modules", "mlp", "target_modules = mlp; need");
  refused("adaption-llama", "llama", "task_type", "SEQ_CLS", "PEFT saves no head");
  refused("adaption-llama", "gpt2", "adapter_layers", 1, "only LLaMA's is followed here");
  Spoilt missing("prompt-llama");
  missing.rename([](const std::string&) { return ""; },
                 [](SafetensorsWriter& w) { w.add("base_model.x", Array::full({1}, 1)); });
  const std::string all = missing.error("llama");
  contains(all, "need prompt_embeddings [2, 16]; the file has none");
  contains(all, "unexpected tensor x [1]");
}

TEST_CASE("prompts that PEFT has no words for are not written") {
  const auto refused = [](const char* base, const char* spec, const std::string& why,
                          const char* head = "", bool language = true) {
    CAPTURE(spec);
    const Ours ours(base, spec, head, "mean");
    const Folder folder;
    contains(error_of([&] { ours.write(folder / "x", language); }), why);
    CHECK_FALSE(fs::exists(folder / "x"));
  };
  refused("t5", "prompt:length=2,in=both", "PEFT has them in the encoder alone");
  refused("roberta", "prompt:length=2", "need pooled=yes", "family", false);
  refused("roberta", "prompt:length=2", "a task that it has a class for", "linear", false);
  refused("gpt2", "prompt:length=2", "a task that it has a class for", "", false);
  refused("llama", "prompt:length=2|prefix:length=2", "has no counterpart in PEFT");
  refused("llama", "ptuning:template=t1+2+a,encoder=none", "PEFT has rows at the start alone");
  refused("gpt2", "prefix:length=2,layers=1", "in all layers, with positions=shift");
  refused("gpt2", "prefix:length=2,positions=stay", "in all layers, with positions=shift");
  refused("gpt2", "prefix:length=2,place=infix", "and no infix");
  refused("t5", "prefix:length=2", "is another function");
  refused("esm", "prefix:length=2", "takes no prefix", "family", false);
  refused("llama", "llama_adapter:length=2,layers=1", "PEFT has gate=linear");
  refused("llama", "llama_adapter:length=2,gate=linear,layers=0", "and the uppermost layers");
  refused("llama", "llama_adapter:length=2,gate=linear", "PEFT saves no head", "family", false);
  refused("gpt2", "llama_adapter:length=2,gate=linear", "only LLaMA's is followed here");
}
