// What a folder of the hub says of generating text, besides its model.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace graft {

struct GenerationFile {
  std::vector<int> stop;  // all ids that end a text: LLaMA 3's are several; none: not said
  // Settings there that would change a text, as "key=value": those of graft come from its options.
  std::vector<std::string> settings;
};

// Reads generation_config.json, or where there is none config.json, which used to hold the same
// keys. Throws where an end token is no id.
GenerationFile read_generation(const std::filesystem::path& folder);

// Gives a saved model the generation_config.json of the folder that it was made from, or one with
// what config.json said of generation there where the saved one has no place for it: several end
// tokens, settings that change the text. Else nothing. Throws as read_generation does.
void keep_generation(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace graft
