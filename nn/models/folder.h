// Model folders as the Hugging Face hub lays them out: config.json, model.safetensors, and the
// tokenizer beside them.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

#include "nn/files/safetensors.h"
#include "nn/model.h"
#include "nn/models/beside.h"

namespace graft {

// What a folder's config.json describes; ids of special tokens that it leaves out are taken from
// the tokenizer's files, if there are any. Throws as read_config does.
Arch load_arch(const std::filesystem::path& folder);

// The model in a folder, with its head for whole texts where config.json tells of one:
// model.safetensors, or the several files that model.safetensors.index.json lists. Throws one Error
// that names every tensor that is missing, unexpected or of the wrong shape or type.
//
// With f32 the weights are views of the mapped files, in half precision where these have it, and
// give the bits of weights widened to f32. Opening reads the headers alone (and tensors that a file
// has twice, to compare them); a weight's bytes come when they are first used, and are no memory of
// the pool. They are never written; the files may be replaced while the model lives, not changed in
// place. With f64 all weights are converted copies, and so is f64 in a file for f32.
std::unique_ptr<Model> load_model(const std::filesystem::path& folder, Dtype dtype = Dtype::f32);

// Writes a folder that load_model and transformers' from_pretrained open: the numbers that stand in
// the model's places now, without edits in its slots. dtype: f32, f16 or bf16. Throws where the
// family has no place for a parameter, or a number does not fit an f16.
//
// A model with its family's own head (heads.h) is saved as ...ForSequenceClassification, without
// what belongs to a vocabulary head; any other head with parameters is refused.
//
// With a tokenizer also tokenizer.json and tokenizer_config.json, for AutoTokenizer; without one,
// tokenizer files that stand there already stay. Other files are left alone. With the folder that
// the model was made of, `base`, also what that says of generating and of its tokenizer beyond this
// (generation.h, beside.h).
//
// Until all files are written nothing in the folder changes. Then they are put in place with
// config.json taken away first and put back last: a folder cut off in between has no config.json,
// and nothing opens it.
void save_model(Model& model, const std::filesystem::path& folder, FileDtype dtype = FileDtype::f32,
                const Tokenizer* tokenizer = nullptr, const std::filesystem::path& base = {});

}  // namespace graft
